//go:build linux

package container

import (
	"bufio"
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
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		id, rest, _ := strings.Cut(lines.Text(), ":")
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
		fields := strings.Fields(before)
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

// checkCgroupDelegation: cgroups can be made below the caller's own, and processes moved there.
func checkCgroupDelegation(h *host) CheckResult {
	c := h.cgroup
	if c.dir == "" {
		return missing(remedyFirst, "not found in /proc/self/mountinfo")
	}
	remedy := remedyDelegate
	if h.euid == 0 {
		remedy = "mount it read-write: mount -o remount,rw " + c.mount
	}
	for _, name := range []string{"", "/cgroup.procs", "/cgroup.subtree_control"} {
		err := unix.Faccessat(unix.AT_FDCWD, c.dir+name, unix.W_OK, unix.AT_EACCESS)
		if errors.Is(err, unix.ENOENT) && c.path == "/" {
			continue // the root of the tree lacks some files
		}
		if err != nil {
			return missing(remedy, "%s is not the caller's: %v: no limits, no statistics, no pause", c.dir+name, err)
		}
	}
	return found("%s can be divided", c.dir)
}

// checkCgroupBirth: a process can be born in a cgroup, so that it is never outside for a moment. It is
// tried with the caller's own one.
func checkCgroupBirth(h *host) CheckResult {
	if r := checkCgroupDelegation(h); !r.OK {
		return missing(remedyFirst, "not tried: there is no cgroup of the caller's own")
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

// checkCgroupControllers: what limits can be set on.
func checkCgroupControllers(h *host) CheckResult {
	c := h.cgroup
	if c.dir == "" {
		return missing(remedyFirst, "the own cgroup is not known")
	}
	b, err := os.ReadFile(c.dir + "/cgroup.controllers")
	if err != nil {
		return missing(remedyFirst, "%v", err)
	}
	have := strings.Fields(string(b))
	var lacks []string
	for _, name := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(have, name) {
			lacks = append(lacks, name)
		}
	}
	if len(lacks) == 0 {
		return found("%s", strings.Join(have, " "))
	}
	remedy := `as root: mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\nDelegate=cpu cpuset io memory pids\n' ` +
		`> /etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload, then log in again`
	switch {
	case c.hybrid:
		remedy = remedyUnified
	case h.euid == 0:
		remedy = "enable them from the root down: echo '+" + strings.Join(lacks, " +") + "' > " + filepath.Dir(c.dir) + "/cgroup.subtree_control"
	}
	return missing(remedy, "no %s: no limits on these", strings.Join(lacks, ", "))
}
