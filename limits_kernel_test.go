//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/container/internal/testenv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// needLimits asks for all that can be limited on every machine.
func needLimits(t testing.TB) {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Cgroup)
	for _, name := range []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"} {
		testenv.Need(t, testenv.CgroupController(name))
	}
}

var limitsCount atomic.Int64

// limitsCgroup makes a cgroup for a test.
func limitsCgroup(t testing.TB) *Cgroup {
	t.Helper()
	c, err := NewCgroup(fmt.Sprintf("/limits-test-%d-%d", os.Getpid(), limitsCount.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Delete(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// anyDisk is a whole disk that there is.
func anyDisk(t testing.TB) string {
	t.Helper()
	list, _ := filepath.Glob("/sys/block/[svn]*/dev")
	if len(list) == 0 {
		t.Skip("needs a disk")
	}
	text, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// limitsOfKernel are Resources that set all that this kernel has.
func limitsOfKernel(t testing.TB, c *Cgroup) *Resources {
	r := resourcesFull()
	disk := anyDisk(t)
	r.Devices, r.RDMA, r.Misc, r.Unified = nil, nil, nil, nil
	r.IO = &IOResources{Weight: 300, Max: map[string]IOMax{disk: {ReadBytes: new(int64(1 << 20)), WriteOps: new(int64(120))}}}
	if err := c.Apply(&Resources{IO: &IOResources{Max: map[string]IOMax{disk: {ReadBytes: new(Unlimited)}}}}); err != nil { // has the controller enabled
		t.Fatal(err)
	}
	if !c.has("io.weight") && !c.has("io.bfq.weight") {
		r.IO.Weight = 0
	}
	if !c.has("hugetlb.2MB.max") {
		r.Hugetlb = nil
	}
	if err := c.Apply(&Resources{Memory: &MemoryResources{Low: new(int64(0))}}); err != nil {
		t.Fatal(err)
	}
	if !c.has("memory.zswap.max") {
		r.Memory.ZswapMax = nil
	}
	return r
}

// cgroupDir is the directory of a cgroup.
func cgroupDir(t testing.TB, c *Cgroup) string {
	t.Helper()
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(tree.mount, strings.TrimPrefix(c.Path(), tree.root))
}

// limitsFiles are all files of a cgroup that hold limits.
func limitsFiles(t testing.TB, c *Cgroup) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(cgroupDir(t, c))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		info, err := e.Info()
		name := e.Name()
		controller, _, _ := strings.Cut(name, ".")
		if err != nil || !slices.Contains(cgroupControllers, controller) || info.Mode().Perm()&0o200 == 0 ||
			strings.HasSuffix(name, ".pressure") || strings.HasSuffix(name, ".peak") || name == "memory.reclaim" {
			continue
		}
		if text, err := c.readFile(name); err == nil {
			files[name] = text
		}
	}
	return files
}

// The kernel takes what is written and shows it again; and after an error all is as it was.
func TestLimitsApply(t *testing.T) {
	needLimits(t)
	c := limitsCgroup(t)
	r := limitsOfKernel(t, c)
	if err := c.Apply(&Resources{CPU: &CPUResources{Quota: new(int64(300000)), Burst: new(uint64(200000)), Cpus: "0"}, Hugetlb: r.Hugetlb}); err != nil {
		t.Fatal(err)
	}
	before := limitsFiles(t, c)
	if err := c.Apply(r); err != nil { // among it a quota below the burst that was set
		t.Fatal(err)
	}
	after := limitsFiles(t, c)
	for name, want := range map[string]string{
		"memory.max": "67108864", "memory.high": "62914560", "memory.low": "8388608", "memory.min": "4194304", "memory.oom.group": "1",
		"cpu.max": "150000 200000", "cpu.max.burst": "50000", "cpu.weight": "300", "cpu.idle": "0", "pids.max": "100", "cpuset.mems": "0",
	} {
		if strings.TrimSpace(after[name]) != want {
			t.Errorf("%s is %q, want %q", name, after[name], want)
		}
	}
	changed := 0
	for name := range after {
		if after[name] != before[name] {
			changed++
		}
	}
	t.Logf("%d limits, %d of them changed", len(after), changed)

	// Each field by itself, with something that must fail after it.
	for _, bad := range []*Resources{
		{Unified: map[string]string{"pids.nosuch": "1"}},
		{CPU: &CPUResources{Idle: new(true)}, Unified: map[string]string{"pids.nosuch": "1"}},
		{CPU: &CPUResources{Quota: new(Unlimited), Burst: new(uint64(0)), Weight: 7, Cpus: "0"}, Pids: &PidsResources{Max: new(int64(3))}, IO: &IOResources{Max: map[string]IOMax{anyDisk(t): {ReadBytes: new(Unlimited), WriteBytes: new(int64(5))}, "4095:1": {ReadOps: new(int64(1))}}}},
		{Memory: &MemoryResources{Low: new(int64(0)), High: new(Unlimited)}, Unified: map[string]string{"memory.max": "nonsense"}},
	} {
		if err := c.Apply(bad); err == nil {
			t.Errorf("%+v has been applied", bad)
		} else {
			t.Log(err)
		}
		if now := limitsFiles(t, c); !maps.Equal(now, after) {
			for name := range now {
				if now[name] != after[name] {
					t.Errorf("after an error %s is %q, was %q", name, now[name], after[name])
				}
			}
		}
	}

	// All away again.
	away := &Resources{
		Memory: &MemoryResources{Max: new(Unlimited), High: new(Unlimited), Low: new(int64(0)), Min: new(int64(0)), SwapMax: new(Unlimited), SwapHigh: new(Unlimited)},
		CPU:    &CPUResources{Quota: new(Unlimited), Burst: new(uint64(0)), Weight: 100}, Pids: &PidsResources{Max: new(Unlimited)},
		IO: &IOResources{Max: map[string]IOMax{anyDisk(t): {new(Unlimited), new(Unlimited), new(Unlimited), new(Unlimited)}}},
	}
	if err := c.Apply(away); err != nil {
		t.Error(err)
	}
}

// What the kernel would take and not do is an error.
func TestLimitsInEffect(t *testing.T) {
	needLimits(t)
	c := limitsCgroup(t)
	for what, r := range map[string]*Resources{
		"CPUs that there are not": {CPU: &CPUResources{Cpus: "4000"}},
		"a burst above the quota": {CPU: &CPUResources{Quota: new(int64(5000)), Burst: new(uint64(6000))}},
		"a disk that is not":      {IO: &IOResources{Max: map[string]IOMax{"4095:7": {ReadBytes: new(int64(1))}}}},
		"pages that are not":      {Hugetlb: map[string]HugetlbResources{"512KB": {Max: new(int64(0))}}},
		"a partition that is not": {Unified: map[string]string{"cpuset.cpus.partition": "root"}},
	} {
		if err := c.Apply(r); err == nil {
			t.Errorf("%s: no error", what)
		} else if errors.Is(err, ErrNotExist) {
			t.Errorf("%s: it is the cgroup that is said not to exist: %v", what, err)
		}
	}
	if err := c.Apply(&Resources{CPU: &CPUResources{Quota: new(int64(50000)), Burst: new(uint64(40000)), Idle: new(true), Weight: 5}}); err != nil {
		t.Error(err)
	}
	if err := c.Apply(&Resources{CPU: &CPUResources{Quota: new(int64(5000))}}); err == nil || !strings.Contains(err.Error(), "Burst") {
		t.Errorf("a quota below the burst: %v", err)
	}
	if err := c.Apply(&Resources{CPU: &CPUResources{Weight: 5}}); err == nil || !strings.Contains(err.Error(), "Idle") {
		t.Errorf("a weight for an idle cgroup: %v", err)
	}
	if err := c.Apply(&Resources{CPU: &CPUResources{Weight: 5, Idle: new(false)}}); err != nil {
		t.Error(err)
	}
}

// The same config.json, given to another runtime and to FromSpec, leaves the same in the files.
func TestLimitsSpec(t *testing.T) {
	needLimits(t)
	testenv.Need(t, testenv.StaticBusybox)
	disk := anyDisk(t)
	var d specs.LinuxBlockIODevice
	if d = deviceToSpec(disk); d.Major == 0 {
		t.Fatal(disk)
	}
	rate := func(n uint64) []specs.LinuxThrottleDevice {
		return []specs.LinuxThrottleDevice{{LinuxBlockIODevice: d, Rate: n}}
	}
	tests := map[string]*specs.LinuxResources{
		"memory":  {Memory: &specs.LinuxMemory{Limit: new(int64(128<<20 + 77)), Reservation: new(int64(16 << 20))}},
		"swap":    {Memory: &specs.LinuxMemory{Limit: new(int64(128 << 20)), Swap: new(int64(192 << 20))}},
		"no swap": {Memory: &specs.LinuxMemory{Limit: new(int64(128 << 20)), Swap: new(int64(128 << 20))}},
		"cpu":     {CPU: &specs.LinuxCPU{Shares: new(uint64(2)), Quota: new(int64(70000)), Period: new(uint64(50000))}},
		"shares":  {CPU: &specs.LinuxCPU{Shares: new(uint64(262144))}},
		"quota":   {CPU: &specs.LinuxCPU{Quota: new(int64(70000))}},
		"cpuset":  {CPU: &specs.LinuxCPU{Cpus: "0-1", Mems: "0"}},
		"pids":    {Pids: &specs.LinuxPids{Limit: new(int64(50))}},
		"io":      {BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(1 << 20), ThrottleWriteBpsDevice: rate(2 << 20), ThrottleReadIOPSDevice: rate(100), ThrottleWriteIOPSDevice: rate(200)}},
		"unified": {Unified: map[string]string{"memory.high": "67108864", "memory.oom.group": "1", "pids.max": "77", "cpu.weight": "55"}},
	}
	found := false
	for _, peer := range []string{"crun", "runc"} {
		if testenv.LookPath(peer) == "" {
			continue
		}
		found = true
		for name, limits := range tests {
			t.Run(peer+" "+name, func(t *testing.T) {
				spec := ociSpec(func(s *specs.Spec) {
					s.Linux.Resources = limits
					s.Process.Args = []string{"/busybox", "sleep", "1000"}
				})
				theirs := peerLimits(t, peer, spec)
				cfg, _, err := FromSpec(spec, "/bundle")
				if err != nil {
					t.Fatal(err)
				}
				c := limitsCgroup(t)
				if err := c.Apply(cfg.Resources); err != nil {
					t.Fatal(err)
				}
				for file, text := range limitsFiles(t, c) {
					if other, ok := theirs[file]; ok && other != text {
						t.Errorf("%s is %q, with %s it is %q", file, text, peer, other)
					}
				}
			})
		}
	}
	if !found {
		t.Skip("needs crun or runc")
	}
}

// peerLimits runs a container with another runtime, and returns the files of its cgroup.
func peerLimits(t *testing.T, peer string, spec *specs.Spec) map[string]string {
	t.Helper()
	bundle, root := t.TempDir(), t.TempDir()
	busybox, err := os.ReadFile(testenv.LookPath("busybox"))
	if err != nil {
		t.Fatal(err)
	}
	spec = deepCopy(spec)
	path := fmt.Sprintf("/limits-peer-%d-%d", os.Getpid(), limitsCount.Add(1))
	spec.Linux.CgroupsPath = path
	spec.Mounts = []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}}
	text, err := json.Marshal(spec)
	if err := errors.Join(err, os.MkdirAll(bundle+"/rootfs/proc", 0o755), os.MkdirAll(bundle+"/rootfs/dev", 0o755),
		os.WriteFile(bundle+"/rootfs/busybox", busybox, 0o755), os.WriteFile(bundle+"/config.json", text, 0o644)); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(testenv.LookPath(peer), append([]string{"--root", root}, args...)...)
		log, err := os.Create(bundle + "/log")
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			said, _ := os.ReadFile(bundle + "/log")
			t.Fatalf("%s %v: %v: %s", peer, args, err, said)
		}
	}
	run("run", "--detach", "--bundle", bundle, "peer")
	defer run("delete", "--force", "peer")
	c, err := LoadCgroup(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return limitsFiles(t, c)
}
