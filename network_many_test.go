//go:build linux

package container

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file connects very many containers, and measures how long that takes.

var (
	netMany    = flag.Int("network.many", 100, "containers that are run, 16 at a time; 1000 takes minutes")
	netLatency = flag.Duration("network.latency", 0, "time connecting to a bridge 1,000 times, and fail if it takes longer by the median")
)

// netSnapshot is what there is for containers: devices, leases, rules.
func netSnapshot(t testing.TB, dir string) string {
	t.Helper()
	var all []string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	slices.Sort(all)
	rules := ""
	if nft := testenv.LookPath("nft"); nft != "" {
		out, err := exec.Command(nft, "list", "ruleset").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		rules = string(out)
	}
	var links []string
	for line := range strings.Lines(netIP(t, "-o link")) {
		links = append(links, strings.Fields(line)[1])
	}
	slices.Sort(links)
	return strings.Join(all, "\n") + "\n" + rules + "\n" + strings.Join(links, "\n")
}

// After many containers that come and go side by side, all is as before.
func TestNetworkMany(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		if _, err := EnsureBridge(context.Background(), BridgeConfig{StateDir: cfg.Network.StateDir}); err != nil {
			t.Fatal(err)
		}
		// One that stays: what is next to it must not be touched.
		cfg.Network.PortMappings = []PortMapping{{HostPort: 7999, ContainerPort: 80}}
		stays := lifeStart(t, cfg, lifeSh("sleep 1000"))
		warm := lifeNew(t, cfg) // so that files that are made once are there
		other := *cfg.Network
		other.PortMappings = []PortMapping{{HostPort: 7998, ContainerPort: 80}}
		warm.cfg.Network = &other
		if err := warm.Run(context.Background(), lifeSh("true")); err != nil {
			t.Fatal(err)
		}
		warm.Wait()
		before := netSnapshot(t, cfg.Network.StateDir)
		state := t.TempDir()
		work := make(chan int)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for i := range work {
					n := *cfg.Network
					n.PortMappings = []PortMapping{{HostPort: uint16(8000 + i), ContainerPort: 80}}
					cfg := cfg
					cfg.Network = &n
					if err := netOne(state, fmt.Sprintf("c%d", i), cfg); err != nil {
						t.Errorf("%d: %v", i, err)
					}
				}
			})
		}
		began := time.Now()
		for i := range *netMany {
			work <- i
		}
		close(work)
		wg.Wait()
		t.Logf("%d containers in %v", *netMany, time.Since(began))
		if after := netSnapshot(t, cfg.Network.StateDir); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		netExec(t, stays, "ping -c 1 -W 30 "+netState(t, stays).Gateways[0].String())
	})
}

// netOne is the life of one of many, which looks whether it is connected.
func netOne(state, id string, cfg Config) error {
	c, err := New(state, id, cfg)
	if err != nil {
		return err
	}
	defer c.Destroy()
	var out strings.Builder
	p := lifeSh("ip addr show eth0; ip route get 192.0.2.1")
	p.Stdout, p.Stderr = &out, &out
	if err := c.Run(context.Background(), p); err != nil {
		return err
	}
	if err := c.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, &out)
	}
	return c.Destroy()
}

// netNew makes a network namespace that nobody is in.
func netNew() (netns *os.File, err error) {
	onOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			netns, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	return netns, err
}

// Connecting to a bridge, with one port, takes as long for the last of a thousand as for the first.
func TestNetworkLatency(t *testing.T) {
	if *netLatency == 0 {
		t.Skip("it times: go test -run TestNetworkLatency -network.latency 5ms")
	}
	inHostNetwork(t, func(t *testing.T) {
		const count, window = 1000, 100
		dir := filepath.Join(t.TempDir(), "networks")
		mount(t, "tmpfs", filepath.Dir(dir), "tmpfs", 0) // as /run is
		netRemoveBridges(t, dir)
		self, err := startTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		// 1,000 need more addresses than a bridge has by default.
		if _, err := EnsureBridge(context.Background(), BridgeConfig{StateDir: dir, Subnets: prefixes("10.60.0.0/16", "fd00:60::/64")}); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		parts, early := make(map[string]time.Duration), make(map[string]time.Duration)
		last, total := time.Now(), time.Now()
		at = func(point string) { // how long it has taken since the point before
			mu.Lock()
			defer mu.Unlock()
			parts[point] += time.Since(last)
			last = time.Now()
		}
		defer func() { at = func(string) {} }()
		var took, removed []time.Duration
		connections := make([]*connection, 0, count)
		var closing closers
		defer func() { closing.close() }()
		for i := range count {
			switch i {
			case window:
				early = maps.Clone(parts)
				fallthrough
			case count - window:
				clear(parts)
			}
			netns, err := netNew()
			if err != nil {
				t.Fatal(err)
			}
			closing = append(closing, netns)
			last = time.Now()
			began := last
			c, err := newConnection(&NetworkConfig{Mode: NetworkModeBridge, StateDir: dir, PortMappings: []PortMapping{{HostPort: uint16(20000 + i), ContainerPort: 80}}},
				&endpoint{Process: processID{os.Getpid(), self}, Names: []string{"c" + itoa(i)}})
			if err != nil {
				t.Fatal(err)
			}
			c.save = func() error { return nil }
			if err := c.reserve(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := c.connect(context.Background(), netns); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(began))
			connections = append(connections, c)
		}
		t.Logf("%d in %v", count, time.Since(total))
		mu.Lock()
		for _, p := range sortedByTime(parts) {
			t.Logf("%-50s %8.3f ms at first, %8.3f ms at last", "until "+p, early[p].Seconds()*1000/window, parts[p].Seconds()*1000/window)
		}
		clear(parts)
		mu.Unlock()
		last = time.Now()
		for _, c := range connections {
			began := time.Now()
			if err := releaseEndpoint(patiently, &c.e.Network, c.e.Key); err != nil {
				t.Fatal(err)
			}
			removed = append(removed, time.Since(began))
		}
		mu.Lock()
		for _, p := range sortedByTime(parts) {
			t.Logf("%-50s %8.3f ms", "release until "+p, parts[p].Seconds()*1000/count)
		}
		mu.Unlock()
		first, end, all := median(took[:window]), median(took[count-window:]), median(took)
		t.Logf("connect: median %v, of the first %d %v, of the last %v; release: median %v", all, window, first, end, median(removed))
		if end > 2*first+time.Millisecond {
			t.Errorf("the first %d took %v each, the last %v", window, first, end)
		}
		if all > *netLatency {
			t.Errorf("it took %v", all)
		}
		netNothing(t, dir)
	})
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// sortedByTime are the points, those that take longest first.
func sortedByTime(parts map[string]time.Duration) []string {
	var names []string
	for p := range parts {
		names = append(names, p)
	}
	slices.SortFunc(names, func(a, b string) int { return int(parts[b] - parts[a]) })
	return names
}
