//go:build linux

package container

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file connects the caller to what listens in a container, without a port on the host. It runs in the caller's process, which need
// not be the one that has started the container.

// Dial connects to an address in the container's network namespace, as a process of the container would, with a socket that
// it would have: what listens on the container's loopback can be reached, and no port of the host is needed. It can be the
// DialContext of an http.Transport.
//
// The network is one of "tcp", "udp", each also with 4 or 6 behind, "unix", "unixgram" and "unixpacket". The host of an address is an IP
// address, or nothing or "localhost" for the container's loopback, of both families in turn; other names are not looked
// up. The path of a unix socket is absolute, and resolved in the container; one that begins with @ is abstract. Who listens sees the container's
// root as its peer.
//
// It works from any process, for root and for the user who has started the container, while that is created or running. It returns
// ErrNotRunning if there is no process, and ErrPaused if the container is paused. The connection outlives ctx, and
// as a socket the container: Close it.
func (c *Container) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	a, err := parseInside(network, address)
	if err == nil {
		var t *target
		if t, err = c.networkTarget(ctx); err == nil {
			defer t.close()
			var conn net.Conn
			if conn, err = c.dialInside(ctx, t, a); err == nil {
				return conn, nil
			}
		}
	}
	return nil, c.failedSocket("dial", network, address, err)
}

// failedSocket completes an error about a socket in a container.
func (c *Container) failedSocket(op, network, address string, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		err = &Error{Op: op, Path: network + " " + address, Err: err}
	}
	return c.failed(op, err)
}

// An insideAddr is where to connect or listen in a container.
type insideAddr struct {
	network string           // without 4 or 6
	typ     int              // SOCK_*
	path    string           // of a unix socket
	addrs   []netip.AddrPort // to be tried in turn
	any     bool             // there was no host: for who listens, all addresses of family
	family  int              // 4, 6, or 0 for both
}

// parseInside reads an address.
func parseInside(network, address string) (*insideAddr, error) {
	a := &insideAddr{network: strings.TrimRight(network, "46")}
	switch suffix := network[len(a.network):]; suffix {
	case "":
	case "4", "6":
		a.family = int(suffix[0] - '0')
	default:
		return nil, net.UnknownNetworkError(network)
	}
	switch a.network {
	case "tcp", "unix":
		a.typ = unix.SOCK_STREAM
	case "udp", "unixgram":
		a.typ = unix.SOCK_DGRAM
	case "unixpacket":
		a.typ = unix.SOCK_SEQPACKET
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if !strings.HasPrefix(a.network, "unix") {
		return a, a.parseIP(address)
	}
	if a.family != 0 {
		return nil, net.UnknownNetworkError(network)
	}
	a.path = address
	const longest = unix.SizeofSockaddrUnix - 3 // without the family and a zero byte
	name := address
	if !abstract(name) {
		name = path.Base(name) // the rest is looked up before
	}
	switch {
	case len(address) < 2 || address[0] != '/' && !abstract(address) || strings.HasSuffix(address, "/") || strings.ContainsRune(address, 0):
		return nil, &net.AddrError{Err: "want an absolute path in the container, or a name that begins with @", Addr: address}
	case len(name) > longest || len(address) >= unix.PathMax:
		return nil, &net.AddrError{Err: "a name longer than " + strconv.Itoa(longest) + " bytes", Addr: address}
	}
	return a, nil
}

// parseIP reads HOST:PORT.
func (a *insideAddr) parseIP(address string) error {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	port := 0
	if service != "" {
		if port, err = net.LookupPort(a.network, service); err != nil {
			return err
		}
	}
	var ips []netip.Addr
	switch host {
	case "", "localhost":
		a.any = host == ""
		ips = []netip.Addr{loopback4, loopback6}
	default:
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return &net.AddrError{Err: "not an IP address, and no other name than localhost is looked up in a container", Addr: address}
		}
		ips = []netip.Addr{ip.Unmap()}
	}
	for _, ip := range ips {
		if a.family != 0 && (a.family == 4) != ip.Is4() {
			continue
		}
		if zone := ip.Zone(); zone != "" {
			if _, err := strconv.ParseUint(zone, 10, 31); err != nil {
				return &net.AddrError{Err: "the zone must be the number of a device in the container", Addr: address}
			}
		}
		a.addrs = append(a.addrs, netip.AddrPortFrom(ip, uint16(port)))
	}
	if len(a.addrs) == 0 {
		return &net.AddrError{Err: "an address of the other family", Addr: address}
	}
	return nil
}

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// kinds are the namespaces that a socket of this address is made in.
func (a *insideAddr) kinds() uintptr {
	if a.path != "" && !abstract(a.path) {
		return unix.CLONE_NEWNS | unix.CLONE_NEWNET
	}
	return unix.CLONE_NEWNET
}

// dialInside connects to the first address that answers.
func (c *Container) dialInside(ctx context.Context, t *target, a *insideAddr) (net.Conn, error) {
	var proc *os.File
	if a.path != "" && !abstract(a.path) {
		var err error
		if proc, err = openProcFS(procDir); err != nil {
			return nil, err
		}
		defer proc.Close()
	}
	files, err := t.inside(ctx, c.record.dir, a.kinds(), max(1, len(a.addrs)), func(e emitter) {
		e.Step("dial", a.network+" "+a.path)
		if a.path != "" {
			e.sendInside(e.connectUnix(a.typ, a.path, proc))
		}
		for _, addr := range a.addrs {
			e.sendInside(e.makeSocket(socketSpec{domain: addrFamily(addr.Addr()), typ: a.typ}))
		}
	})
	if err != nil {
		return nil, err
	}
	defer closers(files).close()
	if a.path != "" {
		return net.FileConn(files[0])
	}
	var first error
	for i, addr := range a.addrs {
		if err = connectFile(ctx, files[i], addr); err == nil {
			return net.FileConn(files[i])
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func addrFamily(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sockaddr is an address for package unix.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32)
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port()), ZoneId: uint32(zone)}
}

// connectFile connects a socket that does not block.
func connectFile(ctx context.Context, f *os.File, to netip.AddrPort) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	asked := false
	var failed error
	err = conn.Write(func(fd uintptr) (done bool) {
		if !asked {
			asked = true
			failed = unix.Connect(int(fd), sockaddr(to))
		} else if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			failed = err
		} else if failed = unix.Errno(n); n == 0 {
			// The poller may have woken us because of what was before.
			if _, failed = unix.Getpeername(int(fd)); failed == unix.ENOTCONN {
				failed = unix.EINPROGRESS
			}
		}
		return failed != unix.EINPROGRESS && failed != unix.EALREADY && failed != unix.EINTR
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return ctx.Err()
	case err != nil:
		return err
	case failed != nil:
		return os.NewSyscallError("connect", failed)
	}
	return nil
}
