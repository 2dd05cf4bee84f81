//go:build linux

package container

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
)

// This file has containers ask for hardware addresses that others have.

// No two containers on a bridge have the same hardware address, and none that of the bridge; who asks for one that is taken is told so before anything starts.
func TestMACInUse(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		with := func(mac string) Config {
			cfg, n := cfg, *cfg.Network
			n.MAC = mac
			cfg.Network = &n
			return cfg
		}
		refused := func(cfg Config) {
			t.Helper()
			before := at
			defer func() { at = before }()
			at = func(point string) {
				if point == "create: process" || point == "network: link" {
					t.Errorf("it has come to %q", point)
				}
			}
			c := lifeNew(t, cfg)
			if err := c.Run(context.Background(), lifeSh("true")); !errors.Is(err, ErrMACInUse) {
				t.Errorf("%s: %v", cfg.Network.MAC, err)
			} else {
				t.Log(err)
			}
			if err := c.Destroy(); err != nil {
				t.Error(err)
			}
		}
		b, err := EnsureBridge(t.Context(), BridgeConfig{StateDir: cfg.Network.StateDir, Subnets: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}})
		if err != nil {
			t.Fatal(err)
		}
		refused(with(strings.ToUpper(b.MAC)))
		const mac = "02:00:00:00:0a:01"
		first := lifeStart(t, with(mac), lifeSh("sleep 1000"))
		refused(with(mac))
		refused(with(strings.ToUpper(mac)))

		// One asks for the address that the next would have by its IP address.
		next := netip.MustParseAddr("10.9.0.100")
		lifeStart(t, with(hardwareAddr(next).String()), lifeSh("sleep 1000"))
		asks := with("")
		asks.Network.IPAddresses = []netip.Prefix{netip.PrefixFrom(next, 24)}
		derived := lifeStart(t, asks, lifeSh("sleep 1000"))
		st := netState(t, derived)
		if st.Addresses[0].Addr() != next || st.MAC == hardwareAddr(next).String() {
			t.Errorf("%+v", st)
		}
		refused(with(st.MAC)) // a chosen one is leased as well
		if got := netExec(t, derived, "ip link"); !strings.Contains(got, st.MAC) {
			t.Error(got)
		}
		netExec(t, derived, "ping -c 1 -W 30 "+netState(t, first).Addresses[0].Addr().String())

		// On another bridge it is free, and here when its container is gone.
		otherBridge := BridgeConfig{StateDir: cfg.Network.StateDir, Name: "other", Subnets: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/24")}}
		if _, err := EnsureBridge(t.Context(), otherBridge); err != nil {
			t.Fatal(err)
		}
		there := with(mac)
		there.Network.Bridge = "other"
		if err := lifeStart(t, there, lifeSh("sleep 1000")).Destroy(); err != nil {
			t.Error(err)
		}
		if err := first.Destroy(); err != nil {
			t.Error(err)
		}
		again := lifeStart(t, with(mac), lifeSh("sleep 1000"))
		if got := netState(t, again).MAC; got != mac {
			t.Error(got)
		}
		if err := RemoveBridge(t.Context(), cfg.Network.StateDir, "other"); err != nil {
			t.Error(err)
		}
	})
}

// The address of an endpoint that has died is collected; on the wire of a device they are leased, too.
func TestMACOfDead(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		netIP(t, "link add up0 type veth peer name up1")
		defer netIP(t, "link del up0")
		dir := filepath.Join(t.TempDir(), "networks")
		n := NetworkConfig{Mode: NetworkModeMacvlan, Parent: "up0", StateDir: dir, MAC: "02:00:00:00:0a:02"}
		a, err := SetupContainerNetwork(t.Context(), netPeer(t), n)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := SetupContainerNetwork(t.Context(), netPeer(t), n); !errors.Is(err, ErrMACInUse) {
			t.Errorf("%+v, %v", b, err)
		}
		// As a caller leaves it that is killed, and the process with it.
		s, err := openNetworkStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.endpoint(a.key)
		if err == nil {
			e.Process = processID{}
			err = errors.Join(a.removeMacvlan(), s.addEndpoint(e))
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := SetupContainerNetwork(t.Context(), netPeer(t), n)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.Cleanup(), b.Cleanup()); err != nil {
			t.Error(err)
		}
		netNothing(t, dir)
	})
}

// The address of a macvlan's parent is the host's, and with passthru the container's, as its state says.
func TestMACOfParent(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		netIP(t, "link add up0 address 02:00:00:00:0b:01 type veth peer name up1")
		netIP(t, "link set up0 up")
		defer netIP(t, "link del up0")
		const own = "02:00:00:00:0b:01"
		n := NetworkConfig{Mode: NetworkModeMacvlan, Parent: "up0", StateDir: filepath.Join(t.TempDir(), "networks"), MAC: strings.ToUpper(own)}
		if _, err := SetupContainerNetwork(t.Context(), netPeer(t), n); !errors.Is(err, ErrMACInUse) {
			t.Errorf("the parent's: %v", err)
		}
		n.MacvlanMode, n.MAC = "passthru", "02:00:00:00:0b:02"
		var field *FieldError
		if _, err := SetupContainerNetwork(t.Context(), netPeer(t), n); !errors.As(err, &field) || field.Field != "Network.MAC" {
			t.Errorf("another than the parent's: %v", err)
		}
		for _, mac := range []string{"", own} {
			n.MAC = mac
			a, err := SetupContainerNetwork(t.Context(), netPeer(t), n)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.State().MAC; got != own {
				t.Errorf("%s instead of the parent's, %s", got, own)
			}
			if err := a.Cleanup(); err != nil {
				t.Error(err)
			}
		}
		netNothing(t, n.StateDir)
	})
}
