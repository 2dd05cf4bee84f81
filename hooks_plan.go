//go:build linux

package container

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns the programs of CreateContainer and StartContainer into steps of the plan. It runs in
// the caller's process. The container's first process runs them: before pivot_root it is the only one
// that is in the container's namespaces and still sees the host's tree.

// hookFiles are what the caller and the container's first process share for hooks, until the process
// is past the last one that the caller has to do with.
type hookFiles struct {
	create, start *os.File   // memory files: the state for programs of the kind
	read, write   *os.File   // a pipe: the output of programs of createContainer
	null          *os.File   // that of startContainer
	output        *tail      // of read
	state, silent launch.Arg // start and null in the launcher
}

func (h *hookFiles) close() {
	for _, f := range []*os.File{h.create, h.start, h.read, h.write, h.null} {
		if f != nil {
			f.Close()
		}
	}
	if h.output != nil {
		<-h.output.done
	}
}

// stepCreateHooks is the moment before pivot_root. The caller calls its own hooks, says what
// the programs that come next will read, and lets the process go on.
func (pl *plan) stepCreateHooks() (err error) {
	hooks := pl.cfg.Hooks
	create, start := hooks.programs(hookCreateContainer), hooks.programs(hookStartContainer)
	if len(hooks.list(hookPrestart))+len(hooks.list(hookCreateRuntime))+len(hooks.list(hookCreateContainer))+len(start) == 0 {
		return nil
	}
	h := &pl.hooks
	if len(start) > 0 {
		if h.start, err = memoryFile(); err != nil {
			return err
		}
		if h.null, err = openNull(); err != nil {
			return err
		}
	}
	if len(create) > 0 {
		if h.create, err = memoryFile(); err != nil {
			return err
		}
		if h.read, h.write, err = hookPipe(); err != nil {
			return err
		}
	}
	pl.Send(tagHooks, 0)
	pl.Wait()
	if len(create) == 0 {
		return nil
	}
	state, output := pl.File(h.create), pl.File(h.write)
	for _, hook := range create {
		err := pl.runHook(hookCreateContainer, hook, state, output, func() error {
			pl.Call(unix.SYS_UMASK, 0o022)
			pl.Call(unix.SYS_FCHDIR, pl.root)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// attachForHooks mounts the container's root where programs of CreateContainer look for it, and what they mount
// there becomes a part of it. A user who may not go there finds it by the working directory only.
func (pl *plan) attachForHooks(dir string) {
	there := pl.Label()
	flags := launch.Arg(unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS)
	pl.Call(unix.SYS_MOVE_MOUNT, pl.root, pl.Str(""), cwdFD, pl.Str(dir), flags).Ignore(unix.EACCES).Then(there)
	pl.attachOverRoot(pl.root)
	pl.Here(there)
}

// fileStartHooks passes on what programs of StartContainer need, and returns how many files that is. Their
// numbers are the last so far.
func (pl *plan) fileStartHooks() (n launch.Arg) {
	h := &pl.hooks
	if h.start == nil {
		return 0
	}
	if h.state == 0 {
		h.state, h.silent = pl.File(h.start), pl.File(h.null)
	}
	return 2
}

// stepStartHooks runs programs of the container with what its own program will have.
func (pl *plan) stepStartHooks() error {
	list := pl.cfg.Hooks.programs(hookStartContainer)
	if len(list) < len(pl.cfg.Hooks.list(hookStartContainer)) && pl.launchFiles.gate == nil {
		pl.Send(tagStartHooks, 0)
		pl.Wait()
	}
	if len(list) == 0 {
		return nil
	}
	pl.fileStartHooks()
	for _, hook := range list {
		// The filter is for the program, not for what follows here.
		if err := pl.runHook(hookStartContainer, hook, pl.hooks.state, pl.hooks.silent, pl.stepSeccomp); err != nil {
			return err
		}
	}
	return nil
}

// runHook runs a program and waits for it. What prepare adds is done in its process. A status other than
// 0 becomes the failure of a call, see hookError.
func (pl *plan) runHook(kind hookKind, h *Hook, state, output launch.Arg, prepare func() error) error {
	pl.Step(hookStep(kind), h.Path)
	parent, done := pl.Label(), pl.Label()
	pl.Call(unix.SYS_LSEEK, state, 0, unix.SEEK_SET)

	// The child shares our memory until it executes, and we wait as long: so we see if it has failed.
	flags, pollFD := unix.CLONE_VM|unix.CLONE_VFORK|launch.Arg(unix.SIGCHLD), launch.Arg(0)
	if h.Timeout > 0 {
		flags |= unix.CLONE_PIDFD
		pollFD = pl.struct32(0, unix.POLLIN) // clone writes the descriptor where poll reads it
	}
	child := pl.Label()
	pid := pl.Call(unix.SYS_CLONE, flags, 0, pollFD).Case(0, child).Then(parent).Result()

	pl.Here(child)
	for i, fd := range []launch.Arg{state, output, output} {
		pl.Call(unix.SYS_DUP3, fd, launch.Arg(i), 0)
	}
	pl.Call(unix.SYS_SETSID) // and so a process group, to be killed together
	pl.Call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, launch.Arg(unix.SIGKILL))
	pl.Call(unix.SYS_CLOSE_RANGE, 3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC) // extra files too
	if err := prepare(); err != nil {
		return err
	}
	pl.Step(hookStep(kind), h.Path)
	pl.Call(unix.SYS_EXECVE, pl.Str(h.Path), pl.Strs(h.argv()), pl.Strs(h.Env))

	pl.Here(parent)
	reap, late, reaped := pl.Label(), pl.Label(), pl.Label()
	if h.Timeout > 0 {
		left := pl.Words(launch.Arg(h.Timeout/1e9), launch.Arg(h.Timeout%1e9)) // the kernel keeps it up to date
		again := pl.Label()
		pl.Here(again)
		pl.Call(unix.SYS_PPOLL, pollFD, 1, left).On(unix.EINTR, again).Case(0, late).Then(reap)
		pl.Here(late)
		group := pl.Sub(0, pid).IgnoreAll().Result()
		pl.Call(unix.SYS_KILL, group, launch.Arg(unix.SIGKILL)).IgnoreAll()
		pl.reap(pid, 0)
		pl.Fail(unix.ETIMEDOUT)
	}
	pl.Here(reap)
	status := pl.reap(pid, 0)
	if h.Timeout > 0 {
		pl.close(pl.Value(pollFD))
	}
	// What it has left behind and is dead already is ours as well, if we are the first in our namespace.
	orphan := pl.Label()
	pl.Here(orphan)
	pl.Call(unix.SYS_WAIT4, -1, 0, unix.WNOHANG).Case(0, reaped).On(unix.ECHILD, reaped).Then(orphan)
	pl.Here(reaped)
	ran := pl.Label()
	pl.Sub(pl.ChildFailed(), 0).Case(0, ran)
	pl.Exit(launch.ExitFailed) // it has reported that itself
	pl.Here(ran)
	pl.Sub(status, 0).Case(0, done)
	pl.Sub(-hookStatus, status)
	pl.Here(done)
	return nil
}

// reap waits for a child and returns its status.
func (e emitter) reap(pid, options launch.Arg) launch.Arg {
	status := e.Zero(8)
	again := e.Label()
	e.Here(again)
	e.Call(unix.SYS_WAIT4, pid, status, options).On(unix.EINTR, again)
	return e.Value(status)
}

// hookStatus is added to the status of a program to make it a failure that no system call has.
const hookStatus = 1 << 16

// hookStep is the name of the steps, and the Op of errors, of a kind.
func hookStep(kind hookKind) string { return "hook " + string(kind) }

// hookError says what the failure of a step of runHook means; err is what it is otherwise.
func hookError(e *launch.Error, err error) error {
	switch {
	case e.Syscall != "sub":
	case e.Errno > hookStatus:
		return exitError(syscall.WaitStatus(e.Errno - hookStatus))
	case e.Errno == unix.ETIMEDOUT:
		return errHookTimeout
	}
	return err
}

// errHookTimeout is the failure of a program that has overrun.
var errHookTimeout = fmt.Errorf("killed when its time was over: %w", context.DeadlineExceeded)

// createHooks runs what comes before pivot_root, and says what the programs that the launcher runs will read.
func (c *Container) createHooks(ctx context.Context, h *hookFiles, state *ContainerState) error {
	for _, kind := range []hookKind{hookPrestart, hookCreateRuntime, hookCreateContainer} {
		if err := c.runHooks(ctx, kind, state); err != nil {
			return err
		}
	}
	if h.create == nil && h.start == nil {
		return nil
	}
	inner, err := innerPid(state.Pid)
	if err == nil && h.create != nil {
		err = fillMemoryFile(h.create, c.hookState(StatusCreating, inner))
		h.write.Close()
		h.output = newTail(h.read)
	}
	if err == nil && h.start != nil {
		err = fillMemoryFile(h.start, c.hookState(StatusCreated, inner))
	}
	if err != nil {
		return &Error{Op: "hooks", Err: err}
	}
	return nil
}

// explain adds what the programs of CreateContainer have said to the failure of one.
func (h *hookFiles) explain(err error) error {
	if e, ok := err.(*Error); ok && e.Op == hookStep(hookCreateContainer) && h.output != nil {
		e.Err = h.output.explain(e.Err)
	}
	return err
}

// firstPid is the number of the container's first process, or 0 if it is not known yet: where it comes from the
// parent of that process, it may come later than a message of its own. A supervisor's is held until we know it.
func (s *starting) firstPid() int {
	if s.plan.forks() || s.supervised() {
		return s.innerPid
	}
	return s.child.Process().Pid
}

// atHooks lets the caller run its hooks, and the launcher go on.
func (s *starting) atHooks(ctx context.Context) error {
	returned := false
	defer func() {
		if !returned { // a panic of a function, which is the caller's to handle; nothing is left behind
			s.abort()
		}
	}()
	tag := s.hooked
	s.hooked = 0
	err := s.onHooks(ctx, tag, &s.hooks, s.firstPid())
	returned = true
	if err != nil {
		return err
	}
	return s.goOn()
}
