//go:build linux

package container

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// fakeEndpoint is an endpoint that has no device.
func fakeEndpoint(t testing.TB, dir string, i int, ports ...PortMapping) *endpoint {
	e := &endpoint{Key: fmt.Sprintf("ct%011x", 1<<40+i), Process: ownProcess(t), Network: NetworkState{Mode: NetworkModeBridge, Bridge: "br0", StateDir: dir, PortMappings: ports}}
	e.Network.HostInterface, e.Network.MAC = e.Key, fmt.Sprintf("02:42:00:01:%02x:%02x", i>>8, i&255)
	e.Network.Addresses = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)}), 16), netip.MustParsePrefix(fmt.Sprintf("fd88::1:%x/64", i))}
	return e
}

func connectFake(t testing.TB, s *networkStore, b *Bridge, e *endpoint) {
	t.Helper()
	_, err := natClaimPorts(s, e.Key, e.Network.PortMappings, func(ports []PortMapping) error {
		e.Network.PortMappings = ports
		return s.addEndpoint(e)
	})
	if err == nil {
		err = natConnect(patiently, b, e)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A container with a port costs the same after 10,000 ports and 1,000 containers as at first.
func TestNATCost(t *testing.T) {
	if os.Getenv(longVar) == "" {
		t.Skip("it takes half a minute: " + longVar + "=1")
	}
	inNAT(t, func(t *testing.T, r *natRig) {
		b := r.bridge("br0", "10.88.0", "fd88", false)
		s, err := openNetworkStore(r.dir)
		if err != nil {
			t.Fatal(err)
		}
		measure := func() (up, down time.Duration) {
			var ups, downs []time.Duration
			for i := range 40 {
				e := fakeEndpoint(t, r.dir, 60000+i, PortMapping{HostPort: 60000 + uint16(i), ContainerPort: 80})
				start := time.Now()
				connectFake(t, s, b, e)
				middle := time.Now()
				if err := natDisconnect(patiently, e); err != nil {
					t.Fatal(err)
				}
				ups, downs = append(ups, middle.Sub(start)), append(downs, time.Since(middle))
			}
			slices.Sort(ups)
			slices.Sort(downs)
			return ups[len(ups)/2], downs[len(downs)/2]
		}
		before := r.ruleset()
		up0, down0 := measure()
		start := time.Now()
		all := []*endpoint{fakeEndpoint(t, r.dir, 1, PortMapping{HostPort: 20000, ContainerPort: 20000, Count: 10000})}
		connectFake(t, s, b, all[0])
		t.Logf("10,000 ports at once: %v", time.Since(start))
		start = time.Now()
		for i := range 1000 {
			all = append(all, fakeEndpoint(t, r.dir, 2+i, PortMapping{HostPort: 30000 + uint16(i), ContainerPort: 80}))
			connectFake(t, s, b, all[len(all)-1])
		}
		t.Logf("1,000 containers, one after the other: %v each", time.Since(start)/1000)
		up1, down1 := measure()
		t.Logf("connect %v at first, %v then; disconnect %v, %v", up0, up1, down0, down1)
		if up1 > 3*up0+time.Millisecond || down1 > 3*down0+time.Millisecond {
			t.Error("the cost grows")
		}
		full := r.ruleset()
		r.run("nft", "flush", "ruleset")
		start = time.Now()
		if err := Reconcile(t.Context(), r.dir); err != nil {
			t.Fatal(err)
		}
		t.Logf("Reconcile: %v", time.Since(start))
		if r.ruleset() != full {
			t.Error("the rules are not as before")
		}
		// 16 at a time, while somebody else makes all anew.
		start = time.Now()
		work := make(chan *endpoint)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for e := range work {
					if err := natDisconnect(patiently, e); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i, e := range all {
			work <- e
			if i%250 == 0 {
				if err := Reconcile(t.Context(), r.dir); err != nil {
					t.Error(err)
				}
			}
		}
		close(work)
		wg.Wait()
		t.Logf("removed 16 at a time: %v each", time.Since(start)/time.Duration(len(all)))
		if after := r.ruleset(); after != before {
			t.Errorf("before %s\nafter %s", before, after)
		}
	})
}
