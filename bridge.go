package container

import "net/netip"

// This file describes a bridge of the host that containers are connected to. It is data; bridge_link.go makes it.

// BridgeConfig describes a bridge.
type BridgeConfig struct {
	// Name is the bridge's device, at most 15 bytes. If empty, DefaultBridgeName.
	Name string

	// Subnets are the networks of the containers on it, one a family at most: the bridge's own address is the first of each, unless the prefix has
	// another ("10.1.0.254/24"). If empty, a /24 of 10.88.0.0/13 and a /64 of fd00::/8 (if the kernel has IPv6) are chosen that no route
	// of the host's collides with.
	Subnets []netip.Prefix

	// MTU is the largest packet in bytes. Zero: that of the device with the host's default route, or 1500.
	MTU int

	// MAC is the bridge's hardware address. If empty, one made from its first address.
	MAC string

	// Internal: containers reach each other and the host's bridge address, and nothing else; no ports are published.
	Internal bool

	// Adopt takes a bridge of this name that somebody else has made, as it is, if it is up and has addresses of Subnets. It is never removed.
	Adopt bool

	// StateDir is that of NetworkConfig.
	StateDir string
}

// Bridge is a bridge that is there. Its zero values are resolved.
type Bridge struct {
	BridgeConfig
	// Gateways are the bridge's own addresses, one for each of Subnets.
	Gateways []netip.Addr
	// Forwarding are the host's devices on which forwarding was off and has been switched on, because of this bridge: what comes in by
	// them and is not for a bridge of ours is still not forwarded. Each is with its family: "ipv4/eth0".
	Forwarding []string `json:",omitempty"`
}
