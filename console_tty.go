//go:build linux

package container

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file deals with the caller's own terminal: raw mode, its size, and reading from it in a way
// that can be ended. It runs in the caller's process.

// duplicate returns a descriptor of the same open file. Its flags are shared: they must not be
// changed, since the shell that has started us has the same open file.
func duplicate(f *os.File) (fd int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := conn.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil {
		return -1, cerr
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// IsTerminal tells whether f is a terminal: whether a process that has it as its standard input had
// better be given one of its own, by Process.Tty.
func IsTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	cerr := conn.Control(func(fd uintptr) { _, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	return cerr == nil && err == nil
}

// isTerminal tells whether a stream is a terminal, and returns it.
func isTerminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && IsTerminal(f)
}

// callerTerminal is the terminal among the streams, or nil.
func callerTerminal(in io.Reader, out io.Writer) *os.File {
	for _, stream := range []any{in, out} {
		if f, ok := isTerminal(stream); ok {
			return f
		}
	}
	return nil
}

// consoleSize is the first size of the process's terminal.
func (p *Process) consoleSize() ConsoleSize {
	if f := callerTerminal(p.Stdin, p.Stdout); p.ConsoleSize == (ConsoleSize{}) && f != nil {
		if fd, err := duplicate(f); err == nil {
			defer unix.Close(fd)
			size, _ := windowSize(fd)
			return size
		}
	}
	return p.ConsoleSize
}

func windowSize(fd int) (ConsoleSize, error) {
	ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return ConsoleSize{}, os.NewSyscallError("ioctl", err)
	}
	return ConsoleSize{ws.Col, ws.Row}, nil
}

// makeRaw lets every key through as it is, and every character out, and returns what was before; see
// termios(3), "raw mode".
func makeRaw(fd int) (before *unix.Termios, err error) {
	before, err = unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, os.NewSyscallError("ioctl", err)
	}
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return before, os.NewSyscallError("ioctl", unix.IoctlSetTermios(fd, unix.TCSETS, &raw))
}

// A polledReader reads from a file whose reads cannot be ended, such as a terminal, by waiting
// outside of them. What nobody has read stays in the terminal for the next who reads.
type polledReader struct {
	fd   int      // our own descriptor
	stop *os.File // readable, or at its end, when reading shall end
}

// newPolledReader returns a reader of f, and what ends its reading when it is closed.
func newPolledReader(f *os.File) (r *polledReader, stop io.Closer, err error) {
	fd, err := duplicate(f)
	if err != nil {
		return nil, nil, err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	return &polledReader{fd, pr}, pw, nil
}

func (r *polledReader) Read(buf []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(r.stop.Fd()), Events: unix.POLLIN}, {Fd: int32(r.fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, os.NewSyscallError("poll", err)
		case fds[0].Revents != 0:
			return 0, io.EOF
		}
		n, err := unix.Read(r.fd, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN: // it may be in that mode, and somebody else have been faster
			continue
		case errors.Is(err, unix.EIO): // the terminal is gone, or is not ours to read
			return 0, io.EOF
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (r *polledReader) Close() error {
	return errors.Join(os.NewSyscallError("close", unix.Close(r.fd)), r.stop.Close())
}
