//go:build linux

package container

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file has sockets made in a running container: by a program of a few system calls that enters its namespaces, sends what it has
// made to the caller's process, and ends. It runs in the caller's process. A socket stays in the network namespace it was made
// in, wherever it is used.
//
// The naive way, to have a thread of the caller enter, cannot be gone by an ordinary user: a user namespace takes no process with
// more than one thread. Nor does it give the socket an owner of the container's.

// networkTarget opens the container's first process, for who wants a socket there.
func (c *Container) networkTarget(ctx context.Context) (*target, error) {
	if err := cmp.Or(ctx.Err(), c.damage); err != nil {
		return nil, err
	}
	t, err := c.target()
	if err != nil {
		return nil, err
	}
	if err := c.thawed(t); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// thawed returns ErrPaused if the container is paused.
func (c *Container) thawed(t *target) error {
	var dir *os.File
	if c.cfg.ownCgroup() {
		st, err := c.state()
		if err != nil {
			return err
		}
		g, err := st.openCgroup()
		if err != nil {
			return err
		}
		defer g.Close()
		dir = g.dir
	} else {
		other, err := otherCgroup(t.pid)
		if err != nil || other == nil {
			return err
		}
		defer other.Close()
		dir = other
	}
	if cgroupFrozen(dir) {
		return ErrPaused
	}
	return nil
}

// inside carries out what emit adds in those of the container's namespaces that kinds says, as its root, and returns the n files that it
// sends: all of them, or none and an error.
func (t *target) inside(ctx context.Context, tempDir string, kinds uintptr, n int, emit func(e emitter)) (files []*os.File, err error) {
	e := emitter{launch.New(0), make(map[[4]launch.Arg]launch.Arg)}
	flags := t.flags & (kinds | unix.CLONE_NEWUSER)
	// Before the first namespace: no process of the container may look into this one (CVE-2016-9962).
	e.Step("not dumpable", "")
	e.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	if flags != 0 {
		e.Step("enter namespaces", kindsOf(flags))
		e.Call(unix.SYS_SETNS, e.File(t.process), launch.Arg(flags))
	}
	if flags&unix.CLONE_NEWUSER != 0 {
		e.becomeRoot()
	}
	emit(e)
	e.Exit(0)
	child, err := e.Start(&launch.Attr{TempDir: tempDir})
	if err != nil {
		return nil, &Error{Op: "start", Err: err}
	}
	defer child.Release()
	stop := context.AfterFunc(ctx, func() { child.Process().Kill() })
	defer stop()
	var failure error
	for failure == nil {
		var msg launch.Message
		if msg, failure = child.Next(); msg.File != nil {
			files = append(files, msg.File)
		}
	}
	child.CloseSocket() // one that has more to say, after an error of ours, ends
	state, err := child.Process().Wait()
	if failure == io.EOF {
		if failure = err; err == nil && (!state.Success() || len(files) != n) {
			failure = launch.ErrDied
		}
	}
	if failure == nil {
		return files, nil
	}
	closers(files).close()
	return nil, cmp.Or(ctx.Err(), t.explain(stepError(failure), false))
}

// sendInside sends a socket that was made inside.
func (e emitter) sendInside(fd launch.Arg) {
	e.SendFile(tagSocket, fd)
	e.close(fd)
}

// socketPlace is the number that a socket's file gets, for its name in /proc/self/fd.
const socketPlace = 60

// connectUnix makes a socket that blocks, and connects it. A name that begins with @ is abstract, in the network namespace; others are
// paths, which are looked up in the container and do not lead out of it: connect(2) would follow links of /proc to what
// the container names there and the caller may reach. Proc is the caller's.
func (e emitter) connectUnix(typ int, name string, proc *os.File) launch.Arg {
	fd := e.Call(unix.SYS_SOCKET, unix.AF_UNIX, launch.Arg(typ|unix.SOCK_CLOEXEC), 0).Result()
	if !abstract(name) {
		place := e.open(e.ownRoot(), name, unix.O_PATH, 0, inRoot).Result()
		e.Call(unix.SYS_DUP3, place, socketPlace, unix.O_CLOEXEC)
		e.Call(unix.SYS_FCHDIR, e.File(proc))
		name = fmt.Sprintf("self/fd/%d", socketPlace)
	}
	e.unixAddr(unix.SYS_CONNECT, fd, name)
	return fd
}

// bindUnix makes a socket with a name. That of a file is one that is not there, in a directory that is.
func (e emitter) bindUnix(typ int, name string, backlog int) launch.Arg {
	fd := e.Call(unix.SYS_SOCKET, unix.AF_UNIX, launch.Arg(typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), 0).Result()
	if !abstract(name) {
		e.Call(unix.SYS_FCHDIR, e.directoryOf(name))
		e.Call(unix.SYS_UMASK, 0)
		name = path.Base(name)
	}
	e.unixAddr(unix.SYS_BIND, fd, name)
	if backlog > 0 {
		e.Call(unix.SYS_LISTEN, fd, launch.Arg(backlog))
	}
	return fd
}

// unixAddr is bind(2) or connect(2) with a name.
func (e emitter) unixAddr(nr uint32, fd launch.Arg, name string) {
	addr := binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX)
	if abstract(name) {
		addr = append(append(addr, 0), name[1:]...)
	} else {
		addr = append(append(addr, name...), 0)
	}
	e.Call(nr, fd, e.Bytes(addr), launch.Arg(len(addr)))
}

// ownRoot opens the root of the mount namespace.
func (e emitter) ownRoot() launch.Arg {
	return e.open(cwdFD, "/", unix.O_PATH|unix.O_DIRECTORY, 0, 0).Result()
}

// directoryOf opens the directory that a name of the container's is in.
func (e emitter) directoryOf(name string) launch.Arg {
	return e.open(e.ownRoot(), path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0, inRoot).Result()
}

// abstract tells whether a name of a unix socket is none of a file.
func abstract(name string) bool { return len(name) > 0 && name[0] == '@' }
