//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file connects containers to bridges. "The host" is a network namespace that each test makes for itself.

// inHostNetwork runs a test in a network namespace of its own, in which it may do as it likes.
func inHostNetwork(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	inNamespaces(t, func(t *testing.T) {
		testenv.Need(t, testenv.Program("ip", "iproute2"))
		netIP(t, "link set lo up")
		leak.Check(t)
		f(t)
	}, "-m", "-n")
}

// netIP runs ip(8).
func netIP(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command(testenv.LookPath("ip"), strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// netConfig is a configuration with a bridge, and what removes that at the end.
func netConfig(t testing.TB) Config {
	t.Helper()
	cfg, _ := lifeConfig(t)
	dir := filepath.Join(t.TempDir(), "networks")
	cfg.Capabilities = netCapabilities()
	cfg.Network = &NetworkConfig{Mode: NetworkModeBridge, StateDir: dir}
	netRemoveBridges(t, dir)
	return cfg
}

// netCapabilities are the default, and what ping needs.
func netCapabilities() *Capabilities {
	caps := DefaultCapabilitiesConfig()
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
		*set = append(slices.Clone(*set), "CAP_NET_RAW")
	}
	return caps
}

// netRemoveBridges removes all bridges at the end of the test, and sees to it that the store is empty then.
func netRemoveBridges(t testing.TB, dir string) {
	t.Cleanup(func() {
		all, err := Bridges(dir)
		if err != nil {
			t.Error(err)
		}
		for _, b := range all {
			if err := RemoveBridge(context.Background(), dir, b.Name); err != nil {
				t.Error(err)
			}
		}
		netNothing(t, dir)
		for _, sub := range []string{"pools", "names"} {
			if left, _ := os.ReadDir(filepath.Join(dir, sub)); len(left) > 0 {
				t.Errorf("left in %s: %v", sub, left)
			}
		}
	})
}

// netNothing demands that no container is connected.
func netNothing(t testing.TB, dir string) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if isEndpointKey(l.Name) {
			t.Errorf("left: the device %s", l.Name)
		}
	}
	left, _ := os.ReadDir(filepath.Join(dir, "endpoints"))
	leases, _ := filepath.Glob(filepath.Join(dir, "pools", "*", "*.*"))
	more, _ := filepath.Glob(filepath.Join(dir, "pools", "*", "*:*"))
	if leases = append(leases, more...); len(left) > 0 || len(leases) > 0 {
		t.Errorf("left: %d endpoints and %d leases: %.500s, %.500s", len(left), len(leases), fmt.Sprint(left), fmt.Sprint(leases))
	}
}

// netKinds are containers with and without a user namespace of their own, as far as the caller can have them.
func netKinds(t testing.TB) map[string]Config {
	t.Helper()
	cfg := netConfig(t)
	kinds := map[string]Config{"user namespace": cfg}
	cfg.Detached = true
	kinds["detached"] = cfg
	if text, _ := os.ReadFile("/proc/self/uid_map"); strings.Contains(string(text), "4294967295") {
		cfg.Namespaces.NewUser, cfg.Detached = false, false
		kinds["root"] = cfg
	}
	return kinds
}

// netExec runs a script in a container, and returns what it prints.
func netExec(t testing.TB, c *Container, script string) string {
	t.Helper()
	var out strings.Builder
	p := lifeSh(script)
	p.Stdout, p.Stderr = &out, &out
	if err := c.Exec(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%s: %v: %s", script, err, &out)
	}
	return out.String()
}

// netState is the network of a running container.
func netState(t testing.TB, c *Container) *NetworkState {
	t.Helper()
	st, err := c.State()
	if err != nil || st.Network == nil {
		t.Fatalf("%+v, %v", st, err)
	}
	return st.Network
}

// Containers have addresses, reach the bridge and each other, and nothing is left of them.
func TestBridge(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		for name, cfg := range netKinds(t) {
			t.Run(name, func(t *testing.T) {
				a := lifeStart(t, cfg, lifeSh("sleep 1000"))
				b := lifeStart(t, cfg, lifeSh("sleep 1000"))
				sa, sb := netState(t, a), netState(t, b)
				if len(sa.Addresses) != 2 || len(sa.Gateways) != 2 || sa.MTU != 1500 || sa.Interface != "eth0" || !isEndpointKey(sa.HostInterface) {
					t.Errorf("%+v", sa)
				}
				for i, g := range sa.Gateways {
					netExec(t, a, "ping -c 1 -W 20 "+g.String())
					netExec(t, a, "ping -c 1 -W 20 "+sb.Addresses[i].Addr().String())
					netExec(t, b, "ping -c 1 -W 20 "+sa.Addresses[i].Addr().String())
				}
				links := netExec(t, a, "ip addr; ip route; ip -6 route")
				for _, want := range []string{sa.MAC, sa.Addresses[0].String(), sa.Addresses[1].String(), "default via " + sa.Gateways[0].String()} {
					if !strings.Contains(links, want) {
						t.Errorf("no %s in %s", want, links)
					}
				}
				if strings.Contains(links, "tentative") {
					t.Error(links)
				}
				for _, p := range []string{"accept_ra", "autoconf", "accept_redirects"} {
					if got := netExec(t, a, "cat /proc/sys/net/ipv6/conf/eth0/"+p); got != "0\n" {
						t.Errorf("%s is %s", p, got)
					}
				}
				for _, c := range []*Container{a, b} {
					if err := c.Destroy(); err != nil {
						t.Error(err)
					}
				}
				netNothing(t, sa.StateDir)
			})
		}
	})
}

// A container that ends has no network any more, though nobody has destroyed it.
func TestBridgeEnds(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		c := lifeStart(t, cfg, lifeSh("exit 0"))
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		netNothing(t, cfg.Network.StateDir)
		if st, err := c.State(); err != nil || st.Network != nil {
			t.Errorf("%+v, %v", st.Network, err)
		}
	})
}

// What can be asked of the device is what it gets.
func TestBridgeAsked(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		n := cfg.Network
		br, err := EnsureBridge(context.Background(), BridgeConfig{Name: "asked0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.254/24")}, MTU: 1400, StateDir: n.StateDir})
		if err != nil {
			t.Fatal(err)
		}
		if br.Gateways[0].String() != "10.9.0.254" || br.MAC != "02:42:0a:09:00:fe" {
			t.Errorf("%+v", br)
		}
		n.Bridge, n.Interface, n.MAC, n.MTU = "asked0", "net7", "02:00:00:00:00:77", 1300
		n.IPAddresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.77/24"), netip.MustParsePrefix("10.9.0.78/24")}
		n.Gateways = []netip.Addr{netip.MustParseAddr("10.9.0.3")}
		n.Routes = []Route{
			{Destination: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("10.9.0.9"), Metric: 7, Source: netip.MustParseAddr("10.9.0.78")},
			{Destination: netip.MustParsePrefix("198.51.100.0/24")},
			{Destination: netip.MustParsePrefix("203.0.113.0/24"), Gateway: netip.MustParseAddr("172.20.0.1")},
		}
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		got := netExec(t, c, "ip addr show net7; ip route")
		for _, want := range []string{
			"mtu 1300", "02:00:00:00:00:77", "10.9.0.77/24", "10.9.0.78/24", "default via 10.9.0.3 dev net7", "192.0.2.0/24 via 10.9.0.9 dev net7  src 10.9.0.78  metric 7",
			"198.51.100.0/24 dev net7 scope link", "203.0.113.0/24 via 172.20.0.1 dev net7",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in %s", want, got)
			}
		}
		if strings.Contains(got, "inet6") {
			t.Errorf("IPv6 on a bridge without: %s", got)
		}
		second := lifeNew(t, cfg)
		if err := second.Run(context.Background(), lifeSh("sleep 1000")); !errors.Is(err, ErrAddressInUse) {
			t.Errorf("an address twice: %v", err)
		}
		n.IPAddresses = []netip.Prefix{netip.MustParsePrefix("10.8.0.77/24")}
		third := lifeNew(t, cfg)
		if err := third.Run(context.Background(), lifeSh("sleep 1000")); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("an address of elsewhere: %v", err)
		}
	})
}

// A start that fails leaves nothing.
func TestBridgeFailedStart(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		c := lifeNew(t, cfg)
		if err := c.Run(context.Background(), &Process{Args: []string{"no such program"}}); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		netNothing(t, cfg.Network.StateDir)
		cfg.Network.Routes = []Route{{Destination: netip.MustParsePrefix("192.0.2.0/24"), Source: netip.MustParseAddr("203.0.113.9")}}
		for range 3 {
			var e *Error
			if err := lifeNew(t, cfg).Run(context.Background(), lifeSh("sleep 1000")); !errors.As(err, &e) || e.Op != "set up network device" {
				t.Error(err)
			}
			netNothing(t, cfg.Network.StateDir)
		}
		canceled, cancel := context.WithCancel(context.Background())
		cancel()
		if err := lifeNew(t, cfg).Run(canceled, lifeSh("sleep 1000")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// EnsureBridge makes what it is asked for, once, and repairs it.
func TestEnsureBridge(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		for _, family := range []string{"ipv4", "ipv6"} { // a new namespace has what the machine has
			if err := setDeviceParameter(family, "all", "forwarding", "0"); err != nil {
				t.Fatal(err)
			}
		}
		netIP(t, "link add up0 type veth peer name up1")
		netIP(t, "link set up1 up")
		netIP(t, "link set up0 up mtu 1480")
		netIP(t, "addr add 10.88.0.7/23 dev up0")
		netIP(t, "route add default via 10.88.0.1 dev up0")
		first, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if first.Name != DefaultBridgeName || first.MTU != 1480 || first.Subnets[0].String() != "10.88.2.0/24" || first.Gateways[0].String() != "10.88.2.1" {
			t.Errorf("%+v", first)
		}
		if !parameterIs("ipv4", "up0", "forwarding", "1") || !parameterIs("ipv4", DefaultBridgeName, "forwarding", "1") || parameterIs("ipv4", "all", "forwarding", "1") {
			t.Errorf("forwarding: %+v", first.Forwarding)
		}
		second, err := EnsureBridge(ctx, BridgeConfig{Name: "other0", StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if second.Subnets[0].String() != "10.88.3.0/24" || second.Subnets[1] == first.Subnets[1] {
			t.Errorf("%+v", second)
		}
		for _, cfg := range []BridgeConfig{
			{MTU: 1400}, {MAC: "02:00:00:00:00:01"}, {Internal: true}, {Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}},
			{Name: "new0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.2.128/25")}}, {Name: "new0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/23")}},
			{Name: "not/0"}, {Name: "ct0123456789a"}, {Name: "sixteen-bytes-16"}, {Name: "new0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/32")}},
			{Name: "new0", MTU: 1000}, {Name: "new0", MAC: "01:00:00:00:00:01"},
		} {
			cfg.StateDir = dir
			if b, err := EnsureBridge(ctx, cfg); !errors.Is(err, ErrInvalidConfig) {
				t.Errorf("%+v: %+v, %v", cfg, b, err)
			}
		}
		if _, err := EnsureBridge(ctx, BridgeConfig{Name: "up0", StateDir: dir}); !errors.Is(err, unix.EEXIST) {
			t.Errorf("a device of others: %v", err)
		}
		netIP(t, "link set container0 down")
		netIP(t, "addr del 10.88.2.1/24 dev container0")
		again, err := EnsureBridge(ctx, BridgeConfig{Subnets: []netip.Prefix{first.Subnets[0], first.Subnets[1]}, StateDir: dir})
		if err != nil || again.MAC != first.MAC {
			t.Errorf("%+v, %v", again, err)
		}
		if got := netIP(t, "addr show container0"); !strings.Contains(got, "10.88.2.1/24") || !strings.Contains(got, ",UP") {
			t.Error(got)
		}
		netIP(t, "link del container0")
		if again, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir}); err != nil || again.MAC != first.MAC {
			t.Errorf("%+v, %v", again, err)
		}
		netIP(t, "link del container0")
		netIP(t, "link add container0 type bridge")
		if b, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir}); !errors.Is(err, unix.EEXIST) {
			t.Errorf("another bridge of the name: %+v, %v", b, err)
		}
		if err := RemoveBridge(ctx, dir, ""); err != nil {
			t.Error(err)
		}
		netIP(t, "link show container0") // it was not ours
		if !parameterIs("ipv4", "up0", "forwarding", "1") {
			t.Error("the other bridge needs forwarding")
		}
		if err := RemoveBridge(ctx, dir, "other0"); err != nil {
			t.Error(err)
		}
		if !parameterIs("ipv4", "up0", "forwarding", "0") {
			t.Error("forwarding has stayed on")
		}
		if err := RemoveBridge(ctx, dir, "other0"); err != nil {
			t.Error(err)
		}
		netIP(t, "addr add 10.77.0.1/24 dev container0")
		netIP(t, "link set container0 up")
		adopted, err := EnsureBridge(ctx, BridgeConfig{Adopt: true, StateDir: dir})
		if err != nil || adopted.Gateways[0].String() != "10.77.0.1" {
			t.Errorf("%+v, %v", adopted, err)
		}
		if err := RemoveBridge(ctx, dir, ""); err != nil {
			t.Error(err)
		}
		netIP(t, "link del container0")
		netIP(t, "link del up0")
	})
}

// Of many that need a bridge at the same time one makes it.
func TestEnsureBridgeTogether(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		results := make(chan *Bridge)
		for i := range 32 {
			go func() {
				b, err := EnsureBridge(context.Background(), BridgeConfig{Name: "br" + itoa(i%4), StateDir: dir})
				if err != nil {
					t.Error(err)
				}
				results <- b
			}()
		}
		subnets := make(map[string]string)
		for range 32 {
			if b := <-results; b != nil {
				for _, p := range b.Subnets {
					if name := subnets[p.String()]; name != "" && name != b.Name {
						t.Errorf("%v is of %s and %s", p, name, b.Name)
					}
					subnets[p.String()] = b.Name
				}
			}
		}
		if len(subnets) != 8 {
			t.Error(subnets)
		}
	})
}

// RemoveBridge does not take the bridge from under a container.
func TestRemoveBridgeBusy(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		if err := RemoveBridge(context.Background(), cfg.Network.StateDir, ""); !errors.Is(err, unix.EBUSY) {
			t.Error(err)
		}
		netExec(t, c, "ping -c 1 -W 20 "+netState(t, c).Gateways[0].String())
	})
}

// netPeer connects a test's own namespace, made by a process that sleeps.
func netPeer(t testing.TB) int {
	t.Helper()
	testenv.Need(t, testenv.Program("unshare", "util-linux"))
	cmd := exec.Command(testenv.LookPath("unshare"), "-n", "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		f, err := os.Open(namespacePath(cmd.Process.Pid, NetworkNamespace))
		if err == nil {
			own, oerr := isOwnNetwork(f)
			f.Close()
			if oerr == nil && !own {
				return cmd.Process.Pid
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no namespace")
		}
	}
}

// A process that is in no container of ours can be connected as well.
func TestSetupContainerNetwork(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		ctx := context.Background()
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		pid := netPeer(t)
		n, err := SetupContainerNetwork(ctx, pid, NetworkConfig{Mode: NetworkModeBridge, StateDir: dir, Interface: "net0"})
		if err != nil {
			t.Fatal(err)
		}
		err = JoinNetworkNamespace(pid, func() error {
			return exec.Command("ping", "-c", "1", "-W", "20", n.State().Gateways[0].String()).Run()
		})
		if err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := n.Cleanup(); err != nil {
				t.Error(err)
			}
		}
		netNothing(t, dir)
		if _, err := SetupContainerNetwork(ctx, os.Getpid(), NetworkConfig{}); err == nil {
			t.Error("it has connected itself")
		}
		if _, err := SetupContainerNetwork(ctx, pid, NetworkConfig{Mode: NetworkModeHost}); !errors.Is(err, ErrInvalidConfig) {
			t.Error(err)
		}
	})
}
