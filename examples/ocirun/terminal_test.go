//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/examples/internal/clitest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A terminal is a person at a terminal: what the program shows, and a keyboard.
type terminal struct {
	t      testing.TB
	master *os.File
	cmd    *exec.Cmd
	shown  string
}

// atTerminal starts a command at a terminal of 30 lines of 100 characters.
func atTerminal(t testing.TB, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var slave *os.File
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Control(func(fd uintptr) {
		err = errors.Join(unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0), unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}))
		var peer int
		if peer, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
			slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", peer), os.O_RDWR|unix.O_NOCTTY, 0)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &terminal{t: t, master: master, cmd: cmd}
}

// typed types a line.
func (x *terminal) typed(line string) {
	x.t.Helper()
	if _, err := x.master.WriteString(line + "\n"); err != nil {
		x.t.Fatal(err)
	}
}

// shows waits until the terminal has shown a text after the last one that was waited for.
func (x *terminal) shows(text string) {
	x.t.Helper()
	x.master.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 4096)
	for {
		if _, after, ok := strings.Cut(x.shown, text); ok {
			x.shown = after
			return
		}
		n, err := x.master.Read(b)
		if err != nil {
			x.t.Fatalf("%v; waiting for %q, it shows %q", err, text, x.shown)
		}
		x.shown += string(b[:n])
	}
}

// ends waits for the end of the command, and returns its exit code.
func (x *terminal) ends() int {
	x.t.Helper()
	x.master.SetReadDeadline(time.Now().Add(time.Minute))
	io.Copy(io.Discard, x.master) // to the hangup
	x.cmd.Wait()
	return x.cmd.ProcessState.ExitCode()
}

// A shell at a terminal, through podman: its own terminal, its size, its exit code.
func TestPodmanTerminal(t *testing.T) {
	p := newPodman(t)
	shell := func(args ...string) {
		t.Helper()
		x := atTerminal(t, p.command(args...))
		x.shows("# ")
		x.typed("tty; stty size; test -t 0 && test -t 2 && echo term''inal")
		x.shows("/dev/")
		x.shows("30 100")
		x.shows("terminal")
		x.typed("sh -c \"echo be'gun'; exec sleep 100\"")
		x.shows("begun") // it gets the keys
		x.typed("\x03")
		x.typed("echo inter''rupted")
		x.shows("interrupted")
		x.typed("exit 7")
		if code := x.ends(); code != 7 {
			t.Errorf("%v: code %d", args, code)
		}
	}
	shell(once("-it", testImage, "sh")...)
	p.must(append([]string{"run", "--detach", "--name", "c"}, with("none", testImage, "sleep", "1000")...)...)
	shell("exec", "-it", "c", "sh")
	p.must("rm", "--force", "--time", "0", "c")
}

// Run gives the process a terminal and copies; the exit code is the process's.
func TestOcirunTerminal(t *testing.T) {
	bundle := newBundle(t, `stty size; test -t 1 && echo yes; read x; echo got $x; exit 6`, func(s *specs.Spec) { s.Process.Terminal = true })
	r := ocirun(t)
	x := atTerminal(t, clitest.Command(t, append(r.args[1:], "run", "-b", bundle, "c")...))
	x.shows("30 100")
	x.shows("yes")
	x.typed("text")
	x.shows("got text")
	if code := x.ends(); code != 6 {
		t.Errorf("code %d", code)
	}
	for _, args := range [][]string{{"create"}, {"run", "--detach"}} {
		if out, code := r.run(append(args, "-b", bundle, "c")...); code != 1 || !strings.Contains(out, "console socket") {
			t.Errorf("%v: code %d: %s", args, code, out)
		}
	}
}

// Who listens at the console socket gets the master, and is the only one to have it.
func TestOcirunConsoleSocket(t *testing.T) {
	bundle := newBundle(t, `stty size; read x; echo got $x; sleep 1000`, func(s *specs.Spec) {
		s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Width: 77, Height: 33}
	})
	r := ocirun(t)
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "console")})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	master := make(chan *os.File, 1)
	go func() {
		defer close(master)
		listener.SetDeadline(time.Now().Add(time.Minute))
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		b, oob := make([]byte, 100), make([]byte, 100)
		_, n, _, _, err := conn.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		if messages, err := unix.ParseSocketControlMessage(oob[:n]); err == nil && len(messages) == 1 {
			if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
				unix.CloseOnExec(fds[0])
				unix.SetNonblock(fds[0], true)
				master <- os.NewFile(uintptr(fds[0]), "master")
			}
		}
	}()
	r.must("create", "-b", bundle, "--console-socket", listener.Addr().String(), "c")
	defer r.run("delete", "--force", "c")
	file := <-master
	if file == nil {
		t.Fatal("nothing was received")
	}
	defer file.Close()
	r.must("start", "c")
	x := &terminal{t: t, master: file}
	x.shows("33 77")
	x.typed("text")
	x.shows("got text")
	if out, code := r.run("exec", "--console-socket", listener.Addr().String(), "c", "true"); code != 255 || !strings.Contains(out, "console socket") {
		t.Errorf("code %d: %s", code, out)
	}
}
