//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the life of a started process: waiting, signals, the exit status. It runs in the
// caller's process; the process is known by its pidfd only.

// A liveProcess is a started process. Its fields do not change once done is closed.
type liveProcess struct {
	pid   int
	pidfd *os.File // in the runtime's poller, so that waiting takes no thread

	done   chan struct{} // closed when the process has ended and its output has been copied
	ended  chan struct{} // closed when the process has ended
	kept   chan struct{} // closed when its end has been recorded
	leave  bool          // Process.LeaveZombie
	guard  *guard        // nil for a process that is not the user's
	status syscall.WaitStatus
	rusage unix.Rusage
	end    time.Time
	exit   error // as exitError says, or why it is not known
	err    error // of Wait

	// Of a detached container's process, which is no child of ours.
	supervisor *liveProcess
	exitFile   *os.File

	// Of a process started by nsenter: its parent, which is our child and ends as it does.
	outer *liveProcess
}

// newLiveProcess takes ownership of pidfd, a child's.
func newLiveProcess(pid, pidfd int) (*liveProcess, error) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &liveProcess{
		pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"),
		done: make(chan struct{}), ended: make(chan struct{}), kept: make(chan struct{}),
	}, nil
}

// reap waits for the end of the process.
func (l *liveProcess) reap() error {
	switch {
	case l.supervisor != nil:
		return l.reapSupervised()
	case l.outer != nil:
		return l.reapOuter()
	}
	conn, err := l.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	options := unix.WEXITED | unix.WNOHANG
	if l.leave {
		options |= unix.WNOWAIT
	}
	var waitErr error
	err = conn.Read(func(fd uintptr) bool {
		var info waitInfo
		for {
			waitErr = unix.Waitid(unix.P_PIDFD, int(fd), info.siginfo(), options, &l.rusage)
			if waitErr != unix.EINTR {
				break
			}
		}
		if waitErr != nil && waitErr != unix.EAGAIN {
			return true
		}
		waitErr = nil
		if info.pid() == 0 {
			return false // not yet: back to the poller
		}
		l.status = info.status()
		return true
	})
	if err == nil && waitErr != nil {
		err = os.NewSyscallError("waitid", waitErr)
	}
	l.end = time.Now()
	return err
}

// stop asks the process to end, and kills it when the grace is over or ctx is done.
func (l *liveProcess) stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	if grace > 0 {
		if err := l.signal(sig); err != nil && !errors.Is(err, ErrNotRunning) {
			return err
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-l.ended:
			return nil
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if err := l.signal(unix.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	<-l.ended
	return nil
}

// signal sends sig. The pidfd never means another process.
func (l *liveProcess) signal(sig syscall.Signal) error {
	select {
	case <-l.ended:
		return ErrNotRunning
	default:
	}
	if sig == unix.SIGKILL && l.guard != nil {
		l.guard.wasKilled.Store(true)
	}
	return sendTo(l.pidfd, sig)
}

// finish waits for the copying of a process that has ended, and lets those go on that wait for it.
func (p *Process) finish(streams *streams) {
	live := p.live
	live.err = live.exit
	if err := streams.wait(p.WaitDelay); live.err == nil {
		live.err = err
	}
	live.pidfd.Close()
	close(live.done)
}

// exitError turns the status into what Wait returns.
func exitError(ws syscall.WaitStatus) error {
	switch {
	case ws.Signaled():
		return &ExitError{Code: 128 + int(ws.Signal()), Signal: ws.Signal(), CoreDumped: ws.CoreDump()}
	case ws.ExitStatus() != 0:
		return &ExitError{Code: ws.ExitStatus()}
	}
	return nil
}

// exitCode is what a record keeps of an end.
func exitCode(err error) (code int, sig syscall.Signal) {
	var exit *ExitError
	switch {
	case err == nil:
		return 0, 0
	case errors.As(err, &exit):
		return exit.Code, exit.Signal
	}
	return unknownExit, 0
}

// Pid is the process's number in the caller's PID namespace; 0 if it has not been started.
func (p *Process) Pid() int {
	if p.live == nil {
		return 0
	}
	return p.live.pid
}

// Wait waits until the process has ended and all its output has been copied. It returns nil if the
// process exited with 0, an [*ExitError] for any other end, and another error if copying failed. Any
// number of goroutines may wait; each gets the same answer. Wait closes the pipes of StdinPipe,
// StdoutPipe and StderrPipe. It returns ErrDetached, and the process goes on, while the user has detached from
// its terminal and not attached again; [Container.Wait] waits for the end all the same.
func (p *Process) Wait() error {
	if p.live == nil {
		return &Error{Op: "wait", Err: ErrNotRunning}
	}
	select {
	case <-p.live.done:
	case <-p.term.hasLeft():
		if !isClosed(p.live.done) {
			return ErrDetached
		}
	}
	return p.waitEnd()
}

// waitEnd waits for the end, whoever is attached.
func (p *Process) waitEnd() error {
	<-p.live.done
	closers(p.parentEnds).close()
	return p.live.err
}

// Signal sends a signal to the process. It returns ErrNotRunning if it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	if p.live == nil {
		return &Error{Op: "signal", Err: ErrNotRunning}
	}
	if err := p.live.signal(sig); err != nil {
		return &Error{Op: "signal", Path: signalName(sig), Err: err}
	}
	return nil
}

// SystemTime and UserTime are the CPU time of the process and its children that it waited for. They
// are 0 until it has ended.
func (p *Process) SystemTime() time.Duration {
	return p.cpuTime(func(r *unix.Rusage) unix.Timeval { return r.Stime })
}

// UserTime is the CPU time spent outside of the kernel; see SystemTime.
func (p *Process) UserTime() time.Duration {
	return p.cpuTime(func(r *unix.Rusage) unix.Timeval { return r.Utime })
}

func (p *Process) cpuTime(of func(*unix.Rusage) unix.Timeval) time.Duration {
	if p.live == nil {
		return 0
	}
	select {
	case <-p.live.ended:
		t := of(&p.live.rusage)
		return time.Duration(t.Nano())
	default:
		return 0
	}
}
