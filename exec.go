//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// This file starts further processes in a running container. It runs in the caller's process, which
// need not be the one that has started the container.

// Exec starts p as another process of the container, which must be running, or created and not yet started.
// When it returns nil, the program is running; wait for it with [Process.Wait]. The Container's own Wait,
// Signal and Stop are about the first process only. The end of the first process is the end of
// those of Exec, if the container has a PID namespace of its own.
//
// The process enters all namespaces of the container that the caller is not in, is born in its cgroup, and gets
// what the container's Config says: capabilities, NoNewPrivileges, Seccomp, Rlimits, Umask, Scheduler,
// IOPriority, CPUAffinity, Personality, OomScoreAdj, a session keyring of its own. What p sets
// overrides that; so p.Capabilities, and nothing else, can give it more than the container's bounding set. With
// Config.DieWithParent it dies with the caller of Exec. The user is looked up in the passwd that the first
// process sees. Nothing of the environment is the first process's or, without p.InheritEnv, the caller's.
//
// It returns ErrNotRunning if the first process has not been started or has ended, also while p was
// being started; ErrPaused if the container is paused; ErrNotFound and ErrNotExecutable if there is no such program
// in the container; and ErrUnsupported for a process with CAP_SYS_PTRACE before the start, where it could take CAP_SYS_ADMIN from what
// waits there. After an error nothing of p is left.
//
// When ctx is done, the process gets Config.StopSignal, and SIGKILL after Config.StopTimeout.
func (c *Container) Exec(ctx context.Context, p *Process) error {
	return c.exec(ctx, p, func(t *target, stdio stdioFiles) (*started, error) {
		pl, err := newJoinPlan(&c.cfg, p, stdio, t)
		if err != nil {
			return nil, err
		}
		pl.describe = c.describeTo(t)
		return pl.startVerified(ctx, c.record.dir, c.fault)
	})
}

// ExecNoUserNs is Exec without the user namespace: p is root of the caller's, that is of the host, in all
// other namespaces of the container. Its ids are the host's: files that belong to the container's root
// appear with their number on the host. Capabilities, NoNewPrivileges and the rest are the container's, but
// hold for what belongs to the host's root, too. The program is the container's own file and runs as the host's
// root: use it only where that file is trusted. It returns ErrUnsupported unless the caller is root.
func (c *Container) ExecNoUserNs(ctx context.Context, p *Process) error {
	return c.exec(ctx, p, func(t *target, stdio stdioFiles) (*started, error) {
		if os.Geteuid() != 0 {
			return nil, &Error{Op: "exec", Err: ErrUnsupported, Remedy: "entering a container without its user namespace needs root; use Exec"}
		}
		t.flags &^= unix.CLONE_NEWUSER
		pl, err := newJoinPlan(&c.cfg, p, stdio, t)
		if err != nil {
			return nil, err
		}
		pl.describe = c.describeTo(t)
		return pl.startVerified(ctx, c.record.dir, c.fault)
	})
}

// exec is what the ways into a container have in common. The target is closed after start.
func (c *Container) exec(ctx context.Context, p *Process, start func(*target, stdioFiles) (*started, error)) error {
	fail := func(err error) error { return c.failed("exec", err) }
	if err := p.validateFor(&c.cfg, false); err != nil {
		return fail(err)
	}
	if p.live != nil {
		return fail(errors.New("the Process has been used; make another"))
	}
	if err := cmp.Or(ctx.Err(), c.damage); err != nil {
		return fail(err)
	}
	t, err := c.target()
	if err != nil {
		return fail(err)
	}
	defer t.close()
	if err := c.lends(t, p); err != nil {
		return fail(err)
	}
	lock, group, err := c.enterCgroup(ctx, t, p)
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	guard := newGuard(group)
	at("exec: target")
	streams, err := openStreams(p)
	if err != nil {
		guard.abandon()
		return fail(err)
	}
	s, err := start(t, streams.files)
	if err != nil {
		guard.abandon()
		streams.abandon()
		return fail(t.explain(err, false))
	}
	at("exec: process")
	streams.start()
	p.live, s.leave = s.liveProcess, p.LeaveZombie
	s.guard = guard
	guard.watch(ctx, s.liveProcess, p, c.stopSignal(), c.stopTimeout(), func() bool { return false })
	go p.attend(s, streams)
	return nil
}

// lends returns an error if p could take the capability that the launcher at the gate has and nobody in the container is to have; see
// lendsAdmin. Root could execute it there, where there is no user namespace around it: who may trace then may trace all.
func (c *Container) lends(t *target, p *Process) error {
	caps, err := override(p.Capabilities, c.cfg.Capabilities).sets()
	if err != nil || t.flags&unix.CLONE_NEWUSER != 0 || !caps.tracesOnly() {
		return nil
	}
	s, err := seeProcess(t.pid)
	if err != nil {
		return onlyScarce(err) // it has ended, which the start will tell
	}
	defer s.close()
	if s.bits("CapPrm")&^s.bits("CapBnd")&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return nil
	}
	return &Error{Op: "exec", Err: fmt.Errorf("%w: a process with CAP_SYS_PTRACE could take CAP_SYS_ADMIN from it", ErrUnsupported),
		Remedy: "start the container first, or set NoNewPrivileges"}
}

// attend stays with a process that is not the container's first until its end.
func (p *Process) attend(s *started, streams *streams) {
	s.awaitEnd(func() {})
	streams.processEnded()
	at("exec: reaped")
	close(s.kept)
	p.finish(streams)
}

// target opens the container's first process.
func (c *Container) target() (*target, error) {
	state, err := c.state()
	if err != nil {
		return nil, err
	}
	switch state.Status {
	case StatusCreated, StatusRunning, StatusPaused:
	default:
		return nil, ErrNotRunning
	}
	pidfd, err := processID{state.Pid, state.StartTime}.open()
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	return openTarget(state.Pid, pidfd)
}
