//go:build linux

package container

import (
	"encoding/binary"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns netlink messages into calls: the caller compiles the bytes, and the launcher sends them with the rights that it has in
// the container's namespace. It runs in the caller's process.

// A netlinkMessage is a message, or a batch of them, that the kernel answers with one NLMSG_ERROR.
type netlinkMessage struct {
	what   string // for the user: the step's object
	bytes  []byte
	ignore []unix.Errno
}

// netlink sends messages over a socket of its own, each when the one before has been done.
func (pl *plan) netlink(protocol launch.Arg, messages ...netlinkMessage) {
	fd := pl.Call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol).Result()
	header, errno := pl.Zero(unix.SizeofNlMsghdr), pl.Zero(8)
	answer := pl.Words(header, unix.SizeofNlMsghdr, errno, 4)
	for _, m := range messages {
		pl.Step("network", m.what)
		pl.Call(unix.SYS_SENDTO, fd, pl.Bytes(m.bytes), launch.Arg(len(m.bytes)))
		pl.Call(unix.SYS_READV, fd, answer, 2)
		// The kernel's errno is negative and has 32 bits: without the 33rd it is negative in 64 as well, as a failing call's is.
		pl.Sub(pl.Value(errno), 1<<32).Ignore(append(m.ignore, 0)...)
	}
	pl.Step("network", "")
	pl.close(fd)
}

// netlinkBytes is a message: its header, and what its type begins with, and attributes.
func netlinkBytes(typ, flags uint16, parts ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	return b
}

// netlinkAttr is an attribute, with what it is filled up to four bytes with.
func netlinkAttr(typ uint16, parts ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlAttr)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	binary.NativeEndian.PutUint16(b[2:], typ)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func nativeUint32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func bigUint32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func zeroEnded(s string) []byte { return append([]byte(s), 0) }
