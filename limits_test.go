//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file shows that limits hold. Most of it needs controllers that a host may not have; see TestGuest.

// limitsConfig is a container with limits.
func limitsConfig(t testing.TB, r *Resources, controllers ...string) Config {
	t.Helper()
	for _, name := range controllers {
		testenv.Need(t, testenv.CgroupController(name))
	}
	cfg := cgroupConfig(t)
	cfg.Resources = r
	return cfg
}

// limitsEnd runs a command in a new container and returns how it has ended.
func limitsEnd(t testing.TB, cfg Config, p *Process) *ExitError {
	t.Helper()
	return limitsEnded(t, lifeStart(t, cfg, p))
}

// limitsEnded waits for the end of a container and returns how it was.
func limitsEnded(t testing.TB, c *Container) *ExitError {
	t.Helper()
	err := lifeWait(t, c.Wait)
	var exit *ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("it ended with %v", err)
	}
	st, err := c.State()
	if err != nil || st.OOMKilled != exit.OOMKilled || st.TimedOut != exit.TimedOut || st.CPUTimeUsedUp != exit.CPUTimeUsedUp {
		t.Errorf("State tells %+v, %v; Wait %+v", st, err, exit)
	}
	other, err := Load(filepath.Dir(c.record.dir), c.id)
	if err != nil {
		t.Fatal(err)
	}
	var same *ExitError
	if err := other.Wait(); !errors.As(err, &same) || *same != *exit {
		t.Errorf("another process is told %v, not %v", err, exit)
	}
	return exit
}

const (
	eatMemory = "exec tail /dev/zero" // looks for the end of a line
	eatCPU    = "while :; do :; done"
)

func TestLimitsMemory(t *testing.T) {
	leak.Check(t)
	cfg := limitsConfig(t, &Resources{Memory: &MemoryResources{Max: new(int64(32 << 20)), SwapMax: new(int64(0))}}, "memory")

	t.Run("first process", func(t *testing.T) {
		exit := limitsEnd(t, cfg, lifeSh(eatMemory))
		if !exit.OOMKilled || exit.Signal != unix.SIGKILL || exit.Verdict() != VerdictOOM {
			t.Errorf("it ended with %+v", exit)
		}
	})
	t.Run("detached", func(t *testing.T) {
		cfg := cfg
		cfg.Detached = true
		if exit := limitsEnd(t, cfg, lifeSh(eatMemory)); !exit.OOMKilled {
			t.Errorf("it ended with %+v", exit)
		}
	})
	t.Run("alone", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := lifeHelperCommand("out of memory", dir, cfg.Root.Dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		c, err := Load(dir, "alone")
		if err != nil {
			t.Fatal(err)
		}
		var exit *ExitError
		if err := lifeWait(t, c.Wait); !errors.As(err, &exit) || !exit.OOMKilled {
			t.Errorf("it ended with %v", err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	})
	t.Run("exec", func(t *testing.T) {
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		p := lifeSh(eatMemory)
		if err := c.Exec(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		var exit *ExitError
		if err := p.Wait(); !errors.As(err, &exit) || !exit.OOMKilled {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Run("another kill", func(t *testing.T) {
		// The kernel kills a child because of memory; who is killed later, by somebody else, is not told to be.
		p := lifeSh("sh -c '" + eatMemory + "'; echo ready; sleep 1000")
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c := lifeStart(t, cfg, p)
		lifeReady(t, out)
		if !strings.Contains(cgroupText(t, c, "memory.events"), "oom_kill 1\n") {
			t.Fatal("no child was killed")
		}
		time.Sleep(oomMemory + time.Second)
		if err := unix.Kill(c.Pid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		lifeExpectExit(t, c.Wait(), lifeKilled)
	})
	t.Run("group", func(t *testing.T) {
		cfg := cfg
		cfg.Resources = deepCopy(cfg.Resources)
		cfg.Resources.Memory.OOMGroup = new(true)
		if exit := limitsEnd(t, cfg, lifeSh("sh -c '"+eatMemory+"'; sleep 1000")); !exit.OOMKilled {
			t.Errorf("it ended with %+v", exit)
		}
	})
}

// A fork bomb stays inside, and ends at once.
func TestLimitsPids(t *testing.T) {
	leak.Check(t)
	cfg := limitsConfig(t, &Resources{Pids: &PidsResources{Max: new(int64(64))}}, "pids")
	c := lifeStart(t, cfg, lifeSh(`bomb() { bomb & bomb & sleep 1000; }; bomb 2>/dev/null; sleep 1000`))
	for deadline := time.Now().Add(time.Minute); !strings.HasPrefix(cgroupText(t, c, "pids.events"), "max ") || strings.Contains(cgroupText(t, c, "pids.events"), "max 0"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the bomb has not reached its limit")
		}
	}
	for range 20 {
		if n, err := strconv.Atoi(strings.TrimSpace(cgroupText(t, c, "pids.current"))); err != nil || n > 64 {
			t.Errorf("%d processes, %v", n, err)
		}
	}
	if err := c.Exec(context.Background(), lifeSh("true")); err == nil {
		t.Log("there was room for another process")
	} else if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("Exec returned %v", err)
	}
	began := time.Now()
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second { // and not for ever
		t.Errorf("its end took %v", took)
	}
}

func TestLimitsCPU(t *testing.T) {
	leak.Check(t)
	const share = 0.5
	cfg := limitsConfig(t, &Resources{CPU: &CPUResources{Quota: new(int64(share * 100000)), Period: 100000}}, "cpu")
	c := lifeStart(t, cfg, lifeSh(eatCPU))
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	time.Sleep(200 * time.Millisecond) // the start is over
	var all []float64
	for range 5 { // on a machine that stalls, be it an emulated one, some of these are not what they should be
		before, began := mustUsed(t, g), time.Now()
		time.Sleep(3 * time.Second)
		used, took := mustUsed(t, g)-before, time.Since(began)
		got := used.Seconds() / took.Seconds()
		if got > 0.9*share && got < 1.1*share {
			return
		}
		all = append(all, got)
	}
	t.Errorf("it used %.3f of a CPU, not %.2f", all, share)
}

func mustUsed(t testing.TB, g *Cgroup) time.Duration {
	t.Helper()
	n, err := g.cpuUsed()
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n) * time.Microsecond
}

func TestLimitsCpuset(t *testing.T) {
	leak.Check(t)
	cfg := limitsConfig(t, &Resources{CPU: &CPUResources{Cpus: "1"}}, "cpuset")
	if got := sh(t, cfg, "grep Cpus_allowed_list /proc/self/status"); !strings.HasSuffix(strings.TrimSpace(got), "\t1") {
		t.Errorf("inside: %q", got)
	}
	cfg.Resources.CPU.Cpus = "0-4000"
	_, err := runIn(t, cfg, lifeSh("true"))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Op, "Resources.CPU.Cpus") || e.Remedy == "" {
		t.Errorf("CPUs that are not there: %v", err)
	}
}

// limitsDisk is the whole disk that a directory is on.
func limitsDisk(t testing.TB, dir string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	disk := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat("/sys/dev/block/" + disk + "/queue"); err != nil {
		t.Skipf("%s is not on a disk of its own", dir)
	}
	return disk
}

func TestLimitsIO(t *testing.T) {
	leak.Check(t)
	cfg := limitsConfig(t, nil, "io")
	const rate = 2 << 20
	cfg.Resources = &Resources{IO: &IOResources{Max: map[string]IOMax{limitsDisk(t, cfg.Root.Dir): {WriteBytes: new(int64(rate))}}}}
	began := time.Now()
	sh(t, cfg, "dd if=/dev/zero of=/file bs=1M count=6 conv=fsync 2>/dev/null")
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("6 MiB took %v at 2 MiB a second", took)
	}
	cfg.Resources.IO.Max = map[string]IOMax{"250:250": {WriteBytes: new(int64(rate))}}
	_, err := runIn(t, cfg, lifeSh("true"))
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.ENODEV) || !strings.Contains(e.Path, "io.max") || e.Remedy == "" {
		t.Errorf("a disk that is not there: %v", err)
	}
}

// Limits of a live container change, all or none.
func TestLimitsSet(t *testing.T) {
	leak.Check(t)
	cfg := limitsConfig(t, &Resources{Pids: &PidsResources{Max: new(int64(50))}}, "pids", "memory", "cpu")
	c := lifeNew(t, cfg)
	if err := c.Set(&Resources{}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before Create: %v", err)
	}
	if err := c.Run(context.Background(), lifeSh("sleep 1000")); err != nil {
		t.Fatal(err)
	}
	check := func(files map[string]string) {
		t.Helper()
		for name, want := range files {
			if got := strings.TrimSpace(cgroupText(t, c, name)); got != want {
				t.Errorf("%s is %q, not %q", name, got, want)
			}
		}
	}
	check(map[string]string{"pids.max": "50", "memory.max": "max"})
	other, err := Load(filepath.Dir(c.record.dir), c.id)
	if err != nil {
		t.Fatal(err)
	}
	err = other.Set(&Resources{
		Pids:   &PidsResources{Max: new(int64(0))},
		Memory: &MemoryResources{Max: new(int64(64 << 20)), High: new(int64(1 << 20))},
		CPU:    &CPUResources{Weight: 30, Quota: new(int64(20000))},
	})
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{"pids.max": "0", "memory.max": "67108864", "memory.high": "1048576", "cpu.weight": "30", "cpu.max": "20000 100000"}
	check(set)
	if err := c.Exec(context.Background(), lifeSh("true")); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("Exec with pids 0: %v", err)
	}
	// The last of these is what no kernel has.
	err = c.Set(&Resources{
		Pids:    &PidsResources{Max: new(int64(7))},
		Memory:  &MemoryResources{High: new(int64(5 << 20)), Max: new(Unlimited)},
		CPU:     &CPUResources{Weight: 500},
		Unified: map[string]string{"pids.what": "1"},
	})
	var e *Error
	if !errors.As(err, &e) || !strings.HasSuffix(e.Path, "/pids.what") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	check(set)
	var field *FieldError
	if err := c.Set(&Resources{CPU: &CPUResources{Weight: 20000}}); !errors.As(err, &field) || field.Field != "Resources.CPU.Weight" {
		t.Errorf("a weight that is too large: %v", err)
	}
	check(set)
}

// Controllers that the host does not have are an error, and leave nothing.
func TestLimitsMissing(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.Cgroup)
	cfg := cgroupConfig(t)
	for name, r := range map[string]*Resources{
		"memory": {Memory: &MemoryResources{Max: new(int64(1 << 20))}},
		"cpuset": {CPU: &CPUResources{Cpus: "0"}},
		"rdma":   {RDMA: map[string]RDMAResources{"none0": {HCAHandles: new(int64(1))}}},
	} {
		if name != "rdma" && testenv.CgroupController(name).Probe() == nil {
			continue
		}
		cfg.Resources = r
		_, err := runIn(t, cfg, lifeSh("true"))
		var e *Error
		if !errors.As(err, &e) || e.Remedy == "" || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimitsTimes(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	t.Run("timeout", func(t *testing.T) {
		for timeout := 300 * time.Millisecond; ; timeout *= 5 {
			p := lifeSh("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
			p.Timeout = timeout
			out, err := p.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			c := lifeStart(t, cfg, p)
			line, _ := bufio.NewReader(out).ReadString('\n')
			inTime := line != "" && time.Since(began) < timeout
			exit := limitsEnded(t, c)
			if !inTime && timeout < 5*time.Second {
				continue // a process 1 without a handler does not even notice a SIGTERM
			}
			if *exit != (ExitError{TimedOut: true}) || exit.Verdict() != VerdictTimeout {
				t.Errorf("it ended with %+v", exit)
			}
			return
		}
	})
	t.Run("timeout of one that does not listen", func(t *testing.T) {
		cfg := cfg
		cfg.StopTimeout = 100 * time.Millisecond
		p := lifeSh("trap '' TERM; while :; do sleep 0.01; done")
		p.Timeout = 300 * time.Millisecond
		if exit := limitsEnd(t, cfg, p); *exit != (ExitError{Code: 137, Signal: unix.SIGKILL, TimedOut: true}) {
			t.Errorf("it ended with %+v", exit)
		}
	})
	t.Run("in time", func(t *testing.T) {
		p := lifeSh("exit 7")
		p.Timeout, p.CPUTime = time.Minute, time.Minute
		if exit := limitsEnd(t, cfg, p); *exit != lifeExit7 {
			t.Errorf("it ended with %+v", exit)
		}
	})
	t.Run("held", func(t *testing.T) { // the time at the gate does not count
		p := lifeSh("sleep 0.1; exit 7")
		p.Timeout = time.Minute
		c := lifeNew(t, cfg)
		if err := c.Create(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		lifeExpectExit(t, c.Wait(), lifeExit7)
	})
	t.Run("cpu", func(t *testing.T) {
		cfg := cfg
		cfg.StopTimeout = -1
		p := lifeSh("(" + eatCPU + ") & " + eatCPU)
		p.CPUTime = 300 * time.Millisecond
		c := lifeStart(t, cfg, p)
		g, err := c.Cgroup()
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		var exit *ExitError
		if err := lifeWait(t, c.Wait); !errors.As(err, &exit) || !exit.CPUTimeUsedUp || exit.Verdict() != VerdictCPUTime {
			t.Errorf("it ended with %v", err)
		}
		if used := mustUsed(t, g); used < p.CPUTime || used > 10*time.Second { // who looks may be late himself
			t.Errorf("it used %v", used)
		}
	})
	t.Run("cpu of exec", func(t *testing.T) {
		cfg := cfg
		cfg.StopTimeout = -1
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		p := lifeSh(eatCPU)
		p.Cgroup, p.CPUTime = "job", 200*time.Millisecond
		if err := c.Exec(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		var exit *ExitError
		if err := p.Wait(); !errors.As(err, &exit) || !exit.CPUTimeUsedUp {
			t.Errorf("it ended with %v", err)
		}
		if status, _ := c.Status(); status != StatusRunning {
			t.Errorf("the container is %s", status)
		}
	})
}

// While containers are paused and resumed, Exec starts a process or says that the container is paused, and never waits.
func TestPauseExec(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	c := lifeStart(t, cfg, lifeSh("sleep 1000"))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var ran, refused int
	var mu sync.Mutex
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for !isClosed(stop) {
				p := lifeSh("true")
				err := c.Exec(ctx, p)
				if err == nil {
					err = p.Wait()
				}
				mu.Lock()
				switch {
				case err == nil:
					ran++
				case errors.Is(err, ErrPaused):
					refused++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	both := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return ran > 0 && refused > 0
	}
	for i := 0; i < 30 || i < 3000 && !both(); i++ {
		for _, f := range []func(context.Context) error{c.Pause, c.Resume} {
			if err := f(ctx); err != nil {
				t.Error(err)
			}
			time.Sleep(3 * time.Millisecond)
		}
	}
	close(stop)
	wg.Wait()
	if ran == 0 || refused == 0 {
		t.Errorf("%d ran, %d were refused", ran, refused)
	}
}

// A cgroup without a container, of root or below the caller's own.
func TestLimitsNewCgroup(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.Cgroup, testenv.CgroupController("pids"))
	g, err := NewCgroup(fmt.Sprintf("limits-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := NewCgroup(fmt.Sprintf("limits-%d", os.Getpid())); !errors.Is(err, ErrExist) {
		t.Errorf("a second one: %v", err)
	}
	if err := g.Apply(&Resources{Pids: &PidsResources{Max: new(int64(3))}}); err != nil {
		t.Error(err)
	}
	if text, err := g.readFile("pids.max"); text != "3\n" {
		t.Errorf("the limit is %q, %v", text, err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.AddProcess(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	same, err := LoadCgroup(fmt.Sprintf("limits-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	if pids, err := same.Processes(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("processes %v, %v", pids, err)
	}
	if err := same.Delete(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process has not been killed")
	}
	if err := g.Apply(&Resources{Pids: &PidsResources{Max: new(int64(3))}}); !errors.Is(err, ErrNotExist) {
		t.Errorf("after Delete: %v", err)
	}
	if _, err := LoadCgroup(fmt.Sprintf("limits-%d", os.Getpid())); !errors.Is(err, ErrNotExist) {
		t.Errorf("after Delete: %v", err)
	}
}
