//go:build linux

package testenv

import (
	"errors"
	"os"
	"syscall"
)

// This file asks for SELinux.

// SELinux is a kernel that enforces a policy, with the types of internal/guest/files/container.cil.
var SELinux = Requirement{Name: "selinux", Probe: func() error {
	const dir, remedy = "/sys/fs/selinux/", "see TestGuest, which has it"
	enforce, err := os.ReadFile(dir + "enforce")
	if err != nil {
		return missing(remedy, "the kernel has no SELinux, or it is off: %v", err)
	}
	if string(enforce) != "1" {
		return missing("setenforce 1", "SELinux does not enforce its policy")
	}
	err = os.WriteFile(dir+"context", []byte("system_u:system_r:container_closed_t:s0:c1,c2"), 0)
	if errors.Is(err, syscall.EINVAL) {
		return missing(remedy, "SELinux's policy does not have the types of the tests")
	}
	return err
}}
