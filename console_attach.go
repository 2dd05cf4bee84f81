//go:build linux

package container

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file connects the caller's streams with a process's terminal: raw mode, the keys that detach,
// the size. It runs in the caller's process.

// An attachment connects the caller's streams with a terminal.
type attachment struct {
	own   bool // made by the start of the process: Wait tells of its errors
	sized bool // begins with a size that is not the caller's terminal's

	term      *terminal
	out       io.Writer
	stop      io.Closer     // ends input
	inputDone chan struct{} // closed when nothing reads input any more
	done      chan struct{} // closed when it has ended
	once      sync.Once
	err       error // why it has ended; nil if the process has

	tty     int // the caller's terminal, or -1
	saved   *unix.Termios
	resize  chan os.Signal
	resized chan struct{} // closed when the size is not followed any more
}

// attach connects the streams and returns at once.
func (t *terminal) attach(in io.Reader, out io.Writer, a *attachment) (*attachment, error) {
	a.term, a.tty = t, -1
	a.inputDone, a.done, a.resized = make(chan struct{}), make(chan struct{}), make(chan struct{})
	if f, ok := out.(*os.File); !ok || f != nil {
		a.out = out
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.over || isClosed(t.ended):
		return nil, ErrNotRunning
	case t.now != nil:
		return nil, errors.New("somebody is attached already")
	}
	input := in
	if f, ok := in.(*os.File); ok && f == nil {
		input = nil
	} else if ok {
		r, stop, err := newPolledReader(f)
		if err != nil {
			return nil, err
		}
		input, a.stop = r, stop
	}
	if err := a.takeTerminal(in, out); err != nil {
		a.stopInput()
		if c, ok := input.(io.Closer); ok && a.stop != nil {
			c.Close()
		}
		return nil, err
	}
	t.master.SetWriteDeadline(time.Time{})
	if isClosed(t.left) {
		t.left = make(chan struct{})
	}
	t.now = a
	go a.copyInput(input)
	go a.followSize()
	return a, nil
}

// takeTerminal puts the caller's terminal into raw mode, if there is one.
func (a *attachment) takeTerminal(in io.Reader, out io.Writer) (err error) {
	f := callerTerminal(in, out)
	if f == nil {
		return nil
	}
	if a.tty, err = duplicate(f); err != nil {
		return err
	}
	if _, ok := isTerminal(in); ok {
		if a.saved, err = makeRaw(a.tty); err != nil {
			unix.Close(a.tty)
			return err
		}
	}
	a.resize = make(chan os.Signal, 1)
	signal.Notify(a.resize, syscall.SIGWINCH, syscall.SIGCONT)
	if !a.sized {
		a.resize <- syscall.SIGWINCH // what has changed since the process's terminal was made
	}
	return nil
}

// stopInput ends reading. It may be called again.
func (a *attachment) stopInput() {
	if a.stop != nil {
		a.stop.Close()
	}
}

// copyInput passes on what is typed until its end, the end of the attachment, or the keys.
func (a *attachment) copyInput(in io.Reader) {
	defer close(a.inputDone)
	if in == nil {
		return
	}
	if c, ok := in.(*polledReader); ok {
		defer c.Close()
	}
	watch := keyWatch{keys: a.term.keys}
	buf := make([]byte, 4<<10)
	for {
		n, err := in.Read(buf)
		if isClosed(a.done) || isClosed(a.term.ended) {
			return
		}
		typed, found := watch.pass(buf[:n])
		if _, werr := a.term.master.Write(typed); werr != nil {
			return // the process is gone, or we are
		}
		switch {
		case found:
			a.end(ErrDetached)
			return
		case err == io.EOF:
			return
		case err != nil:
			if !a.own {
				a.end(err)
			} else {
				a.term.fail(err) // there still is output
			}
			return
		}
	}
}

// followSize gives the process's terminal the size of the caller's, whenever that changes. After
// SIGCONT the mode may be what the shell has set for itself.
func (a *attachment) followSize() {
	defer close(a.resized)
	if a.tty < 0 {
		return
	}
	for sig := range a.resize {
		if sig == syscall.SIGCONT && a.saved != nil {
			makeRaw(a.tty)
		}
		a.term.copySize(a.tty)
	}
}

// end ends the attachment, for the reason given, and restores the caller's terminal. It may be called
// again.
func (a *attachment) end(reason error) {
	a.once.Do(func() {
		t := a.term
		t.mu.Lock()
		a.out = nil
		t.mu.Unlock()
		a.stopInput()
		t.master.SetWriteDeadline(time.Unix(1, 0)) // ends a write that waits for the process to read
		a.restoreTerminal()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.now, a.err = nil, reason
		switch {
		case reason == ErrDetached:
			close(t.left)
		case a.own && t.err == nil:
			t.err = reason
		}
		close(a.done)
	})
}

func (a *attachment) restoreTerminal() {
	if a.tty < 0 {
		return
	}
	signal.Stop(a.resize)
	close(a.resize)
	<-a.resized
	a.term.mu.Lock()
	defer a.term.mu.Unlock()
	if a.saved != nil {
		unix.IoctlSetTermios(a.tty, unix.TCSETS, a.saved)
	}
	unix.Close(a.tty)
	a.tty = -1
}

// console is the terminal of a process that has been started, or an error.
func (p *Process) console(op string) (*terminal, error) {
	fail := func(err error, remedy string) (*terminal, error) {
		return nil, &Error{Op: op, Err: err, Remedy: remedy}
	}
	switch {
	case p.live == nil:
		return fail(ErrNotRunning, "")
	case p.term == nil:
		return fail(errors.New("the process has no terminal"), "set Tty")
	case p.ConsoleSocket != nil:
		return fail(errors.New("the terminal is not here"), "who has received it from ConsoleSocket has it")
	case isClosed(p.term.ended):
		return fail(ErrNotRunning, "")
	}
	return p.term, nil
}

// Resize changes the size of the process's terminal, in characters; the processes in its foreground get
// SIGWINCH. It returns ErrNotRunning if the process has ended.
func (p *Process) Resize(size ConsoleSize) error {
	t, err := p.console("resize")
	if err == nil {
		if err = t.setSize(size); err != nil {
			err = &Error{Op: "resize", Err: err}
		}
	}
	return err
}

// Attach connects in and out with the terminal of a process that nobody is attached to: one that was
// started with neither Stdin nor Stdout, or that the user has detached from. Both may be nil. If in is a
// terminal it is in raw mode meanwhile, and the process is asked to draw anew, by a change of its
// terminal's size. What the process has written meanwhile is not shown.
//
// Attach returns nil when the process has ended and its output has been copied, ErrDetached when the
// user has typed DetachKeys, the context's error when ctx is done, which does not end the process, and
// ErrNotRunning if the process has ended before.
func (p *Process) Attach(ctx context.Context, in io.Reader, out io.Writer) error {
	t, err := p.console("attach")
	if err != nil {
		return err
	}
	a, err := t.attach(in, out, &attachment{})
	if err != nil {
		return &Error{Op: "attach", Err: err}
	}
	t.redraw(callerTerminal(in, out))
	select {
	case <-a.done:
	case <-ctx.Done():
		a.end(ctx.Err())
		<-a.done
	}
	return a.err
}

// redraw gives the process's terminal the size of tty, by way of another.
func (t *terminal) redraw(tty *os.File) {
	if tty == nil {
		return
	}
	fd, err := duplicate(tty)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if size, err := windowSize(fd); err == nil {
		t.setSize(ConsoleSize{size.Width, size.Height + 1})
		t.setSize(size)
	}
}

// followSize gives the terminal of the process the size of the caller's, if the caller is attached by one.
func (p *Process) followSize() bool {
	t, err := p.console("resize")
	if err != nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock() // so that the attachment does not end, and close its terminal
	return t.now != nil && t.now.tty >= 0 && t.copySize(t.now.tty) == nil
}

// followSize is that of the first process.
func (c *Container) followSize() bool {
	p, err := c.process()
	return err == nil && p.followSize()
}
