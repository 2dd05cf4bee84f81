//go:build linux

package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file kills callers: at each point at which something has just been done, and at random times. Another
// process then finds what they have left, and removes it.

var (
	crashN    = flag.Int("crash.n", 40, "random kills")
	crashSeed = flag.Uint64("crash.seed", 0, "of the random kills; 0 is a new one")
)

// A crashOrder says what the test binary does as a process that is killed. It is passed as JSON.
type crashOrder struct {
	Life  string // a key of crashLives
	Dir   string // the state directory, or what the life makes of it
	Cfg   Config
	Point string // where it kills itself; if empty it counts the points
	Nth   int    // the how manieth time, from 1
	Again bool   // lives on and on, until it is killed
}

// crashVar holds the order.
const crashVar = "CONTAINER_TEST_CRASH"

func init() {
	text := os.Getenv(crashVar)
	if text == "" {
		return
	}
	var o crashOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	if err := o.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run lives, and prints the points that it has come by and how often.
func (o crashOrder) run() error {
	var mu sync.Mutex
	seen := make(map[string]int)
	at = func(point string) {
		mu.Lock()
		defer mu.Unlock()
		seen[point]++
		if point == o.Point && seen[point] == o.Nth {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	if o.Again {
		fmt.Println("ready")
	}
	for {
		if err := crashLives[o.Life](o); err != nil {
			return err
		}
		if !o.Again {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return json.NewEncoder(os.Stdout).Encode(seen)
}

// command is the process.
func (o crashOrder) command(t testing.TB) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	out = new(bytes.Buffer)
	cmd = exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), crashVar+"="+string(text))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 10 * time.Second
	return cmd, out
}

// points is a dry run: how often the life comes by each point.
func (o crashOrder) points(t testing.TB) map[string]int {
	t.Helper()
	cmd, out := o.command(t)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := make(map[string]int)
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return seen
}

// crashLives are what a process does before it is killed.
var crashLives = map[string]func(crashOrder) error{
	"create":    crashCreate,
	"run":       crashRun,
	"few files": scarceFiles,
	"load":      crashLoad,
	"race":      raceLife,
	"bridge":    crashBridge,
	"lease":     leaseLife,
	"relay":     relayLife,
	"lock":      lockLife,
}

// crashCreate takes all steps of a container's life, one by one.
func crashCreate(o crashOrder) error {
	ctx := context.Background()
	c, err := New(o.Dir, "x", o.Cfg)
	if err != nil {
		return err
	}
	if err := c.Create(ctx, crashProcess()); err != nil {
		return fmt.Errorf("Create: %w", err)
	}
	if err := c.Start(ctx); err != nil {
		return fmt.Errorf("Start: %w", err)
	}
	p := crashProcess()
	if err := c.Exec(ctx, p); err != nil {
		return fmt.Errorf("Exec: %w", err)
	}
	if err := c.SignalAll(unix.SIGKILL); err != nil {
		return err
	}
	c.Wait()
	p.Wait()
	return c.Destroy()
}

// crashRun has one who has not started it destroy it.
func crashRun(o crashOrder) error {
	ctx := context.Background()
	c, err := New(o.Dir, "x", o.Cfg)
	if err != nil {
		return err
	}
	if err := c.Run(ctx, crashProcess()); err != nil {
		return fmt.Errorf("Run: %w", err)
	}
	other, err := Load(o.Dir, "x")
	if err != nil {
		return err
	}
	p := crashProcess()
	if err := other.Exec(ctx, p); err != nil {
		return fmt.Errorf("Exec: %w", err)
	}
	if err := other.Destroy(); err != nil {
		return err
	}
	c.Wait()
	p.Wait()
	return nil
}

// crashProcess has a child, and both live long.
func crashProcess() *Process { return lifeSh("sleep 1000 & sleep 1000") }

// crashKinds are createKinds, one with an upper directory, and where there can be cgroups some with those.
func crashKinds(t testing.TB) map[string]Config {
	t.Helper()
	kinds := createKinds(t)
	upper := kinds["plain"]
	upper.Root.Access, upper.Root.Upper = CopyOnWrite, filepath.Join(t.TempDir(), "upper")
	kinds["upper"] = upper
	if testenv.Cgroup.Probe() == nil {
		group := kinds["plain"]
		group.Cgroup = &CgroupConfig{}
		kinds["cgroup"] = group
		named := group
		named.Namespaces.NewPID, named.Detached = false, true
		name := fmt.Sprintf("container-test-%d", os.Getpid())
		if os.Geteuid() == 0 {
			name = "/" + name
		}
		parent, err := NewCgroup(name)
		if err != nil {
			t.Fatal(err)
		}
		named.Cgroup = &CgroupConfig{Path: parent.Path() + "/x"}
		kinds["named cgroup"] = named
		t.Cleanup(func() {
			defer parent.Close()
			if err := parent.remove(context.Background()); err != nil { // not Delete: it must be empty
				t.Error(err)
			}
		})
	}
	return kinds
}

// crashAdopt makes this process the parent of all orphans below it until the end of the test, so that none
// is overlooked.
func crashAdopt(t testing.TB) {
	t.Helper()
	set := func(on uintptr) {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, on, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	set(1)
	t.Cleanup(func() { set(0) })
}

// crashReap does what the host's first process does: it waits for the dead whose parent is gone. While one of them is
// in a PID namespace, process 1 of that does not end.
func crashReap() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			crashWait()
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// crashWait waits for the dead. It returns whether there is no child, and so no process below this one.
func crashWait() (alone bool) {
	for {
		switch pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); {
		case err == unix.ECHILD:
			return true
		case err == nil && pid == 0:
			return false
		}
	}
}

// crashNoProcess demands that no process below this one is left.
func crashNoProcess(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !crashWait(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			var left []string
			all, _ := procEntries()
			for _, p := range all {
				if p.parent == os.Getpid() {
					text, _ := os.ReadFile("/proc/" + itoa(p.pid) + "/cmdline")
					left = append(left, fmt.Sprintf("%d %q", p.pid, text))
				}
			}
			t.Fatalf("processes are left: %q", left)
		}
	}
}

// crashRecover does what another process does when the container's creator is dead: it looks, destroys, and
// uses the id again. It returns how long it took until nothing was left of the first.
func crashRecover(t testing.TB, dir string, cfg Config) (took time.Duration) {
	t.Helper()
	stop := crashReap()
	defer stop()
	began := time.Now()
	list, err := List(dir)
	if err != nil || len(list) > 1 {
		t.Fatalf("List: %v, %v", list, err)
	}
	for _, c := range list {
		if st, err := c.State(); err != nil {
			t.Errorf("State: %+v, %v", st, err)
		}
		if err := c.Destroy(); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
	if _, err := Load(dir, "x"); !errors.Is(err, ErrNotExist) {
		t.Errorf("Load: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) || len(left) > 0 {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
	crashNoProcess(t)
	took = time.Since(began)
	stop()
	c, err := New(dir, "x", cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(context.Background(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	c.Wait()
	return took
}

// crashSoon is how long it may take until nothing is left, which is less than anything waits for that does not come.
const crashSoon = 2 * time.Second

// crashAt kills the process of an order at each of the points, and calls back after each, for what is to be soon gone; it is so at the
// third try at the latest: a machine with much to do stands still for seconds, but not there and then again.
func crashAt(t *testing.T, o crashOrder, points map[string]int, recover func(t *testing.T, o crashOrder) (took time.Duration)) {
	t.Helper()
	chosen, i := sampled(t), 0
	for _, point := range slices.Sorted(maps.Keys(points)) {
		for nth := range points[point] {
			if i++; !chosen(i) {
				continue
			}
			t.Run(fmt.Sprintf("%s %d", strings.ReplaceAll(point, ": ", " "), nth+1), func(t *testing.T) {
				o := o
				o.Point, o.Nth = point, nth+1
				soon(t, "to recover", func() time.Duration {
					cmd, out := o.command(t)
					err := cmd.Run()
					var exit *exec.ExitError
					if !errors.As(err, &exit) || exit.ProcessState.String() != "signal: killed" {
						t.Errorf("the process ended with %v: %s", err, out)
					}
					return recover(t, o)
				})
			})
		}
	}
}

// soon tries something until it takes no longer than crashSoon, three times at most.
func soon(t testing.TB, what string, try func() time.Duration) {
	t.Helper()
	var took []time.Duration
	for range 3 {
		took = append(took, try())
		if t.Failed() || took[len(took)-1] <= crashSoon {
			return
		}
	}
	t.Errorf("%s: it took %v", what, took)
}

func TestCrashPoints(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	all := make(map[string]bool)
	for name, cfg := range crashKinds(t) {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			for _, life := range []string{"create", "run"} {
				o := crashOrder{Life: life, Dir: t.TempDir(), Cfg: cfg}
				points := o.points(t)
				for p := range points {
					all[p] = true
				}
				crashAt(t, o, points, func(t *testing.T, o crashOrder) time.Duration { return crashRecover(t, o.Dir, cfg) })
			}
		})
	}
	t.Logf("%d points: %q", len(all), slices.Sorted(maps.Keys(all)))
	if len(all) < 30 {
		t.Errorf("there are %d points only", len(all))
	}
}

// crashAfter kills a caller some time after it has begun. The error is how it has ended otherwise.
func crashAfter(t *testing.T, o crashOrder, d time.Duration) error {
	t.Helper()
	cmd, out := o.command(t)
	cmd.Stdout = nil
	ready, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lifeReady(t, ready)
	time.Sleep(d)
	cmd.Process.Kill()
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		return fmt.Errorf("the process ended with %v: %s", err, out)
	}
	return nil
}

func TestCrashRandomly(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-crash.seed=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kinds := crashKinds(t)
	names := slices.Sorted(maps.Keys(kinds))
	dir := t.TempDir()
	slow := 0
	for i := range *crashN {
		cfg := kinds[names[random.IntN(len(names))]]
		o := crashOrder{Life: []string{"create", "run"}[random.IntN(2)], Dir: dir, Cfg: cfg, Again: true}
		if err := crashAfter(t, o, time.Duration(random.Int64N(int64(60*time.Millisecond)))); err != nil {
			t.Errorf("kill %d: %s, %+v: %v", i, o.Life, cfg, err)
		}
		if took := crashRecover(t, dir, cfg); took > crashSoon {
			if slow++; slow > 3 { // the machine may stand still
				t.Errorf("kill %d: %s, %+v: it took %v, and so did others before", i, o.Life, cfg, took)
			}
		}
	}
}
