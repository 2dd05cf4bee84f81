//go:build linux

package container

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file reads what the kernel shows of a process, through the caller's procfs. It runs in the caller's process.

// A seenProcess is a process as the caller's procfs shows it. Its directory there is never another process's.
type seenProcess struct {
	dir    int    // /proc/PID
	status string // of its status
}

// seeProcess opens the directory and reads the status.
func seeProcess(pid int) (*seenProcess, error) {
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, waitedFor(&fs.PathError{Op: "open", Path: "/proc/" + strconv.Itoa(pid), Err: err})
	}
	s := &seenProcess{dir: dir}
	if err := s.read(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *seenProcess) close() { unix.Close(s.dir) }

// read reads the status anew.
func (s *seenProcess) read() (err error) {
	s.status, err = s.file("status")
	return err
}

// file reads a file. These are read at each start, several of them: so without what os.ReadFile does besides.
func (s *seenProcess) file(name string) (string, error) {
	fail := func(err error) (string, error) {
		return "", waitedFor(&fs.PathError{Op: "read", Path: "/proc/PID/" + name, Err: err})
	}
	fd, err := unix.Openat(s.dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if err != nil {
			return fail(err)
		}
		if n == 0 {
			return string(text), nil
		}
		text = slices.Grow(text[:len(text)+n], 512)
	}
}

// waitedFor makes one error of the two that procfs has for a process that has been waited for.
func waitedFor(err *fs.PathError) error {
	if err.Err == unix.ESRCH {
		err.Err = unix.ENOENT
	}
	return err
}

// id is what a file or a namespace is known by, as long as it is there.
func (s *seenProcess) id(name string) (fileID, error) { return idAt(s.dir, name) }

func idAt(dir int, name string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, 0); err != nil {
		return fileID{}, waitedFor(&fs.PathError{Op: "stat", Path: name, Err: err})
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// appArmor is the AppArmor label.
func (s *seenProcess) appArmor() (string, error) {
	text, err := s.file("attr/apparmor/current") // Linux 5.8; "current" may be another module's
	if errors.Is(err, fs.ErrNotExist) {
		text, err = s.file("attr/current")
	}
	return strings.TrimSuffix(text, "\n"), err
}

// namespaceAt is the number of a namespace in a directory "ns" of procfs. To read the link is three times as fast as to follow it.
func namespaceAt(dir int, kind NamespaceKind) (uint64, error) {
	var buf [64]byte
	n, err := unix.Readlinkat(dir, string(kind), buf[:])
	if err != nil {
		return 0, waitedFor(&fs.PathError{Op: "readlink", Path: "/proc/PID/ns/" + string(kind), Err: err})
	}
	_, number, _ := strings.Cut(strings.TrimSuffix(string(buf[:n]), "]"), "[")
	return strconv.ParseUint(number, 10, 64)
}

// field is a field of the status.
func (s *seenProcess) field(name string) string { return statusField(s.status, name) }

func statusField(status, name string) string {
	_, rest, _ := strings.Cut(status, "\n"+name+":\t")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// bits is a set of capabilities.
func (s *seenProcess) bits(name string) uint64 {
	set, err := strconv.ParseUint(s.field(name), 16, 64)
	if err != nil {
		return 1 << 63 // is asked for by nobody
	}
	return set
}

// awaitExec waits until an execve(2) of the process is over, which gives it its label last: to open its maps takes the lock that execve holds
// (exec_update_lock), whether the caller may read them or not.
func (s *seenProcess) awaitExec() {
	if fd, err := unix.Openat(s.dir, "maps", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(fd)
	}
}

// ended tells whether there is nothing of the process left but its status.
func (s *seenProcess) ended() bool {
	if err := s.read(); err != nil {
		return !scarce(err)
	}
	state := s.field("State")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// ownFilters is the number of filters that the caller has, and passes on.
var ownFilters = answered(func() (int, error) {
	s, err := seeProcess(os.Getpid())
	if err != nil {
		return 0, err
	}
	defer s.close()
	return strconv.Atoi(s.field("Seccomp_filters"))
})
