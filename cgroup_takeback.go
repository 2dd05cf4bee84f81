//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"path"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file gives cgroups back to an ordinary user, who is to remove them: those that a process of the container has made as another user
// of the container, and those that it has closed with chmod. It runs in the caller's process, and in a launcher in a
// user namespace with the container's ids.

const (
	takeBackRounds = 100 // in each, what is below the last ones comes to be seen
	takeBackBatch  = 256 // of one program
)

// removeAll calls remove, and again as long as what has kept it from removing can be taken back.
func (c *Container) removeAll(ctx context.Context, g *Cgroup, remove func() error) error {
	for range takeBackRounds {
		err := remove()
		if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) || os.Geteuid() == 0 {
			return err
		}
		taken, takeErr := c.takeBackBelow(ctx, g)
		if !taken || takeErr != nil {
			return errors.Join(err, takeErr)
		}
	}
	return remove()
}

// takeBackBelow makes all cgroups below the caller's, and tells whether there were others.
func (c *Container) takeBackBelow(ctx context.Context, g *Cgroup) (taken bool, err error) {
	closed, foreign := g.lost()
	for _, name := range closed {
		if err := unix.Fchmodat(int(g.dir.Fd()), name, 0o755, 0); err != nil && err != unix.ENOENT {
			return false, g.fileError(name, err)
		}
	}
	if len(foreign) == 0 || !c.cfg.Namespaces.NewUser {
		return len(closed) > 0, nil
	}
	ns, err := newUserNamespace(ctx, c.cfg.UidMappings, c.cfg.GidMappings)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	for len(foreign) > 0 {
		n := min(len(foreign), takeBackBatch)
		if err := takeBackProgram(ns, g.dir, foreign[:n], c.record.dir); err != nil {
			return false, err
		}
		foreign = foreign[n:]
	}
	return true, nil
}

// lost lists what below the cgroup is the caller's, but closed, and what is another's, as far as the caller can see.
func (c *Cgroup) lost() (closed, foreign []string) {
	var look func(name string)
	look = func(name string) {
		var st unix.Stat_t
		if unix.Fstatat(int(c.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			return
		}
		switch {
		case int(st.Uid) != os.Geteuid():
			foreign = append(foreign, name)
		case st.Mode&0o700 != 0o700:
			closed = append(closed, name)
		}
		g, err := c.open(name)
		if err != nil {
			return
		}
		names, _ := g.cgroupNames()
		g.Close()
		for _, below := range names {
			look(path.Join(name, below))
		}
	}
	names, _ := c.cgroupNames()
	for _, name := range names {
		look(name)
	}
	return closed, foreign
}

// takeBackProgram gives directories to the root of a user namespace, who is the caller.
func takeBackProgram(ns, dir *os.File, names []string, tempDir string) error {
	p := launch.New(0)
	p.Step("enter a user namespace with the container's ids", "")
	p.Call(unix.SYS_SETNS, p.File(ns), unix.CLONE_NEWUSER)
	at := p.File(dir)
	for _, name := range names {
		p.Call(unix.SYS_FCHOWNAT, at, p.Str(name), 0, 0, unix.AT_SYMLINK_NOFOLLOW).IgnoreAll()
	}
	p.Exit(0)
	return runToEnd("take back cgroups", p, tempDir)
}
