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
				Cgroup:          &features.Cgroup{V1: &no, V2: &no, Systemd: &no, SystemdUser: &no, Rdma: &no},
				Seccomp:         &features.Seccomp{Enabled: &no},
				Apparmor:        &features.Apparmor{Enabled: &no},
				Selinux:         &features.Selinux{Enabled: &no},
				IntelRdt:        &features.IntelRdt{Enabled: &no},
				MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
				NetDevices:      &features.NetDevices{Enabled: &no},
			},
		}, "    ")
	}
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
