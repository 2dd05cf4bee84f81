//go:build linux

package container

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file holds the files of published unix sockets. It runs in the caller's process, and in that of whoever takes back what a caller has left that was
// killed.
//
// The kernel keeps the file of a socket whose process is gone, and by its name alone nobody can tell whose it is. So a socket is bound
// under a random name beside its own, which is in the record before it is there; which file that is is in the record before it has its own name. Whatever
// is there is removed only if it is the file of the record: not what somebody has put in its place.

// A socketFile is the file of a published unix socket, as the record has it.
type socketFile struct {
	Path string `json:"path"`
	Temp string `json:"temp"` // in the same directory
	// Which file it is; all zero before that is known. Born is zero where the file system does not tell.
	Dev  uint64 `json:"dev,omitempty"`
	Ino  uint64 `json:"ino,omitempty"`
	Born int64  `json:"born,omitempty"` // in nanoseconds: numbers of files are used again
}

// socketPatience is how long a socket may be at work of which the container has ended: a launcher of the caller's that was killed has a copy.
var socketPatience = time.Second

// newSocketFile is the file of a mapping.
func newSocketFile(path string) *socketFile {
	return &socketFile{Path: path, Temp: "." + filepath.Base(path) + "." + rand.Text()}
}

// bindSockets binds the sockets of the mappings. Note writes down which files there are and will be.
func (p *portRelay) bindSockets(note func([]*socketFile) error) error {
	var files []*socketFile
	var ports []*streamPort
	for _, m := range p.mappings {
		if m.HostSocket != "" {
			f := newSocketFile(m.HostSocket)
			files = append(files, f)
			ports = append(ports, &streamPort{relay: p, to: &portTarget{port: m.ContainerPort, path: m.ContainerSocket}, file: f})
		}
	}
	if len(files) == 0 {
		return nil
	}
	if err := note(files); err != nil {
		return err
	}
	at("publish: sockets named")
	for _, s := range ports {
		var err error
		if s.listener, err = s.file.bind(); err != nil {
			return err
		}
		p.streams = append(p.streams, s)
		at("publish: socket bound")
	}
	if err := note(files); err != nil {
		return err
	}
	at("publish: sockets recorded")
	for _, f := range files {
		if err := f.publish(); err != nil {
			return err
		}
		at("publish: socket published")
	}
	return nil
}

// dir opens the directory of the file.
func (f *socketFile) dir() (*os.File, error) {
	dir := filepath.Dir(f.Path)
	fd, err := openRetry(func() (int, error) { return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// bind makes the file under its first name, and listens.
func (f *socketFile) bind() (net.Listener, error) {
	dir, err := f.dir()
	if err != nil {
		return nil, f.failed(err)
	}
	defer dir.Close()
	name := filepath.Join(dir.Name(), f.Temp)
	if len(name) > maxSocketPath { // the other is what ss(8) shows
		name = filepath.Join(fdPath(int(dir.Fd())), f.Temp)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, f.failed(err)
	}
	l.SetUnlinkOnClose(false) // whatever has the name then
	file, err := openSocketFile(dir, f.Temp)
	if err == nil {
		err = f.identify(file)
		file.Close()
	}
	if err != nil {
		l.Close()
		return nil, errors.Join(f.failed(err), f.remove(hastily, true))
	}
	return l, nil
}

// publish gives the file its own name, if that is free.
func (f *socketFile) publish() error {
	dir, err := f.dir()
	if err != nil {
		return f.failed(err)
	}
	defer dir.Close()
	fd := int(dir.Fd())
	if err := unix.Linkat(fd, f.Temp, fd, filepath.Base(f.Path), 0); err != nil {
		return f.failed(os.NewSyscallError("link", err))
	}
	at("publish: socket linked")
	if err := unix.Unlinkat(fd, f.Temp, 0); err != nil {
		return f.failed(os.NewSyscallError("unlink", err))
	}
	return nil
}

func (f *socketFile) failed(err error) error {
	return bindError(PortMapping{HostSocket: f.Path}, f.Path, err)
}

// openSocketFile opens what has a name in a directory, to look at it; nil if there is nothing.
func openSocketFile(dir *os.File, name string) (*os.File, error) {
	fd, err := openRetry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// identify notes which file it is.
func (f *socketFile) identify(file *os.File) error {
	if file == nil {
		return unix.ENOENT
	}
	var st unix.Statx_t
	if err := unix.Statx(int(file.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return os.NewSyscallError("statx", err)
	}
	f.Dev, f.Ino, f.Born = unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino, 0
	if st.Mask&unix.STATX_BTIME != 0 {
		f.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return nil
}

// is tells whether a file is this one. One that was not recorded is what has its random name and is a socket of the caller's user.
func (f *socketFile) is(file *os.File) (bool, error) {
	found := *f
	if err := found.identify(file); err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return false, os.NewSyscallError("fstat", err)
	}
	return st.Mode&unix.S_IFMT == unix.S_IFSOCK && (found == *f || f.Ino == 0 && int(st.Uid) == os.Geteuid()), nil
}

// releaseSockets removes the files that are left of sockets nobody uses.
func releaseSockets(ctx context.Context, files []*socketFile) error {
	var errs []error
	for _, f := range files {
		if f != nil { // in a damaged record
			errs = append(errs, f.remove(ctx, false))
		}
	}
	return errors.Join(errs...)
}

// remove removes the file, if it is there. It can be called any number of times. Own is for the process that has the socket; another's is
// left alone while anybody listens at it.
func (f *socketFile) remove(ctx context.Context, own bool) error {
	base := filepath.Base(f.Path)
	if !filepath.IsAbs(f.Path) || !strings.HasPrefix(f.Temp, "."+base+".") || strings.Contains(f.Temp, "/") {
		return nil // no record of ours
	}
	err := func() error {
		dir, err := f.dir()
		if err != nil {
			return err
		}
		defer dir.Close()
		names := []string{f.Temp}
		if f.Ino != 0 {
			names = append(names, base, f.Temp) // which another may just have given it who removes it as well
		}
		for _, name := range names {
			if err := f.removeAs(ctx, dir, name, own); err != nil {
				return err
			}
		}
		return nil
	}()
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) { // so the directory is gone
		return nil
	}
	return &Error{Op: "remove socket", Path: f.Path, Err: err}
}

func (f *socketFile) removeAs(ctx context.Context, dir *os.File, name string, own bool) error {
	file, err := openSocketFile(dir, name)
	if file == nil {
		return err
	}
	defer file.Close()
	if is, err := f.is(file); err != nil || !is {
		return err
	}
	if !own {
		if used, err := stillListens(ctx, file); err != nil || used {
			return err
		}
	}
	at("unpublish: socket found")
	fd := int(dir.Fd())
	if name != f.Temp {
		// No call removes a file only if it is a certain one. So it gets a name that nobody else uses, and is looked at there.
		if err := unix.Renameat(fd, name, fd, f.Temp); err == unix.ENOENT {
			return nil
		} else if err != nil {
			return os.NewSyscallError("rename", err)
		}
		at("unpublish: socket aside")
		file, err := openSocketFile(dir, f.Temp)
		if file == nil {
			return err
		}
		defer file.Close()
		if is, err := f.is(file); err != nil || !is {
			return errors.Join(err, f.putBack(dir))
		}
	}
	if err := unix.Unlinkat(fd, f.Temp, 0); err != nil && err != unix.ENOENT {
		return os.NewSyscallError("unlink", err)
	}
	return nil
}

// putBack gives another's file, which has taken the place of ours within the last microseconds, its name again.
func (f *socketFile) putBack(dir *os.File) error {
	fd := int(dir.Fd())
	err := unix.Renameat2(fd, f.Temp, fd, filepath.Base(f.Path), unix.RENAME_NOREPLACE)
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("another's file is called %s now, since there is a third one: %w", f.Temp, err)
	}
	return nil
}

// stillListens tells whether anybody listens at a socket, after waiting a little for the end of that.
func stillListens(ctx context.Context, file *os.File) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, socketPatience)
	defer cancel()
	for pause := time.Millisecond; ; pause *= 2 {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return true, os.NewSyscallError("socket", err)
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: fdPath(int(file.Fd()))})
		unix.Close(fd)
		if err == unix.ECONNREFUSED {
			return false, nil
		}
		if sleep(ctx, pause) != nil {
			return true, nil
		}
	}
}
