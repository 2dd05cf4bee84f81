//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/container/internal/launch"
)

// This file is the beginning of a container's first process: Create, Start, Run, and what stays with the
// process until its end. It runs in the caller's process. The order within the new process is in
// plan.go, the conversation with it in start.go.

// Create makes the container's first process and sets up everything for it, and stops short of the
// program: that runs when Start is called, by this or another process. Whatever can fail fails here:
// the program is looked up, the user and the limits are set. Until then the status is StatusCreated, and
// Exec works.
//
// An error says which step failed; then nothing of the container is left but its record, and Create can
// be tried again. ErrNotFound and ErrNotExecutable tell that there is no such program in the container. It
// returns ErrRunning if the container has been created or run already, and ErrLocked when ctx is done while another process holds a lock of the container's record
// or of NetworkConfig.StateDir.
//
// Ctx bounds Create itself, not the life of the process.
func (c *Container) Create(ctx context.Context, p *Process) error {
	return c.failed("create", c.makeProcess(ctx, p, true))
}

// Run starts p as the first process of the container: Create and Start in one. When it returns nil, the program is
// running. A container can be run once; it returns ErrRunning if it has been, and otherwise what Create returns.
//
// When ctx is done, the process gets Config.StopSignal, and SIGKILL after Config.StopTimeout.
func (c *Container) Run(ctx context.Context, p *Process) error {
	err := c.makeProcess(ctx, p, false)
	if err == nil {
		err = c.poststart(ctx)
	}
	return c.failed("run", err)
}

// Start lets the program of a container run that has been created. When it returns nil, the program is
// running. It works from any process; of several that try, one gets nil. The others get ErrRunning, or
// ErrNotRunning if the process has ended. It returns ErrNotCreated if nobody has called Create, and ErrLocked
// when ctx is done while another process is at work on the container; then nothing has changed.
//
// If the program cannot be executed after all, if a hook fails or if ctx is done first, the container is stopped.
func (c *Container) Start(ctx context.Context) error {
	err := c.startCreated(ctx)
	if err == nil {
		err = c.poststart(ctx)
	}
	return c.failed("start", err)
}

// failed completes an error for the caller.
func (c *Container) failed(op string, err error) error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.ID == "":
		e.ID = c.id
		return err
	}
	return &Error{Op: op, ID: c.id, Err: err}
}

// makeProcess starts p; with hold it stops before the program.
func (c *Container) makeProcess(ctx context.Context, p *Process, hold bool) (err error) {
	if err := p.validateFor(&c.cfg, true); err != nil {
		return err
	}
	if p.live != nil {
		return errors.New("the Process has been used; make another")
	}
	if err := cmp.Or(ctx.Err(), c.damage, c.hookGone(hookPrestart, hookCreateRuntime, hookCreateContainer)); err != nil {
		return err
	}
	if !hold {
		if err := c.hookGone(hookStartContainer, hookPoststart); err != nil {
			return err
		}
	}
	lock, err := c.lockRecordUntil(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	at("create: locked")
	state, err := c.state()
	if err != nil {
		return err
	}
	if state.Status != StatusCreating {
		return ErrRunning
	}
	if err := c.killAll(ctx, state); err != nil { // of a Create that was killed
		return err
	}
	if err := c.removeCgroup(state); err != nil {
		return err
	}
	if err := c.releaseNetwork(ctx, state, nil); err != nil {
		return err
	}
	cfg, shared, err := c.joinNetwork()
	if err != nil {
		return err
	}
	defer shared.close()
	if err := cfg.verifyJoinedMaps(); err != nil {
		return err
	}
	streams, err := openStreams(p)
	if err != nil {
		return err
	}
	undo := cleanup{streams.abandon, c.record.endStart}
	defer undo.run()
	files, err := c.record.beginStart(lock, hold, c.cfg.Detached)
	if err != nil {
		return err
	}
	at("create: intent")
	group, err := c.makeCgroup(ctx, state, p, files)
	if err != nil {
		files.closeFiles()
		return err
	}
	guard := newGuard(group)
	undo = append(undo, guard.abandon, func() { c.takeBackCgroup(state) })
	network, err := c.prepareNetwork(ctx, state)
	if err != nil {
		files.closeFiles()
		return err
	}
	undo = append(undo, func() { c.takeBackNetwork(state, network, err) })
	if shared != nil {
		network.shared = shared
	}
	files.network = network
	pl, err := newPlan(cfg, p, streams.files, files)
	if err != nil {
		return err
	}
	if err := shared.stillThere(); err != nil { // of whom all has been opened by now
		pl.closeAll()
		return &Error{Op: "network of container", Path: c.cfg.Network.Container, Err: err}
	}
	pl.onHooks = func(ctx context.Context, tag uint32, h *hookFiles, pid int) error {
		now := state.ContainerState
		now.Pid = pid
		if tag == tagStartHooks {
			now.Status = StatusCreated
			return c.runHooks(ctx, hookStartContainer, &now)
		}
		return c.createHooks(ctx, h, &now)
	}
	pl.describe = func(pid int) []byte { return c.hookState(StatusCreating, pid) }
	s, err := pl.start(ctx, c.record.dir, c.fault)
	if err != nil {
		return err
	}
	at("create: process")
	err = errors.Join(network.start(), c.noteCreated(state, s, pl))
	if !hold {
		state.Status, state.Started = StatusRunning, time.Now()
		err = cmp.Or(err, s.verifyRunning(pl))
	}
	if err == nil {
		err = c.record.write("state.json", state)
	}
	if err != nil { // a process without a record is worse than none
		c.kill(state)
		s.discard()
		return err
	}
	at("create: state")
	undo.release()
	streams.start()
	p.live, s.leave = s.liveProcess, p.LeaveZombie
	s.guard = guard
	c.mu.Lock()
	c.proc, c.network = p, network
	c.mu.Unlock()
	if hold {
		ctx = context.Background()
	}
	guard.watch(ctx, s.liveProcess, p, c.stopSignal(), c.stopTimeout(), func() bool {
		held, err := c.record.held()
		return hold && held && err == nil
	})
	go c.attend(p, s, streams)
	return nil
}

// noteCreated notes which process it is.
func (c *Container) noteCreated(state *stored, s *started, pl *plan) error {
	launched, err := c.record.launched(state)
	if err != nil {
		return err
	}
	if !launched || state.Pid != s.pid {
		return errors.New("the launcher has left another process's number")
	}
	state.Status, state.CgroupPath = StatusCreated, cgroupOf(s.pid)
	if s.supervisor != nil {
		start, err := startTime(s.supervisor.pid)
		if err != nil {
			return err
		}
		state.Supervisor = processID{s.supervisor.pid, start}
	}
	if pl.gate != nil {
		state.Held = pl.LastCalls(pl.behindGate)
		state.WhenRunning = pl.whenRunning()
	}
	return nil
}

// attend stays with a running process: it waits for its end and records it.
func (c *Container) attend(p *Process, s *started, streams *streams) {
	live := s.liveProcess
	s.awaitEnd(c.network.unbind)
	streams.processEnded()
	at("end: reaped")
	c.network.stop()
	c.recordEnd(live)
	c.network.close()
	at("end: recorded")
	close(live.kept)
	p.finish(streams)
}

// recordEnd writes how the process ended, unless the container has been destroyed meanwhile.
func (c *Container) recordEnd(live *liveProcess) {
	lock, err := c.lockRecord()
	if err != nil {
		return
	}
	defer lock.Close()
	state, err := c.state()
	if err != nil {
		return // destroyed by another process, and the id is somebody else's by now
	}
	state.ended(live)
	if err := c.releaseNetwork(patiently, state, c.network.held()); err != nil {
		c.cfg.logger().Warn("the network could not be taken back, which Destroy will", "id", c.id, "err", err)
	}
	if err := c.record.write("state.json", state); err != nil {
		c.cfg.logger().Warn("the end of the process could not be recorded", "id", c.id, "err", err)
	}
}

// startCreated opens the gate that the launcher waits at.
func (c *Container) startCreated(ctx context.Context) error {
	if err := cmp.Or(ctx.Err(), c.damage, c.hookGone(hookStartContainer, hookPoststart)); err != nil {
		return err
	}
	lock, err := c.lockRecordUntil(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	state, err := c.state()
	if err != nil {
		return err
	}
	switch state.Status {
	case StatusCreating:
		return ErrNotCreated
	case StatusRunning, StatusPaused:
		return ErrRunning
	case StatusStopped:
		return ErrNotRunning
	}
	at("start: locked")
	if err := c.startHooks(ctx, state); err != nil {
		return err
	}
	if released, err := c.record.openGate(ctx, state.first(), state.Held); err != nil {
		if released {
			ended := false
			if ctx.Err() == nil { // what has failed ends by itself
				ended, _ = state.first().wait(time.Second)
			}
			if !ended {
				c.kill(state)
			}
		}
		return err
	}
	at("start: released")
	first := state.first()
	if err := state.WhenRunning.verify(first.pid, func() bool {
		start, err := startTime(first.pid)
		return scarce(err) || start == first.start
	}); err != nil {
		c.kill(state)
		if errors.Is(err, launch.ErrDied) {
			err = fmt.Errorf("%w: %w", ErrNotRunning, err) // somebody has killed it meanwhile
		}
		return err
	}
	state.Status, state.Started = StatusRunning, time.Now()
	if err := c.record.write("state.json", state); err != nil {
		// The kernel tells that it runs; what is lost is when it began.
		c.cfg.logger().Warn("the start could not be recorded", "id", c.id, "err", err)
	}
	at("start: state")
	return nil
}

// at is called where something has just been done that a crash must not lose, with its name. Tests
// replace it with one that kills the process.
var at = func(point string) {}

// cleanup is what to undo, in the order given, unless it is released.
type cleanup []func()

func (c *cleanup) run() {
	for _, f := range *c {
		f()
	}
}

func (c *cleanup) release() { *c = nil }
