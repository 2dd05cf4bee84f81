//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// This file is a container's record on disk:
//
//	<stateDir>/<id>/          0700; flock on it while something changes, which the kernel drops at death
//	    config.json           the configuration, written once
//	    state.json            what is there to be cleaned up, and how the process ended
//	    start                 which process is being started, written by that process itself
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

// lock takes the record's lock, which no other process or goroutine has then. It is on the directory
// itself, and holds for the one that has the name then: while it was waited for, the container may
// have been destroyed and its id used again.
func (r record) lock() (unlock func(), err error) {
	for {
		fd, err := unix.Open(r.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: r.dir, Err: err}
		}
		for {
			err = unix.Flock(fd, unix.LOCK_EX)
			if err != unix.EINTR {
				break
			}
		}
		if err != nil {
			unix.Close(fd)
			return nil, &fs.PathError{Op: "flock", Path: r.dir, Err: err}
		}
		var locked, named unix.Stat_t
		if unix.Fstat(fd, &locked) == nil && unix.Lstat(r.dir, &named) == nil && locked.Ino == named.Ino && locked.Dev == named.Dev {
			return func() { unix.Close(fd) }, nil
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
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		// ext4 writes a file out to disk that is renamed over another, and waits. We need no such
		// promise, and exchanging the two is as atomic.
		err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // the first time, or not on this file system
			return os.Rename(temp, path)
		}
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
	case !info.Mode().IsRegular() || info.Size() > maxRecord:
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: fmt.Errorf("not a record: %v, %d bytes", info.Mode(), info.Size())}
	}
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// state reads the record and asks the kernel what has become of the process.
func (r record) state() (*ContainerState, error) {
	var s ContainerState
	if err := r.read("state.json", &s); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotExist
		}
		return nil, err
	}
	if s.Status == StatusCreated {
		r.interrupted(&s)
	}
	s.derive()
	return &s, nil
}

// startFile is the intent of a start. It begins with the boot's id, since times count from there.
const startFile = "start"

// beginStart opens the file for the launcher.
func (r record) beginStart() (*os.File, error) {
	f, err := os.OpenFile(r.path(startFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(bootID() + "\n"); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// endStart takes the intent back: the start has failed, and its process is gone.
func (r record) endStart() { _ = os.Remove(r.path(startFile)) }

// interrupted looks for a start that nobody has recorded the success of, and turns s into what would
// have been recorded.
func (r record) interrupted(s *ContainerState) {
	text, err := r.text(startFile)
	if err != nil {
		return
	}
	boot, stat, _ := strings.Cut(string(text), "\n")
	number, _, _ := strings.Cut(stat, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return // it did not come that far, so nothing of the user's has run
	}
	s.Status, s.Pid, s.BootID, s.StartTime = StatusRunning, pid, boot, startTimeOf(stat)
	if info, err := os.Stat(r.path(startFile)); err == nil {
		s.Started = info.ModTime()
	}
}

func (s *ContainerState) derive() {
	switch {
	case s.Status != StatusRunning:
	case s.Pid > 0 && s.BootID == bootID() && s.StartTime != 0 && startTime(s.Pid) == s.StartTime:
		return
	default:
		s.Status, s.ExitCode = StatusStopped, -1
	}
	s.Pid = 0
}

// bootID names the current boot of the host.
var bootID = sync.OnceValue(func() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
})

// startTime is when a process was started, in clock ticks since boot; 0 if there is none or it is
// dead. It is field 22 of /proc/PID/stat, see proc(5).
func startTime(pid int) uint64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	return startTimeOf(string(text))
}

// startTimeOf is the same for the text of such a file.
func startTimeOf(stat string) uint64 {
	// The second field, the name, may contain anything; what follows its last parenthesis does not.
	_, rest, ok := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
