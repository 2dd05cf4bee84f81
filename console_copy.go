//go:build linux

package container

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the caller's side of a process's terminal: who is attached to it, and the copying
// between the two. It runs in the caller's process.

// A terminal is the caller's side of a process's terminal. Its output is read all the time, also
// while nobody is attached, so that the process goes on.
type terminal struct {
	proc  *Process
	keys  []byte        // of its DetachKeys
	ended chan struct{} // closed when the process has ended
	done  chan struct{} // closed when all output has been read

	mu     sync.Mutex
	master *os.File      // nil before the launcher has sent it
	now    *attachment   // nil while nobody is attached
	left   chan struct{} // closed when the user has detached
	over   bool          // nobody can attach any more
	err    error         // of Wait
}

// newTerminal is the terminal of a process that is about to be started.
func newTerminal(p *Process) *terminal {
	keys, _ := parseDetachKeys(p.DetachKeys) // has been validated
	return &terminal{
		proc: p, keys: keys,
		ended: make(chan struct{}), done: make(chan struct{}), left: make(chan struct{}),
	}
}

// receive takes ownership of the master, which the launcher has sent.
func (t *terminal) receive(master *os.File) error {
	switch {
	case master == nil:
		return errors.New("the launcher has sent no terminal")
	case t == nil || t.master != nil:
		master.Close()
		return errors.New("the launcher has sent a terminal that nobody waits for")
	case t.proc.ConsoleSocket != nil:
		defer master.Close()
		return sendTerminal(t.proc.ConsoleSocket, master)
	}
	defer master.Close()
	fd, err := duplicate(master)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the runtime's poller, so that closing ends a read
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	t.master = os.NewFile(uintptr(fd), "/dev/ptmx")
	return nil
}

// sendTerminal hands the master over to who listens at the socket, in the form that conmon and
// containerd expect: one message, its data the name.
func sendTerminal(socket, master *os.File) error {
	conn, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	rights := unix.UnixRights(int(master.Fd()))
	var sent error
	err = conn.Write(func(fd uintptr) (done bool) {
		// Not write(2): its SIGPIPE may mean something to the caller.
		for sent = unix.EINTR; sent == unix.EINTR; {
			_, sent = unix.SendmsgN(int(fd), []byte("/dev/ptmx"), rights, nil, unix.MSG_NOSIGNAL)
		}
		return sent != unix.EAGAIN
	})
	return errors.Join(err, os.NewSyscallError("sendmsg", sent))
}

// start begins to copy: the process is running.
func (t *terminal) start() {
	p := t.proc
	if p.ConsoleSocket != nil {
		close(t.done)
		return
	}
	if p.Stdin != nil || p.Stdout != nil {
		if _, err := t.attach(p.Stdin, p.Stdout, &attachment{own: true, sized: p.ConsoleSize != ConsoleSize{}}); err != nil {
			t.fail(err)
		}
	}
	go t.copyOutput()
}

// copyOutput reads until nobody can write any more. As long as the process lives it may have closed
// its terminal only to open it again.
func (t *terminal) copyOutput() {
	defer close(t.done)
	buf := make([]byte, 32<<10)
	for {
		over := isClosed(t.ended)
		n, err := t.master.Read(buf)
		if n > 0 {
			t.write(buf[:n])
		}
		switch {
		case err == nil:
		case !errors.Is(err, unix.EIO) || over:
			return
		default:
			select {
			case <-t.ended:
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// write passes output on to who is attached.
func (t *terminal) write(b []byte) {
	t.mu.Lock()
	a, out := t.now, io.Writer(nil)
	if a != nil {
		out = a.out
	}
	t.mu.Unlock()
	if out == nil {
		return
	}
	if _, err := out.Write(b); err != nil {
		a.end(err)
	}
}

func (t *terminal) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// processEnded ends the input: what is typed from now on is meant for somebody else.
func (t *terminal) processEnded() {
	close(t.ended)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now != nil {
		t.now.stopInput()
	}
}

// wait waits until all has been copied, after the end of the process; see streams.wait.
func (t *terminal) wait(delay time.Duration) error {
	var late <-chan time.Time // never, if there is no bound
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		late = timer.C
	}
	expired := false
	await := func(done <-chan struct{}) {
		if expired {
			return
		}
		select {
		case <-done:
		case <-late:
			expired = true
			t.fail(exec.ErrWaitDelay)
		}
	}
	await(t.done)
	t.mu.Lock()
	a := t.now
	t.over = true
	t.mu.Unlock()
	if a != nil {
		if a.end(nil); a.own {
			await(a.inputDone)
		}
	}
	if t.master != nil {
		t.master.Close()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// abandon closes what there is: the process was not started.
func (t *terminal) abandon() {
	if t.master != nil {
		t.master.Close()
	}
}

// hasLeft is closed while the user has detached and not attached again. For a process without a
// terminal it never is.
func (t *terminal) hasLeft() <-chan struct{} {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.left
}

// setSize is TIOCSWINSZ.
func (t *terminal) setSize(size ConsoleSize) error {
	conn, err := t.master.SyscallConn()
	if err != nil {
		return ErrNotRunning
	}
	cerr := conn.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: size.Width, Row: size.Height})
	})
	if cerr != nil {
		return ErrNotRunning
	}
	return os.NewSyscallError("ioctl", err)
}

// copySize gives it the size of the terminal tty.
func (t *terminal) copySize(tty int) error {
	size, err := windowSize(tty)
	if err != nil {
		return err
	}
	return t.setSize(size)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
