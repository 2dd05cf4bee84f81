//go:build linux

package container

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file ends a process that has used up its time, and finds out whether the kernel has killed it because of memory. It
// runs in the caller's process.

// A guard stays with a process until its end. It holds open the cgroup that the process is counted in, if that is the
// container's own.
type guard struct {
	group     *Cgroup
	cpuBefore uint64 // used in the cgroup before the process, in microseconds
	oom       oomCount
	wasKilled atomic.Bool // by us, with SIGKILL
	timedOut  atomic.Bool
	cpuUsedUp atomic.Bool
	cancel    func()        // ends what watches
	counted   chan struct{} // closed when nobody changes oom any more
}

// An oomCount is how many processes of a cgroup the kernel has killed because of memory. It does not say which, so
// what counts is when: of what has just been killed the count has just grown.
type oomCount struct {
	kills uint64
	grown time.Time
}

// oomMemory is how long ago the kernel may have killed a process that is now seen to have ended.
const oomMemory = time.Second

// newGuard looks at the cgroup before the process is in it. It takes ownership of group, which may be nil.
func newGuard(group *Cgroup) *guard {
	g := &guard{group: group, cancel: func() {}, counted: make(chan struct{})}
	if group != nil {
		g.oom.kills = group.oomKills()
		g.cpuBefore, _ = group.cpuUsed()
	}
	return g
}

// abandon is for a process that has not come to run.
func (g *guard) abandon() {
	if g.group != nil {
		g.group.Close()
	}
}

// oomKills is oom_kill of memory.events; 0 without a memory controller.
func (c *Cgroup) oomKills() uint64 {
	text, _ := c.readFile("memory.events")
	return flatValue(text, "oom_kill")
}

// countsOOM tells whether the kernel has killed a process of the container because of memory, whenever that was: of an end that
// nobody has watched it is all that is known.
func (st *stored) countsOOM() bool {
	g, err := st.openCgroup()
	if err != nil {
		return false
	}
	defer g.Close()
	return g.oomKills() > 0
}

// cpuUsed is the CPU time used, in microseconds.
func (c *Cgroup) cpuUsed() (uint64, error) {
	text, err := c.readFile("cpu.stat")
	return flatValue(text, "usage_usec"), err
}

// flatValue is the value of a key in a file with a key and a value on each line; 0 if it is missing.
func flatValue(text, key string) (value uint64) {
	parseFlat([]byte(text), func(name []byte, n uint64) {
		if string(name) == key {
			value = n
		}
	})
	return value
}

// watch does what is to be done until verdict: when ctx is done, or a time of p's is used up, the process gets the stop signal, and
// SIGKILL when the grace is over. Held tells whether it still waits for Start: its times begin after that.
func (g *guard) watch(ctx context.Context, l *liveProcess, p *Process, sig syscall.Signal, grace time.Duration, held func() bool) {
	inner, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	if ctx.Done() != nil {
		go func() {
			select {
			case <-inner.Done():
			case <-ctx.Done():
				l.stop(context.Background(), sig, grace)
			}
		}()
	}
	if p.Timeout > 0 || p.CPUTime > 0 {
		go func() {
			for held() && sleep(inner, 20*time.Millisecond) == nil {
			}
			if over := g.watchTimes(inner, p); over != nil {
				over.Store(true)
				l.stop(context.Background(), sig, grace)
			}
		}()
	}
	if g.group == nil || !g.group.has("memory.events") {
		close(g.counted)
		return
	}
	go func() {
		defer close(g.counted)
		g.watchOOM(inner)
	}()
}

// watchTimes waits until one of the process's times is used up, and returns which. It returns nil if ctx is done before.
func (g *guard) watchTimes(ctx context.Context, p *Process) *atomic.Bool {
	deadline := time.Now().Add(math.MaxInt64)
	if p.Timeout > 0 {
		deadline = time.Now().Add(p.Timeout)
	}
	for {
		wait := time.Until(deadline)
		if wait <= 0 {
			return &g.timedOut
		}
		if p.CPUTime > 0 {
			used, err := g.group.cpuUsed()
			left := p.CPUTime - time.Duration(used-g.cpuBefore)*time.Microsecond
			if err == nil && left <= 0 {
				return &g.cpuUsedUp
			}
			// With all CPUs busy it takes that long at least.
			wait = min(wait, max(left/time.Duration(runtime.NumCPU()), time.Millisecond))
		}
		if sleep(ctx, wait) != nil {
			return nil
		}
	}
}

// watchOOM keeps the count up to date.
func (g *guard) watchOOM(ctx context.Context) {
	for {
		err := g.group.await(ctx, "memory.events", func(text string) bool {
			n := flatValue(text, "oom_kill")
			if n <= g.oom.kills {
				return false
			}
			g.oom = oomCount{n, time.Now()}
			return true
		})
		if err != nil {
			return
		}
	}
}

// verdict completes how the process has ended. It ends the guard.
func (g *guard) verdict(status syscall.WaitStatus, exit error) error {
	g.cancel()
	<-g.counted
	if g.group != nil {
		defer g.group.Close()
	}
	var e *ExitError
	if exit != nil && !errors.As(exit, &e) {
		return exit
	}
	if e == nil {
		if !g.timedOut.Load() && !g.cpuUsedUp.Load() {
			return nil
		}
		e = &ExitError{}
	}
	e.TimedOut, e.CPUTimeUsedUp = g.timedOut.Load(), g.cpuUsedUp.Load()
	if status.Signaled() && status.Signal() == unix.SIGKILL && !g.wasKilled.Load() && g.group != nil {
		e.OOMKilled = g.group.oomKills() > g.oom.kills || time.Since(g.oom.grown) < oomMemory
	}
	return e
}
