//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// createLoaded is the container as another process sees it.
func createLoaded(t testing.TB, c *Container) *Container {
	t.Helper()
	other, err := Load(filepath.Dir(c.record.dir), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func createStatus(t testing.TB, c *Container, want Status) {
	t.Helper()
	for who, c := range map[string]*Container{"": c, "loaded: ": createLoaded(t, c)} {
		if status, err := c.Status(); status != want || err != nil {
			t.Errorf("%sstatus is %s, %v, want %s", who, status, err, want)
		}
	}
}

// createKinds are the configurations in which the first process has different parents and ways.
func createKinds(t testing.TB) map[string]Config {
	t.Helper()
	cfg, _ := lifeConfig(t)
	kinds := make(map[string]Config)
	add := func(name string, change func(*Config)) {
		cfg := cfg
		change(&cfg)
		kinds[name] = cfg
	}
	add("plain", func(*Config) {})
	add("detached", func(c *Config) { c.Detached = true })
	add("init", func(c *Config) { c.Init = true })
	add("detached init", func(c *Config) { c.Detached, c.Init = true, true })
	add("no PID namespace", func(c *Config) { c.Namespaces.NewPID = false; c.Mounts = nil; c.MaskPaths, c.ReadonlyPaths = nil, nil })
	add("detached, no PID namespace", func(c *Config) {
		c.Detached = true
		c.Namespaces.NewPID = false
		c.Mounts, c.MaskPaths, c.ReadonlyPaths = nil, nil, nil
	})
	if os.Geteuid() == 0 {
		add("root", func(c *Config) { c.Namespaces.NewUser = false })
		add("root, detached", func(c *Config) { c.Namespaces.NewUser = false; c.Detached = true })
	}
	return kinds
}

// Everything is set up by Create, and the program runs at Start and not before, whoever calls it.
func TestCreateStart(t *testing.T) {
	for name, cfg := range createKinds(t) {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			c := lifeNew(t, cfg)
			createStatus(t, c, StatusCreating)
			if err := c.Start(context.Background()); !errors.Is(err, ErrNotCreated) {
				t.Errorf("Start before Create: %v", err)
			}
			out, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			printed := func() string { text, _ := os.ReadFile(out.Name()); return string(text) }
			p := lifeSh("echo ran; exit 3")
			p.Stdout = out
			if err := c.Create(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			createStatus(t, c, StatusCreated)
			state, err := createLoaded(t, c).State()
			if err != nil || state.Pid != p.Pid() || state.Pid == 0 || !state.Started.IsZero() || state.NamespacePaths[NetworkNamespace] != fmt.Sprintf("/proc/%d/ns/net", p.Pid()) {
				t.Errorf("state %+v, %v", state, err)
			}
			time.Sleep(20 * time.Millisecond)
			if printed() != "" {
				t.Error("the program ran before Start")
			}
			if err := c.Create(context.Background(), lifeSh("true")); !errors.Is(err, ErrRunning) {
				t.Errorf("a second Create: %v", err)
			}
			if err := createLoaded(t, c).Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := c.Start(context.Background()); !errors.Is(err, ErrRunning) && !errors.Is(err, ErrNotRunning) {
				t.Errorf("a second Start: %v", err)
			}
			lifeExpectExit(t, lifeWait(t, c.Wait), ExitError{Code: 3})
			lifeExpectExit(t, createLoaded(t, c).Wait(), ExitError{Code: 3})
			createStatus(t, c, StatusStopped)
			wantText(t, printed(), "ran\n")
			if state, err := c.State(); err != nil || state.Started.IsZero() || state.Stopped.IsZero() || state.ExitCode != 3 {
				t.Errorf("state %+v, %v", state, err)
			}
		})
	}
}

// What can fail fails in Create, and Create can be tried again.
func TestCreateFails(t *testing.T) {
	for name, cfg := range createKinds(t) {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			c := lifeNew(t, cfg)
			if err := c.Create(context.Background(), &Process{Args: []string{"missing"}}); !errors.Is(err, ErrNotFound) {
				t.Errorf("Create of nothing: %v", err)
			}
			createStatus(t, c, StatusCreating)
			if pid := c.Pid(); pid != 0 {
				t.Errorf("a process %d is left", pid)
			}
			if err := c.Run(context.Background(), &Process{Args: []string{"/etc"}}); !errors.Is(err, ErrNotExecutable) {
				t.Errorf("Run of a directory: %v", err)
			}
			if err := c.Create(context.Background(), lifeSh("true")); err != nil {
				t.Fatal(err)
			}
			if err := c.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := lifeWait(t, c.Wait); err != nil {
				t.Error(err)
			}
		})
	}
}

// An execve that fails behind the gate: the starter is told why, in whatever process it is.
func TestStartFails(t *testing.T) {
	leak.Check(t)
	for name, cfg := range createKinds(t) {
		t.Run(name, func(t *testing.T) {
			root := cfg.Root.Dir
			if err := os.WriteFile(filepath.Join(root, "bad"), []byte("#!/missing\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			c := lifeNew(t, cfg)
			if err := c.Create(context.Background(), &Process{Args: []string{"/bad"}}); err != nil {
				t.Fatal(err)
			}
			err := createLoaded(t, c).Start(context.Background())
			var e *Error
			if !errors.Is(err, ErrNotFound) || !errors.Is(err, unix.ENOENT) || !errors.As(err, &e) || e.Op != "execute" || e.Path != "/bad" {
				t.Errorf("Start of a script without interpreter: %#v", err)
			}
			lifeExpectExit(t, lifeWait(t, c.Wait), ExitError{Code: 125})
			createStatus(t, c, StatusStopped)
		})
	}
}

// Of many starters one gets nil. The rest are told, and nobody hangs.
func TestStartConcurrently(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for range 5 {
		c := lifeNew(t, cfg)
		if err := c.Create(context.Background(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		var won, lost atomic.Int32
		var wg sync.WaitGroup
		for i := range 50 {
			starter := c
			if i%2 == 0 {
				starter = createLoaded(t, c)
			}
			wg.Go(func() {
				switch err := starter.Start(context.Background()); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, ErrRunning):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || lost.Load() != 49 {
			t.Errorf("%d starters won, %d lost", won.Load(), lost.Load())
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}
}

// A first process that dies while it waits for Start is noticed.
func TestStartOfDead(t *testing.T) {
	for name, cfg := range createKinds(t) {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			c := lifeNew(t, cfg)
			if err := c.Create(context.Background(), lifeSh("true")); err != nil {
				t.Fatal(err)
			}
			if err := createLoaded(t, c).Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			lifeExpectExit(t, lifeWait(t, c.Wait), lifeKilled)
			for _, c := range []*Container{c, createLoaded(t, c)} {
				if err := c.Start(context.Background()); !errors.Is(err, ErrNotRunning) {
					t.Errorf("Start of a dead process: %v", err)
				}
			}
		})
	}
}

// Stop and Destroy end a container that waits for Start.
func TestStopCreated(t *testing.T) {
	for name, cfg := range createKinds(t) {
		for _, stop := range []string{"Stop", "Destroy"} {
			t.Run(name+" "+stop, func(t *testing.T) {
				leak.Check(t)
				cfg.StopTimeout = time.Minute
				c := lifeNew(t, cfg)
				if err := c.Create(context.Background(), lifeSh("true")); err != nil {
					t.Fatal(err)
				}
				began, other := time.Now(), createLoaded(t, c)
				err := error(nil)
				if stop == "Stop" {
					err = other.Stop(context.Background())
				} else {
					err = other.Destroy()
				}
				if took := time.Since(began); err != nil || took > 30*time.Second { // not StopTimeout
					t.Errorf("%v after %v", err, took)
				}
				lifeExpectExit(t, lifeWait(t, c.Wait), lifeKilled)
			})
		}
	}
}

func TestList(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	dir := t.TempDir()
	if list, err := List(filepath.Join(dir, "none")); len(list) != 0 || err != nil {
		t.Errorf("List of no directory: %v, %v", list, err)
	}
	for _, id := range []string{"b", "a", ".c"} {
		c, err := New(dir, id, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Destroy()
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "empty"), 0o700), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600),
		os.MkdirAll(filepath.Join(dir, "theirs", "precious"), 0o700)); err != nil {
		t.Fatal(err)
	}
	list, err := List(dir)
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID())
	}
	if want := []string{".c", "a", "b"}; !slices.Equal(ids, want) || err != nil {
		t.Errorf("List gives %q, %v, want %q", ids, err, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "theirs", "precious")); err != nil {
		t.Errorf("a directory that is none of ours is gone: %v", err)
	}
	if _, err := New(dir, "theirs", cfg); !errors.Is(err, ErrExist) {
		t.Errorf("New in a directory that is none of ours: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "empty")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a New leaves that was killed is still there: %v", err)
	}
}

// The reaper passes signals on, collects orphans, and exits as the program does.
func TestInit(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	cfg.Init = true
	t.Run("process 1", func(t *testing.T) {
		out := sh(t, cfg, `echo $$; cat /proc/1/comm; readlink /proc/1/exe; ls /proc/1/fd | wc -l; grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/1/status; grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs|SigBlk|SigIgn)' /proc/self/status`)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if lines[0] == "1" || lines[1] != "container:init" {
			t.Errorf("the program is process %s, process 1 is %s", lines[0], lines[1])
		}
		if !strings.Contains(out, "SigBlk:\t0000000000000000") {
			t.Errorf("signals are blocked in the program:\n%s", out)
		}
	})
	t.Run("exit code", func(t *testing.T) {
		c := lifeStart(t, cfg, lifeSh("exit 5"))
		lifeExpectExit(t, lifeWait(t, c.Wait), ExitError{Code: 5})
	})
	t.Run("killed", func(t *testing.T) {
		c := lifeStart(t, cfg, lifeSh("kill -9 $$"))
		lifeExpectExit(t, lifeWait(t, c.Wait), ExitError{Code: 137})
	})
	t.Run("signals", func(t *testing.T) {
		p, ready := lifeSleeper(t, false)
		c := lifeStart(t, cfg, p)
		ready()
		if err := c.Signal(unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		lifeExpectExit(t, lifeWait(t, c.Wait), lifeExit7)
	})
	t.Run("default action", func(t *testing.T) { // process 1 itself would ignore it
		c := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
		if err := c.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		lifeExpectExit(t, lifeWait(t, c.Wait), ExitError{Code: 143})
	})
	t.Run("orphans", func(t *testing.T) {
		// One may end while it is looked, but is gone then.
		script := `for i in 1 2 3 4 5; do (sh -c 'sleep 0.01' & ) ; done; sleep 0.3
			for i in $(seq 300); do z=$(cat /proc/[0-9]*/stat 2>/dev/null | grep ') Z '); [ "$z" ] || break; sleep 0.1; done; echo "$z"`
		if got := sh(t, cfg, script); got != "" {
			t.Errorf("zombies: %s", got)
		}
	})
	t.Run("the rest ends with it", func(t *testing.T) {
		c := lifeStart(t, cfg, lifeSh("sleep 1000 & exit 0"))
		if err := lifeWait(t, c.Wait); err != nil {
			t.Error(err)
		}
	})
}

// SignalAll and Processes know the processes of containers without a PID namespace too, even when the first
// has ended.
func TestProcesses(t *testing.T) {
	for name, cfg := range createKinds(t) {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			c := lifeNew(t, cfg)
			if pids, err := c.Processes(); len(pids) != 0 || err != nil {
				t.Errorf("processes %v, %v before the start", pids, err)
			}
			p := lifeSh("sleep 1000 & (sleep 1000 &) ; echo ready; exec sleep 1000")
			out, _ := p.StdoutPipe()
			if err := c.Run(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			lifeReady(t, out)
			pids, err := createLoaded(t, c).Processes()
			want := 3
			if cfg.Init {
				want++
			}
			if len(pids) != want || err != nil || pids[0] != p.Pid() {
				t.Errorf("processes are %v, %v; the first is %d", pids, err, p.Pid())
			}
			lasting, err := mountNamespaceID(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			if !cfg.Namespaces.NewPID && lasting != 0 {
				// The others live on, and Linux 6.11 tells whose they are.
				if err := c.Signal(unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				p.live.await(t)
				if pids, err := c.Processes(); len(pids) != 2 || err != nil {
					t.Errorf("processes are %v, %v after the first has ended", pids, err)
				}
			}
			if err := c.SignalAll(unix.SIGKILL); err != nil {
				t.Error(err)
			}
			if pids, err := c.Processes(); len(pids) != 0 || err != nil {
				t.Errorf("processes %v, %v are left", pids, err)
			}
			if err := c.SignalAll(unix.SIGTERM); !errors.Is(err, ErrNotRunning) {
				t.Errorf("SignalAll without processes: %v", err)
			}
			c.Wait()
		})
	}
}

func (l *liveProcess) await(t testing.TB) {
	t.Helper()
	select {
	case <-l.kept:
	case <-time.After(30 * time.Second):
		t.Fatal("the process does not end")
	}
}

// Destroy ends what is left in a container whose first process is gone.
func TestDestroyLeftovers(t *testing.T) {
	leak.Check(t)
	cfg := createKinds(t)["no PID namespace"]
	c := lifeNew(t, cfg)
	p := lifeSh("sleep 1000 & echo ready")
	out, _ := p.StdoutPipe()
	if err := c.Run(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	lifeReady(t, out)
	p.live.await(t)
	if err := createLoaded(t, c).Destroy(); err != nil {
		t.Error(err)
	}
	lifeWait(t, c.Wait)
}

// An exit status that is left can be collected again, and is known to Wait all the same.
func TestLeaveZombie(t *testing.T) {
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	p := lifeSh("exit 7")
	p.LeaveZombie = true
	if err := c.Run(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	lifeExpectExit(t, p.Wait(), lifeExit7)
	var status unix.WaitStatus
	if pid, err := unix.Wait4(p.Pid(), &status, unix.WNOHANG, nil); pid != p.Pid() || err != nil || status.ExitStatus() != 7 {
		t.Errorf("wait4 returned %d, %v, status %d", pid, err, status.ExitStatus())
	}
	if pid, err := unix.Wait4(p.Pid(), &status, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("the second time wait4 returned %d, %v", pid, err)
	}
}
