//go:build linux

package container

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file kills callers that give the host's devices to containers, or a part of them; see crash_test.go.

// deviceHost is a host with a device to be moved and one to be shared, and what there is of them if all is well.
type deviceHost struct {
	moved movedDevice
	names []string
}

func newDeviceHost(t *testing.T) *deviceHost {
	t.Helper()
	broadcast := netip.MustParseAddr("10.7.0.255")
	h := &deviceHost{
		moved: movedDevice{Host: "dev7", Inside: "dev7", MAC: "02:00:00:00:00:07", MTU: 1444, Up: true, Addresses: []movedAddress{
			{netip.MustParsePrefix("10.7.0.1/24"), broadcast}, {netip.MustParsePrefix("fd00:7::1/64"), netip.Addr{}}}},
		names: []string{"dev7", "dev8", "lo", "up0", "up1"},
	}
	netIP(t, "link add up0 type veth peer name up1")
	netIP(t, "link set up1 up")
	netIP(t, "link set up0 up")
	h.makeMoved(t)
	t.Cleanup(func() {
		netIP(t, "link del dev7")
		netIP(t, "link del up0")
	})
	return h
}

func (h *deviceHost) makeMoved(t *testing.T) {
	t.Helper()
	netIP(t, "link add dev7 address 02:00:00:00:00:07 mtu 1444 type veth peer name dev8")
	netIP(t, "link set dev8 up")
	netIP(t, "link set dev7 up")
	netIP(t, "addr add 10.7.0.1/24 broadcast 10.7.0.255 dev dev7")
	netIP(t, "addr add fd00:7::1/64 dev dev7 nodad")
	h.whole(t)
}

// links are the names of the host's devices.
func (h *deviceHost) links(t *testing.T) (names []string) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names
}

// whole demands that the host has its devices as they were, and no others.
func (h *deviceHost) whole(t *testing.T) {
	t.Helper()
	if got := h.links(t); !slices.Equal(got, h.names) {
		t.Errorf("the devices are %q", got)
	}
	got, err := lookAtNetDevices(map[string]NetDevice{"dev7": {}})
	if err != nil || !reflect.DeepEqual(got, []movedDevice{h.moved}) {
		t.Errorf("the device is %+v, %v", got, err)
	}
}

// recover has another process take back what the killed one has left. A device may be lost only if there was neither it nor a container that lives
// on, so that the kernel has removed it with its namespace.
func (h *deviceHost) recover(t *testing.T, o crashOrder) (took time.Duration) {
	t.Helper()
	stop := crashReap()
	defer stop()
	begin := time.Now()
	list, err := List(o.Dir)
	if err != nil || len(list) > 1 {
		t.Fatalf("List: %v, %v", list, err)
	}
	links := h.links(t)
	sure := slices.Contains(links, "dev7") || slices.Contains(links, "in7")
	for _, c := range list {
		if st, err := c.State(); err != nil {
			t.Errorf("State: %+v, %v", st, err)
		}
		var st stored // as recorded: before that there is a launcher, which dies with the caller
		if err := c.record.read("state.json", &st); err == nil && o.Cfg.Detached && (st.Status == StatusCreated || st.Status == StatusRunning) {
			alive, err := st.alive()
			sure = sure || alive || err != nil
		}
		if err := c.Destroy(); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	}
	took = time.Since(begin)
	stop()
	crashNoProcess(t)
	if !sure && !slices.Contains(h.links(t), "dev7") {
		for deadline := time.Now().Add(30 * time.Second); slices.Contains(h.links(t), "dev8"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the kernel has kept half a device: %q", h.links(t))
			}
		}
		h.makeMoved(t)
	}
	h.whole(t)
	if o.Cfg.Network.attaches() {
		netNothing(t, o.Cfg.Network.StateDir)
	}
	if !t.Failed() {
		crashRecover(t, o.Dir, o.Cfg)
		h.whole(t)
	}
	if dir := o.Cfg.Network.StateDir; dir != "" { // each begins without a store
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	return took
}

// Devices come back with their names and addresses, wherever the caller is killed; of a macvlan device nothing is left, nor of its leases.
func TestNetworkDeviceCrashPoints(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		crashAdopt(t)
		h := newDeviceHost(t)
		kinds := netKinds(t)
		root := kinds["root"]
		if root.Network == nil {
			root = kinds["user namespace"]
		}
		stateDir := filepath.Join(t.TempDir(), "networks")
		macvlan := NetworkConfig{Mode: NetworkModeMacvlan, Parent: "up0", StateDir: stateDir, IPAddresses: []netip.Prefix{netip.MustParsePrefix("10.6.0.2/24")}}
		device := NetworkConfig{NetDevices: map[string]NetDevice{"dev7": {Name: "in7"}}}
		both := macvlan
		both.NetDevices = device.NetDevices
		all := make(map[string]bool)
		for _, row := range []struct {
			name, life string
			cfg        Config
			network    NetworkConfig
			long       bool
		}{
			{"macvlan, root", "create", root, macvlan, false},
			{"macvlan, detached", "run", kinds["detached"], macvlan, false},
			{"macvlan, user namespace", "run", kinds["user namespace"], macvlan, true},
			{"device, root", "run", root, device, false},
			{"device, detached", "create", kinds["detached"], device, true},
			{"device, user namespace", "create", kinds["user namespace"], device, true},
			{"both, detached", "run", kinds["detached"], both, false},
			{"both, root", "create", root, both, true},
		} {
			if row.long && os.Getenv(longVar) == "" {
				continue
			}
			t.Run(row.name, func(t *testing.T) {
				row.cfg.Network = &row.network
				if err := os.RemoveAll(stateDir); err != nil {
					t.Fatal(err)
				}
				o := crashOrder{Life: row.life, Dir: t.TempDir(), Cfg: row.cfg}
				points := devicePoints(o.points(t), len(row.network.NetDevices) > 0)
				h.whole(t)
				for p := range points {
					all[p] = true
				}
				if err := os.RemoveAll(stateDir); err != nil {
					t.Fatal(err)
				}
				crashAt(t, o, points, h.recover)
			})
		}
		names := slices.Sorted(maps.Keys(all))
		for _, want := range []string{"network: devices recorded", "network: device down", "network: device moved", "network: device set up", "network: device moved back",
			"network: leased", "network: link", "network: inside", "launcher: connected", "create: state", "end: reaped", "destroy: killed", "destroy: network released"} {
			if !all[want] {
				t.Errorf("the point %q is missing among %q", want, names)
			}
		}
		t.Logf("%d points", len(all))
	})
}

// devicePoints are those that have to do with the network; with a device that is moved they are all from there on, since it may be lost anywhere.
func devicePoints(points map[string]int, moved bool) map[string]int {
	if !moved {
		delete(points, "network: wire is taken") // at times
		return netPoints(points)
	}
	maps.DeleteFunc(points, func(p string, _ int) bool {
		return p == "network: wire is taken" || !slices.ContainsFunc([]string{"network: ", "launcher: ", "lease: ", "start: ", "create: process", "create: state", "end: ", "destroy: "}, func(prefix string) bool {
			return strings.HasPrefix(p, prefix)
		})
	})
	return points
}
