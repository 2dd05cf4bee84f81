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
	fd, err := c.openProcess()
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
		unix.Close(fd)
	}
	if err != nil {
		return &Error{Op: "signal", ID: c.id, Path: signalName(sig), Err: err}
	}
	return nil
}

// openProcess opens the first process by its record. Once it is open the number cannot come to mean
// another one, so that is when its identity is verified.
func (c *Container) openProcess() (pidfd int, err error) {
	state, err := c.state()
	if err != nil {
		return -1, err
	}
	if state.Pid == 0 {
		return -1, ErrNotRunning
	}
	return openPid(state.Pid, state.StartTime)
}

// openPid opens the process that has this number and was started at this time.
func openPid(pid int, started uint64) (pidfd int, err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, ErrNotRunning
	}
	if startTime(pid) != started {
		unix.Close(fd)
		return -1, ErrNotRunning
	}
	return fd, nil
}

// Stop asks the first process to end with Config.StopSignal, and kills it when Config.StopTimeout
// is over or ctx is done. It returns when the process has ended; if there is none, at once.
func (c *Container) Stop(ctx context.Context) error {
	var err error
	if p, perr := c.process(); perr == nil {
		err = p.live.stop(ctx, c.stopSignal(), c.stopTimeout())
	} else {
		err = c.stopOther(ctx, c.stopTimeout())
	}
	if err != nil {
		return &Error{Op: "stop", ID: c.id, Err: err}
	}
	return nil
}

// stopOther stops a process that another process has started.
func (c *Container) stopOther(ctx context.Context, grace time.Duration) error {
	fd, err := c.openProcess()
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ended := func(ctx context.Context, d time.Duration) bool {
		for deadline := time.Now().Add(d); ; {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, _ := unix.Poll(fds, 20); n > 0 {
				return true
			}
			if ctx.Err() != nil || time.Now().After(deadline) {
				return false
			}
		}
	}
	if grace > 0 {
		if err := unix.PidfdSendSignal(fd, c.stopSignal(), nil, 0); err == unix.ESRCH || err == nil && ended(ctx, grace) {
			return nil
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err == unix.ESRCH {
		return nil
	} else if err != nil {
		return err
	}
	const patience = 10 * time.Second
	if !ended(context.Background(), patience) {
		return errors.New("the process does not end, although it was killed")
	}
	return nil
}

// Destroy kills the container's processes, if it is running, and removes everything of it. It can be
// called any number of times, after a crash, and from any process; once the container is gone it returns nil.
func (c *Container) Destroy() error {
	c.mu.Lock() // before the record's lock, as in Run
	defer c.mu.Unlock()
	if err := c.destroy(); err != nil {
		return &Error{Op: "destroy", ID: c.id, Err: err}
	}
	return nil
}

func (c *Container) destroy() error {
	if c.proc != nil { // whatever the record says
		if err := c.proc.live.stop(context.Background(), unix.SIGKILL, 0); err != nil {
			return err
		}
		<-c.proc.live.kept
	}
	unlock, err := c.lockRecord()
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	// A record that cannot be read tells of no process, and of no other container.
	if state, err := c.record.state(); err == nil {
		if !c.created.IsZero() && !state.Created.Equal(c.created) {
			return nil // the id is another's by now
		}
		if err := c.stopOther(context.Background(), 0); err != nil {
			return err
		}
	}
	return os.RemoveAll(c.record.dir)
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
