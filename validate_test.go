package container

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// pureConfig is a valid Config, changed by f.
func pureConfig(f func(*Config)) *Config {
	c := DefaultConfig()
	c.Root = Directory("/srv/root")
	if f != nil {
		f(&c)
	}
	return &c
}

func pureMount(m Mount) func(*Config) {
	return func(c *Config) { c.Mounts = []Mount{m} }
}

func pureDevice(d Device) func(*Config) {
	return func(c *Config) { c.Devices = []Device{d} }
}

func TestValidateConfig(t *testing.T) {
	isRoot := os.Geteuid() == 0
	ifUser := func(field string) []string { // a complaint only if an ordinary user asks for it
		if isRoot {
			return nil
		}
		return []string{field}
	}
	joinMnt := func(c *Config) {
		c.Namespaces.NewMnt = false
		c.Namespaces.Join = map[NamespaceKind]string{MountNamespace: "/proc/1/ns/mnt"}
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		fields []string
	}{
		{"default", nil, nil},
		{"zero", func(c *Config) { *c = Config{} }, []string{"Namespaces"}},
		{"everything at once", func(c *Config) {
			c.Root = Root{}
			c.Hostname = strings.Repeat("x", 65)
			c.Umask = pureOf[uint32](0o1000)
		}, []string{"Root", "Hostname", "Umask"}},

		{"no root", func(c *Config) { c.Root = Root{} }, []string{"Root"}},
		{"two roots", func(c *Config) { c.Root.Layers = []string{"/l"} }, []string{"Root"}},
		{"host root", func(c *Config) { c.Root = HostRoot }, nil},
		{"host root read-only", func(c *Config) { c.Root = Root{Dir: "/", Access: ReadOnly} }, nil},
		{"host root by default", func(c *Config) { c.Root = Root{Dir: "/"} }, nil},
		{"host root written", func(c *Config) { c.Root = Directory("/") }, []string{"Root.Access"}},
		{"host root in disguise", func(c *Config) { c.Root = Directory("/srv/..") }, []string{"Root.Dir"}},
		{"host root in disguise, slashes", func(c *Config) { c.Root = Directory("//") }, []string{"Root.Dir"}},
		{"relative root", func(c *Config) { c.Root.Dir = "root" }, []string{"Root.Dir"}},
		{"NUL in root", func(c *Config) { c.Root.Dir = "/a\x00b" }, []string{"Root.Dir"}},
		{"layers", func(c *Config) { c.Root = Root{Layers: []string{"/1", "/2"}} }, nil},
		{"layers written", func(c *Config) { c.Root = Root{Layers: []string{"/1"}, Access: ReadWrite} }, []string{"Root.Access"}},
		{"layers relative and twice", func(c *Config) { c.Root = Root{Layers: []string{"/1", "x", "/1"}} }, []string{"Root.Layers[1]", "Root.Layers[2]"}},
		{"unknown access", func(c *Config) { c.Root.Access = "rx" }, []string{"Root.Access"}},
		{"upper", func(c *Config) { c.Root = Root{Dir: "/r", Access: CopyOnWrite, Upper: "/u"} }, nil},
		{"upper of layers", func(c *Config) { c.Root = Root{Layers: []string{"/1"}, Upper: "/u"} }, nil},
		{"upper of a writable directory", func(c *Config) { c.Root.Upper = "/u" }, []string{"Root.Upper"}},
		{"upper of a read-only root", func(c *Config) { c.Root = Root{Dir: "/", Access: ReadOnly, Upper: "/u"} }, []string{"Root.Upper"}},
		{"relative upper", func(c *Config) { c.Root = Root{Dir: "/", Upper: "u"} }, []string{"Root.Upper"}},
		{"upper size", func(c *Config) { c.Root = Root{Dir: "/", UpperSize: 1 << 20} }, nil},
		{"upper size negative", func(c *Config) { c.Root = Root{Dir: "/", UpperSize: -1} }, []string{"Root.UpperSize"}},
		{"upper size of a directory", func(c *Config) { c.Root = Root{Dir: "/", Upper: "/u", UpperSize: 1} }, []string{"Root.UpperSize"}},
		{"upper size without upper", func(c *Config) { c.Root.UpperSize = 1 }, []string{"Root.UpperSize"}},
		{"propagation", func(c *Config) { c.Root.Propagation = RSlave }, nil},
		{"unknown propagation", func(c *Config) { c.Root.Propagation = "rr" }, []string{"Root.Propagation"}},

		{"no mount namespace", func(c *Config) { c.Namespaces.NewMnt = false },
			[]string{"Root", "Mounts", "MaskPaths", "ReadonlyPaths"}},
		{"no mount namespace, devices", func(c *Config) {
			*c = Config{Namespaces: Namespaces{NewUTS: true}, Devices: DefaultDevices()}
		}, []string{"Devices"}},
		{"no mount namespace, nothing of one", func(c *Config) { *c = Config{Namespaces: Namespaces{NewUTS: true}} }, nil},
		{"no mount namespace, access only", func(c *Config) {
			*c = Config{Namespaces: Namespaces{NewUTS: true}, Root: Root{Access: ReadOnly}}
		}, []string{"Root"}},
		{"joined mount namespace and a root", joinMnt, []string{"Root", "Mounts", "MaskPaths", "ReadonlyPaths"}},
		{"joined mount namespace", func(c *Config) {
			joinMnt(c)
			c.Root, c.Mounts, c.MaskPaths, c.ReadonlyPaths = Root{}, nil, nil, nil
		}, nil},

		{"new and joined", func(c *Config) {
			c.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: "/run/netns/x", UTSNamespace: "/run/uts"}
		}, []string{`Namespaces.Join["net"]`, `Namespaces.Join["uts"]`}},
		{"joined", func(c *Config) {
			c.Namespaces.NewNet = false
			c.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: "/run/netns/x"}
		}, nil},
		{"joined by a relative path", func(c *Config) {
			c.Namespaces.NewNet = false
			c.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: "x", "foo": "/x", "": "/x"}
		}, []string{`Namespaces.Join[""]`, `Namespaces.Join["foo"]`, `Namespaces.Join["net"]`}},
		{"joined by no path", func(c *Config) {
			c.Namespaces.NewNet = false
			c.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: ""}
		}, []string{`Namespaces.Join["net"]`}},

		{"maps", func(c *Config) { c.UidMappings, c.GidMappings = KeepID() }, nil},
		{"maps without a user namespace", func(c *Config) {
			c.Namespaces.NewUser = false
			c.UidMappings, c.GidMappings = KeepID()
		}, []string{"UidMappings", "GidMappings"}},
		{"half a map", func(c *Config) { c.UidMappings = []IDMap{pureMap(0, 1000, 1)} }, []string{"GidMappings"}},
		{"bad maps", func(c *Config) {
			c.UidMappings = []IDMap{pureMap(0, 1000, 1), pureMap(0, 2000, 1)}
			c.GidMappings = []IDMap{pureMap(0, 1000, 0)}
		}, []string{"UidMappings[1]", "GidMappings[0]"}},
		{"the host's root", func(c *Config) {
			c.UidMappings = []IDMap{pureMap(0, 1000, 1), pureMap(1, 0, 10)}
			c.GidMappings = []IDMap{pureMap(0, 1000, 1)}
		}, ifUser("UidMappings[1]")},

		{"time", func(c *Config) { c.TimeOffsets.Boottime = time.Hour }, []string{"TimeOffsets"}},
		{"time in a namespace", func(c *Config) { c.Namespaces.NewTime = true; c.TimeOffsets.Boottime = time.Hour }, nil},
		{"host name of the host", func(c *Config) { c.Namespaces.NewUTS = false }, []string{"Hostname"}},
		{"host name, 64 bytes", func(c *Config) { c.Hostname = strings.Repeat("x", 64) }, nil},
		{"names", func(c *Config) { c.Hostname, c.Domainname = "a\x00b", strings.Repeat("x", 65) }, []string{"Hostname", "Domainname"}},

		{"tmpfs", pureMount(Mount{Type: "tmpfs", Target: "/tmp", Data: "size=64m", CopyUp: true}), nil},
		{"bind", pureMount(Mount{Type: "bind", Source: "/data", Target: "/data", Flags: Recursive | MountReadOnly, Propagation: RSlave}), nil},
		{"no type, no target", pureMount(Mount{}), []string{"Mounts[0].Type", "Mounts[0].Target"}},
		{"unknown type", pureMount(Mount{Type: "ext4", Target: "/x"}), []string{"Mounts[0].Type"}},
		{"relative", pureMount(Mount{Type: "bind", Source: "a", Target: "b"}), []string{"Mounts[0].Source", "Mounts[0].Target"}},
		{"NUL", pureMount(Mount{Type: "tmpfs", Source: "a\x00", Target: "/b\x00", Data: "c\x00"}),
			[]string{"Mounts[0].Source", "Mounts[0].Data", "Mounts[0].Target"}},
		{"bind with options", pureMount(Mount{Type: "bind", Source: "/a", Target: "/b", Data: "size=1"}), []string{"Mounts[0].Data"}},
		{"copy-up of a bind", pureMount(Mount{Type: "bind", Source: "/a", Target: "/b", CopyUp: true}), []string{"Mounts[0].CopyUp"}},
		{"over the root", pureMount(Mount{Type: "tmpfs", Target: "/"}), []string{"Mounts[0].Target"}},
		{"over the root in disguise", pureMount(Mount{Type: "tmpfs", Target: "/a/.."}), []string{"Mounts[0].Target"}},
		{"options of /dev", pureMount(Mount{Type: "tmpfs", Target: "/dev", Data: "size=1m"}), nil},
		{"over /dev", pureMount(Mount{Type: "bind", Source: "/dev", Target: "/dev"}), []string{"Mounts[0].Target"}},
		{"/dev of the image", pureMount(Mount{Type: "tmpfs", Target: "/dev", CopyUp: true}), []string{"Mounts[0].Target"}},
		{"useless /dev", pureMount(Mount{Type: "tmpfs", Target: "/dev", Flags: NoDev}), []string{"Mounts[0].Target"}},
		{"top only", pureMount(Mount{Type: "bind", Source: "/a", Target: "/a", Flags: Recursive | TopOnly}), nil},
		{"top of what", pureMount(Mount{Type: "bind", Source: "/a", Target: "/a", Flags: TopOnly}), []string{"Mounts[0].Flags"}},
		{"devices only", func(c *Config) { c.DevicesOnly = true }, nil},
		{"devices only, of all processes", func(c *Config) { c.DevicesOnly, c.Namespaces.NewPID = true, false }, []string{"DevicesOnly"}},
		{"devices only, for nobody", func(c *Config) {
			c.DevicesOnly, c.Capabilities = true, &Capabilities{Bounding: []string{"CAP_SYS_ADMIN"}}
		}, []string{"DevicesOnly"}},
		{"devices only, but here", func(c *Config) {
			c.DevicesOnly, c.Mounts = true, []Mount{{Type: "bind", Source: "/a", Target: "/a", ClearFlags: NoDev}}
		}, []string{"Mounts[0].ClearFlags"}},
		{"below /dev", pureMount(Mount{Type: "tmpfs", Target: "/dev/shm", Data: "size=1m"}), nil},
		{"volume over /proc", pureMount(Mount{Type: "bind", Source: "/evil", Target: "/proc"}), []string{"Mounts[0].Target"}},
		{"tmpfs over /proc", pureMount(Mount{Type: "tmpfs", Target: "/proc"}), []string{"Mounts[0].Target"}},
		{"sysfs over /proc", pureMount(Mount{Type: "sysfs", Target: "/proc"}), []string{"Mounts[0].Target"}},
		{"the host's /proc", pureMount(Mount{Type: "bind", Source: "/proc", Target: "/proc", Flags: Recursive}), nil},
		{"the host's /proc in part", pureMount(Mount{Type: "bind", Source: "/proc", Target: "/proc"}), []string{"Mounts[0].Target"}},
		{"the host's /sys", pureMount(Mount{Type: "bind", Source: "/sys", Target: "/sys", Flags: Recursive}), nil},
		{"/proc on /sys", pureMount(Mount{Type: "bind", Source: "/proc", Target: "/sys", Flags: Recursive}), []string{"Mounts[0].Target"}},
		{"volume over /sys", pureMount(Mount{Type: "bind", Source: "/evil", Target: "/sys"}), []string{"Mounts[0].Target"}},
		{"below /proc", pureMount(Mount{Type: "bind", Source: "/evil", Target: "/proc/self/attr"}), []string{"Mounts[0].Target"}},
		{"below /proc in disguise", pureMount(Mount{Type: "bind", Source: "/evil", Target: "/a/../proc/self/attr"}), []string{"Mounts[0].Target"}},
		{"below /proc, slashes", pureMount(Mount{Type: "bind", Source: "/evil", Target: "//proc/self"}), []string{"Mounts[0].Target"}},
		{"a name like /proc", pureMount(Mount{Type: "bind", Source: "/a", Target: "/process"}), nil},
		{"cgroup", pureMount(Mount{Type: "cgroup2", Target: "/sys/fs/cgroup"}), nil},
		{"atime twice", pureMount(Mount{Type: "tmpfs", Target: "/t", Flags: NoAtime | StrictAtime}), []string{"Mounts[0].Flags"}},
		{"atime and nodiratime", pureMount(Mount{Type: "tmpfs", Target: "/t", Flags: NoAtime | NoDirAtime}), nil},
		{"set and cleared", pureMount(Mount{Type: "tmpfs", Target: "/t", Flags: MountReadOnly, ClearFlags: MountReadOnly | Recursive}),
			[]string{"Mounts[0].ClearFlags", "Mounts[0].ClearFlags"}},
		{"unknown flags", pureMount(Mount{Type: "tmpfs", Target: "/t", Flags: 1 << 30, Propagation: "x"}),
			[]string{"Mounts[0].Flags", "Mounts[0].Propagation"}},
		{"idmap", pureMount(Mount{Type: "bind", Source: "/a", Target: "/b", UidMappings: []IDMap{pureMap(0, 5, 1)}, GidMappings: []IDMap{pureMap(0, 5, 1)}}),
			ifUser("Mounts[0].UidMappings")},
		{"half an idmap", pureMount(Mount{Type: "bind", Source: "/a", Target: "/b", UidMappings: []IDMap{pureMap(0, 5, 0)}}),
			[]string{"Mounts[0].GidMappings", "Mounts[0].UidMappings[0]"}},
		{"idmapped tmpfs", pureMount(Mount{Type: "tmpfs", Target: "/b", UidMappings: []IDMap{pureMap(0, 5, 1)}, GidMappings: []IDMap{pureMap(0, 5, 1)}}),
			[]string{"Mounts[0].UidMappings"}},

		{"default devices", func(c *Config) { c.Devices = DefaultDevices() }, nil},
		{"no devices", func(c *Config) { c.Devices = []Device{} }, nil},
		{"devices below", pureDevice(Device{Path: "/dev/net/tun", Type: 'c', Major: 10, Minor: 200}), nil},
		{"zero device", pureDevice(Device{}), []string{"Devices[0].Path", "Devices[0].Type"}},
		{"device elsewhere", pureDevice(Device{Path: "/etc/x", Type: 'c'}), []string{"Devices[0].Path"}},
		{"device is /dev", pureDevice(Device{Path: "/dev", Type: 'c'}), []string{"Devices[0].Path"}},
		{"device out of /dev", pureDevice(Device{Path: "/dev/../etc/x", Type: 'b'}), []string{"Devices[0].Path"}},
		{"device in place of ours", pureDevice(Device{Path: "/dev/ptmx", Type: 'c'}), []string{"Devices[0].Path"}},
		{"device in pts", pureDevice(Device{Path: "/dev/pts/0", Type: 'c'}), []string{"Devices[0].Path"}},
		{"device with odd values", pureDevice(Device{Path: "/dev/x", Type: 'p', Major: 4096, Minor: 1 << 20, Mode: 0o4777}),
			[]string{"Devices[0].Type", "Devices[0].Major", "Devices[0].Minor", "Devices[0].Mode"}},
		{"device twice", func(c *Config) { c.Devices = append(DefaultDevices(), DefaultDevices()[0]) }, []string{"Devices[6].Path"}},

		{"masks", func(c *Config) { c.MaskPaths, c.ReadonlyPaths = []string{"x", "/"}, []string{"/a/", "/"} },
			[]string{"MaskPaths[0]", "MaskPaths[1]", "ReadonlyPaths[0]", "ReadonlyPaths[1]"}},
		{"sysctls", func(c *Config) {
			c.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "vm.swappiness": "1", "net/ipv4/ip_forward": "0", "kernel.sem": "\n"}
		}, []string{`Sysctl["kernel.sem"]`, `Sysctl["net/ipv4/ip_forward"]`, `Sysctl["vm.swappiness"]`}},
		{"stop signal", func(c *Config) { c.StopSignal = 65 }, []string{"StopSignal"}},
		{"settings", func(c *Config) {
			c.Capabilities = &Capabilities{Ambient: []string{"CAP_KILL"}}
			c.Rlimits = []Rlimit{{"nofile", 1, 2}, {"RLIMIT_NOFILE", 1, 1}, {"foo", 0, 0}, {"core", RlimInfinity, 0}}
			c.OomScoreAdj = pureOf(1001)
			c.Personality = &Personality{}
			c.Scheduler = &Scheduler{}
			c.IOPriority = &IOPriority{}
			c.CPUAffinity = "x"
		}, []string{"Capabilities.Ambient", "Rlimits[1].Type", "Rlimits[2].Type", "Rlimits[3].Soft", "OomScoreAdj",
			"Personality.Domain", "Scheduler.Policy", "IOPriority.Class", "CPUAffinity"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pureWantFields(t, pureConfig(tt.change).validate(), tt.fields...)
		})
	}
}

func pureOf[T any](v T) *T { return &v }

func TestValidateProcess(t *testing.T) {
	for _, tt := range []struct {
		name   string
		p      Process
		fields []string
	}{
		{"minimal", Process{Args: []string{"true"}}, nil},
		{"zero", Process{}, []string{"Args"}},
		{"empty program", Process{Args: []string{"", "x"}}, []string{"Args"}},
		{"empty argument", Process{Args: []string{"x", ""}}, nil},
		{"NUL", Process{Args: []string{"a", "b\x00", "\x00"}, Env: []string{"A=\x00"}, Cwd: "/\x00"}, []string{"Args[1]", "Args[2]", "Env[0]", "Cwd"}},
		{"env", Process{Args: []string{"x"}, Env: []string{"A=", "A=1=2", "=x", "B", ""}}, []string{"Env[2]", "Env[3]", "Env[4]"}},
		{"cwd", Process{Args: []string{"x"}, Cwd: "tmp", WaitDelay: -1}, []string{"Cwd", "WaitDelay"}},
		{"cwd with dots", Process{Args: []string{"x"}, Cwd: "/a/../b/"}, nil},
		{"settings", Process{Args: []string{"x"}, Umask: pureOf[uint32](0o1777), OomScoreAdj: pureOf(-1001),
			Scheduler: &Scheduler{Policy: "fifo"}, Capabilities: &Capabilities{Bounding: []string{"x"}}},
			[]string{"Capabilities.Bounding[0]", "Umask", "OomScoreAdj", "Scheduler.Priority"}},
		{"limits of the range", Process{Args: []string{"x"}, Umask: pureOf[uint32](0o777), OomScoreAdj: pureOf(-1000)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) { pureWantFields(t, tt.p.validate(), tt.fields...) })
	}
	// The environment may be secret.
	secret := Process{Args: []string{"x"}, Env: []string{"hunter2", "PASSWORD=hunter2\x00"}}
	if err := secret.validate(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestValidateID(t *testing.T) {
	for _, id := range []string{"a", "A-b_c.d+9", "...", "-", strings.Repeat("x", 1024)} {
		if err := validateID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x", "/", "a b", "ä", "a\x00", "a\n", "a:b", "~", strings.Repeat("x", 1025)} {
		if err := validateID(id); !errors.Is(err, ErrInvalidID) || len(err.Error()) > 500 {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Every complaint says what to do, and none is made twice.
func TestComplaintsAreReadable(t *testing.T) {
	c := pureConfig(func(c *Config) {
		c.Root.Access = "x"
		c.Namespaces.NewUTS = false
		c.Mounts = append(c.Mounts, Mount{Type: "tmpfs", Target: "/proc"}, Mount{Type: "bind", Source: "x", Target: "/dev"})
		c.Sysctl = map[string]string{"kernel.core_pattern": "|/x", "a": "b"}
	})
	var errs fieldErrors
	errs.add(c.validate())
	seen := make(map[string]bool)
	for _, err := range errs {
		if seen[err.Error()] {
			t.Errorf("twice: %v", err)
		}
		seen[err.Error()] = true
	}
	if len(errs) != 7 {
		t.Errorf("%d complaints:\n%v", len(errs), c.validate())
	}
}
