//go:build linux && (amd64 || arm64)

package launch

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// run starts p and returns its messages, its failure if it reported one, and its end.
func run(t *testing.T, p *Program, attr *Attr) ([]Message, *os.ProcessState, error) {
	t.Helper()
	c, err := p.Start(attr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	var msgs []Message
	var failure error
	for {
		m, err := c.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			failure = err
			break
		}
		msgs = append(msgs, m)
	}
	state, err := c.Process().Wait()
	if err != nil {
		t.Fatal(err)
	}
	return msgs, state, failure
}

func wantExit(t *testing.T, p *Program, code int) {
	t.Helper()
	if _, s, err := run(t, p, &Attr{}); err != nil || s.ExitCode() != code {
		t.Fatalf("exit code %d, error %v; want %d\n%s", s.ExitCode(), err, code, p)
	}
}

func TestExit(t *testing.T) {
	p := New(0)
	p.Exit(42)
	wantExit(t, p, 42)
}

func TestWriteReachesStdout(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := New(0)
	p.Call(unix.SYS_WRITE, 1, p.Str("hello"), 5)
	p.Exit(0)
	_, _, failure := run(t, p, &Attr{Stdio: [3]*os.File{nil, w, nil}})
	w.Close()
	got, _ := io.ReadAll(r)
	if failure != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, failure)
	}
}

// All six arguments, immediate and as results.
func TestResultsFlowIntoEveryArgument(t *testing.T) {
	for i := range 6 {
		p := New(0)
		// A call with no effect: fcntl-like sub takes two; use pipes of results for the rest.
		seven := p.Sub(10, 3).Result()
		args := [6]Arg{}
		args[i] = seven
		switch i {
		case 0:
			p.Sub(seven, 0).Case(7, p.exitLabel(11))
		case 1:
			p.Sub(10, seven).Case(3, p.exitLabel(11))
		case 2: // write(fd, buf, 7) to a pipe's end of the test: count comes back
			null := p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str("/dev/null"), unix.O_WRONLY|unix.O_CLOEXEC).Result()
			p.Call(unix.SYS_WRITE, null, p.Str("0123456789"), seven).Case(7, p.exitLabel(11))
		case 3: // pwrite64's offset is the fourth argument: a file grows to 7+1
			fd := p.Call(unix.SYS_MEMFD_CREATE, p.Str("x"), unix.MFD_CLOEXEC).Result()
			p.Call(unix.SYS_PWRITE64, fd, p.Str("x"), 1, seven)
			p.Call(unix.SYS_LSEEK, fd, 0, unix.SEEK_END).Case(8, p.exitLabel(11))
		case 4: // the fifth of prctl must be 0 here, so anything else is EINVAL
			p.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, seven).On(unix.EINVAL, p.exitLabel(11))
		case 5: // mmap's sixth is the offset: not a multiple of the page size is EINVAL
			fd := p.Call(unix.SYS_MEMFD_CREATE, p.Str("x"), unix.MFD_CLOEXEC).Result()
			p.Call(unix.SYS_MMAP, 0, 4096, unix.PROT_READ, unix.MAP_SHARED, fd, seven).On(unix.EINVAL, p.exitLabel(11))
		}
		p.Exit(1)
		p.placeExits()
		wantExit(t, p, 11)
	}
}

// exitLabel is a label of an exit with the code, placed by placeExits.
func (p *Program) exitLabel(code Arg) Label {
	l := p.Label()
	testExits[p] = append(testExits[p], testExit{l, code})
	return l
}

type testExit struct {
	l    Label
	code Arg
}

var testExits = map[*Program][]testExit{}

func (p *Program) placeExits() {
	for _, e := range testExits[p] {
		p.Here(e.l)
		p.Exit(e.code)
	}
	delete(testExits, p)
}

func TestCases(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value Arg
		want  int
	}{{"first", 1, 21}, {"last of seven", 7, 27}, {"negative", -int64Arg(unix.ENOENT), 22}, {"else", -int64Arg(unix.EIO), 23}, {"then", 9, 24}} {
		t.Run(tt.name, func(t *testing.T) {
			p := New(0)
			o := p.Sub(tt.value, 0)
			o.Case(1, p.exitLabel(21)).On(unix.ENOENT, p.exitLabel(22))
			for v := int32(3); v <= 7; v++ {
				o.Case(v, p.exitLabel(20+Arg(v)))
			}
			o.Else(p.exitLabel(23)).Then(p.exitLabel(24))
			p.placeExits()
			wantExit(t, p, tt.want)
		})
	}
}

func int64Arg(e unix.Errno) Arg { return Arg(e) }

func TestOnlyLowHalfIsCompared(t *testing.T) {
	p := New(0)
	buf := p.Bytes([]byte{5, 0, 0, 0, 1, 2, 3, 4})
	p.Sub(p.Value(buf), 0).Case(5, p.exitLabel(31))
	p.Exit(1)
	p.placeExits()
	wantExit(t, p, 31)
}

func TestLoop(t *testing.T) {
	p := New(0)
	n := p.Sub(10000, 0)
	again := p.Label()
	p.Here(again)
	done := p.Label()
	p.Sub(n.Result(), 1).StoreTo(n.Result()).Case(0, done).Then(again)
	p.Here(done)
	p.Exit(33)
	wantExit(t, p, 33)
}

func TestIgnore(t *testing.T) {
	p := New(0)
	p.Call(unix.SYS_CLOSE, 999).Ignore(unix.ENOSYS, unix.EBADF)
	p.Call(unix.SYS_CLOSE, 999).IgnoreAll()
	p.Exit(34)
	wantExit(t, p, 34)
}

func TestFailureIsReported(t *testing.T) {
	p := New(0)
	p.Step("mount", "/proc")
	p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str("/does/not/exist"), unix.O_RDONLY)
	p.Exit(0)
	_, s, err := run(t, p, &Attr{})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.ENOENT) || e.Step != (Step{"mount", "/proc"}) || e.Syscall != "openat" || e.Op != opFirst+2 {
		t.Errorf("error %#v", err)
	}
	if s.ExitCode() != ExitFailed {
		t.Errorf("exit code %d", s.ExitCode())
	}
	if got, want := err.Error(), "mount /proc: openat: no such file or directory"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

func TestFail(t *testing.T) {
	p := New(0)
	p.Step("verify", "x")
	p.Fail(unix.EXDEV)
	if _, _, err := run(t, p, &Attr{}); !errors.Is(err, unix.EXDEV) {
		t.Errorf("error %v", err)
	}
}

func TestMessagesAndWait(t *testing.T) {
	p := New(0)
	p.Send(7, 1234567890123)
	p.Wait()
	p.Send(8, p.Sub(5, 6).IgnoreAll().Result())
	p.Exit(0)
	c, err := p.Start(&Attr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if m, err := c.Next(); err != nil || m != (Message{Tag: 7, Value: 1234567890123}) {
		t.Fatal(m, err)
	}
	if err := c.Go(); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(); err != nil || m != (Message{Tag: 8, Value: -1}) {
		t.Fatal(m, err)
	}
	if _, err := c.Next(); err != io.EOF {
		t.Fatal(err)
	}
	if s, err := c.Process().Wait(); err != nil || !s.Success() {
		t.Fatal(s, err)
	}
}

// A parent that goes away without a word ends the process.
func TestWaitEndsWithTheParent(t *testing.T) {
	p := New(0)
	p.Wait()
	p.Exit(0)
	c, err := p.Start(&Attr{})
	if err != nil {
		t.Fatal(err)
	}
	c.CloseSocket()
	s, err := c.Process().Wait()
	c.Release()
	if err != nil || s.ExitCode() != ExitFailed {
		t.Error(s, err)
	}
}

func TestClone(t *testing.T) {
	p := New(0)
	child := p.Label()
	pid := p.Call(unix.SYS_CLONE, Arg(unix.SIGCHLD)).Case(0, child)
	info := p.Zero(128)
	p.Call(unix.SYS_WAITID, unix.P_PID, pid.Result(), info, unix.WEXITED)
	p.Sub(p.Value(info+8), 0).Case(1, p.exitLabel(50)) // CLD_EXITED
	p.Exit(1)
	p.Here(child)
	p.Exit(9)
	p.placeExits()
	wantExit(t, p, 50)
}

func TestExecve(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := New(0)
	p.Call(unix.SYS_EXECVE, p.Str("/bin/sh"), p.Strs([]string{"sh", "-c", `echo "$A $1"; exit 3`, "0", "arg"}), p.Strs([]string{"A=b"}))
	_, s, failure := run(t, p, &Attr{Stdio: [3]*os.File{nil, w, nil}})
	w.Close()
	got, _ := io.ReadAll(r)
	if failure != nil || string(got) != "b arg\n" || s.ExitCode() != 3 {
		t.Errorf("got %q, %v, %v", got, failure, s)
	}
}

// What the program's own process was given besides its standard streams and extra files is closed
// when it becomes another one.
func TestNothingElseIsOpenAfterExecve(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p := New(2)
	p.File(null)
	p.File(null)
	p.Call(unix.SYS_EXECVE, p.Str("/bin/sh"), p.Strs([]string{"sh", "-c", `ls /proc/$$/fd`}), p.Strs([]string{"PATH=/bin:/usr/bin"}))
	_, _, failure := run(t, p, &Attr{Stdio: [3]*os.File{null, w, w}, Extra: []*os.File{nil, null}})
	w.Close()
	got, _ := io.ReadAll(r)
	if want := "0\n1\n2\n4\n"; failure != nil || string(got) != want {
		t.Errorf("open descriptors %q, want %q, %v", got, want, failure)
	}
}

func TestFilesArePassed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := New(0)
	fd := p.File(f)
	p.Call(unix.SYS_WRITE, fd, p.Str("here"), 4)
	p.Exit(0)
	wantExit(t, p, 0)
	if got, _ := os.ReadFile(name); string(got) != "here" {
		t.Errorf("file holds %q", got)
	}
}

// For each call of a program: make it fail, and the failure of just that call is reported.
func TestFaults(t *testing.T) {
	build := func() *Program {
		p := New(0)
		p.Step("one", "")
		fd := p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str("/"), unix.O_PATH|unix.O_CLOEXEC).Result()
		p.Step("two", "")
		p.Call(unix.SYS_FCHDIR, fd)
		p.Call(unix.SYS_CLOSE, fd)
		p.Exit(0)
		return p
	}
	n := build().Len()
	for op := opFirst; op < n; op++ {
		p := build()
		_, s, err := run(t, p, &Attr{Fault: &Fault{Op: op, Errno: unix.EDQUOT}})
		var e *Error
		if !errors.As(err, &e) || e.Op != op || e.Errno != unix.EDQUOT || s.ExitCode() != ExitFailed {
			t.Errorf("call %d: %v, %v", op, err, s)
		}
	}
	for _, op := range []int{-1, 0, 1, n} {
		if _, err := build().Start(&Attr{Fault: &Fault{Op: op, Errno: unix.EIO}}); err == nil {
			t.Errorf("a fault at call %d was taken", op)
		}
	}
	if _, err := build().Start(&Attr{Fault: &Fault{Op: opFirst}}); err == nil {
		t.Error("a fault without an error was taken")
	}
}

// A process that is killed in the launcher leaves no report: that is not the end of an execve.
func TestDeathWithoutReport(t *testing.T) {
	p := New(0)
	p.Call(unix.SYS_KILL, p.Call(unix.SYS_GETPID).Result(), Arg(unix.SIGKILL))
	p.Exit(0)
	msgs, s, err := run(t, p, &Attr{})
	if len(msgs) != 0 || err != nil || s.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Error(msgs, err, s)
	}
}

func TestExecutableIsSealed(t *testing.T) {
	p := New(0)
	// The process opens its own executable for writing.
	p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str("/proc/self/exe"), unix.O_WRONLY|unix.O_CLOEXEC).
		On(unix.ETXTBSY, p.exitLabel(60)).On(unix.EPERM, p.exitLabel(60)).On(unix.EACCES, p.exitLabel(60))
	p.Exit(0)
	p.placeExits()
	wantExit(t, p, 60)

	img, err := p.executable(&Attr{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := img.WriteAt([]byte{0}, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to the memfd: %v", err)
	}
	if err := img.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate of the memfd: %v", err)
	}
}

func TestWhereMemoryFilesMustNotBeExecuted(t *testing.T) {
	if os.Getenv("LAUNCH_NOEXEC") == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", `mount -t proc proc /proc && echo 2 >/proc/sys/vm/memfd_noexec && exec "$0" -test.v -test.run "$1"`, self, "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "LAUNCH_NOEXEC=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
		out, err := cmd.CombinedOutput()
		if err != nil && strings.Contains(string(out), "memfd_noexec") {
			t.Skipf("the sysctl vm.memfd_noexec cannot be set here: %s", out)
		}
		if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	p := New(0)
	p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str("/proc/self/exe"), unix.O_WRONLY|unix.O_CLOEXEC).
		On(unix.ETXTBSY, p.exitLabel(61))
	p.Exit(1)
	p.placeExits()
	if _, err := p.Start(&Attr{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a directory: %v", err)
	}
	dir := t.TempDir()
	if _, s, err := run(t, p, &Attr{TempDir: dir}); err != nil || s.ExitCode() != 61 {
		t.Errorf("exit code %d, %v", s.ExitCode(), err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("left in the directory: %v", list)
	}
}

// With KeepThread the parent-death signal is not sent while the caller lives, though the goroutine
// that called Start and its thread are long gone.
func TestParentDeathSignalAndThreads(t *testing.T) {
	p := New(0)
	p.Call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, Arg(unix.SIGKILL))
	p.Send(1, 0)
	p.Wait()
	p.Exit(5)
	var c *Child
	done := make(chan error)
	go func() {
		// A goroutine that ends with its thread locked takes the thread with it.
		runtime.LockOSThread()
		var err error
		c, err = p.Start(&Attr{KeepThread: true})
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	for range 20 { // make sure that threads come and go
		go runtime.LockOSThread()
	}
	if err := c.Go(); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Process().Wait(); err != nil || s.ExitCode() != 5 {
		t.Error(s, err)
	}
}

func TestJumpToNowhere(t *testing.T) {
	p := New(0)
	p.Jump(p.Label())
	if _, err := p.Start(&Attr{}); err == nil {
		t.Error("started")
	}
}

func TestWrongNumberOfExtraFiles(t *testing.T) {
	p := New(1)
	p.Exit(0)
	if _, err := p.Start(&Attr{}); err == nil {
		t.Error("started")
	}
}

func TestStringsAreShared(t *testing.T) {
	p := New(0)
	if x := p.Str("x"); x != p.Str("x") || x == p.Str("y") {
		t.Error("strings are not interned")
	}
}

func TestNewUserNamespaceJoin(t *testing.T) {
	p := New(0)
	p.Call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CLONE_NEWUTS).On(unix.EPERM, p.exitLabel(70)).On(unix.ENOSPC, p.exitLabel(70))
	p.Call(unix.SYS_SETHOSTNAME, p.Str("inside"), 6)
	p.Exit(0)
	p.placeExits()
	if _, s, err := run(t, p, &Attr{}); err != nil || s.ExitCode() != 0 {
		if s.ExitCode() == 70 {
			t.Skip("no user namespaces")
		}
		t.Error(err, s)
	}
}

var update = os.Getenv("UPDATE") != ""

func TestListing(t *testing.T) {
	p := New(1)
	p.Step("mount", "/proc")
	fs := p.Call(unix.SYS_FSOPEN, p.Str("proc"), unix.FSOPEN_CLOEXEC).Result()
	p.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE).Ignore(unix.EBUSY)
	l := p.Label()
	p.Call(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID).On(unix.EPERM, l).Else(l)
	p.Step("buffers", "")
	buf := p.Zero(16)
	p.Call(unix.SYS_READ, 0, buf, 16).Then(l)
	p.Sub(p.Value(buf+8), 1)
	p.Here(l)
	p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str("a \"b\"\n"), unix.O_PATH)
	p.Exit(0)
	golden(t, "listing.golden", p.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if update {
		os.MkdirAll("testdata", 0o755)
		os.WriteFile(file, []byte(got), 0o644)
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s differs (UPDATE=1 writes it): %v\n%s", file, err, got)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p := New(0)
		p.Exit(0)
		c, err := p.Start(&Attr{})
		if err != nil {
			b.Fatal(err)
		}
		c.Process().Wait()
		c.Release()
	}
}
