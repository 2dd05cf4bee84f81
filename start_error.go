//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"strings"

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
	{"network", "sub", unix.ENOENT, "NetworkModeEgress needs nf_tables with tproxy and reject: the modules nft_tproxy and nft_reject_inet"},
	{"network", "sub", unix.EOPNOTSUPP, "NetworkModeEgress needs nf_tables with tproxy and reject: the modules nft_tproxy and nft_reject_inet"},
	{"network", "socket", unix.EPROTONOSUPPORT, "NetworkModeEgress needs nf_tables and sock_diag: the modules nf_tables and inet_diag"},
	{"network", "socket", unix.EAFNOSUPPORT, "NetworkModeEgress needs packet sockets: the module af_packet"},
	{"seccomp", "seccomp", unix.EBUSY, "the caller is itself under a filter with a listener, and the kernel allows one: use no rules of SeccompNotify here"},
	{"seccomp", "clone", unix.EAGAIN, "a listener needs room for one more thread: see PidsLimit, RLIMIT_NPROC, and for SCHED_DEADLINE Process.Scheduler"},
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
	{"AppArmor profile", "write", unix.ENOENT, remedyNotLoaded},
	{"AppArmor profile", "lsm_set_self_attr", unix.ENOENT, remedyNotLoaded},
	{"AppArmor profile", "", unix.EINVAL, "the kernel knows no such name, or is too old to stack profiles"},
	{"AppArmor profile", "", unix.EACCES, "the profile that the caller has does not allow the change: see change_profile in apparmor.d(5), or set AppArmorStack"},
	{"AppArmor profile", "", unix.EPERM, "the profile that the caller has does not allow the change: see change_profile in apparmor.d(5), or set AppArmorStack"},
	{"AppArmor profile", "openat2", unix.EXDEV, "something is mounted over the files of the caller's /proc"},
	{"landlock", "openat2", unix.ENOENT, "there is no such file in the container: leave it out of Config.Landlock, or make it"},
	{"landlock", "landlock_restrict_self", unix.EPERM, "it needs NoNewPrivileges, or CAP_SYS_ADMIN in the user namespace"},
	{"execute", "execve", unix.EACCES, "it must have an x in its mode and no mount with noexec below; with Config.Landlock, it and its interpreter must be in Execute; with SelinuxLabel, the policy must allow process transition to it, " +
		"and file entrypoint of the program's label"},
	{"execute", "execve", unix.EPERM, "with SelinuxLabel and NoNewPrivileges, the policy must allow process2 nnp_transition; without, the bounding set may lack a capability of the file's"},
	{"SELinux label", "openat2", unix.EXDEV, "something is mounted over the files of the caller's /proc"},
	{"SELinux label", "", unix.EINVAL, "the policy does not know this context"},
	{"SELinux label", "", unix.EACCES, "the policy does not let the caller ask for it: process setexec, process setkeycreate, key create"},
	{"oom score", "", unix.EACCES, "lowering it needs CAP_SYS_RESOURCE"},
	{"capabilities", "capset", unix.EPERM, "the caller does not have all of the permitted capabilities"},
	{"seccomp", "seccomp", unix.EACCES, needsAdmin},
	{"wall", "seccomp", unix.EACCES, needsAdmin},
	{"seccomp", "seccomp", unix.EPERM, "the caller is under a filter of system calls itself, which allows no other"},
	{"seccomp", "seccomp", unix.EINVAL, "the kernel does not know one of Seccomp.Flags"},
	{"bounding set", "", unix.EPERM, "dropping capabilities needs CAP_SETPCAP"},
	{"rlimit", "", unix.EPERM, "raising a hard limit needs CAP_SYS_RESOURCE on the host"},
}

const needsAdmin = "without no_new_privs a filter takes CAP_SYS_ADMIN, which there is not: set NoNewPrivileges, or Namespaces.NewUser"
const remedyNotLoaded = "the profile is not loaded: apparmor_parser -r FILE, as root"

const aboveReachable = "the container's root user, as who it is on the host, must be able to enter all directories above: chmod o+x"

// diedError is the error of a process that has ended in the launcher, and has been reaped.
func diedError(live *liveProcess) error {
	return &Error{Op: "start", Err: fmt.Errorf("%w (%v)", launch.ErrDied, exitError(live.status)),
		Remedy: "something outside killed it, or the kernel, which could not load the program any more"}
}

// diedInLauncher looks at a process that may be dead but has not been waited for.
func diedInLauncher(pid, pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, 0); n == 0 {
		return false // alive, so the socket was closed by execve
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSuffix(string(text), "\n") == launch.ProcessName
}
