//go:build linux

package container

import (
	"encoding/binary"
	"net/netip"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file makes sockets in a container: they are made by the launcher there, and used by the caller. It runs in the caller's process.

// socketSpec is a socket to be made.
type socketSpec struct {
	domain, typ, protocol int
	options               []socketOption
	bind                  netip.AddrPort // not valid: not bound
	listen                int            // backlog; 0: does not listen
}

type socketOption struct{ level, name, value int }

// makeSocket makes a socket, and returns its descriptor.
func (e emitter) makeSocket(s socketSpec) launch.Arg {
	fd := e.Call(unix.SYS_SOCKET, launch.Arg(s.domain), launch.Arg(s.typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK), launch.Arg(s.protocol)).Result()
	for _, o := range s.options {
		e.Call(unix.SYS_SETSOCKOPT, fd, launch.Arg(o.level), launch.Arg(o.name), e.struct32(uint32(o.value)), 4)
	}
	if s.bind.IsValid() {
		addr := rawSockaddr(s.bind)
		e.Call(unix.SYS_BIND, fd, e.Bytes(addr), launch.Arg(len(addr)))
	}
	if s.listen > 0 {
		e.Call(unix.SYS_LISTEN, fd, launch.Arg(s.listen))
	}
	return fd
}

// rawSockaddr is a struct sockaddr_in or sockaddr_in6.
func rawSockaddr(a netip.AddrPort) []byte {
	var b []byte
	family := uint16(unix.AF_INET)
	if a.Addr().Is6() {
		family = unix.AF_INET6
	}
	b = binary.NativeEndian.AppendUint16(b, family)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	if a.Addr().Is4() {
		ip := a.Addr().As4()
		return append(append(b, ip[:]...), make([]byte, 8)...)
	}
	ip := a.Addr().As16()
	b = append(b, 0, 0, 0, 0)
	b = append(b, ip[:]...)
	return append(b, 0, 0, 0, 0)
}
