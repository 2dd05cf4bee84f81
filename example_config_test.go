//go:build linux

package container_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"example.com/container"
)

// This file shows the parts of a Config and of pulls, one noun each.

func ExampleRoot() {
	// A directory, changed in place; the same with changes thrown away, and with changes kept elsewhere.
	for _, r := range []container.Root{
		container.Directory("/srv/debian"),
		{Dir: "/srv/debian", Access: container.CopyOnWrite, UpperSize: 64 << 20},
		{Dir: "/srv/debian", Access: container.CopyOnWrite, Upper: "/srv/changes"},
		container.HostRoot,
	} {
		fmt.Printf("%s %s %q\n", r.Dir, r.Access, r.Upper)
	}
	// Output:
	// /srv/debian rw ""
	// /srv/debian cow ""
	// /srv/debian cow "/srv/changes"
	// / cow ""
}

func ExampleNamespaces() {
	// Everything of its own but the network, which is that of process 4711.
	cfg := container.DefaultConfig()
	cfg.Namespaces.NewNet = false
	cfg.Namespaces.Join = map[container.NamespaceKind]string{container.NetworkNamespace: "/proc/4711/ns/net"}
}

func ExampleDevice() {
	cfg := container.DefaultConfig()
	cfg.Devices = append(container.DefaultDevices(), container.Device{Path: "/dev/fuse", Type: 'c', Major: 10, Minor: 229})
	for _, d := range cfg.Devices {
		fmt.Printf("%s %c %d:%d\n", d.Path, d.Type, d.Major, d.Minor)
	}
	// Output:
	// /dev/null c 1:3
	// /dev/zero c 1:5
	// /dev/full c 1:7
	// /dev/random c 1:8
	// /dev/urandom c 1:9
	// /dev/tty c 5:0
	// /dev/fuse c 10:229
}

func ExampleCapabilities() {
	// An ordinary user who may bind port 80: ambient, and so also inheritable.
	port := []string{"CAP_NET_BIND_SERVICE"}
	p := &container.Process{
		Args:         []string{"httpd"},
		User:         "www-data",
		Capabilities: &container.Capabilities{Bounding: port, Effective: port, Permitted: port, Inheritable: port, Ambient: port},
	}
	_ = p
}

func ExampleRlimit() {
	cfg := container.DefaultConfig()
	cfg.Rlimits = []container.Rlimit{
		{Type: "nofile", Soft: 1024, Hard: 4096},
		{Type: "core", Soft: 0, Hard: 0},
		{Type: "stack", Soft: 8 << 20, Hard: container.RlimInfinity},
	}
}

func ExampleScheduler() {
	// A compile job that gets out of everybody's way.
	p := &container.Process{
		Args:        []string{"make"},
		Scheduler:   &container.Scheduler{Policy: "batch", Nice: 10},
		IOPriority:  &container.IOPriority{Class: "idle"},
		CPUAffinity: "0-1",
	}
	_ = p
}

func ExampleIOPriority() {
	_ = &container.IOPriority{Class: "be", Priority: 7} // the last of the ordinary ones
}

func ExamplePersonality() {
	_ = &container.Process{Args: []string{"uname", "-m"}, Personality: &container.Personality{Domain: "LINUX32"}} // i686
}

func ExampleTimeOffsets() {
	// As if the machine had been up for another day.
	cfg := container.DefaultConfig()
	cfg.Namespaces.NewTime = true
	cfg.TimeOffsets = container.TimeOffsets{Monotonic: 24 * time.Hour, Boottime: 24 * time.Hour}
}

func ExampleMountFlags() {
	fmt.Println(container.MountReadOnly | container.NoSuid | container.Recursive)
	// Output: ro,nosuid,recursive
}

func ExampleMount_Options() {
	m := container.Mount{Type: "tmpfs", Target: "/run", Flags: container.NoSuid | container.NoDev, Data: "size=16m"}
	fmt.Println(m.Options())
	// Output: nosuid,nodev,size=16m
}

func ExampleCheckResult() {
	fmt.Println(container.CheckResult{Name: "subordinate ids", Detail: "none for this user", Remedy: "usermod --add-subuids 100000-165535 me"})
	// Output:
	// missing  subordinate ids: none for this user
	//          -> usermod --add-subuids 100000-165535 me
}

func ExampleStoreOptions() {
	// One id owns all files, so that no subordinate ids are needed, and a pull survives a power failure.
	store, err := container.OpenStore("/var/tmp/images", &container.StoreOptions{Ownership: container.OwnershipSingle, Sync: true})
	if err != nil {
		return
	}
	defer store.Close()
}

func ExamplePullOptions() {
	_ = &container.PullOptions{
		Policy:   container.PullAlways,
		Platform: "linux/arm64",
		Limits:   container.ImageLimits{Bytes: 4 << 30, Entries: 200_000},
		Progress: func(p container.PullProgress) {
			fmt.Printf("layer %d of %d: %s, %d of %d bytes\n", p.Index+1, p.Count, p.Phase, p.Bytes, p.Total)
		},
	}
}

func ExampleImageConfig() {
	img := &container.Image{Config: container.ImageConfig{
		Entrypoint: []string{"/usr/bin/env"}, Cmd: []string{"true"}, User: "1000",
		Healthcheck: &container.Healthcheck{Test: []string{"CMD", "true"}, Interval: time.Minute},
	}}
	fmt.Println(img.Process().Args, img.Process("sh", "-c", "id").Args)
	// Output: [/usr/bin/env true] [/usr/bin/env sh -c id]
}

func ExampleSeccompProfile() {
	// Profiles of Docker and of OCI bundles are JSON.
	profile := new(container.SeccompProfile)
	err := json.Unmarshal([]byte(`{
		"defaultAction": "SCMP_ACT_ALLOW",
		"syscalls": [{"names": ["mkdir", "mkdirat", "mkdri"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]
	}`), profile)
	fmt.Println(err, profile.Unknown())

	cfg := container.DefaultConfig()
	cfg.Seccomp = profile
	// Output: <nil> [mkdri]
}

func ExampleErrNotExist() {
	_, err := container.Load("/run/nothing/here", "demo")
	fmt.Println(errors.Is(err, container.ErrNotExist), errors.Is(err, fs.ErrNotExist))
	// Output: true true
}
