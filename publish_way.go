//go:build linux

package container

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file is how the relay of published ports reaches the container. It runs in the caller's process.

// A portWay connects to a container.
type portWay interface {
	// addrs are the addresses of the container at which a program may listen.
	addrs() []netip.Addr
	// dial connects to one, for a client whose address may not be valid.
	dial(ctx context.Context, typ int, from netip.Addr, to netip.AddrPort) (net.Conn, error)
	// dialSocket connects to a unix socket.
	dialSocket(ctx context.Context, path string) (net.Conn, error)
	close()
}

// A portTarget is what a published port stands for in the container: a port, or the path of a socket.
type portTarget struct {
	port uint16
	path string

	mu   sync.Mutex
	good [2]netip.Addr // where a client of IPv4, and of IPv6, has found a program
}

// addrs are where a client should look for the program: where another has found it, then at addresses of its own family.
func (t *portTarget) addrs(way portWay, from netip.Addr) []netip.Addr {
	t.mu.Lock()
	good := t.good[clientFamily(from)]
	t.mu.Unlock()
	rank := func(a netip.Addr) int {
		switch {
		case a == good:
			return 0
		case clientFamily(a) == clientFamily(from):
			return 1
		}
		return 2
	}
	list := slices.Clone(way.addrs())
	slices.SortStableFunc(list, func(a, b netip.Addr) int { return rank(a) - rank(b) })
	return list
}

// found notes where a client has found the program.
func (t *portTarget) found(from, at netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.good[clientFamily(from)] = at
}

func clientFamily(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// elsewhere tells whether a program that is not found at one address may be at another.
func elsewhere(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENETUNREACH)
}

// bridgeWay are the addresses of a container that the host reaches by its bridge.
type bridgeWay []netip.Addr

func newBridgeWay(s *NetworkState) bridgeWay {
	var w bridgeWay
	for _, p := range s.Addresses {
		w = append(w, p.Addr())
	}
	return w
}

func (w bridgeWay) addrs() []netip.Addr { return w }

func (w bridgeWay) dial(ctx context.Context, typ int, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
	network := "tcp"
	if typ == unix.SOCK_DGRAM {
		network = "udp"
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, to.String())
}

func (w bridgeWay) dialSocket(context.Context, string) (net.Conn, error) { return nil, ErrUnsupported }
func (w bridgeWay) close()                                               {}

// The addresses that clients of the host's own loopback, and with NetworkModeNone all clients, have in the container: not a loopback
// address, which programs may trust. They are set aside for addresses that stand for none (RFC 7600, RFC 9780).
var (
	portClient4 = netip.AddrFrom4([4]byte{192, 0, 0, 8})
	portClient6 = netip.MustParseAddr("100:0:0:1::1")
)

// insideWay reaches a container by sockets made in it: the program may listen on its loopback.
type insideWay struct {
	c     *Container
	local bool // all addresses are local in the container: it sees the client's own

	mu     sync.Mutex
	target *target
	pools  map[[2]int]*socketPool // by domain and type
	closed bool
}

func newInsideWay(c *Container) *insideWay {
	return &insideWay{c: c, local: c.cfg.networkMode() == NetworkModeEgress, pools: make(map[[2]int]*socketPool)}
}

// enter is the container. What it returns belongs to the way.
func (w *insideWay) enter(ctx context.Context) (*target, error) {
	for {
		w.mu.Lock()
		if w.target != nil || w.closed {
			defer w.mu.Unlock()
			if w.closed {
				return nil, ErrNotRunning
			}
			return w.target, nil
		}
		t, err := w.c.target()
		if err == nil {
			t.root.close()
			t.root = nil
			w.target = t
		}
		w.mu.Unlock()
		if err != nil {
			// A client may come before the record says that the container has a process.
			if !errors.Is(err, ErrNotRunning) || ctx.Err() != nil {
				return nil, err
			}
			sleep(ctx, 2*time.Millisecond)
		}
	}
}

func (w *insideWay) close() {
	w.mu.Lock()
	w.closed = true
	pools := slices.Collect(maps.Values(w.pools))
	w.mu.Unlock()
	for _, p := range pools {
		p.close() // who makes sockets for it looks at the target
	}
	if w.target != nil {
		w.target.close()
		w.target = nil
	}
}

// pool keeps sockets of a kind.
func (w *insideWay) pool(domain, typ int) *socketPool {
	w.mu.Lock()
	defer w.mu.Unlock()
	kind := [2]int{domain, typ}
	p := w.pools[kind]
	if p == nil {
		p = &socketPool{closed: w.closed, make: func(ctx context.Context, n int) ([]*os.File, error) {
			t, err := w.enter(ctx)
			if err != nil {
				return nil, err
			}
			return t.inside(ctx, w.c.record.dir, unix.CLONE_NEWNET, n, func(e emitter) {
				e.Step("sockets", "")
				for range n {
					e.sendInside(e.makeSocket(socketSpec{domain: domain, typ: typ, options: portSocketOptions(domain, typ)}))
				}
			})
		}}
		w.pools[kind] = p
	}
	return p
}

// portSocketOptions let a socket have any client's address, and get what is sent there whatever the rules of egress say about it.
func portSocketOptions(domain, typ int) (list []socketOption) {
	if typ == unix.SOCK_STREAM { // or one of 28000 ports is taken for all connections of the address
		list = append(list, socketOption{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1})
	}
	if domain == unix.AF_INET6 {
		return append(list, socketOption{unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1})
	}
	return append(list, socketOption{unix.SOL_IP, unix.IP_TRANSPARENT, 1})
}

// addrs are the container's own, from which a program that listens at all of them answers, and its loopback.
func (w *insideWay) addrs() []netip.Addr {
	return []netip.Addr{egressAddr4, loopback4, egressAddr6, loopback6}
}

func (w *insideWay) dial(ctx context.Context, typ int, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	source := portClient6
	if to.Addr().Is4() {
		source = portClient4
	}
	f, err := w.pool(addrFamily(to.Addr()), typ).get(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if w.local && from.IsValid() && from.Is4() == to.Addr().Is4() && !from.IsLoopback() && from.Zone() == "" {
		if err := bindFile(f, from); err == nil {
			source = netip.Addr{}
		}
	}
	if source.IsValid() {
		if err := bindFile(f, source); err != nil {
			return nil, err
		}
	}
	if err := connectFile(ctx, f, to); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// bindFile gives a socket of the container's the address of who it stands for.
func bindFile(f *os.File, a netip.Addr) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		err = os.NewSyscallError("bind", unix.Bind(int(fd), sockaddr(netip.AddrPortFrom(a, 0))))
	})
	return errors.Join(err, cerr)
}

func (w *insideWay) dialSocket(ctx context.Context, path string) (net.Conn, error) {
	t, err := w.enter(ctx)
	if err != nil {
		return nil, err
	}
	return w.c.dialInside(ctx, t, &insideAddr{network: "unix", typ: unix.SOCK_STREAM, path: path})
}
