//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file stops the processes of a cgroup and lets them go on. It runs in the caller's process.

// Freeze stops all processes in the cgroup and below it, and returns when they have stopped. If ctx is done before that, they go
// on, and its error is returned. A process that is in an uninterruptible call into the kernel stops when that
// returns. Signals wait, but for SIGKILL.
//
// Equivalent to: echo 1 > cgroup.freeze
func (c *Cgroup) Freeze(ctx context.Context) error {
	err := c.setFrozen(ctx, "1", "frozen 1\n")
	if err != nil && !errors.Is(err, ErrNotExist) {
		err = errors.Join(err, c.writeFile("cgroup.freeze", "0"))
	}
	return err
}

// Thaw lets the processes of a frozen cgroup go on, and returns when they do. Where a cgroup above it is frozen they do
// not, and Thaw waits for that until ctx is done.
//
// Equivalent to: echo 0 > cgroup.freeze
func (c *Cgroup) Thaw(ctx context.Context) error { return c.setFrozen(ctx, "0", "frozen 0\n") }

// setFrozen writes cgroup.freeze and waits for the line in cgroup.events.
func (c *Cgroup) setFrozen(ctx context.Context, value, line string) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: "cgroup", Path: c.path, Err: err}
	}
	if err := c.writeFile("cgroup.freeze", value); err != nil {
		var e *Error
		if errors.As(err, &e) && errors.Is(err, unix.ENOENT) {
			e.Remedy = "the root of the tree cannot be frozen"
		}
		return err
	}
	return c.await(ctx, "cgroup.events", func(text string) bool { return strings.Contains(text, line) })
}

// cgroupFrozen tells whether the processes of an open cgroup are stopped.
func cgroupFrozen(dir *os.File) bool {
	fd, err := openBelowCgroup(int(dir.Fd()), "cgroup.events", unix.O_RDONLY)
	if err != nil {
		return false // the root of the tree cannot be frozen
	}
	defer unix.Close(fd)
	var text [256]byte
	n, _ := unix.Read(fd, text[:])
	return strings.Contains(string(text[:max(n, 0)]), "frozen 1\n")
}

// frozen tells whether a process is stopped by its cgroup, that is, paused. The caller is not, and so
// nothing in the same cgroup is.
func frozen(pid int) bool {
	dir, err := otherCgroup(pid)
	if err != nil || dir == nil {
		return false
	}
	defer dir.Close()
	return cgroupFrozen(dir)
}

// cgroupBusyWait is the first wait for a cgroup that is busy; each further one is twice as long, up to maxBusyWait.
const (
	cgroupBusyWait = 100 * time.Microsecond
	maxBusyWait    = 10 * time.Millisecond
)

// sleep waits, until ctx is done at the latest.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
