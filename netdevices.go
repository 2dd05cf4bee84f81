//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// This file moves devices of the host's into a container, and back. It runs in the caller's process.
//
// When a network namespace ends, the kernel gives devices of hardware back to the host, and removes all others with it. So whoever has
// started the container, or destroys it, keeps the namespace open until the devices are back. If all of them are killed, the
// others are lost; those of hardware get back their names and addresses from the record.

// movedDevice is what a device of the host's was before.
type movedDevice struct {
	Host      string         `json:"host"`
	Inside    string         `json:"inside"`
	MAC       string         `json:"mac"`
	Permanent string         `json:"permanent,omitempty"` // the hardware address that nobody can change
	MTU       int            `json:"mtu"`
	Up        bool           `json:"up,omitempty"`
	Addresses []movedAddress `json:"addresses,omitempty"`
}

// movedAddress is an address of such a device.
type movedAddress struct {
	Prefix    netip.Prefix `json:"prefix"`
	Broadcast netip.Addr   `json:"broadcast,omitzero"`
}

// networks are those that a device is in.
func (d movedDevice) networks() []netip.Prefix {
	var all []netip.Prefix
	for _, a := range d.Addresses {
		all = append(all, a.Prefix)
	}
	return all
}

// lookAtNetDevices says what the devices are, and complains about those that cannot be moved.
func lookAtNetDevices(asked map[string]NetDevice) (devices []movedDevice, err error) {
	err = withHostNetlink(func(h *netlink.Handle) error {
		var errs fieldErrors
		for _, name := range slices.Sorted(maps.Keys(asked)) {
			d := movedDevice{Host: name, Inside: cmp.Or(asked[name].Name, name)}
			link, err := linkNamed(h, name)
			if err != nil {
				return err
			}
			if link == nil {
				errs = append(errs, &FieldError{Field: mapKey("Network.NetDevices", name), Problem: "the host has no such device", Err: unix.ENODEV})
				continue
			}
			attrs := link.Attrs()
			if attrs.Flags&net.FlagLoopback != 0 || attrs.MasterIndex != 0 || link.Type() == "bridge" {
				errs.addf(mapKey("Network.NetDevices", name), "the device is the host's loopback, a bridge, or a part of one, and cannot be moved")
				continue
			}
			d.MAC, d.Permanent, d.MTU, d.Up = attrs.HardwareAddr.String(), attrs.PermHWAddr.String(), attrs.MTU, attrs.Flags&net.FlagUp != 0
			if d.Addresses, err = movableAddresses(h, link); err != nil {
				return err
			}
			devices = append(devices, d)
		}
		return errs.join()
	})
	return devices, err
}

// movableAddresses are those that somebody has given the device for good.
func movableAddresses(h *netlink.Handle, link netlink.Link) ([]movedAddress, error) {
	list, err := whole(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, &Error{Op: "addresses", Path: link.Attrs().Name, Err: err}
	}
	var all []movedAddress
	for _, a := range list {
		if p := prefixOf(a.IPNet); p.IsValid() && a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&unix.IFA_F_PERMANENT != 0 {
			broadcast, _ := netip.AddrFromSlice(a.Broadcast)
			all = append(all, movedAddress{p, broadcast.Unmap()})
		}
	}
	return all, nil
}

// moveNetDevices moves the devices into a namespace.
func moveNetDevices(ctx context.Context, devices []movedDevice, routes []Route, netns *os.File) error {
	for _, d := range devices {
		if err := ctx.Err(); err != nil {
			return d.failed("move", err)
		}
		err := withHostNetlink(func(h *netlink.Handle) error {
			link, err := linkNamed(h, d.Host)
			if err == nil && link == nil {
				err = unix.ENODEV
			}
			if err == nil {
				err = moveLink(h, link, d.Inside, netns)
			}
			return err
		})
		if err != nil {
			return d.failed("move", err)
		}
		at("network: device moved")
		err = withNetlinkIn(netns, func(h *netlink.Handle) error {
			link, err := d.restore(h, d.Inside, true)
			if err == nil {
				err = addRoutes(h, link, routes, d.networks(), func(r Route) bool { return r.Interface == d.Inside })
			}
			return err
		})
		if err != nil {
			return err
		}
		at("network: device set up")
	}
	return nil
}

func (d movedDevice) failed(op string, err error) error {
	e := &Error{Op: op + " network device", Path: d.Host, Err: err}
	switch {
	case errors.Is(err, unix.EINVAL):
		e.Remedy = "the device is bound to the host's network namespace"
	case errors.Is(err, unix.EEXIST):
		e.Remedy = "another device has this name there"
	}
	return e
}

// moveLink moves a device to a namespace under a name, in one step.
//
// Equivalent to: ip link set LINK netns NETNS name NAME
func moveLink(h *netlink.Handle, link netlink.Link, name string, netns *os.File) error {
	if err := h.LinkSetDown(link); err != nil { // one that is up keeps its name, on kernels before 6.2
		return err
	}
	at("network: device down")
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(netns.Fd()))))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// restore gives a device its addresses, which it has lost by moving, and switches it on.
func (d movedDevice) restore(h *netlink.Handle, name string, up bool) (netlink.Link, error) {
	link, err := linkNamed(h, name)
	if err == nil && link == nil {
		err = unix.ENODEV
	}
	if err != nil {
		return nil, d.failed("set up", err)
	}
	if up {
		if err := h.LinkSetUp(link); err != nil {
			return nil, d.failed("set up", err)
		}
	}
	for _, a := range d.Addresses {
		broadcast := a.Broadcast
		if a.Prefix.Addr().Is4() && !broadcast.IsValid() {
			broadcast = netip.IPv4Unspecified() // else one would be made
		}
		err := addAddressWith(h, link, a.Prefix, broadcast)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, d.failed("set up", err)
		}
	}
	return link, nil
}

// returnNetDevices moves devices back to the host, from a namespace that is held open, or finds those that the kernel has given back. It can be called any
// number of times.
func returnNetDevices(devices []movedDevice, netns *os.File) error {
	var errs []error
	for _, d := range devices {
		if err := d.giveBack(netns); err != nil {
			errs = append(errs, d.failed("return", err))
		}
	}
	return errors.Join(errs...)
}

func (d movedDevice) giveBack(netns *os.File) error {
	if netns != nil {
		if err := d.moveBack(netns); err != nil && !errors.Is(err, unix.ENODEV) { // somebody else has just done it
			return err
		}
		at("network: device moved back")
	}
	return withHostNetlink(func(h *netlink.Handle) error {
		link, err := d.find(h, d.Host, d.Inside, "dev")
		if link == nil || err != nil {
			return err // it went with its namespace
		}
		attrs := link.Attrs()
		mac, err := net.ParseMAC(d.MAC)
		if err != nil && d.MAC != "" {
			return err
		}
		changed := attrs.Name != d.Host || d.MAC != "" && attrs.HardwareAddr.String() != d.MAC
		if changed {
			if err := h.LinkSetDown(link); err != nil {
				return err
			}
		}
		if attrs.Name != d.Host {
			if err := h.LinkSetName(link, d.Host); err != nil {
				return fmt.Errorf("it is called %s now: %w", attrs.Name, err)
			}
			at("network: device has its name")
		}
		if changed && d.MAC != "" {
			if err := h.LinkSetHardwareAddr(link, mac); err != nil {
				return err
			}
		}
		if attrs.MTU != d.MTU {
			if err := h.LinkSetMTU(link, d.MTU); err != nil {
				return err
			}
		}
		_, err = d.restore(h, d.Host, d.Up)
		return err
	})
}

// moveBack moves a device to the caller's namespace.
func (d movedDevice) moveBack(netns *os.File) error {
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	return withNetlinkIn(netns, func(h *netlink.Handle) error {
		link, err := d.find(h, d.Inside, "")
		if link == nil || err != nil {
			return err
		}
		return moveLink(h, link, d.Host, own)
	})
}

// find returns the device in a namespace; nil if it is not there. Who was in the container may have given it another name or address. It is looked for by the address, among those
// whose names begin with one of names, and without that by the first of names.
func (d movedDevice) find(h *netlink.Handle, names ...string) (netlink.Link, error) {
	links, err := whole(h.LinkList)
	if err != nil {
		return nil, err
	}
	var found netlink.Link
	rank := 0
	for _, link := range links {
		attrs := link.Attrs()
		if attrs.Flags&net.FlagLoopback != 0 || !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(attrs.Name, n) }) {
			continue
		}
		r := 0
		switch {
		case d.Permanent != "" && attrs.PermHWAddr.String() == d.Permanent:
			r = 3
		case d.MAC != "" && attrs.HardwareAddr.String() == d.MAC:
			r = 2
		case attrs.Name == names[0]:
			r = 1
		}
		if r > rank {
			found, rank = link, r
		}
	}
	return found, nil
}

// holdNetwork opens the network namespace of a container that devices have been moved to, while there is a process to find it by; else it returns
// nil.
func (c *Container) holdNetwork() (netns *os.File, devices []movedDevice) {
	st, err := c.record.state()
	if err != nil || len(st.MovedDevices) == 0 || st.Pid == 0 {
		return nil, nil
	}
	netns, err = os.Open(namespacePath(st.Pid, NetworkNamespace))
	if err != nil {
		return nil, nil
	}
	if start, err := startTime(st.Pid); err != nil || start != st.StartTime {
		netns.Close()
		return nil, nil
	}
	return netns, st.MovedDevices
}
