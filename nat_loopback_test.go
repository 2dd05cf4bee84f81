//go:build linux

package container

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A port of a loopback address is the host's own: neither a neighbour nor a container reaches it, whatever it writes into its packets, and what
// listens at the host's loopback addresses is not reached because there is such a port (CVE-2020-8558).
func TestNATLoopback(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		br0 := r.bridge("br0", "10.88.0", "fd88", false)
		evil := r.container("evil", br0)
		if b, err := os.ReadFile("/proc/sys/net/ipv4/conf/br0/route_localnet"); err != nil || string(b) != "0\n" {
			t.Errorf("route_localnet is %s, %v", b, err)
		}
		web := r.container("web", br0, PortMapping{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 7000, ContainerPort: 80}, PortMapping{HostPort: 8080, ContainerPort: 80})
		web.listen("tcp", ":80")
		r.listen("tcp", "127.0.0.1:22")
		r.listen("tcp", "[::1]:22")
		r.eachPath(func(path string) {
			r.reaches("tcp", "127.0.0.1:7000", "web")
			r.misses("tcp", "127.0.0.1:8080") // of a detached container, see PortMapping.HostIP
			r.misses("tcp", "127.0.0.2:7000")
			r.misses("tcp", "192.0.2.1:7000")
			for _, h := range []*testHost{evil.testHost, r.client} {
				dev, via := "eth0", "192.0.2.1"
				if h != r.client {
					via = "10.88.0.1"
				}
				// A sender for whom 127.0.0.0/8 is another host's.
				h.try("", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 dev lo table local; ip route replace 127.0.0.0/8 via "+via+" dev "+dev)
				arrived := r.capture(map[bool]string{true: "client", false: evil.Key}[h == r.client], func(f []byte) bool { return len(f) > 33 && f[30] == 127 })
				for _, to := range []string{"127.0.0.1:7000", "127.0.0.1:22", "127.0.0.2:22", "192.0.2.1:7000", "10.88.0.1:7000"} {
					h.misses("tcp", to)
				}
				if arrived() == 0 {
					t.Errorf("%s has sent nothing to 127.0.0.1", h.name)
				}
				h.try("", "ip", "-6", "route", "replace", "::1/128", "via", map[string]string{"192.0.2.1": "2001:db8:1::1", "10.88.0.1": "fd88::1"}[via])
				h.misses("tcp", "[::1]:22")
			}
			if t.Failed() {
				t.Fatal(path)
			}
		})
	})
}

// A container on a bridge without IPv6 sends nothing of it, and is sent nothing by other hosts (CVE-2024-32473).
func TestNATNoIPv6(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		b := r.bridge("br0", "10.88.0", "fd88", false)
		b.Subnets, b.Gateways = b.Subnets[:1], b.Gateways[:1]
		r.ip("addr del fd88::1/64 dev br0")
		evil, victim := r.container("evil", b), r.container("victim", b)
		for _, h := range []*testEndpoint{evil, victim} {
			h.listen("tcp", ":80")
		}
		r.eachPath(func(path string) {
			arrived := r.capture("br0", func(f []byte) bool {
				return len(f) > 14 && f[12] == 0x86 && f[13] == 0xdd && [6]byte(f[6:12]) == [6]byte(mac(t, evil.endpoint.Network.MAC))
			})
			to := linkLocal(mac(t, victim.endpoint.Network.MAC)).String()
			evil.misses("tcp", "["+to+"%eth0]:80")
			evil.addresses("eth0", "fd88::66/64")
			victim.addresses("eth0", "fd88::67/64")
			evil.misses("tcp", "[fd88::67]:80")
			evil.reaches("tcp", victim.at(false, 80), "victim")
			if n := arrived(); n > 0 {
				t.Errorf("%s: %d frames of IPv6 have arrived", path, n)
			}
			evil.ip("addr del fd88::66/64 dev eth0")
			victim.ip("addr del fd88::67/64 dev eth0")
		})
	})
}

// Ports that are taken are refused before anything has been made.
func TestNATPortInUse(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		br0 := r.bridge("br0", "10.88.0", "fd88", false)
		s, err := openNetworkStore(r.dir)
		if err != nil {
			t.Fatal(err)
		}
		first := r.container("first", br0, PortMapping{HostPort: 8080, ContainerPort: 80, Count: 300}, PortMapping{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 100, ContainerPort: 1, Protocol: "udp"})
		r.listen("tcp", "198.51.100.1:25")
		r.listen("udp", "[::1]:26")
		r.listen("tcp", "127.0.0.1:27")
		before := r.ruleset()
		for _, c := range []struct {
			what  string
			ports []PortMapping
			free  bool
		}{
			{"the same", []PortMapping{{HostPort: 8080}}, false},
			{"in the range", []PortMapping{{HostPort: 8379}}, false},
			{"behind the range", []PortMapping{{HostPort: 8380}}, true},
			{"overlapping range", []PortMapping{{HostPort: 8000, Count: 81}}, false},
			{"range before", []PortMapping{{HostPort: 8000, Count: 80}}, true},
			{"another protocol", []PortMapping{{HostPort: 8080, Protocol: "udp"}, {HostPort: 8080, Protocol: "sctp"}}, true},
			{"one address of all", []PortMapping{{HostPort: 8080, HostIP: ip("192.0.2.1")}}, false},
			{"loopback of all", []PortMapping{{HostPort: 8080, HostIP: ip("127.0.0.1")}}, false},
			{"the same address", []PortMapping{{HostPort: 100, HostIP: ip("192.0.2.1"), Protocol: "udp"}}, false},
			{"the same address in IPv6", []PortMapping{{HostPort: 100, HostIP: ip("::ffff:192.0.2.1"), Protocol: "udp"}}, false},
			{"another address", []PortMapping{{HostPort: 100, HostIP: ip("198.51.100.1"), Protocol: "udp"}}, true},
			{"all of another family", []PortMapping{{HostPort: 100, HostIP: ip("::"), Protocol: "udp"}}, true},
			{"all of the family", []PortMapping{{HostPort: 100, HostIP: ip("0.0.0.0"), Protocol: "udp"}}, false},
			{"all", []PortMapping{{HostPort: 100, Protocol: "udp"}}, false},
			{"twice", []PortMapping{{HostPort: 500}, {HostPort: 490, Count: 11}}, false},
			{"a program's", []PortMapping{{HostPort: 25}}, false},
			{"a program's, its address", []PortMapping{{HostPort: 25, HostIP: ip("198.51.100.1")}}, false},
			{"a program's, in a range", []PortMapping{{HostPort: 20, Count: 10}}, false},
			{"not a program's", []PortMapping{{HostPort: 25, HostIP: ip("192.0.2.1")}, {HostPort: 25, Protocol: "udp"}}, true},
			{"a program's, IPv6", []PortMapping{{HostPort: 26, Protocol: "udp"}}, false},
		} {
			chosen, err := natCheckPorts(s, c.ports)
			var field *FieldError
			if c.free != (err == nil) || err != nil && (!errors.Is(err, ErrPortInUse) || !errors.Is(err, unix.EADDRINUSE) || !errors.As(err, &field)) || c.free && len(chosen) != len(c.ports) {
				t.Errorf("%s: %v, %v", c.what, chosen, err)
			}
		}
		if _, err := natCheckPorts(s, []PortMapping{{HostPort: 1, HostIP: ip("203.0.113.1")}}); !errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, ErrPortInUse) {
			t.Errorf("not an address of the host: %v", err)
		}
		if _, err := natCheckPorts(s, []PortMapping{{HostPort: 1, HostIP: ip("::1")}}); !errors.Is(err, ErrUnsupported) || !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("loopback of IPv6: %v", err)
		}
		if _, err := natCheckPorts(s, []PortMapping{{HostPort: 65535, Count: 2}}); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("past the end: %v", err)
		}
		if after := r.ruleset(); after != before {
			t.Errorf("before %s\nafter %s", before, after)
		}
		// The same again, and those of somebody who is gone.
		if _, err := natClaimPorts(s, first.Key, first.endpoint.Network.PortMappings, func([]PortMapping) error { return nil }); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := s.removeEndpoint(first.Key); err != nil { // a caller that has died in natDisconnect
			t.Fatal(err)
		}
		second := r.container("second", br0, PortMapping{HostPort: 8100, ContainerPort: 81})
		second.listen("tcp", ":81")
		r.client.reaches("tcp", "192.0.2.1:8100", "second")
		failure := errors.New("failure")
		if _, err := natClaimPorts(s, "ct0000000abcd", []PortMapping{{HostPort: 3000}}, func([]PortMapping) error { return failure }); err != failure {
			t.Error(err)
		}
		if _, err := natCheckPorts(s, []PortMapping{{HostPort: 3000}}); err != nil {
			t.Errorf("after a failure: %v", err)
		}
	})
}

// A PortForwarder forwards, and what it has removed ends.
func TestNATPortForwarder(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		br0 := r.bridge("br0", "10.88.0", "fd88", false)
		web := r.container("web", br0)
		web.listen("tcp", ":80")
		web.listen("udp4", "0.0.0.0:53")
		before := r.ruleset()
		f, err := NewPortForwarder(r.dir, "br0", ip(web.addr(false)), ip(web.addr(true)))
		if err != nil {
			t.Fatal(err)
		}
		add := func(m PortMapping) PortMapping {
			t.Helper()
			m, err := f.AddMapping(m)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		m := add(PortMapping{HostPort: 8080, ContainerPort: 80})
		n := add(PortMapping{ContainerPort: 53, Protocol: "udp"})
		x := add(PortMapping{HostIP: ip("127.0.0.1"), HostPort: 81, ContainerPort: 80})
		r.client.reaches("tcp", "192.0.2.1:8080", "web", "192.0.2.2")
		r.client.reaches("tcp", "[2001:db8:1::1]:8080", "web", "2001:db8:1::2")
		r.client.reaches("udp", netip.AddrPortFrom(ip("192.0.2.1"), n.HostPort).String(), "web", "192.0.2.2")
		r.reaches("tcp", "127.0.0.1:81", "web")
		web.reaches("tcp", "192.0.2.1:8080", "web")
		if _, err := f.AddMapping(PortMapping{HostPort: 8080, ContainerPort: 81}); !errors.Is(err, ErrPortInUse) {
			t.Error(err)
		}
		if _, err := f.AddMapping(PortMapping{HostPort: 8081, ContainerPort: 81, Protocol: "icmp"}); !errors.Is(err, ErrInvalidConfig) {
			t.Error(err)
		}
		if _, err := NewPortForwarder(r.dir, "br1", ip("10.88.0.9")); !errors.Is(err, ErrNotExist) {
			t.Error(err)
		}
		if _, err := NewPortForwarder(r.dir, "br0", ip("10.89.0.9")); !errors.Is(err, ErrInvalidConfig) {
			t.Error(err)
		}
		c := r.client.connect("tcp", "192.0.2.1:8080")
		again := add(PortMapping{HostPort: 8082, ContainerPort: 80})
		if err := errors.Join(f.RemoveMapping(x), f.RemoveMapping(m)); err != nil {
			t.Error(err)
		}
		if got, err := answer(c, "still there?", time.Second); err == nil {
			t.Errorf("a connection to a port that is gone: %q", got)
		}
		r.client.misses("tcp", "192.0.2.1:8080")
		r.misses("tcp", "127.0.0.1:81")
		r.client.reaches("tcp", "192.0.2.1:8082", "web")
		web.reaches("tcp", "192.0.2.1:8082", "web")
		if err := f.RemoveMapping(m); !errors.Is(err, ErrNotExist) {
			t.Error(err)
		}
		if err := errors.Join(Reconcile(t.Context(), r.dir), f.RemoveMapping(again)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(f.Cleanup(), f.Cleanup()); err != nil {
			t.Error(err)
		}
		if after := r.ruleset(); after != before {
			t.Errorf("before %s\nafter %s", before, after)
		}
		if _, err := f.AddMapping(m); !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }
