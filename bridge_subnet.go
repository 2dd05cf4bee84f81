//go:build linux

package container

import (
	"crypto/rand"
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// This file chooses networks for bridges that collide with nothing the host can reach. It runs in the caller's process.

// subnetPool is what IPv4 networks are chosen from.
var subnetPool = netip.MustParsePrefix("10.88.0.0/13")

// subnetBits is the length of their prefix.
const subnetBits = 24

var errNoSubnet = errors.New("no free network")

// chooseSubnets returns a network of each family that the kernel has.
func chooseSubnets(h *netlink.Handle, taken []netip.Prefix) ([]netip.Prefix, error) {
	routed, err := routedPrefixes(h)
	if err != nil {
		return nil, err
	}
	taken = append(routed, taken...)
	v4, ok := freeSubnet(taken)
	if !ok {
		return nil, &Error{Op: "choose a network", Path: subnetPool.String(), Err: errNoSubnet,
			Remedy: "the host has routes to all of it; set BridgeConfig.Subnets"}
	}
	subnets := []netip.Prefix{v4}
	if haveIPv6() {
		subnets = append(subnets, randomULA(taken))
	}
	return subnets, nil
}

// freeSubnet returns the first network of the pool that overlaps with none.
func freeSubnet(taken []netip.Prefix) (netip.Prefix, bool) {
	first := subnetPool.Addr().As4()
	number := int(first[0])<<16 | int(first[1])<<8 | int(first[2])
	for i := range 1 << (subnetBits - subnetPool.Bits()) {
		n := number + i
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n)}), subnetBits)
		if !overlapsAny(p, taken) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// randomULA returns a network of a site that is nobody's else, by chance: RFC 4193.
func randomULA(taken []netip.Prefix) netip.Prefix {
	for {
		ip := [16]byte{0: 0xfd}
		rand.Read(ip[1:6])
		if p := netip.PrefixFrom(netip.AddrFrom16(ip), 64); !overlapsAny(p, taken) {
			return p
		}
	}
}

func overlapsAny(p netip.Prefix, all []netip.Prefix) bool {
	for _, other := range all {
		if p.Overlaps(other) {
			return true
		}
	}
	return false
}

// routedPrefixes are the destinations of all routes, of all tables, but those to everywhere.
func routedPrefixes(h *netlink.Handle) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := whole(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, &Error{Op: "routes", Err: err}
		}
		for _, r := range routes {
			if p := prefixOf(r.Dst); p.IsValid() && p.Bits() > 0 && !p.Addr().IsMulticast() && !p.Addr().IsLinkLocalUnicast() {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// prefixOf converts; what is no prefix becomes one that is not valid.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}
	}
	if bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones)
}

// ipNet converts.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
