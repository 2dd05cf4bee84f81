//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// This file writes the OCI bundle for crun and runc: the same namespaces, mounts, masks and
// capabilities as those of our DefaultConfig.

type object = map[string]any

// makeBundle writes config.json.
func (s start) makeBundle() error {
	namespaces := []object{
		{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
	}
	linux := object{
		"maskedPaths": []string{
			"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
			"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
			"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
		},
		"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	pts := "nosuid noexec newinstance ptmxmode=0666 mode=0620"
	if s.userns {
		namespaces = append(namespaces, object{"type": "user"})
		linux["uidMappings"] = []object{{"containerID": 0, "hostID": os.Geteuid(), "size": 1}}
		linux["gidMappings"] = []object{{"containerID": 0, "hostID": os.Getegid(), "size": 1}}
	} else {
		pts += " gid=5"
	}
	linux["namespaces"] = namespaces
	if s.limits != nil {
		linux["resources"] = s.ociResources()
	}

	kept := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	config, err := json.Marshal(object{
		"ociVersion": "1.0.2",
		"hostname":   "container",
		"root":       object{"path": s.rootfs},
		"process": object{
			"args": s.args, "env": []string{"PATH=/bin"}, "cwd": "/",
			"user": object{"uid": 0, "gid": 0}, "noNewPrivileges": true,
			"capabilities": object{"bounding": kept, "effective": kept, "permitted": kept},
		},
		"mounts": []object{
			mount("/proc", "proc", "nosuid noexec nodev"),
			mount("/dev", "tmpfs", "nosuid noexec mode=755 size=65536k"),
			mount("/dev/pts", "devpts", pts),
			mount("/dev/shm", "tmpfs", "nosuid noexec nodev mode=1777 size=65536k"),
			mount("/dev/mqueue", "mqueue", "nosuid noexec nodev"),
			mount("/sys", "sysfs", "nosuid noexec nodev ro"),
			mount("/sys/fs/cgroup", "cgroup2", "nosuid noexec nodev ro"),
		},
		"linux": linux,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "config.json"), config, 0o644)
}

func mount(target, kind, options string) object {
	return object{"destination": target, "type": kind, "source": kind, "options": strings.Fields(options)}
}
