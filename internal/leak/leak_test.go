//go:build linux

package leak

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// expect makes something, demands that it is found, removes it again, and demands that nothing is
// found then.
func expect(t *testing.T, want string, dirs []string, leak func() (remove func())) {
	t.Helper()
	before := take(dirs)
	remove := leak()
	found := before.wait(dirs, 10*time.Millisecond)
	remove()
	if !slices.ContainsFunc(found, func(item string) bool { return strings.Contains(item, want) }) {
		t.Errorf("no %q among what was found: %q", want, found)
	}
	if left := before.wait(dirs, grace); len(left) > 0 {
		t.Errorf("found after the removal: %q", left)
	}
}

func TestNothing(t *testing.T) {
	dirs := []string{t.TempDir()}
	if found := take(dirs).wait(dirs, grace); len(found) > 0 {
		t.Error(found)
	}
}

func TestDescriptor(t *testing.T) {
	expect(t, "-> /dev/zero", nil, func() func() {
		f, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		return func() { f.Close() }
	})
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a", "b")
	expect(t, "file "+file, []string{dir}, func() func() {
		if err := os.MkdirAll(file, 0o700); err != nil {
			t.Fatal(err)
		}
		return func() { os.RemoveAll(filepath.Dir(file)) }
	})
}

func TestProcess(t *testing.T) {
	expect(t, "(sleep)", nil, func() func() {
		cmd := exec.Command("sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sleeps(t, strconv.Itoa(cmd.Process.Pid))
		return func() { cmd.Process.Kill(); cmd.Wait() }
	})
}

// sleeps waits until a process has executed sleep, whose name it then has, and sleeps. It returns what /proc says of it.
func sleeps(t *testing.T, pid string) (stat string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		text, _ := os.ReadFile("/proc/" + pid + "/stat")
		if stat = string(text); strings.Contains(stat, " (sleep) S ") {
			return stat
		}
	}
	t.Fatalf("it does not sleep: %s", stat)
	return ""
}

// TestOrphan starts a shell that ends and leaves a process behind, which the system's init adopts,
// or a nearer reaper: then there is nothing to see from here.
func TestOrphan(t *testing.T) {
	before := take(nil)
	out, err := exec.Command("sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(string(out))
	stat := sleeps(t, pid)
	found := before.wait(nil, 10*time.Millisecond)
	if err := exec.Command("kill", pid).Run(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stat, ") S 1 ") {
		t.Skipf("the orphan was not adopted by process 1: %s", stat)
	}
	if !slices.Contains(found, "process "+pid+" (sleep)") {
		t.Errorf("the orphan %s is not among %q", pid, found)
	}
	if left := before.wait(nil, grace); len(left) > 0 {
		t.Errorf("found after its end: %q", left)
	}
}

func TestZombie(t *testing.T) {
	expect(t, "process ", nil, func() func() {
		cmd := exec.Command("true")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return func() { cmd.Wait() }
	})
}

func TestGoroutine(t *testing.T) {
	expect(t, "leak.TestGoroutine", nil, func() func() {
		stop := make(chan struct{})
		go func() { <-stop }()
		return func() { close(stop) }
	})
}

func TestUmask(t *testing.T) {
	expect(t, "Umask:\t0123", nil, func() func() {
		old := syscall.Umask(0o123)
		return func() { syscall.Umask(old) }
	})
}

// What else a library could change of its caller.
func TestCallerState(t *testing.T) {
	thread := func(f func() error) func() func() {
		return func() func() {
			ready, stop, done := make(chan error), make(chan struct{}), make(chan struct{})
			go onThread(func() {
				defer close(done)
				ready <- f()
				<-stop
			})
			if err := <-ready; err != nil {
				t.Fatal(err)
			}
			return func() { close(stop); <-done }
		}
	}
	set := func(f func(value uintptr) error, to, back uintptr) func() func() {
		return func() func() {
			if err := f(to); err != nil {
				t.Fatal(err)
			}
			return func() { f(back) }
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func() func(){
		"thread has personality 00040000": thread(func() error {
			_, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, 0x40000, 0, 0) // ADDR_NO_RANDOMIZE
			return errOf(e)
		}),
		"thread has NoNewPrivs:\t1": thread(func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }),
		"thread has SigBlk:\t0000000000000200": thread(func() error {
			var new, old unix.Sigset_t
			new.Val[0] = 1 << (unix.SIGUSR1 - 1)
			return unix.PthreadSigmask(unix.SIG_BLOCK, &new, &old)
		}),
		"process has Max core file size": set(func(v uintptr) error {
			l := unix.Rlimit{Cur: uint64(v), Max: limit.Max}
			if v == 0 {
				l = limit
			}
			return unix.Setrlimit(unix.RLIMIT_CORE, &l)
		}, 4096, 0),
		"process has oom_score_adj": set(func(v uintptr) error {
			return os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(int(v))), 0)
		}, 17, 0),
		"process has dumpable 0": set(func(v uintptr) error { return unix.Prctl(unix.PR_SET_DUMPABLE, v, 0, 0, 0) }, 0, 1),
	} {
		if strings.HasPrefix(want, "process has oom") && os.Geteuid() != 0 || strings.Contains(want, "NoNewPrivs") && slices.Contains(Caller(), "NoNewPrivs:\t1") {
			continue // it could not be undone; it is so already
		}
		t.Run(want, func(t *testing.T) {
			if !strings.Contains(want, "dumpable") && !strings.Contains(want, "SigBlk") {
				expect(t, want, nil, change)
			}
			before := Caller()
			undo := change()
			if slices.Equal(before, Caller()) {
				t.Error("Caller does not see it")
			}
			undo()
		})
	}
}

func errOf(e syscall.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

func TestEnvironment(t *testing.T) {
	expect(t, "environment LEAKED=1", nil, func() func() {
		os.Setenv("LEAKED", "1")
		return func() { os.Unsetenv("LEAKED") }
	})
}

func TestMount(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := t.TempDir()
	expect(t, "mount "+dir, nil, func() func() {
		if err := syscall.Mount("leak", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		return func() { syscall.Unmount(dir, syscall.MNT_DETACH) }
	})
}

func TestCgroup(t *testing.T) {
	testenv.Need(t, testenv.Cgroup)
	own, _ := testenv.CgroupDir()
	expect(t, "/leak-", nil, func() func() {
		dir, err := os.MkdirTemp(own, "leak-")
		if err != nil {
			t.Fatal(err)
		}
		return func() { os.Remove(dir) }
	})
}

// onThread runs f on a thread that ends with it. That cannot be the main thread: Go keeps it, in
// whatever state, and /proc/self shows it for ever.
func onThread(f func()) {
	runtime.LockOSThread() // never unlocked, but for the main thread
	if syscall.Gettid() != syscall.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

// TestThread leaves a thread of this process in a network namespace of its own, and looks from
// there for an interface.
func TestThread(t *testing.T) {
	testenv.Need(t, testenv.Root)
	expect(t, "thread has net net:[", nil, func() func() {
		ready, stop := make(chan error), make(chan struct{})
		go onThread(func() {
			ready <- syscall.Unshare(syscall.CLONE_NEWNET)
			<-stop
		})
		if err := <-ready; err != nil {
			t.Fatal(err)
		}
		return func() { close(stop) }
	})
}

// TestInterface makes its interface in a network namespace of its own, not to touch the host's.
func TestInterface(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Program("ip", "iproute2"), testenv.Nft)
	done := make(chan struct{})
	go onThread(func() {
		defer close(done)
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		shell := func(script string) {
			// A child starts in the network namespace of the thread that makes it.
			if out, err := exec.Command("sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; "+script).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", script, err, out)
			}
		}
		beforeTables := nftTables(nil)
		shell("ip link add leak0 type bridge; nft add table inet leak")
		if _, err := net.InterfaceByName("leak0"); err != nil {
			t.Error(err)
		}
		if items := interfaces(nil); !slices.Contains(items, "leak0") {
			t.Errorf("interfaces: %q", items)
		}
		if items := nftTables(nil); len(beforeTables) != 0 || !slices.Contains(items, "table inet leak") {
			t.Errorf("tables: %q, before %q", items, beforeTables)
		}
	})
	<-done
}

// recorder is a testing.TB that keeps clean-ups and errors to itself.
type recorder struct {
	testing.TB
	cleanup func()
	errors  string
}

func (r *recorder) Helper()                      {}
func (r *recorder) Cleanup(f func())             { r.cleanup = f }
func (r *recorder) Errorf(f string, args ...any) { r.errors += fmt.Sprintf(f, args...) }

func TestCheck(t *testing.T) {
	r := &recorder{TB: t}
	Check(r)
	r.cleanup()
	if r.errors != "" {
		t.Error(r.errors)
	}

	// The file is garbage at once: a collection would close it, and the leak would not show.
	check(r, nil, 10*time.Millisecond)
	if _, err := os.Open("/dev/full"); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		_ = make([]byte, 1<<16)
	}
	r.cleanup()
	runtime.GC()
	if !strings.Contains(r.errors, "descriptor") || !strings.Contains(r.errors, "/dev/full") {
		t.Errorf("the failure says %q", r.errors)
	}
}

// Things that come and go, of which there is always one, are a leak in the end, and each of them is none.
func TestWaitForEver(t *testing.T) {
	dir := t.TempDir()
	start, stop, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	next := func(i int) string { return filepath.Join(dir, strconv.Itoa(i)) }
	go func() {
		defer close(done)
		<-start
		for i := 1; ; i++ {
			select {
			case <-stop:
				os.Remove(next(i - 1))
				return
			case <-time.After(time.Millisecond):
				os.Mkdir(next(i), 0o700)
				os.Remove(next(i - 1))
			}
		}
	}()
	before := take([]string{dir})
	if err := os.Mkdir(next(0), 0o700); err != nil {
		t.Fatal(err)
	}
	close(start)
	here := func(item string) bool { return strings.HasPrefix(item, "file "+dir) }
	var found []string
	for range 20 { // what other processes make may stay that long
		if found = before.wait([]string{dir}, 500*time.Millisecond); slices.ContainsFunc(found, here) {
			break
		}
		for _, item := range found {
			before[item] = true
		}
	}
	if !slices.ContainsFunc(found, here) {
		t.Errorf("found %q", found)
	}
	close(stop)
	<-done
	if left := before.wait([]string{dir}, grace); slices.ContainsFunc(left, here) {
		t.Errorf("found after the end: %q", left)
	}
}

func TestCheckWaitsForTheDying(t *testing.T) {
	r := &recorder{TB: t}
	Check(r)
	f, err := os.Open("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { f.Close() })
	r.cleanup()
	if r.errors != "" {
		t.Error(r.errors)
	}
}

// runner stands for a package's tests.
type runner func() int

func (r runner) Run() int { return r() }

func TestMainRun(t *testing.T) {
	tmp := os.Getenv("TMPDIR")
	for _, test := range []struct {
		name     string
		tests    runner
		code     int
		complain bool
	}{
		{"clean", func() int { return 0 }, 0, false},
		{"failed", func() int { return 2 }, 2, false},
		{"leaky", func() int { os.MkdirTemp("", "forgotten"); return 0 }, 1, true},
		{"cleaned up", func() int { d, _ := os.MkdirTemp("", "x"); os.Remove(d); return 0 }, 0, false},
	} {
		var stderr bytes.Buffer
		code := run(test.tests, &stderr, 2*time.Second) // others make and remove things meanwhile
		if code != test.code || strings.Contains(stderr.String(), "forgotten") != test.complain {
			t.Errorf("%s: exit code %d, says %q", test.name, code, &stderr)
		}
	}
	if os.Getenv("TMPDIR") != tmp {
		t.Error("TMPDIR is another one now")
	}
}
