//go:build linux

package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file starts a program and talks to it. It runs in the caller's process.

// Attr says how to start a program.
type Attr struct {
	// Sys goes to os/exec as it is: clone flags, id maps, cgroup. Nil is none of it.
	Sys *syscall.SysProcAttr
	// Stdio are the standard streams. A nil one is closed in the process.
	Stdio [3]*os.File
	// Extra become the descriptors from 3 on; as many as New was told. A nil one is closed.
	Extra []*os.File
	// KeepThread starts the process from a thread that lives until Release. The parent-death
	// signal of prctl(2) is sent when the thread dies that has started the process.
	KeepThread bool
	// TempDir holds the executable for a moment where memory files must not be executed
	// (vm.memfd_noexec=2). Without it such hosts are not supported.
	TempDir string
	// Fault, if not nil, makes one call fail.
	Fault *Fault
}

// A Fault makes the call Op fail with Errno instead of being made.
type Fault struct {
	Op    int
	Errno unix.Errno
}

// A Child is a started program. Its methods are not safe for concurrent use, but for Release.
type Child struct {
	prog    *Program
	socket  int
	process *os.Process
	pidfd   int
	release func()
}

// A Message is what Send sent, or what the failure of a call left.
type Message struct {
	Tag   uint32
	Value int64
}

// Start starts the program in a new process.
func (p *Program) Start(attr *Attr) (*Child, error) {
	if code() == nil {
		return nil, ErrUnsupported
	}
	if len(attr.Extra) != p.extra {
		return nil, fmt.Errorf("launch: %d extra files, the program was made for %d", len(attr.Extra), p.extra)
	}
	exe, err := p.executable(attr)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "launcher's socket")
	defer theirs.Close()

	sys := syscall.SysProcAttr{}
	if attr.Sys != nil {
		sys = *attr.Sys
	}
	pidfd := -1
	sys.PidFD = &pidfd
	files := make([]*os.File, 0, 2+p.extra+len(p.fds))
	files = append(append(files, attr.Extra...), theirs, exe)
	files = append(files, p.fds...)
	cmd := &exec.Cmd{
		Path:        "/proc/self/fd/" + strconv.Itoa(p.imageFD()),
		Args:        []string{ProcessName},
		Env:         []string{},
		ExtraFiles:  files,
		SysProcAttr: &sys,
	}
	// A nil *os.File in an interface would not be nil.
	if f := attr.Stdio[0]; f != nil {
		cmd.Stdin = f
	}
	if f := attr.Stdio[1]; f != nil {
		cmd.Stdout = f
	}
	if f := attr.Stdio[2]; f != nil {
		cmd.Stderr = f
	}
	release, err := startOn(cmd, attr.KeepThread)
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	return &Child{prog: p, socket: pair[0], process: cmd.Process, pidfd: pidfd, release: release}, nil
}

// startOn starts cmd, on a thread of its own if keep is set, which ends when release is called.
func startOn(cmd *exec.Cmd, keep bool) (release func(), err error) {
	if !keep {
		return func() {}, cmd.Start()
	}
	started, done := make(chan error), make(chan struct{})
	go func() {
		// Never unlocked: the thread ends with the goroutine, and no other goroutine has seen it.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-done
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { close(done) }), nil
}

// executable writes the program to a file that can be executed and not be changed.
func (p *Program) executable(attr *Attr) (*os.File, error) {
	ops, err := p.link()
	if err != nil {
		return nil, err
	}
	if f := attr.Fault; f != nil {
		if f.Op < opFirst || f.Op >= len(ops) {
			return nil, fmt.Errorf("launch: there is no call %d to fail", f.Op)
		}
		ops[f.Op].nr, ops[f.Op].indirect = opSub, 0
		ops[f.Op].args = [6]int64{-int64(f.Errno)}
	}
	img := elf(ops, p.data)
	f, err := sealedFile(img)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		f, err = unlinkedFile(attr.TempDir, img)
	}
	return f, err
}

// sealedFile puts img into a memfd that nobody can change, not even through /proc/PID/exe.
func sealedFile(img image) (*os.File, error) {
	fd, err := unix.MemfdCreate(ProcessName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 there was no such flag, and every memfd executable
		fd, err = unix.MemfdCreate(ProcessName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "launcher")
	if err := img.writeTo(f); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return f, nil
}

// unlinkedFile puts img into a file without a name in dir. What executes it holds no descriptor
// that could write it, and its mode lets no one open one.
func unlinkedFile(dir string, img image) (*os.File, error) {
	if dir == "" {
		return nil, fmt.Errorf("launch: memory files cannot be executed here (vm.memfd_noexec): %w", errors.ErrUnsupported)
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o700)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	w := os.NewFile(uintptr(fd), "launcher")
	defer w.Close()
	if err := img.writeTo(w); err != nil {
		return nil, err
	}
	if err := unix.Fchmod(fd, 0o500); err != nil {
		return nil, os.NewSyscallError("fchmod", err)
	}
	// A file that is open for writing cannot be executed.
	r, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (img image) writeTo(f *os.File) error {
	if _, err := f.WriteAt(img.text, 0); err != nil {
		return err
	}
	_, err := f.WriteAt(img.data, img.dataOff)
	return err
}

// Next returns the next message. At the end it returns io.EOF: the process has executed another
// program, or is dead. The failure of a call is returned as an *Error.
func (c *Child) Next() (Message, error) {
	var buf [failSize]byte
	for {
		n, err := unix.Read(c.socket, buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ECONNRESET:
			return Message{}, io.EOF // it died with a Go of ours unread
		case err != nil:
			return Message{}, os.NewSyscallError("read", err)
		case n == 0:
			return Message{}, io.EOF
		case n != len(buf):
			return Message{}, fmt.Errorf("launch: message of %d bytes", n)
		}
		break
	}
	tag, value := binary.LittleEndian.Uint64(buf[:]), binary.LittleEndian.Uint64(buf[8:])
	if tag >= opsBase {
		return Message{}, c.prog.parseFailure(tag, value)
	}
	return Message{Tag: uint32(tag), Value: int64(value)}, nil
}

// Go lets the process go on from Wait.
func (c *Child) Go() error {
	for {
		_, err := unix.SendmsgN(c.socket, []byte{1}, nil, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// Process is the process that was started. Wait for it; the package does not.
func (c *Child) Process() *os.Process { return c.process }

// PidFD is a descriptor of the process. It belongs to the caller from the first call on; without
// one, Release closes it. Later calls return -1.
func (c *Child) PidFD() int {
	fd := c.pidfd
	c.pidfd = -1
	return fd
}

// CloseSocket ends the conversation.
func (c *Child) CloseSocket() {
	if c.socket >= 0 {
		unix.Close(c.socket)
		c.socket = -1
	}
}

// Release closes what is left. Call it when the process has been waited for.
func (c *Child) Release() {
	c.CloseSocket()
	if fd := c.PidFD(); fd >= 0 {
		unix.Close(fd)
	}
	c.release()
}
