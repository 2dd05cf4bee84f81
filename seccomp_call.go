//go:build linux

package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file is what a handler can do with the thread that waits: read and write its memory, take and give descriptors. A number
// of a process may be another's by the time it is used; so what was done by number counts only if the thread still waits
// afterwards, and what changes something is done by descriptors that were opened before the thread was seen to wait.

// A seccompThread is a thread that waits for an answer.
type seccompThread struct {
	l  *seccompListener
	id uint64
}

// valid returns ErrCallEnded if it does not wait any more.
func (t *seccompThread) valid() error {
	failed := error(os.ErrClosed)
	if t == nil {
		return ErrCallEnded // a call that nobody makes
	}
	t.l.conn.Control(func(fd uintptr) { failed = seccompValid(int(fd), t.id) })
	if failed != nil {
		return ErrCallEnded
	}
	return nil
}

// fail makes an error for the handler. If the call has ended that is the reason.
func (c *SeccompCall) fail(op string, err error) error {
	if err == nil {
		err = c.waiting.valid()
	} else if c.waiting.valid() != nil {
		err = ErrCallEnded
	}
	if err == nil || err == io.EOF {
		return err
	}
	return &Error{Op: op, Path: fmt.Sprintf("thread %d", c.Pid), Err: err}
}

// Valid returns nil as long as the thread waits for the answer. What was learned by Pid while it did is about this thread only
// if Valid returns nil afterwards; ReadAt and the others see to that themselves.
func (c *SeccompCall) Valid() error { return c.fail("seccomp call", nil) }

// ReadAt reads len(p) bytes of the thread's memory, or returns an error, which wraps EFAULT if not all of them are there. Addresses above
// 1<<63 do not exist.
func (c *SeccompCall) ReadAt(p []byte, addr int64) (n int, err error) {
	n, err = readMemory(c.Pid, p, uint64(addr))
	if err == nil && n < len(p) {
		err = unix.EFAULT
	}
	if err = c.fail("read memory", err); err != nil {
		return 0, err
	}
	return n, nil
}

// ReadString reads the text at addr up to the next zero byte, of at most max bytes. If there is no zero byte among the first max+1,
// the error wraps ENAMETOOLONG. It serves for paths, with a max of 4095.
func (c *SeccompCall) ReadString(addr uint64, max int) (string, error) {
	const page = 4096 // the least of any machine: text may end right before one that is not there
	var text []byte
	for len(text) <= max {
		buf := make([]byte, min(page-int(addr%page)-1, max-len(text))+1)
		n, err := readMemory(c.Pid, buf, addr)
		if err = c.fail("read memory", err); err != nil {
			return "", err
		}
		if end := bytes.IndexByte(buf[:n], 0); end >= 0 {
			return string(append(text, buf[:end]...)), nil
		}
		if n < len(buf) {
			return "", c.fail("read memory", unix.EFAULT)
		}
		text, addr = append(text, buf...), addr+uint64(n)
	}
	return "", c.fail("read memory", unix.ENAMETOOLONG)
}

// readMemory reads what is there of p.
func readMemory(pid int, p []byte, addr uint64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	return unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(p)}}, 0)
}

// WriteAt writes p to the thread's memory, as a call would that returns something there. Unlike such a call it also writes where
// the program itself may only read, if that memory is the program's own.
func (c *SeccompCall) WriteAt(p []byte, addr int64) (n int, err error) {
	if c.waiting.valid() != nil {
		return 0, c.fail("write memory", nil)
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.Pid), os.O_WRONLY, 0)
	if err != nil {
		return 0, c.fail("write memory", err)
	}
	defer f.Close()
	if err := c.Valid(); err != nil { // so it is this thread's that was opened
		return 0, err
	}
	n, err = f.WriteAt(p, addr)
	if errors.Is(err, unix.EIO) { // what /proc says for EFAULT
		err = unix.EFAULT
	}
	if err != nil {
		err = c.fail("write memory", err)
	}
	return n, err
}

// File returns the open file of one of the process's descriptors, as if the process had sent it: both then have the same
// file, with its offset and flags, so reading and O_NONBLOCK are seen by the program too. Close it. The file is the container's: it may be of
// any kind, and block for ever. Linux 5.6.
func (c *SeccompCall) File(fd int) (*os.File, error) {
	pidfd, err := openThread(c.Pid)
	if err != nil {
		return nil, c.fail("take descriptor", err)
	}
	defer unix.Close(pidfd)
	if err := c.Valid(); err != nil { // so it is this thread's that was opened
		return nil, err
	}
	got, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, c.fail("take descriptor", os.NewSyscallError("pidfd_getfd", err))
	}
	return os.NewFile(uintptr(got), fmt.Sprintf("descriptor %d of thread %d", fd, c.Pid)), nil
}

// openThread opens a pidfd by which the descriptors of a thread can be had: its own since Linux 6.9, before that its process's, which
// has the same descriptors as long as its first thread lives.
func openThread(tid int) (int, error) {
	const pidfdThread = unix.O_EXCL
	fd, err := unix.PidfdOpen(tid, pidfdThread)
	if err != unix.EINVAL {
		return fd, os.NewSyscallError("pidfd_open", err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return -1, err
	}
	_, rest, _ := strings.Cut(string(status), "\nTgid:")
	var pid int
	if _, err := fmt.Sscan(rest, &pid); err != nil {
		return -1, err
	}
	fd, err = unix.PidfdOpen(pid, 0)
	return fd, os.NewSyscallError("pidfd_open", err)
}

// AddFile makes f a descriptor of the calling process and returns its number: fd, which is closed before if it is open, or if fd is
// negative the lowest that is free. The call still waits. For a call whose result is a descriptor use SeccompAnswer.File: what
// AddFile has added stays if the call is interrupted after it. Linux 5.9.
func (c *SeccompCall) AddFile(f *os.File, fd int, closeOnExec bool) (int, error) {
	if c.waiting == nil {
		return 0, c.fail("add descriptor", nil)
	}
	flags, number := uint32(0), uint32(0)
	if fd >= 0 {
		flags, number = unix.SECCOMP_ADDFD_FLAG_SETFD, uint32(fd)
	}
	var n int
	failed := error(os.ErrClosed)
	c.waiting.l.conn.Control(func(listener uintptr) {
		n, failed = addFile(int(listener), c.waiting.id, f, flags, number, closeOnExec)
	})
	if failed != nil {
		return 0, c.fail("add descriptor", failed)
	}
	return n, nil
}

// addFile is SECCOMP_IOCTL_NOTIF_ADDFD. An interruption of ours is not one of the call.
func addFile(listener int, id uint64, f *os.File, flags, number uint32, closeOnExec bool) (n int, err error) {
	a := seccompAddFD{id: id, flags: flags, number: number}
	if closeOnExec {
		a.fileFlags = unix.O_CLOEXEC
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := conn.Control(func(fd uintptr) {
		a.file = uint32(fd)
		for {
			if n, err = a.add(listener); err != unix.EINTR {
				return
			}
		}
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}
