package container

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ociSpec is a small specification that is carried out.
func ociSpec(change func(*specs.Spec)) *specs.Spec {
	spec := &specs.Spec{
		Version: "1.0.2-dev",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "uts"}, {Type: "ipc"}, {Type: "network"}},
		},
	}
	if change != nil {
		change(spec)
	}
	return spec
}

func ociConfig(t testing.TB, change func(*specs.Spec)) (Config, *Process) {
	t.Helper()
	cfg, p, err := FromSpec(ociSpec(change), "/bundle")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	return cfg, p
}

func TestOCIMinimal(t *testing.T) {
	cfg, p := ociConfig(t, nil)
	want := Config{
		Root:         Root{Dir: "/bundle/rootfs", Access: ReadWrite},
		Namespaces:   Namespaces{NewPID: true, NewMnt: true, NewUTS: true, NewIPC: true, NewNet: true},
		Devices:      DefaultDevices(),
		Capabilities: &Capabilities{},
		Bundle:       "/bundle",
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v\nwant %+v", cfg, want)
	}
	if want := (&Process{Args: []string{"sh"}, Cwd: "/", User: "0:0"}); !reflect.DeepEqual(p, want) {
		t.Errorf("got %+v\nwant %+v", p, want)
	}
	if _, p, err := FromSpec(ociSpec(func(s *specs.Spec) { s.Process = nil }), "/bundle"); p != nil || err != nil {
		t.Errorf("without a process: %v, %v", p, err)
	}
}

// ociSamples are values for fields that take not just any.
var ociSamples = map[string]any{
	"hooks.prestart[0].path":                         "/x",
	"process.consoleSize":                            specs.Box{Width: 3, Height: 4},
	"linux.namespaces[0].type":                       specs.LinuxNamespaceType("cgroup"),
	"process.capabilities.ambient":                   []string{"CAP_KILL"},
	"linux.namespaces[0].path":                       "/proc/1/ns/cgroup",
	"linux.rootfsPropagation":                        "rslave",
	"linux.devices[0].type":                          "b",
	"linux.devices[0].fileMode":                      os.FileMode(0o640),
	"linux.timeOffsets[\"monotonic\"].secs":          int64(5),
	"mounts[0].options":                              []string{"ro"},
	"mounts[0].type":                                 "sysfs",
	"process.cwd":                                    "/sample",
	"process.scheduler.flags":                        []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork},
	"linux.resources.devices":                        []specs.LinuxDeviceCgroup{{Access: "rwm"}},
	"linux.resources.devices[0].allow":               true,
	"linux.resources.devices[0].access":              "r",
	"linux.resources.devices[0].type":                "b",
	"linux.resources.blockIO.weight":                 uint16(500),
	"linux.resources.blockIO.weightDevice[0].weight": uint16(500),
	"linux.resources.cpu.idle":                       int64(1),
	"linux.resources.memory.limit":                   int64(1 << 20),
}

// ociIgnored are fields that rightly change nothing, with the reason.
var ociIgnored = map[string]string{
	"process.capabilities.ambient":             "it cannot be had without being permitted and inheritable; see TestOCIAmbient",
	"ociVersion":                               "it is checked; see TestOCIRefused",
	"process.consoleSize":                      "without a terminal the specification demands that it is ignored; see TestOCITerminal",
	"process.consoleSize.height":               "without a terminal the specification demands that it is ignored",
	"process.consoleSize.width":                "without a terminal the specification demands that it is ignored",
	"linux.resources.devices[0].allow":         "one rule that allows everything leaves nothing denied",
	"linux.resources.memory.useHierarchy":      "cgroup v2 has nothing else",
	"linux.resources.memory.checkBeforeUpdate": "without a limit there is nothing to check; see TestOCILimits",
	"linux.resources.rdma":                     "a device without limits is not limited; see TestOCILimits",
}

// ociContainers are lists and maps whose elements the walk looks into, with the one it begins with.
var ociContainers = map[string]any{
	"hooks.prestart":                                  specs.Hook{Path: "/h"},
	"mounts":                                          specs.Mount{Destination: "/m", Type: "tmpfs"},
	"process.rlimits":                                 specs.POSIXRlimit{Type: "RLIMIT_CORE"},
	"linux.namespaces":                                specs.LinuxNamespace{Type: "user"},
	"linux.devices":                                   specs.LinuxDevice{Path: "/dev/sample", Type: "c"},
	"linux.timeOffsets":                               specs.LinuxTimeOffset{},
	"linux.resources.devices":                         specs.LinuxDeviceCgroup{},
	"linux.resources.hugepageLimits":                  specs.LinuxHugepageLimit{Pagesize: "2MB", Limit: 1 << 21},
	"linux.resources.blockIO.weightDevice":            specs.LinuxWeightDevice{Weight: new(uint16(100))},
	"linux.resources.blockIO.throttleReadBpsDevice":   specs.LinuxThrottleDevice{Rate: 1},
	"linux.resources.blockIO.throttleWriteBpsDevice":  specs.LinuxThrottleDevice{Rate: 1},
	"linux.resources.blockIO.throttleReadIOPSDevice":  specs.LinuxThrottleDevice{Rate: 1},
	"linux.resources.blockIO.throttleWriteIOPSDevice": specs.LinuxThrottleDevice{Rate: 1},
	"linux.uidMappings":                               specs.LinuxIDMapping{Size: 1},
	"linux.gidMappings":                               specs.LinuxIDMapping{Size: 1},
	"mounts[0].uidMappings":                           specs.LinuxIDMapping{Size: 1},
	"mounts[0].gidMappings":                           specs.LinuxIDMapping{Size: 1},
}

// Every field of the specification changes what comes of it, or is refused by its name. A field that a
// newer version of the specification brings fails this test until somebody has thought of it.
func TestOCIEveryField(t *testing.T) {
	count := 0
	var walk func(name string, typ reflect.Type, of func(*specs.Spec) reflect.Value)
	try := func(name string, of func(*specs.Spec) reflect.Value, value reflect.Value) {
		count++
		base, spec := ociSpec(nil), ociSpec(nil)
		of(base) // makes what is above the field
		if outer := of(spec); outer.Kind() == reflect.Pointer {
			outer.Set(reflect.New(outer.Type().Elem()))
			outer.Elem().Set(value.Convert(outer.Type().Elem()))
		} else {
			outer.Set(value.Convert(outer.Type()))
		}
		cfg, p, err := FromSpec(spec, "/bundle")
		if err == nil {
			before, beforeP, beforeErr := FromSpec(base, "/bundle")
			if beforeErr == nil && reflect.DeepEqual(cfg, before) && reflect.DeepEqual(p, beforeP) && ociIgnored[name] == "" {
				t.Errorf("%s is neither carried out nor refused", name)
			}
			return
		}
		var errs fieldErrors
		errs.add(err)
		for _, err := range errs {
			var f *FieldError
			if !errors.As(err, &f) {
				t.Errorf("%s: %v", name, err)
				return
			}
			field := strings.Split(f.Field, "[")[0] // of lists and maps any element
			if strings.HasPrefix(name, field) || strings.HasPrefix(f.Field, name) {
				return
			}
		}
		t.Errorf("%s is refused without being named: %v", name, err)
	}
	walk = func(name string, typ reflect.Type, of func(*specs.Spec) reflect.Value) {
		if sample, ok := ociSamples[name]; ok {
			try(name, of, reflect.ValueOf(sample))
		}
		switch typ.Kind() {
		case reflect.Pointer:
			walk(name, typ.Elem(), func(s *specs.Spec) reflect.Value {
				v := of(s)
				if v.Kind() == reflect.Pointer && typ.Elem().Kind() != reflect.Struct {
					return v
				}
				if v.IsNil() {
					v.Set(reflect.New(typ.Elem()))
				}
				return v.Elem()
			})
		case reflect.Struct:
			for i := range typ.NumField() {
				field, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
				field = name + "." + field
				if typ.Field(i).Anonymous {
					field = name
				}
				walk(strings.TrimPrefix(field, "."), typ.Field(i).Type, func(s *specs.Spec) reflect.Value { return of(s).Field(i) })
			}
		case reflect.Slice:
			if first, ok := ociContainers[name]; ok {
				walk(name+"[0]", typ.Elem(), func(s *specs.Spec) reflect.Value {
					v := of(s)
					if name == "linux.namespaces" {
						v.Set(reflect.Append(v, reflect.ValueOf(first)))
						return v.Index(v.Len() - 1)
					}
					v.Set(reflect.Append(reflect.Zero(typ), reflect.ValueOf(first)))
					return v.Index(0)
				})
				return
			}
			if _, ok := ociSamples[name]; !ok {
				one := reflect.New(typ.Elem()).Elem()
				if typ.Elem().Kind() != reflect.Struct {
					one = ociSample(typ.Elem())
				}
				try(name, of, reflect.Append(reflect.Zero(typ), one))
			}
		case reflect.Map:
			value := ociSample(typ.Elem())
			if typ.Elem().Kind() == reflect.Struct {
				value = reflect.New(typ.Elem()).Elem()
			}
			key := reflect.ValueOf("monotonic")
			if value.Kind() == reflect.Struct && value.NumField() > 0 && name == "linux.timeOffsets" {
				value.Field(0).SetInt(7)
			}
			m := reflect.MakeMap(typ)
			m.SetMapIndex(key, value)
			try(name, of, m)
		default:
			if _, ok := ociSamples[name]; !ok {
				try(name, of, ociSample(typ))
			}
		}
	}
	walk("", reflect.TypeFor[specs.Spec](), func(s *specs.Spec) reflect.Value { return reflect.ValueOf(s).Elem() })
	if count < 150 {
		t.Errorf("only %d fields looked at", count)
	}
	t.Logf("%d fields", count)
}

// ociSample is a value that asks for something.
func ociSample(typ reflect.Type) reflect.Value {
	v := reflect.New(typ).Elem()
	switch typ.Kind() {
	case reflect.String:
		v.SetString("sample")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(3)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(3)
	}
	return v
}

// What is refused is named in the specification's words.
func TestOCIRefused(t *testing.T) {
	mount := func(m specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = []specs.Mount{m} }
	}
	zero := uint64(0)
	for name, test := range map[string]struct {
		change func(*specs.Spec)
		field  string
	}{
		"no version":  {func(s *specs.Spec) { s.Version = "" }, "ociVersion"},
		"old version": {func(s *specs.Spec) { s.Version = "0.9.0" }, "ociVersion"},
		"new version": {func(s *specs.Spec) { s.Version = "2.0.0" }, "ociVersion"},
		"devices into a network of others": {func(s *specs.Spec) {
			for i := range s.Linux.Namespaces {
				if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
					s.Linux.Namespaces[i].Path = "/run/netns/x"
				}
			}
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth7": {}}
		}, "linux.netDevices"},
		"no linux":           {func(s *specs.Spec) { s.Linux = nil }, "linux"},
		"windows":            {func(s *specs.Spec) { s.Windows = &specs.Windows{} }, "windows"},
		"no root":            {func(s *specs.Spec) { s.Root = nil }, "root"},
		"no root path":       {func(s *specs.Spec) { s.Root.Path = "" }, "root.path"},
		"root for nobody":    {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] }, "root"},
		"relative cwd":       {func(s *specs.Spec) { s.Process.Cwd = "x" }, "process.cwd"},
		"no cwd":             {func(s *specs.Spec) { s.Process.Cwd = "" }, "process.cwd"},
		"namespace twice":    {func(s *specs.Spec) { s.Linux.Namespaces[1].Type = "pid" }, "linux.namespaces[1].type"},
		"namespace of ours":  {func(s *specs.Spec) { s.Linux.Namespaces[1].Type = "mnt" }, "linux.namespaces[1].type"},
		"relative namespace": {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "x" }, "linux.namespaces[0].path"},
		"user without maps":  {func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "user" }, "linux.uidMappings"},
		"unknown clock":      {func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {}} }, `linux.timeOffsets["realtime"]`},
		"distant clock": {func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1 << 60}}
		}, `linux.timeOffsets["boottime"]`},
		"swappiness of zero": {func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: &zero}}
		}, "linux.resources.memory.swappiness"},
		"hook nowhere": {func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }, "hooks.poststop[0].path"},
		"hook without time": {func(s *specs.Spec) {
			timeout := 0
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x"}, {Path: "/x", Timeout: &timeout}}}
		}, "hooks.createRuntime[1].timeout"},
		"no size":               {func(s *specs.Spec) { s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Width: 3} }, "process.consoleSize"},
		"pipe":                  {func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "p"}} }, "linux.devices[0].type"},
		"mount without type":    {mount(specs.Mount{Destination: "/x"}), "mounts[0].type"},
		"mount of a disk":       {mount(specs.Mount{Destination: "/x", Type: "ext4", Source: "/dev/sda"}), "mounts[0].type"},
		"mount of nothing":      {mount(specs.Mount{Destination: "/x", Type: "bind"}), "mounts[0].source"},
		"mount to nowhere":      {mount(specs.Mount{Type: "tmpfs"}), "mounts[0].destination"},
		"option of a bind":      {mount(specs.Mount{Destination: "/x", Source: "/x", Options: []string{"bind", "size=3"}}), "mounts[0].options"},
		"remount":               {mount(specs.Mount{Destination: "/x", Source: "/x", Options: []string{"bind", "remount"}}), "mounts[0].options"},
		"mixed attributes":      {mount(specs.Mount{Destination: "/x", Source: "/x", Options: []string{"rbind", "rro", "nosuid"}}), "mounts[0].options"},
		"idmap of nobody":       {mount(specs.Mount{Destination: "/x", Source: "/x", Options: []string{"bind", "idmap"}}), "mounts[0].options"},
		"idmap and all of them": {mount(specs.Mount{Destination: "/x", Source: "/x", Options: []string{"rbind", "idmap", "rro"}, UIDMappings: []specs.LinuxIDMapping{{Size: 1}}}), "mounts[0].options"},
		"unknown propagation":   {func(s *specs.Spec) { s.Linux.RootfsPropagation = "sideways" }, "linux.rootfsPropagation"},
	} {
		_, _, err := FromSpec(ociSpec(test.change), "/bundle")
		var f *FieldError
		if !errors.As(err, &f) || f.Field != test.field || !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%s: %v, want a complaint about %s", name, err, test.field)
		}
	}
	if _, _, err := FromSpec(ociSpec(nil), "bundle"); err == nil {
		t.Error("a relative bundle was taken")
	}
}

// What clients write for "as usual" asks for nothing.
func TestOCIAsksForNothing(t *testing.T) {
	zero, none, off, shares := int64(0), int64(-1), false, uint64(0)
	var weight uint16
	plain, _ := ociConfig(t, nil)
	cfg, _ := ociConfig(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Poststop: []specs.Hook{}}
		s.Annotations = map[string]string{}
		s.Linux.Resources = &specs.LinuxResources{
			Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "a", Access: "rwm"}},
			Memory:  &specs.LinuxMemory{Limit: &none, Swap: &zero, DisableOOMKiller: &off},
			CPU:     &specs.LinuxCPU{Shares: &shares, Quota: &none},
			Pids:    &specs.LinuxPids{Limit: &none},
			BlockIO: &specs.LinuxBlockIO{Weight: &weight},
			Network: &specs.LinuxNetwork{},
		}
	})
	if !reflect.DeepEqual(plain, cfg) {
		t.Errorf("got %+v\nwant %+v", cfg, plain)
	}
}

func TestOCIMounts(t *testing.T) {
	for name, test := range map[string]struct {
		in   specs.Mount
		want Mount
	}{
		"proc":      {specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}}, Mount{Type: "proc", Source: "proc", Target: "/proc", Flags: NoSuid | NoExec | NoDev}},
		"dev":       {specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755"}}, Mount{Type: "tmpfs", Source: "tmpfs", Target: "/dev", Flags: NoSuid | StrictAtime, Data: "mode=755"}},
		"cgroup":    {specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "rprivate"}}, Mount{Type: "cgroup2", Source: "cgroup", Target: "/sys/fs/cgroup", Flags: MountReadOnly, Propagation: RPrivate}},
		"relative":  {specs.Mount{Destination: "etc/../data", Source: "data/", Options: []string{"bind"}}, Mount{Type: "bind", Source: "/bundle/data", Target: "/data"}},
		"top":       {specs.Mount{Destination: "/x", Type: "none", Source: "/x", Options: []string{"rbind", "ro", "rslave"}}, Mount{Type: "bind", Source: "/x", Target: "/x", Flags: Recursive | TopOnly | MountReadOnly, Propagation: RSlave}},
		"writable":  {specs.Mount{Destination: "/x", Type: "bind", Source: "/x", Options: []string{"rw", "rbind"}}, Mount{Type: "bind", Source: "/x", Target: "/x", Flags: Recursive | TopOnly, ClearFlags: MountReadOnly}},
		"deep":      {specs.Mount{Destination: "/x", Source: "/x", Options: []string{"rbind", "rro", "ro"}}, Mount{Type: "bind", Source: "/x", Target: "/x", Flags: Recursive | MountReadOnly}},
		"one mount": {specs.Mount{Destination: "/x", Source: "/x", Options: []string{"bind", "rro"}}, Mount{Type: "bind", Source: "/x", Target: "/x", Flags: MountReadOnly}},
		"quiet":     {specs.Mount{Destination: "/x", Source: "/x", Options: []string{"bind", "silent", "async", "defaults", "nolazytime"}}, Mount{Type: "bind", Source: "/x", Target: "/x"}},
		"tmpfs":     {specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"rw", "tmpcopyup", "sync", "size=1m"}}, Mount{Type: "tmpfs", Source: "tmpfs", Target: "/x", ClearFlags: MountReadOnly, CopyUp: true, Data: "sync,size=1m"}},
		"idmap": {
			specs.Mount{Destination: "/x", Source: "/x", Options: []string{"bind", "idmap"}, UIDMappings: []specs.LinuxIDMapping{{HostID: 5, Size: 1}}, GIDMappings: []specs.LinuxIDMapping{{HostID: 6, Size: 1}}},
			Mount{Type: "bind", Source: "/x", Target: "/x", UidMappings: []IDMap{pureMap(0, 5, 1)}, GidMappings: []IDMap{pureMap(0, 6, 1)}},
		},
	} {
		cfg, _, err := FromSpec(ociSpec(func(s *specs.Spec) { s.Mounts = []specs.Mount{test.in} }), "/bundle")
		if err != nil || len(cfg.Mounts) != 1 || !reflect.DeepEqual(cfg.Mounts[0], test.want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, cfg.Mounts, err, test.want)
		}
	}
	// Without mappings of its own a mount has the container's.
	cfg, _, err := FromSpec(ociSpec(func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 7, Size: 8}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
		s.Mounts = []specs.Mount{{Destination: "/x", Source: "/x", Options: []string{"rbind", "ridmap"}}}
	}), "/")
	if err != nil || !reflect.DeepEqual(cfg.Mounts[0].GidMappings, []IDMap{pureMap(0, 7, 8)}) {
		t.Errorf("%+v, %v", cfg.Mounts, err)
	}
}

// Rules about devices are rules, amount to nothing, or are refused; and mounts hold them, or refuse to.
func TestOCIDeviceRules(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	fuse := specs.LinuxDevice{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}
	allowFuse := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(10), Minor: n(229), Access: "rwm"}
	mknod := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(-1), Minor: n(-1), Access: "m"}
	const (
		nothing = iota // there are no rules
		refused
		mounts // rules, which mounts can hold
		ebpf   // rules, which they cannot
	)
	for name, test := range map[string]struct {
		devices []specs.LinuxDevice
		rules   []specs.LinuxDeviceCgroup
		admin   bool
		want    int
		first   []DeviceRule // if it matters, before DefaultDeviceRules
	}{
		"no rules":               {want: nothing},
		"deny all":               {rules: []specs.LinuxDeviceCgroup{deny}, want: mounts, first: []DeviceRule{}},
		"deny one":               {rules: []specs.LinuxDeviceCgroup{{Type: "b", Major: n(8), Access: "w"}}, want: mounts, first: []DeviceRule{{Type: 'b', Major: new(uint32(8)), Access: "w"}}},
		"allow all":              {rules: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, want: nothing},
		"deny, then allow all":   {rules: []specs.LinuxDeviceCgroup{deny, {Allow: true}}, want: nothing},
		"in two steps":           {rules: []specs.LinuxDeviceCgroup{deny, {Allow: true, Access: "rw"}, {Allow: true, Type: "a", Access: "m"}}, want: nothing},
		"allow some kind":        {rules: []specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "c"}}, want: mounts},
		"the usual":              {devices: []specs.LinuxDevice{fuse}, rules: []specs.LinuxDeviceCgroup{deny, allowFuse}, want: mounts, first: []DeviceRule{{Allow: true, Type: 'c', Major: new(uint32(10)), Minor: new(uint32(229)), Access: "rwm"}}},
		"a device that is not":   {devices: []specs.LinuxDevice{fuse}, rules: []specs.LinuxDeviceCgroup{deny, mknod}, want: ebpf},
		"a device half":          {devices: []specs.LinuxDevice{fuse}, rules: []specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "c", Access: "r"}}, want: ebpf},
		"in two rules":           {devices: []specs.LinuxDevice{fuse}, rules: []specs.LinuxDeviceCgroup{deny, {Allow: true, Access: "r"}, {Allow: true, Major: n(10), Access: "mw"}}, want: mounts},
		"taken back":             {devices: []specs.LinuxDevice{fuse}, rules: []specs.LinuxDeviceCgroup{{Allow: true}, allowFuse, {Type: "c", Minor: n(229), Access: "r"}}, want: ebpf},
		"who may mount":          {rules: []specs.LinuxDeviceCgroup{deny}, admin: true, want: ebpf},
		"nothing to be held":     {rules: []specs.LinuxDeviceCgroup{deny, {Allow: true}}, admin: true, want: nothing},
		"unknown type":           {rules: []specs.LinuxDeviceCgroup{{Type: "x"}}, want: refused},
		"unknown kind of access": {rules: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rx"}}, want: refused},
		"a large number":         {rules: []specs.LinuxDeviceCgroup{{Allow: true, Major: n(1 << 33)}}, want: refused},
	} {
		cfg, _, err := FromSpec(ociSpec(func(s *specs.Spec) {
			s.Linux.Devices = test.devices
			s.Linux.Resources = &specs.LinuxResources{Devices: test.rules}
			s.Mounts = []specs.Mount{{Destination: "/d", Source: "/d", Options: []string{"bind", "dev"}}}
			if test.admin {
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_ADMIN"}}
			}
		}), "/bundle")
		var f *FieldError
		if test.want == refused {
			if !errors.As(err, &f) || !strings.HasPrefix(f.Field, "linux.resources.devices[0].") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || (cfg.Resources == nil) != (test.want == nothing) || cfg.DevicesOnly {
			t.Errorf("%s: %+v, %v", name, cfg.Resources, err)
			continue
		}
		if want := append(test.first, DefaultDeviceRules()...); test.first != nil && !reflect.DeepEqual(cfg.Resources.Devices, want) {
			t.Errorf("%s: %s, want %s", name, showDeviceRules(cfg.Resources.Devices), showDeviceRules(want))
		}
		before := *deepCopy(&cfg)
		err = cfg.LimitDevicesByMounts()
		switch {
		case test.want == ebpf && (err == nil || !errors.Is(err, ErrInvalidConfig) || !reflect.DeepEqual(cfg, before)):
			t.Errorf("%s: not refused, or changed: %v", name, err)
		case test.want != ebpf && (err != nil || cfg.DevicesOnly != (test.want == mounts) || cfg.Resources != nil || (cfg.Mounts[0].ClearFlags == 0) != (test.want == mounts)):
			t.Errorf("%s: %+v, %v", name, cfg, err)
		}
	}
	limited := Config{Resources: &Resources{Devices: []DeviceRule{{Allow: true}}, Pids: &PidsResources{}}}
	if err := limited.LimitDevicesByMounts(); err != nil || limited.Resources == nil || limited.Resources.Devices != nil || limited.DevicesOnly {
		t.Errorf("with another limit: %+v, %v", limited.Resources, err)
	}
}

// Rules mean the same in the specification, whatever of a rule is left to its default.
func TestOCIDeviceRulesMean(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		rules := append(randomDeviceRules(random), DefaultDeviceRules()...)
		list := deviceRulesToSpec(rules)
		back, errs := deviceRulesFromSpec(list)
		if len(errs) > 0 {
			t.Fatalf("%s\n%+v\n%v", showDeviceRules(rules), list, errs)
		}
		checkDeviceAnswers(t, compileDeviceRules(back), rules)
	}
	_, err := ToSpec(Config{Resources: &Resources{Devices: []DeviceRule{{Allow: true}, {Type: 'c', Access: "w"}}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "Resources.Devices: every container") {
		t.Errorf("without the default devices: %v", err)
	}
	_, err = ToSpec(Config{DevicesOnly: true, Resources: &Resources{Devices: DefaultDeviceRules()}}, nil)
	if err == nil || !strings.Contains(err.Error(), "DevicesOnly: ") {
		t.Errorf("two walls: %v", err)
	}
	// DevicesOnly comes back as what it amounts to.
	cfg, _, err := ociRoundTrip(t, Config{Root: Directory("/r"), Namespaces: Namespaces{NewMnt: true, NewPID: true}, DevicesOnly: true}, &Process{Args: []string{"x"}})
	if err != nil || cfg.Resources == nil || cfg.DevicesOnly {
		t.Fatalf("%+v, %v", cfg, err)
	}
	if err := cfg.LimitDevicesByMounts(); err != nil || !cfg.DevicesOnly {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestOCITimeOffsets(t *testing.T) {
	for _, offset := range []time.Duration{1, -1, time.Second, -time.Second, 1<<53 + 1, -1<<53 - 1, 3*time.Hour + 7, -3*time.Hour - 7} {
		cfg := Config{Namespaces: Namespaces{NewTime: true}, TimeOffsets: TimeOffsets{Monotonic: offset, Boottime: -offset}}
		spec, err := ToSpec(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := FromSpec(spec, "")
		if err != nil || got.TimeOffsets != cfg.TimeOffsets {
			t.Errorf("%v, %v becomes %v", err, cfg.TimeOffsets, got.TimeOffsets)
		}
	}
}

func TestOCIReadSpec(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadSpec(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for text, want := range map[string]string{
		`{"ociVersion":"1.0.0","futureField":{"a":1},"linux":{"alsoNew":[1]}}`: "1.0.0",
		`{"ociVersion":`: "",
		``:               "",
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		spec, err := ReadSpec(dir)
		if (err == nil) != (want != "") || err == nil && spec.Version != want {
			t.Errorf("%s: %v, %v", text, spec, err)
		}
	}
}

func TestOCIState(t *testing.T) {
	state := ContainerState{ID: "x", Status: StatusRunning, Pid: 7, Bundle: "/b", Annotations: map[string]string{"k": "v"}}
	text, err := json.Marshal(state.OCI())
	if want := `{"ociVersion":"` + specs.Version + `","id":"x","status":"running","pid":7,"bundle":"/b","annotations":{"k":"v"}}`; err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}

func TestOCIAmbient(t *testing.T) {
	cfg, _ := ociConfig(t, func(s *specs.Spec) {
		all := []string{"CAP_KILL", "CAP_CHOWN", "CAP_FOWNER"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Ambient: all, Permitted: all[:2], Inheritable: all[1:]}
	})
	if got := cfg.Capabilities.Ambient; !reflect.DeepEqual(got, []string{"CAP_CHOWN"}) {
		t.Errorf("ambient %v", got)
	}
}

func TestOCITerminal(t *testing.T) {
	_, p := ociConfig(t, func(s *specs.Spec) {
		s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Width: 80, Height: 25}
	})
	if !p.Tty || p.ConsoleSize != (ConsoleSize{Width: 80, Height: 25}) {
		t.Errorf("%+v", p)
	}
}
