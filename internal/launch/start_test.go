//go:build linux && (amd64 || arm64)

package launch

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file tests what Start, Next and Release do when things go wrong.

// openFiles is the list of this process's descriptors and what they are.
func openFiles(t *testing.T) string {
	t.Helper()
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(0)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range names {
		if link, err := os.Readlink("/proc/self/fd/" + name); err == nil {
			b.WriteString(name + " " + link + "\n")
		}
	}
	return b.String()
}

// With any number of descriptors left, from none to enough, Start works or fails with EMFILE, and
// leaves neither a descriptor nor a process.
func TestTooManyOpenFiles(t *testing.T) {
	start := func(keep bool) error {
		p := New(0)
		p.Exit(0)
		c, err := p.Start(&Attr{KeepThread: keep})
		if err != nil {
			return err
		}
		defer c.Release()
		_, err = c.process.Wait()
		return err
	}
	if err := start(false); err != nil { // what the runtime opens once is open now
		t.Fatal(err)
	}
	before := openFiles(t)
	var was unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	limited := func(n uint64, keep bool) error {
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}, nil); err != nil {
			t.Fatal(err)
		}
		defer unix.Prlimit(0, unix.RLIMIT_NOFILE, &was, nil)
		return start(keep)
	}
	failed := 0
	for n := uint64(3); ; n++ {
		err := limited(n, n%2 == 0)
		if after := openFiles(t); after != before {
			t.Errorf("limit %d: %v; open before:\n%safter:\n%s", n, err, before, after)
		}
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("limit %d: a process is left: %d, %v", n, pid, err)
		}
		if err == nil {
			break
		}
		// Where a descriptor is beyond the limit, dup3 says EBADF.
		if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.EBADF) {
			t.Errorf("limit %d: %v", n, err)
		}
		if failed++; failed > 1000 {
			t.Fatal("never succeeds")
		}
	}
	if failed < 5 {
		t.Errorf("it failed only %d times", failed)
	}
}

func TestFailedStartsLeaveNothingOpen(t *testing.T) {
	end := func(p *Program) *Program { p.Exit(0); return p }
	withFile := func(f *os.File) *Program { p := New(0); p.File(f); return end(p) }
	nowhere := New(0)
	nowhere.Jump(nowhere.Label())
	closed, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	before := openFiles(t)
	for name, try := range map[string]struct {
		p    *Program
		attr *Attr
	}{
		"label":        {nowhere, &Attr{}},
		"extra files":  {end(New(1)), &Attr{}},
		"closed stdin": {end(New(0)), &Attr{Stdio: [3]*os.File{closed}}},
		"closed extra": {end(New(1)), &Attr{Extra: []*os.File{closed}}},
		"closed file":  {withFile(closed), &Attr{}},
		"nil file":     {withFile(nil), &Attr{}},
		"fault":        {end(New(0)), &Attr{Fault: &Fault{Op: 99, Errno: unix.EIO}}},
		"clone flags":  {end(New(0)), &Attr{Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_FS}}},
		"keep thread":  {end(New(0)), &Attr{KeepThread: true, Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_FS}}},
		"exec":         {end(New(0)), &Attr{Sys: &syscall.SysProcAttr{Chroot: "/does/not/exist"}}},
	} {
		if c, err := try.p.Start(try.attr); err == nil {
			c.process.Wait()
			c.Release()
			t.Errorf("%s: started", name)
		}
		if after := openFiles(t); after != before {
			t.Errorf("%s: open before:\n%safter:\n%s", name, before, after)
		}
	}
}

func TestReleaseEndsNext(t *testing.T) {
	p := New(0)
	p.Wait()
	p.Exit(0)
	c, err := p.Start(&Attr{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, err := c.Next()
		got <- err
	}()
	time.Sleep(5 * time.Millisecond) // most likely it waits by now; if not, the answer is the same
	c.Release()
	c.Release()
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if s, err := c.Process().Wait(); err != nil || s.ExitCode() != ExitFailed {
		t.Error(s, err)
	}
	if err := c.Go(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Go after Release: %v", err)
	}
}

func TestGoAfterTheEnd(t *testing.T) {
	p := New(0)
	p.Exit(0)
	c, err := p.Start(&Attr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	c.Process().Wait()
	if err := c.Go(); !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
}

func TestPidFDIsGivenOnce(t *testing.T) {
	p := New(0)
	p.Wait()
	p.Exit(0)
	c, err := p.Start(&Attr{})
	if err != nil {
		t.Fatal(err)
	}
	fd := c.PidFD()
	if again := c.PidFD(); again != -1 {
		t.Errorf("the second time it is %d", again)
	}
	if fd < 0 {
		t.Skip("no pidfd from clone(2)")
	}
	c.Release()
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		t.Error(err)
	}
	c.Process().Wait()
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
}

// The parent goes away while a message of the program lies unread in its socket.
func TestWaitEndsWithTheParentThatDoesNotListen(t *testing.T) {
	p := New(0)
	p.Send(1, 2)
	p.Call(unix.SYS_WRITE, 1, p.Str("x"), 1)
	p.Wait()
	p.Exit(0)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := p.Start(&Attr{Stdio: [3]*os.File{nil, w, nil}})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(r, make([]byte, 1)) // it has sent
	c.Release()
	if s, err := c.Process().Wait(); err != nil || s.ExitCode() != ExitFailed {
		t.Error(s, err)
	}
}

func TestProgramWithoutEnd(t *testing.T) {
	p := New(0)
	p.Sub(1, 1)
	_, s, err := run(t, p, &Attr{})
	if err == nil || !strings.Contains(err.Error(), "after its last call") || s.ExitCode() != ExitFailed {
		t.Error(err, s)
	}
}

func TestAddressesAreChecked(t *testing.T) {
	for name, build := range map[string]func(p *Program){
		"great number":   func(p *Program) { p.Sub(1<<63-1, 0) },
		"value":          func(p *Program) { p.Sub(p.Value(dataBase-8), 0) },
		"value too far":  func(p *Program) { p.Sub(p.Value(p.Zero(8)+8), 0) },
		"store":          func(p *Program) { p.Sub(0, 0).StoreTo(opsBase) },
		"store too far":  func(p *Program) { p.Sub(0, 0).StoreTo(p.Zero(8) + 1) },
		"store too near": func(p *Program) { p.Sub(0, 0).StoreTo(dataBase - 1) },
	} {
		p := New(0)
		build(p)
		p.Exit(0)
		if c, err := p.Start(&Attr{}); err == nil {
			c.process.Wait()
			c.Release()
			t.Errorf("%s: started", name)
		}
	}
}

// What comes through the socket may come from anybody who got hold of the process.
func TestForgedMessages(t *testing.T) {
	const far = opsBase + 100*opSize
	for _, m := range [][2]uint64{
		{opsBase + 1, 1 << 63}, {far, 1 << 63}, {1 << 63, 1 << 63}, {1<<64 - 1, 1 << 63}, {opsBase + 1<<63, 1 << 63},
		{opsBase + 2*opSize, 0}, {opsBase + 2*opSize, 5},
	} {
		err := New(0).parseFailure(m[0], m[1])
		if e := (*Error)(nil); err == nil || errors.As(err, &e) {
			t.Errorf("%#x: %v", m, err)
		}
	}
	for _, n := range []Arg{1, messageSize - 1, messageSize + 1, 4096} {
		p := New(0)
		p.Call(unix.SYS_WRITE, p.SocketFD(), p.Zero(4096), n)
		p.Exit(0)
		if _, _, err := run(t, p, &Attr{}); err == nil || !strings.Contains(err.Error(), "message of") {
			t.Errorf("message of %d bytes: %v", n, err)
		}
	}
}

// The last message is not lost when the process ends right after it, while somebody is looking for it.
func TestLastMessageBeforeTheEnd(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		t.Skip("needs two processors: on one, nothing happens meanwhile")
	}
	for i := range 2000 {
		ours, theirs, err := SocketPair()
		if err != nil {
			t.Fatal(err)
		}
		var ready, on atomic.Bool
		go func() {
			fd, message := int(theirs.Fd()), []byte{7, messageSize - 1: 0}
			for ready.Store(true); !on.Load(); {
			}
			for range i % 1000 { // the two meet at any point
				on.Load()
			}
			unix.Write(fd, message)
			theirs.Close()
		}()
		c := &Child{socket: ours}
		for !ready.Load() {
		}
		on.Store(true)
		if m, err := c.Next(); err != nil || m.Tag != 7 {
			t.Fatalf("after %d: %+v, %v", i, m, err)
		}
		if m, err := c.Next(); err != io.EOF {
			t.Fatalf("after the end: %+v, %v", m, err)
		}
		ours.Close()
	}
}
