//go:build linux

package container

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// This file hands questions about names to the name server, which takes them from sockets: to whatever address the container sends a question,
// the answer comes from there. It runs in the caller's process.

// nameConn is a connection to port 53, wherever to.
func (r *relay) nameConn(conn *net.TCPConn) {
	if !r.nameConns.push(conn) {
		resetConn(conn)
	}
}

// nameListener is a listener whose connections have been accepted by somebody else.
type nameListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newNameListener() *nameListener {
	return &nameListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// push hands a connection over, or tells that nobody wants it.
func (l *nameListener) push(c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.done:
		return false
	}
}

func (l *nameListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *nameListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *nameListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(egressSocket4.Addr(), 53))
}

// namePackets is a socket for questions in packets.
type namePackets struct {
	raw     *packetSender
	packets chan namePacket
	once    sync.Once
	done    chan struct{}
}

type namePacket struct {
	key  flowKey
	data []byte
}

// A nameAddr is where a question came from, and where it went to.
type nameAddr struct{ flowKey }

func (a nameAddr) Network() string          { return "udp" }
func (a nameAddr) String() string           { return a.src.String() }
func (a nameAddr) AddrPort() netip.AddrPort { return a.src }

// maxQuestions is how many questions wait to be read. Those beyond are lost: who asks will ask again.
const maxQuestions = 64

func newNamePackets(s *relaySockets) *namePackets {
	return &namePackets{raw: s.raw, packets: make(chan namePacket, maxQuestions), done: make(chan struct{})}
}

// received hands a question over.
func (p *namePackets) received(key flowKey, b []byte) {
	select {
	case p.packets <- namePacket{key, append([]byte(nil), b...)}:
	default:
	}
}

func (p *namePackets) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case q := <-p.packets:
		return copy(b, q.data), nameAddr{q.key}, nil
	case <-p.done:
		return 0, nil, net.ErrClosed
	}
}

func (p *namePackets) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(nameAddr)
	if !ok {
		return 0, os.ErrInvalid
	}
	return len(b), p.raw.send(a.src.Addr(), udpPacket(a.dst, a.src, b))
}

func (p *namePackets) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *namePackets) LocalAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(egressSocket4.Addr(), 53))
}

// The name server sets no deadlines for packets.

func (p *namePackets) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (p *namePackets) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (p *namePackets) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
