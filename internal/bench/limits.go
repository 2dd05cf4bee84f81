//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/container"
)

// This file has the contenders that start a container in a cgroup with limits.

// What is limited, where the host has the controller.
const (
	memoryLimit = 256 << 20
	pidsLimit   = 100
	cpuQuota    = 150_000 // microseconds in 100000
)

func prepareLimits(dir string) (f field, err error) {
	if os.Geteuid() != 0 {
		return field{skipped: []string{"all: this is not root"}}, nil
	}
	text, err := os.ReadFile(cgroupMount + "/cgroup.controllers")
	if errors.Is(err, os.ErrNotExist) { // the hybrid layout
		text, err = os.ReadFile(cgroupMount + "/unified/cgroup.controllers")
	}
	if err != nil {
		return f, errors.Join(errors.New("there is no cgroup v2"), err)
	}
	s, err := newStart(&f, dir, false, program)
	if err != nil {
		return f, err
	}
	s.limits = []string{}
	for _, name := range []string{"cpu", "memory", "pids"} {
		if slices.Contains(strings.Fields(string(text)), name) {
			s.limits = append(s.limits, name)
		}
	}
	if err := s.makeBundle(); err != nil {
		return f, err
	}
	f.add(oursName, s.ours)
	f.add("crun", func() (contender, error) {
		return command("crun", "--cgroup-manager=cgroupfs", "--root", filepath.Join(s.state, "crun"), "run", "--bundle", s.dir, "bench-crun")
	})
	f.add("runc", s.runc)
	return f, nil
}

// resources are the limits for us, ociResources the same for the others.
func (s start) resources() *container.Resources {
	r := &container.Resources{}
	for _, name := range s.limits {
		switch name {
		case "cpu":
			r.CPU = &container.CPUResources{Quota: new(int64(cpuQuota)), Period: 100_000}
		case "memory":
			r.Memory = &container.MemoryResources{Max: new(int64(memoryLimit))}
		case "pids":
			r.Pids = &container.PidsResources{Max: new(int64(pidsLimit))}
		}
	}
	return r
}

func (s start) ociResources() object {
	r := object{}
	for _, name := range s.limits {
		switch name {
		case "cpu":
			r["cpu"] = object{"quota": cpuQuota, "period": 100_000}
		case "memory":
			r["memory"] = object{"limit": memoryLimit}
		case "pids":
			r["pids"] = object{"limit": pidsLimit}
		}
	}
	return r
}
