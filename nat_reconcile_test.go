//go:build linux

package container

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// ruleset is what nft(8) shows of our tables, whatever their names are.
func (r *natRig) ruleset() string {
	r.t.Helper()
	return strings.ReplaceAll(r.run("nft", "list", "ruleset"), natTableName(r.dir), "container")
}

// The rules are these, whatever the order in which they came to be, and again after somebody has removed them, or a part of them.
func TestNATReconcile(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		br0, in := r.bridge("br0", "10.88.0", "fd88", false), r.bridge("int0", "10.90.0", "fd90", true)
		web := r.container("web", br0, PortMapping{HostPort: 8080, ContainerPort: 80}, PortMapping{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 5000, ContainerPort: 50, Count: 2, Protocol: "udp"},
			PortMapping{HostIP: netip.MustParseAddr("2001:db8:1::1"), HostPort: 6000, ContainerPort: 60, Protocol: "sctp"}, PortMapping{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 7000, ContainerPort: 80})
		r.container("hidden", in)
		web.listen("tcp", ":80")
		r.server.listen("tcp", ":80")
		want := r.ruleset()
		golden := "testdata/nat-rules.txt"
		if os.Getenv("CONTAINER_TEST_UPDATE") != "" {
			if err := os.WriteFile(golden, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(golden)
		if err != nil || string(text) != want {
			t.Errorf("%v: %s is not what there is; natVersion goes up with each change, and CONTAINER_TEST_UPDATE=1 writes the file:\n%s", err, golden, want)
		}
		again := func(what string, f func() error) {
			t.Helper()
			if err := f(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if got := r.ruleset(); got != want {
				t.Errorf("%s: the rules have become\n%s", what, got)
			}
			if b, err := os.ReadFile("/proc/sys/net/ipv4/conf/br0/route_localnet"); err != nil || string(b) != "1\n" {
				t.Errorf("%s: route_localnet is %s, %v", what, b, err)
			}
			r.client.reaches("tcp", "192.0.2.1:8080", "web", "192.0.2.2")
			web.reaches("tcp", "198.51.100.2:80", "server", "198.51.100.1")
		}
		reconcile := func() error { return Reconcile(t.Context(), r.dir) }
		connect := func() error { return natConnect(patiently, br0, web.endpoint) }
		bridge := func() error { return natBridge(patiently, br0) }
		table := natTableName(r.dir)
		again("nothing has changed", reconcile)
		again("connected again", connect)
		again("bridge again", bridge)
		for _, damage := range []string{"flush ruleset", "flush table inet " + table, "delete table bridge " + table, "flush set bridge " + table + " mac", "delete chain inet " + table + " " + natVersion,
			"delete element inet " + table + " ports4 { tcp . 8080 }", "add rule inet " + table + " enter accept", "add element inet " + table + " ports4 { tcp . 81 : 10.88.0.11 . 81 }"} {
			break1 := func() {
				if out, err := r.try("", append([]string{"nft"}, strings.Fields(damage)...)...); err != nil {
					t.Fatal(damage, out)
				}
			}
			break1()
			again(damage, reconcile)
			if strings.Contains(damage, "table bridge") || strings.Contains(damage, "ruleset") || strings.Contains(damage, natVersion) {
				// Who needs the rules finds that they are not there.
				break1()
				again(damage+", connect", connect)
				break1()
				again(damage+", bridge", bridge)
			}
		}
		// Connections that were made while there were no rules do not go on.
		web.listen("tcp", ":99")
		r.run("nft", "flush", "ruleset")
		r.client.reaches("tcp", web.at(false, 99), "web")
		c := r.client.connect("tcp", web.at(false, 99))
		again("a connection", reconcile)
		if got, err := answer(c, "still there?", time.Second); err == nil {
			t.Errorf("a connection past the rules goes on: %q", got)
		}
		r.client.misses("tcp", web.at(false, 80)) // CVE-2025-54388, CVE-2025-54410: of rules that are made anew none is forgotten
		r.client.misses("tcp", "127.0.0.1:7000")
		// All goes, in any order, any number of times.
		s, _ := openNetworkStore(r.dir)
		for range 2 {
			if err := errors.Join(natDisconnect(patiently, web.endpoint), natDisconnect(patiently, web.endpoint)); err != nil {
				t.Error(err)
			}
			for e := range s.endpoints() {
				if err := natDisconnect(patiently, e); err != nil {
					t.Error(err)
				}
			}
			if b, err := os.ReadFile("/proc/sys/net/ipv4/conf/br0/route_localnet"); err != nil || string(b) != "0\n" {
				t.Errorf("route_localnet is %s, %v", b, err)
			}
			if err := errors.Join(natRemoveBridge(patiently, br0), s.removeBridge("br0"), natRemoveBridge(patiently, in)); err != nil {
				t.Error(err)
			}
		}
		if got := r.ruleset(); got != "" {
			t.Errorf("left: %s", got)
		}
		if pages, _ := filepath.Glob(r.dir + "/ports/*-*"); len(pages) > 0 {
			t.Errorf("left: %s", pages)
		}
	})
}

// The elements of a container are added to and removed from what others have, and change nothing else.
func TestNATElements(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		br0 := r.bridge("br0", "10.88.0", "fd88", false)
		r.container("first", br0, PortMapping{HostPort: 8080, ContainerPort: 80})
		before := r.ruleset()
		second := r.container("second", br0, PortMapping{HostPort: 8081, ContainerPort: 80, Count: 1000}, PortMapping{ContainerPort: 53, Protocol: "udp"})
		if p := second.endpoint.Network.PortMappings[1].HostPort; p < 49152 {
			t.Errorf("chosen: %d", p)
		}
		if n := len(regexp.MustCompile(`udp \. \d+ : `).FindAllString(r.ruleset(), -1)); n != 2 {
			t.Errorf("%d mappings of udp", n)
		}
		if n := strings.Count(r.ruleset(), "10.88.0.12 . "); n < 1001 {
			t.Errorf("%d elements", n)
		}
		// A leftover of somebody who is not in the store gives way; an element of somebody else's stays.
		r.run("nft", "add", "element", "inet", natTableName(r.dir), "ports4", "{ tcp . 9999 : 10.88.0.99 . 1 }")
		third := r.container("third", br0, PortMapping{HostPort: 9999, ContainerPort: 9})
		if !strings.Contains(r.ruleset(), "tcp . 9999 : 10.88.0.13 . 9") {
			t.Error(r.ruleset())
		}
		late := *third.endpoint
		late.Network.PortMappings = []PortMapping{{HostPort: 8080, ContainerPort: 1234}, {HostPort: 9999, ContainerPort: 9}}
		for _, e := range []*endpoint{&late, second.endpoint, second.endpoint} {
			if err := natDisconnect(patiently, e); err != nil {
				t.Error(err)
			}
		}
		if after := r.ruleset(); after != before {
			t.Errorf("before %s\nafter %s", before, after)
		}
	})
}
