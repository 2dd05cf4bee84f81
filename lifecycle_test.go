//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// lifeHelperVar makes the test binary another process of the test: its value says what to do, and
// the arguments follow in the command line.
const lifeHelperVar = "CONTAINER_TEST_LIFE_HELPER"

func init() {
	if what := os.Getenv(lifeHelperVar); what != "" {
		if err := lifeHelper(what, os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func lifeHelper(what string, args []string) error {
	switch what {
	case "run": // STATEDIR ROOT, tells the number of the process, and stays
		cfg := DefaultConfig()
		cfg.Root = Directory(args[1])
		cfg.DieWithParent = len(args) > 2
		c, err := New(args[0], "helped", cfg)
		if err != nil {
			return err
		}
		if err := c.Run(context.Background(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
			return err
		}
		fmt.Println(c.Pid())
		time.Sleep(time.Hour)
	case "out of memory": // STATEDIR ROOT: leaves a detached container alone
		cfg := DefaultConfig()
		cfg.Root, cfg.Detached = Directory(args[1]), true
		cfg.Resources = &Resources{Memory: &MemoryResources{Max: new(int64(32 << 20)), SwapMax: new(int64(0))}}
		c, err := New(args[0], "alone", cfg)
		if err != nil {
			return err
		}
		return c.Run(context.Background(), lifeSh("sleep 1; "+eatMemory))
	case "destroy": // STATEDIR ID
		c, err := Load(args[0], args[1])
		if err != nil {
			return err
		}
		if status, err := c.Status(); status != StatusRunning {
			return fmt.Errorf("status %s, %v", status, err)
		}
		return c.Destroy()
	case "stop":
		c, err := Load(args[0], args[1])
		if err != nil {
			return err
		}
		return c.Stop(context.Background())
	}
	return nil
}

func lifeHelperCommand(what string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), lifeHelperVar+"="+what)
	return cmd
}

// lifeSleeper ignores SIGTERM if told so, else exits with 7 on it.
func lifeSleeper(t testing.TB, ignore bool) (p *Process, ready func()) {
	t.Helper()
	action := "exit 7"
	if ignore {
		action = ""
	}
	p = lifeSh(`trap '` + action + `' TERM USR1; echo ready; while :; do sleep 0.02; done`)
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return p, func() { t.Helper(); lifeReady(t, out) }
}

func lifeExpectExit(t testing.TB, err error, want ExitError) {
	t.Helper()
	var got *ExitError
	if !errors.As(err, &got) || *got != want {
		t.Errorf("Wait returned %v, want %v", err, &want)
	}
}

var (
	lifeKilled = ExitError{Code: 137, Signal: unix.SIGKILL}
	lifeExit7  = ExitError{Code: 7}
)

func TestContextDone(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Run(ctx, &Process{Args: []string{"true"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	if status, _ := c.Status(); status != StatusCreating {
		t.Errorf("status %s", status)
	}
}

// A context that ends while the container starts: either it was not started, or it is stopped.
func TestContextDoneWhileStarting(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	cfg.StopTimeout = -1
	var refused, stopped int
	for i := range 40 {
		c := lifeNew(t, cfg)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*150*time.Microsecond)
		err := c.Run(ctx, &Process{Args: []string{"sleep", "1000"}})
		if err == nil {
			stopped++
			lifeExpectExit(t, lifeWait(t, c.Wait), lifeKilled)
		} else if refused++; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %d: %v", i, err)
		} else if status, _ := c.Status(); status != StatusCreating {
			t.Errorf("status %s after a Run that failed", status)
		}
		cancel()
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d were refused, %d stopped", refused, stopped)
}

func TestContextDoneWhileRunning(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for name, row := range map[string]struct {
		ignore  bool
		timeout time.Duration
		want    ExitError
	}{
		"handled":        {false, time.Hour, lifeExit7},
		"ignored":        {true, 100 * time.Millisecond, lifeKilled},
		"killed at once": {false, -1, lifeKilled},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			cfg.StopTimeout = row.timeout
			p, ready := lifeSleeper(t, row.ignore)
			c := lifeNew(t, cfg)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if err := c.Run(ctx, p); err != nil {
				t.Fatal(err)
			}
			ready()
			start := time.Now()
			cancel()
			lifeExpectExit(t, lifeWait(t, c.Wait), row.want)
			if took := time.Since(start); row.ignore && took < row.timeout {
				t.Errorf("killed after %v, before the grace was over", took)
			}
		})
	}
}

func TestStop(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	for name, row := range map[string]struct {
		ignore  bool
		timeout time.Duration
		signal  unix.Signal
		ctx     context.Context
		want    ExitError
	}{
		"handled":        {false, time.Hour, 0, nil, lifeExit7},
		"own signal":     {false, time.Hour, unix.SIGUSR1, nil, lifeExit7},
		"ignored":        {true, 100 * time.Millisecond, 0, nil, lifeKilled},
		"killed at once": {false, -1, 0, nil, lifeKilled},
		"context done":   {true, time.Hour, 0, done, lifeKilled},
	} {
		for _, loaded := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/loaded=%v", name, loaded), func(t *testing.T) {
				cfg := cfg
				cfg.StopTimeout, cfg.StopSignal = row.timeout, row.signal
				p, ready := lifeSleeper(t, row.ignore)
				c := lifeStart(t, cfg, p)
				ready()
				stopper := c
				if loaded {
					var err error
					if stopper, err = Load(filepath.Dir(c.record.dir), c.ID()); err != nil {
						t.Fatal(err)
					}
				}
				ctx := row.ctx
				if ctx == nil {
					ctx = context.Background()
				}
				if err := lifeWait(t, func() error { return stopper.Stop(ctx) }); err != nil { // and not after an hour
					t.Error(err)
				}
				if status, err := stopper.Status(); status != StatusStopped {
					t.Errorf("status after Stop: %s, %v", status, err)
				}
				lifeExpectExit(t, lifeWait(t, c.Wait), row.want)
				if err := stopper.Stop(ctx); err != nil {
					t.Errorf("a second Stop: %v", err)
				}
			})
		}
	}
	if err := lifeNew(t, cfg).Stop(context.Background()); err != nil {
		t.Errorf("Stop of a container that has never run: %v", err)
	}
}

func TestDestroy(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for name, row := range map[string]struct{ run, loaded bool }{
		"never run": {false, false}, "running": {true, false},
		"never run, loaded": {false, true}, "running, loaded": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := lifeNew(t, cfg)
			if row.run {
				if err := c.Run(context.Background(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
					t.Fatal(err)
				}
			}
			destroyer := c
			if row.loaded {
				var err error
				if destroyer, err = Load(filepath.Dir(c.record.dir), c.ID()); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := destroyer.Destroy(); err != nil {
					t.Error(err)
				}
			}
			if row.run {
				lifeExpectExit(t, lifeWait(t, c.Wait), lifeKilled)
			}
			if _, err := os.Lstat(c.record.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the record is still there: %v", err)
			}
			for name, err := range map[string]error{
				"Run":  c.Run(context.Background(), &Process{Args: []string{"true"}}),
				"Stop": destroyer.Stop(context.Background()),
			} {
				if err != nil && !errors.Is(err, ErrNotExist) {
					t.Errorf("%s after Destroy: %v", name, err)
				}
			}
		})
	}
}

func TestDestroyConcurrently(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			d := c
			if i%2 == 0 {
				var err error
				if d, err = Load(filepath.Dir(c.record.dir), c.ID()); errors.Is(err, ErrNotExist) {
					return
				} else if err != nil {
					t.Error(err)
					return
				}
			}
			if err := d.Destroy(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	lifeExpectExit(t, lifeWait(t, c.Wait), lifeKilled)
}

// A handle is of one container, and not of another that has its id later.
func TestReusedID(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	dir := t.TempDir()
	first, err := New(dir, "x", cfg)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Destroy(); err != nil {
		t.Fatal(err)
	}
	second, err := New(dir, "x", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Destroy()
	p, ready := lifeSleeper(t, true)
	if err := second.Run(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	ready()
	for _, c := range []*Container{first, loaded} {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if _, err := c.State(); !errors.Is(err, ErrNotExist) {
			t.Errorf("State: %v", err)
		}
		if err := c.Signal(unix.SIGKILL); !errors.Is(err, ErrNotExist) {
			t.Errorf("Signal: %v", err)
		}
		if err := c.Run(context.Background(), &Process{Args: []string{"true"}}); !errors.Is(err, ErrNotExist) {
			t.Errorf("Run: %v", err)
		}
	}
	if status, err := second.Status(); status != StatusRunning {
		t.Errorf("the second container is %s, %v", status, err)
	}
	second.Destroy()
	second.Wait()
}

func TestNewConcurrently(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	dir := filepath.Join(t.TempDir(), "state")
	var mu sync.Mutex
	var won []*Container
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			c, err := New(dir, "x", cfg)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, c)
			} else if !errors.Is(err, ErrExist) || !errors.Is(err, os.ErrExist) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d of 200 containers have the id", len(won))
	}
	if err := won[0].Run(context.Background(), &Process{Args: []string{"true"}}); err != nil {
		t.Error(err)
	}
	won[0].Wait()
	if err := won[0].Destroy(); err != nil {
		t.Error(err)
	}
}

func TestInvalidID(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Root = Directory("/nonexistent")
	dir := t.TempDir()
	for _, id := range []string{
		"", ".", "..", "/", "a/b", "../x", "a/../../x", "/etc", "a\x00b", "a b", "a\nb", "ä", "a\\b", "x~", "%2e%2e",
		strings.Repeat("a", 1025),
	} {
		if _, err := New(dir, id, cfg); !errors.Is(err, ErrInvalidID) {
			t.Errorf("New(%.20q): %v", id, err)
		}
		if _, err := Load(dir, id); !errors.Is(err, ErrInvalidID) {
			t.Errorf("Load(%.20q): %v", id, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNothingLeftOfNew(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Hostname = strings.Repeat("x", 100)
	if _, err := New(dir+"/state", "x", cfg); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("New: %v", err)
	}
	// No room for the record: its name is longer than a name can be.
	cfg, _ = lifeConfig(t)
	if _, err := New(dir, strings.Repeat("x", 1024), cfg); err == nil {
		t.Error("New with a name of 1024 bytes")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRunAgain(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	c := lifeNew(t, cfg)
	for name, row := range map[string]struct {
		p    *Process
		want error
	}{
		"no program":    {&Process{Args: []string{"nope"}}, ErrNotFound},
		"no executable": {&Process{Args: []string{"/etc/passwd"}}, ErrNotExecutable},
		"no user":       {&Process{Args: []string{"true"}, User: "nobody-here"}, nil},
		"no arguments":  {&Process{}, ErrInvalidConfig},
	} {
		err := c.Run(context.Background(), row.p)
		if err == nil {
			t.Fatalf("%s: Run succeeds", name)
		}
		if row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: Run returned %v, want %v", name, err, row.want)
		}
		if !strings.Contains(err.Error(), c.ID()) && row.want != ErrInvalidConfig {
			t.Errorf("%s: which container? %v", name, err)
		}
		if state, _ := c.State(); state.Status != StatusCreating || state.Pid != 0 {
			t.Errorf("%s: state %+v", name, state)
		}
		var files []string
		list, _ := os.ReadDir(c.record.dir)
		for _, e := range list {
			files = append(files, e.Name())
		}
		if !slices.Equal(files, []string{"config.json", "state.json"}) {
			t.Errorf("%s: the record holds %v", name, files)
		}
		if err := c.Wait(); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: Wait: %v", name, err)
		}
	}
	if err := c.Run(context.Background(), lifeSh("echo yes >/ran")); err != nil {
		t.Fatalf("Run after failed ones: %v", err)
	}
	if err := c.Run(context.Background(), lifeSh("echo twice >/ran")); !errors.Is(err, ErrRunning) {
		t.Errorf("Run while it is running: %v", err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	other, err := Load(filepath.Dir(c.record.dir), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Container{c, other} {
		if err := c.Run(context.Background(), lifeSh("echo twice >/ran")); !errors.Is(err, ErrRunning) {
			t.Errorf("Run after it has run: %v", err)
		}
	}
	if text, _ := os.ReadFile(root + "/ran"); string(text) != "yes\n" {
		t.Errorf("%q has run", text)
	}
}

func TestRunConcurrently(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	c := lifeNew(t, cfg)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := c
			if i%2 == 0 {
				c, _ = Load(filepath.Dir(c.record.dir), c.ID())
			}
			if err := c.Run(context.Background(), lifeSh("echo once >>/ran")); err == nil {
				c.Wait()
			} else if !errors.Is(err, ErrRunning) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if text, _ := os.ReadFile(root + "/ran"); string(text) != "once\n" {
		t.Errorf("%q", text)
	}
}

// A process whose record cannot be written is ended: nobody else could find it.
func TestRunWithoutRoomForItsRecord(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	if err := os.MkdirAll(c.record.path(".state.json/x"), 0o700); err != nil { // in the way of the new file
		t.Fatal(err)
	}
	p := &Process{Args: []string{"sleep", "1000"}, Stdout: io.Discard, Stdin: strings.NewReader("x")}
	err := lifeWait(t, func() error { return c.Run(context.Background(), p) })
	if !errors.Is(err, unix.EEXIST) {
		t.Errorf("Run returned %v", err)
	}
	if err := os.RemoveAll(c.record.path(".state.json")); err != nil {
		t.Fatal(err)
	}
	if err := c.Run(context.Background(), &Process{Args: []string{"true"}}); err != nil {
		t.Errorf("Run, once there is room: %v", err)
	}
	lifeWait(t, c.Wait)
}

func TestOtherProcess(t *testing.T) {
	for name, row := range map[string]struct{ die bool }{
		"dies with its parent": {true}, "outlives its parent": {false},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			_, root := lifeConfig(t)
			dir := t.TempDir()
			args := []string{dir, root}
			if row.die {
				args = append(args, "die")
			}
			parent := lifeHelperCommand("run", args...)
			out, err := parent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			var pid int
			if _, err := fmt.Sscan(line, &pid); err != nil {
				t.Fatalf("the parent says %q", line)
			}
			child, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(child)
			ended := func(timeout int) bool {
				for {
					n, err := unix.Poll([]unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}, timeout)
					if err != unix.EINTR {
						return n > 0
					}
				}
			}
			c, err := Load(dir, "helped")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Destroy()
			if c.Pid() != pid {
				t.Errorf("Pid is %d, not %d", c.Pid(), pid)
			}
			parent.Process.Kill()
			parent.Wait()
			if row.die {
				if !ended(30000) {
					t.Error("it lives on")
				}
				if state, _ := c.State(); state.Status != StatusStopped || state.ExitCode != -1 {
					t.Errorf("state %+v", state)
				}
				return
			}
			if ended(200) {
				t.Error("it died with its parent")
			}
			if out, err := lifeHelperCommand("destroy", dir, "helped").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if !ended(30000) {
				t.Error("it survived Destroy")
			}
			if _, err := c.State(); !errors.Is(err, ErrNotExist) {
				t.Errorf("State after Destroy: %v", err)
			}
		})
	}
}

// The one who waits learns how a process ended that another one stopped.
func TestStopFromOtherProcess(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	p, ready := lifeSleeper(t, false)
	c := lifeStart(t, cfg, p)
	ready()
	if out, err := lifeHelperCommand("stop", filepath.Dir(c.record.dir), c.ID()).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	lifeExpectExit(t, lifeWait(t, c.Wait), lifeExit7)
}

func TestManyContainers(t *testing.T) {
	leak.Check(t) // descriptors, goroutines, processes
	cfg, _ := lifeConfig(t)
	dir := t.TempDir()
	threads := func() int {
		tasks, _ := os.ReadDir("/proc/self/task")
		return len(tasks)
	}
	const many = 100
	var mu sync.Mutex
	var running []*Container
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			c, err := New(dir, itoa(i), cfg)
			if err == nil {
				err = c.Run(context.Background(), &Process{Args: []string{"sleep", "1000"}})
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			running = append(running, c)
		})
	}
	wg.Wait()
	var waiters sync.WaitGroup
	for _, c := range running {
		waiters.Go(func() { c.Wait() })
	}
	// Threads that the runtime made for the burst of starts stay, and may be used again.
	t.Logf("%d threads with %d containers running", threads(), len(running))
	for _, c := range running {
		wg.Go(func() {
			if err := c.Destroy(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	waiters.Wait()
}

func TestNoThreadPerContainer(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	dir := t.TempDir()
	threads := func() int {
		tasks, _ := os.ReadDir("/proc/self/task")
		return len(tasks)
	}
	before := threads()
	var waiters sync.WaitGroup
	var running []*Container
	for i := range 50 {
		c, err := New(dir, itoa(i), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Destroy()
		p := &Process{Args: []string{"sleep", "1000"}, Stdout: io.Discard}
		if err := c.Run(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		running = append(running, c)
		waiters.Go(func() { c.Wait() })
	}
	if n := threads(); n-before >= 25 {
		t.Errorf("%d threads with 50 containers, %d before", n, before)
	}
	for _, c := range running {
		c.Destroy()
	}
	waiters.Wait()
}

// New keeps a copy to the bottom.
func TestConfigIsCopied(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	cfg.Annotations = map[string]string{"key": "value"}
	cfg.Devices = []Device{}
	c := lifeNew(t, cfg)
	cfg.Mounts[0].Target, cfg.MaskPaths[0], cfg.Annotations["key"] = "relative", "relative", "other"
	got := c.Config()
	if got.Mounts[0].Target != "/proc" || got.Annotations["key"] != "value" || got.Devices == nil {
		t.Errorf("the container's configuration has changed: %+v", got)
	}
	got.Mounts[0].Target, got.Annotations["key"] = "relative", "other"
	if again := c.Config(); again.Mounts[0].Target != "/proc" || again.Annotations["key"] != "value" {
		t.Errorf("Config returns the container's own: %+v", again)
	}
	if err := c.Run(context.Background(), lifeSh("[ -e /proc/self ] && ! [ -e /dev/null ]")); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func TestExplainChangesNothing(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	p := &Process{Args: []string{"sh", "-c", "true"}, Cwd: "/made/by/run"}
	one, err := Explain(cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Explain(cfg, p)
	if err != nil || one != two {
		t.Errorf("two explanations differ, or %v", err)
	}
	if !strings.Contains(one, "pivot_root") || !strings.Contains(one, "execve") {
		t.Error("the explanation lacks pivot_root or execve")
	}
	if _, err := os.Stat(root + "/made"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("explaining has made the working directory: %v", err)
	}
	if p.Pid() != 0 {
		t.Error("explaining has started something")
	}
	if _, err := Explain(Config{}, p); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("Explain of the zero Config: %v", err)
	}
}

// What the record cannot keep must not silently become something else.
func TestRootOfAnyName(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	name := filepath.Join(t.TempDir(), "not\xffutf-8 <&>")
	if err := os.Rename(root, name); err != nil {
		t.Fatal(err)
	}
	cfg.Root = Directory(name)
	c, err := New(t.TempDir(), "x", cfg)
	if !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("New: %v", err)
	}
	if err == nil {
		c.Destroy()
	}
}

// A caller that is killed between the start of a process and its record: the process has written
// itself which one it is, so that it is found, and killed by Destroy.
func TestInterruptedStart(t *testing.T) {
	leak.Check(t)
	for _, cfg := range createKinds(t) {
		if cfg.Detached {
			cfg.Namespaces.NewTime, cfg.TimeOffsets.Boottime = true, 1000*time.Second+3*time.Millisecond // and the start time is another one inside
		}
		c := lifeNew(t, cfg)
		p := &Process{Args: []string{"sleep", "1000"}}
		if err := c.Run(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		// What is on disk when the caller dies before it writes state.json.
		state, err := c.State()
		if err != nil {
			t.Fatal(err)
		}
		before := &ContainerState{Version: stateVersion, ID: c.ID(), Status: StatusCreating, Created: state.Created}
		if err := c.record.write("state.json", before); err != nil {
			t.Fatal(err)
		}
		other, err := Load(filepath.Dir(c.record.dir), c.ID())
		if err != nil {
			t.Fatal(err)
		}
		found, err := other.State()
		if err != nil || found.Status != StatusRunning || found.Pid != p.Pid() || found.StartTime != state.StartTime || found.BootID != state.BootID {
			t.Errorf("found %+v, %v; the process is %d", found, err, p.Pid())
		}
		if err := other.Run(context.Background(), &Process{Args: []string{"true"}}); !errors.Is(err, ErrRunning) {
			t.Errorf("a second Run: %v", err)
		}
		if err := other.Destroy(); err != nil {
			t.Error(err)
		}
		var exit *ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.Signal != unix.SIGKILL {
			t.Errorf("the process ended with %v", err)
		}
	}
}
