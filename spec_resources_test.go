package container

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ociResources are Resources of a new container that come back as they are: nothing in them is so anyway.
func ociResources() *Resources {
	r := resourcesFull()
	r.CPU.Idle = new(true)
	r.Devices = append([]DeviceRule{{Allow: true, Type: 'c', Major: new(uint32(10)), Minor: new(uint32(229)), Access: "rw"}, {Type: 'b', Access: "w"}}, DefaultDeviceRules()...)
	r.Memory.SwapHigh = new(int64(1 << 20))
	r.IO.Max["8:0"] = IOMax{WriteBytes: new(int64(5))}
	r.Hugetlb["2MB"] = HugetlbResources{Max: new(int64(4 << 20)), ReservedMax: new(int64(2 << 20))}
	r.Hugetlb["1GB"] = HugetlbResources{Max: new(int64(0)), ReservedMax: new(int64(0))}
	r.RDMA["mlx5_0"] = RDMAResources{HCAHandles: new(int64(2))}
	r.Unified = map[string]string{"cpu.uclamp.max": "50.00"}
	return r
}

// The words of the specification, and what is written to the kernel's files for them.
func TestOCILimits(t *testing.T) {
	for name, test := range map[string]struct {
		in   specs.LinuxResources
		want string
	}{
		"nothing":       {specs.LinuxResources{}, ""},
		"memory":        {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20)), Reservation: new(int64(1 << 20))}}, "memory.low 1048576|memory.max 67108864"},
		"no swap":       {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 20)), Swap: new(int64(1 << 20))}}, "memory.swap.max 0|memory.max 1048576"},
		"swap":          {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 20)), Swap: new(int64(3 << 20))}}, "memory.swap.max 2097152|memory.max 1048576"},
		"all swap":      {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 20)), Swap: new(Unlimited)}}, "memory.swap.max max|memory.max 1048576"},
		"unlimited":     {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(Unlimited)}, CPU: &specs.LinuxCPU{Quota: new(Unlimited)}, Pids: &specs.LinuxPids{Limit: new(Unlimited)}}, "cpu.max max|pids.max max|memory.max max"},
		"zeros":         {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(0)), Swap: new(int64(0))}, CPU: &specs.LinuxCPU{Quota: new(int64(0)), Shares: new(uint64(0)), Period: new(uint64(0))}, BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(0))}}, ""},
		"check":         {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(1 << 20)), CheckBeforeUpdate: new(true), UseHierarchy: new(true), DisableOOMKiller: new(false)}}, "memory.current |memory.max 1048576"},
		"cpu":           {specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: new(uint64(1024)), Quota: new(int64(50000)), Period: new(uint64(100000)), Burst: new(uint64(1000)), Cpus: "0-1", Mems: "0"}}, "cpu.max.burst 0|cpu.max 50000 100000|cpu.max.burst 1000|cpu.weight 100|cpuset.mems 0|cpuset.mems.effective |cpuset.cpus 0-1|cpuset.cpus.effective "},
		"period alone":  {specs.LinuxResources{CPU: &specs.LinuxCPU{Period: new(uint64(50000))}}, "cpu.max max 50000"},
		"idle":          {specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(1))}}, "cpu.weight |cpu.idle 1"},
		"not idle":      {specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: new(int64(0))}}, "cpu.idle 0"},
		"pids of zero":  {specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(0))}}, "pids.max 0"},
		"weights":       {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(10)), WeightDevice: []specs.LinuxWeightDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 16}, Weight: new(uint16(1000))}}}}, "io.weight default 1|io.bfq.weight default 1|io.weight 8:16 10000|io.bfq.weight 8:16 1000"},
		"throttle":      {specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: throttle(1, 5), ThrottleWriteBpsDevice: throttle(1, 0), ThrottleReadIOPSDevice: throttle(2, math.MaxUint64), ThrottleWriteIOPSDevice: throttle(1, 7)}}, "io.max 8:1 rbps=5 wbps=max wiops=7|io.max 8:2 riops=max"},
		"huge pages":    {specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}, {Pagesize: "1GB", Limit: math.MaxUint64}}}, "hugetlb.1GB.rsvd.max max|hugetlb.1GB.max max|hugetlb.2MB.rsvd.max 4194304|hugetlb.2MB.max 4194304"},
		"rdma":          {specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_0": {HcaHandles: new(uint32(3)), HcaObjects: new(uint32(math.MaxUint32))}}}, "rdma.max mlx5_0 hca_handle=3 hca_object=max"},
		"unified":       {specs.LinuxResources{Unified: map[string]string{"memory.high": "4096", "pids.max": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2", "io.weight": "200", "hugetlb.2MB.max": "0", "misc.max": "sev 1", "io.latency": "8:0 target=3"}}, "io.weight default 200|io.bfq.weight default 109|io.latency 8:0 target=3|hugetlb.2MB.max 0|misc.max sev 1|io.max 8:0 rbps=1|io.max 8:16 rbps=2|pids.max 5|memory.high 4096"},
		"unified words": {specs.LinuxResources{Unified: map[string]string{"memory.high": "1M", "io.weight": "default 0", "io.latency": "x", "misc.max": "sev", "hugetlb.3MB.max": "0", "memory.oom.group": "2"}}, "hugetlb.3MB.max 0|io.latency x|io.weight default 0|memory.high 1M|memory.oom.group 2|misc.max sev"},
	} {
		r, err := ResourcesFromSpec(&test.in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, f := range r.files() {
			got = append(got, f.name+" "+f.text)
		}
		if strings.Join(got, "|") != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, strings.Join(got, "|"), test.want)
		}
	}
	if r, err := ResourcesFromSpec(nil); err != nil || !reflect.DeepEqual(r, &Resources{}) {
		t.Errorf("of nothing: %+v, %v", r, err)
	}
}

func throttle(minor int64, rate uint64) []specs.LinuxThrottleDevice {
	return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: minor}, Rate: rate}}
}

func TestOCILimitsRefused(t *testing.T) {
	for field, in := range map[string]specs.LinuxResources{
		"memory.swap":   {Memory: &specs.LinuxMemory{Swap: new(int64(5))}},
		"memory.swap ":  {Memory: &specs.LinuxMemory{Swap: new(int64(5)), Limit: new(Unlimited)}},
		"memory.swap  ": {Memory: &specs.LinuxMemory{Swap: new(int64(5)), Limit: new(int64(6))}},
		//lint:ignore SA1019 it is refused
		"memory.kernel":                      {Memory: &specs.LinuxMemory{Kernel: new(int64(5))}},
		"memory.kernelTCP":                   {Memory: &specs.LinuxMemory{KernelTCP: new(int64(5))}},
		"memory.swappiness":                  {Memory: &specs.LinuxMemory{Swappiness: new(uint64(0))}},
		"memory.disableOOMKiller":            {Memory: &specs.LinuxMemory{DisableOOMKiller: new(true)}},
		"cpu.realtimeRuntime":                {CPU: &specs.LinuxCPU{RealtimeRuntime: new(int64(5))}},
		"cpu.realtimePeriod":                 {CPU: &specs.LinuxCPU{RealtimePeriod: new(uint64(5))}},
		"cpu.idle":                           {CPU: &specs.LinuxCPU{Idle: new(int64(2))}},
		"blockIO.weight":                     {BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(9))}},
		"blockIO.weight ":                    {BlockIO: &specs.LinuxBlockIO{Weight: new(uint16(1001))}},
		"blockIO.leafWeight":                 {BlockIO: &specs.LinuxBlockIO{LeafWeight: new(uint16(100))}},
		"blockIO.weightDevice[0].weight":     {BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{Weight: new(uint16(5))}}}},
		"blockIO.weightDevice[0].leafWeight": {BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{{LeafWeight: new(uint16(500))}}}},
		"network.classID":                    {Network: &specs.LinuxNetwork{ClassID: new(uint32(1))}},
		"network.priorities":                 {Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{}}}},
		"hugepageLimits[1].pageSize":         {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}, {Pagesize: "2MB"}}},
		"devices[0].type":                    {Devices: []specs.LinuxDeviceCgroup{{Type: "x"}}},
		"devices[0].access":                  {Devices: []specs.LinuxDeviceCgroup{{Access: "x"}}},
		"devices[0].major":                   {Devices: []specs.LinuxDeviceCgroup{{Major: new(int64(1 << 32))}}},
	} {
		_, err := ResourcesFromSpec(&in)
		var f *FieldError
		if !errors.As(err, &f) || f.Field != "linux.resources."+strings.TrimSpace(field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// The formula, at the numbers that its authors give; and each weight is that of some shares.
func TestOCIShares(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 1: 1, 2: 1, 3: 2, 100: 17, 512: 59, 1000: 99, 1024: 100, 1025: 101, 2000: 170, 4096: 303, 262143: 10000, 262144: 10000, 1 << 40: 10000} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("%d shares are %d, want %d", shares, got, want)
		}
	}
	for weight := uint64(1); weight <= 10000; weight++ {
		if shares := sharesOfWeight(weight); weightOfShares(shares) != weight || shares < 2 {
			t.Fatalf("%d shares for a weight of %d are %d", shares, weight, weightOfShares(shares))
		}
	}
	for w := uint16(10); w <= 1000; w++ {
		if back := blkioOfWeight(weightOfBlkio(w)); back == nil || *back != w {
			t.Fatalf("blkio.weight %d comes back as %v", w, back)
		}
	}
}

// What ToSpec writes of limits means the same to ResourcesFromSpec.
func TestOCILimitsRoundTrip(t *testing.T) {
	odd := &Resources{
		Memory:  &MemoryResources{Max: new(int64(0)), Low: new(int64(0)), Min: new(Unlimited), SwapMax: new(int64(7 << 20)), OOMGroup: new(false)},
		CPU:     &CPUResources{Quota: new(Unlimited), Burst: new(uint64(0)), Idle: new(false), Weight: 9999},
		Pids:    &PidsResources{Max: new(int64(0))},
		IO:      &IOResources{Weight: 1, DeviceWeight: map[string]uint64{"8:0": 100}, Max: map[string]IOMax{"8:0": {ReadBytes: new(Unlimited)}}},
		Hugetlb: map[string]HugetlbResources{"2MB": {Max: new(Unlimited), ReservedMax: new(Unlimited)}},
	}
	for name, r := range map[string]*Resources{"none": {}, "full": resourcesFull(), "of a new one": ociResources(), "default": DefaultResources(), "odd": odd,
		"unified": {Unified: map[string]string{"io.max": "8:0 rbps=1\n8:16 rbps=1", "memory.max": "64M", "memory.peak": "reset"}}} {
		back, err := ResourcesFromSpec(limitsToSpec(r))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sorted := func(r *Resources) []string { return slices.Sorted(strings.Lines(resourcesText(r))) } // what was Unified may be a field
		if got, want := sorted(back), sorted(r); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
	}
}

// Where a cgroup is.
func TestOCICgroupsPath(t *testing.T) {
	for in, want := range map[string]*CgroupConfig{
		"":                        nil,
		"/a/b":                    {Manager: CgroupFS, Path: "/a/b"},
		"/a/../b/":                {Manager: CgroupFS, Path: "/b"},
		"a/b":                     {Manager: CgroupFS, Name: "a/b"},
		"a:b":                     {Manager: CgroupFS, Name: "a:b"},
		"machine.slice:libpod:id": {Manager: CgroupSystemd, Parent: "machine.slice", Name: "libpod-id.scope"},
		"machine.slice::id":       {Manager: CgroupSystemd, Parent: "machine.slice", Name: "id.scope"},
		":p:id":                   {Manager: CgroupSystemd, Name: "p-id.scope"},
	} {
		cfg, _ := ociConfig(t, func(s *specs.Spec) { s.Linux.CgroupsPath = in })
		if !reflect.DeepEqual(cfg.Cgroup, want) || cfg.Resources != nil {
			t.Errorf("%q is %+v", in, cfg.Cgroup)
		}
		spec, err := ToSpec(cfg, nil)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		again, _, err := FromSpec(spec, "/bundle")
		if err != nil || !reflect.DeepEqual(again.Cgroup, want) {
			t.Errorf("%q comes back as %q: %v", in, spec.Linux.CgroupsPath, err)
		}
	}
	for _, in := range []string{"a:b:", "a:b:c.slice"} {
		_, _, err := FromSpec(ociSpec(func(s *specs.Spec) { s.Linux.CgroupsPath = in }), "/bundle")
		var f *FieldError
		if !errors.As(err, &f) || f.Field != "linux.cgroupsPath" {
			t.Errorf("%q: %v", in, err)
		}
	}
	for in, field := range map[string]string{"/": "Cgroup.Path", "../a": "Cgroup.Name", "/a/cgroup.procs": "Cgroup.Path", "a b:c:d": "Cgroup.Parent", "a.slice:b/c:d": "Cgroup.Name"} {
		cfg, _, err := FromSpec(ociSpec(func(s *specs.Spec) { s.Linux.CgroupsPath = in }), "/bundle")
		if err != nil {
			t.Fatal(err)
		}
		pureWantFields(t, cfg.validate(), field)
	}
	cfg := Config{Cgroup: &CgroupConfig{Manager: CgroupSystemd, Parent: "a.slice"}}
	var f *FieldError
	if _, err := ToSpec(cfg, nil); !errors.As(err, &f) || f.Field != "Cgroup" {
		t.Errorf("a scope without a name: %v", err)
	}
}

// A writable cgroup file system in a cgroup namespace means delegation, where there is a cgroup.
func TestOCIDelegate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*specs.Spec)
		want   bool
	}{
		"writable":     {nil, true},
		"read-only":    {func(s *specs.Spec) { s.Mounts[0].Options = []string{"ro"} }, false},
		"no namespace": {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:5] }, false},
		"elsewhere":    {func(s *specs.Spec) { s.Mounts[0].Destination = "/mnt" }, false},
		"no cgroup":    {func(s *specs.Spec) { s.Linux.CgroupsPath = "" }, false},
	} {
		cfg, _ := ociConfig(t, func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
			s.Linux.CgroupsPath = "/a"
			s.Mounts = []specs.Mount{{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"}}
			if test.change != nil {
				test.change(s)
			}
		})
		if got := cfg.Cgroup != nil && cfg.Cgroup.Delegate; got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A limit of no processes was what clients wrote for none, before 1.3 of the specification.
func TestOCIPidsOfZero(t *testing.T) {
	for version, want := range map[string]bool{"1.0.2-dev": false, "1.2.1": false, "1.3.0": true, "1.10.0": true} {
		cfg, _ := ociConfig(t, func(s *specs.Spec) {
			s.Version = version
			s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(0))}}
		})
		if (cfg.Resources != nil) != want {
			t.Errorf("%s: %+v", version, cfg.Resources)
		}
	}
}
