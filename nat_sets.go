//go:build linux

package container

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// This file says what stands in the sets and maps of the rules: all that there is about a container or a bridge. It is pure.

// A natSet is a set, or a map, of one of the two tables.
type natSet struct {
	name     string
	bridge   bool // it is in the table of the family bridge
	key, val []nftables.SetDatatype
}

// The sets. Their order is that of the tables.
var (
	// bridges are ours, internal those of them that lead nowhere, same each bridge with itself, own the addresses that the
	// host has on each.
	setBridges  = &natSet{name: "bridges", key: []nftables.SetDatatype{nftables.TypeIFName}}
	setInternal = &natSet{name: "internal", key: []nftables.SetDatatype{nftables.TypeIFName}}
	setSame     = &natSet{name: "same", key: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIFName}}
	setOwn4     = &natSet{name: "own4", key: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIPAddr}}
	setOwn6     = &natSet{name: "own6", key: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIP6Addr}}
	// opened are devices of the host's that forward packets of a family because of our bridges, and not otherwise.
	setOpened4 = &natSet{name: "opened4", key: []nftables.SetDatatype{nftables.TypeIFName}}
	setOpened6 = &natSet{name: "opened6", key: []nftables.SetDatatype{nftables.TypeIFName}}
	// self are the addresses of containers with ports, each with itself.
	setSelf4 = &natSet{name: "self4", key: []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIPAddr}}
	setSelf6 = &natSet{name: "self6", key: []nftables.SetDatatype{nftables.TypeIP6Addr, nftables.TypeIP6Addr}}

	// Published ports: those of one address of the host, and those of all of them.
	setExact4 = &natSet{name: "exact4", key: []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService}, val: natTarget4}
	setExact6 = &natSet{name: "exact6", key: []nftables.SetDatatype{nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService}, val: natTarget6}
	setPorts4 = &natSet{name: "ports4", key: []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}, val: natTarget4}
	setPorts6 = &natSet{name: "ports6", key: []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}, val: natTarget6}

	// The ports of bridges that lead to containers, and the addresses that these may send from.
	setDevices = &natSet{name: "devices", bridge: true, key: []nftables.SetDatatype{nftables.TypeIFName}}
	setMAC     = &natSet{name: "mac", bridge: true, key: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeEtherAddr}}
	setIP4     = &natSet{name: "ip4", bridge: true, key: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIPAddr}}
	setIP6     = &natSet{name: "ip6", bridge: true, key: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeIP6Addr}}

	natTarget4 = []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetService}
	natTarget6 = []nftables.SetDatatype{nftables.TypeIP6Addr, nftables.TypeInetService}

	natSets = []*natSet{setBridges, setInternal, setSame, setOwn4, setOwn6, setOpened4, setOpened6, setSelf4, setSelf6, setExact4, setExact6, setPorts4, setPorts6, setDevices, setMAC, setIP4, setIP6}
)

// A natElement is an element of a set; those that are equal are the same.
type natElement struct {
	set      *natSet
	key, val string
}

// element makes an element from the parts of its key and its value.
func (s *natSet) element(key []string, val ...string) natElement {
	return natElement{s, natBytes(key), natBytes(val)}
}

// natBytes joins the parts as the kernel has them: each in words of four bytes, in the order of the network.
func natBytes(parts []string) string {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return string(b)
}

func natDevice(name string) string {
	var b [unix.IFNAMSIZ]byte
	copy(b[:], name)
	return string(b[:])
}

func natAddr(a netip.Addr) string { return string(a.AsSlice()) }

func natPort(port uint16) string { return string(binary.BigEndian.AppendUint16(nil, port)) }

// natProtocols are the protocols that have ports that can be published.
var natProtocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// natBridgeElements is what there is about a bridge.
func natBridgeElements(b *Bridge) []natElement {
	dev := natDevice(b.Name)
	elements := []natElement{setBridges.element([]string{dev}), setSame.element([]string{dev, dev})}
	if b.Internal {
		elements = append(elements, setInternal.element([]string{dev}))
	}
	for _, a := range b.Gateways {
		set := setOwn4
		if a.Is6() {
			set = setOwn6
		}
		elements = append(elements, set.element([]string{dev, natAddr(a)}))
	}
	for _, d := range b.Forwarding {
		elements = append(elements, natOpenedElement(d))
	}
	return elements
}

// natOpenedElement is for a device of Bridge.Forwarding.
func natOpenedElement(device string) natElement {
	family, name, _ := strings.Cut(device, "/")
	set := setOpened4
	if family == "ipv6" {
		set = setOpened6
	}
	return set.element([]string{natDevice(name)})
}

// natEndpointElements is what there is about a container.
func natEndpointElements(e *endpoint) []natElement {
	var elements []natElement
	if dev := e.Network.HostInterface; dev != "" {
		elements = append(elements, setDevices.element([]string{natDevice(dev)}))
		mac, _ := net.ParseMAC(e.Network.MAC)
		if len(mac) == 6 {
			elements = append(elements, setMAC.element([]string{natDevice(dev), string(mac)}))
		}
		six := false
		for _, p := range e.Network.Addresses {
			set := setIP4
			if p.Addr().Is6() {
				set, six = setIP6, true
			}
			elements = append(elements, set.element([]string{natDevice(dev), natAddr(p.Addr())}))
		}
		if six && len(mac) == 6 {
			elements = append(elements, setIP6.element([]string{natDevice(dev), natAddr(linkLocal(mac))}))
		}
	}
	for _, m := range e.Network.PortMappings {
		elements = append(elements, natPortElements(m, e.Network.Addresses)...)
	}
	return elements
}

// natPortElements is what there is about a published port: an element for each port and family, and one for the container itself.
func natPortElements(m PortMapping, addresses []netip.Prefix) []natElement {
	var elements []natElement
	proto := string([]byte{natProtocols[cmp.Or(m.Protocol, "tcp")]})
	host := m.HostIP.Unmap().WithZone("")
	for _, six := range []bool{false, true} {
		to := natTargetOf(addresses, six)
		if !to.IsValid() || host.IsValid() && host.Is6() != six {
			continue
		}
		exact, ports, self := setExact4, setPorts4, setSelf4
		if six {
			exact, ports, self = setExact6, setPorts6, setSelf6
		}
		elements = append(elements, self.element([]string{natAddr(to), natAddr(to)}))
		for i := range max(m.Count, 1) {
			key, target := []string{proto, natPort(m.HostPort + i)}, []string{natAddr(to), natPort(m.ContainerPort + i)}
			if host.IsValid() && !host.IsUnspecified() {
				elements = append(elements, exact.element(append([]string{natAddr(host)}, key...), target...))
			} else {
				elements = append(elements, ports.element(key, target...))
			}
		}
	}
	return elements
}

// natTargetOf is the address of a family that ports are forwarded to: the first.
func natTargetOf(addresses []netip.Prefix, six bool) netip.Addr {
	for _, p := range addresses {
		if p.Addr().Is6() == six && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// linkLocal is the address that the kernel gives a device by itself.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// natBySet sorts elements into their sets. Each is there once.
func natBySet(elements []natElement) map[*natSet][]nftables.SetElement {
	seen := map[natElement]bool{}
	for _, e := range elements {
		seen[e] = true
	}
	sets := map[*natSet][]nftables.SetElement{}
	for _, e := range slices.SortedFunc(maps.Keys(seen), func(a, b natElement) int { return cmp.Compare(a.key, b.key) }) {
		sets[e.set] = append(sets[e.set], nftables.SetElement{Key: []byte(e.key), Val: []byte(e.val)})
	}
	return sets
}
