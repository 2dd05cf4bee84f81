package container

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// This file knows the addresses that mean something else than a host out there: those of this host, of its links, of its private networks. It
// runs in the caller's process.

// An addressRange is a range of addresses, and what it is.
type addressRange struct {
	prefix netip.Prefix
	what   string
}

// specialRanges are never dialed for a container unless a policy has said EgressDecision.Special. The first match counts.
var specialRanges = []addressRange{
	// Where clouds tell each machine its credentials. Most are on the link, which is refused as a whole.
	{netip.MustParsePrefix("169.254.169.254/32"), "a metadata address"},
	{netip.MustParsePrefix("100.100.100.200/32"), "a metadata address"},
	{netip.MustParsePrefix("168.63.129.16/32"), "a metadata address"},
	{netip.MustParsePrefix("192.0.0.192/32"), "a metadata address"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "a metadata address"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "a metadata address"},
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), "a metadata address"},
	{netip.MustParsePrefix("fd00:42::42/128"), "a metadata address"},

	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"}, // Linux takes 0.0.0.0 for the host itself
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a reserved address"}, // IETF protocol assignments, RFC 6890
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},
	{netip.MustParsePrefix("::/128"), "an unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
}

// privateRanges are those of networks behind this host, which no name of the outside opens.
var privateRanges = []addressRange{
	{netip.MustParsePrefix("10.0.0.0/8"), "a private address"},
	{netip.MustParsePrefix("172.16.0.0/12"), "a private address"},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private address"},
	{netip.MustParsePrefix("100.64.0.0/10"), "a private address"}, // between a provider and its customers, RFC 6598
	{netip.MustParsePrefix("198.18.0.0/15"), "a private address"}, // laboratories, RFC 2544
	{netip.MustParsePrefix("fc00::/7"), "a private address"},
	{netip.MustParsePrefix("fec0::/10"), "a private address"},      // site-local, the older fc00::/7
	{netip.MustParsePrefix("64:ff9b:1::/48"), "a private address"}, // a translator of the local network's, RFC 8215
}

// embeddings are prefixes of IPv6 addresses that stand for an IPv4 address: where they lead is where that leads.
var embeddings = []struct {
	prefix netip.Prefix
	at     int  // of the four bytes
	invert bool // as Teredo writes them
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12, false},   // mapped
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, false}, // translated, RFC 2765
	{netip.MustParsePrefix("::/96"), 12, false},           // compatible, RFC 4291 2.5.5.1
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false},    // NAT64, RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12, false},  // NAT64 of the local network, RFC 8215, at the end as in 64:ff9b::/96
	{netip.MustParsePrefix("2002::/16"), 2, false},        // 6to4
	{netip.MustParsePrefix("2001::/32"), 12, true},        // Teredo
}

// embedded returns the IPv4 addresses that an address stands for.
func embedded(a netip.Addr) (in []netip.Addr) {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	plain := netip.AddrFrom16(b).WithZone("")
	for _, e := range embeddings {
		// Contains knows no mapped addresses.
		if !e.prefix.Contains(plain) && !(a.Is4In6() && e.prefix.Addr().Is4In6()) {
			continue
		}
		v4 := [4]byte(b[e.at:])
		if e.invert {
			for i := range v4 {
				v4[i] = ^v4[i]
			}
		}
		in = append(in, netip.AddrFrom4(v4))
	}
	return in
}

// inRanges returns what an address is according to a table, or "".
func inRanges(ranges []addressRange, a netip.Addr) string {
	if a.Zone() != "" {
		return "an address of a link"
	}
	for _, r := range ranges {
		if r.prefix.Contains(a) {
			return r.what
		}
	}
	for _, v4 := range embedded(a) {
		if what := inRanges(ranges, v4); what != "" {
			return what
		}
	}
	return ""
}

// specialAddress returns what is special about an address; "" if it may be dialed.
func specialAddress(a netip.Addr) string {
	if !a.IsValid() {
		return "no address"
	}
	return inRanges(specialRanges, a)
}

// privateAddress returns why a rule by name does not open an address; "" if it does.
func privateAddress(a netip.Addr) string {
	if what := inRanges(privateRanges, a); what != "" {
		return what
	}
	if own := hostAddresses.get(); slices.Contains(own, a) || slices.ContainsFunc(embedded(a), func(v4 netip.Addr) bool { return slices.Contains(own, v4) }) {
		return "an address of this host"
	}
	return ""
}

// hostAddresses are those of this host's devices: what listens on all of them is behind each, also behind the public one.
var hostAddresses addressCache

// An addressCache asks the kernel at most once a second.
type addressCache struct {
	mu    sync.Mutex
	asked time.Time
	addrs []netip.Addr
}

func (c *addressCache) get() []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked.IsZero() && time.Since(c.asked) < time.Second {
		return c.addrs
	}
	found, err := net.InterfaceAddrs()
	if err != nil {
		return c.addrs // of before
	}
	var addrs []netip.Addr
	for _, a := range found {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	c.asked, c.addrs = time.Now(), addrs
	return addrs
}
