//go:build linux

package container

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file is the supervisor of a detached container: a launcher that stays as the parent of the first
// process, and at its end writes to the record how it has ended. The steps are added in the caller's
// process; the supervisor itself does nothing but wait, holds no file but that one, and is in none of
// the container's namespaces.

// What the supervisor writes: the status of wait4(2), struct rusage, struct timespec.
const (
	exitRusage = 8
	exitTime   = exitRusage + 144
	exitSize   = exitTime + 16
)

// unknownExit is the exit code of a process whose end nobody has seen.
const unknownExit = -1

// errUnknownExit is returned by Wait for such a process.
var errUnknownExit = errors.New("nobody has seen how the process ended: its parent was not ours")

// stepSupervisor forks: the child goes on. With CLONE_PARENT the child's child will be the supervisor's
// too, so the last process to end is the container's.
func (pl *plan) stepSupervisor() error {
	if !pl.supervised() {
		return nil
	}
	if pl.exit == nil { // for Explain
		f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return &Error{Op: "supervisor", Err: err}
		}
		pl.exit = f
	}
	child := pl.Label()
	exit := pl.File(pl.exit)
	cgroup := launch.Arg(-1)
	if pl.cgroup != nil && pl.adopt == nil {
		cgroup = pl.File(pl.cgroup)
	}
	forked := pl.forkInto(cgroup).Case(0, child)

	pl.Call(unix.SYS_SETSID) // no terminal's hangup reaches it
	pl.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, pl.Str("container:wait"))
	pl.Call(unix.SYS_CHDIR, pl.Str("/")) // no mount of the caller's is kept busy
	pl.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, pl.Words(-1), 0, 8)
	pl.Call(unix.SYS_CLOSE_RANGE, 0, exit-1, 0)
	pl.Call(unix.SYS_CLOSE_RANGE, exit+1, 1<<32-1, 0)
	record := pl.Zero(exitSize)
	maker, again, done := pl.Label(), pl.Label(), pl.Label()
	pl.Here(maker) // the launcher that has made the first process may outlive it, and must not be taken for it
	pl.Call(unix.SYS_WAIT4, forked.Result(), record, 0, record+exitRusage).On(unix.EINTR, maker).On(unix.ECHILD, done)
	pl.Here(again)
	pl.Call(unix.SYS_WAIT4, -1, record, 0, record+exitRusage).On(unix.EINTR, again).On(unix.ECHILD, done).Then(again)
	pl.Here(done)
	pl.Call(unix.SYS_CLOCK_GETTIME, unix.CLOCK_REALTIME, record+exitTime)
	pl.Call(unix.SYS_WRITE, exit, record, exitSize)
	pl.Exit(0)

	pl.Here(child)
	if cgroup != -1 {
		pl.close(cgroup)
	}
	switch {
	case !pl.forks():
		pl.Send(tagHeld, pl.Call(unix.SYS_GETPID).Result())
		pl.Wait()
	case pl.userns == usernsParent || pl.userns == usernsClone: // it is the one to be mapped
		pl.Send(tagPid, pl.Call(unix.SYS_GETPID).Result())
	}
	return nil
}

// forkInto is fork(2), with a child that is born in a cgroup if it is not -1. The supervisor is not in it: it would be
// counted, stopped and killed with the container.
func (pl *plan) forkInto(cgroup launch.Arg) launch.Op {
	if cgroup == -1 {
		return pl.Call(unix.SYS_CLONE, launch.Arg(unix.SIGCHLD))
	}
	// struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
	args := pl.Words(unix.CLONE_INTO_CGROUP, 0, 0, 0, launch.Arg(unix.SIGCHLD), 0, 0, 0, 0, 0, cgroup)
	return pl.Call(unix.SYS_CLONE3, args, 11*8)
}

// An exitRecord is what a supervisor has written.
type exitRecord struct {
	status syscall.WaitStatus
	rusage unix.Rusage
	end    time.Time
}

func parseExit(text []byte) (e exitRecord, ok bool) {
	if len(text) != exitSize {
		return e, false
	}
	word := func(at int) int64 { return int64(binary.NativeEndian.Uint64(text[at:])) }
	e.status = syscall.WaitStatus(uint32(word(0)))
	e.rusage.Utime = unix.NsecToTimeval(word(exitRusage)*1e9 + word(exitRusage+8)*1e3)
	e.rusage.Stime = unix.NsecToTimeval(word(exitRusage+16)*1e9 + word(exitRusage+24)*1e3)
	e.end = time.Unix(word(exitTime), word(exitTime+8))
	return e, true
}

// readExit completes the state of a process that has ended with what the supervisor has written.
func (r record) readExit(s *stored) error {
	text, err := r.text(exitFile)
	if err != nil {
		return onlyScarce(err)
	}
	if e, ok := parseExit(text); ok {
		s.Stopped = e.end
		s.ExitCode, s.ExitSignal = exitCode(exitError(e.status))
	}
	return nil
}

// reapSupervised waits for the end of the supervisor, which comes after that of the process.
func (l *liveProcess) reapSupervised() error {
	defer l.exitFile.Close()
	err := l.supervisor.reap()
	l.supervisor.pidfd.Close()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.NewSectionReader(l.exitFile, 0, exitSize+1))
	if err != nil {
		return err
	}
	e, ok := parseExit(text)
	if !ok { // the supervisor was killed; the process is a stranger's child now
		err := waitPidfd(l.pidfd)
		l.end = time.Now()
		return errors.Join(err, errUnknownExit)
	}
	l.status, l.rusage, l.end = e.status, e.rusage, e.end
	return nil
}

// waitPidfd waits for the end of a process, which need not be a child.
func waitPidfd(pidfd *os.File) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(fds, 0)
		return n > 0
	})
}
