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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file gives devices of the host's to containers: as they are, or a part of them.

// Devices of the host's go to the container with their addresses, and come back.
func TestNetDevices(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg, _ := lifeConfig(t)
		cfg.StopTimeout = -1
		netIP(t, "link add dev7 address 02:00:00:00:00:07 mtu 1444 type veth peer name dev8")
		netIP(t, "link set dev8 up")
		netIP(t, "addr add 10.7.0.1/24 dev dev7")
		netIP(t, "addr add fd00:7::1/64 dev dev7 nodad")
		netIP(t, "link set dev7 up")
		before := func() []string {
			var words []string
			text := netIP(t, "addr show dev7")
			for deadline := time.Now().Add(30 * time.Second); !strings.Contains(text, " state UP ") && time.Now().Before(deadline); text = netIP(t, "addr show dev7") {
				time.Sleep(time.Millisecond) // the kernel notices later that the wire is there
			}
			for _, f := range strings.Fields(text) {
				if strings.ContainsAny(f, ".:/") && !strings.HasPrefix(f, "fe80") || strings.Contains(f, "UP") || f == "1444" {
					words = append(words, f)
				}
			}
			return words[1:] // without its number
		}
		want := before()
		cfg.Network = &NetworkConfig{NetDevices: map[string]NetDevice{"dev7": {Name: "in7"}}, Routes: []Route{
			{Destination: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("10.7.0.9"), Interface: "in7"}}}
		ends := map[string]func(c, other *Container) error{
			"by itself":            func(c, _ *Container) error { c.Signal(unix.SIGKILL); c.Wait(); return nil },
			"destroyed":            func(c, _ *Container) error { return c.Destroy() },
			"stopped by another":   func(_, other *Container) error { return other.Stop(t.Context()) },
			"destroyed by another": func(_, other *Container) error { return other.Destroy() },
		}
		for name, end := range ends {
			for _, change := range []string{"true", "ip link set in7 down; ip link set in7 name x7", "ip link set in7 down; ip link set in7 address 02:00:00:00:00:99 mtu 1300"} {
				t.Run(name, func(t *testing.T) {
					cfg := cfg
					c := lifeNew(t, cfg)
					p := lifeSh("sleep 1000")
					if err := c.Run(context.Background(), p); err != nil {
						t.Fatal(err)
					}
					got := netExec(t, c, "ip addr show in7; ip route")
					for _, want := range []string{"10.7.0.1/24", "fd00:7::1/64", "192.0.2.0/24 via 10.7.0.9", ",UP", "mtu 1444"} {
						if !strings.Contains(got, want) {
							t.Errorf("no %s in %s", want, got)
						}
					}
					pid := c.proc.live.pid
					if err := JoinNetworkNamespace(pid, func() error { return exec.Command("sh", "-c", change).Run() }); err != nil {
						t.Error(err)
					}
					other, err := Load(c.record.dir[:strings.LastIndex(c.record.dir, "/")], c.ID())
					if err != nil {
						t.Fatal(err)
					}
					if err := end(c, other); err != nil {
						t.Error(err)
					}
					c.Wait()
					if got := before(); !slices.Equal(got, want) {
						t.Errorf("%q, not %q", got, want)
					}
				})
			}
		}
		for _, bad := range []string{"lo", "none"} {
			cfg.Network = &NetworkConfig{NetDevices: map[string]NetDevice{bad: {Name: "x"}}}
			c, err := New(t.TempDir(), "bad", cfg)
			if err == nil {
				err = c.Run(context.Background(), lifeSh("true"))
				c.Destroy()
			}
			if !errors.Is(err, ErrInvalidConfig) {
				t.Errorf("%s: %v", bad, err)
			}
		}
		cfg.Network = &NetworkConfig{NetDevices: map[string]NetDevice{"dev7": {}}}
		c := lifeNew(t, cfg)
		if err := c.Run(context.Background(), &Process{Args: []string{"no such program"}}); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if got := before(); !slices.Equal(got, want) {
			t.Errorf("after a failure: %q, not %q", got, want)
		}
		netIP(t, "link del dev7")
	})
}

// A macvlan device is on the wire of the host's device.
func TestMacvlan(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		netIP(t, "link add up0 type veth peer name up1")
		netIP(t, "link set up1 up")
		defer netIP(t, "link del up0")
		netIP(t, "link set up0 up")
		netIP(t, "link add eth0 type veth peer name eth1") // the host has one of this name, too
		defer netIP(t, "link del eth0")
		cfg, _ := lifeConfig(t)
		cfg.Capabilities = netCapabilities()
		start := func(address string) *Container {
			n := &NetworkConfig{Mode: NetworkModeMacvlan, Parent: "up0", StateDir: filepath.Join(t.TempDir(), "networks"),
				IPAddresses: []netip.Prefix{netip.MustParsePrefix(address)}, Gateways: []netip.Addr{netip.MustParseAddr("10.6.0.1")}}
			cfg := cfg
			cfg.Network = n
			t.Cleanup(func() { netNothing(t, n.StateDir) })
			return lifeStart(t, cfg, lifeSh("sleep 1000"))
		}
		a, b := start("10.6.0.2/24"), start("10.6.0.3/24")
		netExec(t, a, "ping -c 1 -W 20 10.6.0.3")
		netExec(t, b, "ping -c 1 -W 20 10.6.0.2")
		if got := netExec(t, a, "ip route"); !strings.Contains(got, "default via 10.6.0.1") {
			t.Error(got)
		}
		cfg.Network = &NetworkConfig{Mode: NetworkModeMacvlan, Parent: "none", StateDir: t.TempDir()}
		if err := lifeNew(t, cfg).Run(context.Background(), lifeSh("true")); !errors.Is(err, ErrInvalidConfig) {
			t.Error(err)
		}
	})
}

// Who ends a container can start another with its addresses on the same wire at once: the kernel removes the device of the first some time later.
func TestMacvlanAgain(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		netIP(t, "link add up0 type veth peer name up1")
		defer netIP(t, "link del up0")
		netIP(t, "link set up1 up")
		netIP(t, "link set up0 up")
		cfg, _ := lifeConfig(t)
		dir := filepath.Join(t.TempDir(), "networks")
		for _, mode := range []string{"bridge", "passthru"} {
			cfg.Network = &NetworkConfig{Mode: NetworkModeMacvlan, Parent: "up0", MacvlanMode: mode, StateDir: dir,
				IPAddresses: []netip.Prefix{netip.MustParsePrefix("10.6.0.2/24")}}
			for i := range rounds(15, 200) {
				c := lifeNew(t, cfg)
				if err := c.Run(t.Context(), lifeSh("sleep 1000")); err != nil {
					t.Fatalf("%s %d: %v", mode, i, err)
				}
				if err := c.Destroy(); err != nil {
					t.Fatal(err)
				}
			}
		}
		netNothing(t, dir)

		// One that lives on is another's, and that is told when the caller's patience ends.
		a := lifeStart(t, cfg, lifeSh("sleep 1000"))
		other := *cfg.Network
		other.StateDir = filepath.Join(t.TempDir(), "networks")
		cfg.Network = &other
		c := lifeNew(t, cfg)
		for wait := 300 * time.Millisecond; ; wait *= 8 { // on a busy machine it may not have come so far
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			err := c.Run(ctx, lifeSh("true"))
			cancel()
			if errors.Is(err, unix.EINVAL) {
				break
			}
			if !errors.Is(err, context.DeadlineExceeded) || wait > 10*time.Second {
				t.Error(err)
				break
			}
		}
		if err := errors.Join(c.Destroy(), a.Destroy()); err != nil {
			t.Error(err)
		}
		netNothing(t, other.StateDir)
	})
}

// A list that changes while it is read is read again.
func TestWhole(t *testing.T) {
	calls := 0
	got, err := whole(func() ([]int, error) {
		if calls++; calls < 3 {
			return nil, netlink.ErrDumpInterrupted
		}
		return []int{calls}, nil
	})
	if err != nil || !slices.Equal(got, []int{3}) {
		t.Error(got, err)
	}
	if _, err := whole(func() ([]int, error) { return nil, netlink.ErrDumpInterrupted }); !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Error(err)
	}
}
