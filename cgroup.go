//go:build linux

package container

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file finds the cgroup that a process is in, in the v2 tree. It runs in the caller's process.

// otherCgroup opens the cgroup of a process, unless it is the caller's own: then it returns nil.
func otherCgroup(pid int) (*os.File, error) {
	path := cgroupOf(pid)
	if path == "" || path == cgroupOf(os.Getpid()) {
		return nil, nil
	}
	return openCgroup(path)
}

// openCgroup opens a cgroup by its path in the tree.
func openCgroup(path string) (*os.File, error) {
	fail := func(err error, remedy string) (*os.File, error) {
		return nil, &Error{Op: "cgroup", Path: path, Err: err, Remedy: remedy}
	}
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fail(err, "")
	}
	root, mount := findCgroup2(info)
	info.Close()
	below, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	if mount == "" || !ok {
		return fail(ErrUnsupported, "the container is in another cgroup than the caller, and no mount of cgroup v2 shows it: as root, mount -t cgroup2 cgroup2 /sys/fs/cgroup")
	}
	tree, err := unix.Open(mount, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err, "")
	}
	defer unix.Close(tree)
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := openRetry(func() (int, error) {
		return unix.Openat2(tree, "."+strings.TrimSuffix("/"+strings.Trim(below, "/"), "/"), &how)
	})
	if err != nil { // EXDEV for a path that begins with "/..": it is not in the caller's cgroup namespace
		return fail(err, "the container is in a cgroup that the caller does not see")
	}
	return os.NewFile(uintptr(fd), path), nil
}

// cgroupFrozen tells whether the processes of an open cgroup are stopped.
func cgroupFrozen(dir *os.File) bool {
	fd, err := unix.Openat(int(dir.Fd()), "cgroup.events", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // the root of the tree cannot be frozen
	}
	defer unix.Close(fd)
	var text [256]byte
	n, _ := unix.Read(fd, text[:])
	return strings.Contains(string(text[:max(n, 0)]), "frozen 1\n")
}

// frozen tells whether a process is stopped by its cgroup, that is, paused. The caller is not, and so
// nothing in the same cgroup is.
func frozen(pid int) bool {
	dir, err := otherCgroup(pid)
	if err != nil || dir == nil {
		return false
	}
	defer dir.Close()
	return cgroupFrozen(dir)
}

// cgroupOf is the cgroup of a process in the v2 tree, as the caller sees it; empty if there is none, or the
// process has ended.
func cgroupOf(pid int) string {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	defer f.Close()
	path, _ := parseOwnCgroup(f)
	return path
}
