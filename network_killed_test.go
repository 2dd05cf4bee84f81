//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file kills callers that carry the connections of containers, which live on.

// relayLife starts a container, or creates it only with a Point, and carries its connections until it is killed. Its standard input and output are
// those of the program in it.
func relayLife(o crashOrder) error {
	c, err := New(o.Dir, "x", o.Cfg)
	if err != nil {
		return err
	}
	run := c.Run
	if o.Point == "only create" {
		run = c.Create
	}
	if err := run(context.Background(), &Process{Args: []string{"/inside"}, Env: []string{egressVar + "=1"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}); err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

// startRelayLife starts the process. It returns how to kill it, and the program in its container.
func startRelayLife(t *testing.T, cfg Config, point string) (dir string, in *insider, kill func()) {
	t.Helper()
	cfg.Detached = true
	cfg.Mounts = append(cfg.Mounts, insideMount(t))
	dir = t.TempDir()
	inR, inW := newPipe(t)
	outR, outW := newPipe(t)
	o := crashOrder{Life: "relay", Dir: dir, Cfg: cfg, Point: point}
	cmd, _ := o.command(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			cmd.Process.Kill()
			if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
				t.Errorf("the process ended with %v", err)
			}
		}
	}
	t.Cleanup(kill)
	inR.Close()
	outW.Close()
	in = newInsider(t, inW, outR)
	line, err := in.out.ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if in.c, err = Load(dir, "x"); err != nil {
		t.Fatal(err)
	}
	return dir, in, kill
}

// destroyRelayLife has another process than the container's destroy it, and demands that nothing of it is left.
func destroyRelayLife(t *testing.T, dir string, c *Container) {
	t.Helper()
	state, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	if state.Status != StatusRunning {
		t.Errorf("the container has not lived on: %v", state.Status)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
	for deadline := time.Now().Add(30 * time.Second); state.Pid > 0; time.Sleep(time.Millisecond) {
		if now, err := startTime(state.Pid); err != nil || now != state.StartTime {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("process %d is left", state.Pid)
			break
		}
	}
}

// soonRefused demands that connections are refused, while the container lives on: a launcher that was at work has the sockets until it ends, too.
func soonRefused(t *testing.T, network, address string) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		conn, err := net.DialTimeout(network, address, 5*time.Second)
		if err == nil {
			conn.Close()
		}
		took := time.Since(begin)
		if errors.Is(err, unix.ECONNREFUSED) {
			t.Logf("%s is refused after %v", address, took)
			return
		}
		if took > 20*time.Second {
			t.Errorf("%s: %v after %v", address, err, took)
			return
		}
	}
}

// When who carries a container's connections is killed, they end, and new ones are refused at once. The container lives on.
func TestRelayCallerKilled(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		for _, address := range []string{server4 + ":80", "[" + server6 + "]:80"} {
			serve(t, servers, address, func(c *net.TCPConn) { // unlike io.Copy it keeps no pipes
				for buf := make([]byte, 100); ; {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:n])
				}
			})
		}
		t.Run("egress", func(t *testing.T) { killEgress(t, "") })
		t.Run("egress, started by another", func(t *testing.T) { killEgress(t, "only create") })
		t.Run("ports", killPorts)
		t.Run("ports and egress", killBoth)
	})
}

// killedConfig allows what the servers have.
func killedConfig(t *testing.T) Config {
	cfg := egressConfig(t)
	cfg.Network.EgressAllow = []string{server4, "[" + server6 + "]:80"}
	return cfg
}

func killEgress(t *testing.T, point string) {
	leak.Check(t)
	dir, in, kill := startRelayLife(t, killedConfig(t), point)
	if point != "" {
		if err := in.c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, host := range map[string]string{"four": server4, "six": "[" + server6 + "]"} {
		if got := in.do("dial %s tcp %s:80", name, host); !strings.HasPrefix(got, "ok ") {
			t.Fatal(got)
		}
		in.want("ok hello", "say %s hello", name)
	}
	in.want("ECONNREFUSED", "dial a tcp %s:81", "["+server6+"]")
	kill()
	for _, name := range []string{"four", "six"} {
		if got := in.do("read %s", name); !strings.HasPrefix(got, "EOF") && !strings.HasPrefix(got, "ECONNRESET") {
			t.Errorf("a connection that was there: %q", got)
		}
	}
	for _, host := range []string{server4, "[" + server6 + "]", "127.0.0.11"} {
		for _, port := range []int{80, 53} {
			in.want("ECONNREFUSED", "dial a tcp %s:%d", host, port)
		}
	}
	for _, address := range []string{server4 + ":80", server4 + ":53", "127.0.0.11:53", "[" + server6 + "]:80"} {
		in.do("dial u udp %s", address)
		begin := time.Now()
		if got := in.do("say u hello"); strings.HasPrefix(got, "ok") || time.Since(begin) > 15*time.Second { // it gives up after 20
			t.Errorf("a packet to %s: %q after %v", address, got, time.Since(begin))
		}
	}
	destroyRelayLife(t, dir, in.c)
}

// killedPorts publishes one port of each kind.
func killedPorts(t *testing.T, cfg *Config) (socket string) {
	socket = filepath.Join(t.TempDir(), "socket")
	cfg.StopTimeout = -1
	cfg.Network.PortMappings = []PortMapping{
		{ContainerPort: 80}, {HostIP: netip.MustParseAddr("127.0.0.1"), ContainerPort: 80}, {HostSocket: socket, ContainerPort: 80}}
	return socket
}

func killPorts(t *testing.T) {
	leak.Check(t)
	cfg := publishConfig(t, NetworkModeNone)
	socket := killedPorts(t, &cfg)
	dir, in, kill := startRelayLife(t, cfg, "")
	tellPeers(t, in.c, "tcp", ":80")
	ports := published(t, in.c)
	addresses := [][2]string{{"tcp", at4(ports[0].HostPort)}, {"tcp", fmt.Sprintf("[::1]:%d", ports[0].HostPort)}, {"tcp", at4(ports[1].HostPort)}, {"unix", socket}}
	for _, a := range addresses {
		if got := ask(t, "", a[0], a[1]); !strings.HasPrefix(got, "hello from ") {
			t.Errorf("%s: %q", a, got)
		}
	}
	there, err := net.Dial("tcp", at4(ports[0].HostPort))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	kill()
	there.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := there.Read(make([]byte, 10)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection that was there: %d bytes, %v", n, err)
	}
	for _, a := range addresses {
		soonRefused(t, a[0], a[1])
	}
	destroyRelayLife(t, dir, in.c)

	// The ports can be had again, and nothing is left of the socket.
	if left, err := os.ReadDir(filepath.Dir(socket)); len(left) > 0 || err != nil {
		t.Errorf("left beside the socket: %v, %v", left, err)
	}
	cfg.Network.PortMappings[0].HostPort, cfg.Network.PortMappings[1].HostPort = ports[0].HostPort, ports[1].HostPort
	c := execSleeper(t, cfg)
	tellPeers(t, c, "tcp", ":80")
	for _, a := range addresses {
		if got := ask(t, "", a[0], a[1]); !strings.HasPrefix(got, "hello from ") {
			t.Errorf("%s, again: %q", a, got)
		}
	}
}

// Both ways at once.
func killBoth(t *testing.T) {
	leak.Check(t)
	cfg := killedConfig(t)
	socket := killedPorts(t, &cfg)
	dir, in, kill := startRelayLife(t, cfg, "")
	tellPeers(t, in.c, "tcp", ":80")
	port := at4(published(t, in.c)[0].HostPort)
	if got := ask(t, "", "tcp", port); !strings.HasPrefix(got, "hello from ") {
		t.Error(got)
	}
	if got := in.do("dial a tcp %s:80", server4); !strings.HasPrefix(got, "ok ") {
		t.Error(got)
	}
	kill()
	in.want("ECONNREFUSED", "dial b tcp %s:80", server4)
	soonRefused(t, "tcp", port)
	soonRefused(t, "unix", socket)
	destroyRelayLife(t, dir, in.c)
	if left, err := os.ReadDir(filepath.Dir(socket)); len(left) > 0 || err != nil {
		t.Errorf("left beside the socket: %v, %v", left, err)
	}
}
