//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

func TestEnvironment(t *testing.T) {
	leak.Check(t)
	t.Setenv("LIFE_OUTER", "outer")
	cfg, _ := lifeConfig(t)
	outer := func(extra ...string) []string {
		var env []string
		for _, e := range os.Environ() {
			key, _, _ := strings.Cut(e, "=")
			if !slices.ContainsFunc(extra, func(x string) bool { return strings.HasPrefix(x, key+"=") }) {
				env = append(env, e)
			}
		}
		return append(env, extra...)
	}
	for _, row := range []struct {
		name    string
		env     []string
		inherit bool
		want    []string
	}{
		{"none", nil, false, []string{"PATH=" + defaultPath, "HOME=/root"}},
		{"last wins", []string{"A=1", "B=2", "A=3"}, false, []string{"B=2", "A=3", "PATH=" + defaultPath, "HOME=/root"}},
		{"own", []string{"HOME=/tmp", "PATH=/bin"}, false, []string{"HOME=/tmp", "PATH=/bin"}},
		{"empty value", []string{"A=", "PATH=/bin", "HOME="}, false, []string{"A=", "PATH=/bin", "HOME="}},
		{"equals signs and spaces", []string{"A=b=c d\n"}, false, []string{"A=b=c d\n", "PATH=" + defaultPath, "HOME=/root"}},
		{"inherited", []string{"LIFE_OUTER=inner", "PATH=/bin", "HOME=/"}, true, outer("LIFE_OUTER=inner", "PATH=/bin", "HOME=/")},
	} {
		t.Run(row.name, func(t *testing.T) {
			// No shell, which would set variables of its own.
			var out bytes.Buffer
			p := &Process{Args: []string{"/bin/cat", "/proc/self/environ"}, Env: row.env, InheritEnv: row.inherit, Stdout: &out}
			if err := lifeStart(t, cfg, p).Wait(); err != nil {
				t.Fatal(err)
			}
			got := strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00")
			if !slices.Equal(got, row.want) {
				t.Errorf("environment %q, want %q", got, row.want)
			}
		})
	}
}

func TestExitStatus(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for _, row := range []struct {
		script string
		want   ExitError
		text   string
	}{
		{"exit 3", ExitError{Code: 3}, "exit status 3"},
		{"exit 255", ExitError{Code: 255}, "exit status 255"},
		{"kill -TERM $$", ExitError{Code: 143, Signal: unix.SIGTERM}, "signal: terminated"},
		{"kill -KILL $$", ExitError{Code: 137, Signal: unix.SIGKILL}, "signal: killed"},
		{"ulimit -c 0; kill -SEGV $$", ExitError{Code: 139, Signal: unix.SIGSEGV}, "signal: segmentation fault"},
		{"kill -34 $$", ExitError{Code: 162, Signal: 34}, "signal: signal 34"},
	} {
		err := lifeStart(t, withoutPIDs(cfg), lifeSh(row.script)).Wait()
		var got *ExitError
		if !errors.As(err, &got) || *got != row.want || err.Error() != row.text {
			t.Errorf("%s: %v (%#v), want %v", row.script, err, got, row.want)
			continue
		}
		if got.ExitCode() != row.want.Code {
			t.Errorf("ExitCode is %d", got.ExitCode())
		}
	}
}

func TestCoreDump(t *testing.T) {
	leak.Check(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Max < 1<<20 {
		t.Skipf("needs a hard limit on cores that is not 0: ulimit -H -c is %d", limit.Max)
	}
	if pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); !strings.HasPrefix(string(pattern), "core") {
		t.Skipf("needs cores in files of the working directory: sysctl kernel.core_pattern=core; it is %s", pattern)
	}
	cfg, root := lifeConfig(t)
	cfg.Rlimits = []Rlimit{{Type: "core", Soft: limit.Max, Hard: limit.Max}}
	p := lifeSh("kill -SEGV $$")
	p.Cwd = "/tmp"
	var exit *ExitError
	if err := lifeStart(t, withoutPIDs(cfg), p).Wait(); !errors.As(err, &exit) || !exit.CoreDumped || exit.Code != 139 {
		t.Errorf("Wait returned %v, want a core", err)
	}
	if cores, _ := filepath.Glob(root + "/tmp/core*"); len(cores) == 0 {
		t.Error("there is no core")
	}
}

func TestManyWaiters(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	p := lifeSh("read line; exit 9")
	in, _ := p.StdinPipe()
	c := lifeStart(t, cfg, p)
	answers := make([]error, 20)
	var wg sync.WaitGroup
	for i := range answers {
		wait := p.Wait
		if i%2 == 0 {
			wait = c.Wait
		}
		wg.Go(func() { answers[i] = wait() })
	}
	in.Close()
	lifeWait(t, func() error { wg.Wait(); return nil })
	var exit *ExitError
	for _, err := range append(answers, p.Wait()) {
		if !errors.As(err, &exit) || exit.Code != 9 || err != answers[0] {
			t.Errorf("a waiter got %v, another %v", err, answers[0])
		}
	}
}

func TestProcessHandle(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	p := lifeSh(`trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done`)
	if p.Pid() != 0 || p.UserTime() != 0 || p.SystemTime() != 0 {
		t.Error("a process that has not been started has a number, or time")
	}
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Signal before Run: %v", err)
	}
	if err := p.Wait(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Wait before Run: %v", err)
	}
	out, _ := p.StdoutPipe()
	c := lifeStart(t, cfg, p)
	lifeReady(t, out)
	if p.Pid() == 0 || p.Pid() != c.Pid() {
		t.Errorf("numbers %d and %d", p.Pid(), c.Pid())
	}
	if comm, _ := os.ReadFile("/proc/" + itoa(p.Pid()) + "/comm"); string(comm) != "sh\n" {
		t.Errorf("process %d is %q", p.Pid(), comm)
	}
	if err := p.Signal(unix.SIGUSR1); err != nil {
		t.Error(err)
	}
	var exit *ExitError
	if err := lifeWait(t, p.Wait); !errors.As(err, &exit) || exit.Code != 5 {
		t.Errorf("Wait returned %v", err)
	}
	for name, err := range map[string]error{
		"Process.Signal": p.Signal(unix.SIGKILL), "Container.Signal": c.Signal(unix.SIGKILL),
	} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
	if c.Pid() != 0 {
		t.Errorf("Pid after the end is %d", c.Pid())
	}
	if err := lifeNew(t, cfg).Run(context.Background(), p); err == nil {
		t.Error("a Process can be used twice")
	}
}

func TestProcessTimes(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	p := lifeSh(`i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done`) // for more than a few ticks, of which each counts for the program or for the kernel
	if err := lifeStart(t, cfg, p).Wait(); err != nil {
		t.Fatal(err)
	}
	if p.UserTime() <= 0 || p.UserTime()+p.SystemTime() > time.Minute {
		t.Errorf("user time %v, system time %v", p.UserTime(), p.SystemTime())
	}
}

func TestSignalFirstProcess(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	p := lifeSh(`sleep 1000 & sleep 1000 & echo ready; wait`)
	out, _ := p.StdoutPipe()
	c := lifeStart(t, cfg, p)
	lifeReady(t, out)
	ns, err := os.Readlink("/proc/" + itoa(c.Pid()) + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	members := func() (n int) {
		links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
		for _, link := range links {
			if target, _ := os.Readlink(link); target == ns {
				n++
			}
		}
		return n
	}
	if n := members(); n != 3 {
		t.Fatalf("%d processes in the namespace, want 3", n)
	}
	// Default actions do not reach the first process of a namespace.
	if err := c.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
	time.Sleep(20 * time.Millisecond)
	if status, _ := c.Status(); status != StatusRunning {
		t.Errorf("it is %s after a SIGTERM that it does not handle", status)
	}
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	var exit *ExitError
	if err := lifeWait(t, c.Wait); !errors.As(err, &exit) || *exit != (ExitError{Code: 137, Signal: unix.SIGKILL}) {
		t.Errorf("Wait returned %v", err)
	}
	if n := members(); n != 0 {
		t.Errorf("%d processes are left in the namespace", n)
	}
	if err := c.Signal(syscall.Signal(0)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Signal after the end: %v", err)
	}
}

// lifeReady reads the line "ready".
func lifeReady(t testing.TB, r interface{ Read([]byte) (int, error) }) {
	t.Helper()
	var buf [64]byte
	n, err := r.Read(buf[:])
	if string(buf[:n]) != "ready\n" {
		t.Fatalf("the process says %q, %v", buf[:n], err)
	}
}
