//go:build linux

package container

import (
	"context"

	"github.com/vishvananda/netlink"
)

// This file takes back what the host has of an endpoint whose container is gone. It runs in the caller's process.

// forgetEndpoint removes rules and devices of an endpoint, whatever of them there is. It is called before its addresses
// are another's, can be called any number of times, and while the lock of its bridge is held by the same caller.
func forgetEndpoint(ctx context.Context, e *endpoint) error {
	if e.Network.Mode != NetworkModeBridge {
		return nil // the device goes with the namespace
	}
	// The device first: without it nothing passes, whatever rules there are.
	if err := withHostNetlink(func(h *netlink.Handle) error { return removeLink(h, e.Key) }); err != nil {
		return err
	}
	at("network: link removed")
	if err := natDisconnect(ctx, e); err != nil {
		return err
	}
	at("network: rules removed")
	return nil
}
