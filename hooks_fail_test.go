//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// hookFailures are the ways in which a program fails, and the error.
var hookFailures = []struct {
	name    string
	script  string
	change  func(t *testing.T, path string)
	timeout time.Duration
	want    func(error) bool
}{
	{"status", "echo first; echo too bad >&2; exit 3", nil, 0, func(err error) bool {
		var exit *ExitError
		return errors.As(err, &exit) && *exit == ExitError{Code: 3}
	}},
	{"signal", "kill -USR1 $$", nil, time.Minute, func(err error) bool {
		var exit *ExitError
		return errors.As(err, &exit) && *exit == ExitError{Code: 128 + 10, Signal: unix.SIGUSR1}
	}},
	{"status of a failed start", "exit 125", nil, 0, func(err error) bool {
		var exit *ExitError
		return errors.As(err, &exit) && exit.Code == 125
	}},
	{"missing", "", func(t *testing.T, path string) { os.Remove(path) }, 0, func(err error) bool { return errors.Is(err, unix.ENOENT) }},
	{"not executable", "", func(t *testing.T, path string) { os.Chmod(path, 0o644) }, 0, func(err error) bool { return errors.Is(err, unix.EACCES) }},
	{"no program", "", func(t *testing.T, path string) { os.WriteFile(path, []byte("text"), 0o755) }, 0, func(err error) bool { return errors.Is(err, unix.ENOEXEC) }},
	{"timeout", "trap '' TERM INT HUP; (trap '' TERM HUP; sleep 1000; true) & echo waiting; sleep 1000; true", nil, 150 * time.Millisecond,
		func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
}

// TestHookFails makes a hook of each kind fail in each way. Those of a start make it fail and leave nothing, and
// it can be tried again; one after the start ends the container; one after the end is logged.
func TestHookFails(t *testing.T) {
	hookConfigs(t, func(t *testing.T, base Config, s hookScripts) {
		for i, kind := range hookKinds {
			for _, f := range hookFailures {
				if name := t.Name(); f.name != "status" && f.name != "timeout" && !strings.HasSuffix(name, "default") && !strings.HasSuffix(name, "two_phases") {
					continue // it would tell nothing new
				}
				cfg := base
				cfg.Hooks = nil
				bad := s.hook(t, kind, f.script)
				bad.Timeout = f.timeout
				path := filepath.Join(string(s), filepath.Base(bad.Path))
				if f.change != nil {
					f.change(t, path)
				}
				for _, k := range hookKinds {
					log := s.hook(t, k, "echo $HOOK_KIND >>$HOOK_DIR/log")
					list := []Hook{log}
					if k == kind {
						list = []Hook{log, bad, log}
					}
					hookSet(&cfg, k, list...)
				}
				want := func(n int) string { // with what runs of its own kind, and Poststop
					var b strings.Builder
					for _, k := range hookKinds[:i] {
						b.WriteString(string(k) + "\n")
					}
					return b.String() + strings.Repeat(string(kind)+"\n", n)
				}
				os.Remove(string(s) + "/log")
				var logged bytes.Buffer
				cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
				c := lifeNew(t, cfg)
				began := time.Now()
				err := hookRun(context.Background(), c, &Process{Args: []string{"sleep", "1000"}})
				what := fmt.Sprintf("%s, %s", kind, f.name)
				if kind != hookPoststop {
					var e *Error
					if !errors.As(err, &e) || e.Op != "hook "+string(kind) || e.Path != bad.Path || e.ID != "life" || !f.want(err) {
						t.Errorf("%s: %v", what, err)
					}
					if said := "too bad"; f.name == "status" && kind != hookStartContainer && !strings.Contains(fmt.Sprint(err), said) {
						t.Errorf("%s: %q, which does not say %q", what, err, said)
					}
					if got := s.read("log"); got != want(1) {
						t.Errorf("%s: ran %q, want %q", what, got, want(1))
					}
				}
				status, _ := c.Status()
				switch {
				case kind == hookPoststop:
					if err != nil || status != StatusRunning {
						t.Errorf("%s: Run returned %v, it is %s", what, err, status)
					}
				case kind == hookPoststart, kind == hookStartContainer && cfg.Annotations != nil:
					if status != StatusStopped {
						t.Errorf("%s: it is %s after a failure", what, status)
					}
				case status != StatusCreating:
					t.Errorf("%s: it is %s after a failure", what, status)
				default: // it is as new
					os.Remove(string(s) + "/log")
					os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755)
					os.Chmod(path, 0o755)
					for i := range c.cfg.Hooks.list(kind) {
						c.cfg.Hooks.list(kind)[i].Timeout = 0 // now it ends by itself, on a busy machine later
					}
					if err := hookRun(context.Background(), c, &Process{Args: []string{"sleep", "1000"}}); err != nil {
						t.Errorf("%s: the second Run: %v", what, err)
					}
				}
				os.Remove(string(s) + "/log")
				if err := c.Destroy(); err != nil {
					t.Errorf("%s: Destroy: %v", what, err)
				}
				stops := 1
				if kind == hookPoststop {
					stops = 2
					if text := logged.String(); !strings.Contains(text, "hook poststop "+bad.Path) || !strings.Contains(text, "WARN") {
						t.Errorf("%s: logged %q", what, text)
					}
				}
				if got := s.read("log"); got != strings.Repeat("poststop\n", stops) {
					t.Errorf("%s: Destroy ran %q", what, got)
				}
				if took := time.Since(began); took > time.Minute { // and not 1000 seconds
					t.Errorf("%s: took %v", what, took)
				}
			}
		}
	})
}

// TestHookOutput: a program may write as much as it likes; of one that fails, the end is in the error.
func TestHookOutput(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	s := hookScripts(root + "/tmp")
	cfg.Mounts = append(cfg.Mounts, Mount{Type: "bind", Source: root + "/tmp", Target: "/tmp"})
	for _, kind := range hookKinds {
		hookSet(&cfg, kind, s.hook(t, kind, "dd if=/dev/zero bs=1M count=10 2>/dev/null && touch $HOOK_DIR/done-$HOOK_KIND"))
	}
	c := lifeStart(t, cfg, &Process{Args: []string{"true"}})
	c.Wait()
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	for _, kind := range hookKinds {
		if _, err := os.Stat(string(s) + "/done-" + string(kind)); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(string(s)+"/held", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []hookKind{hookCreateRuntime, hookCreateContainer} {
		cfg.Hooks = nil
		// Somebody keeps the output; nobody waits for that.
		hookSet(&cfg, kind, s.hook(t, kind, "echo the beginning; yes | head -c 100000; while [ -e $HOOK_DIR/held ]; do sleep 0.05; done & echo the end; exit 1"))
		c := lifeNew(t, cfg)
		err := lifeWait(t, func() error { return c.Run(context.Background(), &Process{Args: []string{"true"}}) })
		if text := fmt.Sprint(err); !strings.HasSuffix(text, "\nthe end") || strings.Contains(text, "beginning") || len(text) > tailSize+200 {
			t.Errorf("%s: error of %d bytes, %.100q", kind, len(text), text)
		}
	}
	os.Remove(string(s) + "/held") // the one of createRuntime is still there: a failure is no reason to kill it
}

// TestHookLargeState: more than a pipe holds, and a program that reads none of it.
func TestHookLargeState(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	s := hookScripts(root + "/tmp")
	cfg.Mounts = append(cfg.Mounts, Mount{Type: "bind", Source: root + "/tmp", Target: "/tmp"})
	cfg.Annotations = map[string]string{"large": strings.Repeat("x", 300_000)}
	for _, kind := range hookKinds {
		hookSet(&cfg, kind, s.hook(t, kind, "exit 0"), s.hook(t, kind, "head -c 10 >/dev/null"), s.hook(t, kind, "cat >$HOOK_DIR/state-$HOOK_KIND"))
	}
	c := lifeStart(t, cfg, &Process{Args: []string{"true"}})
	c.Wait()
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	for _, kind := range hookKinds {
		if text := s.read("state-" + string(kind)); len(text) < 300_000 || !strings.HasPrefix(text, "{") || !strings.HasSuffix(text, "}\n") {
			t.Errorf("%s has read %d bytes", kind, len(text))
		}
	}
}

// TestHookContext: when the context ends, the hook is killed and the start fails with its reason.
func TestHookContext(t *testing.T) {
	hookConfigs(t, func(t *testing.T, base Config, s hookScripts) {
		for _, kind := range hookKinds[:4] {
			cfg := base
			cfg.Hooks = nil
			hookSet(&cfg, kind, s.hook(t, kind, "trap '' TERM; touch $HOOK_DIR/begun; exec sleep 1000"))
			os.Remove(string(s) + "/begun")
			c := lifeNew(t, cfg)
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				for s := string(s) + "/begun"; ; time.Sleep(5 * time.Millisecond) {
					if _, err := os.Stat(s); err == nil {
						cancel()
						return
					}
				}
			}()
			err := lifeWait(t, func() error { return hookRun(ctx, c, &Process{Args: []string{"true"}}) })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", kind, err)
			}
			want := StatusCreating
			if kind == hookStartContainer && cfg.Annotations != nil {
				want = StatusStopped
			}
			if status, _ := c.Status(); status != want {
				t.Errorf("%s: status %s", kind, status)
			}
		}
	})
}

// TestHookFaults makes each call of a start with hooks fail.
func TestHookFaults(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	for _, kind := range hookKinds {
		h := Hook{Path: "/bin/busybox", Args: []string{"true"}, Timeout: time.Minute}
		if kind == hookStartContainer {
			h.Timeout = 0
		}
		hookSet(&cfg, kind, h)
	}
	injectFaults(t, cfg, false)
}
