//go:build linux

package container

import (
	"net"
	"net/netip"
)

// This file checks descriptions of bridges, and resolves their zero values as far as that can be done without looking at the host. It is pure.

// maxInterfaceName is how long the name of a device can be.
const maxInterfaceName = 15

// resolved returns the description with its zero values resolved that do not depend on the host, and subnets without the bridge's own addresses, which
// are returned beside them.
func (cfg BridgeConfig) resolved() (BridgeConfig, []netip.Addr, error) {
	var errs fieldErrors
	if cfg.Name == "" {
		cfg.Name = DefaultBridgeName
	}
	if cfg.StateDir == "" {
		cfg.StateDir = defaultNetworkStateDir
	}
	if problem := bridgeNameProblem(cfg.Name); problem != "" {
		errs.addf("BridgeConfig.Name", "%q %s", cfg.Name, problem)
	}
	if cfg.MTU != 0 && (cfg.MTU < 68 || cfg.MTU > 65535) {
		errs.addf("BridgeConfig.MTU", "%d is not between 68 and 65535", cfg.MTU)
	}
	if cfg.MAC != "" {
		mac, err := net.ParseMAC(cfg.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00" {
			errs.addf("BridgeConfig.MAC", "%q is not the hardware address of one device, such as 02:42:0a:58:00:01", cfg.MAC)
		} else {
			cfg.MAC = mac.String()
		}
	}
	subnets, gateways := make([]netip.Prefix, 0, 2), make([]netip.Addr, 0, 2)
	families := make(map[bool]bool)
	for i, p := range cfg.Subnets {
		field := index("BridgeConfig.Subnets", i)
		switch {
		case !p.IsValid() || p.Addr().Zone() != "" || p.Addr().Is4In6():
			errs.addf(field, "%v is not a network such as 10.1.0.0/24 or fd00:1::/64", p)
			continue
		case families[p.Addr().Is4()]:
			errs.addf(field, "%v is the second of its family; a bridge has one of each at most", p)
			continue
		case p.Bits() >= p.Addr().BitLen():
			errs.addf(field, "%v has no room for a container", p)
			continue
		case p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() || p.Bits() == 0:
			errs.addf(field, "%v is not a network that a bridge can have", p)
			continue
		}
		families[p.Addr().Is4()] = true
		own := p.Addr()
		if own == p.Masked().Addr() {
			own = firstAddress(p)
		}
		if own == broadcastOf(p) {
			errs.addf(field, "%v is the broadcast address of its network", own)
		}
		subnets, gateways = append(subnets, p.Masked()), append(gateways, own)
	}
	cfg.Subnets = subnets
	return cfg, gateways, errs.join()
}

// bridgeNameProblem says why a name cannot be that of a bridge; empty if it can.
func bridgeNameProblem(name string) string {
	if name == "" || len(name) > maxInterfaceName {
		return "is not between 1 and 15 bytes long"
	}
	if name == "." || name == ".." || name == "lo" || name == "all" || name == "default" {
		return "has a meaning of its own"
	}
	for _, b := range []byte(name) {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '_', b == '.':
		default:
			return "has other bytes than letters, digits, and any of -_."
		}
	}
	if isEndpointKey(name) {
		return "looks like the device of a container: ct and 11 hexadecimal digits"
	}
	return ""
}

// firstAddress is the first address of a network that a device can have. In one of two addresses that is the very first, see RFC 3021 and 6164.
func firstAddress(p netip.Prefix) netip.Addr {
	first := p.Masked().Addr()
	if p.Addr().BitLen()-p.Bits() >= 2 {
		first = first.Next()
	}
	return first
}

// broadcastOf is the broadcast address of a network; not valid if it has none.
func broadcastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	ip := p.Masked().Addr().As4()
	for i := range ip {
		ip[i] |= byte(0xff >> min(8, max(0, p.Bits()-8*i)))
	}
	return netip.AddrFrom4(ip)
}

// differs says in which field a description asks for another bridge than there is; zero values ask for nothing.
func (cfg BridgeConfig) differs(b *Bridge, gateways []netip.Addr) error {
	var errs fieldErrors
	const problem = "the bridge %s is there with %v, not %v; remove it with RemoveBridge or ask for what there is"
	if len(cfg.Subnets) > 0 {
		same := len(cfg.Subnets) == len(b.Subnets)
		for i, p := range cfg.Subnets {
			found := false
			for j := range b.Subnets {
				found = found || b.Subnets[j] == p && b.Gateways[j] == gateways[i]
			}
			same = same && found
		}
		if !same {
			errs.addf("BridgeConfig.Subnets", problem, b.Name, b.Subnets, cfg.Subnets)
		}
	}
	if cfg.MTU != 0 && cfg.MTU != b.MTU {
		errs.addf("BridgeConfig.MTU", problem, b.Name, b.MTU, cfg.MTU)
	}
	if cfg.MAC != "" && cfg.MAC != b.MAC {
		errs.addf("BridgeConfig.MAC", problem, b.Name, b.MAC, cfg.MAC)
	}
	if cfg.Internal && !b.Internal {
		errs.addf("BridgeConfig.Internal", problem, b.Name, false, true)
	}
	return errs.join()
}

// gateway returns the bridge's own address of a family; not valid if it has none.
func (b *Bridge) gateway(v4 bool) netip.Addr {
	for _, a := range b.Gateways {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// hasIPv6 tells whether containers on the bridge have IPv6.
func (b *Bridge) hasIPv6() bool { return b.gateway(false).IsValid() }
