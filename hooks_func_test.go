//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// hookFunc is a hook that is a function.
func hookFunc(f func(context.Context, *ContainerState) error) Hook { return Hook{Func: f} }

// TestHookFunc calls a function of each kind, in order, with the state; what it changes there is its own. From
// each of them the container can be asked, by this handle and by another process's.
func TestHookFunc(t *testing.T) {
	hookConfigs(t, func(t *testing.T, cfg Config, s hookScripts) {
		var calls []hookKind
		var c *Container
		for _, kind := range hookKinds {
			hookSet(&cfg, kind, hookFunc(func(ctx context.Context, state *ContainerState) error {
				calls = append(calls, kind)
				want := map[hookKind]Status{hookStartContainer: StatusCreated, hookPoststart: StatusRunning, hookPoststop: StatusStopped}[kind]
				if want == "" {
					want = StatusCreating
				}
				if state.Status != want || state.ID != "life" || state.Annotations["k"] != "v" || (state.Pid == 0) != (kind == hookPoststop) {
					t.Errorf("%s: state %+v", kind, state)
				}
				if kind == hookPoststop && state.ExitCode != 137 {
					t.Errorf("exit code %d", state.ExitCode)
				}
				state.Annotations["k"] = "changed"
				lifeWait(t, func() error { // with the record's lock held this must not wait for us
					other, err := Load(filepath.Dir(c.record.dir), c.id)
					if err != nil {
						t.Errorf("%s: Load: %v", kind, err)
						return nil
					}
					for _, c := range []*Container{c, other} {
						if _, err := c.State(); err != nil {
							t.Errorf("%s: State: %v", kind, err)
						}
						// As long as the process is in the launcher, the kernel cannot tell how far it is.
						if status, err := c.Status(); err != nil || (kind == hookPoststart || kind == hookPoststop) && status != want {
							t.Errorf("%s: Status: %s, %v", kind, status, err)
						}
						if err := c.Signal(0); err != nil && !errors.Is(err, ErrNotRunning) {
							t.Errorf("%s: Signal: %v", kind, err)
						}
						_, _ = c.Pid(), c.Config()
						if _, err := c.Processes(); err != nil {
							t.Errorf("%s: Processes: %v", kind, err)
						}
					}
					return nil
				})
				return nil
			}))
		}
		two := cfg.Annotations["phases"] == "2"
		cfg.Annotations = map[string]string{"k": "v"}
		c = lifeNew(t, cfg)
		p := &Process{Args: []string{"sleep", "1000"}}
		var err error
		if two {
			if err = c.Create(context.Background(), p); err == nil {
				err = c.Start(context.Background())
			}
		} else {
			err = c.Run(context.Background(), p)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(calls, hookKinds) {
			t.Errorf("calls: %v", calls)
		}
	})
}

// TestHookFuncDead: the process dies while a function looks at it in Start, which holds the record.
func TestHookFuncDead(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	var c *Container
	hookSet(&cfg, hookStartContainer, hookFunc(func(context.Context, *ContainerState) error {
		c.Signal(unix.SIGKILL)
		for status := StatusCreated; status != StatusStopped; {
			var err error
			if status, err = c.Status(); err != nil {
				t.Error(err)
				return err
			}
		}
		return nil
	}))
	c = lifeNew(t, cfg)
	if err := c.Create(context.Background(), &Process{Args: []string{"true"}}); err != nil {
		t.Fatal(err)
	}
	if err := lifeWait(t, func() error { return c.Start(context.Background()) }); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Start: %v", err)
	}
}

// TestHookFuncFails: what a function returns, and its panic, reach the caller, and nothing is left.
func TestHookFuncFails(t *testing.T) {
	hookConfigs(t, func(t *testing.T, base Config, s hookScripts) {
		two := base.Annotations["phases"] == "2"
		mine := errors.New("mine")
		start := func(c *Container) (panicked any, err error) {
			defer func() { panicked = recover() }()
			p := &Process{Args: []string{"sleep", "1000"}}
			if !two {
				return nil, c.Run(context.Background(), p)
			}
			if err := c.Create(context.Background(), p); err != nil {
				return nil, err
			}
			return nil, c.Start(context.Background())
		}
		for _, kind := range hookKinds[:5] {
			for _, panics := range []bool{false, true} {
				cfg := base
				cfg.Hooks = nil
				bad := true
				hookSet(&cfg, kind, hookFunc(func(context.Context, *ContainerState) error {
					switch {
					case !bad:
						return nil
					case panics:
						panic(mine)
					}
					return mine
				}))
				c := lifeNew(t, cfg)
				panicked, err := start(c)
				var e *Error
				if panics && panicked != mine || !panics && (!errors.As(err, &e) || e.Op != "hook "+string(kind) || !errors.Is(err, mine)) {
					t.Errorf("%s: %v, panic %v", kind, err, panicked)
				}
				status, _ := c.Status()
				if kind == hookPoststart || kind == hookStartContainer && two {
					if status != StatusStopped {
						t.Errorf("%s: it is %s", kind, status)
					}
				} else if bad = false; status != StatusCreating {
					t.Errorf("%s: it is %s", kind, status)
				} else if panicked, err := start(c); err != nil || panicked != nil {
					t.Errorf("%s: again: %v, %v", kind, err, panicked)
				}
				if err := c.Destroy(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// TestHookFuncDestroy: a panic in Destroy reaches the caller; the record is still there, and not locked.
func TestHookFuncDestroy(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	bad, calls := true, 0
	var logged bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	hookSet(&cfg, hookPoststop, hookFunc(func(context.Context, *ContainerState) error {
		calls++
		if bad {
			panic("bad")
		}
		return errors.New("not so bad")
	}))
	c := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
	func() {
		defer func() {
			if recover() != "bad" {
				t.Error("the panic was swallowed")
			}
		}()
		c.Destroy()
	}()
	if status, err := c.Status(); status != StatusStopped {
		t.Errorf("it is %s, %v", status, err)
	}
	bad = false
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if _, err := c.Status(); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
	if err := c.Destroy(); err != nil || calls != 2 || !strings.Contains(logged.String(), "not so bad") {
		t.Errorf("%v, %d calls, logged %q", err, calls, &logged)
	}
}

// TestHookFuncTimeout: the context of a function ends with its time, and with the caller's.
func TestHookFuncTimeout(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	wait := func(ctx context.Context, _ *ContainerState) error {
		<-ctx.Done()
		return ctx.Err()
	}
	hookSet(&cfg, hookCreateRuntime, Hook{Func: wait, Timeout: 50 * time.Millisecond})
	if err := lifeNew(t, cfg).Run(context.Background(), &Process{Args: []string{"true"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	hookSet(&cfg, hookCreateRuntime, Hook{Func: wait, Timeout: time.Hour})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := lifeNew(t, cfg).Run(ctx, &Process{Args: []string{"true"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestHookFuncLost: functions are not stored, but that there were some is: who has the container from Load is
// told where one would have to be called, and Destroy tells its logger.
func TestHookFuncLost(t *testing.T) {
	leak.Check(t)
	base, _ := lifeConfig(t)
	nothing := hookFunc(func(context.Context, *ContainerState) error { return nil })
	for _, kind := range hookKinds {
		cfg := base
		cfg.Hooks = nil
		cfg.Annotations = map[string]string{"odd": "\ufffd"} // what JSON makes of text that is not UTF-8
		hookSet(&cfg, kind, nothing)
		c := lifeNew(t, cfg)
		other, err := Load(filepath.Dir(c.record.dir), c.id)
		if err != nil {
			t.Fatal(err)
		}
		refuses := func(what string, err error) {
			var e *Error
			if !errors.Is(err, ErrHookFunc) || !errors.As(err, &e) || e.Op != "hook "+string(kind) || e.Remedy == "" {
				t.Errorf("%s: %s returned %v", kind, what, err)
			}
		}
		p := &Process{Args: []string{"true"}}
		switch kind {
		case hookPrestart, hookCreateRuntime, hookCreateContainer:
			refuses("Create", other.Create(context.Background(), p))
			refuses("Run", other.Run(context.Background(), p))
		case hookStartContainer, hookPoststart:
			refuses("Run", other.Run(context.Background(), p))
			if err := other.Create(context.Background(), p); err != nil {
				t.Error(err)
			}
			refuses("Start", other.Start(context.Background()))
			if err := c.Start(context.Background()); err != nil { // who has them may
				t.Error(err)
			}
		case hookPoststop:
			var logged bytes.Buffer
			other.cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
			if err := other.Destroy(); err != nil || !strings.Contains(logged.String(), ErrHookFunc.Error()) {
				t.Errorf("Destroy returned %v, logged %q", err, &logged)
			}
		}
	}
}

// TestHookPoison: the container has other programs by the names of the host's. Those of the host run where the host's
// tree is, and the container's in the container.
func TestHookPoison(t *testing.T) {
	hookConfigs(t, func(t *testing.T, cfg Config, s hookScripts) {
		own := s.hook(t, hookCreateContainer, "echo host >>$HOOK_DIR/who")
		mine := filepath.Join(cfg.Root.Dir, own.Path) // the same path in the container
		if err := os.MkdirAll(filepath.Dir(mine), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(mine, []byte("#!/bin/sh\necho container >>/tmp/who\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, kind := range hookKinds {
			hookSet(&cfg, kind, own)
		}
		c := lifeNew(t, cfg)
		if err := hookRun(context.Background(), c, &Process{Args: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
		c.Wait()
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if got := s.read("who"); got != "host\nhost\nhost\ncontainer\nhost\nhost\n" {
			t.Errorf("ran %q", got)
		}
	})
}

// TestHookPrivileges: a program of StartContainer may do what the container's program may, and nothing more.
func TestHookPrivileges(t *testing.T) {
	hookConfigs(t, func(t *testing.T, cfg Config, s hookScripts) {
		cfg.Capabilities = &Capabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Permitted: []string{"CAP_CHOWN"}, Effective: []string{"CAP_CHOWN"}}
		cfg.Rlimits = []Rlimit{{Type: "nofile", Soft: 40, Hard: 50}}
		const look = `grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask|Cpus_allowed:)' /proc/self/status
			ulimit -n; ulimit -Hn; readlink /proc/self/ns/* /proc/self/cwd; ls -a /..; cat /proc/self/mountinfo | wc -l; cat /proc/self/attr/current 2>/dev/null; true`
		hookSet(&cfg, hookStartContainer, s.hook(t, hookStartContainer, "exec >$HOOK_DIR/hook\n"+look))
		p := lifeSh("exec >/tmp/program\n" + look)
		p.Cwd = "/etc"
		if os.Geteuid() == 0 {
			p.User = "33:33"
		}
		c := lifeNew(t, cfg)
		if err := hookRun(context.Background(), c, p); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		hook, program := s.read("hook"), s.read("program")
		if hook != program || strings.Count(hook, "\n") < 20 {
			t.Errorf("the hook has\n%s\nand the program\n%s", hook, program)
		}
	})
}
