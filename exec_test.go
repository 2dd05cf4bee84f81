//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// execIn runs p in a running container until its end and returns what it wrote.
func execIn(t testing.TB, start func(context.Context, *Process) error, p *Process) (string, error) {
	t.Helper()
	var out bytes.Buffer
	p.Stdout, p.Stderr = &out, &out
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := start(ctx, p); err != nil {
		return "", err
	}
	err := p.Wait()
	return strings.TrimSuffix(out.String(), "\n"), err
}

func execSh(t testing.TB, c *Container, p Process, script string) string {
	t.Helper()
	p.Args = []string{"sh", "-c", script}
	out, err := execIn(t, c.Exec, &p)
	if err != nil {
		t.Fatalf("%v; output:\n%s", err, out)
	}
	return out
}

// execSleeper is a running container that does nothing.
func execSleeper(t testing.TB, cfg Config) *Container {
	t.Helper()
	return lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
}

// execConfigs are the ways into a container: each kind of user namespace that this user can have.
func execConfigs(t *testing.T, f func(*testing.T, Config)) {
	t.Run("own id", func(t *testing.T) { f(t, testConfig(t)) })
	t.Run("ranges", func(t *testing.T) { f(t, rangeConfig(t)) })
	t.Run("no user namespace", func(t *testing.T) {
		testenv.Need(t, testenv.Root)
		cfg := testConfig(t)
		cfg.Namespaces.NewUser = false
		f(t, cfg)
	})
	t.Run("root is another", func(t *testing.T) {
		testenv.Need(t, testenv.Root)
		cfg := testConfig(t)
		cfg.UidMappings, cfg.GidMappings = []IDMap{{HostID: 100000, Size: 1000}}, []IDMap{{HostID: 200000, Size: 1000}}
		if err := os.Chown(cfg.Root.Dir, 100000, 200000); err != nil {
			t.Fatal(err)
		}
		f(t, cfg)
	})
	t.Run("time", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Namespaces.NewTime = true
		cfg.TimeOffsets.Boottime = 1000 * time.Hour
		f(t, cfg)
	})
	t.Run("few namespaces", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Namespaces = Namespaces{NewUser: true, NewMnt: true, NewPID: true}
		withoutOwnMounts(&cfg)
		cfg.Hostname = ""
		f(t, cfg)
	})
}

const execStatus = `cd /; for ns in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$ns; done
	grep -E '^(Cap|NoNewPrivs|Groups|Uid|Gid|Umask)' /proc/self/status; ulimit -n; cat /proc/self/oom_score_adj; [ $(cut -d. -f1 /proc/uptime) -ge 3600000 ] && echo shifted; hostname`

// Another process finds itself where the first one is, with the same rights.
func TestExecIsLikeRun(t *testing.T) {
	leak.Check(t)
	execConfigs(t, func(t *testing.T, cfg Config) {
		cfg.Umask, cfg.OomScoreAdj = ptr(uint32(0o027)), ptr(500)
		cfg.Rlimits = []Rlimit{{Type: "RLIMIT_NOFILE", Soft: 300, Hard: 400}}
		p := &Process{Args: []string{"sh", "-c", execStatus + "; echo done; exec sleep 1000"}}
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		c := lifeStart(t, cfg, p)
		var first []string
		for line := readLine(t, out); line != "done"; line = readLine(t, out) {
			first = append(first, line)
		}
		wantText(t, execSh(t, c, Process{}, execStatus), strings.Join(first, "\n"))
	})
}

// What the process sets overrides the container's; what it does not is the container's.
func TestExecOverrides(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "root/": "",
	})
	c := execSleeper(t, cfg)
	p := Process{
		Env: []string{"A=1", "A=2"}, Cwd: "/new/dir", Umask: ptr(uint32(0o077)), OomScoreAdj: ptr(700),
		Capabilities: &Capabilities{Bounding: []string{"CAP_KILL"}}, NoNewPrivileges: ptr(false),
		Rlimits: []Rlimit{{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 60}},
	}
	got := execSh(t, c, p, `echo $A $HOME; pwd; umask; cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; grep -E 'CapB|NoNew' /proc/self/status; env | sort`)
	wantText(t, got, "2 /root\n/new/dir\n0077\n700\n50\n60\nCapBnd:\t0000000000000020\nNoNewPrivs:\t0\nA=2\nHOME=/root\nPATH="+defaultPath+"\nPWD=/new/dir\nSHLVL=1")
}

func TestExecUser(t *testing.T) {
	leak.Check(t)
	cfg := rangeConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{
		"etc/passwd": "web:x:33:34::/srv:/bin/sh\n", "etc/group": "logs:x:40:web\nwheel:x:41:\n",
	})
	c := execSleeper(t, cfg)
	// The running container's file counts, not that of the start.
	if out := execSh(t, c, Process{}, `echo new:x:50:51::/:/bin/sh >>/etc/passwd`); out != "" {
		t.Error(out)
	}
	for user, want := range map[string]string{
		"": "0 0 0 /", "web": "33 34 34 40 /srv", "33:wheel": "33 41 41 /srv", "new": "50 51 51 /", "7:8": "7 8 8 /",
	} {
		got := execSh(t, c, Process{User: user}, `echo $(id -u) $(id -g) $(grep Groups: /proc/self/status | cut -f2) $HOME`)
		if got != want {
			t.Errorf("user %q: %q, want %q", user, got, want)
		}
	}
	unmapped := fmt.Sprint(maxID)
	if os.Geteuid() == 0 { // all are
		unmapped = "0:"
	}
	for _, user := range []string{"nobody", "33:nogroup", "-1", "4294967295", unmapped, " 0"} {
		var field *FieldError
		_, err := execIn(t, c.Exec, &Process{Args: []string{"true"}, User: user})
		if !errors.As(err, &field) || field.Field != "User" {
			t.Errorf("user %q: %v", user, err)
		}
	}
}

func TestExecStatuses(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	c := lifeNew(t, cfg)
	run := func() error { return c.Exec(context.Background(), &Process{Args: []string{"true"}}) }
	if err := run(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("never run: %v", err)
	}
	if err := c.Run(context.Background(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	used := &Process{Args: []string{"sh", "-c", "exit 9"}}
	if err := c.Exec(context.Background(), used); err != nil {
		t.Fatal(err)
	}
	if used.Pid() <= 0 {
		t.Error("no process number")
	}
	lifeExpectExit(t, lifeWait(t, used.Wait), ExitError{Code: 9})
	if err := c.Exec(context.Background(), used); err == nil {
		t.Error("a Process was used twice")
	}
	var e *Error
	for name, want := range map[string]error{"nothing": ErrNotFound, "/etc": ErrNotExecutable, "/nothing": ErrNotFound} {
		err := c.Exec(context.Background(), &Process{Args: []string{name}})
		if !errors.Is(err, want) || !errors.As(err, &e) || e.ID != c.ID() {
			t.Errorf("%s: %v", name, err)
		}
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Exec(canceled, &Process{Args: []string{"true"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	// From another Container of the same record, as another process has it.
	loaded, err := Load(filepath.Dir(c.record.dir), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got := execSh(t, loaded, Process{}, "echo $$; cat /proc/1/comm"); !strings.HasSuffix(got, "\nsleep") {
		t.Errorf("loaded: %q", got)
	}
	if err := c.Stop(canceled); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if err := run(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stopped: %v", err)
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := run(); !errors.Is(err, ErrNotExist) {
		t.Errorf("destroyed: %v", err)
	}
}

// The end of the context is the end of the process, and of no other.
func TestExecContext(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.StopTimeout = -1
	c := execSleeper(t, cfg)
	var refused, killed int
	for i := range 40 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*100*time.Microsecond)
		p := &Process{Args: []string{"sleep", "1000"}}
		if err := c.Exec(ctx, p); err == nil {
			killed++
			lifeExpectExit(t, lifeWait(t, p.Wait), lifeKilled)
		} else if refused++; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %d: %v", i, err)
		}
		cancel()
	}
	t.Logf("%d were refused, %d killed", refused, killed)
	if status, err := c.Status(); status != StatusRunning {
		t.Errorf("the container: %s, %v", status, err)
	}
}

// A container that ends during Exec: a started process that is killed, or ErrNotRunning.
func TestExecWhileContainerEnds(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	var killed, refused int
	for i := range 60 {
		c := execSleeper(t, cfg)
		end := time.AfterFunc(time.Duration(i)*50*time.Microsecond, func() { c.Signal(unix.SIGKILL) })
		p := &Process{Args: []string{"sleep", "1000"}}
		err := c.Exec(context.Background(), p)
		switch {
		case err == nil:
			killed++
			lifeExpectExit(t, lifeWait(t, p.Wait), lifeKilled)
		case errors.Is(err, ErrNotRunning):
			refused++
		default:
			t.Errorf("after %d: %v", i, err)
		}
		end.Stop()
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d were killed, %d refused", killed, refused)
}

// Nothing of the host is open in the process, but what it was given.
func TestExecDescriptors(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	r, w := pipe(t)
	got := execSh(t, c, Process{ExtraFiles: []*os.File{w, nil, w}}, `echo $(ls /proc/self/fd); echo given >&5`)
	wantText(t, got, "0 1 2 3 4 5") // 4 is that of ls
	wantText(t, readLine(t, r), "given")
}

func TestExecStreams(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	var out, errs bytes.Buffer
	p := &Process{Args: []string{"sh", "-c", "cat; echo err >/dev/stderr; sleep 1000 &"}, Stdin: strings.NewReader("in"), Stdout: &out, Stderr: &errs, WaitDelay: 500 * time.Millisecond}
	if err := c.Exec(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	if err := lifeWait(t, p.Wait); err == nil || err.Error() != "exec: WaitDelay expired before I/O complete" {
		t.Errorf("Wait: %v", err)
	}
	wantText(t, out.String()+errs.String(), "inerr\n")
}

// The host's root, in the container's other namespaces, with the container's capabilities.
func TestExecNoUserNs(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	c := execSleeper(t, cfg)
	p := &Process{Args: []string{"sh", "-c", `for ns in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$ns; done; grep -E 'CapBnd|NoNewPrivs' /proc/self/status; echo $(cat /proc/self/uid_map)`}}
	out, err := execIn(t, c.ExecNoUserNs, p)
	if os.Geteuid() != 0 {
		if !errors.Is(err, ErrUnsupported) {
			t.Errorf("an ordinary user: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, k := range []NamespaceKind{CgroupNamespace, IPCNamespace, MountNamespace, NetworkNamespace, PIDNamespace, UserNamespace, UTSNamespace} {
		of := fmt.Sprint(c.Pid())
		if k == UserNamespace {
			of = "self"
		}
		want = append(want, nsLink(t, of, k))
	}
	caps, _ := (*Capabilities)(nil).sets()
	want = append(want, fmt.Sprintf("CapBnd:\t%016x\nNoNewPrivs:\t1\n0 0 4294967295", caps.bounding))
	wantText(t, out, strings.Join(want, "\n"))
}

// Before Start there is everything but the program; a detached container and one with a reaper are joined
// like any other.
func TestExecCreated(t *testing.T) {
	leak.Check(t)
	for name, change := range map[string]func(*Config){
		"plain":    func(*Config) {},
		"detached": func(cfg *Config) { cfg.Detached = true },
		"init":     func(cfg *Config) { cfg.Init = true },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			change(&cfg)
			c := lifeNew(t, cfg)
			if err := c.Create(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
				t.Fatal(err)
			}
			script := "hostname; readlink /proc/self/ns/mnt"
			list, err := c.Processes()
			if err != nil {
				t.Fatal(err)
			}
			want := "container\n" + nsLink(t, fmt.Sprint(list[len(list)-1]), MountNamespace)
			wantText(t, execSh(t, c, Process{}, script), want)
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantText(t, execSh(t, c, Process{}, script), want)
		})
	}
}

// Many at a time, from several Containers of one record; the container ends midway.
func TestExecChurn(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	c := execSleeper(t, cfg)
	const workers, rounds = 16, 15
	var started, refused, killed atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			c, err := Load(filepath.Dir(c.record.dir), c.ID())
			if err != nil {
				t.Error(err)
				return
			}
			for i := range rounds {
				p := &Process{Args: []string{"true"}}
				switch err := c.Exec(t.Context(), p); {
				case err == nil:
					started.Add(1)
				case errors.Is(err, ErrNotRunning):
					refused.Add(1)
					continue
				default:
					t.Error(err)
					continue
				}
				if err := p.Wait(); err != nil {
					killed.Add(1)
				}
				if w == 0 && i == rounds*2/3 {
					if err := c.Signal(unix.SIGKILL); err != nil {
						t.Error(err)
					}
					c.Wait() // so that the next one is too late
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d were started, of which %d were killed; %d were refused", started.Load(), killed.Load(), refused.Load())
	if started.Load() <= rounds*2/3 || refused.Load() == 0 {
		t.Error("the container did not end midway")
	}
}
