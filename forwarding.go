//go:build linux

package container

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file lets the host forward packets from and to bridges. It runs in the caller's process. The host's own switch, net.ipv4.ip_forward, stays as it is: whether a
// packet is forwarded depends on the device it comes in by, so that is switched on for the bridge and for the devices that
// answers come in by. What comes in by these and is not for a bridge is dropped by a rule that is there before the switch.

// EnsureForwardingEnabled makes the host a router: all of its devices forward, also what has nothing to do with containers. EnsureBridge does not need it,
// except for IPv6 on a kernel before 6.17, which has no such switch for one device. Devices that take their addresses from routers go on doing so.
//
// Equivalent to: sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
func EnsureForwardingEnabled(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: "forwarding", Err: err}
	}
	if err := setDeviceParameter("ipv4", "all", "forwarding", "1"); err != nil {
		return err
	}
	if !haveIPv6() || parameterIs("ipv6", "all", "forwarding", "1") {
		return nil
	}
	entries, err := os.ReadDir("/proc/sys/net/ipv6/conf")
	if err != nil {
		return &Error{Op: "forwarding", Err: err}
	}
	for _, e := range entries {
		// 1 means: unless it forwards; 2: even then.
		if e.Name() != "all" && parameterIs("ipv6", e.Name(), "accept_ra", "1") {
			if err := setIfThere("ipv6", e.Name(), "accept_ra", "2"); err != nil {
				return err
			}
		}
	}
	return setDeviceParameter("ipv6", "all", "forwarding", "1")
}

// forwardParameters are what lets packets of a family be forwarded that come in by a device.
var forwardParameters = map[string]string{"ipv4": "forwarding", "ipv6": "force_forwarding"}

// forwardsAll tells whether the host forwards packets of a family by all of its devices, because of somebody else.
func forwardsAll(family string) bool { return parameterIs(family, "all", "forwarding", "1") }

// forwardsNeedlessly tells whether somebody else has made the host a router since: other traffic must not be dropped any more.
func (b *Bridge) forwardsNeedlessly() bool {
	return slices.ContainsFunc(b.Forwarding, func(device string) bool { return forwardsAll(device[:len("ipv4")]) })
}

// forwardingLost tells whether somebody has made the host no router any more, which switches off all of its devices, the bridge as well.
func (b *Bridge) forwardingLost() bool {
	if b.Internal {
		return false
	}
	for family, parameter := range forwardParameters {
		if b.gateway(family == "ipv4").IsValid() && !forwardsAll(family) && parameterIs(family, b.Name, parameter, "0") {
			return true
		}
	}
	return false
}

// healForwarding makes the records of all bridges say which devices have to be switched on, and have to have the rule, as things are now: those of a family for which
// somebody else has made the host a router have not, and their rules are removed. It returns the bridges that are there. The lock of all bridges is held, without which
// nobody changes a record.
func (s *networkStore) healForwarding(h *netlink.Handle) ([]*Bridge, error) {
	all, err := s.bridges()
	if err != nil {
		return nil, err
	}
	var there, changed []*Bridge
	var needless []natElement
	for _, b := range all {
		if b.Internal {
			continue
		}
		before := slices.Clone(b.Forwarding)
		b.Forwarding = slices.DeleteFunc(b.Forwarding, func(device string) bool {
			if !forwardsAll(device[:len("ipv4")]) {
				return false
			}
			if e := natOpenedElement(device); !slices.Contains(needless, e) {
				needless = append(needless, e)
			}
			return true
		})
		link, err := linkNamed(h, b.Name)
		if err != nil {
			return nil, err
		}
		if link != nil {
			there = append(there, b)
			off, err := b.notForwarding(h, all)
			if err != nil {
				return nil, err
			}
			for _, device := range off {
				if !slices.Contains(b.Forwarding, device) {
					b.Forwarding = append(b.Forwarding, device)
				}
			}
		}
		if !slices.Equal(before, b.Forwarding) {
			changed = append(changed, b)
		}
	}
	if len(needless) > 0 {
		// The rules before the records: while a record says so it can be tried again. Nobody makes all anew from the records in between.
		n, err := openNAT(s, unix.LOCK_SH)
		if err != nil {
			return nil, err
		}
		defer n.close()
		if err := n.remove(needless); err != nil {
			return nil, err
		}
		at("forwarding: no needless rules")
	}
	for _, b := range changed {
		if err := s.writeBridge(b); err != nil {
			return nil, err
		}
		at("forwarding: recorded")
	}
	return there, nil
}

// forwardFamilies are those of a bridge of which the host does not forward everything anyway.
func (b *Bridge) forwardFamilies() []string {
	var all []string
	for _, family := range []string{"ipv4", "ipv6"} {
		if b.gateway(family == "ipv4").IsValid() && !forwardsAll(family) {
			all = append(all, family)
		}
	}
	return all
}

// notForwarding returns the devices by which answers may come in, and that do not forward them, or do so because of another bridge.
func (b *Bridge) notForwarding(h *netlink.Handle, bridges []*Bridge) ([]string, error) {
	routes, err := whole(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, &Error{Op: "routes", Err: err}
	}
	seen := make(map[int]bool)
	for _, r := range routes {
		seen[r.LinkIndex] = true
		for _, hop := range r.MultiPath {
			seen[hop.LinkIndex] = true
		}
	}
	var off []string
	for i := range seen {
		link, err := h.LinkByIndex(i)
		if err != nil {
			continue // it is gone, or was none
		}
		name := link.Attrs().Name
		ours := slices.ContainsFunc(bridges, func(b *Bridge) bool { return b.Name == name && !b.Adopt })
		if name == "lo" || name == b.Name || ours {
			continue
		}
		for _, family := range b.forwardFamilies() {
			device := family + "/" + name
			another := slices.ContainsFunc(bridges, func(b *Bridge) bool { return slices.Contains(b.Forwarding, device) })
			if another || parameterIs(family, name, forwardParameters[family], "0") {
				off = append(off, device)
			}
		}
	}
	slices.Sort(off)
	return off, nil
}

// forward switches forwarding on, for the bridge and for the devices of b.Forwarding.
func (b *Bridge) forward() error {
	if b.Internal {
		return nil
	}
	devices := slices.Clone(b.Forwarding)
	for _, family := range []string{"ipv4", "ipv6"} {
		if b.gateway(family == "ipv4").IsValid() {
			devices = append(devices, family+"/"+b.Name)
		}
	}
	return setForwarding(devices, "1")
}

// stopForwarding switches forwarding off again where no other bridge needs it, and returns the devices.
func (b *Bridge) stopForwarding(others []*Bridge) ([]string, error) {
	needless := slices.DeleteFunc(slices.Clone(b.Forwarding), func(device string) bool {
		return slices.ContainsFunc(others, func(o *Bridge) bool { return o.Name != b.Name && slices.Contains(o.Forwarding, device) })
	})
	off := slices.DeleteFunc(slices.Clone(needless), func(device string) bool { return forwardsAll(device[:len("ipv4")]) })
	return needless, setForwarding(off, "0")
}

// setForwarding sets it for devices with their families. A device may be gone, and a kernel before 6.17 has not the parameter of IPv6.
func setForwarding(devices []string, value string) error {
	for _, d := range devices {
		family, name, _ := strings.Cut(d, "/")
		if err := setIfThere(family, name, forwardParameters[family], value); err != nil {
			return err
		}
	}
	return nil
}
