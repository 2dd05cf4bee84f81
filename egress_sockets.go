//go:build linux

package container

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is the relay's ends in the container: sockets that the launcher has made there. It runs in the caller's process.

// relaySockets are the sockets of egressSockets, of one family.
type relaySockets struct {
	listener *net.TCPListener
	packets  *net.UDPConn
	raw      *packetSender
}

func (s *relaySockets) Close() error {
	if s.listener != nil {
		s.listener.Close()
	}
	if s.packets != nil {
		s.packets.Close()
	}
	if s.raw != nil {
		s.raw.file.Close()
	}
	return nil
}

// openRelaySockets takes ownership of three files.
func openRelaySockets(files []*os.File) (*relaySockets, error) {
	s := &relaySockets{}
	listener, err := net.FileListener(files[0])
	files[0].Close()
	packets, perr := net.FilePacketConn(files[1])
	files[1].Close()
	raw, rerr := newPacketSender(files[2])
	s.raw = raw
	if err == nil {
		s.listener = listener.(*net.TCPListener)
	}
	if perr == nil {
		s.packets = packets.(*net.UDPConn)
	}
	if err := errors.Join(err, perr, rerr); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// A packetSender sends packets with their headers.
type packetSender struct {
	file *os.File
	conn syscall.RawConn
}

func newPacketSender(f *os.File) (*packetSender, error) {
	conn, err := f.SyscallConn()
	return &packetSender{f, conn}, err
}

// send waits while the container has too much to read.
func (s *packetSender) send(dst netip.Addr, packet []byte) error {
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: dst.As16()}
	if dst.Is4() {
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	}
	var err error
	if werr := s.conn.Write(func(fd uintptr) bool {
		for {
			if err = unix.Sendto(int(fd), packet, 0, to); err != unix.EINTR {
				break
			}
		}
		return err != unix.EAGAIN
	}); werr != nil {
		return werr
	}
	return err
}

// receive reads one packet from a socket of the launcher's.
func receive(conn syscall.RawConn, b []byte) (n int, err error) {
	if rerr := conn.Read(func(fd uintptr) bool {
		for {
			if n, _, err = unix.Recvfrom(int(fd), b, 0); err != unix.EINTR {
				break
			}
		}
		return err != unix.EAGAIN
	}); rerr != nil {
		return 0, rerr
	}
	return n, err
}

// originalDestination is where a packet wanted to go, from the control messages it came with.
func originalDestination(oob []byte) (netip.AddrPort, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for _, m := range messages {
		addr, err := unix.ParseOrigDstAddr(&m)
		if err != nil {
			continue
		}
		switch a := addr.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), true
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), true
		}
	}
	return netip.AddrPort{}, false
}
