//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file says what has failed in a start, and what the user can do about it. It runs in the caller's process.

// startError is for what failed before there was a process.
func startError(err error) error {
	e := &Error{Op: "start", Err: err}
	switch {
	case errors.Is(err, unix.EPERM):
		e.Remedy = "without root the container needs a user namespace: set Namespaces.NewUser"
	case errors.Is(err, unix.ENOSPC):
		e.Remedy = "a limit on namespaces is reached: see /proc/sys/user/max_*_namespaces"
	}
	return e
}

// stepError turns the failure of a call of the launcher into an Error that says what the user asked
// for, and what to do about it.
func stepError(err error) error {
	var e *launch.Error
	if !errors.As(err, &e) {
		return &Error{Op: "start", Err: err}
	}
	out := &Error{Op: e.Step.Name, Path: e.Step.Object, Err: os.NewSyscallError(e.Syscall, e.Errno)}
	if e.Syscall == "sub" { // a verification of ours
		out.Err = e.Errno
	}
	switch e.Step.Name {
	case hookStep(hookCreateContainer), hookStep(hookStartContainer):
		out.Err = hookError(e, out.Err)
	case "executable":
		out.Op, out.Err = "execute", fmt.Errorf("%w: %w", ErrNotFound, e.Errno)
		if e.Errno == unix.EACCES {
			out.Err = fmt.Errorf("%w: %w", ErrNotExecutable, e.Errno)
		}
	case "execute":
		out.Err = fmt.Errorf("%w: %w", ErrNotExecutable, e.Errno)
		if e.Errno == unix.ENOENT {
			out.Err = fmt.Errorf("%w: its interpreter is missing: %w", ErrNotFound, e.Errno)
		}
	}
	for _, r := range remedies {
		if (r.step == "" || r.step == e.Step.Name) && (r.call == "" || r.call == e.Syscall) && r.errno == e.Errno {
			out.Remedy = r.text
			break
		}
	}
	return out
}

// remedies says what the user can do about a failed call. The first row that fits is taken.
var remedies = []struct {
	step, call string
	errno      unix.Errno
	text       string
}{
	{"user namespace", "unshare", unix.EPERM, "user namespaces are not allowed here: see kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, and Check"},
	{"user namespace", "unshare", unix.ENOSPC, "the limit on user namespaces is reached: sysctl user.max_user_namespaces, or too deeply nested"},
	{"user namespace", "openat2", unix.EACCES, "/proc must be mounted and writable for the caller"},
	{"namespaces", "unshare", unix.EPERM, "without root the container needs a user namespace: set Namespaces.NewUser"},
	{"namespaces", "unshare", unix.ENOSPC, "a limit on namespaces is reached: see /proc/sys/user/max_*_namespaces"},
	{"keyring", "", unix.EDQUOT, "the user has too many keys: sysctl kernel.keys.maxkeys, or set HostKeyring"},
	{"mount source", "open_tree", unix.EINVAL, "in a user namespace a bind must bring the mounts below its source: set Recursive"},
	{"mount source", "mount_setattr", unix.EPERM, "in a user namespace the flags of a mount of the host's cannot be removed"},
	{"mount", "sub", unix.EXDEV, "a symbolic link in the root leads this target into /proc or /sys"},
	{"mount", "move_mount", unix.EINVAL, "a directory is mounted on a directory, a file on a file"},
	{"mount", "fsconfig", unix.EPERM, "the kernel shows this file system only where the host's is fully visible, and with a namespace of the container's own"},
	{"root", "open_tree", unix.EACCES, aboveReachable},
	{"mount source", "open_tree", unix.EACCES, aboveReachable},
	{"", "", unix.EROFS, "it would have to be made in a read-only file system; make it beforehand or use CopyOnWrite"},
	{"console", "", unix.ENODEV, "the container must have a devpts at /dev/pts"},
	{"console", "openat2", unix.EACCES, "the devpts at /dev/pts must let its ptmx be opened: mount it with ptmxmode=0666"},
	{"console", "ioctl", unix.ENOSPC, "there are too many terminals: sysctl kernel.pty.max"},
	{"console", "openat2", unix.ENOSPC, "there are too many terminals: sysctl kernel.pty.max"},
	{"device", "mknodat", unix.EPERM, "making nodes needs CAP_MKNOD; with Namespaces.NewUser the host's are bound"},
	{"oom score", "", unix.EACCES, "lowering it needs CAP_SYS_RESOURCE"},
	{"capabilities", "capset", unix.EPERM, "the caller does not have all of the permitted capabilities"},
	{"bounding set", "", unix.EPERM, "dropping capabilities needs CAP_SETPCAP"},
	{"rlimit", "", unix.EPERM, "raising a hard limit needs CAP_SYS_RESOURCE on the host"},
}

const aboveReachable = "the container's root user, as who it is on the host, must be able to enter all directories above: chmod o+x"
