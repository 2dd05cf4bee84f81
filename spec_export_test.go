package container

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"example.com/container/internal/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ociRoundTrip turns a Config and a Process into a specification, through JSON, and back.
func ociRoundTrip(t testing.TB, cfg Config, p *Process) (Config, *Process, error) {
	t.Helper()
	spec, err := ToSpec(cfg, p)
	if err != nil {
		return Config{}, nil, err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	read := new(specs.Spec)
	if err := json.Unmarshal(text, read); err != nil {
		t.Fatal(err)
	}
	cfg, p, err = FromSpec(read, cfg.Bundle)
	if err != nil {
		t.Fatalf("what ToSpec writes is refused: %v\n%s", err, text)
	}
	return cfg, p, nil
}

// ociFull is a Config that says all that the specification has a word for.
func ociFull() (Config, *Process) {
	umask, adj := uint32(0o27), -5
	cfg := Config{
		Root: Root{Dir: "/bundle/root", Access: ReadOnly, Propagation: RSlave},
		Namespaces: Namespaces{
			NewCgroup: true, NewNet: true, NewMnt: true, NewPID: true, NewUser: true, NewUTS: true, NewTime: true,
			Join: map[NamespaceKind]string{IPCNamespace: "/run/ipcns/x"},
		},
		UidMappings: []IDMap{pureMap(0, 100000, 65536)}, GidMappings: []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 10)},
		TimeOffsets: TimeOffsets{Monotonic: -1500 * time.Millisecond, Boottime: time.Hour},
		Hostname:    "h", Domainname: "d",
		Mounts: []Mount{
			{Type: "tmpfs", Source: "tmpfs", Target: "/dev", Flags: NoSuid | NoExec | StrictAtime, Data: "mode=0755,size=64k"},
			{Type: "devpts", Source: "devpts", Target: "/dev/pts", Flags: NoSuid, Data: "newinstance"},
			{Type: "tmpfs", Source: "shm", Target: "/dev/shm", ClearFlags: NoExec},
			{Type: "mqueue", Source: "mqueue", Target: "/dev/mqueue"},
			{Type: "cgroup2", Source: "cgroup", Target: "/sys/fs/cgroup", Flags: MountReadOnly, Propagation: RPrivate},
			{Type: "bind", Source: "/a", Target: "/a", Flags: Recursive | NoDev | MountReadOnly, Propagation: Shared, Optional: true},
			{Type: "bind", Source: "/b", Target: "/b", Flags: Recursive | TopOnly | NoSymFollow, ClearFlags: MountReadOnly | NoSuid},
			{Type: "bind", Source: "/c", Target: "/c", Flags: NoAtime, UidMappings: []IDMap{pureMap(0, 5, 1)}, GidMappings: []IDMap{pureMap(0, 5, 1)}},
			{Type: "bind", Source: "/e", Target: "/e", Flags: Recursive | TopOnly, UidMappings: []IDMap{pureMap(0, 5, 1)}, GidMappings: []IDMap{pureMap(0, 5, 1)}},
			{Type: "bind", Source: "/d", Target: "/d", Flags: Recursive, UidMappings: []IDMap{pureMap(0, 5, 1)}, GidMappings: []IDMap{pureMap(0, 5, 1)}},
			{Type: "tmpfs", Source: "tmpfs", Target: "/t", CopyUp: true, Data: "size=1m,mode=1777"},
		},
		Devices:   append(DefaultDevices(), Device{Path: "/dev/fuse", Type: 'c', Major: 10, Minor: 229, Mode: 0o640, Uid: 3, Gid: 4}, Device{Path: "/dev/disk", Type: 'b', Major: 8}),
		MaskPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
		Sysctl:          map[string]string{"kernel.sem": "1 2 3 4"},
		Capabilities:    &Capabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}},
		NoNewPrivileges: true,
		Seccomp: &SeccompProfile{
			DefaultAction: SeccompErrno, DefaultErrno: new(uint(5)), Architectures: []string{archPrefix + string(seccomp.Native())},
			Flags: []string{"SECCOMP_FILTER_FLAG_LOG"}, ListenerPath: "/run/agent", ListenerMetadata: "m",
			Syscalls: []SeccompRule{
				{Names: []string{"execve", "read"}, Action: SeccompAllow},
				{Names: []string{"clone"}, Action: SeccompNotify, Args: []SeccompArg{{Index: 0, Value: 6, ValueTwo: 2, Op: SeccompMaskedEqual}}},
				{Names: []string{"mkdir"}, Action: SeccompTrace, Errno: new(uint(7)), Args: []SeccompArg{{Index: 5, Value: 1 << 40, Op: SeccompGreater}}},
			},
		},
		AppArmorProfile: "container-default", SelinuxLabel: "system_u:system_r:container_t:s0:c1,c2", MountLabel: "system_u:object_r:container_file_t:s0",
		Rlimits: []Rlimit{{"RLIMIT_NOFILE", 10, RlimInfinity}},
		Umask:   &umask, OomScoreAdj: &adj,
		Network:     &NetworkConfig{KeepFiles: true, NetDevices: map[string]NetDevice{"eth7": {"seven"}, "eth8": {}}},
		Personality: &Personality{"LINUX32"},
		Resources:   ociResources(),
		Cgroup:      &CgroupConfig{Manager: CgroupFS, Path: "/a/b"},
		Scheduler:   &Scheduler{Policy: "SCHED_RR", Priority: 3, ResetOnFork: true},
		IOPriority:  &IOPriority{"IOPRIO_CLASS_BE", 3},
		Hooks: &Hooks{
			Prestart:        []Hook{{Path: "/a", Args: []string{"a", "b"}, Env: []string{"A=1"}, Timeout: 3 * time.Second}},
			CreateRuntime:   []Hook{{Path: "/b"}, {Path: "/c"}},
			CreateContainer: []Hook{{Path: "/d"}},
			StartContainer:  []Hook{{Path: "/e"}},
			Poststart:       []Hook{{Path: "/f"}},
			Poststop:        []Hook{{Path: "/g"}},
		},
		Bundle: "/bundle", Annotations: map[string]string{"k": "v"},
	}
	return cfg, &Process{Args: []string{"a", ""}, Env: []string{"A=1"}, Cwd: "/w", User: "1:2", AdditionalGroups: []string{"3", "0"}, Tty: true, ConsoleSize: ConsoleSize{Width: 80, Height: 25}}
}

// What a Config says comes back as it was, whatever fields are left out.
func TestOCIRoundTrip(t *testing.T) {
	full, p := ociFull()
	check := func(what string, cfg Config, p *Process) {
		t.Helper()
		got, gotP, err := ociRoundTrip(t, cfg, p)
		if err != nil || !reflect.DeepEqual(got, cfg) || !reflect.DeepEqual(gotP, p) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v\ngot  %+v\nwant %+v", what, err, got, cfg, gotP, p)
		}
	}
	check("full", full, p)
	for _, field := range []string{"TimeOffsets", "Hostname", "Domainname", "MaskPaths", "ReadonlyPaths", "Sysctl", "NoNewPrivileges", "Seccomp", "Rlimits", "Umask", "OomScoreAdj", "Personality", "Scheduler", "IOPriority", "Hooks", "Bundle", "Annotations", "Resources", "Cgroup", "AppArmorProfile", "SelinuxLabel", "MountLabel", "Network"} {
		cfg, _ := ociFull()
		reflect.ValueOf(&cfg).Elem().FieldByName(field).SetZero()
		check("without "+field, cfg, p)
	}
}

// Defaults are written out, once.
func TestOCIDefaults(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Root = Directory("/root")
	explicit, p, err := ociRoundTrip(t, cfg, &Process{Args: []string{"sh"}})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(explicit.Capabilities, DefaultCapabilitiesConfig()) || len(explicit.UidMappings) == 0 || !reflect.DeepEqual(explicit.Devices, DefaultDevices()) ||
		len(explicit.Mounts) != len(DefaultMounts())+4 || p.Cwd != "/" || p.User != "0:0" {
		t.Errorf("got %+v, %+v", explicit, p)
	}
	again, p2, err := ociRoundTrip(t, explicit, p)
	if err != nil || !reflect.DeepEqual(again, explicit) || !reflect.DeepEqual(p2, p) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, again, explicit)
	}
}

func TestOCIWordless(t *testing.T) {
	for field, change := range map[string]func(*Config, *Process){
		"Root":                  func(c *Config, p *Process) { c.Root = HostRoot },
		"Seccomp.DefaultAction": func(c *Config, p *Process) { c.Seccomp = &SeccompProfile{} },
		"Seccomp.Syscalls[3]": func(c *Config, p *Process) {
			c.Seccomp.Syscalls = append(c.Seccomp.Syscalls, SeccompRule{Names: []string{"clone"}, Action: SeccompAllow})
		},
		"AppArmorStack": func(c *Config, p *Process) { c.AppArmorStack = true },
		"Network":       func(c *Config, p *Process) { c.Network.Mode = NetworkModeEgress },
		"Landlock":      func(c *Config, p *Process) { c.Landlock = &Landlock{NoSignals: true} },
		"CPUAffinity":   func(c *Config, p *Process) { p.CPUAffinity = "0" },
		"HostKeyring":   func(c *Config, p *Process) { c.HostKeyring = true },
		"DieWithParent": func(c *Config, p *Process) { c.DieWithParent = true },
		"Detached":      func(c *Config, p *Process) { c.Detached = true },
		"Init":          func(c *Config, p *Process) { c.Init = true },
		"StopSignal":    func(c *Config, p *Process) { c.StopSignal = 3 },
		"StopTimeout":   func(c *Config, p *Process) { c.StopTimeout = 3 },
		"Devices":       func(c *Config, p *Process) { c.Devices = []Device{} },
		"InheritEnv":    func(c *Config, p *Process) { p.InheritEnv = true },
		"Hooks.poststop[1].Func": func(c *Config, p *Process) {
			c.Hooks.Poststop = append(c.Hooks.Poststop, Hook{Func: func(context.Context, *ContainerState) error { return nil }})
		},
		"Hooks.prestart[0].Timeout": func(c *Config, p *Process) { c.Hooks.Prestart[0].Timeout = 1 },
		"User":                      func(c *Config, p *Process) { p.User = "www-data" },
		"AdditionalGroups[0]":       func(c *Config, p *Process) { p.AdditionalGroups = []string{"adm"} },
		"Personality":               func(c *Config, p *Process) { p.Personality = &Personality{"LINUX"} },
		"Rlimits.Type":              func(c *Config, p *Process) { p.Rlimits = []Rlimit{{Type: "x"}} },
	} {
		cfg, p := ociFull()
		change(&cfg, p)
		_, err := ToSpec(cfg, p)
		var f *FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Every field of a Config is in the specification, or is known not to be.
func TestOCIConfigFields(t *testing.T) {
	elsewhere := []string{"Cgroup", "DevicesOnly", "SeccompNotify", "AppArmorStack", "Landlock", "CPUAffinity", "HostKeyring", "DieWithParent", "Detached", "Init", "StopSignal", "StopTimeout", "Logger"}
	cfg, _ := ociFull()
	v := reflect.ValueOf(cfg)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		known := false
		for _, e := range elsewhere {
			known = known || e == name
		}
		if v.Field(i).IsZero() && !known {
			t.Errorf("ociFull does not have Config.%s: is it lost on the way?", name)
		}
	}
}

// FuzzFromSpec: any JSON is refused with complaints about fields, or means what it says a second time.
func FuzzFromSpec(f *testing.F) {
	cfg, p := ociFull()
	for _, change := range []func(*specs.Spec){nil, func(s *specs.Spec) { *s = *must(ToSpec(cfg, p)) }, func(s *specs.Spec) { s.Linux = nil }} {
		text, err := json.Marshal(ociSpec(change))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"ociVersion":"1.1.0","root":{"path":""},"mounts":[{"destination":"../x","options":["rbind","rro","idmap"]}],"linux":{"namespaces":[{"type":"mount"},{"type":"user"}],"devices":[{"type":"b","path":"null","fileMode":4096}],"resources":{"devices":[{"access":"x"}]}}}`))
	for _, in := range []string{
		`{"devices":[{"access":"rwm"},{"allow":true,"type":"c","major":10,"access":"r"}],"pids":{"limit":0},"memory":{"limit":5,"swap":7,"reservation":-1,"checkBeforeUpdate":true}}`,
		`{"unified":{"memory.high":"max","io.weight":"default 5\n8:0 7","io.latency":"8:0 target=3","misc.max":"sev 1","hugetlb.2MB.max":"5"},"rdma":{"a":{"hcaHandles":4294967295}}}`,
		`{"cpu":{"shares":77,"period":5000,"burst":0,"idle":0},"blockIO":{"weight":11,"weightDevice":[{"major":8,"weight":12}],"throttleReadBpsDevice":[{"major":8,"rate":0}]},"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615}]}`,
	} {
		for _, place := range []string{"/a", "a.slice:b:c", "a"} {
			f.Add([]byte(`{"ociVersion":"1.3.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"mount"}],"cgroupsPath":"` + place + `","devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229}],"resources":` + in + `}}`))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		spec := new(specs.Spec)
		if json.Unmarshal(text, spec) != nil {
			return
		}
		cfg, p, err := FromSpec(spec, "/bundle")
		if err != nil {
			var errs fieldErrors
			errs.add(err)
			for _, err := range errs {
				if f, ok := err.(*FieldError); !ok || f.Field == "" || f.Problem == "" {
					t.Fatalf("not a complaint about a field: %v", err)
				}
			}
			return
		}
		if cfg.validate() != nil || p != nil && p.validate() != nil {
			return // an option of one meaning may be given in another's place
		}
		// The first way round adds what /dev has, and normalises options.
		cfg, p, err = ociRoundTrip(t, cfg, p)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		again, p2, err := ociRoundTrip(t, cfg, p)
		if err != nil || !reflect.DeepEqual(again, cfg) || !reflect.DeepEqual(p2, p) {
			t.Fatalf("%v\ngot  %+v %+v\nwant %+v %+v", err, again, p2, cfg, p)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
