//go:build linux

package container

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// An internal bridge leads to itself only.
func TestNATInternal(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		in, out := r.bridge("int0", "10.90.0", "fd90", true), r.bridge("br0", "10.88.0", "fd88", false)
		one, two := r.container("one", in), r.container("two", in)
		web := r.container("web", out, PortMapping{HostPort: 8080, ContainerPort: 80})
		for _, h := range []*testHost{web.testHost, one.testHost, two.testHost, r.testHost, r.client, r.server} {
			h.listen("tcp", ":80")
		}
		r.eachPath(func(path string) {
			var silent sync.WaitGroup // who waits for an answer that does not come
			for i := range 2 {
				six := i == 1
				one.reaches("tcp", two.at(six, 80), "two", one.addr(six))
				one.reaches("tcp", []string{"10.90.0.1:80", "[fd90::1]:80"}[i], "host", one.addr(six))
				r.reaches("tcp", one.at(six, 80), "one")
				for _, to := range [][]string{
					{"198.51.100.2:80", "192.0.2.1:80", "10.88.0.1:80", "192.0.2.1:8080", "10.90.0.1:8080", "192.0.2.2:80"},
					{"[2001:db8:2::2]:80", "[2001:db8:1::1]:80", "[fd88::1]:80", "[2001:db8:1::1]:8080", "[fd90::1]:8080", "[2001:db8:1::2]:80"},
				}[i] {
					silent.Go(func() { one.misses("tcp", to) })
				}
				silent.Go(func() { one.misses("tcp", web.at(six, 80)) })
				silent.Go(func() { web.misses("tcp", one.at(six, 80)) })
				silent.Go(func() { r.client.misses("tcp", one.at(six, 80)) })
			}
			silent.Wait()
			if t.Failed() {
				t.Fatal(path)
			}
		})
	})
}

// What a container sends is from its own addresses, and nothing that only a router or a server of addresses says.
func TestNATSpoofed(t *testing.T) {
	inNAT(t, func(t *testing.T, r *natRig) {
		b := r.bridge("br0", "10.88.0", "fd88", false)
		evil, victim := r.container("evil", b), r.container("victim", b)
		victim.listen("tcp", ":80")
		evil.reaches("tcp", victim.at(false, 80), "victim")
		evil.reaches("tcp", victim.at(true, 80), "victim")
		own, other := mac(t, evil.endpoint.Network.MAC), mac(t, victim.endpoint.Network.MAC)
		fake := net.HardwareAddr{2, 0x66, 0x66, 0x66, 0x66, 0x66}
		e4, v4, gw4 := netip.MustParseAddr(evil.addr(false)), netip.MustParseAddr(victim.addr(false)), netip.MustParseAddr("10.88.0.1")
		e6, v6, gw6 := netip.MustParseAddr(evil.addr(true)), netip.MustParseAddr(victim.addr(true)), netip.MustParseAddr("fd88::1")
		ll, none6 := linkLocal(own), netip.IPv6Unspecified()
		bad := map[string][]byte{
			"MAC of nobody":               frame(other, fake, 0x800, packet4(e4, v4, 17, udp(9, 9))),
			"MAC of another":              frame(other, other, 0x800, packet4(e4, v4, 17, udp(9, 9))),
			"address of the gateway":      frame(other, own, 0x800, packet4(gw4, v4, 17, udp(9, 9))),
			"address of another":          frame(other, own, 0x800, packet4(v4, v4, 17, udp(9, 9))),
			"address of the world":        frame(other, own, 0x800, packet4(netip.MustParseAddr("198.51.100.9"), v4, 17, udp(9, 9))),
			"loopback address":            frame(other, own, 0x800, packet4(netip.MustParseAddr("127.0.0.1"), v4, 17, udp(9, 9))),
			"no address":                  frame(other, own, 0x800, packet4(netip.IPv4Unspecified(), v4, 17, udp(9, 9))),
			"DHCP server":                 frame(broadcast, own, 0x800, packet4(e4, netip.MustParseAddr("255.255.255.255"), 17, udp(67, 68))),
			"ARP, gateway's address":      frame(broadcast, own, 0x806, arp(2, own, gw4, broadcast, v4)),
			"ARP, request as the gateway": frame(broadcast, own, 0x806, arp(1, own, gw4, make([]byte, 6), v4)),
			"ARP, MAC inside":             frame(other, own, 0x806, arp(2, fake, e4, other, v4)),
			"ARP, of the other kind":      frame(other, own, 0x8035, arp(3, own, e4, other, v4)),
			"VLAN tag":                    frame(other, own, 0x8100, append([]byte{0, 5, 8, 0}, packet4(gw4, v4, 17, udp(9, 9))...)),
			"VLAN tag, own address":       frame(other, own, 0x8100, append([]byte{0, 5, 8, 0}, packet4(e4, v4, 17, udp(9, 9))...)),
			"QinQ tag":                    frame(other, own, 0x88a8, append([]byte{0, 5, 8, 0}, packet4(e4, v4, 17, udp(9, 9))...)),
			"another protocol":            frame(other, own, 0x88b5, make([]byte, 50)),
			"STP":                         frame([]byte{1, 0x80, 0xc2, 0, 0, 0}, own, 38, append([]byte{0x42, 0x42, 3}, make([]byte, 43)...)),
			"v6 address of the gateway":   frame(other, own, 0x86dd, packet6(gw6, v6, 17, udp(9, 9))),
			"v6 address of the world":     frame(other, own, 0x86dd, packet6(netip.MustParseAddr("2001:db8:9::9"), v6, 17, udp(9, 9))),
			"v6 link-local of another":    frame(other, own, 0x86dd, packet6(linkLocal(other), v6, 17, udp(9, 9))),
			"DHCPv6 server":               frame(other, own, 0x86dd, packet6(ll, v6, 17, udp(547, 546))),
			"router advertisement":        frame(allNodes, own, 0x86dd, packet6(ll, netip.MustParseAddr("ff02::1"), 58, icmp6(134, make([]byte, 12)))),
			"router advertisement behind a header": frame(allNodes, own, 0x86dd, packet6(ll, netip.MustParseAddr("ff02::1"), 0,
				append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, icmp6(134, make([]byte, 12))...))),
			"router advertisement behind two": frame(allNodes, own, 0x86dd, packet6(ll, netip.MustParseAddr("ff02::1"), 60,
				append([]byte{60, 0, 1, 4, 0, 0, 0, 0, 58, 0, 1, 4, 0, 0, 0, 0}, icmp6(134, make([]byte, 12))...))),
			"redirect":                         frame(other, own, 0x86dd, packet6(ll, v6, 58, icmp6(137, make([]byte, 36)))),
			"neighbour advertisement, gateway": frame(other, own, 0x86dd, packet6(e6, v6, 58, icmp6(136, neighbour(gw6, own)))),
			"neighbour advertisement, none":    frame(allNodes, own, 0x86dd, packet6(none6, netip.MustParseAddr("ff02::1"), 58, icmp6(136, neighbour(e6, own)))),
			"neighbour solicitation as other":  frame(other, own, 0x86dd, packet6(gw6, v6, 58, icmp6(135, neighbour(v6, own)))),
			"duplicate of another":             frame(allNodes, own, 0x86dd, packet6(none6, netip.MustParseAddr("ff02::1"), 58, icmp6(135, neighbour(v6, own)[:20]))),
		}
		good := map[string][]byte{
			"own address":             frame(other, own, 0x800, packet4(e4, v4, 17, udp(9, 9))),
			"own v6 address":          frame(other, own, 0x86dd, packet6(e6, v6, 17, udp(9, 9))),
			"own link-local":          frame(other, own, 0x86dd, packet6(ll, v6, 17, udp(9, 9))),
			"own ARP":                 frame(other, own, 0x806, arp(2, own, e4, other, v4)),
			"neighbour advertisement": frame(other, own, 0x86dd, packet6(e6, v6, 58, icmp6(136, neighbour(e6, own)))),
			"is it mine":              frame(other, own, 0x86dd, packet6(none6, v6, 58, icmp6(135, neighbour(e6, own)[:20]))),
		}
		r.eachPath(func(path string) {
			for kind, frames := range map[bool]map[string][]byte{false: bad, true: good} {
				for name, f := range frames {
					same := func(got []byte) bool { return len(got) > 30 && bytes.HasPrefix(f, got) } // br_netfilter cuts the padding off
					arrived, host := victim.capture("eth0", same), r.capture("br0", same)
					evil.send("eth0", f)
					evil.send("eth0", f)
					evil.reaches("tcp", victim.at(false, 80), "victim") // this is sent later, and arrives
					if kind {
						waitFor(t, func() bool { return arrived() > 0 }) // by another processor maybe, and later
					}
					if n, m := arrived(), host(); (n > 0) != kind || !kind && m > 0 {
						t.Errorf("%s: %s: %d have arrived at the neighbour, %d at the host", path, name, n, m)
					}
				}
			}
		})
		if out := victim.ip("neigh"); strings.Contains(out, fake.String()) {
			t.Error(out)
		}
	})
}

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

func mac(t *testing.T, s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func frame(dst, src net.HardwareAddr, typ uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst...), src...)
	b = append(binary.BigEndian.AppendUint16(b, typ), payload...)
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func packet4(src, dst netip.Addr, proto byte, payload []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

// packet6 is a packet of IPv6; the checksum of ICMPv6, which is that of the last bytes from the last header on, is filled in.
func packet6(src, dst netip.Addr, next byte, payload []byte) []byte {
	h := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	payload = bytes.Clone(payload)
	icmp, proto := payload, next
	for proto == 0 || proto == 60 {
		proto, icmp = icmp[0], icmp[8:]
	}
	if proto == 58 {
		pseudo := binary.BigEndian.AppendUint32(bytes.Clone(h[8:40]), uint32(len(icmp)))
		binary.BigEndian.PutUint16(icmp[2:], checksum(append(append(pseudo, 0, 0, 0, 58), icmp...)))
	}
	return append(h, payload...)
}

// udp is a datagram; without a checksum, which IPv4 allows, and nobody takes it in IPv6, which does not matter here.
func udp(src, dst uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	return append(b, 0, 12, 0, 0, 't', 'e', 's', 't')
}

func icmp6(typ byte, body []byte) []byte { return append([]byte{typ, 0, 0, 0}, body...) }

// neighbour is the body of an advertisement or a solicitation.
func neighbour(target netip.Addr, mac net.HardwareAddr) []byte {
	return append(append(append([]byte{0x20, 0, 0, 0}, target.AsSlice()...), 2, 1), mac...)
}

func arp(op byte, sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, op}, sha...)
	b = append(append(b, spa.AsSlice()...), tha...)
	return append(b, tpa.AsSlice()...)
}
