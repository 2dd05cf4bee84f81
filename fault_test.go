//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// injected is an error number that none of the programs expects.
const injected = unix.EDQUOT

// TestFaults makes each call of a start fail, one after the other: the error names the step that the
// call belongs to and has its errno, nothing of the container is left, and the next start works.
func TestFaults(t *testing.T) {
	root := testConfig(t)
	for name, change := range map[string]func(*testing.T, *Config){
		"terminal":       func(*testing.T, *Config) {},
		"user namespace": func(t *testing.T, cfg *Config) {},
		"root": func(t *testing.T, cfg *Config) {
			testenv.Need(t, testenv.Root)
			cfg.Namespaces.NewUser = false
		},
		"subordinate ids": func(t *testing.T, cfg *Config) {
			testenv.Need(t, testenv.User, testenv.SubIDs)
			forgetUserNamespaces(t)
			var err error
			if cfg.UidMappings, cfg.GidMappings, err = SubordinateIDs(); err != nil {
				t.Fatal(err)
			}
			sh(t, *cfg, "true") // now there is a kept one
		},
		"host root": func(t *testing.T, cfg *Config) {
			testenv.Need(t, testenv.Overlay)
			cfg.Root = HostRoot
		},
		"everything": func(t *testing.T, cfg *Config) {
			testenv.Need(t, testenv.Overlay)
			cfg.Root.Access = CopyOnWrite
			cfg.Namespaces.NewTime = true
			cfg.TimeOffsets.Boottime = 1e9
			cfg.OomScoreAdj = ptr(100)
			cfg.DieWithParent = true
			if testenv.Cgroup.Probe() == nil {
				cfg.Cgroup = &CgroupConfig{}
			}
			cfg.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			cfg.Rlimits = []Rlimit{{Type: "core"}}
			cfg.Personality = &Personality{Domain: "LINUX"}
			cfg.Scheduler = &Scheduler{Policy: "batch"}
			cfg.IOPriority = &IOPriority{Class: "idle"}
			cfg.CPUAffinity = "0"
			cfg.Mounts = append(cfg.Mounts,
				Mount{Type: "tmpfs", Target: "/etc", CopyUp: true, Data: "size=1m"},
				Mount{Type: "bind", Source: t.TempDir(), Target: "/new/bind", Flags: MountReadOnly | Recursive, Propagation: Slave})
		},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := root
			change(t, &cfg)
			injectFaults(t, cfg, name == "terminal")
		})
	}
}

// injectFaults does so for the calls of the steps, or of all if none is named.
func injectFaults(t *testing.T, cfg Config, tty bool, steps ...string) {
	t.Helper()
	state := t.TempDir()
	process := func() *Process {
		p := &Process{Args: []string{"true"}, Cwd: "/tmp/a/b", Env: []string{"PATH=/missing:/bin"}, Tty: tty}
		if cfg.Root.Dir == "/" {
			p.Cwd = "/tmp" // what cannot be copied on write is read-only
		}
		return p
	}
	pl := planOf(t, cfg, process())
	list := lines(pl.String())
	const first = 2 // where programs begin
	tried, reported, tolerated := 0, 0, 0
	// The program for the host's root follows the host's mounts, and tests of other packages mount below
	// /tmp meanwhile: then a call has another number for a moment.
	retries := 10
	if cfg.Root.Dir != "/" {
		retries = 0
	}
	chosen := sampled(t)
	for op := first; op < pl.Len(); op++ {
		if !chosen(op) {
			continue
		}
		if strings.Contains(list[op], "= sub(") || strings.HasPrefix(list[op], "sub(%") {
			continue // arithmetic does not fail
		}
		if len(steps) > 0 && !slices.Contains(steps, pl.StepOf(op).Name) {
			continue
		}
		if pl.StepOf(op).Name == "process 1" && strings.HasPrefix(list[op], "write(") {
			continue // as long as we are here to read it, that does not fail either
		}
		c, err := New(state, "fault", cfg)
		if err != nil {
			t.Fatal(err)
		}
		tried++
		c.fault = &launch.Fault{Op: op, Errno: injected}
		p := process()
		err = c.Run(context.Background(), p)
		step := pl.StepOf(op)
		if step.Name == "executable" {
			step.Name = "execute"
		}
		var e *Error
		switch {
		case err == nil:
			tolerated++
			if err := c.Wait(); err != nil {
				t.Errorf("call %d, %s: the start went on without it, and then %v", op, list[op], err)
			}
		case errors.As(err, &e) && e.Op == step.Name && e.Path == step.Object && errors.Is(err, injected) && e.ID == "fault":
			reported++
		case errors.Is(err, launch.ErrDied) && strings.Contains(list[op], "exit_group"): // it did not end as it should
		case strings.Contains(list[op], " else ") && errors.As(err, &e) && e.Op == step.Name: // the program has its own opinion
		case retries > 0:
			retries--
			time.Sleep(50 * time.Millisecond)
			pl = planOf(t, cfg, process())
			list = lines(pl.String())
			op--
		default:
			t.Errorf("call %d, step %v, %s: %v", op, step, list[op], err)
		}
		if err != nil {
			if status, err := c.Status(); status != StatusCreating || err != nil {
				t.Errorf("call %d: the container is %s, %v", op, status, err)
			}
			if op%16 == 0 { // it is as new
				c.fault = nil
				if err := errors.Join(c.Run(context.Background(), process()), c.Wait()); err != nil {
					t.Errorf("after the failure of call %d: %v", op, err)
				}
			}
		}
		if err := c.Destroy(); err != nil {
			t.Errorf("call %d: %v", op, err)
		}
		if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
			t.Fatalf("call %d left %v, %v", op, left, err)
		}
		if t.Failed() && op%20 == 0 {
			t.FailNow()
		}
	}
	t.Logf("%d of %d calls: %d failures reported, %d tolerated", tried, pl.Len()-first, reported, tolerated)
	if len(steps) == 0 && reported < tried/2 || reported == 0 {
		t.Error("too few failures were reported")
	}
}

// lines returns the listing's line of each call.
func lines(listing string) map[int]string {
	calls := make(map[int]string)
	for line := range strings.Lines(listing) {
		if rest, ok := strings.CutPrefix(line, "  "); ok {
			n := 0
			number, call, _ := strings.Cut(strings.TrimSpace(rest), " ")
			for _, c := range number {
				n = n*10 + int(c-'0')
			}
			calls[n] = strings.TrimSpace(call)
		}
	}
	return calls
}
