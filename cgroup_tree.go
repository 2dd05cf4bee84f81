//go:build linux

package container

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file finds cgroups in the tree of version 2, and opens their files. It runs in the caller's process. Everything is
// opened beneath the tree's mount, following no links and crossing into no other file system, and nothing is
// ever created by opening: a limit that lands in a plain file limits nobody.

// cgroupTree is where the tree of version 2 is mounted for the caller.
type cgroupTree struct {
	mount string // the directory
	root  string // the cgroup that it shows, as /proc/PID/cgroup has it; mostly "/"
}

const remedyNoTree = "as root: mount -t cgroup2 cgroup2 /sys/fs/cgroup"

// findCgroupTree asks /proc/self/mountinfo.
func findCgroupTree() (cgroupTree, error) {
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return cgroupTree{}, &Error{Op: "cgroup", Err: err}
	}
	defer info.Close()
	root, mount := findCgroup2(info)
	if mount == "" {
		return cgroupTree{}, &Error{Op: "cgroup", Err: ErrUnsupported, Remedy: "no mount of cgroup v2 is seen: " + remedyNoTree}
	}
	return cgroupTree{mount: mount, root: strings.TrimSuffix(root, "/")}, nil
}

// open opens a cgroup by its path as /proc/PID/cgroup has it.
func (t cgroupTree) open(path string) (*os.File, error) {
	fail := func(err error, remedy string) (*os.File, error) {
		return nil, &Error{Op: "cgroup", Path: path, Err: err, Remedy: remedy}
	}
	below, ok := strings.CutPrefix(path, t.root)
	if !ok {
		return fail(ErrUnsupported, "no mount of cgroup v2 shows this cgroup: "+remedyNoTree)
	}
	tree, err := unix.Open(t.mount, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err, "")
	}
	defer unix.Close(tree)
	fd, err := openBelowCgroup(tree, "."+strings.TrimSuffix("/"+strings.Trim(below, "/"), "/"), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil { // EXDEV for a path that begins with "/..": it is not in the caller's cgroup namespace
		remedy := ""
		if errors.Is(err, unix.EXDEV) {
			remedy = "it is outside of the caller's cgroup namespace"
		}
		return fail(err, remedy)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openBelowCgroup opens what is beneath an open cgroup.
func openBelowCgroup(dir int, name string, flags int) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	return openRetry(func() (int, error) { return unix.Openat2(dir, name, &how) })
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

// otherCgroup opens the cgroup of a process, unless it is the caller's own: then it returns nil.
func otherCgroup(pid int) (*os.File, error) {
	path := cgroupOf(pid)
	if path == "" || path == cgroupOf(os.Getpid()) {
		return nil, nil
	}
	tree, err := findCgroupTree()
	if err != nil {
		return nil, err
	}
	return tree.open(path)
}

// maxCgroupFile bounds what is read of a file of the kernel's.
const maxCgroupFile = 1 << 20

// readFile returns the text of one of the cgroup's files. It returns fs.ErrNotExist if the kernel has no such file, or the
// controller is not enabled.
func (c *Cgroup) readFile(name string) (string, error) {
	fd, err := openBelowCgroup(int(c.dir.Fd()), name, unix.O_RDONLY)
	if err == nil {
		f := os.NewFile(uintptr(fd), name)
		defer f.Close()
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(f, maxCgroupFile)); err == nil {
			return string(text), nil
		}
	}
	return "", c.fileError(name, err)
}

// writeFile writes to one of the cgroup's files, in one write(2).
func (c *Cgroup) writeFile(name, text string) error {
	fd, err := openBelowCgroup(int(c.dir.Fd()), name, unix.O_WRONLY)
	if err == nil {
		defer unix.Close(fd)
		for {
			if _, err = unix.Write(fd, []byte(text)); err == nil {
				return nil
			}
			if err != unix.EINTR {
				break
			}
		}
	}
	return c.fileError(name, err)
}

// errCgroupGone is what the methods of a Cgroup return that has been removed. It is ErrNotExist.
var errCgroupGone error = &sentinel{"the cgroup has been removed", ErrNotExist}

// removed tells whether the cgroup has been removed: every cgroup has this file.
func (c *Cgroup) removed() bool {
	return unix.Faccessat(int(c.dir.Fd()), "cgroup.controllers", unix.F_OK, 0) == unix.ENOENT
}

// fileError completes the error of one of the cgroup's files.
func (c *Cgroup) fileError(name string, err error) error {
	var own *fs.PathError
	if errors.As(err, &own) {
		err = own.Err
	}
	if (errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)) && c.removed() { // io.max says ENODEV of a disk
		err = errCgroupGone
	}
	return &Error{Op: "cgroup", Path: c.path + "/" + name, Err: err}
}
