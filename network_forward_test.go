//go:build linux

package container

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"github.com/vishvananda/netlink"
)

// This file shows whom the host forwards packets for: containers, and nobody else.

// netHost makes another host: it has an address of a network that the test's host has another of, and its default route by that.
func netHost(t *testing.T, device, network string) (run func(args string) error) {
	t.Helper()
	testenv.Need(t, testenv.Program("nsenter", "util-linux"), testenv.Program("ping", "iputils-ping"))
	pid := itoa(netPeer(t))
	run = func(args string) error {
		return exec.Command(testenv.LookPath("nsenter"), append([]string{"-t", pid, "-n"}, strings.Fields(args)...)...).Run()
	}
	netIP(t, "link add "+device+" type veth peer name eth0 netns "+pid)
	netIP(t, "addr add "+network+".1/24 dev "+device)
	netIP(t, "link set "+device+" up")
	for _, args := range []string{"addr add " + network + ".2/24 dev eth0", "link set eth0 up", "link set lo up", "route add default via " + network + ".1"} {
		if err := run("ip " + args); err != nil {
			t.Fatal(args, err)
		}
	}
	return run
}

// forwarded tells whether a host reaches an address by way of the test's host. If it is to, one lost packet is no answer.
func forwarded(run func(args string) error, to string, want bool) bool {
	for deadline := time.Now().Add(30 * time.Second); ; {
		if got := run("ping -c 1 -W 1 "+to) == nil; got || !want || time.Now().After(deadline) {
			return got
		}
	}
}

// A host that is no router becomes one for its containers only, and is none when the bridge is gone.
func TestForwardingForContainersOnly(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		if err := setDeviceParameter("ipv4", "all", "forwarding", "0"); err != nil {
			t.Fatal(err)
		}
		cfg := netConfig(t)
		one := netHost(t, "net1", "192.0.2")
		two := netHost(t, "net2", "198.51.100")
		pings := func(want bool) bool {
			return forwarded(one, "198.51.100.2", want) || forwarded(two, "192.0.2.2", want)
		}
		if pings(false) {
			t.Fatal("the host is a router before")
		}
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		netExec(t, c, "ping -c 1 -W 20 192.0.2.2")
		netExec(t, c, "ping -c 1 -W 20 198.51.100.2")
		if pings(false) {
			t.Error("the host has become a router")
		}
		// It is one when it is told to be.
		if err := EnsureForwardingEnabled(context.Background()); err != nil {
			t.Error(err)
		}
		b, err := EnsureBridge(context.Background(), BridgeConfig{StateDir: cfg.Network.StateDir})
		if err != nil || len(b.Forwarding) > 0 {
			t.Errorf("%+v, %v", b, err)
		}
		if !pings(true) {
			t.Error("the host is no router, though it was told to be one")
		}
		netExec(t, c, "ping -c 1 -W 20 198.51.100.2")
		netIP(t, "link del net1")
		netIP(t, "link del net2")
	})
}

// When somebody makes the host a router, or one no more, Reconcile and each start make rules and switches fit.
func TestForwardingHeals(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		if err := setDeviceParameter("ipv4", "all", "forwarding", "0"); err != nil {
			t.Fatal(err)
		}
		cfg := netConfig(t)
		dir := cfg.Network.StateDir
		one := netHost(t, "net1", "192.0.2")
		netHost(t, "net2", "198.51.100")
		defer netIP(t, "link del net2")
		defer netIP(t, "link del net1")
		// A second bridge has the same devices opened.
		other := BridgeConfig{StateDir: dir, Name: "other", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}}
		if _, err := EnsureBridge(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		heals := map[string]func() error{
			"Reconcile": func() error { return Reconcile(t.Context(), dir) },
			"a start": func() error {
				c := lifeNew(t, cfg)
				return errors.Join(c.Run(t.Context(), lifeSh("true")), c.Destroy())
			},
		}
		for name, heal := range heals {
			t.Run(name, func(t *testing.T) {
				for _, router := range []bool{true, false, true, false} {
					value := "0"
					if router {
						value = "1"
					}
					if err := setDeviceParameter("ipv4", "all", "forwarding", value); err != nil {
						t.Fatal(err)
					}
					if err := heal(); err != nil {
						t.Fatal(err)
					}
					if pings := forwarded(one, "198.51.100.2", router); pings != router {
						t.Errorf("ip_forward is %s; others are forwarded: %v", value, pings)
					}
					netExec(t, c, "ping -c 1 -W 20 192.0.2.2")
					netExec(t, c, "ping -c 1 -W 20 198.51.100.2")
				}
			})
		}
		if err := RemoveBridge(t.Context(), dir, "other"); err != nil {
			t.Error(err)
		}
	})
}

// What a call has found needless that could not go on is removed by the next one.
func TestForwardingHealLocked(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		forwardAll(t, "0")
		dir := netConfig(t).Network.StateDir
		one := netHost(t, "net1", "192.0.2")
		netHost(t, "net2", "198.51.100")
		defer netIP(t, "link del net2")
		defer netIP(t, "link del net1")
		b, err := EnsureBridge(t.Context(), BridgeConfig{StateDir: dir})
		if err != nil || !slices.Contains(b.Forwarding, "ipv4/net1") {
			t.Fatalf("%+v, %v", b, err)
		}
		forwardAll(t, "1")
		path := filepath.Join(b.StateDir, "nat.lock")
		pid, end := holdLock(t, path)
		ctx, cancel := cancelLocked(t, path)
		_, err = EnsureBridge(ctx, BridgeConfig{StateDir: dir})
		cancel()
		wantLocked(t, err, path, pid)
		end()
		if _, err := EnsureBridge(t.Context(), BridgeConfig{StateDir: dir}); err != nil {
			t.Error(err)
		}
		if !forwarded(one, "198.51.100.2", true) {
			t.Error("the host is no router, though it was told to be one")
		}
	})
}

// A record of a bridge that is not there keeps nobody from being a router, and makes nobody one.
func TestForwardingOfLostBridge(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		forwardAll(t, "0")
		dir := netConfig(t).Network.StateDir
		one := netHost(t, "net1", "192.0.2")
		netHost(t, "net2", "198.51.100")
		defer netIP(t, "link del net2")
		defer netIP(t, "link del net1")
		b, err := EnsureBridge(t.Context(), BridgeConfig{StateDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		netIP(t, "link del "+b.Name)
		for _, device := range []string{"net1", "net2"} { // as after a reboot
			if err := setDeviceParameter("ipv4", device, "forwarding", "0"); err != nil {
				t.Fatal(err)
			}
		}
		if err := Reconcile(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if !parameterIs("ipv4", "net1", "forwarding", "0") {
			t.Error("net1 forwards for a bridge that is not there")
		}
		forwardAll(t, "1")
		if err := Reconcile(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		if !forwarded(one, "198.51.100.2", true) {
			t.Error("the host is no router, though it was told to be one")
		}
	})
}

// What has been switched on for a bridge while RemoveBridge has waited is switched off by it.
func TestRemoveBridgeMeanwhileHealed(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		forwardAll(t, "1")
		dir := netConfig(t).Network.StateDir
		netHost(t, "net1", "192.0.2")
		defer netIP(t, "link del net1")
		b, err := EnsureBridge(t.Context(), BridgeConfig{StateDir: dir})
		if err != nil || slices.Contains(b.Forwarding, "ipv4/net1") {
			t.Fatalf("%+v, %v", b, err)
		}
		s, err := openNetworkStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.lockBridge(allBridges)
		if err != nil {
			t.Fatal(err)
		}
		before, waits, removed := atLocked, make(chan bool, 1), make(chan error, 1)
		atLocked = func(path string) {
			if path == all.Name() {
				select {
				case waits <- true:
				default:
				}
			}
		}
		go func() { removed <- RemoveBridge(t.Context(), dir, b.Name) }()
		select {
		case <-waits:
		case <-time.After(20 * time.Second):
			t.Error("RemoveBridge does not wait")
		}
		forwardAll(t, "0")
		err = withHostNetlink(func(h *netlink.Handle) error { // as Reconcile does it
			there, err := s.healForwarding(h)
			if err == nil && len(there) == 1 {
				err = errors.Join(natAnew(s), there[0].forward())
			}
			return err
		})
		if err != nil || !parameterIs("ipv4", "net1", "forwarding", "1") {
			t.Errorf("it has not been switched on: %v", err)
		}
		all.Close()
		if err := <-removed; err != nil {
			t.Error(err)
		}
		atLocked = before
		if !parameterIs("ipv4", "net1", "forwarding", "0") {
			t.Error("net1 forwards for a bridge that has been removed")
		}
	})
}

// forwardAll makes the host a router, or none.
func forwardAll(t testing.TB, value string) {
	t.Helper()
	if err := setDeviceParameter("ipv4", "all", "forwarding", value); err != nil {
		t.Fatal(err)
	}
}
