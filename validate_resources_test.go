package container

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestValidateResources(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		name   string
		r      *Resources
		fields []string
	}{
		{"nil", nil, nil},
		{"zero", &Resources{}, nil},
		{"full", resourcesFull(), nil},
		{"default", DefaultResources(), nil},
		{"zeros are limits", &Resources{Pids: &PidsResources{Max: new(int64(0))}, Memory: &MemoryResources{SwapMax: new(int64(0)), Max: new(int64(0))}, CPU: &CPUResources{Burst: new(uint64(0))}}, nil},
		{"unlimited", &Resources{Pids: &PidsResources{Max: new(Unlimited)}, CPU: &CPUResources{Quota: new(Unlimited), Period: 1000, Burst: new(uint64(0))}}, nil},
		{"memory", &Resources{Memory: &MemoryResources{Max: new(int64(-2)), High: new(int64(-3)), Low: new(int64(-4)), Min: new(int64(-5)), SwapMax: new(int64(-6)), SwapHigh: new(int64(-7)), ZswapMax: new(int64(-8))}},
			[]string{"Resources.Memory.Max", "Resources.Memory.High", "Resources.Memory.Low", "Resources.Memory.Min", "Resources.Memory.SwapMax", "Resources.Memory.SwapHigh", "Resources.Memory.ZswapMax"}},
		{"check of nothing", &Resources{Memory: &MemoryResources{CheckUsage: true}}, []string{"Resources.Memory.CheckUsage"}},
		{"pids", &Resources{Pids: &PidsResources{Max: new(int64(4<<20 + 1))}}, []string{"Resources.Pids.Max"}},
		{"quota", &Resources{CPU: &CPUResources{Quota: new(int64(999))}}, []string{"Resources.CPU.Quota"}},
		{"quota of zero", &Resources{CPU: &CPUResources{Quota: new(int64(0))}}, []string{"Resources.CPU.Quota"}},
		{"great quota", &Resources{CPU: &CPUResources{Quota: new(int64(1 << 44))}}, []string{"Resources.CPU.Quota"}},
		{"period alone", &Resources{CPU: &CPUResources{Period: 100000}}, []string{"Resources.CPU.Period"}},
		{"short period", &Resources{CPU: &CPUResources{Quota: new(int64(1000)), Period: 999}}, []string{"Resources.CPU.Period"}},
		{"long period", &Resources{CPU: &CPUResources{Quota: new(int64(1000)), Period: 1000001}}, []string{"Resources.CPU.Period"}},
		{"burst", &Resources{CPU: &CPUResources{Quota: new(int64(1000)), Burst: new(uint64(1000))}}, nil},
		{"great burst", &Resources{CPU: &CPUResources{Quota: new(int64(1000)), Burst: new(uint64(1001))}}, []string{"Resources.CPU.Burst"}},
		{"huge burst", &Resources{CPU: &CPUResources{Burst: new(uint64(1 << 63))}}, []string{"Resources.CPU.Burst"}},
		{"burst of no quota", &Resources{CPU: &CPUResources{Quota: new(Unlimited), Burst: new(uint64(1))}}, []string{"Resources.CPU.Burst"}},
		{"weights", &Resources{CPU: &CPUResources{Weight: 10001}, IO: &IOResources{Weight: 10001, DeviceWeight: map[string]uint64{"8:0": 0, "8:16": 10000}}},
			[]string{"Resources.CPU.Weight", "Resources.IO.Weight", `Resources.IO.DeviceWeight["8:0"]`}},
		{"lists", &Resources{CPU: &CPUResources{Cpus: "0-1\n", Mems: "0-3:1/2"}}, []string{"Resources.CPU.Cpus", "Resources.CPU.Mems"}},
		{"devices", &Resources{IO: &IOResources{
			DeviceWeight: map[string]uint64{"8": 1}, Max: map[string]IOMax{"8:00": {}, "8:0 rbps=1": {}, "": {}, "4096:0": {}}, Latency: map[string]uint64{"/dev/sda": 1}}},
			[]string{`Resources.IO.DeviceWeight["8"]`, `Resources.IO.Max[""]`, `Resources.IO.Max["4096:0"]`, `Resources.IO.Max["8:0 rbps=1"]`, `Resources.IO.Max["8:00"]`, `Resources.IO.Latency["/dev/sda"]`}},
		{"zeros of io", &Resources{IO: &IOResources{Max: map[string]IOMax{"8:0": {new(int64(0)), new(int64(0)), new(int64(0)), new(int64(0))}}}},
			[]string{`Resources.IO.Max["8:0"].ReadBytes`, `Resources.IO.Max["8:0"].WriteBytes`, `Resources.IO.Max["8:0"].ReadOps`, `Resources.IO.Max["8:0"].WriteOps`}},
		{"latency", &Resources{IO: &IOResources{Latency: map[string]uint64{"8:0": 1 << 60}}}, []string{`Resources.IO.Latency["8:0"]`}},
		{"huge pages", &Resources{Hugetlb: map[string]HugetlbResources{"2MB": {new(int64(-2)), new(int64(-3))}, "2M": {}, "3MB": {}, "02MB": {}, "1024MB": {}, "../2MB": {}}},
			[]string{`Resources.Hugetlb["../2MB"]`, `Resources.Hugetlb["02MB"]`, `Resources.Hugetlb["1024MB"]`, `Resources.Hugetlb["2M"]`,
				`Resources.Hugetlb["2MB"].Max`, `Resources.Hugetlb["2MB"].ReservedMax`, `Resources.Hugetlb["3MB"]`}},
		{"rdma", &Resources{RDMA: map[string]RDMAResources{"a b": {}, "": {}, "c": {new(int64(1 << 31)), new(int64(-2))}}},
			[]string{`Resources.RDMA[""]`, `Resources.RDMA["a b"]`, `Resources.RDMA["c"].HCAHandles`, `Resources.RDMA["c"].HCAObjects`}},
		{"misc", &Resources{Misc: map[string]int64{"sev max\nx": 1, "sev": -2}}, []string{`Resources.Misc["sev"]`, `Resources.Misc["sev max\nx"]`}},
		{"unified lines", &Resources{Unified: map[string]string{"io.max": "8:0 rbps=1\n8:16 rbps=1\n"}}, nil},
		{"unified names", &Resources{Unified: map[string]string{"cgroup.procs": "1", "a/memory.max": "1", "memory.../x": "1", "memory": "1", "": "1", "foo.max": "1", "memory.max/../../x": "1", "memory.a..b": "1", "memory.\n": "1"}},
			[]string{`Resources.Unified[""]`, `Resources.Unified["a/memory.max"]`, `Resources.Unified["cgroup.procs"]`, `Resources.Unified["foo.max"]`, `Resources.Unified["memory"]`,
				`Resources.Unified["memory.\n"]`, `Resources.Unified["memory.../x"]`, `Resources.Unified["memory.a..b"]`, `Resources.Unified["memory.max/../../x"]`}},
		{"unified values", &Resources{Unified: map[string]string{"memory.max": "", "memory.low": " \n", "memory.high": "1\x00", "memory.min": long, "cpu.pressure": "some 1 1", "memory.reclaim": "1G"}},
			[]string{`Resources.Unified["cpu.pressure"]`, `Resources.Unified["memory.high"]`, `Resources.Unified["memory.low"]`, `Resources.Unified["memory.max"]`, `Resources.Unified["memory.min"]`, `Resources.Unified["memory.reclaim"]`}},
		{"unified and fields", &Resources{Pids: &PidsResources{Max: new(int64(1))}, IO: &IOResources{Weight: 1}, CPU: &CPUResources{Cpus: "0"},
			Unified: map[string]string{"pids.max": "2", "io.bfq.weight": "5", "cpuset.cpus": "1", "cpuset.mems": "0", "cpu.weight": "1"}},
			[]string{`Resources.Unified["cpuset.cpus"]`, `Resources.Unified["io.bfq.weight"]`, `Resources.Unified["pids.max"]`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pureWantFields(t, pureConfig(func(c *Config) { c.Resources = tt.r }).validate(), tt.fields...)
		})
	}
}

func TestValidateCgroup(t *testing.T) {
	for _, tt := range []struct {
		name   string
		g      CgroupConfig
		fields []string
	}{
		{"zero", CgroupConfig{}, nil},
		{"path", CgroupConfig{Path: "/a.b/c d/memory/_cpu.x"}, nil},
		{"parent", CgroupConfig{Manager: CgroupFS, Parent: "/"}, nil},
		{"slice", CgroupConfig{Manager: CgroupSystemd, Parent: "user-1000.slice", Delegate: true}, nil},
		{"root slice", CgroupConfig{Manager: CgroupSystemd, Parent: "-.slice"}, nil},
		{"slice of auto", CgroupConfig{Parent: "machine.slice"}, nil},
		{"path of auto", CgroupConfig{Parent: "/machine.slice"}, nil},
		{"manager", CgroupConfig{Manager: "docker"}, []string{"Cgroup.Manager"}},
		{"root", CgroupConfig{Path: "/"}, []string{"Cgroup.Path"}},
		{"relative", CgroupConfig{Path: "a"}, []string{"Cgroup.Path"}},
		{"dots", CgroupConfig{Path: "/a/../b"}, []string{"Cgroup.Path"}},
		{"newline", CgroupConfig{Path: "/a\nb"}, []string{"Cgroup.Path"}},
		{"the kernel's file", CgroupConfig{Path: "/a/cgroup.procs"}, []string{"Cgroup.Path"}},
		{"long", CgroupConfig{Path: "/" + strings.Repeat("x", 256)}, []string{"Cgroup.Path"}},
		{"path and parent", CgroupConfig{Path: "/a", Parent: "/b"}, []string{"Cgroup.Path"}},
		{"path of systemd", CgroupConfig{Manager: CgroupSystemd, Path: "/a"}, []string{"Cgroup.Path"}},
		{"slice of cgroupfs", CgroupConfig{Manager: CgroupFS, Parent: "machine.slice"}, []string{"Cgroup.Parent"}},
		{"path for a slice", CgroupConfig{Manager: CgroupSystemd, Parent: "/machine.slice"}, []string{"Cgroup.Parent"}},
		{"name", CgroupConfig{Manager: CgroupFS, Parent: "/a", Name: "b/c"}, nil},
		{"name of a scope", CgroupConfig{Manager: CgroupSystemd, Name: "libpod-x.scope"}, nil},
		{"name of no scope", CgroupConfig{Manager: CgroupSystemd, Name: "libpod"}, []string{"Cgroup.Name"}},
		{"name of no scope, auto", CgroupConfig{Parent: "a.slice", Name: "../x.scope"}, []string{"Cgroup.Name"}},
		{"name above", CgroupConfig{Name: "../x"}, []string{"Cgroup.Name"}},
		{"name and path", CgroupConfig{Path: "/a", Name: "x"}, []string{"Cgroup.Path"}},
		{"bad parent", CgroupConfig{Manager: CgroupFS, Parent: "/a/memory.max"}, []string{"Cgroup.Parent"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pureWantFields(t, pureConfig(func(c *Config) { c.Cgroup = &tt.g }).validate(), tt.fields...)
		})
	}
	for _, name := range []string{"", "slice", ".slice", "a/b.slice", "-a.slice", "a-.slice", "a--b.slice", "a b.slice", "a.service", "ä.slice", "a\n.slice"} {
		pureWantFields(t, pureConfig(func(c *Config) { c.Cgroup = &CgroupConfig{Manager: CgroupSystemd, Parent: name} }).validate(), map[bool][]string{false: {"Cgroup.Parent"}}[name == ""]...)
	}
	for name, change := range map[string]func(*Config){
		"the caller's cgroup namespace": func(c *Config) { c.Namespaces.NewCgroup = false },
		"the caller's mounts": func(c *Config) {
			c.Namespaces.NewMnt = false
			c.Root, c.Mounts, c.MaskPaths, c.ReadonlyPaths = Root{}, nil, nil, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := pureConfig(change)
			cfg.Cgroup = &CgroupConfig{Delegate: true}
			pureWantFields(t, cfg.validate(), "Cgroup.Delegate")
		})
	}
}

func TestValidateProcessCgroup(t *testing.T) {
	with := pureConfig(func(c *Config) { c.Resources = &Resources{} })
	for cgroup, ok := range map[string]bool{
		"jobs": true, "jobs/1": true, "_memory.max": true, "a.b": true, "...": true,
		"/jobs": false, "..": false, ".": false, "../x": false, "a/../../b": false, "a/": false, "a//b": false, "./a": false,
		"memory.max": false, "a/cgroup.procs": false, "a\nb": false, "a\x00": false, strings.Repeat("x", 256): false,
	} {
		var fields []string
		if !ok {
			fields = []string{"Cgroup"}
		}
		p := &Process{Args: []string{"true"}, Cgroup: cgroup}
		pureWantFields(t, p.validateFor(with, true), fields...)
	}
	err := (&Process{Args: []string{"true"}, Cgroup: "jobs"}).validateFor(pureConfig(nil), true)
	if !errors.Is(err, ErrNoCgroup) || !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("a cgroup below none: %v", err)
	}
}

// FuzzResources: whatever passes validation becomes writes of one line to files of a controller.
func FuzzResources(f *testing.F) {
	for _, r := range []*Resources{{}, resourcesFull(), {Unified: map[string]string{"io.max": "8:0 rbps=1\n\n8:16 rbps=1", "memory.max": "1", "cpu.weight": "1"}}} {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Resources
		if json.Unmarshal(b, &r) != nil {
			return
		}
		errs := r.validate("Resources")
		for _, err := range errs {
			var f *FieldError
			if !errors.As(err, &f) || !strings.HasPrefix(f.Field, "Resources.") || f.Problem == "" {
				t.Fatalf("%s\nnot a complaint about a field: %v", b, err)
			}
		}
		files := r.files() // even what is refused must not panic
		if len(errs) > 0 {
			return
		}
		if text := resourcesText(&r); text != resourcesText(deepCopy(&r)) {
			t.Fatalf("%s\nnot the same each time:\n%s", b, text)
		}
		for i, f := range files {
			if strings.ContainsAny(f.text, "\n\x00") || len(f.text) > maxCgroupWrite || strings.ContainsAny(f.name, "/\n\x00 ") || strings.HasPrefix(f.name, "cgroup.") ||
				!strings.HasPrefix(f.name, f.controller+".") {
				t.Fatalf("%s\n%+v", b, f)
			}
			if f.name == "memory.max" && i != len(files)-1 {
				t.Fatalf("%s\nmemory.max is not the last", b)
			}
			for _, before := range []string{"", "max\n", f.text + "\n", "8:0 rbps=1 wbps=max riops=max wiops=max\n"} {
				if f.same != nil {
					f.same(before)
				}
				if undo := f.undo(before); undo != "\n" && strings.HasSuffix(undo, "\n") {
					t.Fatalf("%s\n%+v: undo of %q is %q", b, f, before, undo)
				}
			}
		}
		text, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		var again Resources
		if err := json.Unmarshal(text, &again); err != nil || resourcesText(&again) != resourcesText(&r) || (again.Devices == nil) != (r.Devices == nil) {
			t.Fatalf("%s\nis stored as %s: %v", b, text, err)
		}
	})
}
