//go:build linux

package container

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file makes the kernel forget connections: it takes the packets of one that it knows where the first went, whatever the rules
// have become. It runs in the caller's process.

// flowFilter chooses connections.
type flowFilter func(f *netlink.ConntrackFlow) bool

func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

// flushFlows forgets the connections that a filter chooses. It looks at all once: that takes as long as the kernel's table is large.
func flushFlows(filter flowFilter) error {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return natError("forget connections", err)
	}
	defer h.Close()
	const tries = 5
	for i := 0; ; i++ {
		flows, err := h.ConntrackTableList(netlink.ConntrackTable, unix.AF_UNSPEC)
		families := map[netlink.InetFamily]bool{}
		for _, f := range flows {
			if filter(f) {
				families[netlink.InetFamily(f.FamilyType)] = true
			}
		}
		for family := range families { // only one that has a family can be removed
			_, derr := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter)
			err = errors.Join(err, derr)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR):
			return natError("forget connections", err)
		case i == tries:
			return nil // what the table changes by now has been made by the new rules
		}
	}
}

// flowAddrs returns the addresses of one direction of a connection.
func flowAddrs(t netlink.IPTuple) (src, dst netip.Addr) {
	src, _ = netip.AddrFromSlice(t.SrcIP)
	dst, _ = netip.AddrFromSlice(t.DstIP)
	return src.Unmap(), dst.Unmap()
}

// flushFlowsOf forgets the connections from and to addresses of a container.
func flushFlowsOf(addresses []netip.Prefix) error {
	if len(addresses) == 0 {
		return nil
	}
	ours := func(a netip.Addr) bool {
		return slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	}
	return flushFlows(func(f *netlink.ConntrackFlow) bool {
		from, _ := flowAddrs(f.Forward)
		answers, _ := flowAddrs(f.Reverse)
		return ours(from) || ours(answers)
	})
}

// flushFlowsTo forgets the connections that were forwarded to ports of a container.
func flushFlowsTo(mappings []PortMapping, addresses []netip.Prefix) error {
	return flushFlows(func(f *netlink.ConntrackFlow) bool {
		answers, _ := flowAddrs(f.Reverse)
		return slices.ContainsFunc(mappings, func(m PortMapping) bool {
			return f.Forward.Protocol == natProtocols[cmp.Or(m.Protocol, "tcp")] && f.Reverse.SrcPort-m.ContainerPort < max(m.Count, 1)
		}) && slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr() == answers })
	})
}

// flushFlowsBefore forgets the streams of packets to ports that are about to be a container's: a sender that does not stop
// would never reach it. Of connections there are none, as nobody has listened.
func flushFlowsBefore(mappings []PortMapping) error {
	var udp []PortMapping
	for _, m := range mappings {
		if m.Protocol == "udp" {
			udp = append(udp, m)
		}
	}
	if len(udp) == 0 {
		return nil
	}
	return flushFlows(func(f *netlink.ConntrackFlow) bool {
		_, to := flowAddrs(f.Forward)
		answers, _ := flowAddrs(f.Reverse)
		return f.Forward.Protocol == unix.IPPROTO_UDP && to == answers && slices.ContainsFunc(udp, func(m PortMapping) bool {
			host := m.HostIP.Unmap().WithZone("")
			return f.Forward.DstPort-m.HostPort < max(m.Count, 1) && (!host.IsValid() || host.IsUnspecified() || host == to)
		})
	})
}

// flushFlowsPast forgets the connections of bridges that the rules have not seen the beginning of: those to an address of a container
// itself, and those out of one that still have its own address.
func flushFlowsPast(bridges []*Bridge) error {
	var subnets []netip.Prefix
	for _, b := range bridges {
		subnets = append(subnets, b.Subnets...)
	}
	if len(subnets) == 0 {
		return nil
	}
	ours := func(a netip.Addr) bool {
		return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return flushFlows(func(f *netlink.ConntrackFlow) bool {
		from, to := flowAddrs(f.Forward)
		_, back := flowAddrs(f.Reverse)
		return ours(to) || ours(from) && from == back
	})
}
