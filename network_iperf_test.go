//go:build linux

package container

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// This file has iperf3 send streams and packets, both ways, through each kind of port and out of containers. How fast is not asked: only whether what
// is sent arrives.

// iperfPort is that of the server, inside and outside: packets go to the port that the control connection goes to.
const iperfPort = 5201

// iperfReport is what there is in the client's report.
type iperfReport struct {
	Error string
	End   struct {
		Sum struct { // of packets
			Bytes, Packets int64
			Lost           int64 `json:"lost_packets"`
		}
		Sent     struct{ Bytes int64 } `json:"sum_sent"`
		Received struct{ Bytes int64 } `json:"sum_received"`
	}
}

// iperfMoves wants streams and packets to go to a server and to come from it. The client is run until the server has taken it: a server that has just
// started, or has not yet seen that a client has ended, refuses.
func iperfMoves(t *testing.T, what string, run func(args ...string) (string, error), address string) {
	t.Helper()
	for name, options := range map[string][]string{
		// What is on the way when the client has sent all is not counted: it must be less than all.
		"tcp": {"-w", "128K"}, "tcp in": {"-R"}, "tcp in of many": {"-R", "-P", "8"},
		"udp": {"-u", "-b", "200M", "-l", "1200"}, "udp in": {"-u", "-b", "200M", "-l", "1200", "-R"},
	} {
		amount := 2 << 20
		if name == "tcp" {
			amount = 32 << 20
		}
		if os.Getenv(longVar) != "" {
			amount *= 30
		}
		args := append([]string{"iperf3", "-J", "-c", address, "-p", fmt.Sprint(iperfPort), "-n", fmt.Sprint(amount), "--connect-timeout", "20000"}, options...)
		var report iperfReport
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			text, err := run(args...)
			report = iperfReport{}
			if jerr := json.Unmarshal([]byte(text), &report); jerr == nil && err == nil && report.Error == "" {
				break
			} else if time.Now().After(deadline) {
				t.Errorf("%s: %s to %s: %v, %v, %.2000s", what, name, address, err, jerr, text)
				return
			}
		}
		end := report.End
		if strings.HasPrefix(name, "udp") { // of which some may get lost
			if end.Sum.Bytes < int64(amount) || end.Sum.Packets == 0 || end.Sum.Lost >= end.Sum.Packets {
				t.Errorf("%s: %s to %s: %+v", what, name, address, end)
			}
			continue
		}
		if end.Received.Bytes == 0 || max(end.Sent.Bytes, end.Received.Bytes) < int64(amount) {
			t.Errorf("%s: %s to %s: %+v", what, name, address, end)
		}
	}
}

// iperfServer is a server in a container with both ports.
func iperfServer(t *testing.T, cfg Config) *Container {
	t.Helper()
	n := *cfg.Network
	cfg.Network = &n
	n.PortMappings = []PortMapping{{HostPort: iperfPort, ContainerPort: iperfPort}, {HostPort: iperfPort, ContainerPort: iperfPort, Protocol: "udp"}}
	realRoot(&cfg, t.TempDir())
	return lifeStart(t, cfg, &Process{Args: []string{testenv.LookPath("iperf3"), "-s", "-p", fmt.Sprint(iperfPort)}})
}

func needIperf(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay, testenv.Program("iperf3", "iperf3"))
}

// background runs a program in the namespace until end is called.
func (h *testHost) background(args ...string) (end func()) {
	h.t.Helper()
	cmd := exec.Command(testenv.LookPath(args[0]), args[1:]...)
	if err := h.do(cmd.Start); err != nil {
		h.t.Fatal(err)
	}
	return func() { cmd.Process.Kill(); cmd.Wait() }
}

// Through ports of a bridge, which the kernel translates, and ports that the caller's process carries.
func TestIperfPorts(t *testing.T) {
	needIperf(t)
	inNAT(t, func(t *testing.T, r *natRig) {
		leak.Check(t)
		bridged := netConfig(t)
		for _, mode := range []NetworkMode{NetworkModeBridge, NetworkModeEgress, NetworkModeNone} {
			cfg := bridged
			if mode != NetworkModeBridge {
				cfg = testConfig(t)
				cfg.Network = &NetworkConfig{Mode: mode}
			}
			c := iperfServer(t, cfg)
			what := "port of " + string(mode)
			iperfMoves(t, what, r.client.command, "192.0.2.1")
			iperfMoves(t, what, r.client.command, "2001:db8:1::1")
			iperfMoves(t, what, r.command, "127.0.0.1")
			if err := c.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Out of containers: by a bridge's translation, and by a policy.
func TestIperfOut(t *testing.T) {
	needIperf(t)
	inNAT(t, func(t *testing.T, r *natRig) {
		leak.Check(t)
		defer r.server.background("iperf3", "-s", "-p", fmt.Sprint(iperfPort))()
		bridged, judged := netConfig(t), egressConfig(t)
		judged.Network.Egress = allowEgress
		for _, cfg := range []Config{bridged, judged} {
			realRoot(&cfg, t.TempDir())
			c := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
			for _, to := range []string{"198.51.100.2", "2001:db8:2::2"} {
				iperfMoves(t, "out of "+string(cfg.Network.Mode), func(args ...string) (string, error) { return commandIn(c, args...) }, to)
			}
			if err := c.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
