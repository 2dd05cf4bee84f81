package container

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// This file checks descriptions of networks, field by field.

// pureNetwork is a bridge's, with all fields that go together.
func pureNetwork() *NetworkConfig {
	return &NetworkConfig{
		Mode: NetworkModeBridge, Bridge: "br0", Interface: "net0", IPAddresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24"), netip.MustParsePrefix("fd00::5/64")},
		Gateways:     []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fe80::1")},
		Routes:       []Route{{Destination: netip.MustParsePrefix("192.0.2.0/24"), Gateway: netip.MustParseAddr("10.1.0.2"), Metric: 5}},
		MAC:          "02:42:0a:58:00:05",
		MTU:          1400,
		PortMappings: []PortMapping{{HostPort: 8080, ContainerPort: 80}, {HostPort: 8080, ContainerPort: 80, Protocol: "udp"}},
		DNS:          []netip.Addr{netip.MustParseAddr("192.0.2.53")}, DNSSearch: []string{"example.com", "."}, DNSOptions: []string{"ndots:2", "use-vc"},
		Hosts: []HostEntry{{netip.MustParseAddr("192.0.2.7"), []string{"seven", "7.example.com"}}}, Aliases: []string{"web"}, NameServer: true,
		NetDevices: map[string]NetDevice{"eth7": {"seven"}}, StateDir: "/run/x",
	}
}

// checkPureNetwork demands what others rely on.
func checkPureNetwork(t *testing.T, n *NetworkConfig) {
	t.Helper()
	for i, m := range n.PortMappings {
		for _, o := range n.PortMappings[:i] {
			if m.overlaps(o) {
				t.Fatalf("%v overlaps %v", m, o)
			}
		}
	}
	for _, h := range n.Hosts {
		for _, name := range h.Names {
			if strings.ContainsAny(name, " \t\r\n#") || name == "" {
				t.Fatalf("a name in hosts is %q", name)
			}
		}
	}
	for name, d := range n.NetDevices {
		for _, name := range []string{name, n.interfaceName(), d.Name} {
			if len(name) > 15 || strings.ContainsAny(name, "/ \n") {
				t.Fatalf("a device is %q", name)
			}
		}
	}
}

func TestValidateNetwork(t *testing.T) {
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	addr := func(list ...string) (all []netip.Addr) {
		for _, s := range list {
			all = append(all, netip.MustParseAddr(s))
		}
		return all
	}
	bridge := func(f func(n *NetworkConfig)) func(c *Config) {
		return func(c *Config) { c.Network = pureNetwork(); f(c.Network) }
	}
	mode := func(n NetworkConfig) func(c *Config) { return func(c *Config) { c.Network = &n } }
	rooted := []string{} // complaints that only an ordinary user gets
	if os.Geteuid() != 0 {
		rooted = []string{"Network.Mode", `Network.NetDevices`}
	}
	for name, c := range map[string]struct {
		change func(c *Config)
		fields string
	}{
		"all of a bridge":      {bridge(func(n *NetworkConfig) {}), ""},
		"zero":                 {mode(NetworkConfig{}), ""},
		"unknown":              {mode(NetworkConfig{Mode: "nat"}), "Mode"},
		"bridge without netns": {func(c *Config) { c.Network = pureNetwork(); c.Namespaces.NewNet = false }, "Mode"},
		"joined": {func(c *Config) {
			c.Network = &NetworkConfig{}
			c.Namespaces.NewNet = false
			c.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: "/run/netns/x"}
		}, "Mode"},
		"host in its own": {mode(NetworkConfig{Mode: NetworkModeHost}), "Mode"},
		"host":            {func(c *Config) { c.Network = &NetworkConfig{Mode: NetworkModeHost}; c.Namespaces.NewNet = false }, ""},
		"container": {func(c *Config) {
			c.Network = &NetworkConfig{Mode: NetworkModeContainer, Container: "x"}
			c.Namespaces.NewNet = false
		}, ""},
		"container without id": {func(c *Config) {
			c.Network = &NetworkConfig{Mode: NetworkModeContainer}
			c.Namespaces.NewNet = false
		}, "Container"},
		"container with a user namespace of others": {func(c *Config) {
			c.Network = &NetworkConfig{Mode: NetworkModeContainer, Container: "x"}
			c.Namespaces.NewNet, c.Namespaces.NewUser, c.Namespaces.Join = false, false, map[NamespaceKind]string{UserNamespace: "/proc/1/ns/user"}
		}, "Mode"},
		"fields of others": {mode(NetworkConfig{Bridge: "x", Parent: "y", Container: "z", Interface: "i", MTU: 1400, MAC: "02:00:00:00:00:01", Aliases: []string{"a"}, NameServer: true, StateDir: "/x", EgressAllow: []string{"x"}, Routes: []Route{{Destination: netip.MustParsePrefix("10.0.0.0/8")}}}),
			"Bridge Parent Container Interface MAC MTU Aliases NameServer EgressAllow StateDir Routes Routes[0].Interface"},
		"functions of others": {mode(NetworkConfig{Egress: func(context.Context, EgressRequest) (EgressDecision, error) { return EgressDecision{}, nil }, OnEgress: func(EgressEvent) {}}), "Egress OnEgress"},
		"macvlan":             {mode(NetworkConfig{Mode: NetworkModeMacvlan, Parent: "eth0", MacvlanMode: "vepa", IPAddresses: prefix("192.0.2.5/24")}), ""},
		"macvlan of nothing":  {mode(NetworkConfig{Mode: NetworkModeMacvlan, MacvlanMode: "x"}), "Parent MacvlanMode"},
		"egress": {mode(NetworkConfig{Mode: NetworkModeEgress, EgressAllow: []string{"example.com"}, MaxConnections: 10, DNS: addr("192.0.2.1"), KeepFiles: true,
			PortMappings: []PortMapping{{HostSocket: "/run/x", ContainerSocket: "/run/y"}, {HostPort: 1, ContainerPort: 2}}}), ""},
		"relayed sctp":       {mode(NetworkConfig{PortMappings: []PortMapping{{ContainerPort: 80, Protocol: "sctp"}}}), "PortMappings[0].Protocol"},
		"socket of a bridge": {bridge(func(n *NetworkConfig) { n.PortMappings[0] = PortMapping{HostSocket: "/x", ContainerPort: 80} }), "PortMappings[0]"},
		"port twice":         {bridge(func(n *NetworkConfig) { n.PortMappings[1].Protocol = "tcp" }), "PortMappings[1]"},
		"no port":            {bridge(func(n *NetworkConfig) { n.PortMappings[1].ContainerPort = 0 }), "PortMappings[1].ContainerPort"},
		"detached at ::1": {func(c *Config) {
			bridge(func(n *NetworkConfig) { n.PortMappings[0].HostIP = netip.IPv6Loopback() })(c)
			c.Detached = true
		}, "PortMappings[0].HostIP"},
		"connections":       {mode(NetworkConfig{MaxConnections: -1}), "MaxConnections"},
		"names of devices":  {bridge(func(n *NetworkConfig) { n.Bridge, n.Interface = "a/b", "averyveryverylongname" }), "Bridge Interface"},
		"pattern":           {bridge(func(n *NetworkConfig) { n.Bridge, n.Interface = "br%d", "lo" }), "Bridge Interface"},
		"binary names":      {bridge(func(n *NetworkConfig) { n.Bridge, n.Interface = "b\xff", "a b" }), "Bridge Interface"},
		"mac of a group":    {bridge(func(n *NetworkConfig) { n.MAC = "03:42:0a:58:00:05" }), "MAC"},
		"mac of dots":       {bridge(func(n *NetworkConfig) { n.MAC = "0242.0a58.0005" }), "MAC"},
		"mtu":               {bridge(func(n *NetworkConfig) { n.MTU = 67 }), "MTU"},
		"mtu for v6":        {bridge(func(n *NetworkConfig) { n.MTU = 1279 }), "MTU"},
		"no address":        {bridge(func(n *NetworkConfig) { n.IPAddresses = []netip.Prefix{{}} }), "IPAddresses[0]"},
		"network's address": {bridge(func(n *NetworkConfig) { n.IPAddresses = prefix("10.1.0.0/24") }), "IPAddresses[0]"},
		"broadcast":         {bridge(func(n *NetworkConfig) { n.IPAddresses = prefix("10.1.0.255/24") }), "IPAddresses[0]"},
		"single":            {bridge(func(n *NetworkConfig) { n.IPAddresses = prefix("10.1.0.0/32") }), ""},
		"loopback":          {bridge(func(n *NetworkConfig) { n.IPAddresses = prefix("127.0.0.5/8") }), "IPAddresses[0]"},
		"mapped": {bridge(func(n *NetworkConfig) {
			n.IPAddresses = []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 120)}
		}), "IPAddresses[0]"},
		"twice":               {bridge(func(n *NetworkConfig) { n.IPAddresses = append(prefix("10.1.0.5/24"), prefix("10.1.0.5/16")...) }), "IPAddresses[1]"},
		"gateways":            {bridge(func(n *NetworkConfig) { n.Gateways = addr("10.1.0.1", "10.1.0.2", "0.0.0.0", "::1") }), "Gateways[1] Gateways[2] Gateways[3]"},
		"own gateway":         {bridge(func(n *NetworkConfig) { n.Gateways = addr("10.1.0.5") }), "Gateways[0]"},
		"route":               {bridge(func(n *NetworkConfig) { n.Routes[0].Destination = netip.Prefix{} }), "Routes[0].Destination"},
		"route to a host":     {bridge(func(n *NetworkConfig) { n.Routes[0].Destination = netip.MustParsePrefix("192.0.2.1/24") }), "Routes[0].Destination"},
		"route across":        {bridge(func(n *NetworkConfig) { n.Routes[0].Gateway = addr("fe80::1")[0] }), "Routes[0].Gateway"},
		"route by number":     {bridge(func(n *NetworkConfig) { n.Routes[0].Metric = -1 }), "Routes[0].Metric"},
		"route twice":         {bridge(func(n *NetworkConfig) { n.Routes = append(n.Routes, n.Routes[0]) }), "Routes[1]"},
		"dns":                 {bridge(func(n *NetworkConfig) { n.DNS = addr("0.0.0.0", "ff02::1", "fe80::1%e/x") }), "DNS[0] DNS[1] DNS[2]"},
		"search":              {bridge(func(n *NetworkConfig) { n.DNSSearch = []string{"a\nnameserver 1.2.3.4", "", "a b", "x"} }), "DNSSearch[0] DNSSearch[1] DNSSearch[2]"},
		"options":             {bridge(func(n *NetworkConfig) { n.DNSOptions = []string{"a b", "\n", ""} }), "DNSOptions[0] DNSOptions[1] DNSOptions[2]"},
		"hosts":               {bridge(func(n *NetworkConfig) { n.Hosts = []HostEntry{{}, {addr("10.0.0.1")[0], []string{"a b", "x#", "\n"}}} }), "Hosts[0].Addr Hosts[0].Names Hosts[1].Names[0] Hosts[1].Names[1] Hosts[1].Names[2]"},
		"aliases":             {bridge(func(n *NetworkConfig) { n.Aliases = []string{"a", "..", strings.Repeat("x", 254)} }), "Aliases[1] Aliases[2]"},
		"kept":                {bridge(func(n *NetworkConfig) { n.KeepFiles = true }), "DNSSearch DNSOptions Hosts"},
		"kept without server": {bridge(func(n *NetworkConfig) { n.KeepFiles, n.NameServer = true, false }), "DNS DNSSearch DNSOptions Hosts"},
		"without mounts": {func(c *Config) {
			c.Network = &NetworkConfig{DNS: addr("192.0.2.1")}
			c.Namespaces.NewMnt, c.Root, c.Mounts, c.MaskPaths, c.ReadonlyPaths = false, Root{}, nil, nil, nil
		}, "DNS"},
		"devices":            {bridge(func(n *NetworkConfig) { n.NetDevices = map[string]NetDevice{"a": {"x"}, "b": {"x"}} }), `NetDevices["b"].Name`},
		"device of our name": {bridge(func(n *NetworkConfig) { n.NetDevices = map[string]NetDevice{"net0": {}} }), `NetDevices["net0"].Name`},
		"lo":                 {bridge(func(n *NetworkConfig) { n.NetDevices = map[string]NetDevice{"lo": {"x"}} }), `NetDevices["lo"]`},
		"state":              {bridge(func(n *NetworkConfig) { n.StateDir = "x" }), "StateDir"},
		"rule":               {mode(NetworkConfig{Mode: NetworkModeEgress, EgressAllow: []string{"", "x"}}), "EgressAllow[0]"},
	} {
		cfg := pureConfig(c.change)
		var errs fieldErrors
		errs.add(cfg.validate())
		var got []string
		for _, err := range errs {
			var f *FieldError
			if !errors.As(err, &f) {
				t.Errorf("%s: %v is no complaint about a field", name, err)
				continue
			}
			if slices.Contains(rooted, f.Field) && errors.Is(err, ErrUnsupported) {
				continue
			}
			got = append(got, strings.TrimPrefix(f.Field, "Network."))
		}
		want := strings.Fields(c.fields)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%s: complaints about %q, want %q:\n%v", name, got, want, errs.join())
		}
	}
}
