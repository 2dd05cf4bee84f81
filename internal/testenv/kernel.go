//go:build linux

package testenv

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// This file asks for rights and for features of the kernel. A probe starts a small program of the
// host in new namespaces; it changes nothing in this process and leaves nothing behind.

// Root is a superuser that may make namespaces and mounts: root in an ordinary docker container is
// not enough.
var Root = Requirement{Name: "root", Probe: sync.OnceValue(func() error {
	if uid := os.Geteuid(); uid != 0 {
		return missing("run the tests as root", "this is user %d", uid)
	}
	if err := inNamespaces(syscall.CLONE_NEWNS, "true"); err != nil {
		return missing("give it CAP_SYS_ADMIN", "root may not make a mount namespace: %v", err)
	}
	return nil
})}

// User is an ordinary user.
var User = Requirement{Name: "user", Probe: func() error {
	if os.Geteuid() == 0 {
		return missing("run the tests as an ordinary user as well", "this is root")
	}
	return nil
}}

// UserNS is the right to make a user namespace and to use the capabilities in it.
var UserNS = Requirement{Name: "userns", Probe: sync.OnceValue(func() error {
	// The mount namespace needs a capability in the new user namespace: AppArmor grants the one
	// and denies the other where kernel.apparmor_restrict_unprivileged_userns is set.
	err := inNamespaces(syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS, "true")
	if err != nil {
		return missing("see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and "+
			"kernel.apparmor_restrict_unprivileged_userns", "no user namespace: %v", err)
	}
	return nil
})}

// Overlay is the right to mount an overlayfs with an upper directory on a tmpfs: as root, or else
// in a user namespace (Linux 5.11).
var Overlay = Requirement{Name: "overlay", Probe: sync.OnceValue(func() error {
	flags, options := syscall.CLONE_NEWNS, ""
	if os.Geteuid() != 0 {
		flags, options = flags|syscall.CLONE_NEWUSER, ",userxattr"
	}
	err := inNamespaces(uintptr(flags), "sh", "-ec", `
		mount --make-rprivate /
		mount -t tmpfs tmpfs /tmp
		cd /tmp; mkdir lower upper work merged
		mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work`+options+` merged`)
	if err != nil {
		return missing("modprobe overlay; Linux 5.11 in a user namespace", "no overlayfs: %v", err)
	}
	return nil
})}

// inNamespaces runs a program of the host in new namespaces, as their root if there is a user
// namespace among them.
func inNamespaces(flags uintptr, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&syscall.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if text := strings.TrimSpace(string(out)); err != nil && text != "" {
		return errors.New(text)
	}
	return err
}
