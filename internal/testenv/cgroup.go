//go:build linux

package testenv

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// This file asks for cgroups.

// Cgroup is a cgroup v2 in which this process may make a cgroup. CgroupDir returns where.
var Cgroup = Requirement{Name: "cgroup", Probe: sync.OnceValue(func() error {
	dir, err := CgroupDir()
	if err != nil {
		return err
	}
	probe, err := os.MkdirTemp(dir, "testenv-")
	if err != nil {
		return missing("systemd-run --user --scope -p Delegate=yes", "cgroup not writable: %v", err)
	}
	return os.Remove(probe)
})}

// CgroupDir returns the directory of this process's own cgroup v2.
func CgroupDir() (string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(own)) {
		if path, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found {
			root, err := cgroupRoot()
			return filepath.Join(root, strings.TrimSuffix(path, "/container-callers")), err
		}
	}
	return "", errors.New("/proc/self/cgroup has no line for cgroup v2")
}

// CgroupController is a controller of cgroup v2, such as memory, that this process can use in
// cgroups that it makes: root below the root of the tree, others below their own cgroup. The
// requirement is called cgroup-memory.
func CgroupController(name string) Requirement {
	return Requirement{Name: "cgroup-" + name, Probe: func() error {
		if err := Cgroup.Probe(); err != nil {
			return err
		}
		dir, err := CgroupDir()
		if os.Geteuid() == 0 {
			dir, err = cgroupRoot()
		}
		if err != nil {
			return err
		}
		available, err := os.ReadFile(dir + "/cgroup.controllers")
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(string(available)), name) {
			return missing("see TestGuest, which has it", "the controllers of %s are %q", dir, strings.Fields(string(available)))
		}
		return nil
	}}
}

// cgroupRoot returns where cgroup v2 is mounted.
func cgroupRoot() (string, error) {
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(mount + "/cgroup.procs"); err == nil {
			return mount, nil
		}
	}
	return "", missing("mount -t cgroup2 cgroup2 /sys/fs/cgroup", "there is no cgroup v2")
}
