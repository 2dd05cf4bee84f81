//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/container/internal/launch"
)

// This file checks what there is of cgroup v2 for the caller.

// ownCgroup is the cgroup of the caller's process in the v2 tree.
type ownCgroup struct {
	dir    string // as a directory; "" if there is none, or it cannot be seen
	path   string // as /proc/self/cgroup has it; "" if the kernel has no v2 tree
	hybrid bool   // v1 has controllers, too
	mount  string // where the tree is mounted; "" if it is not
}

func findOwnCgroup() ownCgroup {
	var c ownCgroup
	own, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return c
	}
	defer own.Close()
	c.path, c.hybrid = parseOwnCgroup(own)
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return c
	}
	defer info.Close()
	root, mount := findCgroup2(info)
	c.mount = mount
	if rel, ok := strings.CutPrefix(c.path, strings.TrimSuffix(root, "/")); ok && mount != "" && c.path != "" {
		c.dir = filepath.Join(mount, rel)
		if _, err := os.Stat(c.dir + "/cgroup.procs"); err != nil && c.path != "/" {
			c.dir = "" // the mount shows another part of the tree
		}
	}
	return c
}

// parseOwnCgroup reads /proc/self/cgroup: the path in the v2 tree, and whether there is a v1 tree with
// controllers.
func parseOwnCgroup(r io.Reader) (path string, hybrid bool) {
	text, _ := io.ReadAll(r)
	for line := range strings.Lines(string(text)) {
		line, _ = strings.CutSuffix(line, "\n") // and nothing else: a name may end with any other character
		id, rest, _ := strings.Cut(line, ":")
		controllers, p, ok := strings.Cut(rest, ":")
		switch {
		case !ok:
		case id == "0" && controllers == "":
			path = p
		case !strings.HasPrefix(controllers, "name="):
			hybrid = true
		}
	}
	return path, hybrid
}

// findCgroup2 returns the first mount of cgroup v2 in mountinfo: which part of the tree, and where.
func findCgroup2(r io.Reader) (root, mount string) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Split(before, " ")
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) >= 5 {
			return unescapeMountinfo(fields[3]), unescapeMountinfo(fields[4])
		}
	}
	return "", ""
}

// unescapeMountinfo undoes the octal escapes of proc_pid_mountinfo(5).
var unescapeMountinfo = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

const remedyUnified = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"

func checkCgroup(h *host) CheckResult {
	switch c := h.cgroup; {
	case c.mount == "" || c.path == "":
		return missing("as root: mount -t cgroup2 cgroup2 /sys/fs/cgroup; or "+remedyUnified, "not mounted: no limits, no statistics, no pause")
	case c.hybrid:
		return missing(remedyUnified, "at %s, but version 1 has taken controllers: containers have only what is left", c.mount)
	default:
		return found("at %s", c.mount)
	}
}

const remedyDelegate = "start this program with: systemd-run --user --scope -p Delegate=yes -- PROGRAM"

// cgroupHost is what the checks about cgroups look at.
type cgroupHost struct {
	place    cgroupPlace // of a container with the zero CgroupConfig
	placeErr error
	mine     bool // the caller's own cgroup is its to divide

	// The manager of units that would make the caller's scopes.
	systemd    bool // it is process 1
	systemdErr error
	managed    string // the cgroup of the manager
	user       bool
}

func findCgroupHost() cgroupHost {
	f := askPlaceFacts()
	h := cgroupHost{systemd: f.systemd, user: !f.root}
	h.place, h.placeErr = (&CgroupConfig{}).decide(f, "check", "/")
	if levels := f.chain(f.own); f.own != "" && len(levels) > 0 {
		h.mine = levels[0].path == f.own && levels[0].mine
	}
	if !f.systemd {
		return h
	}
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	var s *systemdConn
	if s, h.systemdErr = dialSystemd(ctx, h.user); h.systemdErr == nil {
		h.managed, h.systemdErr = s.controlGroup()
		s.close()
	}
	return h
}

// missingFor is the result for an error that says what to do.
func missingFor(err error, remedy string) CheckResult {
	var e *Error
	if errors.As(err, &e) && e.Remedy != "" {
		return missing(e.Remedy, "%v", e.Err)
	}
	return missing(remedy, "%v", err)
}

// checkSystemd: systemd can be asked for scopes.
func checkSystemd(h *host) CheckResult {
	c := h.cgroups
	which := map[bool]string{true: "the user's", false: "the system's"}[c.user]
	switch {
	case !c.systemd:
		return missing("without it, cgroups are made in the file system: leave Cgroup.Manager empty", "does not run here: no scopes")
	case c.systemdErr != nil:
		return missingFor(c.systemdErr, remedyLinger)
	}
	return found("%s answers", which)
}

// checkCgroupPlace: there is a place for the containers' cgroups.
func checkCgroupPlace(h *host) CheckResult {
	c := h.cgroups
	switch p := c.place; {
	case c.placeErr != nil:
		r := missingFor(c.placeErr, remedyFirst)
		r.Detail += ": no limits, no statistics, no pause"
		return r
	case p.Unit != "" && c.systemdErr != nil:
		return missing(remedyDelegate, "the caller's own cgroup %s has not been delegated to it, and systemd is not to be asked: no limits, no statistics, no pause", h.cgroup.path)
	case p.Unit != "":
		return found("in scopes of systemd, in %s; the caller's own, %s, has not been delegated to it", p.Slice, h.cgroup.path)
	case p.Shared:
		return found("below the caller's own, %s, which has been delegated to it", p.Parent)
	case unix.Access(h.cgroup.mount, unix.W_OK) != nil:
		return missing("mount it read-write: mount -o remount,rw "+h.cgroup.mount, "%s cannot be written to: no limits, no statistics, no pause", h.cgroup.mount)
	default:
		return found("below %s", p.Parent)
	}
}

// checkCgroupBirth: a process can be born in a cgroup, so that it is never outside for a moment. It is
// tried with the caller's own one.
func checkCgroupBirth(h *host) CheckResult {
	switch {
	case h.cgroups.placeErr != nil || h.cgroup.dir == "":
		return missing(remedyFirst, "not tried: there is no place for a cgroup")
	case !h.cgroups.mine && h.cgroups.place.Unit != "":
		return found("not tried: in a login session the kernel forbids it, and systemd moves the launcher before it begins")
	}
	dir, err := unix.Open(h.cgroup.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return missing(remedyFirst, "%s: %v", h.cgroup.dir, err)
	}
	defer unix.Close(dir)
	p := launch.New(0)
	p.Exit(0)
	child, err := p.Start(&launch.Attr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}, TempDir: os.TempDir()})
	if err != nil {
		return missing(remedyKernel+"; "+remedyOuter, "clone3 with CLONE_INTO_CGROUP: %v", err)
	}
	child.Process().Wait()
	child.Release()
	return found("allowed")
}

const remedyControllers = `as root: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\nDelegate=cpu cpuset io memory pids\n' ` +
	`> /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload, then log in again`

// checkCgroupControllers: what limits can be set on, where the containers' cgroups are made.
func checkCgroupControllers(h *host) CheckResult {
	top := h.cgroups.place.Top
	if h.cgroups.place.Unit != "" {
		top = h.cgroups.managed
	}
	tree, err := findCgroupTree()
	if err != nil || top == "" {
		return missing(remedyFirst, "there is no place for a cgroup")
	}
	dir, err := tree.open(top)
	if err != nil {
		return missing(remedyFirst, "%v", err)
	}
	defer dir.Close()
	have, err := (&Cgroup{dir: dir, path: top}).words("cgroup.controllers")
	if err != nil {
		return missing(remedyFirst, "%v", err)
	}
	return tree.compareControllers(top, have)
}

// compareControllers says what is missing among the controllers that a place has.
func (t cgroupTree) compareControllers(top string, have []string) CheckResult {
	var lacks []string
	for _, name := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(have, name) {
			lacks = append(lacks, name)
		}
	}
	if len(lacks) == 0 {
		return found("%s", strings.Join(have, " "))
	}
	return missing(t.whyNoController(lacks[0], top), "no %s: no limits on these", strings.Join(lacks, ", "))
}
