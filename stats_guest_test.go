//go:build linux

package container

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// This file tests numbers and events that need controllers, which the host mostly does not have; see guest_test.go.

// limitedCgroup makes a cgroup with limits, where containers of this caller get theirs.
func limitedCgroup(t testing.TB, r *Resources, controllers ...string) (c *Cgroup, dir string) {
	t.Helper()
	for _, name := range controllers {
		testenv.Need(t, testenv.CgroupController(name))
	}
	if os.Geteuid() != 0 { // the caller is in the cgroup above; NewCgroup does not move it out of the way, and a container does
		cfg := cgroupConfig(t)
		cfg.Resources = r
		if err := lifeWait(t, lifeStart(t, cfg, lifeSh("true")).Wait); err != nil {
			t.Fatal(err)
		}
	}
	name := "container-test-" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	c, err := NewCgroup(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	if err := c.Apply(r); err != nil {
		t.Fatal(err)
	}
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	return c, filepath.Join(tree.mount, strings.TrimPrefix(c.Path(), tree.root))
}

// hog fills memory until it is killed.
const hog = "tail /dev/zero"

func TestEventsOOM(t *testing.T) {
	leak.Check(t)
	c, dir := limitedCgroup(t, &Resources{Memory: &MemoryResources{Max: new(int64(16 << 20)), SwapMax: new(int64(0))}}, "memory")
	ctx, cancel := context.WithCancel(t.Context())
	oom, err := c.NotifyOOM(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p := startIn(t, dir, "sleep 0.5; exec "+hog)
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if !arrives(t, time.Minute, oom) {
			t.Fatal("the channel is closed")
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("the notification came %v after the end", d)
		} else {
			t.Logf("the notification came %v after the end was seen", d)
		}
	}
	s, err := c.Stats()
	if err != nil || s.Memory.Events.OOMKill != 2 || s.Memory.LocalEvents.OOMKill != 2 || s.Memory.Max != 16<<20 ||
		s.Memory.Peak < 8<<20 || s.Memory.SwapMax != 0 {
		t.Errorf("%v, %s", err, asJSON(t, s))
	}
	cancel()
	if arrives(t, time.Minute, oom) {
		t.Error("a notification without a kill")
	}
}

// TestEventsOOMRemoved: the channel is closed when the cgroup goes away.
func TestEventsOOMRemoved(t *testing.T) {
	leak.Check(t)
	c, _ := limitedCgroup(t, &Resources{Memory: &MemoryResources{Max: new(int64(16 << 20))}}, "memory")
	oom, err := c.NotifyOOM(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if arrives(t, time.Minute, oom) {
		t.Error("a notification instead of the end")
	}
	c, err = NewCgroup("container-test-again")
	if err != nil {
		t.Fatal(err)
	}
	c.Delete()
	c.Close()
}

// afterwards starts a container that does something when the caller listens to its events, which it is about to.
func afterwards(t *testing.T, cfg Config, what string) *Container {
	t.Helper()
	p := lifeSh("read x; " + what)
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := lifeStart(t, cfg, p)
	timer := time.AfterFunc(2*time.Second, func() { in.Close() })
	t.Cleanup(func() { timer.Stop() })
	return c
}

// TestEventsOOMContainer: the kill is heard of before the end that it leads to.
func TestEventsOOMContainer(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.CgroupController("memory"))
	cfg := cgroupConfig(t)
	cfg.Resources = &Resources{Memory: &MemoryResources{Max: new(int64(16 << 20)), SwapMax: new(int64(0))}}
	c := afterwards(t, cfg, "exec "+hog)
	var heard []string
	for e, err := range c.Events(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, string(e.Type))
		if e.Type == EventOOM && e.Count != 1 {
			t.Errorf("%+v", e)
		}
	}
	if got := strings.Join(heard, " "); got != "oom exit" {
		t.Errorf("heard %q", got)
	}
	s, err := c.Stats()
	if err != nil || s.Memory.Events.OOMKill != 1 || s.Memory.Peak < 8<<20 {
		t.Errorf("%v, %s", err, asJSON(t, s))
	}
}

// TestEventsPidsMax: forks that fail are heard of.
func TestEventsPidsMax(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.CgroupController("pids"))
	cfg := cgroupConfig(t)
	cfg.Resources = &Resources{Pids: &PidsResources{Max: new(int64(3))}}
	c := afterwards(t, cfg, "sleep 30 & sleep 30 & sleep 30 & sleep 30 & sleep 100")
	for e, err := range c.Events(t.Context()) {
		if err != nil || e.Type != EventPidsMax || e.Count == 0 {
			t.Fatalf("%+v, %v", e, err)
		}
		break
	}
	if s, err := c.Stats(); err != nil || s.Pids.Max != 3 || s.Pids.MaxEvents == 0 || s.Pids.Peak != 3 {
		t.Errorf("%v, %s", err, asJSON(t, s))
	}
}

// TestEventsMemoryPressure makes pressure: above High the kernel makes a process wait that wants more.
func TestEventsMemoryPressure(t *testing.T) {
	leak.Check(t)
	c, dir := limitedCgroup(t, &Resources{Memory: &MemoryResources{High: new(int64(4 << 20)), SwapMax: new(int64(0))}}, "memory")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pressure, err := c.NotifyMemoryPressure(ctx, PressureTrigger{Stall: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	p := startIn(t, dir, "sleep 0.5; exec "+hog)
	if !arrives(t, 60*time.Second, pressure) {
		t.Error("the channel is closed")
	}
	s, err := c.Stats()
	if err != nil || s.Pressure.Memory.Some.Total == 0 || s.Memory.Events.High == 0 {
		t.Errorf("%v, %s", err, asJSON(t, s))
	}
	p.Kill()
	p.Wait()
	cancel()
	for range pressure {
	}
}

// TestStatsFiles compares the numbers of a cgroup at rest with what its files say, read in another way.
func TestStatsFiles(t *testing.T) {
	c, dir := limitedCgroup(t, &Resources{
		Memory: &MemoryResources{Max: new(int64(64 << 20)), High: new(int64(32 << 20)), Low: new(int64(1 << 20))},
		CPU:    &CPUResources{Quota: new(int64(50000)), Period: 100000, Weight: 200},
		Pids:   &PidsResources{Max: new(int64(50))},
	}, "memory", "cpu", "pids")
	// It reads, calculates, forks, and then rests.
	work := t.TempDir()
	startIn(t, dir, "sleep 0.3; cd "+work+"; head -c 4000000 /dev/zero >file; sync; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; (:); : >done; sleep 1000")
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(work + "/done"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not get done")
		}
	}
	for before := ""; ; time.Sleep(500 * time.Millisecond) {
		now, err := os.ReadFile(dir + "/cpu.stat")
		if err != nil {
			t.Fatal(err)
		}
		if string(now) == before && !strings.HasPrefix(before, "usage_usec 0\n") {
			break
		}
		before = string(now)
	}
	if err := c.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	cat := func(name string) string {
		out, err := exec.Command("cat", filepath.Join(dir, name)).Output()
		if err != nil {
			return ""
		}
		return string(out)
	}
	value := func(file, key string) uint64 {
		n, _ := flatNumber([]byte(cat(file)), key)
		return n
	}
	us := func(d time.Duration) uint64 { return uint64(d / time.Microsecond) }
	single := func(name string) uint64 {
		n, _ := parseUint([]byte(strings.TrimSpace(cat(name))))
		return n
	}
	for _, x := range []struct {
		name        string
		got, want   uint64
		atMostApart uint64
	}{
		{"usage", us(s.CPU.Usage), value("cpu.stat", "usage_usec"), 50_000},
		{"user", us(s.CPU.User), value("cpu.stat", "user_usec"), 50_000},
		{"system", us(s.CPU.System), value("cpu.stat", "system_usec"), 50_000},
		{"nr_periods", s.CPU.Periods, value("cpu.stat", "nr_periods"), 10},
		{"nr_throttled", s.CPU.Throttled, value("cpu.stat", "nr_throttled"), 0},
		{"throttled", us(s.CPU.ThrottledTime), value("cpu.stat", "throttled_usec"), 0},
		{"quota", uint64(s.CPU.Quota), 50000, 0},
		{"weight", s.CPU.Weight, 200, 0},
		{"memory.current", s.Memory.Current, single("memory.current"), 1 << 20},
		{"memory.peak", s.Memory.Peak, single("memory.peak"), 1 << 20},
		{"memory.max", uint64(s.Memory.Max), single("memory.max"), 0},
		{"memory.high", uint64(s.Memory.High), single("memory.high"), 0},
		{"memory.low", uint64(s.Memory.Low), single("memory.low"), 0},
		{"memory.events high", s.Memory.Events.High, value("memory.events", "high"), 0},
		{"pids.current", s.Pids.Current, single("pids.current"), 0},
		{"pids.peak", s.Pids.Peak, single("pids.peak"), 0},
		{"pids.max", uint64(s.Pids.Max), 50, 0},
	} {
		if x.got > x.want+x.atMostApart || x.want > x.got+x.atMostApart {
			t.Errorf("%s: %d, and the file says %d", x.name, x.got, x.want)
		}
	}
	if s.CPU.Usage == 0 || s.Memory.Stat.File == 0 || s.Memory.Stat.PageFaults == 0 || s.CPU.Periods == 0 || s.Pids.Peak == 0 {
		t.Errorf("nothing has been counted: %s", asJSON(t, s))
	}
	n := 0
	for name, got := range s.Memory.Stat.All() {
		if n++; !near(got, value("memory.stat", name), 1<<20) {
			t.Errorf("memory.stat %s: %d, and the file says %d", name, got, value("memory.stat", name))
		}
	}
	if want := strings.Count(cat("memory.stat"), "\n"); n != want {
		t.Errorf("memory.stat: %d names of %d", n, want)
	}
	for name, p := range map[string]Pressure{"cpu": s.Pressure.CPU, "memory": s.Pressure.Memory, "io": s.Pressure.IO} {
		var want Pressure
		if !want.parse([]byte(cat(name+".pressure"))) || p.Some.Total > want.Some.Total || want.Some.Total-p.Some.Total > time.Second {
			t.Errorf("%s.pressure: %+v, and the file says %+v", name, p, want)
		}
	}
	if s.IO != nil {
		for _, d := range s.IO.Devices {
			t.Logf("%+v", d)
		}
		if text := cat("io.stat"); len(s.IO.Devices) == 0 && strings.Contains(text, "rbytes=") {
			t.Errorf("io.stat: nothing of %q", text)
		}
	}
	if err := c.Thaw(t.Context()); err != nil {
		t.Error(err)
	}
}

func near(a, b, apart uint64) bool { return a <= b+apart && b <= a+apart }

// TestStatsRunc compares the numbers with those of runc, for a container of runc's.
func TestStatsRunc(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.CgroupController("memory"), testenv.CgroupController("pids"))
	runc := testenv.LookPath("runc")
	if runc == "" {
		t.Skip("no runc: apt-get install runc")
	}
	bundle := t.TempDir()
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command(runc, append([]string{"--root", bundle + "/state"}, args...)...)
		cmd.Dir = bundle
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("runc %v: %v, %s", args, err, stderr.String())
		}
		return out
	}
	run("spec")
	var spec map[string]any
	text, err := os.ReadFile(bundle + "/config.json")
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	process, linux := spec["process"].(map[string]any), spec["linux"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/busybox", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000"}
	spec["root"] = map[string]any{"path": busyboxRoot(t), "readonly": true}
	linux["cgroupsPath"] = "/container-test-runc"
	linux["resources"] = map[string]any{"memory": map[string]any{"limit": 64 << 20}, "pids": map[string]any{"limit": 50}}
	if text, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(bundle+"/config.json", text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	id := "ctstats" + filepath.Base(bundle)
	cmd := exec.Command(runc, "--root", bundle+"/state", "run", "-d", id)
	cmd.Dir = bundle
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Command(runc, "--root", bundle+"/state", "delete", "-f", id).Run() })
	type numbers struct {
		Data struct {
			CPU struct {
				Usage struct{ Total, Kernel, User uint64 }
			}
			Memory struct {
				Usage struct{ Usage, Limit uint64 }
				Raw   map[string]uint64
			}
			Pids struct{ Current, Limit uint64 }
		}
	}
	read := func() (n numbers) {
		if err := json.Unmarshal(run("events", "--stats", id), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	c, err := LoadCgroup("/container-test-runc")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var s *CgroupStats
	for last, deadline := time.Duration(-1), time.Now().Add(2*time.Minute); ; time.Sleep(time.Second) { // until it rests
		if s, err = c.Stats(); err != nil {
			t.Fatal(err)
		}
		if s.CPU.Usage == last || time.Now().After(deadline) {
			break
		}
		last = s.CPU.Usage
	}
	before := read()
	if s, err = c.Stats(); err != nil {
		t.Fatal(err)
	}
	after := read()
	if cpu := uint64(s.CPU.Usage); cpu < before.Data.CPU.Usage.Total || cpu > after.Data.CPU.Usage.Total || cpu == 0 {
		t.Errorf("cpu: %d, runc %d, %d", cpu, before.Data.CPU.Usage.Total, after.Data.CPU.Usage.Total)
	}
	m := before.Data.Memory
	if !near(s.Memory.Current, m.Usage.Usage, 1<<20) || uint64(s.Memory.Max) != m.Usage.Limit {
		t.Errorf("memory: %s, runc %+v", asJSON(t, s.Memory), m.Usage)
	}
	if s.Pids.Current != before.Data.Pids.Current || uint64(s.Pids.Max) != before.Data.Pids.Limit || s.Pids.Current == 0 {
		t.Errorf("pids: %+v, runc %+v", s.Pids, before.Data.Pids)
	}
	if len(m.Raw) < 20 {
		t.Errorf("runc has %d numbers of memory.stat", len(m.Raw))
	}
	for name, want := range m.Raw {
		if got, found := s.Memory.Stat.Get(name); !found || !near(got, want, 1<<20) {
			t.Errorf("memory.stat %s: %d, runc %d", name, got, want)
		}
	}
}
