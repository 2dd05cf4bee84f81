//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// This file goes through the cgroups below one, and removes them. It runs in the caller's process. Who has a cgroup of their own can
// make thousands in one another: a walk has two of them open at a time, and returns by "..", which in this file system is what it was on
// the way down, as no cgroup is ever moved.

// cgroupNames are the cgroups right below one. There are none below one that has been removed.
func (c *Cgroup) cgroupNames() ([]string, error) {
	// A descriptor of its own: the position in the directory is the descriptor's.
	fd, err := openBelowCgroup(int(c.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ENOENT || err == unix.ENODEV {
		return nil, nil
	}
	if err != nil {
		return nil, c.fileError("", err)
	}
	list := os.NewFile(uintptr(fd), c.path)
	defer list.Close()
	entries, err := list.ReadDir(-1)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return nil, c.fileError("", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// A walkLevel is a cgroup on the way down.
type walkLevel struct {
	names []string // the cgroups right below
	next  int      // the first of them that has not been visited
	path  string
}

// walk calls f for the cgroup and all below it, those further down first, with the names of those right below. One that is removed
// meanwhile is left out.
func (c *Cgroup) walk(f func(g *Cgroup, below []string) error) error {
	at, err := c.sub("")
	if err != nil {
		return err
	}
	defer func() { at.Close() }()
	names, err := at.cgroupNames()
	if err != nil {
		return err
	}
	levels := []walkLevel{{names: names, path: c.path}}
	for {
		level := &levels[len(levels)-1]
		if level.next < len(level.names) {
			name := level.names[level.next]
			level.next++
			next, err := at.open(name)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			next.path = walkPath(level.path, name)
			at.Close()
			at = next
			if names, err = at.cgroupNames(); err != nil {
				return err
			}
			levels = append(levels, walkLevel{names: names, path: at.path})
			continue
		}
		err := f(at, level.names)
		if len(levels) == 1 {
			return err
		}
		if err != nil && !errors.Is(err, ErrNotExist) {
			return err
		}
		levels = levels[:len(levels)-1]
		fd, err := unix.Openat(int(at.dir.Fd()), "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return at.fileError("..", err)
		}
		at.Close()
		above := levels[len(levels)-1].path
		at = &Cgroup{dir: os.NewFile(uintptr(fd), above), path: above}
	}
}

// walkPath is what a cgroup is called in errors. The paths of very deep ones would take more memory than all else.
func walkPath(above, name string) string {
	if len(above)+len(name) >= unix.PathMax {
		return above
	}
	return path.Join(above, name)
}

// removeBelow removes all cgroups below, which have no processes.
func (c *Cgroup) removeBelow(ctx context.Context) error {
	return c.walk(func(g *Cgroup, below []string) error {
		for _, name := range below {
			if err := g.removeChild(ctx, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeChild removes a cgroup right below, and those below that.
func (c *Cgroup) removeChild(ctx context.Context, name string) error {
	// EBUSY: there is a process that is being born or is dying, or a cgroup.
	for wait := cgroupBusyWait; ; wait = min(2*wait, maxBusyWait) {
		err := unix.Unlinkat(int(c.dir.Fd()), name, unix.AT_REMOVEDIR)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		fail := &Error{Op: "cgroup", Path: walkPath(c.path, name), Err: err}
		if err != unix.EBUSY {
			return fail
		}
		g, err := c.open(name)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		below, err := g.cgroupNames()
		if len(below) > 0 && ctx.Err() == nil {
			err = g.removeBelow(ctx)
		}
		g.Close()
		switch {
		case err != nil && !errors.Is(err, ErrNotExist):
			return err
		case len(below) == 0 && sleep(ctx, wait) != nil || ctx.Err() != nil:
			return fail
		}
	}
}
