//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file connects a network namespace to a bridge: by a pair of devices, of which one is born in the namespace, and never was
// anywhere else. It runs in the caller's process.

// connectVeth makes the pair and sets up both ends. The host's end is switched on last, when its rules are there: until then no packet passes.
func connectVeth(ctx context.Context, h *netlink.Handle, b *Bridge, e *endpoint, n *NetworkConfig, netns *os.File) error {
	fail := func(err error) error {
		if errors.Is(err, unix.EPERM) {
			return &Error{Op: "connect network", Path: e.Key, Err: err, Remedy: "it needs CAP_NET_ADMIN, here and in the container's network namespace"}
		}
		return &Error{Op: "connect network", Path: e.Key, Err: err}
	}
	mac, err := net.ParseMAC(e.Network.MAC)
	if err != nil {
		return fail(err)
	}
	link, err := linkNamed(h, b.Name)
	if err == nil && link == nil {
		err = &Error{Op: "bridge", Path: b.Name, Err: unix.ENODEV, Remedy: "it has been removed meanwhile"}
	}
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = e.Key, e.Network.MTU, link.Attrs().Index
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr, pair.PeerNamespace = e.Network.Interface, mac, netlink.NsFd(netns.Fd())
	if err := h.LinkAdd(pair); err != nil {
		return fail(err)
	}
	at("network: link")
	// A container that asks the host for its own published port is sent back by where it came from.
	if err := h.LinkSetHairpin(pair, true); err != nil {
		return fail(err)
	}
	// The host's end is a port of the bridge, and nothing of the host's talks by it.
	if haveIPv6() {
		if err := setDeviceParameter("ipv6", e.Key, "disable_ipv6", "1"); err != nil {
			return err
		}
	}
	if err := withNetlinkIn(netns, func(in *netlink.Handle) error { return setUpInside(ctx, in, e, n) }); err != nil {
		return err
	}
	at("network: inside")
	if err := natConnect(ctx, b, e); err != nil {
		return err
	}
	at("network: rules")
	if err := h.LinkSetUp(pair); err != nil {
		return fail(err)
	}
	at("network: up")
	return nil
}

// setUpInside sets up the container's device. The calling thread is in its namespace.
func setUpInside(ctx context.Context, h *netlink.Handle, e *endpoint, n *NetworkConfig) error {
	st := &e.Network
	fail := func(err error) error {
		e := &Error{Op: "set up network device", Path: st.Interface, Err: err}
		if errors.Is(err, unix.EADDRINUSE) {
			e.Remedy = "a device that is not of this StateDir has the hardware address " + st.MAC + " on the wire of Parent; set another NetworkConfig.MAC"
		}
		return e
	}
	link, err := linkNamed(h, st.Interface)
	if err == nil && link == nil {
		err = fail(unix.ENODEV)
	}
	if err != nil {
		return err
	}
	v6 := false
	for _, p := range st.Addresses {
		v6 = v6 || p.Addr().Is6()
	}
	if err := quietIPv6(st.Interface, !v6); err != nil {
		return err
	}
	for _, p := range st.Addresses {
		if err := addAddress(h, link, p); err != nil {
			return fail(err)
		}
	}
	if err := onceWireIsFree(ctx, unix.EADDRINUSE, func() error { return h.LinkSetUp(link) }); err != nil {
		return fail(err)
	}
	for _, g := range st.Gateways {
		if err := addRoute(h, link, Route{Destination: netip.PrefixFrom(unspecified(g), 0), Gateway: g}, st.Addresses); err != nil {
			return fail(err)
		}
	}
	return addRoutes(h, link, n.Routes, st.Addresses, func(r Route) bool { return r.Interface == "" || r.Interface == st.Interface })
}

// addRoutes adds those routes that are by a device.
func addRoutes(h *netlink.Handle, link netlink.Link, routes []Route, onLink []netip.Prefix, by func(Route) bool) error {
	for _, r := range routes {
		if !by(r) {
			continue
		}
		if err := addRoute(h, link, r, onLink); err != nil {
			return &Error{Op: "set up network device", Path: link.Attrs().Name, Err: err}
		}
	}
	return nil
}

// addRoute adds a route. A next hop that is in no network of the device is taken to be on its link all the same.
func addRoute(h *netlink.Handle, link netlink.Link, r Route, networks []netip.Prefix) error {
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.Destination.Masked()), Priority: r.Metric}
	if r.Source.IsValid() {
		route.Src = r.Source.AsSlice()
	}
	if r.Gateway.IsValid() {
		route.Gw = r.Gateway.AsSlice()
		// For IPv6 the network's own route comes some time after the device is up.
		near := false
		for _, p := range networks {
			near = near || p.Contains(r.Gateway) && p.Addr().Is4()
		}
		if !near {
			route.SetFlag(netlink.FLAG_ONLINK)
		}
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := h.RouteAdd(route); err != nil {
		return fmt.Errorf("route to %v by %v: %w", r.Destination, r.Gateway, err)
	}
	return nil
}

// unspecified is 0.0.0.0 or ::, whichever is of the address's family.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
