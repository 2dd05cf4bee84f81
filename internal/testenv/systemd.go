//go:build linux

package testenv

import (
	"os"
	"os/exec"
	"strings"
)

// This file asks for the services of a distribution.

// SystemdUser is a service manager of systemd for this user, which answers on the session bus.
var SystemdUser = Requirement{Name: "systemd-user", Probe: func() error {
	return systemctl("loginctl enable-linger, and XDG_RUNTIME_DIR in the environment", "--user")
}}

// SystemdRoot is a systemd that is process 1 and answers on the system bus, to root.
var SystemdRoot = Requirement{Name: "systemd-root", Probe: func() error {
	if err := Root.Probe(); err != nil {
		return err
	}
	return systemctl("boot with systemd", "--system")
}}

// systemctl asks a service manager for its version.
func systemctl(remedy, manager string) error {
	program := LookPath("systemctl")
	if program == "" {
		return missing(install("systemd"), "there is no program systemctl")
	}
	out, err := exec.Command(program, manager, "show", "--property=Version").CombinedOutput()
	if err != nil {
		return missing(remedy, "systemctl %s: %s", manager, strings.TrimSpace(string(out)))
	}
	return nil
}

// AppArmor is a kernel that enforces AppArmor's profiles, and the program that loads them.
var AppArmor = Requirement{Name: "apparmor", Probe: func() error {
	if enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); string(enabled) != "Y\n" {
		return missing("see TestGuest, which has it", "the kernel has no AppArmor, or it is off")
	}
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil {
		return missing("mount -t securityfs securityfs /sys/kernel/security", "%v", err)
	}
	return Program("apparmor_parser", "apparmor").Probe()
}}
