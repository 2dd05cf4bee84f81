//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file removes bridges. It runs in the caller's process. The record goes last: until then it can be tried again.

// RemoveBridge removes a bridge that EnsureBridge has made, its rules and its record; one that was adopted stays as it is. Forwarding is switched off again where it was
// switched on for this bridge and no other needs it. It is no error if there is no such bridge. While containers are connected to
// it, it is one that wraps syscall.EBUSY; when ctx is done while another process holds a lock of the state directory, ErrLocked: it can be called again. Empty arguments
// mean the defaults.
func RemoveBridge(ctx context.Context, stateDir, name string) error {
	name = cmp.Or(name, DefaultBridgeName)
	if problem := bridgeNameProblem(name); problem != "" {
		return &Error{Op: "remove bridge", Path: name, Err: fieldErrorf("name", "%q %s", name, problem)}
	}
	s, err := openNetworkStore(cmp.Or(stateDir, defaultNetworkStateDir))
	if err != nil {
		return err
	}
	s = s.during(ctx)
	lock, err := s.lockBridge(name)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := ctx.Err(); err != nil {
		return &Error{Op: "remove bridge", Path: name, Err: err}
	}
	b, err := s.readBridge(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.bridgeUnused(b); err != nil {
		return err
	}
	all, err := s.lockBridge(allBridges)
	if err != nil {
		return err
	}
	defer all.Close()
	others, err := s.bridges()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(others, func(o *Bridge) bool { return o.Name == name }); i >= 0 {
		b.Forwarding = others[i].Forwarding // which only this lock keeps as it is
	}
	if b.Forwarding, err = b.stopForwarding(others); err != nil {
		return err
	}
	at("bridge: forwarding as it was")
	if !b.Adopt {
		if err := withHostNetlink(b.removeLink); err != nil {
			return err
		}
		at("bridge: removed")
	}
	if err := natRemoveBridge(ctx, b); err != nil {
		return err
	}
	at("bridge: rules removed")
	return s.removeBridge(name)
}

// removeLink removes the device, if it is still the one that was made.
func (b *Bridge) removeLink(h *netlink.Handle) error {
	link, err := linkNamed(h, b.Name)
	if link == nil || link.Type() != "bridge" || link.Attrs().HardwareAddr.String() != b.MAC {
		return err
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return &Error{Op: "remove bridge", Path: b.Name, Err: err}
	}
	return nil
}

// bridgeUnused tells whether no container is connected to a bridge.
func (s *networkStore) bridgeUnused(b *Bridge) error {
	if err := s.collect(); err != nil {
		return err
	}
	for e, err := range s.endpoints() {
		if err != nil {
			return err
		}
		if e.Network.Bridge == b.Name {
			return &Error{Op: "remove bridge", Path: b.Name, Err: unix.EBUSY, Remedy: "the container " + e.ID + " is connected to it; destroy it first"}
		}
	}
	return nil
}
