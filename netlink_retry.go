//go:build linux

package container

import (
	"errors"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file opens sockets to the kernel's network configuration, and repeats what it did not answer as a whole. It runs in the
// caller's process. No socket of the netlink package's own is used: that would be one for all callers, in the network
// namespace of whoever came first.

// withHostNetlink calls f with a socket of the caller's network namespace.
func withHostNetlink(f func(h *netlink.Handle) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return &Error{Op: "netlink", Err: err}
	}
	defer h.Close()
	return f(h)
}

// withNetlinkIn calls f with a socket of a network namespace, on a thread that is in it.
func withNetlinkIn(netns *os.File, f func(h *netlink.Handle) error) error {
	return inNetworkNamespace(netns, func() error { return withHostNetlink(f) })
}

// dumpAttempts bounds how often a list is asked for that changes while it is read.
const dumpAttempts = 50

// whole returns a list that has not changed while the kernel told it.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for i := 1; ; i++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == dumpAttempts {
			return all, err
		}
	}
}

// linkNamed returns a device; nil if there is none.
func linkNamed(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Op: "network device", Path: name, Err: err}
	}
	if link.Attrs().Name != name { // it was found by an alternative name
		return nil, nil
	}
	return link, nil
}

// removeLink removes a device; it is no error if there is none.
func removeLink(h *netlink.Handle, name string) error {
	link, err := linkNamed(h, name)
	if link == nil {
		return err
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return &Error{Op: "remove network device", Path: name, Err: err}
	}
	return nil
}
