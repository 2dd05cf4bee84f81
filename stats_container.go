//go:build linux

package container

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// This file reads the numbers of a container: those of its cgroup, and of its network interfaces. It runs in the caller's process,
// and enters nothing.

// Stats returns the numbers of the container at this moment, also when its first process has ended: its cgroup is there
// from Create to Destroy. It returns ErrNoCgroup if the container has no cgroup of its own.
//
// It opens some fifty files; [Container.StatsEvery] and [Cgroup.Stats] keep them open.
func (c *Container) Stats() (*Stats, error) {
	g, err := c.Cgroup()
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return c.stats(g)
}

// InterfaceStats returns the numbers of the network interfaces that the container's first process sees, in the kernel's order, lo among them: also
// those of the caller's network, if it is in that. It needs no cgroup. It returns ErrNotRunning if there is no process.
func (c *Container) InterfaceStats() ([]InterfaceStats, error) {
	list, err := c.interfaces()
	if err == nil && list == nil {
		err = ErrNotRunning
	}
	if err != nil {
		return nil, c.failed("stats", err)
	}
	return list, nil
}

// StatsEvery returns snapshots: one at once, and then one in each interval. A snapshot is left out if the loop is slow. The
// sequence ends when ctx has ended, without an error; after the first process has ended, with a last snapshot of that time; and
// after an error.
func (c *Container) StatsEvery(ctx context.Context, interval time.Duration) iter.Seq2[*Stats, error] {
	return func(yield func(*Stats, error) bool) {
		if interval <= 0 {
			yield(nil, c.failed("stats", fieldErrorf("interval", "%v: must be positive", interval)))
			return
		}
		g, err := c.Cgroup()
		if err != nil {
			yield(nil, err)
			return
		}
		defer g.Close()
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for ctx.Err() == nil {
			status, err := c.Status()
			var s *Stats
			if err == nil {
				s, err = c.stats(g)
			}
			if !yield(s, err) || err != nil || status == StatusStopped {
				return
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}
}

// stats reads the numbers; g is the container's cgroup.
func (c *Container) stats(g *Cgroup) (*Stats, error) {
	counted, err := g.Stats()
	if err != nil {
		return nil, c.failed("stats", err)
	}
	s := &Stats{CgroupStats: *counted}
	if c.cfg.Namespaces.private(NetworkNamespace) || c.cfg.networkMode() == NetworkModeContainer {
		s.Interfaces, err = c.interfaces()
	}
	if err != nil {
		return nil, c.failed("stats", err)
	}
	return s, nil
}

// interfaces reads the counters in the network namespace of the first process; nil if that has ended.
func (c *Container) interfaces() ([]InterfaceStats, error) {
	state, err := c.state()
	if err != nil || state.Pid == 0 {
		return nil, err
	}
	name := "/proc/" + strconv.Itoa(state.Pid)
	dir, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Op: "stats", Path: name, Err: err}
	}
	defer unix.Close(dir)
	// An open directory of /proc means one process for ever; now see that it is the right one.
	if start, err := startTime(state.Pid); err != nil || start != state.StartTime {
		return nil, err
	}
	fd, err := unix.Openat(dir, "net/dev", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), name+"/net/dev")
		defer f.Close()
		r := statReaders.Get().(*statReader)
		defer statReaders.Put(r)
		var n int
		if n, err = readParts(f, &r.buf); err == nil {
			list, ok := parseInterfaces(r.buf[:n])
			if !ok {
				return nil, &Error{Op: "stats", Path: f.Name(), Err: errMalformed}
			}
			return list, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil // it has ended: a zombie is in no namespace
	}
	return nil, &Error{Op: "stats", Path: name + "/net/dev", Err: err}
}
