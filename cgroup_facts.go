//go:build linux

package container

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file finds out which cgroups are the caller's to divide. It runs in the caller's process and only reads.
//
// That a directory can be written says little: the user's systemd makes all of its cgroups as that user, and sees to them itself.
// The system's marks those that it has given away by an extended attribute (user.delegate since systemd 251, and
// trusted.delegate, which only root can read, since 245). The user's marks none (as of 258) and has to be asked.

// placeFacts are what a decision about a place rests on.
type placeFacts struct {
	root    bool   // the host's root, which may write everywhere
	systemd bool   // is process 1
	own     string // the caller's own cgroup; "" if it is not seen
	treeErr error  // why there is no tree
	// chain lists a cgroup and those above it, up to the top of what the caller sees. It begins with the first that is there.
	chain func(path string) []cgroupLevel
	// gives asks the user's systemd whether it has given the cgroup of a unit to the unit. Nil: there is none to ask.
	gives func(unit string) bool
}

// A cgroupLevel is a cgroup that is there, as the caller finds it.
type cgroupLevel struct {
	path      string
	mine      bool // the caller may make cgroups in it, move processes and enable controllers
	delegated bool // systemd has given it away
	managed   bool // a systemd lives in it: what is below is that one's
	treeRoot  bool // it is the root of the tree itself
	last      bool // it is the root of the caller's cgroup namespace, or of the mount: nothing above is seen
}

func askPlaceFacts() *placeFacts {
	f := &placeFacts{root: os.Geteuid() == 0 && !nested(), systemd: systemdRuns()}
	tree, err := findCgroupTree()
	if err != nil {
		f.treeErr = err
	}
	f.chain = func(path string) []cgroupLevel { return tree.chain(path) }
	if own := cgroupOf(os.Getpid()); err == nil && tree.shows(own) {
		f.own = own
	}
	if f.systemd && !f.root {
		f.gives = userUnitDelegates
	}
	return f
}

// systemdRuns is sd_booted(3).
func systemdRuns() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}

// shows tells whether a cgroup is in the part of the tree that is mounted.
func (t cgroupTree) shows(cgroup string) bool {
	rest, ok := strings.CutPrefix(cgroup, t.root)
	return ok && t.mount != "" && (rest == "" || rest[0] == '/') && !strings.HasPrefix(cgroup, "/..")
}

// top is the cgroup that is mounted.
func (t cgroupTree) top() string { return path.Join("/", t.root) }

// chain is placeFacts.chain.
func (t cgroupTree) chain(cgroup string) []cgroupLevel {
	var levels []cgroupLevel
	for p := cgroup; t.shows(p); p = path.Dir(p) {
		dir, err := t.open(p)
		if err == nil {
			levels = append(levels, newCgroupLevel(p, dir))
			levels[len(levels)-1].last = p == t.top()
			dir.Close()
		}
		if err != nil && (len(levels) > 0 || !errors.Is(err, unix.ENOENT)) {
			break
		}
		if p == t.top() {
			break
		}
	}
	return levels
}

func newCgroupLevel(p string, dir *os.File) cgroupLevel {
	fd := int(dir.Fd())
	there := func(name string) bool { return unix.Faccessat(fd, name, unix.F_OK, 0) == nil }
	l := cgroupLevel{path: p, managed: there("init.scope"), treeRoot: !there("cgroup.type"), mine: true}
	for _, name := range []string{".", "cgroup.procs", "cgroup.subtree_control"} {
		if unix.Faccessat(fd, name, unix.W_OK, unix.AT_EACCESS) != nil {
			l.mine = false
		}
	}
	// Root may write everywhere, but what has been given to a user is the user's: that one could stop and kill what is in it.
	var st unix.Stat_t
	if os.Geteuid() == 0 && (unix.Fstat(fd, &st) != nil || st.Uid != 0) {
		l.mine = false
	}
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		if n, err := unix.Fgetxattr(fd, name, value[:]); err == nil && string(value[:n]) == "1" {
			l.delegated = true
		}
	}
	return l
}

func (f *placeFacts) ownParent() string { return ownParent(f.own) }

// ownParent is the caller's own cgroup, or the one above if the caller has been moved out of that to make room.
func ownParent(own string) string {
	if path.Base(own) == callersLeaf {
		return path.Dir(own)
	}
	return own
}

// delegated returns the caller's own cgroup, if it has been given to the caller.
func (f *placeFacts) delegated() (own string, ok bool) {
	if f.own == "" {
		return "", false
	}
	own = f.ownParent()
	levels := f.chain(own)
	return own, len(levels) > 0 && levels[0].path == own && f.given(levels) != ""
}

// given returns the highest of the levels, the first of which is the lowest, that has been given to the caller with all
// that is below; "" if the first has not been.
func (f *placeFacts) given(levels []cgroupLevel) (top string) {
	for i, l := range levels {
		switch {
		case !l.mine || l.treeRoot:
			// Without systemd nothing tells but the right to write. Root always has that, so it says nothing.
			if f.systemd || f.root {
				return ""
			}
			return top
		case l.managed:
			return f.givenByManager(levels[:i])
		case l.delegated:
			return l.path
		case l.last: // whoever made the namespace has given it
			return l.path
		}
		top = l.path
	}
	return ""
}

// givenByManager is given for levels below a systemd's own cgroup. A unit's is the first below that is no slice.
func (f *placeFacts) givenByManager(levels []cgroupLevel) string {
	for _, l := range slices.Backward(levels) {
		unit := path.Base(l.path)
		if strings.HasSuffix(unit, ".slice") {
			continue
		}
		if f.gives != nil && f.gives(unit) {
			return l.path
		}
		break
	}
	return ""
}

// top is the cgroup from where on the caller enables controllers, for a parent that is given by its name.
func (f *placeFacts) top(levels []cgroupLevel) string {
	if top := f.given(levels); top != "" {
		return top
	}
	top := ""
	for _, l := range levels {
		if !l.mine && !f.root {
			break
		}
		top = l.path
	}
	if top == "" && len(levels) > 0 { // nothing of it is the caller's, and prepare will say so
		top = levels[0].path
	}
	return top
}

const (
	remedyLinger = "as root: loginctl enable-linger USER, then log in again"
	remedyManage = "set Cgroup.Parent to a cgroup that has been given to the caller"
)

// noPlace says why the caller has none.
func (f *placeFacts) noPlace() error {
	remedy := "as root: mkdir DIR in the tree of cgroups, chown it and the files that /sys/kernel/cgroup/delegate lists, and move the program there; or " + remedyManage
	if f.systemd {
		remedy = remedyDelegate + "; or set Cgroup.Manager to CgroupSystemd"
	}
	return &Error{Op: "cgroup", Path: f.own, Err: ErrUnsupported, Remedy: "the caller's own cgroup has not been delegated to it: " + remedy}
}
