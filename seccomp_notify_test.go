//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file tests handlers of system calls, with programs of busybox, and with the test binary as a program that makes calls
// of its own and says what came of them.

func init() {
	if what := os.Getenv(seccompCallerVar); what != "" {
		time.AfterFunc(time.Minute, func() { os.Exit(3) })
		if err := seccompCaller(what); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// seccompCallerVar makes the test binary the program in the container.
const seccompCallerVar = "CONTAINER_TEST_SECCOMP_CALLER"

// numberCall is a call that takes numbers and does nothing else.
func numberCall(n int) (int, unix.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_GETPRIORITY, 77, uintptr(n), 0)
	return int(r), errno
}

func seccompCaller(what string) error {
	switch what {
	case "threads": // 1,000 calls from 8 threads, each with an answer of its own
		var group sync.WaitGroup
		var wrong atomic.Int64
		for thread := range 8 {
			group.Go(func() {
				runtime.LockOSThread()
				for i := range 125 {
					if n, errno := numberCall(1000*thread + i); n != 1000*thread+i+1 || errno != 0 {
						wrong.Add(1)
					}
				}
			})
		}
		group.Wait()
		fmt.Print(wrong.Load(), " wrong")
	case "many": // more than are decided at a time, and none returns
		for range maxSeccompCalls + 40 {
			go func() { runtime.LockOSThread(); numberCall(1) }()
		}
		time.Sleep(time.Hour)
	case "memory":
		buf := []byte("from the program\x00")
		n, _, errno := unix.RawSyscall(unix.SYS_GETRANDOM, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 5)
		fmt.Printf("%d %d %s", n, errno, buf)
	case "files":
		fd, err := unix.Open("/proxied", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		text, err := io.ReadAll(os.NewFile(uintptr(fd), "proxied"))
		fmt.Printf("%s %d %v\n", text, flags, err)
		w, err := os.Create("/tmp/written")
		if err != nil {
			return err
		}
		if _, errno := numberCall(int(w.Fd())); errno != 0 {
			return errno
		}
		text, _ = os.ReadFile("/tmp/written")
		fmt.Printf("%s\n", text)
		n, errno := numberCall(-1)
		text, err = io.ReadAll(os.NewFile(uintptr(n), "added"))
		fmt.Printf("%d %d %s %v", n, errno, text, err)
	case "interrupted":
		// A signal interrupts the call, which is then made again.
		_, errno := numberCall(1)
		fmt.Print(errno)
	case "nested":
		program := []unix.SockFilter{{Code: unix.BPF_RET, K: 0x7fff0000}}
		fprog := unix.SockFprog{Len: 1, Filter: &program[0]}
		_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&fprog)))
		fmt.Print(errno)
	case "orphan": // makes the call until nobody answers
		for {
			if _, errno := numberCall(1); errno != 0 {
				return os.WriteFile("/tmp/result", []byte(errno.Error()), 0o644)
			}
			os.WriteFile("/tmp/ready", nil, 0o644)
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// seccompProgram is a container with the test binary in it, and a process that runs it.
func seccompProgram(t *testing.T, what string) (Config, *Process) {
	t.Helper()
	cfg := testConfig(t)
	attackerIn(t, cfg.Root.Dir)
	return cfg, &Process{Args: []string{"/attacker"}, Env: []string{seccompCallerVar + "=" + what, "GODEBUG=asyncpreemptoff=1"}} // no signals of the runtime's own, which interrupt calls
}

// askAbout is a profile that asks about some calls and allows the rest.
func askAbout(names ...string) *SeccompProfile {
	return &SeccompProfile{DefaultAction: SeccompAllow, Syscalls: []SeccompRule{{Names: names, Action: SeccompNotify}}}
}

func goOn(context.Context, *SeccompCall) SeccompAnswer { return SeccompAnswer{Continue: true} }

// TestSeccompAnswers has a result without a call, an error, a value, and calls that the kernel carries out, in each kind of container
// that a handler may be for; by Run, by Create and Start of another handle, and by Exec.
func TestSeccompAnswers(t *testing.T) {
	for name, cfg := range createKinds(t) {
		if cfg.Detached {
			continue
		}
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg.Root = Directory(busyboxRoot(t))
			var calls, other atomic.Int64
			answer := func(ctx context.Context, call *SeccompCall) SeccompAnswer {
				calls.Add(1)
				path := ""
				var err error
				switch {
				case call.Name == "mknodat":
					path, err = call.ReadString(call.Args[1], 4095)
				case call.Name == "mknod":
					path, err = call.ReadString(call.Args[0], 4095)
				case call.Name == "getppid":
					return SeccompAnswer{Value: 4711}
				case call.Name == "sethostname":
					return SeccompAnswer{Errno: uint(unix.EXFULL)}
				case call.Name == "chmod" || call.Name == "fchmodat" || call.Name == "fchmodat2":
					return SeccompAnswer{Continue: true}
				default:
					err = fmt.Errorf("call of %q", call.Name)
				}
				if err != nil || path != "/tmp/x" {
					t.Errorf("%+v: %q, %v", call, path, err)
				}
				return SeccompAnswer{}
			}
			cfg.Seccomp = askAbout("mknodat", "mknod", "sethostname", "getppid", "chmod", "fchmodat", "fchmodat2")
			cfg.SeccompNotify = answer
			const script = `mknod /tmp/x b 8 0; echo $? $(ls /tmp); hostname x 2>/dev/null; echo $?; echo $PPID; touch /root/f; chmod 700 /root/f; stat -c %a /root/f`
			const want = "0\n1\n4711\n700"
			wantText(t, sh(t, cfg, script), want)
			if n := calls.Load(); n < 4 {
				t.Errorf("%d calls", n)
			}

			c := lifeNew(t, cfg)
			var out bytes.Buffer
			p := lifeSh(script + "; read x")
			in, err := p.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			p.Stdout = &out
			if err := c.Create(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			if err := createLoaded(t, c).Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			for _, handler := range []SeccompHandler{nil, func(ctx context.Context, call *SeccompCall) SeccompAnswer {
				other.Add(1)
				return answer(ctx, call)
			}} {
				var execOut bytes.Buffer
				e := lifeSh(script)
				e.Stdout, e.SeccompNotify = &execOut, handler
				if err := errors.Join(c.Exec(context.Background(), e), e.Wait()); err != nil {
					t.Error(err)
				}
				wantText(t, strings.TrimSpace(execOut.String()), want)
			}
			if n := other.Load(); n < 4 {
				t.Errorf("the process's own handler had %d calls", n)
			}
			e := lifeSh("true")
			var field *FieldError
			if err := createLoaded(t, c).Exec(context.Background(), e); !errors.As(err, &field) || field.Field != "SeccompNotify" {
				t.Errorf("Exec without a handler: %v", err)
			}
			in.Close()
			c.Wait()
			wantText(t, strings.TrimSpace(out.String()), want)
		})
	}
}

func TestSeccompThreads(t *testing.T) {
	leak.Check(t)
	cfg, p := seccompProgram(t, "threads")
	cfg.Seccomp = askAbout("getpriority")
	var calls atomic.Int64
	pids := sync.Map{}
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		calls.Add(1)
		pids.Store(call.Pid, true)
		if call.Valid() != nil || ctx.Err() != nil || call.Args[0] != 77 {
			return SeccompAnswer{Errno: 1}
		}
		return SeccompAnswer{Value: int64(call.Args[1]) + 1}
	}
	out, err := runIn(t, cfg, p)
	threads := 0
	pids.Range(func(any, any) bool { threads++; return true })
	if err != nil || out != "0 wrong" || calls.Load() != 1000 || threads != 8 {
		t.Errorf("%q, %v: %d calls from %d threads", out, err, calls.Load(), threads)
	}
}

// TestSeccompHandlersThatHang kills a container whose calls are never answered, some of them not even asked about.
func TestSeccompHandlersThatHang(t *testing.T) {
	leak.Check(t)
	cfg, p := seccompProgram(t, "many")
	cfg.Seccomp = askAbout("getpriority")
	var calls, at, wrong atomic.Int64
	var most int64
	var mu sync.Mutex
	full := make(chan bool, 1000)
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		calls.Add(1)
		now := at.Add(1)
		defer at.Add(-1)
		mu.Lock()
		most = max(most, now)
		mu.Unlock()
		if now == maxSeccompCalls {
			full <- true
		}
		<-ctx.Done()
		_, err := call.ReadString(call.Args[0], 10)
		if !errors.Is(err, ErrCallEnded) || !errors.Is(call.Valid(), ErrCallEnded) {
			wrong.Add(1)
		}
		return SeccompAnswer{Value: 1}
	}
	c := lifeStart(t, cfg, p)
	<-full
	time.Sleep(50 * time.Millisecond)
	mu.Lock()
	if most != maxSeccompCalls {
		t.Errorf("%d calls at a time", most)
	}
	mu.Unlock()
	if err := lifeWait(t, c.Destroy); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); at.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d handlers do not end", at.Load(), calls.Load())
		}
	}
	if wrong.Load() > 0 {
		t.Errorf("%d calls seemed to go on", wrong.Load())
	}
}

func TestSeccompMemory(t *testing.T) {
	leak.Check(t)
	cfg, p := seccompProgram(t, "memory")
	cfg.Seccomp = askAbout("getrandom")
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		if call.Args[2] != 5 {
			return SeccompAnswer{Continue: true} // the runtime's own
		}
		addr := call.Args[0]
		text, err := call.ReadString(addr, 16)
		if text != "from the program" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		if _, err := call.ReadString(addr, 15); !errors.Is(err, unix.ENAMETOOLONG) {
			t.Errorf("a text that is too long: %v", err)
		}
		buf := make([]byte, 4)
		if n, err := call.ReadAt(buf, int64(addr)+5); n != 4 || err != nil || string(buf) != "the " {
			t.Errorf("%q, %d, %v", buf, n, err)
		}
		for _, bad := range []int64{0, -4096, 1 << 62} {
			if _, err := call.ReadAt(buf, bad); !errors.Is(err, unix.EFAULT) {
				t.Errorf("read at %#x: %v", bad, err)
			}
		}
		if _, err := call.WriteAt(buf, 0); !errors.Is(err, unix.EFAULT) {
			t.Errorf("write at 0: %v", err)
		}
		n, err := call.WriteAt([]byte("from the handler"), int64(addr))
		if err != nil {
			t.Error(err)
		}
		return SeccompAnswer{Value: int64(n)}
	}
	out, err := runIn(t, cfg, p)
	if err != nil || out != "16 0 from the handler\x00" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestSeccompFiles(t *testing.T) {
	leak.Check(t)
	cfg, p := seccompProgram(t, "files")
	cfg.Seccomp = askAbout("openat", "getpriority")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("the caller's"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
		}
		return f
	}
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		switch {
		case call.Name == "openat":
			path, err := call.ReadString(call.Args[1], 4095)
			if err != nil {
				t.Error(err)
			}
			if path != "/proxied" {
				return SeccompAnswer{Continue: true}
			}
			return SeccompAnswer{File: open(), CloseOnExec: true}
		case int32(call.Args[1]) >= 0:
			f, err := call.File(int(call.Args[1]))
			if err != nil {
				t.Error(err)
				return SeccompAnswer{Errno: 1}
			}
			defer f.Close()
			if _, err := f.WriteString("written by the handler"); err != nil {
				t.Error(err)
			}
			if _, err := call.File(4000); !errors.Is(err, unix.EBADF) {
				t.Errorf("a descriptor that is not there: %v", err)
			}
			return SeccompAnswer{}
		}
		f := open()
		defer f.Close()
		n, err := call.AddFile(f, 77, false)
		if err != nil || n != 77 {
			t.Error(n, err)
		}
		return SeccompAnswer{Value: int64(n)}
	}
	out, err := runIn(t, cfg, p)
	if want := "the caller's 1 <nil>\nwritten by the handler\n77 0 the caller's <nil>"; err != nil || out != want {
		t.Errorf("%q, %v", out, err)
	}
}

// TestSeccompAsksAboutItself asks about the calls that the launcher would need behind the filter, and about all calls.
func TestSeccompAsksAboutItself(t *testing.T) {
	leak.Check(t)
	for _, profile := range []*SeccompProfile{askAbout("execve"), askAbout("write", "sendmsg", "exit", "exit_group", "execve"), {DefaultAction: SeccompNotify}} {
		cfg := testConfig(t)
		cfg.Seccomp = profile
		var mu sync.Mutex
		var names []string
		cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, call.Name)
			if call.Name == "execve" && os.Geteuid() == 0 {
				if path, err := call.ReadString(call.Args[0], 4095); err != nil || path != "/bin/sh" {
					t.Errorf("execve of %q, %v", path, err)
				}
			}
			return SeccompAnswer{Continue: true}
		}
		wantText(t, sh(t, cfg, "echo out"), "out")
		mu.Lock()
		if len(names) == 0 || names[0] != "execve" {
			t.Errorf("the calls were %q", names)
		}
		mu.Unlock()
	}
}

// TestSeccompExecveDenied forbids the very last call, and asks about those that report it.
// Who waits for an answer must not have the listener: then nobody's end would end the waiting.
func TestSeccompListenerIsNotKept(t *testing.T) {
	testenv.Need(t, testenv.Root) // to look into the launcher
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	cfg.Seccomp = askAbout("execve")
	var open []string
	cfg.SeccompNotify = func(_ context.Context, call *SeccompCall) SeccompAnswer {
		// The other thread closes it, a moment after it has sent it.
		for range 3000 {
			open = nil
			links, _ := filepath.Glob("/proc/" + itoa(call.Pid) + "/fd/*")
			for _, link := range links {
				if to, _ := os.Readlink(link); strings.Contains(to, "seccomp") {
					open = append(open, to)
				}
			}
			if len(open) == 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return SeccompAnswer{Continue: true}
	}
	if err := lifeStart(t, cfg, lifeSh("exit 0")).Wait(); err != nil || len(open) > 0 {
		t.Errorf("%v; the launcher keeps %q", err, open)
	}
}

func TestSeccompExecveDenied(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.Seccomp = askAbout("execve", "write")
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		return SeccompAnswer{Errno: uint(unix.EXFULL), Continue: call.Name == "write"}
	}
	_, err := runIn(t, cfg, lifeSh("true"))
	wantError(t, err, "execute", unix.EXFULL)

	cfg.Seccomp = askAbout("execve", "write", "exit_group")
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer { return SeccompAnswer{Errno: 1} }
	if _, err := runIn(t, cfg, lifeSh("true")); err == nil {
		t.Error("it has started")
	}
}

func TestSeccompNested(t *testing.T) {
	leak.Check(t)
	cfg, p := seccompProgram(t, "nested")
	cfg.Seccomp, cfg.SeccompNotify = askAbout("getpriority"), goOn
	if out, err := runIn(t, cfg, p); out != unix.EBUSY.Error() || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// TestSeccompInterrupted answers late: the program is interrupted now and then, and each call is answered in the end.
func TestSeccompInterrupted(t *testing.T) {
	leak.Check(t)
	cfg, p := seccompProgram(t, "interrupted")
	cfg.Seccomp = askAbout("getpriority")
	var calls, canceled atomic.Int64
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		if calls.Add(1) == 1 {
			unix.Tgkill(tgid(t, call.Pid), call.Pid, unix.SIGURG) // which Go's runtime ignores, but handles
			select {
			case <-ctx.Done():
				canceled.Add(1)
			case <-time.After(30 * time.Second):
			}
		}
		return SeccompAnswer{Errno: uint(unix.EXFULL)}
	}
	out, err := runIn(t, cfg, p)
	if err != nil || out != unix.EXFULL.Error() || calls.Load() != 2 {
		t.Errorf("%q, %v: %d calls", out, err, calls.Load())
	}
	waitFor(t, func() bool { return canceled.Load() == 1 }) // the handler is told a moment later
}

func tgid(t *testing.T, tid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		t.Error(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nTgid:")
	pid, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		t.Error(err)
	}
	return pid
}

// TestSeccompHooks has programs of StartContainer, which are under the filter too, each with a listener.
func TestSeccompHooks(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.Seccomp = askAbout("getppid", "execve")
	var calls atomic.Int64
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		if call.Name == "getppid" {
			return SeccompAnswer{Value: 100 + calls.Add(1)}
		}
		return SeccompAnswer{Continue: true}
	}
	hook := Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo hook $PPID >>/tmp/out"}}
	cfg.Hooks = &Hooks{StartContainer: []Hook{hook, hook}}
	const want = "hook 101\nhook 102\nprogram 103"
	wantText(t, sh(t, cfg, "cat /tmp/out; echo program $PPID"), want)

	calls.Store(0)
	os.Remove(cfg.Root.Dir + "/tmp/out")
	var out bytes.Buffer
	p := lifeSh("cat /tmp/out; echo program $PPID")
	p.Stdout = &out
	c := lifeNew(t, cfg)
	if err := errors.Join(c.Create(context.Background(), p), createLoaded(t, c).Start(context.Background()), c.Wait()); err != nil {
		t.Fatal(err)
	}
	wantText(t, strings.TrimSpace(out.String()), want)
}

// What comes in place of a listener, at the gate, where others may have the launcher's socket.
func TestSeccompForgedListener(t *testing.T) {
	leak.Check(t)
	for _, name := range []string{os.DevNull, "/proc/self/mem", t.TempDir()} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := serveSeccomp(f, goOn, slog.New(slog.DiscardHandler)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fd, err := unix.MemfdCreate("anon_inode:seccomp notify", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := serveSeccomp(os.NewFile(uintptr(fd), ""), goOn, slog.New(slog.DiscardHandler)); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}

// TestSeccompFaults makes each call of the filter's installation fail, with a handler and with an agent.
func TestSeccompFaults(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.Seccomp, cfg.SeccompNotify = askAbout("getppid", "execve"), goOn
	steps := []string{"seccomp agent", "close", "seccomp", "execute"}
	t.Run("handler", func(t *testing.T) { injectFaults(t, cfg, false, steps...) })
	t.Run("agent", func(t *testing.T) {
		agent := newSeccompAgent(t, goOn)
		cfg.SeccompNotify, cfg.Seccomp.ListenerPath = nil, agent.path
		injectFaults(t, cfg, false, steps...)
	})
}

func BenchmarkSeccompNotify(b *testing.B) {
	cfg := testConfig(b)
	cfg.Seccomp = askAbout("getppid")
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer { return SeccompAnswer{Value: 1} }
	for _, notify := range []bool{false, true} {
		b.Run(fmt.Sprint("start, notify ", notify), func(b *testing.B) {
			if !notify {
				cfg.Seccomp = nil
			}
			for b.Loop() {
				if out, err := runIn(b, cfg, &Process{Args: []string{"true"}}); err != nil {
					b.Fatal(out, err)
				}
			}
		})
	}
}
