//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file tests the terminal of a process, with a terminal of the test's own as the caller's.

// consoleSeat is the caller's terminal: user is where keys are typed and the screen is read, seat is what a
// program at it has as its streams.
type consoleSeat struct {
	user, seat *os.File

	mu     sync.Mutex
	screen bytes.Buffer // what has been shown
}

func newSeat(t testing.TB) *consoleSeat {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	user := os.NewFile(uintptr(fd), "user")
	// As a program has it from its shell: blocking.
	seatFD, err := unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &consoleSeat{user: user, seat: os.NewFile(uintptr(seatFD), "seat")}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := user.Read(buf)
			s.mu.Lock()
			s.screen.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { s.seat.Close(); user.Close(); <-done })
	return s
}

func (s *consoleSeat) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.screen.String()
}

// await waits until the text is on the screen, and returns and clears the screen.
func (s *consoleSeat) await(t testing.TB, text string) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if all := s.text(); strings.Contains(all, text) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.screen.Reset()
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the screen: %q", text, s.text())
		}
	}
}

func (s *consoleSeat) typeKeys(t testing.TB, keys string) {
	t.Helper()
	if _, err := s.user.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// modes is the terminal's state, in words that can be compared.
func (s *consoleSeat) modes(t testing.TB) unix.Termios {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(s.seat.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *state
}

func (s *consoleSeat) isRaw(t testing.TB) bool { return s.modes(t).Lflag&(unix.ICANON|unix.ECHO) == 0 }

func (s *consoleSeat) resize(t testing.TB, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(s.seat.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

// at is a shell at this terminal.
func (s *consoleSeat) at(script string) *Process {
	return &Process{Args: []string{"sh", "-c", script}, Tty: true, Stdin: s.seat, Stdout: s.seat}
}

// consoleOut runs a script at a terminal and returns what it has written, with plain line ends.
func consoleOut(t testing.TB, cfg Config, p *Process, script string) string {
	t.Helper()
	var out bytes.Buffer
	p.Args, p.Tty, p.Stdout = []string{"sh", "-c", script}, true, &out
	if p.Stdin == nil {
		p.Stdin = strings.NewReader("")
	}
	if err := func() error {
		c, err := New(t.TempDir(), "console", cfg)
		if err != nil {
			return err
		}
		p.Stderr = p.Stdout
		_, err = runOnce(t, c, p)
		return err
	}(); err != nil {
		t.Fatalf("%v, %q", err, out.String())
	}
	return strings.ReplaceAll(out.String(), "\r\n", "\n")
}

func TestConsoleInside(t *testing.T) {
	base := testConfig(t)
	const script = `tty; for i in 0 1 2; do readlink /proc/self/fd/$i; done; ls /proc/self/fd | wc -l
		echo through /dev/tty >/dev/tty; stty size; stat -c '%a %u %t:%T' /dev/pts/0 /dev/console
		read -r all </proc/self/stat; set -- ${all##*)}; echo "session $4, terminal $5"; echo through /dev/console >/dev/console`
	const want = "/dev/pts/0\n/dev/pts/0\n/dev/pts/0\n/dev/pts/0\n4\nthrough /dev/tty\n24 81\n620 0 88:0\n620 0 88:0\nsession 1, terminal 34816\nthrough /dev/console\n"
	for name, change := range map[string]func(*testing.T, *Config){
		"user namespace": func(*testing.T, *Config) {},
		"root":           func(t *testing.T, cfg *Config) { testenv.Need(t, testenv.Root); cfg.Namespaces.NewUser = false },
		"init":           func(_ *testing.T, cfg *Config) { cfg.Init = true },
		"detached":       func(_ *testing.T, cfg *Config) { cfg.Detached = true },
		"read-only root": func(_ *testing.T, cfg *Config) { cfg.Root.Access = ReadOnly },
		"own devpts": func(_ *testing.T, cfg *Config) {
			cfg.Mounts = append(cfg.Mounts, Mount{Type: "devpts", Source: "devpts", Target: "/dev/pts", Data: "newinstance,ptmxmode=0666,mode=0620"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := base
			change(t, &cfg)
			want := want
			if cfg.Init {
				want = strings.Replace(want, "session 1,", "session 2,", 1)
			}
			if got := consoleOut(t, cfg, &Process{ConsoleSize: ConsoleSize{81, 24}}, script); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// The terminal belongs to the user, who can open it again, and to the group tty.
func TestConsoleOwner(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := testConfig(t)
	got := consoleOut(t, cfg, &Process{User: "7:8"}, `stat -c '%u:%g %a' /dev/pts/0; echo again >/dev/pts/0; id -u`)
	wantText(t, got, "7:5 620\nagain\n7\n")
}

// Without a mount namespace of its own the container uses the devpts that the caller sees.
func TestConsoleOfTheCaller(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.UserNS)
	cfg := Config{Namespaces: Namespaces{NewUser: true, NewPID: true}}
	got := consoleOut(t, cfg, &Process{}, `tty | sed 's/[0-9]*$/N/'; echo works >/dev/tty`)
	wantText(t, got, "/dev/pts/N\nworks\n")
}

func TestConsoleIsNoDevpts(t *testing.T) {
	cfg := testConfig(t)
	cfg.Mounts = append(cfg.Mounts, Mount{Type: "tmpfs", Target: "/dev/pts"})
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}, Tty: true, Stdout: io.Discard, Stderr: io.Discard})
	wantError(t, err, "console", unix.ENODEV)
}

// Output is complete, however fast the end comes after it, and the exit code is right.
func TestConsoleOutput(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	for _, n := range []int{0, 1, 500, 20000} {
		var want strings.Builder
		for i := range n {
			fmt.Fprintln(&want, i+1)
		}
		for range 5 {
			if got := consoleOut(t, cfg, &Process{}, fmt.Sprintf("seq 1 %d", n)); got != want.String() {
				t.Fatalf("%d bytes of %d", len(got), want.Len())
			}
		}
	}
	var out bytes.Buffer
	c := lifeStart(t, cfg, &Process{Args: []string{"sh", "-c", "exit 7"}, Tty: true, Stdout: &out})
	if exit, ok := errors.AsType[*ExitError](lifeWait(t, c.Wait)); !ok || exit.Code != 7 {
		t.Error(exit)
	}
}

// A process may close its terminal and open it again: that is not the end.
func TestConsoleOpenedAgain(t *testing.T) {
	cfg := testConfig(t)
	got := consoleOut(t, cfg, &Process{}, `exec 3<&- <&- >&- 2>&-; sleep 0.15 </dev/null >/dev/null 2>/dev/null; exec >/dev/tty; echo back; sleep 0.05`)
	wantText(t, got, "back\n")
}

func TestConsolePipes(t *testing.T) {
	leak.Check(t)
	p := &Process{Args: []string{"sh", "-c", "stty -echo; echo ready; read -r a; echo got $a"}, Tty: true}
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := lifeStart(t, testConfig(t), p)
	if got := readLine(t, out); got != "ready\r" {
		t.Errorf("%q", got)
	}
	io.WriteString(in, "line\n")
	if got := readAll(t, out); got != "got line\r\n" {
		t.Errorf("%q", got)
	}
	if err := lifeWait(t, c.Wait); err != nil {
		t.Error(err)
	}
}

// The caller's terminal is raw while the process runs, and as before after every kind of end.
func TestConsoleRestoresTheTerminal(t *testing.T) {
	cfg := testConfig(t)
	run := func(t *testing.T, ctx context.Context, p *Process, c *Container, started func(s *consoleSeat), s *consoleSeat) error {
		err := c.Run(ctx, p)
		if err != nil {
			return err
		}
		s.await(t, "ready")
		if !s.isRaw(t) {
			t.Error("the terminal is not raw while the process runs")
		}
		if started != nil {
			started(s)
		}
		return lifeWait(t, p.Wait)
	}
	for name, row := range map[string]struct {
		script string
		fault  bool
		do     func(*consoleSeat, *Container, context.CancelFunc)
		want   string
	}{
		"exit":          {"echo ready; read -r x", false, func(s *consoleSeat, c *Container, _ context.CancelFunc) { s.typeKeys(t, "\r") }, "<nil>"},
		"exit code":     {"echo ready; read -r x; exit 3", false, func(s *consoleSeat, c *Container, _ context.CancelFunc) { s.typeKeys(t, "\r") }, "exit status 3"},
		"raw itself":    {"stty raw; echo ready; head -c 1", false, func(s *consoleSeat, c *Container, _ context.CancelFunc) { s.typeKeys(t, "x") }, "<nil>"},
		"kill":          {"echo ready; sleep 100", false, func(s *consoleSeat, c *Container, _ context.CancelFunc) { c.Signal(unix.SIGKILL) }, "signal: killed"},
		"interrupt key": {"trap 'exit 4' INT; echo ready; while :; do sleep 0.01; done", false, func(s *consoleSeat, c *Container, _ context.CancelFunc) { s.typeKeys(t, "\x03") }, "exit status 4"},
		"cancel":        {"echo ready; sleep 100", false, func(_ *consoleSeat, _ *Container, cancel context.CancelFunc) { cancel() }, "signal: killed"},
		"stop":          {"echo ready; sleep 100", false, func(_ *consoleSeat, c *Container, _ context.CancelFunc) { c.Stop(context.Background()) }, "signal: killed"},
		"start fails":   {"echo ready", true, nil, "disk quota"},
		"no program":    {"", false, nil, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			s := newSeat(t)
			before := s.modes(t)
			cfg := cfg
			cfg.StopTimeout = -1
			c := lifeNew(t, cfg)
			p := s.at(row.script)
			if row.script == "" {
				p.Args = []string{"no-such-program"}
			}
			if row.fault {
				c.fault = &launch.Fault{Op: findCall(t, cfg, p, "sendmsg("), Errno: unix.EDQUOT}
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			err := run(t, ctx, p, c, func(s *consoleSeat) { row.do(s, c, cancel) }, s)
			if !strings.Contains(fmt.Sprint(err), row.want) {
				t.Errorf("%v, want %s", err, row.want)
			}
			if after := s.modes(t); after != before {
				t.Errorf("before %+v, after %+v", before, after)
			}
			// What is typed now is for the next program.
			s.typeKeys(t, "next\r")
			buf := make([]byte, 16)
			if n, err := s.seat.Read(buf); string(buf[:n]) != "next\n" {
				t.Errorf("the next program reads %q, %v", buf[:n], err)
			}
		})
	}
}

func TestConsoleSize(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	s := newSeat(t)
	s.resize(t, 100, 40)
	p := s.at(`trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.01; done`)
	c := lifeStart(t, cfg, p)
	if got := s.await(t, "ready"); !strings.Contains(got, "40 100\r\n") {
		t.Errorf("the first size: %q", got)
	}
	s.resize(t, 90, 30)
	unix.Kill(os.Getpid(), unix.SIGWINCH) // what the kernel does for a program in the foreground
	s.await(t, "30 90\r\n")
	if err := p.Resize(ConsoleSize{Width: 50, Height: 20}); err != nil {
		t.Error(err)
	}
	s.await(t, "20 50\r\n")
	f, err := NewSignalForwarder(p, unix.SIGWINCH)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.ForwardSignal(unix.SIGWINCH); err != nil {
		t.Error(err)
	}
	s.await(t, "30 90\r\n")
	c.Signal(unix.SIGKILL)
	lifeWait(t, c.Wait)
	if err := p.Resize(ConsoleSize{1, 1}); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}

func TestConsoleDetach(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	s := newSeat(t)
	before := s.modes(t)
	p := s.at(`stty -echo; echo ready; while read -r x; do echo "got $x"; done`)
	p.DetachKeys = "ctrl-p,ctrl-q"
	c := lifeStart(t, cfg, p)
	s.await(t, "ready")
	for round := range 3 {
		s.typeKeys(t, "a\x10b\r") // only the first of the keys: it reaches the process
		s.await(t, "got a\x10b\r\n")
		s.typeKeys(t, "\x10\x11")
		if err := lifeWait(t, p.Wait); !errors.Is(err, ErrDetached) {
			t.Fatal(err)
		}
		if after := s.modes(t); after != before {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if status, err := c.Status(); status != StatusRunning || err != nil {
			t.Errorf("the process is %s, %v", status, err)
		}
		s.typeKeys(t, "mine\r")
		buf := make([]byte, 16)
		if n, err := s.seat.Read(buf); string(buf[:n]) != "mine\n" {
			t.Errorf("the caller reads %q, %v", buf[:n], err)
		}
		s.await(t, "mine")
		if round == 2 {
			break
		}
		attached := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { attached <- p.Attach(ctx, s.seat, s.seat) }()
		for !s.isRaw(t) {
			time.Sleep(time.Millisecond)
		}
		if err := p.Attach(context.Background(), nil, io.Discard); err == nil {
			t.Error("two can attach")
		}
		s.typeKeys(t, "there\r")
		s.await(t, "got there\r\n")
		if round == 0 {
			cancel()
			if err := <-attached; !errors.Is(err, context.Canceled) || s.modes(t) != before {
				t.Errorf("%v, %+v", err, s.modes(t))
			}
			ctx, cancel = context.WithCancel(context.Background())
			go func() { attached <- p.Attach(ctx, s.seat, s.seat) }()
			for !s.isRaw(t) {
				time.Sleep(time.Millisecond)
			}
		}
		s.typeKeys(t, "\x10\x11")
		if err := <-attached; !errors.Is(err, ErrDetached) {
			t.Error(err)
		}
		go func() { attached <- p.Attach(ctx, s.seat, s.seat) }()
		for !s.isRaw(t) {
			time.Sleep(time.Millisecond)
		}
		defer cancel()
		defer func() { <-attached }()
	}
	attached := make(chan error, 1)
	go func() { attached <- p.Attach(context.Background(), s.seat, s.seat) }()
	for !s.isRaw(t) {
		time.Sleep(time.Millisecond)
	}
	s.typeKeys(t, "\x04") // the end of its input
	if err := <-attached; err != nil {
		t.Error(err)
	}
	if err := lifeWait(t, p.Wait); err != nil {
		t.Error(err)
	}
	if s.modes(t) != before {
		t.Error("the terminal is not as before")
	}
	if err := p.Attach(context.Background(), nil, nil); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}

// While nobody is attached the process goes on, however much it writes; the end of an attached one is told.
func TestConsoleAttachLater(t *testing.T) {
	leak.Check(t)
	p := &Process{Args: []string{"sh", "-c", "seq 1 50000; stty -echo; read -r x; echo got $x; exit 3"}, Tty: true}
	c := lifeStart(t, testConfig(t), p)
	var out bytes.Buffer
	time.Sleep(50 * time.Millisecond)
	attached := make(chan error, 1)
	r, w := pipe(t)
	go func() { attached <- p.Attach(context.Background(), r, &out) }()
	w.WriteString("word\n")
	if err := <-attached; err != nil || !strings.HasSuffix(out.String(), "got word\r\n") {
		t.Errorf("%v, %q", err, out.String())
	}
	if exit, ok := errors.AsType[*ExitError](lifeWait(t, c.Wait)); !ok || exit.Code != 3 {
		t.Error(exit)
	}
}

// The terminal is there from Create on.
func TestConsoleCreateStart(t *testing.T) {
	leak.Check(t)
	for _, start := range []bool{true, false} {
		s := newSeat(t)
		before := s.modes(t)
		c := lifeNew(t, testConfig(t))
		p := s.at("tty; read -r x; echo got $x")
		if err := c.Create(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		if start {
			s.typeKeys(t, "early\r")
			if err := c.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			s.await(t, "got early")
		} else if err := c.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if err := lifeWait(t, p.Wait); start != (err == nil) {
			t.Error(err)
		}
		if s.modes(t) != before {
			t.Error("the terminal is not as before")
		}
	}
}

// The other side goes to who listens at the socket, as conmon reads it: one message with one descriptor.
func TestConsoleSocket(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "console.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	socket, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := &Process{Args: []string{"sh", "-c", "stty -echo; tty; stty size; read -r x; echo got $x"}, Tty: true, ConsoleSocket: socket, ConsoleSize: ConsoleSize{44, 11}}
	c := lifeStart(t, testConfig(t), p)
	peer, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	data, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, size, flags, _, err := peer.ReadMsgUnix(data, control)
	if err != nil || flags&unix.MSG_CTRUNC != 0 || string(data[:n]) != "/dev/ptmx" {
		t.Fatalf("%q, flags %#x, %v", data[:n], flags, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	if err := p.Resize(ConsoleSize{1, 1}); err == nil {
		t.Error("it can be resized from here")
	}
	text := ""
	for !strings.Contains(text, "11 44\r\n") { // then it does not echo any more
		n, err := master.Read(data)
		if err != nil {
			t.Fatalf("%q, %v", text, err)
		}
		text += string(data[:n])
	}
	master.WriteString("word\n")
	rest, err := io.ReadAll(master) // EIO in the end: nobody but the process and us had it
	text += string(rest)
	if want := "/dev/pts/0\r\n11 44\r\ngot word\r\n"; text != want || !errors.Is(err, unix.EIO) {
		t.Errorf("%q, %v", text, err)
	}
	if err := lifeWait(t, c.Wait); err != nil {
		t.Error(err)
	}
}

func TestConsoleSocketNobodyListens(t *testing.T) {
	leak.Check(t)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(pair[1])
	socket := os.NewFile(uintptr(pair[0]), "socket")
	defer socket.Close()
	c := lifeNew(t, testConfig(t))
	err = c.Run(context.Background(), &Process{Args: []string{"true"}, Tty: true, ConsoleSocket: socket})
	wantError(t, err, "console", unix.EPIPE)
}

// Somebody else has the terminal still open when the process ends.
func TestConsoleWaitDelay(t *testing.T) {
	cfg := withoutPIDs(testConfig(t))
	s := newSeat(t)
	before := s.modes(t)
	r, w := pipe(t)
	p := s.at(`trap '' HUP; cat <&3 >/dev/null & echo ready`)
	p.WaitDelay, p.ExtraFiles = 100*time.Millisecond, []*os.File{r}
	c := lifeStart(t, cfg, p)
	if err := lifeWait(t, c.Wait); !errors.Is(err, exec.ErrWaitDelay) { // the other one is there until we let it go
		t.Error(err)
	}
	if s.modes(t) != before {
		t.Error("the terminal is not as before")
	}
	w.Close()
}

func TestConsoleValidation(t *testing.T) {
	f := new(os.File)
	for name, row := range map[string]struct {
		p    Process
		want string
	}{
		"good":             {Process{Tty: true, Stdin: f, Stdout: f, Stderr: f, DetachKeys: "ctrl-p,ctrl-q", ConsoleSize: ConsoleSize{1, 1}}, ""},
		"socket":           {Process{Tty: true, ConsoleSocket: f}, ""},
		"stderr":           {Process{Tty: true, Stdout: f, Stderr: new(os.File)}, "Stderr"},
		"only stderr":      {Process{Tty: true, Stderr: f}, "Stderr"},
		"half a size":      {Process{Tty: true, ConsoleSize: ConsoleSize{Width: 80}}, "ConsoleSize"},
		"size":             {Process{ConsoleSize: ConsoleSize{80, 24}}, "ConsoleSize"},
		"no tty, socket":   {Process{ConsoleSocket: f}, "ConsoleSocket"},
		"no tty, keys":     {Process{DetachKeys: "a"}, "DetachKeys"},
		"socket and input": {Process{Tty: true, ConsoleSocket: f, Stdin: f}, "ConsoleSocket"},
		"socket and keys":  {Process{Tty: true, ConsoleSocket: f, DetachKeys: "a"}, "ConsoleSocket"},
		"keys":             {Process{Tty: true, DetachKeys: "ctrl-p,"}, "DetachKeys"},
	} {
		t.Run(name, func(t *testing.T) {
			p := row.p
			p.Args = []string{"true"}
			err := p.validate()
			var field *FieldError
			if row.want == "" && err != nil || row.want != "" && (!errors.As(err, &field) || field.Field != row.want || !errors.Is(err, ErrInvalidConfig)) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestConsoleDetachKeys(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "ctrl-p,ctrl-q": "\x10\x11", "ctrl-a": "\x01", "ctrl-z": "\x1a", "a,b,~": "ab~", "ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_": "\x00\x1b\x1c\x1d\x1e\x1f", "-": "-",
	} {
		if keys, err := parseDetachKeys(text); string(keys) != want || err != nil {
			t.Errorf("%q: %q, %v", text, keys, err)
		}
	}
	for _, text := range []string{",", "ctrl-", "ctrl-P", "ctrl-1", "ctrl-pq", "ab", "a,,b", " ", "a, b", "ctrl p", "\x10", "é", "Ctrl-p", "ctrl-p,ctrl-q,"} {
		if keys, err := parseDetachKeys(text); err == nil {
			t.Errorf("%q: %q", text, keys)
		}
	}
	for _, row := range []struct{ keys, typed, out, rest string }{
		{"", "a\x10\x11", "a\x10\x11", ""},
		{"\x10\x11", "ab\x10\x11cd", "ab", "cd"},
		{"\x10\x11", "\x10\x10\x11", "\x10", ""},
		{"\x10\x11", "\x10a\x11\x10", "\x10a\x11", "?"},
		{"aab", "aaab", "a", ""},
		{"abab", "abaabab", "aba", ""},
	} {
		for _, size := range []int{1, 2, 100} { // however it comes in pieces
			w, out, found, rest := keyWatch{keys: []byte(row.keys)}, "", false, row.typed
			for rest != "" && !found {
				n := min(size, len(rest))
				var b []byte
				b, found = w.pass([]byte(rest[:n]))
				out, rest = out+string(b), rest[n:]
			}
			if wantFound := row.keys != "" && row.rest != "?"; out != row.out || found != wantFound {
				t.Errorf("%q of %q by %d: %q, %v", row.keys, row.typed, size, out, found)
			}
		}
	}
}
