//go:build linux

package container

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file carries packets of UDP, in flows: what one socket of the container's sends to one address. It runs in the caller's process.

const (
	// udpIdle is how long a flow may be silent; the time that RFC 4787 asks for at least.
	udpIdle = 2 * time.Minute
	// udpRefused is how long the answer no holds for a flow without asking again.
	udpRefused = time.Second
	// maxUDPQueue is how many packets of a flow wait for the decision about it, or for a connection of the policy's that is slow. More are lost, and
	// so are those beyond maxUDPWaiting bytes in all flows.
	maxUDPQueue   = 16
	maxUDPWaiting = 8 << 20
)

// udpFlow is a flow. Its fields but conn are guarded by the relay's mutex.
type udpFlow struct {
	conn    net.Conn // nil while it is being decided about, and if it was refused
	queue   [][]byte
	last    time.Time
	refused bool
	writing bool // somebody writes what is in the queue
}

// udpBuffers are buffers for one packet, which a flow has only while it has a packet.
var udpBuffers = sync.Pool{New: func() any { return new([1 << 16]byte) }}

// readUDP reads what the container sends.
func (r *relay) readUDP(s *relaySockets) {
	names := newNamePackets(s)
	r.names.servePacket(names)
	defer names.Close()
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, oobn, _, src, err := s.packets.ReadMsgUDPAddrPort(buf, oob)
		if r.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		dst, ok := originalDestination(oob[:oobn])
		if !ok {
			continue
		}
		key := flowKey{netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), dst}
		switch {
		case dst.Port() == 53:
			names.received(key, buf[:n])
		case !ownAddress(dst.Addr()):
			r.packet(s.raw, key, buf[:n])
		}
	}
}

// packet carries one packet out.
func (r *relay) packet(raw *packetSender, key flowKey, b []byte) {
	r.mu.Lock()
	f := r.flows[key]
	now := time.Now()
	switch {
	case r.closed:
	case f == nil && !r.take():
		r.mu.Unlock()
		r.refusePacket(raw, key, b)
		r.judge.report(EgressRequest{Network: "udp", Addr: key.dst, Source: key.src}, &Error{Op: "egress", Path: key.dst.String(), Err: errTooMany})
		return
	case f == nil:
		f = &udpFlow{last: now}
		r.flows[key] = f
		r.queue(f, b)
		r.work.Go(func() { r.carry(raw, key, f) })
	case f.conn != nil:
		f.last = now
		conn := f.conn
		if _, udp := conn.(*net.UDPConn); !udp || f.writing { // another could have us wait, and all flows with us
			r.queue(f, b)
			if !f.writing {
				f.writing = true
				r.work.Go(func() { r.writeQueue(raw, key, f, conn) })
			}
			break
		}
		r.mu.Unlock()
		r.write(raw, key, conn, b)
		return
	case f.refused:
		r.mu.Unlock()
		r.refusePacket(raw, key, b)
		return
	default:
		r.queue(f, b)
	}
	r.mu.Unlock()
}

// queue keeps a packet of a flow, if there is room. The relay is locked.
func (r *relay) queue(f *udpFlow, b []byte) {
	if len(f.queue) < maxUDPQueue && r.waiting+len(b) <= maxUDPWaiting {
		f.queue = append(f.queue, append([]byte(nil), b...))
		r.waiting += len(b)
	}
}

// unqueue takes the packets that a flow has kept. Those that were taken before are done with.
func (r *relay) unqueue(f *udpFlow, before [][]byte) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range before {
		r.waiting -= len(b)
	}
	queue := f.queue
	f.queue, f.writing = nil, len(queue) > 0
	return queue
}

// writeQueue sends on what a flow keeps, until there is no more.
func (r *relay) writeQueue(raw *packetSender, key flowKey, f *udpFlow, conn net.Conn) {
	for queue := r.unqueue(f, nil); len(queue) > 0; queue = r.unqueue(f, queue) {
		for _, b := range queue {
			r.write(raw, key, conn, b)
		}
	}
}

// write sends one packet on. What is lost is lost, as on any way, but who could be told of a refusal is.
func (r *relay) write(raw *packetSender, key flowKey, conn net.Conn, b []byte) {
	if _, err := conn.Write(b); errors.Is(err, unix.ECONNREFUSED) {
		r.refusePacket(raw, key, b)
		conn.Write(b) // the error was about a packet before this one
	}
}

// refusePacket tells the sender that there is nobody.
func (r *relay) refusePacket(raw *packetSender, key flowKey, b []byte) {
	raw.send(key.src.Addr(), unreachablePort.packet(key, unix.IPPROTO_UDP, udpHead(key, b)))
}

// udpHead is the header that the packet had.
func udpHead(key flowKey, b []byte) []byte {
	_, _, head, _ := parseIP(udpPacket(key.src, key.dst, b), unix.IPPROTO_UDP)
	return head[:udpHeader]
}

// carry decides about a flow, and carries what comes back.
func (r *relay) carry(raw *packetSender, key flowKey, f *udpFlow) {
	conn, err := r.reach(r.ctx, EgressRequest{Network: "udp", Addr: key.dst, Source: key.src})
	if err == nil && !r.track(conn) {
		err = context.Canceled
	}
	r.mu.Lock()
	f.conn, f.refused, f.writing, f.last = conn, err != nil, err == nil, time.Now()
	if err != nil {
		f.conn = nil
	}
	r.mu.Unlock()
	if err != nil {
		queue := r.unqueue(f, nil)
		for _, b := range queue {
			r.refusePacket(raw, key, b)
		}
		r.unqueue(f, queue)
		return // the flow stays a little, see endFlows
	}
	r.work.Go(func() { r.writeQueue(raw, key, f, conn) })
	r.answers(raw, key, f, conn)
	r.endFlow(key, f)
}

// answers carries packets back, until the connection is closed.
func (r *relay) answers(raw *packetSender, key flowKey, f *udpFlow, conn net.Conn) {
	for {
		err := readPacket(conn, func(b []byte) {
			r.mu.Lock()
			f.last = time.Now()
			r.mu.Unlock()
			raw.send(key.src.Addr(), udpPacket(key.dst, key.src, b))
		})
		switch {
		case err == nil:
		case errors.Is(err, unix.ECONNREFUSED):
			r.refusePacket(raw, key, nil)
		default:
			return
		}
	}
}

// readPacket waits for one packet, and calls f with it. It has a buffer only while there is one.
func readPacket(conn net.Conn, f func([]byte)) error {
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		buf := udpBuffers.Get().(*[1 << 16]byte)
		defer udpBuffers.Put(buf)
		n, err := conn.Read(buf[:])
		if err == nil {
			f(buf[:n])
		}
		return err
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return err
	}
	var buf *[1 << 16]byte
	n := 0
	rerr := raw.Read(func(fd uintptr) bool {
		buf = udpBuffers.Get().(*[1 << 16]byte)
		for {
			if n, _, err = unix.Recvfrom(int(fd), buf[:], 0); err != unix.EINTR {
				break
			}
		}
		if err != nil {
			udpBuffers.Put(buf)
			buf = nil
		}
		return err != unix.EAGAIN
	})
	if rerr != nil {
		return rerr
	}
	if err == nil {
		f(buf[:n])
		udpBuffers.Put(buf)
	}
	return err
}

// endFlow forgets a flow and its connection.
func (r *relay) endFlow(key flowKey, f *udpFlow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flows[key] != f {
		return
	}
	delete(r.flows, key)
	r.give()
	if f.conn != nil {
		delete(r.open, f.conn)
		r.work.Go(func() { f.conn.Close() }) // one of the policy's could have all wait for it
	}
}

// endFlows ends flows that are silent.
func (r *relay) endFlows() {
	tick := time.NewTicker(udpRefused)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case now := <-tick.C:
			r.mu.Lock()
			old := map[flowKey]*udpFlow{}
			for key, f := range r.flows {
				if silent := now.Sub(f.last); f.refused && silent >= udpRefused || f.conn != nil && silent >= udpIdle {
					old[key] = f
				}
			}
			r.mu.Unlock()
			for key, f := range old {
				r.endFlow(key, f)
			}
		}
	}
}
