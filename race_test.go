//go:build linux

package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file lets 200 goroutines of four processes do everything with a few containers at the same time.

// raceCounts is what one process has seen.
type raceCounts struct{ New, Create, Start, Exec, Destroy int64 }

// raceLife is one of the processes.
func raceLife(o crashOrder) error {
	const rounds, workers = 12, 50
	deadline := time.AfterFunc(3*time.Minute, func() {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		os.Exit(1)
	})
	defer deadline.Stop()
	var n raceCounts
	var wg sync.WaitGroup
	failures := make(chan error, workers*rounds)
	// allowed adds one to won, or demands that an error is one of those that are documented.
	allowed := func(what string, won *int64, err error, sentinels ...error) bool {
		if err == nil {
			atomic.AddInt64(won, 1)
			return true
		}
		for _, s := range sentinels {
			if errors.Is(err, s) {
				return false
			}
		}
		failures <- fmt.Errorf("%s: %w", what, err)
		return false
	}
	var ignored int64
	for i := range workers {
		wg.Go(func() {
			ctx := context.Background()
			for round := range rounds {
				id := fmt.Sprint("id", (i+round)%3)
				c, err := Load(o.Dir, id)
				if i%5 == 0 || err != nil {
					if c, err = New(o.Dir, id, o.Cfg); !allowed("New", &n.New, err, ErrExist) {
						continue
					}
					// Whoever has made it creates it, but not alone.
					allowed("Create", &n.Create, c.Create(ctx, crashProcess()), ErrRunning, ErrNotExist)
				}
				switch i % 7 {
				case 0, 1:
					allowed("Create", &n.Create, c.Create(ctx, crashProcess()), ErrRunning, ErrNotExist)
				case 2, 3:
					allowed("Start", &n.Start, c.Start(ctx), ErrRunning, ErrNotRunning, ErrNotCreated, ErrNotExist)
				case 4:
					p := crashProcess()
					err := c.Exec(ctx, p)
					if errors.Is(err, launch.ErrDied) && strings.Contains(err.Error(), "signal: terminated") {
						continue // by somebody's SignalAll
					}
					if allowed("Exec", &n.Exec, err, ErrNotRunning, ErrNotExist) {
						p.Signal(unix.SIGKILL)
						p.Wait()
					}
				case 5:
					if _, err := c.Processes(); err != nil {
						allowed("Processes", &ignored, err, ErrNotExist)
					}
					if list, err := List(o.Dir); err != nil || len(list) > 3 {
						failures <- fmt.Errorf("List: %v, %w", list, err)
					}
					allowed("SignalAll", &ignored, c.SignalAll(unix.SIGTERM), ErrNotRunning, ErrNotExist)
				case 6:
					if i%2 == 0 {
						allowed("Destroy", &n.Destroy, c.Destroy())
						continue
					}
					var exit *ExitError
					if err := c.Stop(ctx); err != nil {
						allowed("Stop", &ignored, err, ErrNotExist)
					}
					if err := c.Wait(); !errors.As(err, &exit) && !errors.Is(err, errUnknownExit) {
						allowed("Wait", &ignored, err, ErrNotRunning, ErrNotExist)
					}
				}
			}
		})
	}
	wg.Wait()
	for id := range 3 {
		if c, err := Load(o.Dir, fmt.Sprint("id", id)); err == nil {
			failures <- c.Destroy()
		}
	}
	close(failures)
	var all error
	for err := range failures {
		all = errors.Join(all, err)
	}
	text, _ := json.Marshal(n)
	fmt.Printf("%s\n", text)
	return all
}

func TestRaces(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	kinds := createKinds(t)
	for _, name := range []string{"plain", "detached", "no PID namespace"} {
		t.Run(name, func(t *testing.T) {
			cfg := kinds[name]
			cfg.StopTimeout = 50 * time.Millisecond
			o := crashOrder{Life: "race", Dir: t.TempDir(), Cfg: cfg}
			var racers []*exec.Cmd
			var outs []*bytes.Buffer
			for range 4 {
				cmd, out := o.command(t)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				racers, outs = append(racers, cmd), append(outs, out)
			}
			var all raceCounts
			for i, cmd := range racers {
				if err := cmd.Wait(); err != nil {
					t.Errorf("%v: %.5000s", err, outs[i])
				}
				var n raceCounts
				json.NewDecoder(outs[i]).Decode(&n)
				all.New, all.Create, all.Start, all.Exec = all.New+n.New, all.Create+n.Create, all.Start+n.Start, all.Exec+n.Exec
			}
			// Each container was created and started once.
			if t.Logf("%+v", all); all.Create > all.New || all.Start > all.Create || all.Start == 0 {
				t.Errorf("of several, more than one has won: %+v", all)
			}
			list, err := List(o.Dir)
			for _, c := range list { // of a process that was still at work when another was done
				if err := c.Destroy(); err != nil {
					t.Error(err)
				}
			}
			if left, _ := os.ReadDir(o.Dir); len(left) > 0 || err != nil {
				t.Errorf("left behind: %v, %v", left, err)
			}
			crashNoProcess(t)
		})
	}
}
