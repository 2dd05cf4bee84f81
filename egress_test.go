//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file tests connections out of containers: real programs, real servers in a network namespace of the test's, where the caller is.

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

const (
	server4 = "203.0.113.5"
	server6 = "2001:db8::5"
)

// withServers runs a test in a network namespace, as the caller's, from where these addresses can be reached: they are in another one, whose
// process's number f gets.
func withServers(t *testing.T, f func(t *testing.T, servers int)) {
	t.Helper()
	testenv.Need(t, testenv.Program("ip", "iproute2"), testenv.Program("nsenter", "util-linux"))
	inNamespaces(t, func(t *testing.T) {
		far := exec.Command("unshare", "-n", "sh", "-c", "echo; exec sleep 600")
		out, err := far.StdoutPipe()
		if err == nil {
			err = far.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { far.Process.Kill(); far.Wait() })
		out.Read(make([]byte, 1)) // it is in its namespace
		pid := strconv.Itoa(far.Process.Pid)
		for _, line := range []string{
			"ip link set lo up", "ip link add near type veth peer name far netns " + pid, "ip link set near up",
			"ip address add 198.51.100.1/24 dev near", "ip address add 2001:db8:1::1/64 dev near nodad",
			"ip route add default via 198.51.100.2", "ip -6 route add default via 2001:db8:1::2",
			"ip route add unreachable 203.0.113.9/32", "ip -6 route add unreachable 2001:db8::9/128", "ip route add throw 203.0.113.10/32",
			"FAR ip link set lo up", "FAR ip link set far up", "FAR ip address add 198.51.100.2/24 dev far", "FAR ip address add 2001:db8:1::2/64 dev far nodad",
			"FAR ip address add " + server4 + "/32 dev lo", "FAR ip address add " + server6 + "/128 dev lo nodad",
		} {
			args := strings.Fields(strings.Replace(line, "FAR", "nsenter -t "+pid+" -n", 1))
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
		}
		for _, server := range []string{server4, server6} { // new devices take a moment until they pass packets on
			waitFor(t, func() bool {
				_, err := net.DialTimeout("tcp", net.JoinHostPort(server, "1"), time.Second)
				return errors.Is(err, unix.ECONNREFUSED)
			})
		}
		f(t, far.Process.Pid)
	}, "-n", "-m")
}

// serve calls f for each connection to an address of the servers, until the end of the test.
func serve(t testing.TB, servers int, address string, f func(*net.TCPConn)) {
	t.Helper()
	var l net.Listener
	if err := JoinNetworkNamespace(servers, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); work.Wait() })
}

// echo sends back what comes.
func echo(c *net.TCPConn) { io.Copy(c, c) }

// An insider is a container with the program of insideCommand.
type insider struct {
	t   testing.TB
	c   *Container
	in  io.Writer
	out *bufio.Reader
}

// egressConfig is a configuration with a way out.
func egressConfig(t testing.TB) Config {
	cfg := testConfig(t)
	cfg.Network = &NetworkConfig{Mode: NetworkModeEgress}
	return cfg
}

// allowEgress lets everything through, also what is special.
func allowEgress(context.Context, EgressRequest) (EgressDecision, error) {
	return EgressDecision{Allow: true, Special: true}, nil
}

// insideMount is the mount of the program.
func insideMount(t testing.TB) Mount {
	t.Helper()
	testenv.Need(t, testenv.StaticTest)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Mount{Type: "bind", Source: exe, Target: "/inside"}
}

// startInside starts the program in a container that is destroyed at the end of the test.
func startInside(t testing.TB, cfg Config) *insider {
	t.Helper()
	cfg.Mounts = append(cfg.Mounts, insideMount(t))
	c, err := New(t.TempDir(), "egress", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return runInside(t, c, c.Run)
}

// runInside runs the program by a function that starts processes.
func runInside(t testing.TB, c *Container, run func(context.Context, *Process) error) *insider {
	t.Helper()
	inR, inW := newPipe(t)
	outR, outW := newPipe(t)
	err := run(context.Background(), &Process{Args: []string{"/inside"}, Env: []string{egressVar + "=1"}, Stdin: inR, Stdout: outW, Stderr: os.Stderr})
	inR.Close()
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	in := newInsider(t, inW, outR)
	in.c = c
	return in
}

func newInsider(t testing.TB, in io.Writer, out io.Reader) *insider {
	return &insider{t: t, in: in, out: bufio.NewReader(out)}
}

func newPipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// do has the program do something, and returns its answer.
func (i *insider) do(format string, args ...any) string {
	i.t.Helper()
	fmt.Fprintf(i.in, format+"\n", args...)
	line, err := i.out.ReadString('\n')
	if err != nil {
		i.t.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
	return strings.TrimSpace(line)
}

// want is do for an answer that is known; of a failure it is the name, which has to come within a second.
func (i *insider) want(want, format string, args ...any) {
	i.t.Helper()
	got := ""
	for range 3 { // on a machine that is slow for a moment, one of these is quick
		got = i.do(format, args...)
		name, took, failed := strings.Cut(got, " ")
		if ms, err := strconv.Atoi(took); !failed || name == "ok" || err != nil {
			break
		} else if ms < 1000 { // the kernel sends a SYN again after a second
			got = name
			break
		}
	}
	if got != want {
		i.t.Errorf("%s: %q instead of %q", fmt.Sprintf(format, args...), got, want)
	}
}

func TestEgressTCP(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		cfg.Network.Egress = allowEgress
		serve(t, servers, server4+":80", echo)
		serve(t, servers, "["+server6+"]:80", echo)
		in := startInside(t, cfg)
		for _, host := range []string{server4, "[" + server6 + "]"} {
			if got := in.do("dial a tcp %s:80", host); !strings.HasPrefix(got, "ok ") {
				t.Fatal(got)
			}
			in.want("ok hello", "say a hello")
			in.want("ok again", "say a again")
			in.want("ok", "end a")
			in.want("ECONNREFUSED", "dial b tcp %s:81", host)
		}
	})
}

// A connection that cannot be made fails as it does outside.
func TestEgressUnreachable(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		cfg.Network.Egress = allowEgress
		in := startInside(t, cfg)
		in.want("EHOSTUNREACH", "dial a tcp 203.0.113.9:80")
		in.want("EHOSTUNREACH", "dial a tcp [2001:db8::9]:80")
		in.want("ENETUNREACH", "dial a tcp 203.0.113.10:80")
	})
}

// A policy can lead a connection elsewhere, or be the other end itself.
func TestEgressDecision(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		serve(t, servers, server4+":80", echo)
		cfg := egressConfig(t)
		cfg.Network.Egress = func(_ context.Context, r EgressRequest) (EgressDecision, error) {
			if r.Addr.Port() == 1 {
				return EgressDecision{Allow: true, Addr: mustAddrPort(server4 + ":80")}, nil
			}
			ours, theirs := net.Pipe()
			go func() {
				defer ours.Close()
				io.Copy(ours, io.LimitReader(ours, 6))
			}()
			return EgressDecision{Allow: true, Conn: theirs}, nil
		}
		in := startInside(t, cfg)
		for port := range 2 {
			if got := in.do("dial a tcp 192.0.2.%d:%d", port+1, port+1); !strings.HasPrefix(got, "ok") {
				t.Fatal(got)
			}
			in.want("ok secret", "say a secret")
		}
		in.want("EOF", "read a")
	})
}

// A denied connection is refused by connect itself, and at once.
func TestEgressDenied(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		cfg := egressConfig(t)
		accepted := make(chan struct{}, 10)
		serve(t, servers, server4+":80", func(*net.TCPConn) { accepted <- struct{}{} })
		serve(t, servers, "["+server6+"]:80", func(*net.TCPConn) { accepted <- struct{}{} })
		cfg.Network.Egress = func(context.Context, EgressRequest) (EgressDecision, error) { return EgressDecision{}, nil }
		in := startInside(t, cfg)
		in.want("ECONNREFUSED", "dial a tcp %s:80", server4)
		in.want("ECONNREFUSED", "dial a tcp [%s]:80", server6)
		in.want("ECONNREFUSED", "dial a tcp 127.0.0.1:80")
		in.want("ECONNREFUSED", "dial a tcp 169.254.169.254:80")
		if got := in.do("dial a tcp %s", egressSocket4); strings.HasPrefix(got, "ok") { // nobody has let it through
			in.want("ECONNRESET", "read a")
		}
		if len(accepted) > 0 {
			t.Error("a connection has come through")
		}
	})
}
