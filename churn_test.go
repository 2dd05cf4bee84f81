//go:build linux

package container

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file starts a great many containers and processes, and looks at what the caller has become by that.

var churnFull = flag.Bool("churn.full", false, "5,000 containers and 10,000 execs")

// churnUsage is what this process holds.
type churnUsage struct {
	heap            uint64
	goroutines, fds int
}

func churnNow() churnUsage {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, _ := os.ReadDir("/proc/self/fd")
	return churnUsage{m.HeapInuse, runtime.NumGoroutine(), len(fds)}
}

// churnCheck demands that this process is what it was.
func churnCheck(t *testing.T, before churnUsage) {
	t.Helper()
	var after churnUsage
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		after = churnNow()
		if after.goroutines <= before.goroutines && after.fds <= before.fds && after.heap <= before.heap+4<<20 {
			break
		}
	}
	t.Logf("before %+v, after %+v, largest %d KiB", before, after, churnMost())
	if after.goroutines > before.goroutines || after.fds > before.fds || after.heap > before.heap+4<<20 {
		t.Error("something is left")
	}
}

// churnMost is the most memory that this process has had, in KiB.
func churnMost() int64 {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return int64(u.Maxrss)
}

// churn calls f n times, so many at a time.
func churn(n, atATime int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range atATime {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				f(int(i))
			}
		})
	}
	wg.Wait()
}

func TestChurnContainers(t *testing.T) {
	leak.Check(t)
	n := 200
	if *churnFull {
		n = 5000
	}
	kinds := createKinds(t)
	names := []string{"plain", "detached", "no PID namespace", "init"}
	dir := t.TempDir()
	one := func(i int) {
		c, err := New(dir, fmt.Sprint("x", i), kinds[names[i%len(names)]])
		if err != nil {
			t.Error(err)
			return
		}
		if err := c.Run(context.Background(), &Process{Args: []string{"true"}}); err != nil {
			t.Error(err)
		} else if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}
	churn(20, 20, one)
	before, began := churnNow(), time.Now()
	churn(n, 64, one)
	t.Logf("%d containers in %v", n, time.Since(began))
	churnCheck(t, before)
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestChurnExecs(t *testing.T) {
	leak.Check(t)
	n := 300
	if *churnFull {
		n = 10000
	}
	cfg, _ := lifeConfig(t)
	c := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
	one := func() error {
		p := &Process{Args: []string{"true"}}
		if err := c.Exec(context.Background(), p); err != nil {
			return err
		}
		return p.Wait()
	}
	if err := one(); err != nil {
		t.Fatal(err)
	}
	before, began := churnNow(), time.Now()
	var worked, late atomic.Int64
	churn(n, 32, func(i int) {
		if i == n/2 {
			c.Signal(unix.SIGKILL)
		}
		var exit *ExitError
		switch err := one(); {
		case err == nil:
			worked.Add(1)
		case errors.Is(err, ErrNotRunning), errors.As(err, &exit) && exit.Signal == unix.SIGKILL:
			late.Add(1)
		default:
			t.Error(err)
		}
	})
	t.Logf("%d execs worked, %d did not, in %v", worked.Load(), late.Load(), time.Since(began))
	if worked.Load() == 0 || late.Load() == 0 {
		t.Error("the container did not die midway")
	}
	lifeExpectExit(t, lifeWait(t, c.Wait), lifeKilled)
	churnCheck(t, before)
}
