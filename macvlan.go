//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file gives a network namespace a device of its own on the wire of one of the host's. It runs in the caller's process.

// macvlanModes are the values of NetworkConfig.MacvlanMode.
var macvlanModes = map[string]netlink.MacvlanMode{
	"bridge":   netlink.MACVLAN_MODE_BRIDGE,
	"private":  netlink.MACVLAN_MODE_PRIVATE,
	"vepa":     netlink.MACVLAN_MODE_VEPA,
	"passthru": netlink.MACVLAN_MODE_PASSTHRU,
}

// macvlanParent returns the host's device.
func macvlanParent(h *netlink.Handle, n *NetworkConfig) (netlink.Link, error) {
	link, err := linkNamed(h, n.Parent)
	if err != nil {
		return nil, err
	}
	if link == nil {
		return nil, &FieldError{Field: "Network.Parent", Problem: "the host has no device " + n.Parent, Err: unix.ENODEV}
	}
	if n.MTU > link.Attrs().MTU {
		return nil, fieldErrorf("Network.MTU", "%d is more than the %d of %s", n.MTU, link.Attrs().MTU, n.Parent)
	}
	if _, ok := macvlanModes[cmp.Or(n.MacvlanMode, "bridge")]; !ok {
		return nil, fieldErrorf("Network.MacvlanMode", "%q is not bridge, private, vepa or passthru", n.MacvlanMode)
	}
	return link, nil
}

// wirePatience is how long a device may be in the way whose container has ended.
const wirePatience = 10 * time.Second

// onceWireIsFree calls f again for as long as it returns busy. The kernel removes the device of a container some time after its namespace, and until then
// nobody can reach it, and no other device can have its hardware address on the same wire.
func onceWireIsFree(ctx context.Context, busy error, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, wirePatience)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := f()
		if err == nil || busy == nil || !errors.Is(err, busy) {
			return err
		}
		at("network: wire is taken")
		if sleep(ctx, pause) != nil {
			return err
		}
	}
}

// connectMacvlan makes the device: it is born in the namespace, and goes with it.
func connectMacvlan(ctx context.Context, h *netlink.Handle, e *endpoint, n *NetworkConfig, netns *os.File) error {
	parent, err := macvlanParent(h, n)
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(e.Network.MAC)
	if err != nil {
		return &Error{Op: "make macvlan", Path: n.Parent, Err: err}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = e.Key, e.Network.MTU, mac
	attrs.ParentIndex, attrs.Namespace = parent.Attrs().Index, netlink.NsFd(netns.Fd())
	mode := macvlanModes[cmp.Or(n.MacvlanMode, "bridge")]
	if mode == netlink.MACVLAN_MODE_PASSTHRU {
		attrs.HardwareAddr = nil // it is the parent's
	}
	// Some kernels look for the name here as well, where it may be another device's. So it has one of its own at first.
	var alone error // the errno that tells that the parent has another
	if mode == netlink.MACVLAN_MODE_PASSTHRU {
		alone = unix.EINVAL
	}
	if err := onceWireIsFree(ctx, alone, func() error { return h.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: mode}) }); err != nil {
		e := &Error{Op: "make macvlan", Path: n.Parent, Err: err}
		switch {
		case errors.Is(err, unix.EBUSY):
			e.Remedy = "the device is part of a bridge or a bond, or has another device of this kind that excludes this one"
		case errors.Is(err, unix.EINVAL):
			e.Remedy = "the device must be one of Ethernet, and the hardware address free"
		case errors.Is(err, unix.EOPNOTSUPP):
			e.Remedy = "the kernel has no macvlan: load the module"
		}
		return e
	}
	at("network: link")
	err = withNetlinkIn(netns, func(in *netlink.Handle) error {
		link, err := linkNamed(in, e.Key)
		if err == nil && link == nil {
			err = unix.ENODEV
		}
		if err == nil {
			err = in.LinkSetName(link, e.Network.Interface)
		}
		if err != nil {
			return &Error{Op: "make macvlan", Path: n.Parent, Err: err}
		}
		return setUpInside(ctx, in, e, n)
	})
	at("network: inside")
	return err
}
