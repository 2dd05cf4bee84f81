//go:build linux

package container

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file carries the packets of published UDP ports. It runs in the caller's process. Packets of one client to one address are a flow, with
// a socket of its own in the container, so that answers find back.

// A packetPort is a UDP port of the host.
type packetPort struct {
	relay *portRelay
	conn  *net.UDPConn
	any   bool // bound to all addresses: answers must come from the one that was asked
	to    *portTarget
	idle  time.Duration // portFlowIdle

	mu    sync.Mutex
	flows map[portFlowKey]*portFlow
	young list.List // of *portFlow without an answer yet, the oldest first: the first to go when there are too many
}

// portFlowKey is a client, and what it has sent its packets to.
type portFlowKey struct {
	client netip.AddrPort
	host   netip.Addr // not valid: what the port is bound to
}

// A portFlow is what a client sends and gets.
type portFlow struct {
	key    portFlowKey
	cancel context.CancelFunc
	place  *list.Element // in young; nil once there was an answer

	// What follows is guarded by the port's lock.
	conn    net.Conn // nil while it is being made
	kept    int      // bytes of waiting
	waiting [][]byte // packets for it; once there is one, the last that was sent, until there is an answer
	last    time.Time
}

// portFlowIdle is how long a flow lasts without a packet; RFC 4787 asks for two minutes at least.
var portFlowIdle = 2 * time.Minute

// maxWaiting is how many packets are kept while the socket is made.
const maxWaiting = 64

// maxWaitingBytes bounds what all flows of a container keep: whoever is outside chooses how many there are.
const maxWaitingBytes = 8 << 20

// maxPacket is the longest packet that there is.
const maxPacket = 1 << 16

var packetBuffers = sync.Pool{New: func() any { b := make([]byte, maxPacket); return &b }}

func newPacketPort(p *portRelay, conn *net.UDPConn, any bool, to *portTarget) *packetPort {
	return &packetPort{relay: p, conn: conn, any: any, to: to, idle: portFlowIdle, flows: make(map[portFlowKey]*portFlow)}
}

// receive takes packets until the relay is closed.
func (s *packetPort) receive() {
	p := s.relay
	buf, oob := make([]byte, maxPacket), make([]byte, 128)
	for {
		n, oobn, _, client, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if p.ctx.Err() != nil {
			return
		}
		if err != nil { // what an earlier answer has met, or no memory
			sleep(p.ctx, time.Millisecond)
			continue
		}
		key := portFlowKey{client: netip.AddrPortFrom(client.Addr().Unmap(), client.Port())}
		if s.any {
			key.host = packetDestination(oob[:oobn])
		}
		s.deliver(key, buf[:n])
	}
}

// deliver sends a packet on.
func (s *packetPort) deliver(key portFlowKey, packet []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flows[key]
	if f == nil {
		if f = s.newFlow(key); f == nil {
			return
		}
	}
	f.last = time.Now()
	switch {
	case f.conn == nil:
		if len(f.waiting) < maxWaiting && s.hasRoom(len(packet)) {
			s.keep(f, append(f.waiting, append([]byte(nil), packet...)))
		}
		return
	case f.place != nil && s.hasRoom(len(packet)):
		s.keep(f, [][]byte{append([]byte(nil), packet...)})
	}
	f.conn.Write(packet) // does not block for long: what finds no room is dropped, as packets are
}

func (s *packetPort) hasRoom(n int) bool { return s.relay.kept.Load()+int64(n) <= maxWaitingBytes }

// keep makes these the packets that wait. The port is locked.
func (s *packetPort) keep(f *portFlow, packets [][]byte) {
	size := 0
	for _, packet := range packets {
		size += len(packet)
	}
	s.relay.kept.Add(int64(size - f.kept))
	f.kept, f.waiting = size, packets
}

// newFlow begins a flow. The port is locked.
func (s *packetPort) newFlow(key portFlowKey) *portFlow {
	p := s.relay
	if !p.take() {
		if oldest := s.young.Front(); oldest != nil {
			// It gives its place itself, when it has ended: the next packet may find it.
			oldest.Value.(*portFlow).cancel()
			s.young.Remove(oldest)
		}
		return nil
	}
	f := &portFlow{key: key}
	ctx, cancel := context.WithCancel(p.ctx)
	f.cancel = cancel
	f.place = s.young.PushBack(f)
	s.flows[key] = f
	p.work.Go(func() {
		defer p.give()
		defer cancel()
		s.carry(ctx, f)
	})
	return f
}

// carry takes answers to the client until the flow is idle.
func (s *packetPort) carry(ctx context.Context, f *portFlow) {
	client := f.key.client.Addr()
	for _, addr := range s.to.addrs(s.relay.way, client) {
		dctx, cancel := context.WithTimeout(ctx, portDialTime)
		conn, err := s.relay.way.dial(dctx, unix.SOCK_DGRAM, client, netip.AddrPortFrom(addr, s.to.port))
		cancel()
		if err != nil {
			if elsewhere(err) {
				continue
			}
			s.relay.log.Debug("packet to a published port", "from", f.key.client, "err", err)
			break
		}
		stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
		s.begin(f, conn)
		again := s.answers(ctx, f, conn, addr)
		stop()
		s.mu.Lock()
		f.conn = nil
		s.mu.Unlock()
		conn.Close()
		if !again {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered(f)
	delete(s.flows, f.key)
}

// begin sends what has waited for the socket.
func (s *packetPort) begin(f *portFlow, conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, packet := range f.waiting {
		conn.Write(packet)
	}
	if n := len(f.waiting); n > 1 {
		s.keep(f, [][]byte{f.waiting[n-1]})
	}
	f.conn = conn
}

// answered takes note that there was an answer. The port is locked.
func (s *packetPort) answered(f *portFlow) {
	if f.place != nil {
		s.young.Remove(f.place)
		f.place = nil
		s.keep(f, nil)
	}
}

// answers sends on what comes from the container. It returns true if nothing listens there, and another address might be tried.
func (s *packetPort) answers(ctx context.Context, f *portFlow, conn net.Conn, at netip.Addr) (again bool) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	oob := packetSource(f.key.host)
	for ctx.Err() == nil {
		conn.SetReadDeadline(time.Now().Add(s.idle))
		if ctx.Err() != nil { // it may have set its own before
			return false
		}
		var failed error
		err := raw.Read(func(fd uintptr) (done bool) {
			buf := packetBuffers.Get().(*[]byte) // only now: most flows wait
			defer packetBuffers.Put(buf)
			var n int
			if n, failed = unix.Read(int(fd), *buf); failed == unix.EAGAIN {
				return false
			}
			if failed == nil {
				s.conn.WriteMsgUDPAddrPort((*buf)[:n], oob, f.key.client)
			}
			return true
		})
		s.mu.Lock()
		idle := time.Since(f.last) >= s.idle
		fresh := f.place != nil
		if err == nil && failed == nil {
			f.last = time.Now()
			if fresh {
				s.answered(f)
				s.to.found(f.key.client.Addr(), at)
			}
		}
		s.mu.Unlock()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if idle {
				return false
			}
		case err != nil:
			return false
		case failed == unix.ECONNREFUSED && fresh:
			return true
		}
	}
	return false
}

// packetDestination is the address that a packet was sent to.
func packetDestination(oob []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			a, _ := netip.AddrFromSlice(m.Data[4:8]) // ipi_spec_dst: ours
			return a
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			a, _ := netip.AddrFromSlice(m.Data[:16])
			return a
		}
	}
	return netip.Addr{}
}

// packetSource has a packet come from an address.
func packetSource(a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return nil
	case a.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
}
