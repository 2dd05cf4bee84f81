package container

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// This file checks Config.Network, in the caller's process, before anything else happens. What only the host can tell, such as whether
// a device is there or a port is free, is found out before anything is started.

// networkCheck collects complaints about a NetworkConfig.
type networkCheck struct {
	fieldErrors
	c *Config
	n *NetworkConfig
}

// checkNetwork: a mode that fits the namespaces, and of the other fields only those that mean something in it.
func checkNetwork(c *Config) []error {
	if c.Network == nil {
		return nil
	}
	check := networkCheck{c: c, n: c.Network}
	if check.mode() {
		check.unusedFields()
		check.device()
		check.addresses()
		check.routes()
		check.ports()
		check.files()
		check.netDevices()
		check.egress()
	}
	var errs fieldErrors
	for _, err := range check.fieldErrors {
		errs.addIn("Network", err)
	}
	return errs
}

// is tells whether the mode is one of these.
func (k *networkCheck) is(modes ...NetworkMode) bool { return slices.Contains(modes, k.n.mode()) }

func (k *networkCheck) mode() bool {
	ns := &k.c.Namespaces
	switch k.n.mode() {
	case NetworkModeNone, NetworkModeBridge, NetworkModeMacvlan, NetworkModeEgress:
		if !ns.NewNet {
			k.addf("Mode", "%s needs a network namespace of the container's own; set Namespaces.NewNet", k.n.mode())
		}
		if k.is(NetworkModeBridge, NetworkModeMacvlan) {
			k.needsRoot("Mode", string(k.n.mode()), "NetworkModeEgress needs no right")
		}
	case NetworkModeHost, NetworkModeContainer:
		if ns.private(NetworkNamespace) {
			k.addf("Mode", "%s contradicts a network namespace of the container's own; clear Namespaces.NewNet, and leave Namespaces.Join without one", k.n.mode())
		}
		if k.is(NetworkModeContainer) && ns.Join[UserNamespace] != "" {
			k.addf("Mode", "container contradicts Namespaces.Join: the user namespace is that of the other container's network")
		}
	default:
		k.addf("Mode", "unknown mode %.30q; one of none, host, bridge, macvlan, container, egress", k.n.Mode)
		return false
	}
	return true
}

// needsRoot complains to an ordinary user.
func (k *networkCheck) needsRoot(field, what, instead string) {
	if os.Geteuid() != 0 {
		k.add(&FieldError{Field: field, Problem: what + " changes the host's network, which only root may do; " + instead, Err: ErrUnsupported})
	}
}

// unusedFields complains about fields that mean nothing in this mode: they would be taken for what they are not.
func (k *networkCheck) unusedFields() {
	n := k.n
	onDevice := []NetworkMode{NetworkModeBridge, NetworkModeMacvlan}
	bridge, egress := []NetworkMode{NetworkModeBridge}, []NetworkMode{NetworkModeEgress}
	macvlan := []NetworkMode{NetworkModeMacvlan}
	relayed := []NetworkMode{NetworkModeNone, NetworkModeEgress}
	for _, f := range []struct {
		field string
		set   bool
		modes []NetworkMode
	}{
		{"Bridge", n.Bridge != "", bridge},
		{"Parent", n.Parent != "", macvlan},
		{"MacvlanMode", n.MacvlanMode != "", macvlan},
		{"Container", n.Container != "", []NetworkMode{NetworkModeContainer}},
		{"Interface", n.Interface != "", onDevice},
		{"IPAddresses", len(n.IPAddresses) > 0, onDevice},
		{"Gateways", len(n.Gateways) > 0, onDevice},
		{"MAC", n.MAC != "", onDevice},
		{"MTU", n.MTU != 0, onDevice},
		{"PortMappings", len(n.PortMappings) > 0, append(relayed, NetworkModeBridge)},
		{"Aliases", len(n.Aliases) > 0, bridge},
		{"NameServer", n.NameServer, bridge},
		{"NetDevices", len(n.NetDevices) > 0, append(relayed, onDevice...)},
		{"Egress", n.Egress != nil, egress},
		{"EgressAllow", len(n.EgressAllow) > 0, egress},
		{"OnEgress", n.OnEgress != nil, egress},
		{"MaxConnections", n.MaxConnections != 0, relayed},
		{"StateDir", n.StateDir != "", onDevice},
	} {
		if f.set && !slices.Contains(f.modes, n.mode()) {
			k.addf(f.field, "means nothing in the mode %s, but in %s; leave it empty", n.mode(), joinWords(f.modes))
		}
	}
	if len(n.Routes) > 0 && !slices.Contains(onDevice, n.mode()) && len(n.NetDevices) == 0 {
		k.addf("Routes", "need a device; there is none in the mode %s", n.mode())
	}
}

// joinWords lists modes.
func joinWords(modes []NetworkMode) string {
	words := make([]string, len(modes))
	for i, m := range modes {
		words[i] = string(m)
	}
	return strings.Join(words, ", ")
}

// device checks names and numbers of the device and of what it is connected to.
func (k *networkCheck) device() {
	n := k.n
	for _, f := range []struct{ field, name string }{{"Bridge", n.Bridge}, {"Parent", n.Parent}, {"Interface", n.Interface}} {
		if f.name != "" {
			k.deviceName(f.field, f.name)
		}
	}
	if k.is(NetworkModeMacvlan) && n.Parent == "" {
		k.addf("Parent", "is required: the name of a device of the host")
	}
	switch n.MacvlanMode {
	case "", "bridge", "private", "vepa", "passthru":
	default:
		k.addf("MacvlanMode", "unknown mode %.20q; one of bridge, private, vepa, passthru", n.MacvlanMode)
	}
	if k.is(NetworkModeContainer) {
		if err := validateID(n.Container); err != nil {
			k.add(&FieldError{Field: "Container", Problem: "is required: the id of another container", Err: err})
		}
	}
	if n.MAC != "" {
		mac, err := net.ParseMAC(n.MAC)
		if err != nil || len(n.MAC) != len("00:00:00:00:00:00") || strings.Count(n.MAC, ":") != 5 {
			k.addf("MAC", "%.30q is not a hardware address; write it as \"02:42:0a:58:00:05\"", n.MAC)
		} else if mac[0]&1 != 0 || slices.Equal(mac, make([]byte, 6)) {
			k.addf("MAC", "%s is not the address of one device; the lowest bit of the first byte is for groups", n.MAC)
		}
	}
	const least, leastIPv6, most = 68, 1280, 65535 // RFC 791, RFC 8200, ETH_MAX_MTU
	switch {
	case n.MTU == 0:
	case n.MTU < least || n.MTU > most:
		k.addf("MTU", "%d is not a size of packets; use %d to %d, or 0 for that of the bridge", n.MTU, least, most)
	case n.MTU < leastIPv6 && slices.ContainsFunc(n.IPAddresses, func(p netip.Prefix) bool { return p.Addr().Is6() }):
		k.addf("MTU", "%d is too small for IPv6, which needs %d", n.MTU, leastIPv6)
	}
	if n.StateDir != "" {
		k.absolute("StateDir", n.StateDir)
		k.printable("StateDir", n.StateDir)
	}
}

// deviceName complains about what the kernel does not take as the name of a device, or takes as a pattern.
func (e *fieldErrors) deviceName(field, name string) {
	const longest = 15
	switch {
	case name == "" || len(name) > longest:
		e.addf(field, "%.50q has %d bytes; the name of a device has 1 to %d", name, len(name), longest)
	case name == "." || name == ".." || strings.ContainsAny(name, "/:% ") || strings.ContainsFunc(name, isControl) || !utf8.ValidString(name):
		e.addf(field, "%q cannot be the name of a device; it has none of / : %% and no space", name)
	case name == "lo" || name == "all" || name == "default":
		e.addf(field, "%q is the kernel's own", name)
	}
}

// printable complains about text that is not, which no file and no record keeps as it is.
func (e *fieldErrors) printable(field, text string) {
	if strings.ContainsFunc(text, isControl) || !utf8.ValidString(text) {
		e.addf(field, "%.100q contains a control character, or is not UTF-8", text)
	}
}

// hostAddress complains about what is not the address of one host.
func (e *fieldErrors) hostAddress(field string, a netip.Addr) bool {
	switch {
	case !a.IsValid():
		e.addf(field, "is empty; leave it out, or write an address")
	case a.Is4In6():
		e.addf(field, "%v is an IPv4 address in the form of IPv6; write %v", a, a.Unmap())
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		e.addf(field, "%v is not the address of a host", a)
	default:
		return true
	}
	return false
}

func (k *networkCheck) addresses() {
	seen := make(map[netip.Addr]int)
	for i, p := range k.n.IPAddresses {
		field := index("IPAddresses", i)
		if !p.IsValid() {
			k.addf(field, "is empty; write an address with the length of its prefix, such as \"10.88.0.5/16\"")
			continue
		}
		if !k.hostAddress(field, p.Addr()) {
			continue
		}
		if p.Addr().IsLoopback() {
			k.addf(field, "%v belongs to lo", p)
		} else if pool, err := newAddressPool(p); err == nil && !pool.contains(p.Addr()) {
			k.addf(field, "%v is the address of the network, or of all in it; write that of the container", p)
		}
		if j, ok := seen[p.Addr()]; ok {
			k.addf(field, "%v is IPAddresses[%d] already", p.Addr(), j)
		}
		seen[p.Addr()] = i
	}
	families := make(map[bool]int)
	for i, g := range k.n.Gateways {
		field := index("Gateways", i)
		if !k.hostAddress(field, g) {
			continue
		}
		if g.IsLoopback() || g.Zone() != "" {
			k.addf(field, "%v cannot be a next hop here; write the address of a router, without zone", g)
		}
		if j, ok := families[g.Is4()]; ok {
			k.addf(field, "Gateways[%d] is of the same family; there is one default route for each", j)
		}
		if j, ok := seen[g]; ok {
			k.addf(field, "is the container's own address, IPAddresses[%d]", j)
		}
		families[g.Is4()] = i
	}
}

func (k *networkCheck) routes() {
	type routeKey struct {
		to     netip.Prefix
		metric int
		dev    string
	}
	seen := make(map[routeKey]int)
	for i, r := range k.n.Routes {
		field := index("Routes", i)
		to := r.Destination
		if !to.IsValid() || to.Addr().Is4In6() {
			k.addf(field+".Destination", "is required: a network such as \"192.0.2.0/24\", or \"0.0.0.0/0\" for all")
			continue
		}
		if to != to.Masked() {
			k.addf(field+".Destination", "%v is an address in a network; write %v", to, to.Masked())
		}
		for _, a := range []struct {
			field string
			addr  netip.Addr
		}{{".Gateway", r.Gateway}, {".Source", r.Source}} {
			switch {
			case !a.addr.IsValid() || !k.hostAddress(field+a.field, a.addr):
			case a.addr.Is4() != to.Addr().Is4():
				k.addf(field+a.field, "%v is not of the family of %v", a.addr, to)
			case a.addr.Zone() != "":
				k.addf(field+a.field, "%v has a zone; Interface names the device", a.addr)
			}
		}
		if r.Metric < 0 || int64(r.Metric) > 1<<32-1 {
			k.addf(field+".Metric", "%d is not a metric; use 0 to %d", r.Metric, uint32(1<<32-1))
		}
		if r.Interface != "" && r.Interface != "lo" {
			k.deviceName(field+".Interface", r.Interface)
		}
		if r.Interface == "" && !k.is(NetworkModeBridge, NetworkModeMacvlan) {
			k.addf(field+".Interface", "is required: there is no other device than those of NetDevices")
		}
		key := routeKey{to, r.Metric, r.Interface}
		if j, ok := seen[key]; ok {
			k.addf(field, "%v is Routes[%d] already; give it another Metric", to, j)
		}
		seen[key] = i
	}
}

func (k *networkCheck) ports() {
	relayed := !k.is(NetworkModeBridge)
	for i, m := range k.n.PortMappings {
		field := index("PortMappings", i)
		k.addIn(field, m.check())
		if relayed && m.protocol() == "sctp" {
			k.addf(field+".Protocol", "sctp cannot be relayed in the mode %s; NetworkModeBridge can", k.n.mode())
		}
		if !relayed && (m.HostSocket != "" || m.ContainerSocket != "") {
			k.addf(field, "unix sockets are not for the mode %s, where the kernel forwards packets", k.n.mode())
		}
		if !relayed && k.c.Detached && m.HostIP == netip.IPv6Loopback() {
			k.addf(field+".HostIP", "what is sent to ::1 the caller's process relays, and a detached container outlives that; take 127.0.0.1")
		}
	}
	k.fieldErrors = append(k.fieldErrors, checkPortOverlaps(k.n.PortMappings)...)
}

// netDevices checks the devices that are moved in.
func (k *networkCheck) netDevices() {
	inside := make(map[string]string)
	if k.is(NetworkModeBridge, NetworkModeMacvlan) {
		inside[k.n.interfaceName()] = "Interface"
	}
	if len(k.n.NetDevices) > 0 {
		k.needsRoot("NetDevices", "moving a device", "leave it empty")
	}
	for _, name := range slices.Sorted(maps.Keys(k.n.NetDevices)) {
		field := mapKey("NetDevices", name)
		k.deviceName(field, name)
		as := k.n.NetDevices[name].Name
		if as == "" {
			as = name
		} else {
			k.deviceName(field+".Name", as)
		}
		if other, ok := inside[as]; ok {
			k.addf(field+".Name", "%q is the name of %s in the container", as, other)
		}
		inside[as] = field
	}
}

// interfaceName is Interface with its zero value resolved.
func (n *NetworkConfig) interfaceName() string {
	if n.Interface == "" {
		return defaultInterface
	}
	return n.Interface
}

func (k *networkCheck) egress() {
	const most = 1 << 20
	if k.n.MaxConnections < 0 || k.n.MaxConnections > most {
		k.addf("MaxConnections", "%d is not a number of connections; use 1 to %d, or 0 for %d", k.n.MaxConnections, most, defaultMaxConnections)
	}
	for i, rule := range k.n.EgressAllow {
		if _, err := ParseEgressRule(rule); err != nil {
			k.add(&FieldError{Field: index("EgressAllow", i), Problem: "is not a rule", Err: err})
		}
	}
}
