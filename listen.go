//go:build linux

package container

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file lets the caller serve a container: what listens there is the caller's. It runs in the caller's process, which need
// not be the one that has started the container.

// listenBacklog is what net asks for as well; the kernel takes what net.core.somaxconn of the namespace allows.
const listenBacklog = 4096

// Listen listens on an address in the container's network namespace: processes of the container can connect, and nobody else. Networks and
// addresses are those of [Container.Dial] for "tcp", "unix" and "unixpacket", but that no host means all addresses; port 0 is a free one, see Addr. Ports
// below 1024 can be had whoever the caller is. A unix socket is a file of the container's root with mode 0777, made in a directory that is there, and
// removed by Close if the container still runs.
//
// The listener outlives the container, as a socket that nobody can connect to. Errors are those of Dial; errors.Is tells syscall.EADDRINUSE.
func (c *Container) Listen(network, address string) (net.Listener, error) {
	f, a, err := c.bindInside(network, address, unix.SOCK_STREAM, unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, c.failedSocket("listen", network, address, err)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, c.failedSocket("listen", network, address, err)
	}
	file, ok := l.(*net.UnixListener)
	if !ok || abstract(a.path) {
		return l, nil
	}
	return &insideListener{UnixListener: file, remove: sync.OnceFunc(func() { c.removeInside(a.path) })}, nil
}

// ListenPacket is Listen for "udp" and "unixgram".
func (c *Container) ListenPacket(network, address string) (net.PacketConn, error) {
	f, a, err := c.bindInside(network, address, unix.SOCK_DGRAM, unix.SOCK_DGRAM)
	if err != nil {
		return nil, c.failedSocket("listen", network, address, err)
	}
	defer f.Close()
	p, err := net.FilePacketConn(f)
	if err != nil {
		return nil, c.failedSocket("listen", network, address, err)
	}
	file, ok := p.(*net.UnixConn)
	if !ok || abstract(a.path) {
		return p, nil
	}
	return &insidePacketConn{UnixConn: file, remove: sync.OnceFunc(func() { c.removeInside(a.path) })}, nil
}

// bindInside makes a socket in the container that has an address, and if it is for connections listens there.
func (c *Container) bindInside(network, address string, types ...int) (*os.File, *insideAddr, error) {
	a, err := parseInside(network, address)
	if err != nil {
		return nil, nil, err
	}
	if a.typ != types[0] && a.typ != types[1] {
		return nil, nil, net.UnknownNetworkError(network)
	}
	ctx := context.Background()
	t, err := c.networkTarget(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer t.close()
	err = unix.EAFNOSUPPORT
	for _, spec := range a.listens() {
		if !errors.Is(err, unix.EAFNOSUPPORT) { // no IPv6 in this kernel
			break
		}
		var files []*os.File
		files, err = t.inside(ctx, c.record.dir, a.kinds(), 1, func(e emitter) {
			e.Step("listen", network+" "+address)
			if a.path != "" {
				e.sendInside(e.bindUnix(a.typ, a.path, spec.listen))
				return
			}
			e.sendInside(e.makeSocket(spec))
		})
		if err == nil {
			return files[0], a, nil
		}
	}
	return nil, nil, err
}

// listens are the sockets that can serve an address, in the order in which they are to be tried.
func (a *insideAddr) listens() []socketSpec {
	spec := socketSpec{typ: a.typ}
	if a.typ != unix.SOCK_DGRAM {
		spec.listen = listenBacklog
		spec.options = []socketOption{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1}}
	}
	if a.path != "" {
		return []socketSpec{spec}
	}
	four, six := spec, spec
	four.domain, six.domain = unix.AF_INET, unix.AF_INET6
	four.bind, six.bind = a.addrs[0], a.addrs[len(a.addrs)-1]
	if a.any {
		port := a.addrs[0].Port()
		four.bind, six.bind = netip.AddrPortFrom(netip.IPv4Unspecified(), port), netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	}
	only := 1
	if a.any && a.family == 0 {
		only = 0
	}
	six.options = append(six.options[:len(six.options):len(six.options)], socketOption{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only})
	switch {
	case a.any && a.family == 0:
		return []socketSpec{six, four}
	case a.any && a.family == 6 || a.addrs[0].Addr().Is6():
		return []socketSpec{six}
	}
	return []socketSpec{four}
}

// removeInside removes the file of a socket, if the container is still there.
func (c *Container) removeInside(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	t, err := c.target()
	if err != nil {
		return
	}
	defer t.close()
	if _, err := t.inside(ctx, c.record.dir, unix.CLONE_NEWNS, 0, func(e emitter) {
		e.Step("remove socket", name)
		e.Call(unix.SYS_UNLINKAT, e.directoryOf(name), e.Str(path.Base(name)), 0).Ignore(unix.ENOENT)
	}); err != nil {
		c.cfg.logger().Warn("the file of a socket could not be removed", "id", c.id, "path", name, "err", err)
	}
}

// insideListener removes its file when it is closed.
type insideListener struct {
	*net.UnixListener
	remove func()
}

func (l *insideListener) Close() error {
	err := l.UnixListener.Close()
	l.remove()
	return err
}

type insidePacketConn struct {
	*net.UnixConn
	remove func()
}

func (p *insidePacketConn) Close() error {
	err := p.UnixConn.Close()
	p.remove()
	return err
}
