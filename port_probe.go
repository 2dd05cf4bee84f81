//go:build linux

package container

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file finds out by trying whether a port of the host can be had. It runs in the caller's process.

// probePort tries whether a port can be had. Families and protocols that the host has not got have no ports that are in use.
func probePort(proto string, addr netip.Addr, port uint16) error {
	addr = addr.Unmap()
	addrs := []netip.Addr{addr}
	if !addr.IsValid() {
		addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	for _, a := range addrs {
		err := bindBriefly(proto, netip.AddrPortFrom(a, port))
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !(errors.Is(err, unix.EADDRNOTAVAIL) && !addr.IsValid()) {
			return err
		}
	}
	return nil
}

// bindBriefly binds a socket, and gives it up again. A process that is being started meanwhile has it too, until it executes its program,
// and must not be in the way of whom the port is for: a TCP socket that may be shared and does not listen is in nobody's way, though those that listen
// are in its; for UDP there is no such thing, so nothing is started meanwhile.
func bindBriefly(proto string, at netip.AddrPort) error {
	domain, typ, share := addrFamily(at.Addr()), unix.SOCK_STREAM, 1
	switch proto {
	case "udp":
		typ, share = unix.SOCK_DGRAM, 0
	case "sctp":
		return nil // what has no sockets here is the kernel's alone
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, share); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if domain == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sockaddr(at)))
}
