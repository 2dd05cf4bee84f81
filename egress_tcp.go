//go:build linux

package container

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// This file carries connections of TCP. It runs in the caller's process.
//
// A connection of the container's is seen by its first packet, which the container's rules drop. The relay asks the judge and connects to
// the other end, and only then sends that packet again, so that it arrives at our listener. So connect(2) in the container takes as long as it
// takes outside, and fails as it does there; one that is denied is refused, and no byte of the program is taken before.

// pendingTCP is a connection between its first packet and accept.
type pendingTCP struct {
	tcp   []byte   // the header of its first packet
	conn  net.Conn // the other end; nil while there is none
	timer *time.Timer
}

const (
	// acceptTime is how long a connection that could be made is kept for a program that may have given up.
	acceptTime = 15 * time.Second
	// aliveTime is how often it is looked whether a program still waits.
	aliveTime = time.Second
)

// readTap sees the first packets of connections.
func (r *relay) readTap(families []*relaySockets) {
	conn, err := r.tap.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, maxSYN)
	for {
		n, err := receive(conn, buf)
		if r.ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue // the kernel says once that the device was down
		}
		key, tcp, ok := parseSYN(buf[:n])
		if !ok || ownAddress(key.dst.Addr()) || key.dst.Port() == 53 {
			continue
		}
		if i := familyIndex(key.dst.Addr()); i < len(families) {
			r.firstPacket(families[i].raw, key, tcp)
		}
	}
}

// familyIndex is the place of the sockets of an address's family.
func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// firstPacket begins a connection, unless it is the same packet again.
func (r *relay) firstPacket(raw *packetSender, key flowKey, tcp []byte) {
	r.mu.Lock()
	p := r.pending[key]
	if p != nil {
		ready := p.conn != nil
		r.mu.Unlock()
		if ready { // it got lost
			raw.send(key.dst.Addr(), synPacket(key, p.tcp))
		}
		return
	}
	p = &pendingTCP{tcp: append([]byte(nil), tcp...)}
	q := EgressRequest{Network: "tcp", Addr: key.dst, Source: key.src}
	if r.closed || !r.take() {
		r.mu.Unlock()
		raw.send(key.src.Addr(), resetPacket(key, p.tcp))
		if r.ctx.Err() == nil {
			r.judge.report(q, &Error{Op: "egress", Path: key.dst.String(), Err: errTooMany})
		}
		return
	}
	r.pending[key] = p
	r.mu.Unlock()
	r.work.Go(func() { r.connect(raw, key, p, q) })
}

// connect finds the other end of a connection, or refuses it.
func (r *relay) connect(raw *packetSender, key flowKey, p *pendingTCP, q EgressRequest) {
	ctx, cancel := context.WithCancel(r.ctx)
	stop := r.whileWaiting(ctx, cancel, q)
	conn, err := r.reach(ctx, q)
	gone := ctx.Err() != nil // the program
	stop()
	cancel()
	if err != nil {
		r.forget(key, p)
		if !gone {
			raw.send(key.src.Addr(), refusal(key, p.tcp, err))
		}
		return
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		conn.Close()
		r.forget(key, p)
		return
	}
	p.conn = conn
	p.timer = time.AfterFunc(acceptTime, func() {
		if r.forget(key, p) {
			resetConn(conn)
		}
	})
	r.open[conn] = struct{}{}
	r.mu.Unlock()
	raw.send(key.dst.Addr(), synPacket(key, p.tcp))
}

// forget gives up a connection that has not been accepted; false if it is not pending any more.
func (r *relay) forget(key flowKey, p *pendingTCP) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending[key] != p {
		return false
	}
	delete(r.pending, key)
	if p.conn != nil {
		delete(r.open, p.conn)
	}
	r.give()
	return true
}

// whileWaiting cancels when the program has given up.
func (r *relay) whileWaiting(ctx context.Context, cancel func(), q EgressRequest) (stop func()) {
	var look func()
	look = func() {
		if ctx.Err() != nil {
			return
		}
		if !r.pids.exists(q) {
			cancel()
			return
		}
		time.AfterFunc(aliveTime, look)
	}
	timer := time.AfterFunc(aliveTime, look)
	return func() { timer.Stop() }
}

// refusal is the packet that tells a program why it cannot connect: who is denied is refused, as by a port where nobody listens.
func refusal(key flowKey, tcp []byte, err error) []byte {
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		return unreachableNet.packet(key, unix.IPPROTO_TCP, tcp)
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ETIMEDOUT), isTimeout(err) && !errors.Is(err, ErrEgressDenied):
		return unreachableHost.packet(key, unix.IPPROTO_TCP, tcp)
	}
	return resetPacket(key, tcp)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// acceptTCP accepts connections that have been let through.
func (r *relay) acceptTCP(s *relaySockets) {
	for {
		conn, err := s.listener.AcceptTCP()
		if r.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil { // too many descriptors, most likely
			select {
			case <-r.ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		r.accepted(conn)
	}
}

func (r *relay) accepted(conn *net.TCPConn) {
	key := flowKey{unmapped(conn.RemoteAddr()), unmapped(conn.LocalAddr())}
	if key.dst.Port() == 53 {
		r.nameConn(conn)
		return
	}
	r.mu.Lock()
	p := r.pending[key]
	if p == nil || p.conn == nil || r.closed { // somebody in the container who sends packets of his own
		r.mu.Unlock()
		resetConn(conn)
		return
	}
	delete(r.pending, key)
	p.timer.Stop()
	r.open[conn] = struct{}{}
	r.mu.Unlock()
	conn.SetKeepAlive(false) // the other side is on the same machine
	r.work.Go(func() {
		joinConns(conn, p.conn)
		r.mu.Lock()
		delete(r.open, conn)
		delete(r.open, p.conn)
		r.mu.Unlock()
		r.give()
	})
}

// unmapped is the address of a socket.
func unmapped(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
