//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file carries a plan out: it starts the launcher, does what the launcher waits for, and
// turns what it reports into errors. It runs in the caller's process.

// runToEnd runs a program that executes nothing else, and waits for it. Op is for an error that is none of its steps'.
func runToEnd(op string, p *launch.Program, tempDir string) error {
	child, err := p.Start(&launch.Attr{TempDir: tempDir})
	if err != nil {
		return &Error{Op: op, Err: err}
	}
	defer child.Release()
	_, failure := child.Next() // io.EOF if nothing failed
	state, err := child.Process().Wait()
	if err != nil {
		return err
	}
	var failed *launch.Error
	if errors.As(failure, &failed) {
		return stepError(failed)
	}
	if !state.Success() {
		return &Error{Op: op, Err: fmt.Errorf("%w: %v", launch.ErrDied, state)}
	}
	return nil
}

// Messages of the launcher.
const (
	tagMaps       = 1 + iota // it is in the user namespace, and waits for its maps
	tagAdopt                 // it waits until it is in the container's cgroup
	tagPid                   // the number of the container's first process, or of the one that will fork it
	tagHeld                  // the same, where somebody else might wait for that process: it goes on when we know it
	tagHooks                 // it waits for the hooks before pivot_root
	tagStartHooks            // it waits for those of StartContainer, in a Run; in a Start it waits at the gate
	tagConsole               // a file: the caller's side of the process's terminal
	tagNetwork               // it has a network namespace, and will wait until that is connected
	tagSocket                // a file: a socket of that namespace, for the relay
	tagPlaced                // it is in its namespaces and its cgroup
	tagVerify                // it can be looked at, and will wait until it has been
	tagReady                 // all is set up: the rest is between the launcher and whoever starts the container
	tagAgent                 // it waits for what it will tell the seccomp agent
	tagLast                  // what follows is the filter, and execve
)

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
		at("start: upper directory")
	}
	if err := pl.listener.connect(ctx); err != nil {
		pl.closeAll()
		return nil, err
	}
	child, err := pl.Start(&launch.Attr{
		Sys:        pl.sysProcAttr(),
		Stdio:      pl.stdio,
		Extra:      pl.proc.ExtraFiles,
		KeepThread: pl.cfg.DieWithParent,
		TempDir:    tempDir,
		Fault:      fault,
	})
	exit, hooks := pl.exit, pl.hooks
	if err == nil {
		pl.exit, pl.hooks = nil, hookFiles{}
		pl.listener.receive(pl.log)
	}
	pl.closeAll()
	if err != nil {
		return nil, startError(err)
	}
	at("launcher: started")
	s := &starting{plan: pl, child: child, exit: exit, hooks: hooks}
	defer s.hooks.close()
	if err := s.converse(ctx); err != nil {
		s.abort()
		return nil, err
	}
	at("launcher: done")
	live, err := s.handOver()
	if err != nil {
		s.abort()
		return nil, err
	}
	at("launcher: handed over")
	return &started{liveProcess: live, release: child.Release}, nil
}

// awaitEnd waits for the end of the process, and takes back what must be gone before anybody sees that it has ended.
func (s *started) awaitEnd(takeBack func()) {
	err := s.reap()
	if err == nil {
		err = exitError(s.status)
	}
	if s.guard != nil {
		err = s.guard.verdict(s.status, err)
	}
	s.exit = err
	takeBack()
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
	child      *launch.Child
	exit       *os.File // what the supervisor writes
	waiting    bool     // the launcher waits for our Go
	hooked     uint32   // it waits for the hooks of this message
	looking    []uint32 // it is to be looked at, because of these messages
	verified   bool     // it was as it should be
	networking bool     // it waits for its network
	asking     bool     // it waits for what it will tell the seccomp agent
	ready      bool     // all is set up
	hooks      hookFiles

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
	if !s.isOurs(pid) {
		return &Error{Op: "start", Err: fmt.Errorf("the launcher has named a process that it has not made: %d", pid)}
	}
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

// isOurs tells whether a process is a child of ours, or of the supervisor, which is one: what the launcher says is
// only a number, and we kill whom it names.
func (s *starting) isOurs(pid int) bool {
	if !s.supervised() {
		return pid > 0 && unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	parent, start := parseStat(string(text))
	return scarce(err) || start != 0 && parent == s.child.Process().Pid
}

// converse answers the launcher until it has executed the program or has failed. If ctx ends first
// the process is killed, which ends the conversation.
func (s *starting) converse(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	last := false
	// Who is ready may be so before the one that has made it could tell its number.
	for !s.ready || s.forks() && s.innerPid == 0 {
		msg, err := s.child.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return s.hooks.explain(stepError(err))
		}
		if msg.Tag != tagConsole && msg.Tag != tagSocket {
			msg.File.Close() // there is none
		}
		switch msg.Tag {
		case tagMaps:
			s.waiting = true
			pid := cmp.Or(s.innerPid, s.child.Process().Pid)
			if err := writeMaps(ctx, pid, s.uidMaps, s.gidMaps); err != nil {
				return err
			}
			at("launcher: mapped")
			if s.needsHelpers() {
				keptUserNamespaces.keep(pid, s.uidMaps, s.gidMaps)
			}
			if err := s.goOn(); err != nil {
				return err
			}
			s.waiting = false
			at("launcher: goes on")
		case tagAdopt:
			if err := s.adoptLauncher(ctx, int(msg.Value)); err != nil {
				return err
			}
		case tagPid, tagHeld:
			if err := s.setInner(int(msg.Value)); err != nil {
				return err
			}
			at("launcher: first process known")
			if msg.Tag == tagHeld {
				if err := s.goOn(); err != nil {
					return err
				}
				at("launcher: first process goes on")
			}
		case tagHooks, tagStartHooks:
			s.hooked = msg.Tag
		case tagAgent:
			s.asking = true
		case tagNetwork:
			s.networking = true
		case tagSocket:
			s.network.sockets = append(s.network.sockets, msg.File)
		case tagPlaced, tagVerify:
			s.looking = append(s.looking, msg.Tag)
		case tagReady:
			at("launcher: ready")
			s.ready = true
		case tagLast:
			last = true
		case tagConsole:
			if err := s.proc.term.receive(msg.File); err != nil {
				return &Error{Op: "console", Err: err}
			}
		}
		if err := s.tellAgent(); err != nil {
			return err
		}
		if s.networking && s.firstPid() != 0 {
			if err := s.atNetwork(ctx); err != nil {
				return err
			}
		}
		if s.hooked != 0 && s.firstPid() != 0 {
			if err := s.atHooks(ctx); err != nil {
				return err
			}
		}
		if len(s.looking) > 0 && s.firstPid() != 0 {
			if err := s.look(); err != nil {
				return err
			}
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
	if s.ready {
		awaitGate(s.firstPid())
		alive, err := s.verify(s.firstPid(), finalChecks)
		if err == nil && !alive && s.firstEnded() {
			err = &Error{Op: "start", Err: launch.ErrDied}
		}
		return err
	}
	if !s.verified { // it was killed, whether it is dead already or not
		return &Error{Op: "start", Err: launch.ErrDied, Remedy: "something outside killed it"}
	}
	return nil
}

// adoptLauncher has the launcher moved into the container's cgroup. What it says of itself counts only below a supervisor: in a
// PID namespace it has another number.
func (s *starting) adoptLauncher(ctx context.Context, pid int) error {
	s.waiting = true
	if !s.supervised() {
		pid = s.child.Process().Pid
	} else if !s.isOurs(pid) {
		return &Error{Op: "start", Err: fmt.Errorf("the launcher has named a process that it has not made: %d", pid)}
	}
	if err := s.adopt(ctx, pid); err != nil {
		return err
	}
	at("launcher: adopted")
	err := s.goOn()
	s.waiting = err != nil // what it could not be told it waits for
	return err
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
		return nil, diedError(live)
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
