//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"example.com/container/internal/seccomp"
	"golang.org/x/sys/unix"
)

// This file serves the listener of a filter: it takes calls from the kernel, has the handler decide and passes the answers back. It
// runs in the caller's process: one goroutine for each listener, in the runtime's poller, and one for each call.

// maxSeccompCalls is how many calls of a listener are decided at the same time. The next ones wait.
const maxSeccompCalls = 64

// A seccompListener is the open listener of a filter. It ends with the last process that has the filter.
type seccompListener struct {
	f       *os.File
	conn    syscall.RawConn
	handler SeccompHandler
	log     *slog.Logger
	slots   chan struct{} // filled by those at work
}

// serveSeccomp serves a listener in the background. It takes ownership of f, which comes from the launcher, or from who could
// take its place at the gate: then it may be anything.
func serveSeccomp(f *os.File, handler SeccompHandler, log *slog.Logger) error {
	// No file with a path has this name, and no other kind without one.
	if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil || name != "anon_inode:seccomp notify" {
		f.Close()
		return fmt.Errorf("%q is no listener: %w", name, errors.Join(err, unix.EINVAL))
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	f.Close()
	if err == nil {
		if err = unix.SetNonblock(fd, true); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	l := &seccompListener{f: os.NewFile(uintptr(fd), "seccomp listener"), handler: handler, log: log, slots: make(chan struct{}, maxSeccompCalls)}
	if l.conn, err = l.f.SyscallConn(); err != nil {
		l.f.Close()
		return err
	}
	go l.serve()
	return nil
}

// serve takes calls until the filter has no process.
func (l *seccompListener) serve() {
	defer l.f.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		l.slots <- struct{}{}
		n, err := l.next()
		if err != nil {
			if err != errNoFilteredProcess {
				l.log.Warn("a seccomp listener is not served any more: its calls fail with ENOSYS", "err", err)
			}
			return
		}
		go func() {
			defer func() { <-l.slots }()
			l.decide(ctx, n)
		}()
	}
}

var errNoFilteredProcess = errors.New("no process has the filter any more")

// next waits for a call.
func (l *seccompListener) next() (*seccompNotif, error) {
	n := new(seccompNotif)
	var failed error
	err := l.conn.Read(func(fd uintptr) (done bool) {
		for {
			// The ioctl that takes a call waits for one, whatever the descriptor's mode is: so ask first. Nobody else takes any.
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, failed = unix.Poll(fds, 0)
			switch {
			case failed == unix.EINTR:
				continue
			case failed != nil:
				return true
			case fds[0].Revents&unix.POLLIN != 0:
				failed = n.receive(int(fd))
				if failed == unix.EINTR || failed == unix.ENOENT { // it is gone again
					continue
				}
				return true
			case fds[0].Revents != 0:
				failed = errNoFilteredProcess
				return true
			}
			return false // back to the poller
		}
	})
	if err != nil {
		return nil, err
	}
	return n, failed
}

// decide has the handler decide about a call. A panic of the handler is one of the caller's process, as with any goroutine
// of its own.
func (l *seccompListener) decide(ctx context.Context, n *seccompNotif) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call := n.call()
	call.waiting = &seccompThread{l: l, id: n.id}
	go call.waiting.watch(ctx, cancel)
	answer := l.handler(ctx, call)
	if err := l.answer(n.id, &answer); err != nil {
		l.log.Warn("the answer to a system call could not be given: it fails with EPERM", "call", call.Name, "err", err)
		l.answer(n.id, &SeccompAnswer{Errno: uint(unix.EPERM)})
	}
}

// watch calls cancel when the thread does not wait any more. The kernel does not tell, so it is asked now and then; most
// answers come before the first time.
func (t *seccompThread) watch(ctx context.Context, cancel func()) {
	const first, longest = 10 * time.Millisecond, 100 * time.Millisecond
	for pause := first; sleep(ctx, pause) == nil; pause = min(2*pause, longest) {
		if t.valid() != nil {
			cancel()
		}
	}
}

// answer passes an answer on. It returns nil if nobody waits for it any more.
func (l *seccompListener) answer(id uint64, a *SeccompAnswer) error {
	if a.File != nil {
		defer a.File.Close()
	}
	var failed error
	err := l.conn.Control(func(fd uintptr) {
		switch {
		case a.Continue:
			failed = (&seccompResponse{id: id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}).send(int(fd))
		case a.Errno > 4095:
			failed = (&seccompResponse{id: id, errno: -int32(unix.EPERM)}).send(int(fd))
		case a.Errno != 0:
			failed = (&seccompResponse{id: id, errno: -int32(a.Errno)}).send(int(fd))
		case a.File != nil:
			_, failed = addFile(int(fd), id, a.File, unix.SECCOMP_ADDFD_FLAG_SEND, 0, a.CloseOnExec)
		default:
			failed = (&seccompResponse{id: id, value: a.Value}).send(int(fd))
		}
	})
	if err != nil || failed == unix.ENOENT { // the listener is closed, or the call has ended
		return nil
	}
	return failed
}

// abiByAudit are the ABIs by AUDIT_ARCH_*. X32 has that of X86_64.
func abiByAudit(audit, nr uint32) (seccomp.ABI, uint32) {
	const x32Bit = 1 << 30
	for _, abi := range []seccomp.ABI{seccomp.X86_64, seccomp.X86, seccomp.AARCH64, seccomp.ARM} {
		switch {
		case abi.Audit() != audit:
		case abi == seccomp.X86_64 && nr&x32Bit != 0:
			return seccomp.X32, nr &^ x32Bit
		default:
			return abi, nr
		}
	}
	return "", nr
}

// call describes a notification.
func (n *seccompNotif) call() *SeccompCall {
	abi, nr := abiByAudit(n.data.Arch, uint32(n.data.Nr))
	c := &SeccompCall{Number: nr, Args: n.data.Args, Pid: int(n.pid)}
	if abi != "" {
		c.Architecture = "SCMP_ARCH_" + string(abi)
		c.Name, _ = seccomp.Name(abi, nr)
	}
	return c
}
