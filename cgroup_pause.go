//go:build linux

package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// This file is Pause and Resume of a container. It runs in the caller's process.
//
// A process that is born in a frozen cgroup does not come to run. So that none of Exec is, Exec holds a shared
// lock while it starts one, and Pause an exclusive one while it freezes: a lock of its own, since
// Create and Start hold the record's, and hooks may call Exec. Who holds it can be stopped, or wait for a process that the
// container keeps from starting; so Pause waits for a time, and then that Exec goes on after Resume.

// execPatience is how long Pause waits for those who start processes.
const execPatience = 2 * time.Second

// Pause stops all processes of the container, and returns when they have stopped; see [Cgroup.Freeze]. It returns ErrNotRunning if the
// container is not running, and ErrNoCgroup if it has no cgroup of its own. If it is paused already, Pause returns nil.
// One that waits for Start can be paused, too.
//
// Exec on a paused container returns ErrPaused; Stop lets it go on so that it can end, and Destroy works.
func (c *Container) Pause(ctx context.Context) error {
	return c.failed("pause", c.freeze(ctx, (*Cgroup).Freeze))
}

// Resume lets the processes of a paused container go on. If it is not paused, Resume returns nil.
func (c *Container) Resume(ctx context.Context) error {
	return c.failed("resume", c.freeze(ctx, (*Cgroup).Thaw))
}

func (c *Container) freeze(ctx context.Context, do func(*Cgroup, context.Context) error) error {
	g, err := c.liveCgroup()
	if err != nil {
		return err
	}
	defer g.Close()
	patience, cancel := context.WithTimeout(ctx, execPatience)
	lock, err := c.record.lockExec(patience, unix.F_WRLCK, nil)
	cancel()
	if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		return err
	}
	defer lock.Close()
	err = do(g, ctx)
	if errors.Is(err, ErrNotExist) { // destroyed meanwhile
		err = ErrNotRunning
	}
	return err
}

// thaw lets a paused container go on, so that it can act on a signal. It does not wait for that: the signal does, and below a
// frozen cgroup there is nothing to wait for.
func (st *stored) thaw() error {
	g, err := st.openCgroup()
	if err == nil {
		defer g.Close()
		err = g.writeFile("cgroup.freeze", "0")
	}
	if errors.Is(err, ErrNoCgroup) || errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}

// paused tells whether a container that runs is paused. What it may have stopped in cgroups of its own is its own business.
func (st *stored) paused() bool {
	if st.Cgroup == nil {
		return frozen(st.Pid)
	}
	g, err := st.openCgroup()
	if err != nil {
		return false
	}
	defer g.Close()
	return cgroupFrozen(g.dir)
}

// The lock's bytes of config.json, which is never replaced. Who wants the lock goes through the gate, so that Pause, which waits in it, is not
// kept out for ever by one Exec after another.
const (
	execLock = iota
	execGate
)

// lockExec takes the lock between Exec and Pause, shared (F_RDLCK) or exclusive (F_WRLCK), until the file is closed. It returns ErrNotRunning
// if the lock is taken when t has ended; t may be nil.
func (r record) lockExec(ctx context.Context, kind int16, t *target) (*os.File, error) {
	f, err := os.OpenFile(r.path("config.json"), os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = ErrNotExist
		}
		return nil, err
	}
	for _, b := range []struct {
		at   int64
		kind int16
	}{{execGate, kind}, {execLock, kind}, {execGate, unix.F_UNLCK}} {
		if err := lockByte(ctx, f, b.at, b.kind, t); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// lockByte takes a lock on a byte of a file, which belongs to the open file; see fcntl_locking(2), F_OFD_SETLK.
func lockByte(ctx context.Context, f *os.File, at int64, kind int16, t *target) error {
	for wait := cgroupBusyWait; ; wait = min(2*wait, maxBusyWait) {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: at, Len: 1})
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fcntl", err)
		}
		if t != nil && t.ended(0) { // who holds the lock may be stopped, and outlast the container
			return ErrNotRunning
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// enterCgroup finds the cgroup that p is to be born in: its own below the container's, or else that of the first process. The lock keeps
// Pause away until p has been started. Group is what p is counted in. Both are nil if the container has no cgroup of its own.
func (c *Container) enterCgroup(ctx context.Context, t *target, p *Process) (lock *os.File, group *Cgroup, err error) {
	if !c.cfg.ownCgroup() {
		t.cgroup, err = otherCgroup(t.pid)
		if err == nil && t.cgroup != nil && cgroupFrozen(t.cgroup) {
			err = ErrPaused
		}
		return nil, nil, err
	}
	if lock, err = c.record.lockExec(ctx, unix.F_RDLCK, t); err != nil {
		return nil, nil, err
	}
	if group, err = c.openBirth(t, p); err != nil {
		lock.Close()
		// Destroy removes the cgroups one by one, once the processes have ended.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, ErrNoCgroup) {
			err = t.explain(err, true)
		}
		return nil, nil, err
	}
	return lock, group, nil
}

// openBirth opens the cgroup that p is to be born in, for t, and the one that it is counted in.
func (c *Container) openBirth(t *target, p *Process) (group *Cgroup, err error) {
	st, err := c.state()
	if err != nil {
		return nil, err
	}
	g, err := st.openCgroup()
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if cgroupFrozen(g.dir) {
		return nil, ErrPaused
	}
	counts := g
	var first *Cgroup
	if p.Cgroup == "" {
		first, err = st.Cgroup.placeOf(t.pid, g)
	} else {
		first, err = st.Cgroup.subOf(g, p.Cgroup)
		counts = first
	}
	if err != nil {
		return nil, err
	}
	if first != nil {
		t.birth = st.Cgroup.birth(first)
		if cgroupFrozen(first.dir) {
			return nil, &Error{Op: "cgroup", Path: first.path, Err: ErrPaused, Remedy: "the container itself has stopped the processes in this cgroup: set Process.Cgroup to another"}
		}
	}
	return counts.sub("")
}

// subOf opens a cgroup below the one with the processes, and makes it if it is missing.
func (r *cgroupRecord) subOf(g *Cgroup, name string) (*Cgroup, error) {
	inside, err := r.inside(g)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	return inside.sub(name)
}

// placeOf opens the cgroup of the first process; nil if it is the caller's. Where the kernel does not tell it, as the path has become too
// long, or it is none of the container's, it is the one that the container has begun in: nobody gets out of the limits.
func (r *cgroupRecord) placeOf(pid int, g *Cgroup) (*Cgroup, error) {
	path := cgroupOf(pid)
	if path != "" && path == cgroupOf(os.Getpid()) {
		return nil, nil
	}
	if within(path, g.path) {
		first, err := openCgroup(path)
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENAMETOOLONG) {
			return first, err
		}
	}
	return r.inside(g)
}
