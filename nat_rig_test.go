//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file makes networks for the tests of the rules: hosts that are namespaces, and "containers" that are no more than that. The test
// itself runs in a namespace that is "the host", a router between a client and a server.

// A testHost is a network namespace.
type testHost struct {
	t    testing.TB
	name string
	ns   *os.File // nil: that of the test
}

func newTestHost(t testing.TB, name string) *testHost {
	t.Helper()
	h := &testHost{t: t, name: name}
	var err error
	onOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			h.ns, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.ns.Close() })
	h.ip("link set lo up")
	return h
}

// do calls f on a thread in the namespace.
func (h *testHost) do(f func() error) error {
	if h.ns == nil {
		return f()
	}
	var err error
	onOwnThread(func() {
		if err = unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	})
	return err
}

// path is what ip(8) takes for the namespace.
func (h *testHost) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.Fd()) }

// try runs a program in the namespace.
func (h *testHost) try(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, testenv.LookPath(args[0]), args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	err := h.do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	return out.String(), err
}

func (h *testHost) run(args ...string) string {
	h.t.Helper()
	out, err := h.try("", args...)
	if err != nil {
		h.t.Fatalf("%s: %v: %v\n%s", h.name, args, err, out)
	}
	return out
}

func (h *testHost) ip(args string) string {
	h.t.Helper()
	return h.run(append([]string{"ip"}, strings.Fields(args)...)...)
}

// listen accepts connections, or packets, and answers each line with the server's name, the address that it was sent from, and the address that it was sent
// to, until the test ends.
func (h *testHost) listen(network, address string) {
	h.t.Helper()
	err := h.do(func() error {
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, address)
			if err != nil {
				return err
			}
			h.t.Cleanup(func() { c.Close() })
			go func() {
				b := make([]byte, 2000)
				for {
					_, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					fmt.Fprint(packetWriter{c, from}, h.name+" "+from.String()+"\n")
				}
			}()
			return nil
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintf(c, "%s %s %s\n", h.name, c.RemoteAddr(), c.LocalAddr())
					io.Copy(c, c)
				}()
			}
		}()
		return nil
	})
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

type packetWriter struct {
	c  net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(b []byte) (int, error) { return w.c.WriteTo(b, w.to) }

// dial connects, and returns what the server says.
func (h *testHost) dial(network, address string) (string, error) {
	var c net.Conn
	err := h.do(func() (err error) {
		c, err = net.DialTimeout(network, address, 700*time.Millisecond)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(700 * time.Millisecond))
	if strings.HasPrefix(network, "udp") {
		fmt.Fprintln(c, "hello")
	}
	b := make([]byte, 2000)
	n, err := c.Read(b)
	return strings.TrimSpace(string(b[:n])), err
}

// reaches wants an answer of a server that has seen the client's address.
func (h *testHost) reaches(network, address, server string, from ...string) {
	h.t.Helper()
	var got string
	var err error
	for deadline := time.Now().Add(30 * time.Second); ; { // neighbours have to be found first
		if got, err = h.dial(network, address); err == nil || time.Now().After(deadline) {
			break
		}
	}
	fields := strings.Fields(got)
	if err != nil || len(fields) < 2 || fields[0] != server {
		h.t.Errorf("%s to %s %s: %q, %v instead of %s", h.name, network, address, got, err, server)
		return
	}
	if ap, err := netip.ParseAddrPort(fields[1]); err != nil || len(from) > 0 && ap.Addr().String() != from[0] {
		h.t.Errorf("%s to %s %s: the server sees %s instead of %s", h.name, network, address, fields[1], from)
	}
}

// misses wants no answer.
func (h *testHost) misses(network, address string) {
	h.t.Helper()
	if got, err := h.dial(network, address); err == nil {
		h.t.Errorf("%s to %s %s: %q", h.name, network, address, got)
	}
}

// connect connects, and reads what the server says first.
func (h *testHost) connect(network, address string) net.Conn {
	h.t.Helper()
	var c net.Conn
	err := h.do(func() (err error) {
		c, err = net.DialTimeout(network, address, 30*time.Second)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if _, err := answer(c, "hello", 30*time.Second); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// answer sends a line, and returns what comes back until a time is over.
func answer(c net.Conn, line string, limit time.Duration) (string, error) {
	c.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	for got := ""; ; {
		b := make([]byte, 2000)
		n, err := c.Read(b)
		got += string(b[:n])
		if err != nil || strings.Contains(got, line+"\n") {
			return got, err
		}
	}
}

// capture counts the frames that arrive at a device of the namespace and that a function chooses. What it returns may be called several times, and tells how
// many have arrived until then.
func (h *testHost) capture(device string, choose func(frame []byte) bool) func() int {
	h.t.Helper()
	frames := make(chan int, 1)
	var fd int
	err := h.do(func() (err error) {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: dev.Index})
	})
	if err != nil {
		h.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "packets")
	h.t.Cleanup(func() { f.Close() })
	go func() {
		b := make([]byte, 1<<16)
		n := 0
		for {
			l, err := f.Read(b)
			if err != nil {
				frames <- n
				return
			}
			if choose(b[:l]) {
				n++
			}
		}
	}()
	conn, err := f.SyscallConn()
	if err != nil {
		h.t.Fatal(err)
	}
	return func() int {
		f.SetReadDeadline(time.Now())
		n := <-frames
		conn.Control(func(fd uintptr) { // what has arrived, and nobody has read yet
			for b := make([]byte, 1<<16); ; {
				l, err := unix.Read(int(fd), b)
				if err == unix.EINTR {
					continue
				}
				if err != nil {
					return
				}
				if choose(b[:l]) {
					n++
				}
			}
		})
		frames <- n
		return n
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// send sends frames from a device of the namespace.
func (h *testHost) send(device string, frames ...[]byte) {
	h.t.Helper()
	err := h.do(func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			err = errors.Join(err, unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index, Halen: 6}))
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// A natRig is the host with its neighbours.
type natRig struct {
	*testHost
	dir            string
	client, server *testHost
	bridges        map[string]*Bridge
	n              int
}

// inNAT runs a test again, with the network of a host of its own.
func inNAT(t *testing.T, f func(t *testing.T, r *natRig)) {
	t.Helper()
	testenv.Need(t, testenv.Program("ip", "iproute2"), testenv.Program("nft", "nftables"))
	inNamespaces(t, func(t *testing.T) {
		r := &natRig{testHost: &testHost{t: t, name: "host"}, dir: filepath.Join(t.TempDir(), "networks"), bridges: map[string]*Bridge{}}
		r.ip("link set lo up")
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
		}
		r.client = r.neighbour("client", "192.0.2", "2001:db8:1")
		r.server = r.neighbour("server", "198.51.100", "2001:db8:2")
		// The client knows a way to the containers, the server does not.
		r.client.ip("route add default via 192.0.2.1")
		r.client.ip("-6 route add default via 2001:db8:1::1")
		f(t, r)
	}, "-n", "-m")
}

// eachPath calls f with bridges whose frames do not pass the rules of IP, and with bridges whose frames do, if the kernel has br_netfilter.
func (r *natRig) eachPath(f func(calls string)) {
	for _, calls := range []string{"0", "1"} {
		missing := false
		for _, name := range []string{"iptables", "ip6tables"} {
			err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte(calls), 0)
			missing = missing || os.IsNotExist(err)
			if err != nil && !missing {
				r.t.Fatal(err)
			}
		}
		if !missing || calls == "0" {
			f("br_netfilter " + calls)
		}
	}
}

// neighbour makes a host that has a wire to the router.
func (r *natRig) neighbour(name, net4, net6 string) *testHost {
	r.t.Helper()
	h := newTestHost(r.t, name)
	r.ip("link add " + name + " type veth peer name eth0 netns " + h.path())
	r.addresses(name, net4+".1/24", net6+"::1/64")
	h.addresses("eth0", net4+".2/24", net6+"::2/64")
	return h
}

func (h *testHost) addresses(device string, addresses ...string) {
	h.t.Helper()
	for _, a := range addresses {
		nodad := ""
		if strings.Contains(a, ":") {
			nodad = " nodad"
		}
		h.ip("addr add " + a + " dev " + device + nodad)
	}
	h.ip("link set " + device + " up")
}

// bridge makes a bridge with rules.
func (r *natRig) bridge(name, net4, net6 string, internal bool) *Bridge {
	r.t.Helper()
	b := &Bridge{BridgeConfig: BridgeConfig{Name: name, StateDir: r.dir, Internal: internal}}
	for _, n := range []string{net4 + ".1/24", net6 + "::1/64"} {
		p := netip.MustParsePrefix(n)
		b.Subnets, b.Gateways = append(b.Subnets, p), append(b.Gateways, p.Addr())
	}
	s, err := openNetworkStore(r.dir)
	if err == nil {
		err = s.writeBridge(b)
	}
	if err == nil {
		err = natBridge(patiently, b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.ip("link add " + name + " type bridge")
	r.addresses(name, net4+".1/24", net6+"::1/64")
	r.bridges[name] = b
	return b
}

// A testEndpoint is a "container".
type testEndpoint struct {
	*testHost
	*endpoint
	b *Bridge
}

// container makes a namespace that is connected as a container is.
func (r *natRig) container(name string, b *Bridge, ports ...PortMapping) *testEndpoint {
	r.t.Helper()
	r.n++
	e := &endpoint{Key: fmt.Sprintf("ct%011x", r.n), Process: ownProcess(r.t), Network: NetworkState{Mode: NetworkModeBridge, Bridge: b.Name, StateDir: r.dir, PortMappings: ports}}
	e.Network.HostInterface, e.Network.MAC = e.Key, fmt.Sprintf("02:42:00:00:00:%02x", r.n)
	for _, p := range b.Subnets {
		a := p.Addr()
		for range r.n + 9 {
			a = a.Next()
		}
		e.Network.Addresses = append(e.Network.Addresses, netip.PrefixFrom(a, p.Bits()))
	}
	h := newTestHost(r.t, name)
	s, err := openNetworkStore(r.dir)
	if err == nil {
		_, err = natClaimPorts(s, e.Key, ports, func(chosen []PortMapping) error {
			e.Network.PortMappings = chosen
			return s.addEndpoint(e)
		})
	}
	if err == nil {
		err = natConnect(patiently, b, e)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.ip("link add " + e.Key + " type veth peer name eth0 address " + e.Network.MAC + " netns " + h.path())
	r.ip("link set " + e.Key + " master " + b.Name + " up")
	r.ip("link set " + e.Key + " type bridge_slave hairpin on") // see eachPath
	for _, p := range e.Network.Addresses {
		h.addresses("eth0", p.String())
	}
	for _, g := range b.Gateways {
		h.ip("route add default via " + g.String())
	}
	return &testEndpoint{h, e, b}
}

// addr is the container's address of a family.
func (e *testEndpoint) addr(six bool) string {
	return natTargetOf(e.endpoint.Network.Addresses, six).String()
}

// at is a port of the container.
func (e *testEndpoint) at(six bool, port uint16) string {
	return netip.AddrPortFrom(natTargetOf(e.endpoint.Network.Addresses, six), port).String()
}

func ownProcess(t testing.TB) processID {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return processID{os.Getpid(), start}
}
