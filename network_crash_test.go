//go:build linux

package container

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file kills callers between lease, link and rule; see crash_test.go.

// netPoints are those points that have to do with the network.
func netPoints(points map[string]int) map[string]int {
	maps.DeleteFunc(points, func(p string, _ int) bool {
		for _, prefix := range []string{"network", "bridge", "lease", "nat", "collect", "launcher: connected"} {
			if strings.HasPrefix(p, prefix) {
				return false
			}
		}
		return true
	})
	return points
}

// Whatever a caller has made when it is killed, Destroy of another removes; the bridge stays, and RemoveBridge removes that.
func TestNetworkCrashPoints(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		crashAdopt(t)
		all := make(map[string]bool)
		for name, cfg := range netKinds(t) {
			if name == "user namespace" && os.Getenv(longVar) == "" {
				continue // as detached
			}
			t.Run(name, func(t *testing.T) {
				stateDir := t.TempDir()
				n := *cfg.Network
				n.PortMappings = []PortMapping{{HostPort: 8080, ContainerPort: 80}}
				cfg.Network = &n
				for _, life := range []string{"create", "run"} {
					if (life == "create") != (name == "root") && os.Getenv(longVar) == "" {
						continue
					}
					o := crashOrder{Life: life, Dir: stateDir, Cfg: cfg}
					// Each begins without the bridge, without a store even.
					n.StateDir = filepath.Join(t.TempDir(), "networks")
					netRemoveBridges(t, n.StateDir)
					points := netPoints(o.points(t))
					for p := range points {
						all[p] = true
					}
					netForget(t, n.StateDir)
					crashAt(t, o, points, func(t *testing.T, o crashOrder) time.Duration {
						took := crashRecover(t, o.Dir, cfg)
						netNothing(t, n.StateDir)
						netForget(t, n.StateDir)
						return took
					})
				}
			})
		}
		t.Logf("%d points", len(all))
		if len(all) < 20 {
			t.Errorf("there are %d points only: %v", len(all), all)
		}
	})
}

// netForget removes the default bridge, and the store.
func netForget(t testing.TB, dir string) {
	t.Helper()
	if err := RemoveBridge(context.Background(), dir, ""); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// RemoveBridge can be killed anywhere, and tried again.
func TestRemoveBridgeCrash(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "networks")
		netRemoveBridges(t, dir)
		o := crashOrder{Life: "bridge", Dir: dir}
		points := o.points(t)
		netForget(t, dir)
		crashAt(t, o, points, func(t *testing.T, o crashOrder) time.Duration {
			if b, err := EnsureBridge(context.Background(), BridgeConfig{StateDir: dir}); err != nil {
				t.Errorf("%+v, %v", b, err)
			}
			netForget(t, dir)
			return 0
		})
	})
}

// crashBridge makes a bridge and removes it.
func crashBridge(o crashOrder) error {
	if _, err := EnsureBridge(context.Background(), BridgeConfig{StateDir: o.Dir}); err != nil {
		return err
	}
	return RemoveBridge(context.Background(), o.Dir, "")
}

// Callers are killed at random times that forward or relay ports, on a bridge and without: then there is no device, no lease, no rule, no
// socket and no process that was not there before, and the same can be started again.
func TestNetworkCrashRandomly(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		crashAdopt(t)
		seed := *crashSeed
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Logf("-crash.seed=%d", seed)
		random := rand.New(rand.NewPCG(seed, 1))
		sockets := t.TempDir()
		kinds := netKinds(t)
		bridges := ""
		for name, cfg := range kinds {
			n := *cfg.Network
			n.PortMappings = []PortMapping{{HostPort: 8080, ContainerPort: 80}}
			cfg.Network, bridges = &n, n.StateDir
			kinds[name] = cfg
		}
		relayed := publishConfig(t, NetworkModeNone, PortMapping{HostPort: 8080, ContainerPort: 80}, PortMapping{HostPort: 8080, ContainerPort: 80, Protocol: "udp"},
			PortMapping{HostSocket: sockets + "/web.sock", ContainerPort: 80})
		kinds["relayed"] = relayed
		relayed.Detached = true
		kinds["relayed, detached"] = relayed
		names := slices.Sorted(maps.Keys(kinds))
		dir := t.TempDir()
		for _, name := range names { // so that what stays is there
			crashRecover(t, dir, kinds[name])
		}
		before := netSnapshot(t, bridges)
		for i := range *crashN {
			name := names[random.IntN(len(names))]
			o := crashOrder{Life: []string{"create", "run"}[random.IntN(2)], Dir: dir, Cfg: kinds[name], Again: true}
			if err := crashAfter(t, o, time.Duration(random.Int64N(int64(120*time.Millisecond)))); err != nil {
				t.Errorf("kill %d: %s, %s: %v", i, name, o.Life, err)
			}
			crashRecover(t, dir, o.Cfg)
			if after := netSnapshot(t, bridges); after != before {
				t.Errorf("kill %d: %s, %s: before\n%s\nafter\n%s", i, name, o.Life, before, after)
			}
			socketsGone(t, []string{sockets})
			l, err := net.Listen("tcp", ":8080")
			if err != nil {
				t.Errorf("kill %d: %s, %s: %v", i, name, o.Life, err)
			} else {
				l.Close()
			}
			if t.Failed() {
				return
			}
		}
	})
}
