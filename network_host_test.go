//go:build linux

package container

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file holds what a review has found about the host's side of networks. "The host" is a network namespace of the test's.

func TestNetworkStoreSpelling(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		top := t.TempDir()
		dir := filepath.Join(top, "networks")
		netRemoveBridges(t, dir)
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(top, link); err != nil {
			t.Fatal(err)
		}
		if _, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir}); err != nil {
			t.Fatal(err)
		}
		n, err := SetupContainerNetwork(ctx, netPeer(t), NetworkConfig{Mode: NetworkModeBridge, StateDir: filepath.Join(link, "networks"), PortMappings: []PortMapping{{HostPort: 8080, ContainerPort: 80}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := Reconcile(ctx, filepath.Join(link, "networks")); err != nil {
			t.Error(err)
		}
		if got := strings.Count(rulesOf(t), "table inet"); got != 1 {
			t.Errorf("%d tables", got)
		}
		if err := n.Cleanup(); err != nil {
			t.Error(err)
		}
		if r := rulesOf(t); strings.Contains(r, "8080") {
			t.Error("the port is still forwarded")
		}
	})
}

func TestSetupContainerNetworkChecks(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		pid := netPeer(t)
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		for name, n := range map[string]NetworkConfig{
			"unused":     {Mode: NetworkModeNone, PortMappings: []PortMapping{{HostPort: 8080, ContainerPort: 80}}},
			"protocol":   {Mode: NetworkModeBridge, PortMappings: []PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "TCP"}}},
			"socket":     {Mode: NetworkModeBridge, PortMappings: []PortMapping{{HostSocket: "/run/x", ContainerPort: 80}}},
			"nameserver": {Mode: NetworkModeBridge, NameServer: true},
			"range":      {Mode: NetworkModeBridge, PortMappings: []PortMapping{{HostPort: 8080, ContainerPort: 65000, Count: 1000}}},
			"address":    {Mode: NetworkModeBridge, Gateways: []netip.Addr{{}}},
		} {
			if n.Mode == NetworkModeBridge {
				n.StateDir = dir
			}
			got, err := SetupContainerNetwork(context.Background(), pid, n)
			if !errors.Is(err, ErrInvalidConfig) {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil {
				got.Cleanup()
			}
		}
	})
}

func TestSetupContainerNetworkMacvlan(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		netIP(t, "link add up0 type veth peer name up1")
		defer netIP(t, "link del up0")
		netIP(t, "link set up0 up")
		pid := netPeer(t)
		n, err := SetupContainerNetwork(context.Background(), pid, NetworkConfig{Mode: NetworkModeMacvlan, Parent: "up0", StateDir: filepath.Join(t.TempDir(), "networks"),
			IPAddresses: []netip.Prefix{netip.MustParsePrefix("10.6.0.2/24")}})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Cleanup(); err != nil {
			t.Error(err)
		}
		err = JoinNetworkNamespace(pid, func() error {
			out, err := runText("ip", "addr")
			if strings.Contains(out, "10.6.0.2") {
				t.Errorf("the address is free, and still in use: %s", out)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestRemoveBridgeAgainstAdd(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		if _, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir, Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		at = func(point string) {
			switch point {
			case "network: endpoint":
				if err := RemoveBridge(ctx, dir, ""); !errors.Is(err, unix.EBUSY) {
					t.Error(err)
				}
			case "network: recorded":
				once.Do(func() {
					if err := RemoveBridge(ctx, dir, ""); err != nil {
						t.Error(err)
					}
					if _, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir, Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}, Internal: true}); err != nil {
						t.Error(err)
					}
				})
			}
		}
		defer func() { at = func(string) {} }()
		n, err := SetupContainerNetwork(ctx, netPeer(t), NetworkConfig{Mode: NetworkModeBridge, StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Cleanup()
		if st := n.State(); !netip.MustParsePrefix("10.2.0.0/24").Contains(st.Addresses[0].Addr()) {
			t.Errorf("it has %v on a bridge with 10.2.0.0/24", st.Addresses)
		}
	})
}

func TestNamesOfEnded(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		cfg.Detached = true
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		st := netState(t, c)
		s, err := openNetworkStore(st.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		state, _ := c.State()
		if got, err := s.lookup(st.Bridge, c.ID()); err != nil || len(got) != 2 {
			t.Fatal(got, err)
		}
		// Nobody takes the network back: as after the caller has been killed.
		lock, err := c.record.lock()
		if err != nil {
			t.Fatal(err)
		}
		unix.Kill(state.Pid, unix.SIGKILL)
		defer lock.Close()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			got, err := s.lookup(st.Bridge, c.ID())
			if err == nil && len(got) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the name of a container without a process is that of %v, %v", got, err)
			}
		}
	})
}

func TestAdoptKilled(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		netIP(t, "link add theirs type bridge")
		defer netIP(t, "link del theirs")
		netIP(t, "addr add 10.3.0.1/24 dev theirs")
		netIP(t, "link set theirs up")
		if _, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir}); err != nil {
			t.Fatal(err)
		}
		func() {
			at = func(point string) {
				if point == "bridge: recorded" {
					panic("killed")
				}
			}
			defer func() { recover(); at = func(string) {} }()
			EnsureBridge(ctx, BridgeConfig{StateDir: dir, Name: "theirs", Adopt: true})
		}()
		n, err := SetupContainerNetwork(ctx, netPeer(t), NetworkConfig{Mode: NetworkModeBridge, Bridge: "theirs", StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Cleanup()
		if r := rulesOf(t); !strings.Contains(r, `"theirs" . "theirs"`) {
			t.Error("the bridge is not separate from others")
		}
	})
}

func TestForwardingLater(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		for _, family := range []string{"ipv4", "ipv6"} {
			if err := setDeviceParameter(family, "all", "forwarding", "0"); err != nil {
				t.Fatal(err)
			}
		}
		netIP(t, "link add up0 type veth peer name up1")
		defer netIP(t, "link del up0")
		netIP(t, "link set up1 up")
		netIP(t, "link set up0 up")
		netIP(t, "addr add 192.0.2.1/24 dev up0")
		b, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir})
		if err != nil || !slices.Contains(b.Forwarding, "ipv4/up0") {
			t.Fatal(b, err)
		}
		if err := setDeviceParameter("ipv4", "all", "forwarding", "1"); err != nil { // as other engines do
			t.Fatal(err)
		}
		n, err := SetupContainerNetwork(ctx, netPeer(t), NetworkConfig{Mode: NetworkModeBridge, StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Cleanup()
		_, after, _ := strings.Cut(rulesOf(t), "set opened4")
		after, _, _ = strings.Cut(after, "set opened6")
		if strings.Contains(after, "up0") {
			t.Error("what comes in by up0 for others is dropped:", after)
		}
	})
}

func TestPortOfOtherFamily(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		if _, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir, Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}); err != nil {
			t.Fatal(err)
		}
		netIP(t, "addr add 2001:db8::1/64 dev lo nodad")
		n, err := SetupContainerNetwork(ctx, netPeer(t), NetworkConfig{Mode: NetworkModeBridge, StateDir: dir, PortMappings: []PortMapping{{HostIP: netip.MustParseAddr("2001:db8::1"), HostPort: 8080, ContainerPort: 80}}})
		if err == nil {
			t.Errorf("%v, and nothing is published: %v", n.State().PortMappings, strings.Contains(rulesOf(t), "8080"))
			n.Cleanup()
		}
	})
}

func TestPortForwarderAgain(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		if _, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir, Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}); err != nil {
			t.Fatal(err)
		}
		f, err := NewPortForwarder(dir, "", netip.MustParseAddr("10.1.0.9"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Cleanup()
		if _, err := f.AddMapping(PortMapping{HostPort: 8080, ContainerPort: 80}); err != nil {
			t.Fatal(err)
		}
		l := listenText(t, "127.0.0.1:8080")
		defer l.Close()
		if _, err := f.AddMapping(PortMapping{HostPort: 8081, ContainerPort: 80}); err != nil {
			t.Error(err)
		}
		g, err := NewPortForwarder(dir, "", netip.MustParseAddr("10.1.0.10"))
		if err != nil {
			t.Fatal(err)
		}
		f.Cleanup()
		if err := RemoveBridge(ctx, dir, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := g.AddMapping(PortMapping{HostPort: 8082, ContainerPort: 80}); err == nil {
			t.Error("a port is forwarded to a bridge that is gone")
		}
		g.Cleanup()
		if r := rulesOf(t); strings.Contains(r, "table") {
			t.Error("tables are left behind")
		}
	})
}

// A container does not get the hardware address of its bridge, which would take the frames.
func TestBridgeOwnMAC(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		b, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		n, err := SetupContainerNetwork(ctx, netPeer(t), NetworkConfig{Mode: NetworkModeBridge, StateDir: dir, MAC: strings.ToUpper(b.MAC)})
		if !errors.Is(err, ErrInvalidConfig) {
			t.Error(err)
		}
		if err == nil {
			n.Cleanup()
		}
	})
}

func rulesOf(t testing.TB) string {
	t.Helper()
	out, err := runText("nft", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func runText(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

func listenText(t testing.TB, addr string) net.Listener {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
