package container

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// This file serves names to a container: it takes questions from sockets of the container's network and sends the answers, which are made in
// dns_answer.go. It runs in the caller's process.

const (
	// maxDNSQuestions is how many questions are at work at one time. Packets beyond are dropped, connections wait.
	maxDNSQuestions = 256
	// maxDNSConns is the number of connections. The next ones are closed.
	maxDNSConns = 128
	// dnsIdle is how long a connection may be silent, or not take its answer.
	dnsIdle = 30 * time.Second
	// dnsTime is how long a question may take, without the time of a policy.
	dnsTime = 12 * time.Second
	// maxUDPAnswer is the longest answer in a packet, for those that say that they can take it. The way to the container is its loopback device.
	maxUDPAnswer = 4096
)

// dnsOptions say what a name server answers.
type dnsOptions struct {
	// allow is asked about each name that is to be forwarded, in normal form ("." is the root). Nil: all.
	allow func(ctx context.Context, name string, source netip.AddrPort) error
	// local knows names that are not forwarded. May be nil.
	local func(name string) ([]netip.Addr, bool)
	// reverse knows names of addresses that are not forwarded. May be nil.
	reverse func(addr netip.Addr) (string, bool)
	// upstreams are the servers that are asked, in this order.
	upstreams func() []netip.AddrPort
	// book notes which addresses were given out. May be nil.
	book *nameBook
}

// A dnsServer answers the questions of a container. It is safe for concurrent use.
type dnsServer struct {
	dnsOptions
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	slots  chan struct{} // filled by questions at work
	conns  chan struct{} // filled by connections

	mu      sync.Mutex
	closed  bool
	sockets map[io.Closer]struct{}
	flights map[dnsKey]*dnsFlight // questions that upstreams are being asked
}

// newDNSServer returns a server without a socket.
func newDNSServer(opts dnsOptions) *dnsServer {
	s := &dnsServer{
		dnsOptions: opts,
		slots:      make(chan struct{}, maxDNSQuestions), conns: make(chan struct{}, maxDNSConns),
		sockets: map[io.Closer]struct{}{}, flights: map[dnsKey]*dnsFlight{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// begin counts a piece of work that has a socket; false if the server is closed, and then the socket is too.
func (s *dnsServer) begin(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return false
	}
	s.sockets[c] = struct{}{}
	s.work.Add(1)
	return true
}

func (s *dnsServer) end(c io.Closer) {
	c.Close()
	s.mu.Lock()
	delete(s.sockets, c)
	s.mu.Unlock()
	s.work.Done()
}

// close closes all sockets, gives up all questions, and waits for both. It can be called any number of times.
func (s *dnsServer) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	s.cancel()
	for c := range s.sockets {
		c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// servePacket serves a UDP socket, whose owner it becomes. It returns at once.
func (s *dnsServer) servePacket(c net.PacketConn) {
	if s.begin(c) {
		go func() {
			defer s.end(c)
			s.readPackets(c)
		}()
	}
}

func (s *dnsServer) readPackets(c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if s.fatal(err) {
				return
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			continue // who asks will ask again
		}
		msg := append([]byte(nil), buf[:n]...)
		s.work.Add(1) // while the socket is counted
		go func() {
			defer func() { <-s.slots; s.work.Done() }()
			if answer := s.answer(msg, addrPortOf(from), false); answer != nil {
				c.WriteTo(answer, from) // who does not get it will ask again
			}
		}()
	}
}

// fatal tells whether an error ends a socket. After others it waits a little.
func (s *dnsServer) fatal(err error) bool {
	if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return true
	}
	select {
	case <-s.ctx.Done():
		return true
	case <-time.After(10 * time.Millisecond): // no descriptors, or an ICMP error of a packet before
		return false
	}
}

// serveListener serves a TCP listener, whose owner it becomes. It returns at once.
func (s *dnsServer) serveListener(l net.Listener) {
	if s.begin(l) {
		go func() {
			defer s.end(l)
			s.acceptConns(l)
		}()
	}
}

func (s *dnsServer) acceptConns(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			if s.fatal(err) {
				return
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
		default:
			c.Close()
			continue
		}
		if !s.begin(c) {
			return
		}
		go func() {
			defer func() { s.end(c); <-s.conns }()
			s.serveConn(c)
		}()
	}
}

// serveConn answers the questions of a connection one after the other.
func (s *dnsServer) serveConn(c net.Conn) {
	source := addrPortOf(c.RemoteAddr())
	for {
		c.SetReadDeadline(time.Now().Add(dnsIdle))
		msg, err := readDNSMessage(c)
		if err != nil {
			return
		}
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		answer := s.answer(msg, source, true)
		<-s.slots
		if answer == nil {
			return
		}
		c.SetWriteDeadline(time.Now().Add(dnsIdle))
		if writeDNSMessage(c, answer) != nil {
			return
		}
	}
}

// readDNSMessage reads a message with its length before it, as TCP has it; RFC 1035, 4.2.2.
func readDNSMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// writeDNSMessage writes a message with its length before it, in one packet if it fits.
func writeDNSMessage(w io.Writer, msg []byte) error {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, len(msg)+2), uint16(len(msg)))
	_, err := w.Write(append(framed, msg...))
	return err
}

// addrPortOf is the address of a socket; not valid if it is of another kind.
func addrPortOf(a net.Addr) netip.AddrPort {
	p, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	addr := p.AddrPort()
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}
