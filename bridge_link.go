//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file makes the bridges that bridge.go describes, and removes them. It runs in the caller's process. What a bridge is to be is on disk before it is
// there, and it is up when all of it is there: a bridge that is up, and is the one of the record, needs no further look.

// allBridges is what is locked while a network is chosen, or forwarding is switched: no bridge can have this name.
const allBridges = "all"

// EnsureBridge makes a bridge, or checks that it is there as described: with what the description leaves at its zero value, any
// will do. A bridge that is there with other values, and a device of this name that is none of ours, is an error. After a reboot, or
// when somebody has removed the device, it is made again as it was.
//
// The host forwards packets between the bridge and its other devices from then on, unless it is Internal; see Bridge.Forwarding. It needs
// CAP_NET_ADMIN in the caller's network namespace. It returns ErrLocked when ctx is done while another process holds a lock of the state directory.
func EnsureBridge(ctx context.Context, cfg BridgeConfig) (*Bridge, error) {
	s, err := openNetworkStore(cmp.Or(cfg.StateDir, defaultNetworkStateDir))
	if err != nil {
		return nil, err
	}
	var b *Bridge
	err = withHostNetlink(func(h *netlink.Handle) (err error) {
		b, err = s.ensureBridge(ctx, h, cfg, true)
		return err
	})
	return b, err
}

// Bridges returns those that EnsureBridge has made with this state directory, by their names. Empty means the default.
func Bridges(stateDir string) ([]*Bridge, error) {
	s, err := openNetworkStore(cmp.Or(stateDir, defaultNetworkStateDir))
	if err != nil {
		return nil, err
	}
	all, err := s.bridges()
	slices.SortFunc(all, func(a, b *Bridge) int { return cmp.Compare(a.Name, b.Name) })
	return all, err
}

// ensureBridge is EnsureBridge. Without look, a bridge that is up is taken to be as it should be, and no look is had at the host's other devices.
func (s *networkStore) ensureBridge(ctx context.Context, h *netlink.Handle, asked BridgeConfig, look bool) (*Bridge, error) {
	cfg, gateways, err := asked.resolved()
	if err != nil {
		return nil, err
	}
	cfg.StateDir = s.dir
	s = s.during(ctx)
	lock, err := s.lockBridge(cfg.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: "bridge", Path: cfg.Name, Err: err}
	}
	link, err := linkNamed(h, cfg.Name)
	if err != nil {
		return nil, err
	}
	b, err := s.readBridge(cfg.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if b, err = s.describeBridge(h, link, cfg, gateways); err != nil {
			return nil, err
		}
		at("bridge: recorded")
	case err != nil:
		return nil, err
	default:
		if err := cfg.differs(b, gateways); err != nil {
			return nil, err
		}
	}
	if link, err = b.ensureLink(h, link); err != nil {
		return nil, err
	}
	up := link.Attrs().Flags&net.FlagUp != 0
	if up && !look && !b.Adopt && !b.forwardsNeedlessly() && !b.forwardingLost() { // one that is adopted is up before it has rules
		return b, nil
	}
	return b, s.completeBridge(h, b, link, up)
}

// describeBridge decides what a new bridge will be, and records it.
func (s *networkStore) describeBridge(h *netlink.Handle, link netlink.Link, cfg BridgeConfig, gateways []netip.Addr) (*Bridge, error) {
	lock, err := s.lockBridge(allBridges)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	b := &Bridge{BridgeConfig: cfg, Gateways: gateways}
	switch {
	case cfg.Adopt:
		err = b.adopt(h, link)
	case link != nil:
		err = &Error{Op: "bridge", Path: cfg.Name, Err: unix.EEXIST, Remedy: "a device of this name is there, and is not ours: use another name, or BridgeConfig.Adopt"}
	default:
		err = s.fillBridge(h, b)
	}
	if err != nil {
		return nil, err
	}
	return b, s.writeBridge(b)
}

// fillBridge resolves the zero values that depend on the host.
func (s *networkStore) fillBridge(h *netlink.Handle, b *Bridge) error {
	others, err := s.bridges()
	if err != nil {
		return err
	}
	var taken []netip.Prefix
	for _, o := range others {
		taken = append(taken, o.Subnets...)
	}
	if len(b.Subnets) == 0 {
		if b.Subnets, err = chooseSubnets(h, taken); err != nil {
			return err
		}
		for _, p := range b.Subnets {
			b.Gateways = append(b.Gateways, firstAddress(p))
		}
	} else if err := b.collides(h, others); err != nil {
		return err
	}
	if b.hasIPv6() && !haveIPv6() {
		return fieldErrorf("BridgeConfig.Subnets", "the kernel has no IPv6; leave out %v", b.Subnets)
	}
	if b.MTU == 0 {
		if b.MTU, err = uplinkMTU(h); err != nil {
			return err
		}
	}
	if b.hasIPv6() && b.MTU < 1280 {
		return fieldErrorf("BridgeConfig.MTU", "%d is less than the 1280 that IPv6 needs", b.MTU)
	}
	b.MAC = cmp.Or(b.MAC, hardwareAddr(b.Gateways[0]).String())
	return nil
}

// collides says whether packets to the bridge's networks have another way by now.
func (b *Bridge) collides(h *netlink.Handle, others []*Bridge) error {
	routed, err := routedPrefixes(h)
	if err != nil {
		return err
	}
	for i, p := range b.Subnets {
		for _, o := range others {
			if overlapsAny(p, o.Subnets) {
				return fieldErrorf(index("BridgeConfig.Subnets", i), "%v overlaps with the bridge %s, which has %v", p, o.Name, o.Subnets)
			}
		}
		for _, r := range routed {
			if p.Overlaps(r) && r.Bits() >= p.Bits() { // a wider route leaves the narrower one of the bridge its due
				return fieldErrorf(index("BridgeConfig.Subnets", i), "the host has a route to %v, which is in %v", r, p)
			}
		}
	}
	return nil
}

// adopt takes a bridge of somebody else's as it is.
func (b *Bridge) adopt(h *netlink.Handle, link netlink.Link) error {
	fail := func(err error, remedy string) error {
		return &Error{Op: "adopt bridge", Path: b.Name, Err: err, Remedy: remedy}
	}
	if link == nil {
		return fail(unix.ENODEV, "BridgeConfig.Adopt is for a bridge that is there")
	}
	if link.Type() != "bridge" || link.Attrs().Flags&net.FlagUp == 0 {
		return fail(unix.EINVAL, fmt.Sprintf("it is a %s with %v, and not a bridge that is up", link.Type(), link.Attrs().Flags))
	}
	all, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fail(err, "")
	}
	subnets, gateways := b.Subnets, b.Gateways
	b.Subnets, b.Gateways = nil, nil
	families := make(map[bool]bool)
	for _, a := range all {
		p := prefixOf(a.IPNet)
		if !p.IsValid() || p.Addr().IsLinkLocalUnicast() || p.IsSingleIP() || families[p.Addr().Is4()] {
			continue
		}
		if len(subnets) > 0 && !slices.Contains(subnets, p.Masked()) {
			continue
		}
		families[p.Addr().Is4()] = true
		b.Subnets, b.Gateways = append(b.Subnets, p.Masked()), append(b.Gateways, p.Addr())
	}
	if len(b.Subnets) == 0 || len(subnets) > len(b.Subnets) {
		return fail(unix.EADDRNOTAVAIL, fmt.Sprintf("it has %v; BridgeConfig.Subnets are %v with %v", b.Gateways, subnets, gateways))
	}
	b.MTU, b.MAC = cmp.Or(b.MTU, link.Attrs().MTU), link.Attrs().HardwareAddr.String()
	return nil
}

// uplinkMTU is that of the device with the host's default route.
func uplinkMTU(h *netlink.Handle) (int, error) {
	routes, err := whole(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, &Error{Op: "routes", Err: err}
	}
	for _, r := range routes {
		if r.LinkIndex == 0 || r.Dst != nil && prefixOf(r.Dst).Bits() > 0 {
			continue
		}
		if link, err := h.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU >= 1280 {
			return min(link.Attrs().MTU, 65535), nil
		}
	}
	return 1500, nil
}

// hardwareAddr makes a hardware address from another: such an address is the host's own to give, and stays with who has the other.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	if a.Is4() {
		ip := a.As4()
		return net.HardwareAddr{0x02, 0x42, ip[0], ip[1], ip[2], ip[3]}
	}
	ip := a.As16()
	mac := net.HardwareAddr{0x02, 0x46, 0, 0, 0, 0}
	for i, b := range ip { // what tells apart those of one network are the last bytes, which stay as they are
		mac[2+i%4] ^= b
	}
	return mac
}

// ensureLink returns the device of a bridge, made if there is none.
func (b *Bridge) ensureLink(h *netlink.Handle, link netlink.Link) (netlink.Link, error) {
	if link != nil {
		if link.Type() != "bridge" || link.Attrs().HardwareAddr.String() != b.MAC {
			return nil, &Error{Op: "bridge", Path: b.Name, Err: unix.EEXIST,
				Remedy: fmt.Sprintf("a %s with the hardware address %s is there, which is not the one that was made with %s; remove one of them", link.Type(), link.Attrs().HardwareAddr, b.MAC)}
		}
		return link, nil
	}
	if b.Adopt {
		return nil, &Error{Op: "bridge", Path: b.Name, Err: unix.ENODEV, Remedy: "who has made it has removed it; make it again, or call RemoveBridge"}
	}
	mac, err := net.ParseMAC(b.MAC)
	if err != nil {
		return nil, &Error{Op: "bridge", Path: b.Name, Err: err}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = b.Name, b.MTU, mac
	// Who listens to which group is not told on it: what is for groups goes to all, as what is for everyone does.
	snooping := false
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		e := &Error{Op: "make bridge", Path: b.Name, Err: err}
		if errors.Is(err, unix.EPERM) {
			e.Remedy = "it needs CAP_NET_ADMIN in this network namespace"
		}
		return nil, e
	}
	at("bridge: made")
	return linkNamed(h, b.Name)
}

// completeBridge gives a bridge all that it should have.
func (s *networkStore) completeBridge(h *netlink.Handle, b *Bridge, link netlink.Link, up bool) error {
	lock, err := s.lockBridge(allBridges)
	if err != nil {
		return err
	}
	defer lock.Close()
	fail := func(err error) error { return &Error{Op: "set up bridge", Path: b.Name, Err: err} }
	if !b.Adopt {
		if !up {
			if err := quietIPv6(b.Name, !b.hasIPv6()); err != nil {
				return err
			}
		}
		if link.Attrs().MTU != b.MTU {
			if err := h.LinkSetMTU(link, b.MTU); err != nil {
				return fail(err)
			}
		}
		if err := b.ensureAddresses(h, link); err != nil {
			return fail(err)
		}
		at("bridge: addresses")
	}
	if !b.Internal {
		all, err := s.healForwarding(h)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, func(o *Bridge) bool { return o.Name == b.Name }); i >= 0 {
			b.Forwarding = all[i].Forwarding
		}
	}
	if err := natBridge(s.ctx, b); err != nil {
		return err
	}
	at("bridge: rules")
	if err := b.forward(); err != nil {
		return err
	}
	at("bridge: forwarding")
	if !up {
		if err := h.LinkSetUp(link); err != nil {
			return fail(err)
		}
		at("bridge: up")
	}
	return nil
}

// ensureAddresses gives a bridge its own addresses. Others that somebody has given it stay.
func (b *Bridge) ensureAddresses(h *netlink.Handle, link netlink.Link) error {
	all, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for i, p := range b.Subnets {
		own := netip.PrefixFrom(b.Gateways[i], p.Bits())
		if slices.ContainsFunc(all, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == own }) {
			continue
		}
		if err := addAddress(h, link, own); err != nil {
			return err
		}
	}
	return nil
}

// addAddress gives a device an address that it can use at once.
func addAddress(h *netlink.Handle, link netlink.Link, p netip.Prefix) error {
	return addAddressWith(h, link, p, netip.Addr{})
}

// addAddressWith does so with a broadcast address: 0.0.0.0 for none, not valid for that of the network.
func addAddressWith(h *netlink.Handle, link netlink.Link, p netip.Prefix, broadcast netip.Addr) error {
	a := &netlink.Addr{IPNet: ipNet(p), Broadcast: broadcast.AsSlice()}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("address %v: %w", p, err)
	}
	return nil
}
