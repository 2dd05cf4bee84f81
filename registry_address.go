//go:build linux

package container

import (
	"net/netip"
	"slices"
)

// This file tells addresses of the Internet from all others. It is pure; registry_guard.go asks it about each connection.

// privatePrefixes are addresses that netip's own methods do not call private; see RFC 6890.
var privatePrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),     // "this network": Linux takes 0.0.0.0 for itself
	netip.MustParsePrefix("100.64.0.0/10"), // shared by the customers of a provider
	netip.MustParsePrefix("192.0.0.0/24"),  // of protocols
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),   // broadcast, and reserved
	netip.MustParsePrefix("fec0::/10"),     // site-local, of old
}

// metadataAddresses are those at which clouds give a machine its credentials, besides the link-local ones.
var metadataAddresses = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
}

// translators are prefixes of IPv6 addresses that stand for IPv4 addresses, and where those are in them: RFC 6052, 8215, 3056, 4291.
var translators = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("::/96"), 12},
}

// isPrivate tells whether an address is none of the Internet's.
func isPrivate(a netip.Addr) bool {
	a = plainAddr(a)
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() ||
		slices.ContainsFunc(privatePrefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isMetadata tells whether an address is, or may be, that of a cloud's metadata: no registry is there.
func isMetadata(a netip.Addr) bool {
	a = plainAddr(a)
	return a.IsLinkLocalUnicast() || slices.Contains(metadataAddresses, a)
}

// plainAddr returns the IPv4 address that an IPv6 address stands for, or else the address without its zone.
func plainAddr(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || a.IsLoopback() || a.IsUnspecified() {
		return a
	}
	b := a.As16()
	for _, t := range translators {
		if t.prefix.Contains(a) {
			return netip.AddrFrom4([4]byte(b[t.at : t.at+4]))
		}
	}
	return a
}

// isLoopback tells whether a host is this one, by its name or address.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
