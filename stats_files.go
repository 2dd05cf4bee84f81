//go:build linux

package container

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// This file keeps the files open that Stats reads again and again.

// statFiles are files of one cgroup.
type statFiles struct {
	mu     sync.Mutex
	open   map[string]*os.File
	closed bool
}

// read reads a file into the buffer, which grows if need be. It returns ENOENT if there is none. The caller has locked mu.
func (s *statFiles) read(dir *os.File, name string, buf *[]byte) (n int, err error) {
	if f := s.open[name]; f != nil {
		if n, err = readWhole(f, buf); err != unix.ENODEV {
			return n, err
		}
		s.forget() // its controller was disabled; if it is enabled again, there are other files
	}
	fd, err := openBelowCgroup(int(dir.Fd()), name, unix.O_RDONLY)
	if err != nil {
		if err == unix.ENODEV {
			err = unix.ENOENT
		}
		return 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	if n, err = readWhole(f, buf); err != nil || s.closed {
		f.Close()
	} else {
		put(&s.open, name, f)
	}
	if err == unix.ENODEV {
		err = unix.ENOENT
	}
	return n, err
}

// readWhole reads a file of the kernel's from its beginning, which it then makes anew.
func readWhole(f *os.File, buf *[]byte) (n int, err error) {
	for {
		b := *buf
		got, err := unix.Pread(int(f.Fd()), b[n:], int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		}
		n += got
		switch {
		case got == 0 || n < minPart:
			return n, nil
		case n == len(b) && n >= maxCgroupFile:
			return 0, unix.EFBIG
		case n == len(b):
			*buf = append(b, make([]byte, n)...)
		}
	}
}

// readParts reads a file of /proc, which the kernel hands out in parts.
func readParts(f *os.File, buf *[]byte) (n int, err error) {
	for {
		got, err := f.Read((*buf)[n:])
		n += got
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return 0, err
		case n == len(*buf) && n >= maxCgroupFile:
			return 0, unix.EFBIG
		case n == len(*buf):
			*buf = append(*buf, make([]byte, n)...)
		}
	}
}

// minPart is the least that the kernel returns of a file in a cgroup if there is more, and room for it: a page.
const minPart = 4096

// forget closes all files.
func (s *statFiles) forget() {
	for _, f := range s.open {
		f.Close()
	}
	s.open = nil
}

// close closes all files, and from then on none is kept.
func (s *statFiles) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	s.closed = true
}
