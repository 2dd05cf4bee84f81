//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file carries a plan out: it starts the launcher, does what the launcher waits for, and
// turns what it reports into errors. It runs in the caller's process.

// started is what start returns.
type started struct {
	*liveProcess
	release func() // when the process has ended
}

// start starts the plan's process. When it returns, the user's program is running, or nothing is.
func (pl *plan) start(ctx context.Context, tempDir string, fault *launch.Fault) (*started, error) {
	if upper := pl.cfg.Root.Upper; upper != "" {
		if err := os.MkdirAll(upper, 0o700); err != nil {
			pl.closeAll()
			return nil, &Error{Op: "upper layer", Path: upper, Err: err}
		}
	}
	child, err := pl.Start(&launch.Attr{
		Sys:        pl.sysProcAttr(),
		Stdio:      pl.stdio,
		Extra:      pl.proc.ExtraFiles,
		KeepThread: pl.cfg.DieWithParent,
		TempDir:    tempDir,
		Fault:      fault,
	})
	exit := pl.exit
	if err == nil {
		pl.exit = nil
	}
	pl.closeAll()
	if err != nil {
		return nil, startError(err)
	}
	s := &starting{plan: pl, child: child, exit: exit}
	if err := s.converse(ctx); err != nil {
		s.abort()
		return nil, err
	}
	live, err := s.handOver()
	if err != nil {
		s.abort()
		return nil, err
	}
	return &started{liveProcess: live, release: child.Release}, nil
}

// awaitEnd waits for the end of the process.
func (s *started) awaitEnd() {
	err := s.reap()
	if err == nil {
		err = exitError(s.status)
	}
	s.exit = err
	close(s.ended)
	s.release()
}

// discard ends a process that nobody will wait for.
func (s *started) discard() {
	s.signal(unix.SIGKILL)
	s.reap()
	s.pidfd.Close()
	s.release()
}

// starting is a launcher at work.
type starting struct {
	*plan
	child   *launch.Child
	exit    *os.File // what the supervisor writes
	waiting bool     // the launcher waits for our Go
	ready   bool     // all is set up

	// Where the launcher forks, the container's first process is its child, and ours by
	// CLONE_PARENT. Until its number is known the launcher must not be killed: the child would be
	// nobody's to find.
	mu       sync.Mutex
	canceled bool
	innerPid int
	innerFD  int
}

// cancel kills what there is. It runs when the context ends.
func (s *starting) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.canceled = true
	switch {
	case s.innerPid != 0:
		unix.PidfdSendSignal(s.innerFD, unix.SIGKILL, nil, 0)
	case s.supervised():
		killChildren(s.child.Process().Pid) // the supervisor is ours, so its children are what we think
	case !s.forks():
		s.child.Process().Kill()
	}
}

// setInner takes note of the first process.
func (s *starting) setInner(pid int) error {
	// Nobody else can wait for it, or it waits for us: the number is still its own.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil { // too many open files
		if child, err := os.FindProcess(pid); err == nil && pid > 0 {
			child.Kill()
			child.Wait()
		}
		return &Error{Op: "start", Err: os.NewSyscallError("pidfd_open", err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.innerPid != 0 {
		unix.Close(s.innerFD)
	}
	s.innerPid, s.innerFD = pid, fd
	if s.canceled {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	return nil
}

// converse answers the launcher until it has executed the program or has failed. If ctx ends first
// the process is killed, which ends the conversation.
func (s *starting) converse(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	last := false
	for !s.ready {
		msg, err := s.child.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return stepError(err)
		}
		switch msg.Tag {
		case tagMaps:
			s.waiting = true
			pid := cmp.Or(s.innerPid, s.child.Process().Pid)
			if err := writeMaps(ctx, pid, s.uidMaps, s.gidMaps); err != nil {
				return err
			}
			if s.needsHelpers() {
				keptUserNamespaces.keep(pid, s.uidMaps, s.gidMaps)
			}
			s.waiting = false
			if err := s.goOn(); err != nil {
				return err
			}
		case tagPid, tagHeld:
			if err := s.setInner(int(msg.Value)); err != nil {
				return err
			}
			if msg.Tag == tagHeld {
				if err := s.goOn(); err != nil {
					return err
				}
			}
		case tagReady:
			s.ready = true
		case tagLast:
			last = true
		}
	}
	if err := ctx.Err(); err != nil {
		return &Error{Op: "start", Err: err}
	}
	if s.forks() && s.innerPid == 0 || s.supervised() && !s.ready && !last {
		return &Error{Op: "start", Err: launch.ErrDied}
	}
	if s.gate != nil && !s.ready {
		return &Error{Op: "start", Err: launch.ErrDied}
	}
	return nil
}

// goOn lets the launcher go on from where it waits.
func (s *starting) goOn() error {
	if err := s.child.Go(); err != nil && !errors.Is(err, unix.EPIPE) {
		return &Error{Op: "start", Err: err}
	} // with EPIPE it is gone, and why is the next message
	return nil
}

// handOver returns the process, which has executed the user's program. One that was killed before
// that has closed the socket as well, but still bears the launcher's name.
func (s *starting) handOver() (*liveProcess, error) {
	pid, fd := s.child.Process().Pid, -1
	if s.supervised() {
		return s.handOverSupervised()
	}
	if s.innerPid != 0 {
		if err := s.waitOuter(); err != nil {
			return nil, err
		}
		pid, fd = s.innerPid, s.innerFD
		s.innerPid = 0
	} else {
		fd = s.child.PidFD()
		s.child.Process().Release()
	}
	live, err := newLiveProcess(pid, fd)
	if err != nil {
		return nil, &Error{Op: "start", Err: err}
	}
	if !s.ready && diedInLauncher(pid, fd) {
		live.reap()
		live.pidfd.Close()
		return nil, &Error{Op: "start", Err: launch.ErrDied, Remedy: "something outside killed it"}
	}
	return live, nil
}

// handOverSupervised returns the process with its supervisor, which is ours to wait for.
func (s *starting) handOverSupervised() (*liveProcess, error) {
	supervisor, err := newLiveProcess(s.child.Process().Pid, s.child.PidFD())
	if err != nil {
		return nil, &Error{Op: "start", Err: err}
	}
	live, err := newLiveProcess(s.innerPid, s.innerFD)
	s.innerPid = 0
	if err != nil {
		supervisor.pidfd.Close()
		return nil, &Error{Op: "start", Err: err}
	}
	s.child.Process().Release()
	live.supervisor, live.exitFile = supervisor, s.exit
	return live, nil
}

// waitOuter waits for the process that made the namespaces and is done.
func (s *starting) waitOuter() error {
	state, err := s.child.Process().Wait()
	if err != nil {
		return &Error{Op: "start", Err: err}
	}
	if !state.Success() {
		return &Error{Op: "start", Err: fmt.Errorf("the launcher ended with %v", state)}
	}
	return nil
}

// diedInLauncher looks at a process that may be dead but has not been waited for.
func diedInLauncher(pid, pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, 0); n == 0 {
		return false // alive, so the socket was closed by execve
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return err == nil && strings.TrimSuffix(string(text), "\n") == launch.ProcessName
}

// abort kills what there is and waits for it.
func (s *starting) abort() {
	if s.supervised() {
		s.abortSupervised()
		return
	}
	if s.forks() && !s.waiting {
		// A failure of the child may be here before its number is.
		for s.innerPid == 0 {
			msg, err := s.child.Next()
			if err == io.EOF || err == nil && msg.Tag == tagPid && s.setInner(int(msg.Value)) != nil {
				break
			}
		}
	}
	s.child.Process().Kill()
	s.child.Process().Wait()
	if s.innerPid != 0 {
		unix.PidfdSendSignal(s.innerFD, unix.SIGKILL, nil, 0)
		if live, err := newLiveProcess(s.innerPid, s.innerFD); err == nil {
			live.reap()
			live.pidfd.Close()
		}
	}
	s.child.Release()
}

// abortSupervised kills whatever children the supervisor has, until it has none and ends.
func (s *starting) abortSupervised() {
	ended := make(chan struct{})
	go func() {
		s.child.Process().Wait()
		close(ended)
	}()
	s.child.CloseSocket() // ends one that waits for us
	for {
		killChildren(s.child.Process().Pid)
		select {
		case <-ended:
			if s.innerPid != 0 {
				unix.Close(s.innerFD)
			}
			s.exit.Close()
			s.child.Release()
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// startError is for what failed before there was a process.
func startError(err error) error {
	e := &Error{Op: "start", Err: err}
	switch {
	case errors.Is(err, unix.EPERM):
		e.Remedy = "without root the container needs a user namespace: set Namespaces.NewUser"
	case errors.Is(err, unix.ENOSPC):
		e.Remedy = "a limit on namespaces is reached: see /proc/sys/user/max_*_namespaces"
	}
	return e
}

// stepError turns the failure of a call of the launcher into an Error that says what the user asked
// for, and what to do about it.
func stepError(err error) error {
	var e *launch.Error
	if !errors.As(err, &e) {
		return &Error{Op: "start", Err: err}
	}
	out := &Error{Op: e.Step.Name, Path: e.Step.Object, Err: os.NewSyscallError(e.Syscall, e.Errno)}
	if e.Syscall == "sub" { // a verification of ours
		out.Err = e.Errno
	}
	switch e.Step.Name {
	case "executable":
		out.Op, out.Err = "execute", fmt.Errorf("%w: %w", ErrNotFound, e.Errno)
		if e.Errno == unix.EACCES {
			out.Err = fmt.Errorf("%w: %w", ErrNotExecutable, e.Errno)
		}
	case "execute":
		out.Err = fmt.Errorf("%w: %w", ErrNotExecutable, e.Errno)
		if e.Errno == unix.ENOENT {
			out.Err = fmt.Errorf("%w: its interpreter is missing: %w", ErrNotFound, e.Errno)
		}
	}
	for _, r := range remedies {
		if (r.step == "" || r.step == e.Step.Name) && (r.call == "" || r.call == e.Syscall) && r.errno == e.Errno {
			out.Remedy = r.text
			break
		}
	}
	return out
}

// remedies says what the user can do about a failed call. The first row that fits is taken.
var remedies = []struct {
	step, call string
	errno      unix.Errno
	text       string
}{
	{"user namespace", "unshare", unix.EPERM, "user namespaces are not allowed here: see kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, and Check"},
	{"user namespace", "unshare", unix.ENOSPC, "the limit on user namespaces is reached: sysctl user.max_user_namespaces, or too deeply nested"},
	{"user namespace", "openat2", unix.EACCES, "/proc must be mounted and writable for the caller"},
	{"namespaces", "unshare", unix.EPERM, "without root the container needs a user namespace: set Namespaces.NewUser"},
	{"namespaces", "unshare", unix.ENOSPC, "a limit on namespaces is reached: see /proc/sys/user/max_*_namespaces"},
	{"keyring", "", unix.EDQUOT, "the user has too many keys: sysctl kernel.keys.maxkeys, or set HostKeyring"},
	{"mount source", "open_tree", unix.EINVAL, "in a user namespace a bind must bring the mounts below its source: set Recursive"},
	{"mount source", "mount_setattr", unix.EPERM, "in a user namespace the flags of a mount of the host's cannot be removed"},
	{"mount", "sub", unix.EXDEV, "a symbolic link in the root leads this target into /proc or /sys"},
	{"mount", "move_mount", unix.EINVAL, "a directory is mounted on a directory, a file on a file"},
	{"mount", "fsconfig", unix.EPERM, "the kernel shows this file system only where the host's is fully visible, and with a namespace of the container's own"},
	{"root", "open_tree", unix.EACCES, aboveReachable},
	{"mount source", "open_tree", unix.EACCES, aboveReachable},
	{"", "", unix.EROFS, "it would have to be made in a read-only file system; make it beforehand or use CopyOnWrite"},
	{"device", "mknodat", unix.EPERM, "making nodes needs CAP_MKNOD; with Namespaces.NewUser the host's are bound"},
	{"oom score", "", unix.EACCES, "lowering it needs CAP_SYS_RESOURCE"},
	{"capabilities", "capset", unix.EPERM, "the caller does not have all of the permitted capabilities"},
	{"bounding set", "", unix.EPERM, "dropping capabilities needs CAP_SETPCAP"},
	{"rlimit", "", unix.EPERM, "raising a hard limit needs CAP_SYS_RESOURCE on the host"},
}

const aboveReachable = "the container's root user, as who it is on the host, must be able to enter all directories above: chmod o+x"

// watch makes an end of ctx the end of the process: the stop signal, the grace, SIGKILL.
func (l *liveProcess) watch(ctx context.Context, sig syscall.Signal, grace time.Duration) {
	if ctx.Done() == nil {
		return
	}
	select {
	case <-l.ended:
	case <-ctx.Done():
		l.stop(context.Background(), sig, grace)
	}
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
