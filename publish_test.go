//go:build linux

package container

import (
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
	"sync"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// publishConfig publishes ports of a container that has no device.
func publishConfig(t testing.TB, mode NetworkMode, ports ...PortMapping) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.StopTimeout = -1
	cfg.Network = &NetworkConfig{Mode: mode, PortMappings: ports}
	return cfg
}

// published are the mappings of a container with the ports that were chosen.
func published(t testing.TB, c *Container) []PortMapping {
	t.Helper()
	state, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	return state.Network.PortMappings
}

// inNetwork runs f where the host's network is the test's own, and the host has addresses that are not of loopback.
func inNetwork(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	testenv.Need(t, testenv.Program("ip", "iproute2"))
	inNamespaces(t, func(t *testing.T) {
		for _, args := range []string{"link set lo up", "addr add 198.51.100.7/32 dev lo", "addr add 198.51.100.8/32 dev lo", "addr add 2001:db8::7/128 dev lo nodad"} {
			if out, err := exec.Command(testenv.LookPath("ip"), strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		f(t)
	}, "-n", "-m")
}

// tellPeers has who connects to a port in the container told who it is there.
func tellPeers(t testing.TB, c *Container, network, address string) {
	t.Helper()
	l, err := c.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
				fmt.Fprintf(conn, "%s from %s", text, host)
			}()
		}
	}()
}

// ask connects from an address of the host's, and returns what is answered.
func ask(t testing.TB, from, network, to string) string {
	t.Helper()
	d := net.Dialer{Timeout: time.Minute}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.Dial(network, to)
	if err != nil {
		t.Fatal(err)
	}
	return say(t, conn, "hello")
}

func at4(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// Clients are seen by their own address where all are local, and never as the container's loopback.
func TestPublishSources(t *testing.T) {
	inNetwork(t, func(t *testing.T) {
		leak.Check(t)
		for mode, want := range map[NetworkMode][4]string{
			NetworkModeEgress: {"192.0.0.8", "198.51.100.7", "2001:db8::7", "100:0:0:1::1"},
			NetworkModeNone:   {"192.0.0.8", "192.0.0.8", "100:0:0:1::1", "100:0:0:1::1"},
		} {
			cfg := publishConfig(t, mode, PortMapping{ContainerPort: 80}, PortMapping{ContainerPort: 81}, PortMapping{ContainerPort: 82})
			c := execSleeper(t, cfg)
			ports := published(t, c)
			tellPeers(t, c, "tcp", ":80")
			tellPeers(t, c, "tcp4", "127.0.0.1:81")
			tellPeers(t, c, "tcp6", "[::1]:82")
			for i, row := range [][2]string{{"127.0.0.1", "127.0.0.1"}, {"198.51.100.7", "198.51.100.8"}, {"2001:db8::7", "2001:db8::7"}, {"::1", "::1"}} {
				to := func(port uint16) string { return netip.AddrPortFrom(netip.MustParseAddr(row[1]), port).String() }
				wantText(t, ask(t, row[0], "tcp", to(ports[0].HostPort)), "hello from "+want[i])
				// A program of one family only has clients of the other as well.
				four, six := want[i], "100:0:0:1::1"
				if strings.Contains(row[0], ":") {
					four, six = "192.0.0.8", want[i]
				}
				wantText(t, ask(t, row[0], "tcp", to(ports[1].HostPort)), "hello from "+four)
				wantText(t, ask(t, row[0], "tcp", to(ports[2].HostPort)), "hello from "+six)
			}
			if err := c.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.Wait()
			if _, err := net.Dial("tcp", at4(ports[0].HostPort)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("after the end: %v", err)
			}
		}
	})
}

// freePorts finds so many ports in a row that can be had.
func freePorts(t *testing.T, host netip.Addr, count uint16) (first uint16) {
	t.Helper()
	for range 100 {
		first, err := freePort(PortMapping{}, host)
		if err != nil {
			t.Fatal(err)
		}
		r := new(portRelay)
		err = r.bindAll(PortMapping{HostIP: host, HostPort: first, ContainerPort: 80, Count: count}, []netip.Addr{host})
		for _, p := range r.streams {
			p.listener.Close()
		}
		if err == nil {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

// Addresses, ranges and sockets, and what is answered when nobody listens.
func TestPublishKinds(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	host := netip.MustParseAddr("127.0.0.1")
	cfg := publishConfig(t, NetworkModeNone,
		PortMapping{HostIP: host, HostPort: freePorts(t, host, 3), ContainerPort: 80, Count: 3},
		PortMapping{HostSocket: dir + "/a", ContainerPort: 80},
		PortMapping{HostSocket: dir + "/b", ContainerSocket: "/run/b"},
		PortMapping{HostIP: host, ContainerSocket: "/run/b"},
		PortMapping{HostIP: netip.IPv6Loopback(), ContainerPort: 80})
	writeTree(t, cfg.Root.Dir, map[string]string{"run/": ""})
	c := execSleeper(t, cfg)
	ports := published(t, c)
	for i := range uint16(3) {
		tellPeers(t, c, "tcp", fmt.Sprintf(":%d", 80+i))
	}
	tellPeers(t, c, "unix", "/run/b")
	for i := range uint16(3) {
		wantText(t, ask(t, "", "tcp", at4(ports[0].HostPort+i)), "hello from 192.0.0.8")
	}
	if _, err := net.Dial("tcp", fmt.Sprintf("127.0.0.2:%d", ports[0].HostPort)); err == nil {
		t.Error("another address is published")
	}
	wantText(t, ask(t, "", "unix", dir+"/a"), "hello from 192.0.0.8")
	wantText(t, ask(t, "", "unix", dir+"/b"), "hello from ")
	wantText(t, ask(t, "", "tcp", at4(ports[3].HostPort)), "hello from ")
	wantText(t, ask(t, "", "tcp", fmt.Sprintf("[::1]:%d", ports[4].HostPort)), "hello from 100:0:0:1::1")
	if ports[0].HostPort == 0 || ports[3].HostPort == 0 || ports[4].HostPort == 0 {
		t.Errorf("%+v", ports)
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// Who sees that a container has ended, by Stop or Destroy, finds its ports free, however long the rest of its end takes.
func TestPublishFreed(t *testing.T) {
	inNetwork(t, func(t *testing.T) {
		reaped := make(chan struct{})
		at = func(point string) {
			if point == "end: reaped" {
				<-reaped
			}
		}
		socket := t.TempDir() + "/a"
		cfg := publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 80},
			PortMapping{HostIP: loopback4, ContainerPort: 80, Protocol: "udp"}, PortMapping{HostSocket: socket, ContainerPort: 80})
		c := execSleeper(t, cfg)
		ports := published(t, c)
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
		if _, err := net.Dial("tcp", at4(ports[0].HostPort)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the port: %v", err)
		}
		conn, err := listenPacket(netip.AddrPortFrom(loopback4, ports[1].HostPort))
		if err != nil {
			t.Fatalf("the port of UDP: %v", err)
		}
		conn.Close()
		close(reaped)
		c.Wait()
		at = func(string) {}
	})
}

// askNobody connects to a port behind which nobody listens, and returns how that ends.
func askNobody(address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err // Dial, which asks for the outcome after it has waited, may have been told of the reset
	}
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	return err
}

// Ends, halves and breaks of a connection are passed on.
func TestPublishEnds(t *testing.T) {
	leak.Check(t)
	cfg := publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 80}, PortMapping{HostIP: loopback4, ContainerPort: 81})
	c := execSleeper(t, cfg)
	ports := published(t, c)
	if err := askNobody(at4(ports[1].HostPort)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("nobody listens: %v", err)
	}
	l, err := c.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	both := func() (outside, inside *net.TCPConn) {
		outer, err := net.Dial("tcp", at4(ports[0].HostPort))
		if err != nil {
			t.Fatal(err)
		}
		inner, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return outer.(*net.TCPConn), inner.(*net.TCPConn)
	}
	for _, insideFirst := range []bool{false, true} {
		a, b := both()
		if insideFirst {
			a, b = b, a
		}
		a.CloseWrite()
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("half: %v", err)
		}
		b.Write([]byte("later"))
		b.Close()
		if text, err := io.ReadAll(a); err != nil || string(text) != "later" {
			t.Errorf("%q, %v", text, err)
		}
		a.Close()

		a, b = both()
		if insideFirst {
			a, b = b, a
		}
		a.SetLinger(0)
		a.Close()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("reset: %v", err)
		}
		b.Close()
	}
	// The end of the container is the end of its connections.
	a, b := both()
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if _, err := a.Read(make([]byte, 1)); err == nil {
		t.Error("the connection has outlived the container")
	}
	a.Close()
	b.Close()
}

// What cannot be had is told before anything starts, and nothing is kept of the rest.
func TestPublishConflicts(t *testing.T) {
	leak.Check(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := netip.MustParseAddrPort(probe.Addr().String()).Port()
	probe.Close()
	tcp, udp := netip.MustParseAddrPort(taken.Addr().String()).Port(), netip.MustParseAddrPort(packets.LocalAddr().String()).Port()
	socket := filepath.Join(t.TempDir(), "socket")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		m    PortMapping
		want error
	}{
		"address":       {PortMapping{HostIP: loopback4, HostPort: tcp, ContainerPort: 80}, ErrPortInUse},
		"all addresses": {PortMapping{HostPort: tcp, ContainerPort: 80}, ErrPortInUse},
		"range":         {PortMapping{HostIP: loopback4, HostPort: tcp - 2, ContainerPort: 80, Count: 3}, ErrPortInUse},
		"udp":           {PortMapping{HostPort: udp, ContainerPort: 80, Protocol: "udp"}, ErrPortInUse},
		"socket":        {PortMapping{HostSocket: socket, ContainerPort: 80}, ErrPortInUse},
		"not ours":      {PortMapping{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: free + 1, ContainerPort: 80}, unix.EADDRNOTAVAIL},
	}
	if os.Geteuid() != 0 {
		rows["right"] = struct {
			m    PortMapping
			want error
		}{PortMapping{HostIP: loopback4, HostPort: 7, ContainerPort: 80}, unix.EACCES}
	}
	for name, row := range rows {
		c := lifeNew(t, publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, HostPort: free, ContainerPort: 80}, row.m))
		e := wantError(t, c.Run(t.Context(), &Process{Args: []string{"sleep", "1000"}}), "publish port", row.want)
		if e.Remedy == "" || e.Path == "" || e.ID == "" {
			t.Errorf("%s: %v", name, e)
		}
		if state, err := c.State(); err != nil || state.Status != StatusCreating {
			t.Errorf("%s: %v, %v", name, state, err)
		}
		l, err := net.Listen("tcp", at4(free))
		if err != nil {
			t.Errorf("%s: the other port has been kept: %v", name, err)
			continue
		}
		l.Close()
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}
	// Two containers want the same.
	first := execSleeper(t, publishConfig(t, NetworkModeNone, PortMapping{HostPort: free, ContainerPort: 80}))
	second := lifeNew(t, publishConfig(t, NetworkModeNone, PortMapping{HostPort: free, ContainerPort: 80}))
	wantError(t, second.Run(t.Context(), &Process{Args: []string{"true"}}), "publish port", ErrPortInUse)
	if err := first.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context(), &Process{Args: []string{"true"}}); err != nil {
		t.Error(err)
	}
	second.Wait()
}

// Clients that come before the program listens, or before the container is started, are not kept waiting for it.
func TestPublishCreated(t *testing.T) {
	leak.Check(t)
	c := lifeNew(t, publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 80}))
	if err := c.Create(t.Context(), &Process{Args: []string{"nc", "-ll", "-p", "80", "-e", "cat"}}); err != nil {
		t.Fatal(err)
	}
	port := published(t, c)[0].HostPort
	if err := askNobody(at4(port)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		conn, err := net.Dial("tcp", at4(port))
		if err != nil {
			if !errors.Is(err, unix.ECONNRESET) {
				t.Fatal(err)
			}
			return false
		}
		defer conn.Close()
		buf := make([]byte, 5)
		conn.Write([]byte("hello"))
		if _, err = io.ReadFull(conn, buf); err != nil {
			return false
		}
		wantText(t, string(buf), "hello")
		return true
	})
}

func TestPublishMaxConnections(t *testing.T) {
	leak.Check(t)
	cfg := publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 80}, PortMapping{HostIP: loopback4, ContainerPort: 53, Protocol: "udp"})
	cfg.Network.MaxConnections = 3
	c := execSleeper(t, cfg)
	ports := published(t, c)
	tellPeers(t, c, "tcp", ":80")
	var conns []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", at4(ports[0].HostPort))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	waitFor(t, func() bool { return len(c.network.relay.slots) == 3 })
	if err := askNobody(at4(ports[0].HostPort)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the fourth: %v", err)
	}
	wantText(t, say(t, conns[0], "hello"), "hello from 192.0.0.8")
	waitFor(t, func() bool { return len(c.network.relay.slots) == 2 })
	wantText(t, ask(t, "", "tcp", at4(ports[0].HostPort)), "hello from 192.0.0.8")
}

// waitFor waits until something is so.
func waitFor(t testing.TB, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it has not come to it")
		}
	}
}

// Hundreds at a time, from many clients, and none is lost or left.
func TestPublishMany(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 80}))
	port := published(t, c)[0].HostPort
	tellPeers(t, c, "tcp", ":80")
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			for range 20 {
				if got := ask(t, "", "tcp", at4(port)); got != "hello from 192.0.0.8" {
					t.Errorf("%q", got)
				}
			}
		})
	}
	clients.Wait()
	waitFor(t, func() bool { return len(c.network.relay.slots) == 0 })
}

// packetEcho answers packets in the container with who they are from.
func packetEcho(t testing.TB, c *Container, network, address string) {
	t.Helper()
	p, err := c.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	go func() {
		buf := make([]byte, maxPacket)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			p.WriteTo(fmt.Appendf(nil, "%s from %s", buf[:n], host), from)
		}
	}()
}

// askPacket sends a packet, and returns the answer to it. The socket is connected: an answer from another address does not come.
func askPacket(t testing.TB, from, to, text string) string {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, maxPacket)
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("%s to %s: %v", from, to, err)
	}
	return string(buf[:n])
}

func TestPublishPackets(t *testing.T) {
	inNetwork(t, func(t *testing.T) {
		leak.Check(t)
		for mode, want := range map[NetworkMode][3]string{
			NetworkModeEgress: {"192.0.0.8", "198.51.100.7", "2001:db8::7"},
			NetworkModeNone:   {"192.0.0.8", "192.0.0.8", "100:0:0:1::1"},
		} {
			c := execSleeper(t, publishConfig(t, mode, PortMapping{ContainerPort: 53, Protocol: "udp"}, PortMapping{ContainerPort: 54, Protocol: "udp"}, PortMapping{ContainerPort: 55, Protocol: "udp"}))
			ports := published(t, c)
			packetEcho(t, c, "udp", ":53")
			packetEcho(t, c, "udp4", "127.0.0.1:54")
			packetEcho(t, c, "udp6", "[::1]:55")
			for i, row := range [][2]string{{"127.0.0.1", "127.0.0.1"}, {"198.51.100.7", "198.51.100.8"}, {"2001:db8::7", "2001:db8::7"}} {
				to := func(port uint16) string { return netip.AddrPortFrom(netip.MustParseAddr(row[1]), port).String() }
				for _, text := range []string{"hello", "", strings.Repeat("x", 60000)} {
					wantText(t, askPacket(t, row[0], to(ports[0].HostPort), text), text+" from "+want[i])
				}
				four, six := want[i], "100:0:0:1::1"
				if strings.Contains(row[0], ":") {
					four, six = "192.0.0.8", want[i]
				}
				wantText(t, askPacket(t, row[0], to(ports[1].HostPort), "hello"), "hello from "+four)
				wantText(t, askPacket(t, row[0], to(ports[2].HostPort), "hello"), "hello from "+six)
			}
		}
	})
}

// A client that sends and never gets an answer gives way to others; one that has had one does not. Idle ones end.
func TestPublishFlows(t *testing.T) {
	leak.Check(t)
	before := portFlowIdle
	portFlowIdle = 500 * time.Millisecond
	defer func() { portFlowIdle = before }()
	cfg := publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 53, Protocol: "udp"}, PortMapping{HostIP: loopback4, ContainerPort: 54, Protocol: "udp"})
	cfg.Network.MaxConnections = 20
	c := execSleeper(t, cfg)
	defer c.Destroy()
	ports := published(t, c)
	packetEcho(t, c, "udp", ":53")
	silent, err := c.ListenPacket("udp", ":54") // says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	conn, err := net.Dial("udp", at4(ports[0].HostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answered := func() bool {
		buf := make([]byte, 100)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			conn.Write([]byte("hello"))
			conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if n, err := conn.Read(buf); err == nil && string(buf[:n]) == "hello from 192.0.0.8" {
				return true
			}
		}
		return false
	}
	if !answered() {
		t.Fatal("no answer")
	}
	for i := range 200 { // each from another port
		flood, err := net.Dial("udp", at4(ports[1].HostPort))
		if err != nil {
			t.Fatal(err)
		}
		defer flood.Close()
		flood.Write([]byte("flood"))
		if i%20 == 0 && !answered() {
			t.Fatal("the client that was there is not served any more")
		}
	}
	if other := askRetry(t, at4(ports[1].HostPort), silent); !other {
		t.Error("a new client does not get through")
	}
	waitFor(t, func() bool { return len(c.network.relay.slots) == 0 })
	if !answered() {
		t.Error("after the idle time: no answer")
	}
}

// askRetry sends packets until one arrives.
func askRetry(t *testing.T, to string, at net.PacketConn) bool {
	conn, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 100)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		conn.Write([]byte("new"))
		at.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		for {
			n, _, err := at.ReadFrom(buf)
			if err != nil {
				break
			}
			if string(buf[:n]) == "new" {
				return true
			}
		}
	}
	return false
}

// Detached containers live on; what the caller carries ends with it, and is no longer there for others.
func TestPublishDetached(t *testing.T) {
	leak.Check(t)
	cfg := publishConfig(t, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 80})
	cfg.Detached = true
	c := execSleeper(t, cfg)
	tellPeers(t, c, "tcp", ":80")
	wantText(t, ask(t, "", "tcp", at4(published(t, c)[0].HostPort)), "hello from 192.0.0.8")
}

func BenchmarkPublishConnections(b *testing.B) {
	c := execSleeper(b, publishConfig(b, NetworkModeNone, PortMapping{HostIP: loopback4, ContainerPort: 80}))
	l, err := c.Listen("tcp", ":80")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go greet(l, "x")
	addr := at4(published(b, c)[0].HostPort)
	var d net.Dialer
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			conn, err := d.DialContext(context.Background(), "tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				b.Error(err)
			}
			conn.Close()
		}
	})
}
