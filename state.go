//go:build linux

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file is a container's record on disk:
//
//	<stateDir>/<id>/          0700; flock on it while something changes, which the kernel drops at death
//	    config.json           the configuration, written once
//	    state.json            what is there to be cleaned up, and how the process ended
//	    start                 which process is being started, written by that process itself
//	    exit                  how the process ended, written by the supervisor of a detached container
//	    go, report            see gate.go
//
// A caller may be killed between the start and its record. The file start then tells, once the
// kernel's line about the process is in it, that there is or was one.
//
// state.json is written beside its name and renamed; a container without one does not exist yet. It
// is not synced: after a power failure none of the processes, mounts and namespaces that it speaks of
// exist, and Destroy takes a record that cannot be read for one without a process.

const stateVersion = 1

// record is the directory of one container.
type record struct{ dir string }

func (r record) path(name string) string { return filepath.Join(r.dir, name) }

// checkOwner tells whether the record is the caller's own. One that somebody else can write says which
// process to kill and which tree of the host to mount.
func (r record) checkOwner() error {
	var st unix.Stat_t
	switch err := unix.Lstat(r.dir, &st); {
	case err == unix.ENOENT, err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return ErrNotExist
	case err != nil:
		return &fs.PathError{Op: "lstat", Path: r.dir, Err: err}
	case int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0:
		return &fs.PathError{Op: "load", Path: r.dir, Err: unix.EPERM}
	}
	return nil
}

// checkStateDir refuses a directory in which others can rename things: while a record is at work they could
// put a link to another place under its name.
func checkStateDir(dir string) error {
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	switch sticky := st.Mode&unix.S_ISVTX != 0; {
	case err == unix.ENOENT:
		return ErrNotExist
	case err != nil:
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	case st.Uid != 0 && int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 && !sticky:
		return &Error{Op: "state directory", Path: dir, Err: unix.EPERM, Remedy: "others can change what is in it; use one that is the caller's or root's, and only theirs to write"}
	}
	return nil
}

// lock takes the record's lock, which no other process or goroutine has then, until the file is closed
// by all who have inherited it. It is on the directory
// itself, and holds for the one that has the name then: while it was waited for, the container may
// have been destroyed and its id used again.
func (r record) lock() (*os.File, error) { return r.lockUntil(context.Background()) }

// lockUntil waits for it until ctx is done.
func (r record) lockUntil(ctx context.Context) (*os.File, error) {
	return r.lockBy(func(fd int) error { return flockUntil(ctx, fd, r.dir, unix.LOCK_EX) })
}

// lockNow does not wait: it returns nil while another has the lock.
func (r record) lockNow() (*os.File, error) {
	lock, err := r.lockBy(func(fd int) error { return flockNow(fd, unix.LOCK_EX) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return lock, err
}

func (r record) lockBy(flock func(fd int) error) (*os.File, error) {
	for {
		fd, err := openRetry(func() (int, error) {
			return unix.Open(r.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: r.dir, Err: err}
		}
		if err := flock(fd); err != nil {
			unix.Close(fd)
			return nil, lockFailed("lock", r.dir, err)
		}
		var locked, named unix.Stat_t
		if unix.Fstat(fd, &locked) == nil && unix.Lstat(r.dir, &named) == nil && locked.Ino == named.Ino && locked.Dev == named.Dev {
			return os.NewFile(uintptr(fd), r.dir), nil
		}
		unix.Close(fd)
	}
}

// write replaces a file of the record.
func (r record) write(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	temp, path := r.path("."+name), r.path(name)
	_ = os.Remove(temp) // of a process that was killed here
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	at("record: temporary file")
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		at("record: temporary file written")
		// ext4 writes a file out to disk that is renamed over another, and waits. We need no such
		// promise, and exchanging the two is as atomic.
		err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // the first time, or not on this file system
			if err = os.Rename(temp, path); err == nil {
				return nil
			}
		}
		at("record: files exchanged")
	}
	return errors.Join(err, os.Remove(temp))
}

// maxRecord bounds what is read back.
const maxRecord = 16 << 20

// read reads a file of the record; a link, a device or an endless file is an error.
func (r record) read(name string, v any) error {
	text, err := r.text(name)
	if err == nil {
		if err = json.Unmarshal(text, v); err != nil {
			err = &fs.PathError{Op: "parse", Path: r.path(name), Err: err}
		}
	}
	return err
}

func (r record) text(name string) ([]byte, error) {
	f, err := os.OpenFile(r.path(name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: errors.New("it belongs to another user")}
	case !info.Mode().IsRegular() || info.Size() > maxRecord:
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("not a record: %v, %d bytes", info.Mode(), info.Size())}
	}
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// claim makes the record's directory and locks it. Of several that try, one gets it; the others get
// ErrExist. What a New or a Destroy that was killed has left is taken over.
func (r record) claim() (lock *os.File, err error) {
	for {
		if err := os.Mkdir(r.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := r.checkOwner(); errors.Is(err, fs.ErrPermission) {
			return nil, ErrExist // somebody else's
		}
		at("new: directory")
		lock, err := r.lock()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another has given up or destroyed it
		}
		if err != nil {
			if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
				os.Remove(r.dir)
				return nil, err
			}
			return nil, ErrExist
		}
		if _, err := os.Lstat(r.path("state.json")); err == nil {
			lock.Close()
			return nil, ErrExist
		}
		if err := r.empty(); err != nil {
			os.Remove(r.dir) // if there is nothing in it
			lock.Close()
			return nil, err
		}
		at("new: locked")
		return lock, nil
	}
}

// ownFiles are all names that the package gives to files of a record.
var ownFiles = []string{"config.json", "state.json", ".state.json", startFile, exitFile, goFile, reportFile}

// empty removes what is in the directory, if all of it is ours.
func (r record) empty() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(ownFiles, e.Name()) {
			return ErrExist // no record, but somebody's directory
		}
	}
	for _, e := range entries {
		err = errors.Join(err, os.Remove(r.path(e.Name())))
	}
	return err
}

// remove removes the record, state.json last but for the directory: until then it can be loaded, and
// destroyed again.
func (r record) remove() error {
	entries, err := os.ReadDir(r.dir)
	for _, e := range entries {
		if e.Name() != "state.json" {
			err = errors.Join(err, os.RemoveAll(r.path(e.Name())))
			at("destroy: file")
		}
	}
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.path("state.json")); err != nil {
		return err
	}
	at("destroy: state")
	if err := os.RemoveAll(r.dir); err != nil {
		return err
	}
	at("destroy: directory")
	return nil
}

// checkMade tells whether there is a container: a directory without state.json is what a New or a Destroy has
// left that was killed, or it is being made or removed. Then it waits for that, and not for the lock: a caller that makes a container,
// runs it and destroys it may never leave that to others for long enough.
func (r record) checkMade() error {
	const longest = 10 * time.Millisecond
	for pause := time.Millisecond / 4; ; pause = min(2*pause, longest) {
		if _, err := os.Lstat(r.path("state.json")); err == nil {
			return nil
		}
		lock, err := r.lockNow()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return ErrNotExist
		case err != nil:
			return err
		case lock != nil:
			defer lock.Close()
			return r.takeBack()
		}
		time.Sleep(pause)
	}
}

// takeBack removes what a New or a Destroy has left that was killed, with the lock. It returns nil if there is a container.
func (r record) takeBack() error {
	if _, err := os.Lstat(r.path("state.json")); err == nil {
		return nil
	}
	s, err := r.launcher()
	if err == nil {
		err = s.first().kill()
	}
	if err != nil {
		return err
	}
	if r.empty() == nil {
		os.Remove(r.dir)
	}
	return ErrNotExist
}

// stored is what state.json holds.
type stored struct {
	ContainerState

	// Supervisor is the parent of a detached container's first process.
	Supervisor processID `json:"supervisor,omitzero"`
	// MountNamespaceID is what the container's processes are known by; see members.go.
	MountNamespaceID uint64 `json:"mountNamespaceID,omitempty"`
	// Cgroup is the container's own; nil if it has none.
	Cgroup *cgroupRecord `json:"cgroup,omitempty"`
	// Held are the calls behind the gate.
	Held launch.LastCalls `json:"held,omitzero"`
	// WhenRunning is what must be seen of the process behind it.
	WhenRunning runningCheck `json:"whenRunning,omitzero"`
	// EndpointKey is what the host's side of the network is found by; empty for none.
	EndpointKey string `json:"endpointKey,omitempty"`
	// MovedDevices are the host's devices that are, or are about to be, in the container's network namespace.
	MovedDevices []movedDevice `json:"movedDevices,omitempty"`
	// Sockets are the files of published sockets that are, or are about to be, in the file system.
	Sockets []*socketFile `json:"sockets,omitempty"`
}

// processID is a process for ever: a number alone means any process once it is used again.
type processID struct {
	Pid       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // in clock ticks since boot
}

// state reads the record and asks the kernel what has become of the process.
func (r record) state() (*stored, error) {
	var s stored
	if err := r.read("state.json", &s); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotExist
		}
		return nil, err
	}
	if s.Status == StatusCreating {
		if err := r.interrupted(&s); err != nil {
			return nil, err
		}
	}
	if err := r.derive(&s); err != nil {
		return nil, err
	}
	return &s, nil
}

const (
	startFile = "start" // the intent of a start. It begins with the boot's id, since times count from there
	exitFile  = "exit"
)

// beginStart opens the files for a launcher. The lock stays the caller's.
func (r record) beginStart(lock *os.File, hold, detached bool) (_ *launchFiles, err error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	f := &launchFiles{lock: lock}
	defer func() {
		if err != nil {
			f.closeFiles()
		}
	}()
	if f.intent, err = r.create(startFile); err != nil {
		return nil, err
	}
	at("create: start file")
	if _, err := f.intent.WriteString(boot + "\n"); err != nil {
		return nil, err
	}
	at("create: boot")
	if detached {
		if f.exit, err = r.create(exitFile); err != nil {
			return nil, err
		}
		at("create: exit file")
	}
	if hold {
		if f.gate, err = r.makeGate(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (r record) create(name string) (*os.File, error) {
	return os.OpenFile(r.path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
}

// launchFiles are what a launcher gets of the record's directory. Nil ones it does not need.
type launchFiles struct {
	lock   *os.File // the record's lock, until the launcher has written which process it is; the caller's
	intent *os.File // where it writes that
	gate   *gate    // where it waits for Start
	exit   *os.File // where the supervisor writes how the process has ended
	birth
	network *networkLink // what the container is connected to; nil for nothing
}

// closeFiles closes all but the lock.
func (f *launchFiles) closeFiles() {
	f.intent.Close()
	f.exit.Close()
	f.birth.close()
	if f.gate != nil {
		f.gate.enter.Close()
		f.gate.report.Close()
	}
}

// endStart takes the intent back: the start has failed, and its process is gone.
func (r record) endStart() {
	_ = os.Remove(r.path(exitFile))
	r.removeGate()
	_ = os.Remove(r.path(startFile))
}
