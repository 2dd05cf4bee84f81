//go:build linux

package container

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file connects a network namespace to a bridge or to a device of the host's, and takes the connection back. It runs in the caller's process.
//
// First the key of the endpoint is written to the record of who wants the connection. Whatever is made later bears this key, or is in
// the store below it, so that it can be found by who has the record.

// A connection is one being made.
type connection struct {
	store  *networkStore
	cfg    *NetworkConfig
	e      *endpoint
	bridge *Bridge
	save   func() error // writes e.Network to the record of whose network it is
}

// endpointPrefix begins keys.
const endpointPrefix = "ct"

// newEndpointKey returns a key that nobody else has. It is as long as a device's name can be, less one.
func newEndpointKey() string {
	var b [6]byte
	rand.Read(b[:])
	return endpointPrefix + hex.EncodeToString(b[:])[:11]
}

// isEndpointKey tells whether a name has the form of a key.
func isEndpointKey(name string) bool {
	digits, ok := strings.CutPrefix(name, endpointPrefix)
	return ok && len(digits) == 11 && strings.Trim(digits, "0123456789abcdef") == ""
}

// attaches tells whether the mode needs an endpoint.
func (n *NetworkConfig) attaches() bool {
	return n.mode() == NetworkModeBridge || n.mode() == NetworkModeMacvlan
}

// newConnection opens the store for a connection. E says whose it is.
func newConnection(n *NetworkConfig, e *endpoint) (*connection, error) {
	e.Key = newEndpointKey()
	e.Network = NetworkState{
		Mode:      n.mode(),
		Interface: cmp.Or(n.Interface, defaultInterface),
		StateDir:  cmp.Or(n.StateDir, defaultNetworkStateDir),
	}
	s, err := openNetworkStore(e.Network.StateDir)
	if err != nil {
		return nil, err
	}
	e.Network.StateDir = s.dir
	return &connection{store: s, cfg: n, e: e}, nil
}

// reserve decides what the connection will be, and leases what it needs. After an error the endpoint is to be released.
func (a *connection) reserve(ctx context.Context) error {
	a.store = a.store.during(ctx)
	st := &a.e.Network
	if st.Mode == NetworkModeBridge {
		st.Bridge, st.HostInterface = cmp.Or(a.cfg.Bridge, DefaultBridgeName), a.e.Key
	}
	if err := a.save(); err != nil {
		return err
	}
	at("network: recorded")
	// It keeps the bridge, which is looked at afterwards, from being removed.
	if err := a.store.addEndpoint(a.e); err != nil {
		return err
	}
	at("network: endpoint")
	err := withHostNetlink(func(h *netlink.Handle) (err error) {
		if st.Mode == NetworkModeMacvlan {
			parent, err := macvlanParent(h, a.cfg)
			if err == nil {
				st.MTU = cmp.Or(a.cfg.MTU, parent.Attrs().MTU)
				err = a.checkAgainstParent(parent)
			}
			return err
		}
		a.bridge, err = a.store.ensureBridge(ctx, h, BridgeConfig{Name: st.Bridge, StateDir: st.StateDir}, false)
		if err == nil {
			st.MTU = cmp.Or(a.cfg.MTU, a.bridge.MTU)
			err = a.checkAgainstBridge()
		}
		return err
	})
	if err != nil {
		return err
	}
	if st.Mode == NetworkModeMacvlan {
		err = a.leaseOnParent()
	} else {
		err = a.leaseOnBridge()
	}
	if err != nil {
		return err
	}
	at("network: leased")
	if st.MAC == "" {
		if st.MAC, err = a.leaseHardwareAddr(); err != nil {
			return err
		}
		at("network: hardware address leased")
	}
	if err := a.reservePorts(); err != nil {
		return err
	}
	at("network: reserved")
	if err := a.save(); err != nil {
		return err
	}
	at("network: reserved and recorded")
	return nil
}

// checkAgainstBridge complains about what the bridge does not have.
func (a *connection) checkAgainstBridge() error {
	var errs fieldErrors
	b := a.bridge
	if b.Internal && len(a.cfg.PortMappings) > 0 {
		errs.addf("Network.PortMappings", "the bridge %s is internal: no ports of its containers are published", b.Name)
	}
	for i, m := range a.cfg.PortMappings {
		if m.HostIP.IsValid() && m.HostIP != loopback6 && !b.gateway(m.HostIP.Is4()).IsValid() { // what comes to ::1 is relayed
			errs.addf(index("Network.PortMappings", i)+".HostIP", "%v is of a family that the bridge %s does not have", m.HostIP, b.Name)
		}
	}
	if mac, err := net.ParseMAC(a.cfg.MAC); err == nil && mac.String() == b.MAC {
		errs = append(errs, &FieldError{Field: "Network.MAC", Problem: b.MAC + " is that of the bridge " + b.Name + " itself", Err: ErrMACInUse})
	}
	if a.cfg.MTU > b.MTU {
		errs.addf("Network.MTU", "%d is more than the %d of the bridge %s", a.cfg.MTU, b.MTU, b.Name)
	}
	for i, p := range a.cfg.IPAddresses {
		subnet := b.subnet(p.Addr())
		if !subnet.IsValid() || subnet.Bits() != p.Bits() {
			errs.addf(index("Network.IPAddresses", i), "%v is not an address of the bridge %s, which has %v", p, b.Name, b.Subnets)
		}
	}
	for i, g := range a.cfg.Gateways {
		if !b.gateway(g.Is4()).IsValid() {
			errs.addf(index("Network.Gateways", i), "%v is of a family that the bridge %s does not have", g, b.Name)
		}
	}
	return errs.join()
}

// checkAgainstParent complains about the host's own hardware address, which only the mode passthru shares: there it is the container's, and nothing is leased.
func (a *connection) checkAgainstParent(parent netlink.Link) error {
	own := parent.Attrs().HardwareAddr.String()
	mac, err := net.ParseMAC(a.cfg.MAC)
	asked := err == nil && mac.String() == own
	switch {
	case a.cfg.MacvlanMode == "passthru" && a.cfg.MAC != "" && !asked:
		return fieldErrorf("Network.MAC", "in the mode passthru it is that of %s, %s; leave it empty", a.cfg.Parent, own)
	case a.cfg.MacvlanMode == "passthru":
		a.e.Network.MAC = own
	case asked:
		return &FieldError{Field: "Network.MAC", Problem: own + " is that of the host's device " + a.cfg.Parent, Err: ErrMACInUse}
	}
	return nil
}

// subnet is the one that an address is in; not valid if it is in none.
func (b *Bridge) subnet(a netip.Addr) netip.Prefix {
	for _, p := range b.Subnets {
		if p.Contains(a) {
			return p
		}
	}
	return netip.Prefix{}
}

// leaseOnBridge leases what is asked for, and an address of each family of which none is.
func (a *connection) leaseOnBridge() error {
	st, b := &a.e.Network, a.bridge
	lease := func(subnet netip.Prefix, want netip.Addr) error {
		got, err := a.store.lease(b.Name, subnet, b.Gateways, want, a.e.Key)
		if err == nil {
			st.Addresses = append(st.Addresses, netip.PrefixFrom(got, subnet.Bits()))
		}
		return err
	}
	for i, subnet := range b.Subnets {
		asked := false
		for _, p := range a.cfg.IPAddresses {
			if subnet.Contains(p.Addr()) {
				asked = true
				if err := lease(subnet, p.Addr()); err != nil {
					return err
				}
			}
		}
		if !asked {
			if err := lease(subnet, netip.Addr{}); err != nil {
				return err
			}
		}
		gateway := b.Gateways[i]
		for _, g := range a.cfg.Gateways {
			if g.Is4() == gateway.Is4() {
				gateway = g
			}
		}
		if !b.Internal {
			st.Gateways = append(st.Gateways, gateway)
		}
	}
	return nil
}

// leaseOnParent sees to it that no two containers of ours have the same address on a wire.
func (a *connection) leaseOnParent() error {
	st := &a.e.Network
	for _, p := range a.cfg.IPAddresses {
		if !p.IsSingleIP() {
			if _, err := a.store.lease(a.cfg.Parent, p.Masked(), a.cfg.Gateways, p.Addr(), a.e.Key); err != nil {
				return err
			}
		}
		st.Addresses = append(st.Addresses, p)
	}
	st.Gateways = a.cfg.Gateways
	return nil
}

// leaseHardwareAddr leases the one asked for, or one that stays with the first address, or any if somebody has asked for that one.
func (a *connection) leaseHardwareAddr() (string, error) {
	wire := a.cfg.Parent
	if a.bridge != nil {
		wire = a.bridge.Name
	}
	if a.cfg.MAC != "" {
		mac, err := net.ParseMAC(a.cfg.MAC)
		if err != nil || len(mac) != 6 {
			return "", fieldErrorf("Network.MAC", "%q is not a hardware address such as 02:42:0a:58:00:05", a.cfg.MAC)
		}
		return mac.String(), a.store.leaseMAC(wire, mac, a.e.Key)
	}
	mac := make(net.HardwareAddr, 6)
	if len(a.e.Network.Addresses) > 0 {
		mac = hardwareAddr(a.e.Network.Addresses[0].Addr())
	}
	const tries = 16
	for i := 0; ; i++ {
		if i > 0 || len(a.e.Network.Addresses) == 0 {
			rand.Read(mac)
			mac[0] = mac[0]&^1 | 2
		}
		if a.bridge != nil && mac.String() == a.bridge.MAC {
			continue
		}
		err := a.store.tryLeaseMAC(wire, mac.String(), a.e.Key)
		if err == nil || i == tries || !errors.Is(err, ErrMACInUse) {
			return mac.String(), err
		}
	}
}

// reservePorts chooses ports, and writes down the endpoint with all it will have. From there on its ports are not another's.
func (a *connection) reservePorts() (err error) {
	st := &a.e.Network
	if st.Mode != NetworkModeBridge || len(a.cfg.PortMappings) == 0 {
		return a.store.addEndpoint(a.e)
	}
	_, err = natClaimPorts(a.store, a.e.Key, a.cfg.PortMappings, func(chosen []PortMapping) error {
		st.PortMappings = chosen
		return a.store.addEndpoint(a.e)
	})
	return err
}

// connect makes what has been reserved.
func (a *connection) connect(ctx context.Context, netns *os.File) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: "connect network", Path: a.e.Key, Err: err}
	}
	return withHostNetlink(func(h *netlink.Handle) error {
		if a.e.Network.Mode == NetworkModeMacvlan {
			return connectMacvlan(ctx, h, a.e, a.cfg, netns)
		}
		return connectVeth(ctx, h, a.bridge, a.e, a.cfg, netns)
	})
}

// releaseEndpoint takes back whatever there is of a connection. St is its record, as reserve has saved it. After an error, such as ErrLocked, it can be
// called again.
func releaseEndpoint(ctx context.Context, st *NetworkState, key string) error {
	if key == "" {
		return nil
	}
	var there unix.Stat_t
	if err := unix.Lstat(st.StateDir, &there); err == unix.ENOENT {
		return withHostNetlink(func(h *netlink.Handle) error { return removeLink(h, key) }) // who has removed it has removed the leases
	}
	s, err := natStore(ctx, st.StateDir)
	if err != nil {
		return err
	}
	e, err := s.endpoint(key)
	if errors.Is(err, ErrNotExist) {
		e, err = &endpoint{Key: key, Network: *st}, nil
	}
	if err != nil {
		return err
	}
	if err := forgetEndpoint(ctx, e); err != nil {
		return err
	}
	return s.removeEndpoint(key)
}
