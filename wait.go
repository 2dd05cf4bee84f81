//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file waits for the first process of a container that another process has started. It runs in
// the caller's process.

// Wait waits for the end of the first process; see [Process.Wait] for what it returns. It works from any process and any
// number of times, before Start too. It returns ErrNotRunning if nothing has been created.
//
// Where the caller has not created the process, the exit status comes from the record, or since Linux 6.15 from the
// kernel. If the creator is gone and the container was not Detached, nobody may have it: the error
// then says so, and is no *ExitError.
func (c *Container) Wait() error {
	if p, err := c.process(); err == nil {
		return p.waitEnd()
	}
	if err := c.waitOther(context.Background()); err != nil {
		var exit *ExitError
		if errors.As(err, &exit) {
			return err
		}
		return &Error{Op: "wait", ID: c.id, Err: err}
	}
	return nil
}

// waitContext waits for the end of the first process, and returns how it was, or the error of ctx if that ends before. Unlike Wait
// it does not wait for output to be copied.
func (c *Container) waitContext(ctx context.Context) error {
	p, err := c.process()
	if err != nil {
		return c.waitOther(ctx)
	}
	select {
	case <-p.live.ended:
		return p.live.exit
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitOther waits for a process that is not ours.
func (c *Container) waitOther(ctx context.Context) error {
	for {
		st, err := c.state()
		switch {
		case err != nil:
			return err
		case st.Status == StatusCreating:
			return ErrNotRunning
		case st.Status == StatusStopped && !st.Stopped.IsZero():
			return st.exit()
		case st.Status == StatusStopped:
			if at, err := st.supervised(); err != nil {
				return err
			} else if !at {
				return c.endOf(ctx, nil)
			}
		}
		// A supervisor ends after it has written how the process ended.
		id := processID{st.Pid, st.StartTime}
		if st.Supervisor.Pid != 0 {
			id = st.Supervisor
		}
		pidfd, err := id.open()
		if errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { pidfd.SetReadDeadline(time.Unix(1, 0)) })
		err = waitPidfd(pidfd)
		stop()
		if ctx.Err() != nil {
			pidfd.Close()
			return ctx.Err()
		}
		if err == nil && st.Supervisor.Pid == 0 {
			err = c.endOf(ctx, pidfd)
			pidfd.Close()
			return err
		}
		pidfd.Close()
		if err != nil {
			return err
		}
	}
}

// supervised tells whether there is a supervisor at work.
func (st *stored) supervised() (bool, error) {
	if st.Supervisor.Pid == 0 {
		return false, nil
	}
	boot, err := bootID()
	if err != nil || boot != st.BootID {
		return false, err
	}
	start, err := startTime(st.Supervisor.Pid)
	return start == st.Supervisor.StartTime, err
}

// endOf is how a process has ended that has another parent: the parent records it in a moment if it is one of
// ours, and when it has waited for it the kernel tells as well.
//
// Pidfd is nil if the process was gone before it could be opened.
func (c *Container) endOf(ctx context.Context, pidfd *os.File) error {
	for deadline := time.Now().Add(time.Second); ctx.Err() == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if st, err := c.state(); err == nil && st.Status == StatusStopped && !st.Stopped.IsZero() {
			return st.exit()
		}
		if pidfd == nil {
			continue
		}
		info := unix.PidfdInfo{Mask: pidfdInfoExit}
		if err := unix.IoctlPidfdInfo(int(pidfd.Fd()), &info); err == nil && info.Mask&pidfdInfoExit != 0 {
			return exitError(syscall.WaitStatus(info.Exit_code))
		}
	}
	return errUnknownExit
}

// pidfdInfoExit asks PIDFD_GET_INFO for the exit status of a process that has been waited for. Since Linux 6.15.
const pidfdInfoExit = 1 << 3

// exit is the recorded end of the process, as Wait returns it.
func (st *ContainerState) exit() error {
	switch {
	case st.ExitCode == unknownExit:
		return errUnknownExit
	case st.ExitCode == 0 && !st.TimedOut && !st.CPUTimeUsedUp:
		return nil
	}
	return &ExitError{
		Code: st.ExitCode, Signal: st.ExitSignal,
		OOMKilled: st.OOMKilled, TimedOut: st.TimedOut, CPUTimeUsedUp: st.CPUTimeUsedUp,
	}
}

// open opens the process, if it still is the same.
func (id processID) open() (*os.File, error) {
	fd, err := unix.PidfdOpen(id.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if start, err := startTime(id.Pid); err != nil || start != id.StartTime {
		unix.Close(fd)
		return nil, cmp.Or(err, error(unix.ESRCH))
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}
