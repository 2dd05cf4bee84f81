//go:build linux

package main

import (
	"os"
	"runtime"
	"syscall"
)

// This file makes the host's cgroups look as the peers want them.

const cgroupMount, cgroup2Magic = "/sys/fs/cgroup", 0x63677270

// onlyCgroup2 gives the calling thread, and the programs it starts, a mount namespace in which
// there is nothing but cgroup v2. On a host with the hybrid layout runc would make a cgroup in each
// of a dozen hierarchies, which is not the work to compare, and crun refuses to start. It takes
// root; without it, or on a host that is like this anyway, nothing is done.
func onlyCgroup2() error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(cgroupMount, &fs); err != nil || fs.Type == cgroup2Magic || os.Geteuid() != 0 {
		return err
	}
	runtime.LockOSThread() // for good: the thread cannot go back
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	// The v1 hierarchies go first: peers find them in mountinfo.
	if err := syscall.Unmount(cgroupMount, syscall.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	return os.NewSyscallError("mount", syscall.Mount("cgroup2", cgroupMount, "cgroup2", 0, ""))
}
