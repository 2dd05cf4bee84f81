//go:build linux

package container

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// This file carries the connections of published ports. It runs in the caller's process.

// A streamPort is a port of the host, or a unix socket.
type streamPort struct {
	relay    *portRelay
	listener net.Listener
	to       *portTarget
	file     *socketFile // the unix socket's; else nil
}

// accept takes connections until the relay is closed.
func (s *streamPort) accept() {
	p := s.relay
	for {
		conn, err := s.listener.Accept()
		switch {
		case p.ctx.Err() != nil:
			if err == nil {
				resetConn(conn)
			}
			return
		case err != nil: // no descriptor is free, or the client has given up
			sleep(p.ctx, 10*time.Millisecond)
		case !p.take():
			resetConn(conn)
		default:
			p.work.Go(func() {
				defer p.give()
				s.carry(conn)
			})
		}
	}
}

// carry joins a connection with one to the container. If there is none, the client sees a reset.
func (s *streamPort) carry(conn net.Conn) {
	p := s.relay
	ctx, cancel := context.WithTimeout(p.ctx, portDialTime)
	inside, err := dialPort(ctx, p.way, addrPortOf(conn.RemoteAddr()).Addr(), s.to)
	cancel()
	if err != nil {
		p.log.Debug("connection to a published port", "from", conn.RemoteAddr(), "at", conn.LocalAddr(), "err", err)
		resetConn(conn)
		return
	}
	stop := context.AfterFunc(p.ctx, func() {
		resetConn(conn)
		resetConn(inside)
	})
	defer stop()
	joinConns(conn, inside)
}

// dialPort connects to a program in the container.
func dialPort(ctx context.Context, way portWay, from netip.Addr, to *portTarget) (net.Conn, error) {
	if to.path != "" {
		return way.dialSocket(ctx, to.path)
	}
	var first error
	for _, addr := range to.addrs(way, from) {
		conn, err := way.dial(ctx, unix.SOCK_STREAM, from, netip.AddrPortFrom(addr, to.port))
		if err == nil {
			to.found(from, addr)
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if !elsewhere(err) {
			break
		}
	}
	return nil, first
}
