package container

import (
	"net/netip"
)

// This file describes a container's network. It is data; network_plan.go and network_setup.go act on it.

// DefaultBridgeName is the bridge of containers that name none.
const DefaultBridgeName = "container0"

// NetworkMode says what a container is connected to.
type NetworkMode string

// The modes.
const (
	// NetworkModeNone: a network namespace of its own with lo up, and nothing else. With PortMappings lo has the addresses 192.0.0.2 and fd63:6f6e:7461:696e::2
	// as well, and clients come from 192.0.0.8 and 100:0:0:1::1.
	NetworkModeNone NetworkMode = "none"
	// NetworkModeHost: the caller's network. Nothing is isolated; abstract unix sockets of the host can be
	// reached as well.
	NetworkModeHost NetworkMode = "host"
	// NetworkModeBridge: a pair of virtual devices, one end in the container, the other in a bridge of the
	// host; see [EnsureBridge]. Needs root.
	NetworkModeBridge NetworkMode = "bridge"
	// NetworkModeMacvlan: a device of its own on the wire of a device of the host's. Needs root.
	NetworkModeMacvlan NetworkMode = "macvlan"
	// NetworkModeContainer: the network of another container of the same state directory.
	NetworkModeContainer NetworkMode = "container"
	// NetworkModeEgress: no device, and a way out that the caller's process decides about, connection by
	// connection; see [EgressPolicy]. Needs no right. It lives as long as the caller's process does.
	NetworkModeEgress NetworkMode = "egress"
)

// NetworkConfig describes a container's network. Nil in a Config: as Config.Namespaces says, and nothing is
// set up but lo.
type NetworkConfig struct {
	// Mode is what the container is connected to. If empty, NetworkModeNone. All modes need a network namespace of
	// the container's own (Namespaces.NewNet, as DefaultConfig has it), but NetworkModeHost and
	// NetworkModeContainer, which need that there is none.
	Mode NetworkMode

	// Bridge is the name of the bridge, with NetworkModeBridge. If empty, DefaultBridgeName. One that is not there is
	// made, as EnsureBridge would with nothing but the name.
	Bridge string

	// Parent is the name of the host's device, with NetworkModeMacvlan; required. MacvlanMode says who on it
	// hears whom: "bridge" (if empty), "private", "vepa" or "passthru"; see ip-link(8).
	Parent      string
	MacvlanMode string

	// Container is the id of the other container, with NetworkModeContainer.
	Container string

	// Interface is the name of the device in the container. If empty, "eth0".
	Interface string

	// IPAddresses are the container's addresses with the length of their prefix, "10.88.0.5/16". If there is none of a
	// family that the bridge has, one is leased from the bridge's subnet. With NetworkModeMacvlan they are all there is.
	IPAddresses []netip.Prefix

	// Gateways are the next hops of the default routes, one a family. If there is none of a family, it is the bridge's own
	// address; with NetworkModeMacvlan there is no default route then.
	Gateways []netip.Addr

	// Routes are further routes.
	Routes []Route

	// MAC is the device's hardware address, "02:42:0a:58:00:05". If empty, one is made from the first address, so that it
	// stays with the address; with the MacvlanMode "passthru", it is Parent's. One that another container on the bridge or on
	// Parent has, or these themselves, is ErrMACInUse.
	MAC string

	// MTU is the largest packet in bytes. Zero: that of the bridge, or of Parent.
	MTU int

	// PortMappings are the ports of the container that can be reached from outside. With NetworkModeBridge the kernel forwards
	// them, and they last until the container is destroyed or ends in the caller's process; with NetworkModeNone and NetworkModeEgress the caller's process relays them,
	// with its own rights, and they end with it.
	PortMappings []PortMapping

	// DNS are the name servers, DNSSearch the domains to search, DNSOptions the options of resolv.conf(5). If DNS is
	// empty: with NetworkModeEgress the one of ours, with NetworkModeBridge those of the host that can be reached from
	// there, else none. The one of ours, with NetworkModeEgress and NameServer, asks DNS in the network of the caller, or if it is empty the servers of
	// the host's resolv.conf(5); the host's hosts(5) is not looked at.
	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string

	// Hosts are further lines of hosts(5).
	Hosts []HostEntry

	// KeepFiles: /etc/hosts, /etc/resolv.conf and /etc/hostname stay those of the root. By default they
	// are files of ours, mounted there in a new mount namespace; nothing is written to the root's own. They are kept without a mount
	// namespace of its own; and with a Root that is the host's, by NetworkModeHost and NetworkModeNone, unless DNS, DNSSearch, DNSOptions or Hosts is set.
	KeepFiles bool

	// Aliases are names of the container, besides its id and Config.Hostname, that NameServer of others finds.
	Aliases []string

	// NameServer: the caller's process answers for the names of containers on the same bridge, at 127.0.0.11 in the
	// container, and forwards the rest to DNS. It lives as long as the caller's process does. NetworkModeBridge only.
	NameServer bool

	// NetDevices are devices of the host that are moved into the container, by their name there. When the container ends they are moved
	// back. Needs root, and a network namespace of the container's own.
	NetDevices map[string]NetDevice

	// Egress decides about connections out, with NetworkModeEgress. It is the caller's, not stored. EgressAllow is a list of
	// what is allowed without asking it, stored: "example.com", "*.example.com:443", "192.0.2.0/24:80-90", "udp:[2001:db8::1]:53"; see
	// [ParseEgressRule]. If both are empty, or the caller is not the one that had Egress, nothing is allowed.
	Egress      EgressPolicy `json:"-"`
	EgressAllow []string

	// OnEgress is told about each connection that has been decided about, in a goroutine of its connection. It is the caller's, not stored. While
	// as many calls as MaxConnections have not returned, no more are made: nothing waits for it.
	OnEgress func(EgressEvent) `json:"-"`

	// MaxConnections bounds the connections of NetworkModeEgress, and of relayed ports, at one time: those beyond are refused. Each
	// costs the caller's process two descriptors, and two more for each direction in which somebody does not read what the other has sent. Zero
	// means 4096.
	MaxConnections int

	// StateDir is where the host's side of networks is kept: bridges, leases, ports. All callers that share a bridge must use the
	// same. If empty, "/run/container/networks". NetworkModeBridge and NetworkModeMacvlan only.
	StateDir string
}

// Route is a route in the container.
type Route struct {
	// Destination is where to: 0.0.0.0/0 is the default route.
	Destination netip.Prefix
	// Gateway is the next hop. If it is not valid, Destination is on the link.
	Gateway netip.Addr
	// Source is the preferred source address; if not valid, the kernel's choice.
	Source netip.Addr
	// Metric orders routes to the same destination, the least first. Zero is the kernel's default.
	Metric int
	// Interface is the device in the container. If empty, NetworkConfig.Interface.
	Interface string
}

// HostEntry is a line of hosts(5).
type HostEntry struct {
	Addr  netip.Addr
	Names []string
}

// NetDevice is a device of the host that is moved into a container.
type NetDevice struct {
	// Name is the device's name in the container. If empty, the one it has on the host. Its addresses go with it.
	Name string
}

// NetworkState is what a container's network has become. Its JSON form is a part of state.json, where it stands before anything of it is made.
type NetworkState struct {
	Mode NetworkMode `json:"mode"`

	// Interface is the device in the container, HostInterface its other end.
	Interface     string `json:"interface,omitempty"`
	HostInterface string `json:"hostInterface,omitempty"`

	Bridge    string         `json:"bridge,omitempty"`
	MAC       string         `json:"mac,omitempty"`
	MTU       int            `json:"mtu,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"`

	// PortMappings are those of the configuration with the ports that were chosen.
	PortMappings []PortMapping `json:"portMappings,omitempty"`

	// NetDevices are the devices that have been moved, by their name on the host.
	NetDevices map[string]NetDevice `json:"netDevices,omitempty"`

	// StateDir is NetworkConfig.StateDir with its zero value resolved.
	StateDir string `json:"stateDir,omitempty"`
}

const (
	defaultNetworkStateDir = "/run/container/networks"
	defaultInterface       = "eth0"
	defaultMaxConnections  = 4096
)

// mode is the mode with its zero value resolved.
func (n *NetworkConfig) mode() NetworkMode {
	if n.Mode == "" {
		return NetworkModeNone
	}
	return n.Mode
}

// networkMode is the mode of a container; empty without a NetworkConfig.
func (c *Config) networkMode() NetworkMode {
	if c.Network == nil {
		return ""
	}
	return c.Network.mode()
}
