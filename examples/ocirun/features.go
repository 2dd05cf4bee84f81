//go:build linux

package main

import (
	"flag"

	"example.com/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// This file tells what the runtime can do.

func featuresCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	return func([]string) (int, error) {
		no, yes := false, true
		return printJSON(features.Features{
			OCIVersionMin: "1.0.0",
			OCIVersionMax: specs.Version,
			Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
			MountOptions:  mountOptions(),
			Linux: &features.Linux{
				Namespaces:      []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
				Capabilities:    container.AllCapabilities(),
				Cgroup:          &features.Cgroup{V1: &no, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
				Seccomp:         seccompFeatures(),
				Apparmor:        &features.Apparmor{Enabled: &yes},
				Selinux:         &features.Selinux{Enabled: &yes},
				IntelRdt:        &features.IntelRdt{Enabled: &no},
				MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
				NetDevices:      &features.NetDevices{Enabled: &yes},
			},
		}, "    ")
	}
}

func seccompFeatures() *features.Seccomp {
	out := &features.Seccomp{
		Enabled: new(true),
		Archs:   []string{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"},
		KnownFlags: []string{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
			"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"},
	}
	for _, a := range []container.SeccompAction{container.SeccompAllow, container.SeccompErrno, container.SeccompKill, container.SeccompKillProcess,
		container.SeccompKillThread, container.SeccompLog, container.SeccompNotify, container.SeccompTrace, container.SeccompTrap} {
		out.Actions = append(out.Actions, string(a))
	}
	for _, op := range []container.SeccompOp{container.SeccompEqual, container.SeccompNotEqual, container.SeccompLess, container.SeccompLessOrEqual,
		container.SeccompGreater, container.SeccompGreaterOrEqual, container.SeccompMaskedEqual} {
		out.Operators = append(out.Operators, string(op))
	}
	return out
}

// mountOptions are the options of mounts that are not the file system's.
func mountOptions() []string {
	list := []string{"async", "bind", "defaults", "dirsync", "idmap", "lazytime", "loud", "mand", "nofail", "noiversion",
		"nolazytime", "nomand", "rbind", "ridmap", "silent", "sync", "tmpcopyup"}
	for _, attribute := range []string{"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime",
		"relatime", "norelatime", "strictatime", "nostrictatime", "nodiratime", "diratime", "nosymfollow", "symfollow"} {
		list = append(list, attribute, "r"+attribute)
	}
	for _, propagation := range []string{"private", "slave", "shared", "unbindable"} {
		list = append(list, propagation, "r"+propagation)
	}
	return list
}
