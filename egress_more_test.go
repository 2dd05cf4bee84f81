//go:build linux

package container

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file tests what becomes of connections out of containers: their ends, how many there can be, who may decide and who may not.

// egressEvents are events as they come.
type egressEvents struct {
	mu   sync.Mutex
	list []EgressEvent
}

func (e *egressEvents) add(ev EgressEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// await waits for an event that is as f says.
func (e *egressEvents) await(t testing.TB, what string, f func(EgressEvent) bool) EgressEvent {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		e.mu.Lock()
		for _, ev := range e.list {
			if f(ev) {
				e.mu.Unlock()
				return ev
			}
		}
		e.mu.Unlock()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t.Errorf("no event: %s; there are %+v", what, e.list)
	return EgressEvent{}
}

// The ends of a connection are those of its other side: half of it, all of it, or a break.
func TestEgressEnds(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		cfg.Network.EgressAllow = []string{server4 + "/32"}
		serve(t, servers, server4+":80", func(c *net.TCPConn) {
			all, err := io.ReadAll(c)
			if err == nil {
				c.Write([]byte(strings.ToUpper(string(all))))
			}
		})
		serve(t, servers, server4+":81", func(c *net.TCPConn) { c.Read(make([]byte, 1)); c.SetLinger(0) })
		serve(t, servers, server4+":82", func(c *net.TCPConn) { c.Write([]byte("welcome")); c.CloseWrite(); io.Copy(io.Discard, c) })
		broken := make(chan error, 1)
		serve(t, servers, server4+":83", func(c *net.TCPConn) {
			_, err := c.Read(make([]byte, 1))
			broken <- err
		})
		in := startInside(t, cfg)
		in.do("dial a tcp %s:80", server4)
		in.want("ok", "put a half")
		in.want("ok HALF", "end a")
		in.do("dial b tcp %s:81", server4)
		in.want("ok", "put b x")
		in.want("ECONNRESET", "read b")
		in.do("dial c tcp %s:82", server4)
		in.want("ok welcome", "read c")
		in.want("EOF", "read c")
		in.want("ok", "put c more")
		in.do("dial d tcp %s:83", server4)
		in.want("ok", "reset d")
		select {
		case err := <-broken:
			if !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the server got %v instead of a reset", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the reset has not arrived")
		}
	})
}

// Packets of UDP go both ways where they may; all else is refused, echoes of ICMP too.
func TestEgressUDP(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		cfg.Network.EgressAllow = []string{"udp:" + server4 + ":99", "udp:[" + server6 + "]:99", "udp:" + server4 + ":97"}
		for _, address := range []string{server4 + ":99", "[" + server6 + "]:99"} {
			var p net.PacketConn
			if err := JoinNetworkNamespace(servers, func() (err error) { p, err = net.ListenPacket("udp", address); return err }); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			go func() {
				buf := make([]byte, 1<<16)
				for {
					n, from, err := p.ReadFrom(buf)
					if err != nil {
						return
					}
					p.WriteTo(buf[:n], from)
				}
			}()
		}
		in := startInside(t, cfg)
		for _, host := range []string{server4, "[" + server6 + "]"} {
			in.do("dial a udp %s:99", host)
			in.want("ok hello", "say a hello")
			in.want("ok "+strings.Repeat("long", 8000), "say a %s", strings.Repeat("long", 8000))
			in.do("dial b udp %s:98", host)
			in.want("ECONNREFUSED", "say b hello")
		}
		in.do("dial b udp %s:97", server4) // allowed, and nobody is there
		in.want("ECONNREFUSED", "say b hello")
		for _, host := range []string{server4, server6} {
			out, err := runProcess(in.c, "ping", "-c", "1", "-W", "10", host)
			if err == nil || strings.Contains(out, "bytes from") {
				t.Errorf("ping %s: %v\n%s", host, err, out)
			}
		}
	})
}

// runProcess runs a process in a container that runs, and returns its output.
func runProcess(c *Container, args ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	p := &Process{Args: args, Stdout: w, Stderr: w}
	err = c.Exec(context.Background(), p)
	w.Close()
	if err != nil {
		return "", err
	}
	out, _ := io.ReadAll(r)
	return string(out), p.Wait()
}

// A policy is told who asks, and decides with what is known; names are answered wherever they are asked for.
func TestEgressPolicyAndNames(t *testing.T) {
	testenv.Need(t, testenv.Program("dnsmasq", "dnsmasq-base"))
	withServers(t, func(t *testing.T, servers int) {
		dns := exec.Command("nsenter", "-t", strconv.Itoa(servers), "-n", testenv.LookPath("dnsmasq"), "--no-daemon", "--conf-file=/dev/null",
			"--pid-file=", "--no-resolv", "--no-hosts", "--address=/www.example.test/"+server4, "--listen-address="+server4, "--bind-interfaces")
		if err := dns.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dns.Process.Kill(); dns.Wait() })
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if c, err := net.DialTimeout("tcp", server4+":53", time.Second); err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("dnsmasq does not serve")
			}
		}
		serve(t, servers, server4+":80", echo)
		serve(t, servers, server4+":81", echo)
		cfg := egressConfig(t)
		cfg.Network.DNS = append(cfg.Network.DNS, mustAddrPort(server4+":53").Addr())
		cfg.Network.EgressAllow = []string{"www.example.test:80"}
		var events egressEvents
		cfg.Network.OnEgress = events.add
		asked := make(chan EgressRequest, 1000)
		cfg.Network.Egress = func(_ context.Context, r EgressRequest) (EgressDecision, error) {
			asked <- r
			return EgressDecision{}, errors.New("not today")
		}
		in := startInside(t, cfg)
		in.want("ECONNREFUSED", "dial a tcp %s:80", server4)
		r := <-asked
		if state, err := in.c.State(); err != nil || r.Pid != state.Pid || len(r.Names) != 0 || r.Addr.String() != server4+":80" || r.Container != "egress" || r.Network != "tcp" {
			t.Errorf("asked %+v of process %+v", r, state)
		}
		events.await(t, "denied", func(e EgressEvent) bool {
			return e.Network == "tcp" && errors.Is(e.Err, ErrEgressDenied) && e.Pid == r.Pid
		})
		for _, server := range []string{"127.0.0.11:53", "8.8.8.8:53", "[2001:db8:2::8]:53"} {
			for _, network := range []string{"udp", "tcp"} {
				in.want("ok "+server4, "lookup www.example.test %s %s", server, network)
			}
		}
		for _, server := range [][]string{nil, {"127.0.0.11"}} { // that of the container's resolv.conf, and ours
			args := append([]string{"nslookup", "www.example.test"}, server...)
			if out, err := runProcess(in.c, args...); !strings.Contains(out, server4+"\n") {
				t.Errorf("%s: %v\n%s", args, err, out)
			}
		}
		if got := in.do("dial a tcp %s:80", server4); !strings.HasPrefix(got, "ok") {
			t.Error(got)
		}
		in.want("ok hello", "say a hello")
		e := events.await(t, "allowed", func(e EgressEvent) bool { return e.Network == "tcp" && e.Err == nil })
		if len(e.Names) != 1 || e.Names[0] != "www.example.test" {
			t.Errorf("%+v", e)
		}
		in.want("ECONNREFUSED", "dial b tcp %s:81", server4)
		if got := in.do("lookup other.example.test 127.0.0.11:53 udp"); strings.HasPrefix(got, "ok") {
			t.Error(got)
		}
	})
}

// A program that gives up is not connected any more, and a policy that takes long is told.
func TestEgressGivenUp(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		asked, ended := make(chan struct{}, 100), make(chan struct{}, 100)
		cfg.Network.Egress = func(ctx context.Context, _ EgressRequest) (EgressDecision, error) {
			asked <- struct{}{}
			<-ctx.Done()
			ended <- struct{}{}
			return EgressDecision{Allow: true}, nil
		}
		in := startInside(t, cfg)
		p := &Process{Args: []string{"nc", server4, "80"}}
		if err := in.c.Exec(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		<-asked
		time.Sleep(100 * time.Millisecond)
		p.Signal(unix.SIGKILL)
		p.Wait()
		select {
		case <-ended:
		case <-time.After(judgeTime * 2 / 3):
			t.Error("the policy still decides")
		}
	})
}

// There are as many connections as there may be, and no trace of them afterwards.
func TestEgressLimit(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		cfg.Network.EgressAllow, cfg.Network.MaxConnections = []string{server4 + "/32"}, 3
		var events egressEvents
		cfg.Network.OnEgress = events.add
		serve(t, servers, server4+":80", echo)
		in := startInside(t, cfg)
		got := in.do("many 4 %s:80", server4)
		if !strings.HasPrefix(got, "ECONNREFUSED") {
			t.Error(got)
		}
		events.await(t, "too many", func(e EgressEvent) bool { return errors.Is(e.Err, errTooMany) })
		in.want("ok", "closemany")
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if strings.HasPrefix(in.do("dial a tcp %s:80", server4), "ok") {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the places are not free again")
			}
		}
		in.want("ok hello", "say a hello")
	})
}

// Whoever has all rights in the container can break the way out, and has no other.
func TestEgressHostileRoot(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		for _, newUser := range []bool{true, false} {
			cfg := egressConfig(t)
			cfg.Namespaces.NewUser = newUser
			all := []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SETUID", "CAP_DAC_OVERRIDE"}
			cfg.Capabilities = &Capabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all}
			cfg.Network.EgressAllow = []string{server4 + ":81"}
			accepted := make(chan struct{}, 10)
			if newUser {
				serve(t, servers, server4+":80", func(*net.TCPConn) { accepted <- struct{}{} })
				serve(t, servers, server4+":81", echo)
			}
			in := startInside(t, cfg)
			in.want("ECONNREFUSED", "dial a tcp %s:80", server4)
			if got := in.do("marked a %s:80", server4); strings.HasPrefix(got, "ok") {
				in.want("ECONNRESET", "read a")
			}
			in.do("dial a tcp %s:81", server4)
			in.want("ok hello", "say a hello")
			in.want("ok", "flush")
			in.want("ECONNREFUSED", "dial b tcp %s:81", server4)
			in.want("ok again", "say a again")
			if got := in.do("marked a %s:80", server4); strings.HasPrefix(got, "ok") {
				in.want("ECONNRESET", "read a")
			}
			if len(accepted) > 0 {
				t.Error("a connection has come through")
			}
		}
	})
}

// What has been created by one and started by another has its way out, and so has a process that joins.
func TestEgressCreatedAndJoined(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		cfg.Network.EgressAllow = []string{server4 + ":80"}
		cfg.Mounts = append(cfg.Mounts, insideMount(t))
		serve(t, servers, server4+":80", echo)
		dir := t.TempDir()
		c, err := New(dir, "egress", cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Destroy()
		in := runInside(t, c, c.Create)
		other, err := Load(dir, "egress")
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		joined := runInside(t, c, c.Exec)
		for _, i := range []*insider{in, joined} {
			i.do("dial a tcp %s:80", server4)
			i.want("ok hello", "say a hello")
			i.want("ECONNREFUSED", "dial b tcp %s:81", server4)
		}
		c.network.close() // as when the caller is gone
		joined.want("ECONNREFUSED", "dial b tcp %s:80", server4)
		joined.want("ECONNREFUSED", "dial b tcp [%s]:80", server6)
		joined.do("dial u udp %s:99", server4)
		if got := joined.do("say u x"); strings.HasPrefix(got, "ok") {
			t.Error(got)
		}
	})
}

// An ordinary user's container reaches what the user does. Nothing is changed about the network of this machine, so the server is at its own address.
func TestEgressOrdinaryUser(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(addrs, func(a net.Addr) bool {
		p, ok := a.(*net.IPNet)
		return ok && p.IP.IsGlobalUnicast() && p.IP.To4() != nil
	})
	if i < 0 {
		t.Skip("this machine has no address")
	}
	l, err := net.Listen("tcp", net.JoinHostPort(addrs[i].(*net.IPNet).IP.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // without splice, for which the runtime keeps pipes
			c.Close()
		}
	}()
	cfg := egressConfig(t)
	cfg.Network.EgressAllow = []string{l.Addr().String()}
	in := startInside(t, cfg)
	if got := in.do("dial a tcp %s", l.Addr()); !strings.HasPrefix(got, "ok") {
		t.Error(got)
	}
	in.want("ok hello", "say a hello")
	in.want("ok", "end a")
	in.want("ECONNREFUSED", "dial a tcp %s:1", addrs[i].(*net.IPNet).IP)
	in.want("ECONNREFUSED", "dial a tcp 127.0.0.1:%s", l.Addr().String()[strings.LastIndex(l.Addr().String(), ":")+1:])
}
