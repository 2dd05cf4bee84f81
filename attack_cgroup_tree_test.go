//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file does to a container's cgroup what a container that may write to it can do, and sees that the caller's calls do
// neither hang nor lie, and that Destroy takes all of it away.

// insideOf opens the cgroup that the container's processes are in.
func insideOf(t *testing.T, c *Container) *Cgroup {
	t.Helper()
	st, err := c.state()
	if err != nil {
		t.Fatal(err)
	}
	g, err := st.openCgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	inside, err := st.Cgroup.inside(g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	return inside
}

// makeDeep makes cgroups in one another, and returns the last.
func makeDeep(t *testing.T, c *Cgroup, name string, depth int) *Cgroup {
	t.Helper()
	g, err := c.sub("")
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		next, err := makeCgroup(g.dir, g.path, name)
		g.Close()
		if err != nil {
			t.Fatal(err)
		}
		g = next
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// cgroupOfExec runs a command with Exec and returns the cgroup that it was in, as the kernel tells the caller.
func cgroupOfExec(t *testing.T, c *Container, in string) string {
	t.Helper()
	p := lifeSh("read x")
	p.Cgroup = in
	stdin, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Exec(ctx, p); err != nil {
		t.Fatal(err)
	}
	own := cgroupOf(p.Pid())
	stdin.Close()
	p.Wait()
	return own
}

// The first process goes to where the kernel does not tell its cgroup any more, as the path is too long. Who is then
// started by Exec stays limited, and Status tells the truth.
func TestAttackCgroupLongPath(t *testing.T) {
	leak.Check(t)
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 1000"))
	inside := insideOf(t, c)
	deep := makeDeep(t, inside, strings.Repeat("d", 250), 20)
	if err := deep.AddProcess(c.Pid()); err != nil {
		t.Fatal(err)
	}
	if in := cgroupOfExec(t, c, ""); !within(in, path.Dir(inside.path)) {
		t.Errorf("Exec was in %q", in)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(); status != StatusPaused || err != nil {
		t.Errorf("the status is %v, %v", status, err)
	}
	if err := c.Exec(t.Context(), lifeSh("true")); !errors.Is(err, ErrPaused) {
		t.Errorf("Exec while it is paused: %v", err)
	}
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
}

// As many cgroups in one another as a process may have open files, and more.
func TestAttackCgroupDepth(t *testing.T) {
	leak.Check(t)
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 1000"))
	deep := makeDeep(t, insideOf(t, c), "d", 600)
	if err := deep.AddProcess(c.Pid()); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if pids, err := g.Processes(); err != nil || len(pids) == 0 {
		t.Errorf("Processes: %v, %v", pids, err)
	}
	start := time.Now()
	if err := c.Destroy(); err != nil {
		t.Errorf("%.300v", err)
	}
	t.Logf("Destroy took %v", time.Since(start))
}

// Very many cgroups beside one another.
func TestAttackCgroupMany(t *testing.T) {
	leak.Check(t)
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 1000"))
	inside := insideOf(t, c)
	for i := range 2000 {
		if err := unix.Mkdirat(int(inside.dir.Fd()), "d"+strconv.Itoa(i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	t.Logf("Destroy took %v", time.Since(start))
}

// Names that programs read wrongly.
func TestAttackCgroupNames(t *testing.T) {
	leak.Check(t)
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 1000"))
	inside := insideOf(t, c)
	for _, name := range []string{"a\r", "b (deleted)", " c ", "0::", "\x01\xff", "tab\t"} {
		sub, err := makeCgroup(inside.dir, inside.path, name)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		if err := sub.AddProcess(c.Pid()); err != nil {
			t.Fatal(err)
		}
		if in := cgroupOfExec(t, c, ""); in != sub.path {
			t.Errorf("Exec was in %q, not in %q", in, sub.path)
		}
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
}

// Threads in cgroups of their own: the kernel then refuses to list and to kill what is there.
func TestAttackCgroupThreaded(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	cfg.StopTimeout = 100 * time.Millisecond
	c := lifeStart(t, cfg, lifeSh("sleep 1000"))
	inside := insideOf(t, c)
	sub, err := makeCgroup(inside.dir, inside.path, "threads")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := sub.writeFile("cgroup.type", "threaded"); err != nil {
		t.Fatal(err)
	}
	if err := sub.writeFile("cgroup.threads", strconv.Itoa(c.Pid())); err != nil {
		t.Fatal(err)
	}
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if pids, err := g.Processes(); err != nil || len(pids) == 0 {
		t.Errorf("Processes: %v, %v", pids, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := lifeSh("true")
	if err := c.Exec(ctx, p); err == nil {
		p.Wait()
	} else {
		t.Errorf("Exec: %v", err)
	}
	if err := c.Pause(ctx); err != nil {
		t.Error(err)
	}
	if _, err := c.Stats(); err != nil {
		t.Error(err)
	}
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
}

// A container that stops its own processes is not paused, and nobody waits for it without end.
func TestAttackCgroupFreezesItself(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	cfg.StopTimeout = 200 * time.Millisecond
	c := lifeStart(t, cfg, lifeSh("sleep 1000"))
	inside := insideOf(t, c)
	sub, err := makeCgroup(inside.dir, inside.path, "sub")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := sub.AddProcess(c.Pid()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := sub.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(); status != StatusRunning || err != nil {
		t.Errorf("the status is %v, %v", status, err)
	}
	if err := c.Exec(ctx, lifeSh("true")); !errors.Is(err, ErrPaused) {
		t.Errorf("Exec: %v", err)
	} else {
		t.Log(err)
	}
	if err := c.Pause(ctx); err != nil {
		t.Error(err)
	}
	if status, err := c.Status(); status != StatusPaused || err != nil {
		t.Errorf("the status is %v, %v", status, err)
	}
	if err := c.Resume(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
}

// Below a frozen cgroup nothing goes on, whatever is asked; Stop then kills.
func TestAttackCgroupFrozenParent(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	parent, err := NewCgroup(fmt.Sprintf("/frozen-parent-%d", os.Getpid()))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		parent.Delete()
		parent.Close()
	})
	cfg.Cgroup.Parent = parent.Path()
	cfg.StopTimeout = 300 * time.Millisecond
	for _, paused := range []bool{false, true} {
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		if paused {
			if err := c.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := parent.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err := c.Resume(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Resume: %v", err)
		}
		cancel()
		start := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- c.Stop(context.Background()) }()
		select {
		case err := <-stopped:
			if err != nil {
				t.Error(err)
			}
			t.Logf("Stop took %v", time.Since(start))
		case <-time.After(time.Minute):
			t.Error("Stop hangs")
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if err := parent.Thaw(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Pause gets by an Exec that never ends, as one whose caller has been stopped.
func TestPauseBesideStuckExec(t *testing.T) {
	leak.Check(t)
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 1000"))
	stuck, err := c.record.lockExec(t.Context(), unix.F_RDLCK, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	ctx, cancel := context.WithTimeout(t.Context(), execPatience/4)
	defer cancel()
	if err := c.Pause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Pause with little time: %v", err)
	}
	for _, do := range []func(context.Context) error{c.Pause, c.Resume} {
		if err := do(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if status, err := c.Status(); status != StatusRunning || err != nil {
		t.Errorf("the status is %v, %v", status, err)
	}
}

// Exec waits for a Pause that never ends no longer than the container lives.
func TestExecBesideStuckPause(t *testing.T) {
	leak.Check(t)
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 1000"))
	stuck, err := c.record.lockExec(t.Context(), unix.F_WRLCK, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- c.Exec(ctx, lifeSh("true")) }()
	select {
	case err := <-result:
		t.Errorf("Exec has not waited: %v", err)
		result <- err
	case <-time.After(100 * time.Millisecond):
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, ErrNotRunning) {
		t.Errorf("Exec: %v", err)
	}
}

// Exec has seen the first process, and then Destroy is faster: the cgroups go one by one.
func TestExecWhileDestroyed(t *testing.T) {
	leak.Check(t)
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 1000"))
	seen, err := c.target()
	if err != nil {
		t.Fatal(err)
	}
	defer seen.close()
	if seen.ended(-time.Second) { // one that comes late has no time left; it must not wait for ever
		t.Error("the first process has ended")
	}
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.killWait(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, remove := range []func(context.Context) error{g.removeBelow, g.remove} {
		if err := remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*Process{lifeSh("true"), {Args: []string{"true"}, Cgroup: "job"}} {
			lock, group, err := c.enterCgroup(t.Context(), seen, p)
			if err == nil {
				lock.Close()
				group.Close()
			}
			if !errors.Is(err, ErrNotRunning) {
				t.Errorf("cgroup %q: %v", p.Cgroup, err)
			}
		}
	}
}
