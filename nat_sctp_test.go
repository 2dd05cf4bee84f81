//go:build linux

package container

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file sends messages of SCTP through published ports. Package net has no such sockets, so these are made here. Most hosts' kernels lack
// the protocol; TestGuest has kernels with it.

// sctpLong is how long an answer that comes may take: the kernel sends lost messages again after seconds.
const sctpLong = time.Minute

// sctpSocket makes a socket with one association in the namespace, bound to an address: one that is bound to all of them names them all to its peer,
// which no translation of addresses knows about.
func (h *testHost) sctpSocket(at netip.AddrPort) *os.File {
	h.t.Helper()
	var f *os.File
	if err := h.do(func() error {
		fd, err := unix.Socket(int(addressFamily(at.Addr())), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_SCTP)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		f = os.NewFile(uintptr(fd), "sctp "+at.String())
		return os.NewSyscallError("bind", unix.Bind(fd, sockaddr(at)))
	}); err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
	h.t.Cleanup(func() { f.Close() })
	return f
}

// sctpListen answers each message with the server's name, the peer's address and the message.
func (h *testHost) sctpListen(at netip.AddrPort) {
	h.t.Helper()
	l := h.sctpSocket(at)
	conn, err := l.SyscallConn()
	if err == nil {
		cerr := conn.Control(func(fd uintptr) { err = unix.Listen(int(fd), 10) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	go func() {
		for {
			fd, peer := -1, unix.Sockaddr(nil)
			if err := conn.Read(func(listener uintptr) bool {
				fd, peer, err = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
				return err != unix.EAGAIN
			}); err != nil {
				return
			}
			if err == nil {
				go h.sctpAnswer(os.NewFile(uintptr(fd), "sctp"), peer)
			}
		}
	}()
}

func (h *testHost) sctpAnswer(f *os.File, peer unix.Sockaddr) {
	defer f.Close()
	from := "?"
	switch a := peer.(type) {
	case *unix.SockaddrInet4:
		from = netip.AddrFrom4(a.Addr).String()
	case *unix.SockaddrInet6:
		from = netip.AddrFrom16(a.Addr).String()
	}
	f.SetDeadline(time.Now().Add(2 * sctpLong))
	for buf := make([]byte, 4096); ; {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		if _, err := f.WriteString(h.name + " " + from + " " + string(buf[:n])); err != nil {
			return
		}
	}
}

// sctpSay sends messages, a few if there are none, over an association, and wants each answered by itself. It returns who has answered, and
// whom that has seen.
func (h *testHost) sctpSay(from netip.Addr, to netip.AddrPort, limit time.Duration, messages ...string) (server, seen string, err error) {
	h.t.Helper()
	f := h.sctpSocket(netip.AddrPortFrom(from, 0))
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := connectFile(ctx, f, to); err != nil {
		return "", "", err
	}
	// Such a socket is told that it is connected when it has begun to: whether it is, an answer shows.
	f.SetDeadline(time.Now().Add(limit))
	if messages == nil {
		messages = []string{"one", strings.Repeat("long", 500), "three"} // one is longer than a packet of Ethernet
	}
	for _, message := range messages {
		if _, err := f.WriteString(message); err != nil {
			return "", "", err
		}
		buf := make([]byte, 4096)
		n, err := f.Read(buf)
		if err != nil {
			return "", "", err
		}
		fields := strings.Fields(string(buf[:n]))
		if len(fields) != 3 || fields[2] != message {
			return "", "", errors.New("a message has come as " + string(buf[:n]))
		}
		server, seen = fields[0], fields[1]
	}
	return server, seen, nil
}

// A port of SCTP is reached by another host, by other containers and by the host itself, with short messages (see PortMapping.Protocol), and sees who has sent; nothing else of the container's is.
func TestNATSCTP(t *testing.T) {
	testenv.Need(t, testenv.SCTP)
	inNAT(t, func(t *testing.T, r *natRig) {
		a, b := r.bridge("br0", "10.88.0", "fd88", false), r.bridge("br1", "10.89.0", "fd89", false)
		web := r.container("web", a,
			PortMapping{HostPort: 8080, ContainerPort: 80, Protocol: "sctp"},
			PortMapping{HostIP: netip.MustParseAddr("198.51.100.1"), HostPort: 8081, ContainerPort: 80, Protocol: "sctp"},
			PortMapping{HostPort: 8082, ContainerPort: 80})
		peer, other := r.container("peer", a), r.container("other", b)
		own := func(e *testEndpoint, six bool) netip.Addr { return natTargetOf(e.endpoint.Network.Addresses, six) }
		for i, host := range []string{"192.0.2.1", "2001:db8:1::1"} {
			six := i == 1
			hostAddr := netip.MustParseAddr(host)
			client := netip.MustParseAddr([]string{"192.0.2.2", "2001:db8:1::2"}[i])
			web.sctpListen(netip.AddrPortFrom(own(web, six), 80))
			published := netip.AddrPortFrom(hostAddr, 8080)
			for _, row := range []struct {
				from *testHost
				addr netip.Addr
				seen string // "" for whoever
			}{
				{r.client, client, client.String()},
				{other.testHost, own(other, six), own(other, six).String()},
				{peer.testHost, own(peer, six), ""},
			} {
				server, seen, err := row.from.sctpSay(row.addr, published, sctpLong)
				if err != nil || server != "web" || row.seen != "" && seen != row.seen {
					t.Errorf("%s to %s: %q has seen %q, %v", row.from.name, published, server, seen, err)
				}
			}
			if server, seen, err := r.testHost.sctpSay(hostAddr, published, sctpLong, "one", strings.Repeat("a", 1300), "three"); err != nil || server != "web" || seen != host {
				t.Errorf("the host to %s: %q has seen %q, %v", published, server, seen, err)
			}
			for _, row := range []struct {
				what string
				from *testHost
				addr netip.Addr
				to   netip.AddrPort
			}{
				{"a port that is not published", r.client, client, netip.AddrPortFrom(hostAddr, 8083)},
				{"a port of another address", r.client, client, netip.AddrPortFrom(hostAddr, 8081)},
				{"a port of another protocol", r.client, client, netip.AddrPortFrom(hostAddr, 8082)},
				{"the container itself, from outside", r.client, client, netip.AddrPortFrom(own(web, six), 80)},
				{"the container itself, from another network", other.testHost, own(other, six), netip.AddrPortFrom(own(web, six), 80)},
			} {
				if server, _, err := row.from.sctpSay(row.addr, row.to, time.Second); err == nil {
					t.Errorf("%s: %s answers", row.what, server)
				}
			}
		}
		exact := netip.MustParseAddrPort("198.51.100.1:8081")
		if server, _, err := r.client.sctpSay(netip.MustParseAddr("192.0.2.2"), exact, sctpLong); err != nil || server != "web" {
			t.Errorf("%s: %q, %v", exact, server, err)
		}
	})
}
