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

// This file is the end of a container: signals, Stop, Destroy. It runs in the caller's process, which
// need not be the one that has started the container.

// Signal sends a signal to the first process. In a PID namespace of the container's own, SIGKILL ends
// all of its processes; other signals reach the first process only if it handles them, see
// pid_namespaces(7). It returns ErrNotRunning if there is no process.
func (c *Container) Signal(sig syscall.Signal) error {
	if p, err := c.process(); err == nil {
		if err := p.live.signal(sig); err != nil {
			return &Error{Op: "signal", ID: c.id, Path: signalName(sig), Err: err}
		}
		return nil
	}
	pidfd, err := c.openProcess()
	if err == nil {
		err = sendTo(pidfd, sig)
		pidfd.Close()
	}
	if err != nil {
		return &Error{Op: "signal", ID: c.id, Path: signalName(sig), Err: err}
	}
	return nil
}

// openProcess opens the first process by its record. Once it is open the number cannot come to mean
// another one, so that is when its identity is verified.
func (c *Container) openProcess() (pidfd *os.File, err error) {
	state, err := c.state()
	if err != nil {
		return nil, err
	}
	if state.Pid == 0 || state.Status == StatusCreating { // what sets the container up is not its process yet
		return nil, ErrNotRunning
	}
	f, err := processID{state.Pid, state.StartTime}.open()
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrNotRunning
	}
	return f, err
}

// sendTo sends a signal to an open process.
func sendTo(pidfd *os.File, sig syscall.Signal) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return ErrNotRunning
	}
	if cerr := conn.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); cerr != nil || err == unix.ESRCH {
		return ErrNotRunning
	}
	return err
}

// Stop asks the first process to end with Config.StopSignal, and kills it when Config.StopTimeout
// is over or ctx is done. One that waits for Start is killed. It returns when the process has ended;
// if there is none, at once.
func (c *Container) Stop(ctx context.Context) error {
	if err := c.stop(ctx, c.stopTimeout()); err != nil {
		return &Error{Op: "stop", ID: c.id, Err: err}
	}
	return nil
}

func (c *Container) stop(ctx context.Context, grace time.Duration) error {
	state, err := c.state()
	if err != nil {
		return err
	}
	if state.Status == StatusCreated {
		grace = 0 // nothing of the user's could make use of it
	}
	if grace > 0 && state.Cgroup != nil {
		if err := state.thaw(); err != nil {
			return err
		}
	}
	if p, perr := c.process(); perr == nil {
		return p.live.stop(ctx, c.stopSignal(), grace)
	}
	return c.stopOther(ctx, grace)
}

// stopOther stops a process that another process has started.
func (c *Container) stopOther(ctx context.Context, grace time.Duration) error {
	pidfd, err := c.openProcess()
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pidfd.Close()
	// Whoever has started it may be gone, and then nobody else keeps the devices of the host's. There is no lock: hooks stop containers, too.
	network, devices := c.holdNetwork()
	defer network.Close()
	ended := func(ctx context.Context, d time.Duration) bool {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		defer context.AfterFunc(ctx, func() { pidfd.SetReadDeadline(time.Unix(1, 0)) })()
		defer pidfd.SetReadDeadline(time.Time{})
		return waitPidfd(pidfd) == nil
	}
	if grace > 0 {
		if err := sendTo(pidfd, c.stopSignal()); errors.Is(err, ErrNotRunning) || err == nil && ended(ctx, grace) {
			return returnNetDevices(devices, network)
		}
	}
	if err := sendTo(pidfd, unix.SIGKILL); errors.Is(err, ErrNotRunning) {
		return returnNetDevices(devices, network)
	} else if err != nil {
		return err
	}
	if !ended(context.Background(), killPatience) {
		return errNoEnd
	}
	return returnNetDevices(devices, network)
}

// Destroy kills the container's processes, if it is running, and removes everything of it. It can be
// called any number of times, after a crash, and from any process; once the container is gone it returns nil.
// It waits for a Create, Run or Start that is at work, as long as that takes. It returns ErrLocked when another process has held a lock of
// NetworkConfig.StateDir for ten seconds.
func (c *Container) Destroy() error {
	if err := c.destroy(); err != nil {
		return &Error{Op: "destroy", ID: c.id, Err: err}
	}
	return nil
}

func (c *Container) destroy() error {
	lock, err := c.lockRecord()
	if errors.Is(err, ErrNotExist) {
		return c.endOwn()
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	at("destroy: locked")
	held, _ := c.holdNetwork()
	defer held.Close()
	if err := c.endOwn(); err != nil {
		return err
	}
	at("destroy: own process ended")
	state, err := c.record.state()
	switch {
	case scarce(err):
		return err
	case err != nil: // damaged, or state.json is gone already
		state = nil
	case !c.created.IsZero() && !state.Created.Equal(c.created):
		return nil // the id is another's by now
	}
	// What the launcher has written about itself is believed as well: a bit of the other file may have changed.
	launcher, err := c.record.launcher()
	if err != nil {
		return err
	}
	if state == nil {
		state = launcher
		c.findLostCgroup(state)
	}
	if err := c.killAll(context.Background(), state); err != nil {
		return err
	}
	at("destroy: killed")
	if launcher.Pid != state.Pid || launcher.MountNamespaceID != state.MountNamespaceID {
		if err := c.killAll(context.Background(), launcher); err != nil {
			return err
		}
	}
	if err := state.awaitSupervisor(); err != nil {
		return err
	}
	at("destroy: supervisor ended")
	if err := c.releaseNetwork(patiently, state, held); err != nil {
		return err
	}
	at("destroy: network released")
	if err := c.removeCgroup(state); err != nil {
		return err
	}
	c.poststop(state)
	at("destroy: hooks run")
	return c.record.remove()
}

// endOwn kills the process that this Container has started, whatever the record says.
func (c *Container) endOwn() error {
	if p, err := c.process(); err == nil {
		return p.live.stop(context.Background(), unix.SIGKILL, 0)
	}
	return nil
}

// awaitSupervisor waits until the supervisor, whose child has ended, has ended as well.
func (st *stored) awaitSupervisor() error {
	there, err := st.supervised()
	if err == nil && there {
		_, err = procEntry{pid: st.Supervisor.Pid, start: st.Supervisor.StartTime}.wait(killPatience)
	}
	return err
}

func (c *Container) stopSignal() syscall.Signal {
	if c.cfg.StopSignal == 0 {
		return unix.SIGTERM
	}
	return c.cfg.StopSignal
}

func (c *Container) stopTimeout() time.Duration {
	if c.cfg.StopTimeout == 0 {
		return 10 * time.Second
	}
	return c.cfg.StopTimeout
}
