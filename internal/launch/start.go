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
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file starts a program and talks to it. It runs in the caller's process.

// Attr says how to start a program.
type Attr struct {
	// Sys goes to os/exec as it is: clone flags, id maps, cgroup. Nil is none of it.
	Sys *syscall.SysProcAttr
	// Stdio are the standard streams. A nil one is /dev/null, as with os/exec.
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

// A Fault makes the call Op fail with Errno instead of being made. With Skip it is not made either, and succeeds: its
// result is 0.
type Fault struct {
	Op    int
	Errno unix.Errno
	Skip  bool
}

// A Child is a started program. CloseSocket and Release may be called at any time, and end a Next
// that waits; otherwise one goroutine at a time may use it.
type Child struct {
	prog    *Program
	socket  *os.File
	process *os.Process
	pidfd   atomic.Int32
	release func()
}

// A Message is what Send or SendFile sent.
type Message struct {
	Tag   uint32
	Value int64
	// File came with it, close-on-exec and in the mode it has in the process, blocking or not. It is the
	// caller's to close, whatever the tag is. Nil if none came.
	File *os.File
}

// Start starts the program in a new process. After an error there is no process, and nothing is
// left open. The files of attr and of File remain the caller's.
func (p *Program) Start(attr *Attr) (*Child, error) {
	if code() == nil {
		return nil, ErrUnsupported
	}
	if len(attr.Extra) != p.extra {
		return nil, fmt.Errorf("launch: %d extra files, the program was made for %d", len(attr.Extra), p.extra)
	}
	if err := p.checkFiles(attr); err != nil {
		return nil, err
	}
	exe, err := p.executable(attr)
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	ours, theirs, err := SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	// The descriptor that is needed afterwards is taken before: once there is a process it may have forked, and who killed it for the
	// lack of one would leave a child that nobody knows, and that a PID namespace cannot end without.
	spare, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		ours.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	cmd := p.command(attr, theirs, exe)
	release, err := startOn(cmd, attr.KeepThread)
	if err != nil {
		unix.Close(spare)
		ours.Close()
		return nil, err
	}
	c := &Child{prog: p, socket: ours, process: cmd.Process, release: release}
	if err := c.openPidFD(spare); err != nil {
		c.process.Kill()
		c.process.Wait()
		c.Release()
		return nil, err
	}
	return c, nil
}

// checkFiles tells whether all files are open. Os/exec would pass nothing for a closed one, and
// what the program opens itself would take its number.
func (p *Program) checkFiles(attr *Attr) error {
	for _, files := range [][]*os.File{attr.Stdio[:], attr.Extra} {
		for i, f := range files {
			if f != nil && f.Fd() == ^uintptr(0) {
				return fmt.Errorf("launch: file %d, %s: %w", i, f.Name(), os.ErrClosed)
			}
		}
	}
	for i, f := range p.fds {
		if f.Fd() == ^uintptr(0) { // also if it is nil
			return fmt.Errorf("launch: file %d of the program: %w", i, os.ErrClosed)
		}
	}
	return nil
}

// command is the start of exe, with the descriptors where the program expects them.
func (p *Program) command(attr *Attr, socket, exe *os.File) *exec.Cmd {
	files := make([]*os.File, 0, p.extra+2+len(p.fds))
	files = append(append(files, attr.Extra...), socket, exe)
	files = append(files, p.fds...)
	cmd := &exec.Cmd{
		Path:        "/proc/self/fd/" + strconv.Itoa(p.imageFD()),
		Args:        []string{ProcessName},
		Env:         []string{},
		ExtraFiles:  files,
		SysProcAttr: attr.Sys,
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
	return cmd
}

// SocketPair returns the two ends of a socket that keeps messages apart. Ours does not block, so
// that the runtime's poller waits for it and closing it ends a read. Theirs does: the launcher
// knows nothing of EAGAIN.
func SocketPair() (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(pair[0]), "launcher"), os.NewFile(uintptr(pair[1]), "launcher"), nil
}

// startOn starts cmd, if keep is set on a thread that ends when release is called.
func startOn(cmd *exec.Cmd, keep bool) (release func(), err error) {
	if !keep {
		return func() {}, cmd.Start()
	}
	started, done := make(chan error), make(chan struct{})
	go func() {
		// Never unlocked: until the goroutine ends, no other can have the thread and end it.
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

// openPidFD makes spare c.pidfd. os/exec has such a descriptor already where the kernel has them.
func (c *Child) openPidFD(spare int) error {
	c.pidfd.Store(-1)
	var err error
	switch noHandle := c.process.WithHandle(func(handle uintptr) {
		for err = unix.EINTR; err == unix.EINTR || err == unix.EBUSY; {
			err = unix.Dup3(int(handle), spare, unix.O_CLOEXEC)
		}
	}); {
	case noHandle != nil:
		unix.Close(spare)
		if errors.Is(noHandle, os.ErrNoHandle) {
			return nil
		}
		return noHandle
	case err != nil:
		unix.Close(spare)
		return os.NewSyscallError("dup3", err)
	}
	c.pidfd.Store(int32(spare))
	return nil
}

// executable writes the program to a file that can be executed and not be changed.
func (p *Program) executable(attr *Attr) (*os.File, error) {
	ops, err := p.link()
	if err != nil {
		return nil, err
	}
	if f := attr.Fault; f != nil {
		if f.Op < opFirst || f.Op >= len(p.ops) {
			return nil, fmt.Errorf("launch: there is no call %d to fail", f.Op)
		}
		if f.Errno == 0 != f.Skip {
			return nil, errors.New("launch: a fault needs an error, or to skip the call")
		}
		ops[f.Op].nr, ops[f.Op].indirect = opSub, 0
		ops[f.Op].args = [6]int64{-int64(f.Errno)}
	}
	img := elf(ops, p.data)
	f, err := sealedFile(img)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		if attr.TempDir == "" {
			return nil, fmt.Errorf("launch: memory files cannot be executed here (vm.memfd_noexec): %w: %w", errors.ErrUnsupported, err)
		}
		return unlinkedFile(attr.TempDir, img)
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

// unlinkedFile puts img into a file in dir that has no name and cannot get one. What executes it
// holds no descriptor that could write it, and its mode lets no one open one.
func unlinkedFile(dir string, img image) (*os.File, error) {
	// A file that is open for writing cannot be executed (ETXTBSY). No process that another
	// goroutine starts now may get hold of w: https://go.dev/issue/22315.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := os.OpenFile(dir, unix.O_TMPFILE|unix.O_EXCL|os.O_RDWR, 0o700)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := img.writeTo(w); err != nil {
		return nil, err
	}
	if err := w.Chmod(0o500); err != nil {
		return nil, err
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(w.Fd())))
}

func (img image) writeTo(f *os.File) error {
	if _, err := f.WriteAt(img.text, 0); err != nil {
		return err
	}
	_, err := f.WriteAt(img.data, img.dataOff)
	return err
}

// Next returns the next message. At the end it returns io.EOF: the process has executed another
// program, or is dead. The failure of a call is returned as an *Error. After CloseSocket the error
// is os.ErrClosed.
func (c *Child) Next() (Message, error) {
	var buf [messageSize + 1]byte // a longer message must not pass for one of ours
	n, file, err := c.receive(buf[:])
	for range 2 {
		// On a socket that does not block Linux tells of an end that came while it looked for a message, also if one
		// came right before the end; the second answer is true. And if it died with a Go of ours unread, its
		// report comes after that error.
		if errors.Is(err, unix.ECONNRESET) || n == 0 && file == nil && err == nil {
			n, file, err = c.receive(buf[:])
		}
	}
	msg, err := c.parse(buf[:n], file, err)
	if err != nil {
		file.Close() // also if it is nil
	}
	return msg, err
}

// parse makes a message of what receive returned.
func (c *Child) parse(buf []byte, file *os.File, err error) (Message, error) {
	switch {
	case errors.Is(err, unix.ECONNRESET):
		return Message{}, io.EOF
	case err != nil:
		return Message{}, err
	case len(buf) == 0 && file == nil:
		return Message{}, io.EOF
	case len(buf) != messageSize:
		return Message{}, fmt.Errorf("launch: message of %d bytes", len(buf))
	}
	tag, value := binary.LittleEndian.Uint64(buf), binary.LittleEndian.Uint64(buf[8:])
	if tag >= opsBase {
		return Message{}, c.prog.parseFailure(tag, value)
	}
	return Message{Tag: uint32(tag), Value: int64(value), File: file}, nil
}

// Go lets the process go on from Wait. The error is EPIPE if there is no process any more.
func (c *Child) Go() error { return c.Send([]byte{1}) }

// Send lets the process go on from WaitFor, with a text. Errors are as with Go.
func (c *Child) Send(text []byte) error {
	conn, err := c.socket.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Write(func(fd uintptr) (done bool) {
		// Not write(2): its SIGPIPE may mean something to the caller.
		for sent = unix.EINTR; sent == unix.EINTR; {
			_, sent = unix.SendmsgN(int(fd), text, nil, nil, unix.MSG_NOSIGNAL)
		}
		return sent != unix.EAGAIN
	})
	if err != nil {
		return os.ErrClosed // the one reason there is without a deadline; os does not say it so
	}
	return os.NewSyscallError("sendmsg", sent)
}

// Process is the process that was started. Wait for it; the package does not.
func (c *Child) Process() *os.Process { return c.process }

// PidFD is a descriptor of the process. It belongs to the caller from the first call on; without
// one, Release closes it. Later calls return -1. So does the first where there are no such
// descriptors: before Linux 5.4, and in some emulators.
func (c *Child) PidFD() int { return int(c.pidfd.Swap(-1)) }

// Ended tells whether the process has ended, waited for or not, as long as its pidfd is here.
func (c *Child) Ended() bool { return Ended(int(c.pidfd.Load())) }

// Ended is the same of a pidfd.
func Ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0 || err != nil && err != unix.EINTR
}

// CloseSocket ends the conversation. A process that waits for Go ends.
func (c *Child) CloseSocket() { c.socket.Close() }

// Release closes what is left. Call it when the process has been waited for.
func (c *Child) Release() {
	c.CloseSocket()
	if fd := c.PidFD(); fd >= 0 {
		unix.Close(fd)
	}
	c.release()
}
