//go:build linux

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file passes descriptors from the process to its parent, as SCM_RIGHTS of a message; see
// unix(7).

// controlSize is a control message of one descriptor: its header, the descriptor, padding. The kernel
// takes what is left of it for a second one, and tells of any more.
const controlSize = 16 + 8

// SendFile writes a message with the open file of a descriptor to the parent: see Message.File. The
// value is 0. The descriptor stays open.
func (p *Program) SendFile(tag uint32, fd Arg) {
	if tag >= opsBase {
		panic(fmt.Sprintf("launch: the tag %#x means a failure", tag))
	}
	p.SendFileTo(p.SocketFD(), fd, p.Words(Arg(tag), 0), messageSize)
}

// SendFileTo sends the open file of a descriptor, with n bytes of text, to who holds the other end of a socket. If nobody
// does, the call fails with EPIPE, and no signal comes.
func (p *Program) SendFileTo(socket, fd, text, n Arg) Op {
	const controlLen = 16 + 4
	control := p.Words(controlLen, unix.SCM_RIGHTS<<32|unix.SOL_SOCKET, 0)
	p.Sub(fd, 0).StoreTo(control + 16)
	buffer := p.Words(text, 0)
	p.Sub(n, 0).StoreTo(buffer + 8)
	msg := p.Words(0, 0, buffer, 1, control, controlSize, 0)
	return p.Call(unix.SYS_SENDMSG, socket, msg, unix.MSG_NOSIGNAL)
}

// receive is recvmsg(2): a message and the file that came with it. The other end may be in other
// hands by now: every descriptor that comes is ours to close.
func (c *Child) receive(buf []byte) (n int, file *os.File, err error) { return receive(c.socket, buf) }

// ReceiveFile waits for a message of a program and returns the file that came with it, nil if none did. At the end
// it returns io.EOF. The socket does not block: see SocketPair.
func ReceiveFile(socket *os.File) (*os.File, error) {
	var buf [messageSize]byte
	n, file, err := receive(socket, buf[:])
	if n == 0 && file == nil && err == nil || errors.Is(err, unix.ECONNRESET) {
		// An end that came while the kernel looked for a message hides one that came right before it.
		n, file, err = receive(socket, buf[:])
	}
	if n == 0 && file == nil && err == nil {
		err = io.EOF
	}
	return file, err
}

func receive(socket *os.File, buf []byte) (n int, file *os.File, err error) {
	conn, err := socket.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	var control [controlSize]byte
	var size, flags int
	var failed error
	err = conn.Read(func(fd uintptr) (done bool) {
		for failed = unix.EINTR; failed == unix.EINTR; { // what is there already does not wake the poller again
			n, size, flags, _, failed = unix.Recvmsg(int(fd), buf, control[:], unix.MSG_CMSG_CLOEXEC)
		}
		return failed != unix.EAGAIN
	})
	if err != nil {
		return 0, nil, os.ErrClosed // the one reason there is without a deadline
	}
	if failed != nil {
		return 0, nil, os.NewSyscallError("recvmsg", failed)
	}
	file, err = oneFile(control[:size], flags&unix.MSG_CTRUNC != 0)
	return n, file, err
}

// oneFile takes the one descriptor out of a control message. If it is not the only one it closes them all.
func oneFile(control []byte, truncated bool) (*os.File, error) {
	if len(control) == 0 && !truncated {
		return nil, nil
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(control)
	for i := range messages {
		rights, rerr := unix.ParseUnixRights(&messages[i])
		fds, err = append(fds, rights...), errors.Join(err, rerr)
	}
	switch {
	case err != nil:
	case truncated && len(fds) == 0: // there was room in the message, so there was none in the table
		err = fmt.Errorf("launch: a file of the process could not be received: %w", unix.EMFILE)
	case truncated || len(fds) != 1:
		err = errors.New("launch: a message with more than one file")
	default:
		return os.NewFile(uintptr(fds[0]), "received"), nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return nil, err
}
