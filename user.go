//go:build linux

package container

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file turns a user by name or number into ids, with the container's own passwd and group. It
// runs in the caller's process before the container is there. Both files are hostile: whoever made the
// image wrote them.

// The bounds on passwd and group: of a file, of a line, and of lines and a user's groups (NGROUPS_MAX).
const (
	maxAccountFile  = 1 << 20
	maxAccountLine  = 64 << 10
	maxAccountLines = 65536
)

// execUser is who a process runs as, in ids of the container.
type execUser struct {
	uid, gid uint32
	groups   []uint32 // all of them, the primary one first
	home     string   // "/" if passwd does not say
}

// resolveUser resolves Process.User and Process.AdditionalGroups:
//
//	""            "0"
//	"name"        uid, gid and home of passwd, and the groups that list the name
//	"uid"         gid and home of passwd if it has the uid, else 0 and "/"; no more groups
//	"user:group"  the group, by name or number, and no more groups, as Docker does it
//
// What consists of digits is a number and never looked up as a name (CVE-2016-3697). The primary group
// always is among the groups: else a file that denies it something would not (CVE-2022-36109).
// Complaints are FieldErrors.
func resolveUser(v *rootView, user string, additional []string) (execUser, error) {
	files := make(map[string][]byte) // each is read once
	return accounts{func(path string) ([]byte, error) {
		text, ok := files[path]
		if ok {
			return text, nil
		}
		text, err := v.readFile(path, maxAccountFile)
		if err == nil {
			files[path] = text
		}
		return text, err
	}}.resolve(user, additional)
}

// accounts are the passwd and group files of a root.
type accounts struct {
	read func(path string) ([]byte, error)
}

func (a accounts) resolve(user string, additional []string) (execUser, error) {
	if user == "" {
		user = "0"
	}
	name, group, hasGroup := strings.Cut(user, ":")
	err := checkAccount(name)
	if err == nil && hasGroup {
		err = checkAccount(group)
	}
	if err != nil {
		return execUser{}, fieldErrorf("User", "%q is not a user, such as \"www-data\", \"1000\" or \"1000:1000\": %v", user, err)
	}

	u := execUser{home: "/"}
	entry, found, err := a.user(name)
	if err != nil {
		return execUser{}, err
	}
	byName := !isDigits(name)
	switch {
	case found:
		u = execUser{uid: entry.uid, gid: entry.gid, home: entry.home}
	case byName:
		return execUser{}, fieldErrorf("User", "no user %q in the container's /etc/passwd; name one that is there, or use a number", name)
	default:
		u.uid, _ = parseID(name) // checked above
	}
	if hasGroup {
		gid, ok, err := a.group("User", group)
		if err != nil {
			return execUser{}, err
		}
		if !ok {
			return execUser{}, fieldErrorf("User", "no group %q in the container's /etc/group; name one that is there, or use a number", group)
		}
		u.gid = gid
	}

	u.groups = []uint32{u.gid}
	if byName && !hasGroup {
		more, err := a.memberships(name)
		if err != nil {
			return execUser{}, err
		}
		u.groups = append(u.groups, more...)
	}
	var errs fieldErrors
	for i, g := range additional {
		field := index("AdditionalGroups", i)
		if err := checkAccount(g); err != nil {
			errs.addf(field, "%q is not a group: %v", g, err)
			continue
		}
		gid, ok, err := a.group(field, g)
		switch {
		case err != nil:
			return execUser{}, err
		case !ok:
			errs.addf(field, "no group %q in the container's /etc/group; name one that is there, or use a number", g)
		default:
			u.groups = append(u.groups, gid)
		}
	}
	if len(errs) > 0 {
		return execUser{}, errs.join()
	}
	u.groups = unique(u.groups)
	if len(u.groups) > maxAccountLines {
		return execUser{}, fieldErrorf("AdditionalGroups", "%d groups are more than the %d that the kernel takes", len(u.groups), maxAccountLines)
	}
	return u, nil
}

// passwdEntry is what counts of a line of passwd.
type passwdEntry struct {
	uid, gid uint32
	home     string
}

// user finds a name, or a number, in passwd. The first line that has it counts.
func (a accounts) user(name string) (entry passwdEntry, found bool, err error) {
	id, _ := parseID(name)
	byName := !isDigits(name)
	err = a.lines("/etc/passwd", func(f []string) error {
		if found || len(f) < 4 || byName && f[0] != name {
			return nil
		}
		uid, err1 := parseID(f[2])
		gid, err2 := parseID(f[3])
		if !byName && (err1 != nil || uid != id) {
			return nil
		}
		if err := errors.Join(err1, err2); err != nil {
			return fieldErrorf("User", "the line of %q in the container's /etc/passwd has no valid ids: use numbers, \"uid:gid\"", name)
		}
		found, entry = true, passwdEntry{uid, gid, "/"}
		if len(f) > 5 && strings.HasPrefix(f[5], "/") && !strings.ContainsFunc(f[5], isControl) {
			entry.home = f[5]
		}
		return nil
	})
	return entry, found, err
}

// group returns the id of a group by name or number, for a field of the Process.
func (a accounts) group(field, name string) (gid uint32, found bool, err error) {
	if isDigits(name) {
		gid, err := parseID(name)
		return gid, err == nil, nil
	}
	err = a.lines("/etc/group", func(f []string) error {
		if found || len(f) < 3 || f[0] != name {
			return nil
		}
		id, err := parseID(f[2])
		if err != nil {
			return fieldErrorf(field, "the line of %q in the container's /etc/group has no valid id: use a number", name)
		}
		gid, found = id, true
		return nil
	})
	return gid, found, err
}

// memberships returns the groups that list a user. Lines without a valid id are passed over.
func (a accounts) memberships(user string) (groups []uint32, err error) {
	err = a.lines("/etc/group", func(f []string) error {
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			return nil
		}
		if gid, err := parseID(f[2]); err == nil {
			groups = append(groups, gid)
		}
		return nil
	})
	return groups, err
}

// lines calls f with the fields of each line of a file. A file that is missing has none.
func (a accounts) lines(path string, f func(fields []string) error) error {
	text, err := a.read(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return &FieldError{Field: "User", Problem: "cannot be looked up in the container's " + path, Err: err}
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if n++; n > maxAccountLines || len(line) > maxAccountLine {
			return &FieldError{Field: "User", Problem: "cannot be looked up in the container's " + path, Err: errTooLarge}
		}
		if err := f(strings.Split(strings.TrimSuffix(line, "\n"), ":")); err != nil {
			return err
		}
	}
	return nil
}

// checkAccount tells what is wrong with a user or group as the caller names it.
func checkAccount(s string) error {
	switch {
	case s == "":
		return errors.New("the name is empty")
	case isDigits(s):
		if _, err := parseID(s); err != nil {
			return errors.New("a number must be at most " + strconv.Itoa(maxID))
		}
	case strings.ContainsAny(s[:1], "-+") || len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool {
		return isControl(r) || r == ' ' || r == ':' || r == ',' || r == '/'
	}):
		return errors.New("this cannot be a name")
	}
	return nil
}

// unique leaves out what has come before, and keeps the order.
func unique(ids []uint32) []uint32 {
	seen := make(map[uint32]bool, len(ids))
	return slices.DeleteFunc(ids, func(id uint32) bool {
		before := seen[id]
		seen[id] = true
		return before
	})
}
