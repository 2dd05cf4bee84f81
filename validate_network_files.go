package container

import "strings"

// This file checks what of Config.Network goes into hosts and resolv.conf: a name with a line break in it would add a line of its own.

func (k *networkCheck) files() {
	n := k.n
	k.resolvLines()
	k.hostLines()
	for i, name := range n.Aliases {
		k.hostName(index("Aliases", i), name)
	}
	why := ""
	switch {
	case n.KeepFiles:
		why = "contradicts KeepFiles: set one of them"
	case !k.c.Namespaces.isNew(MountNamespace):
		why = "needs a new mount namespace, to mount files of ours in; set Namespaces.NewMnt, or leave it empty"
	default:
		return
	}
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"DNS", len(n.DNS) > 0 && !n.NameServer && !k.is(NetworkModeEgress)}, // these ask them themselves
		{"DNSSearch", len(n.DNSSearch) > 0},
		{"DNSOptions", len(n.DNSOptions) > 0},
		{"Hosts", len(n.Hosts) > 0},
	} {
		if f.set {
			k.addf(f.field, "%s", why)
		}
	}
}

// resolvLines are those of resolv.conf.
func (k *networkCheck) resolvLines() {
	n := k.n
	for i, a := range n.DNS {
		if field := index("DNS", i); k.hostAddress(field, a) && a.Zone() != "" {
			k.deviceName(field, a.Zone())
		}
	}
	for i, name := range n.DNSSearch {
		if field := index("DNSSearch", i); name != "." {
			k.hostName(field, strings.TrimSuffix(name, "."))
		}
	}
	for i, option := range n.DNSOptions {
		if !isWord(option, "-_:") {
			k.addf(index("DNSOptions", i), "%.100q is not an option of resolv.conf(5), such as \"ndots:2\"", option)
		}
	}
}

// hostLines are those of hosts.
func (k *networkCheck) hostLines() {
	n := k.n
	for i, h := range n.Hosts {
		field := index("Hosts", i)
		if !h.Addr.IsValid() {
			k.addf(field+".Addr", "is required")
		} else if zone := h.Addr.Zone(); zone != "" {
			k.deviceName(field+".Addr", zone)
		}
		if len(h.Names) == 0 {
			k.addf(field+".Names", "are required")
		}
		for j, name := range h.Names {
			k.hostName(index(field+".Names", j), name)
		}
	}
}

// hostName complains about what cannot be a word of hosts(5) and a name of the domain name system.
func (e *fieldErrors) hostName(field, name string) {
	if !isHostName(name) {
		e.addf(field, "%.100q is not a name of a host; use letters, digits and - _ ., at most 253 bytes", name)
	}
}

func isHostName(name string) bool {
	return isWord(name, "-_.") && len(name) <= 253 && !strings.HasPrefix(name, ".") && !strings.Contains(name, "..")
}

// ownNetworkFiles tells whether the container gets hosts, resolv.conf and hostname of ours.
func (c *Config) ownNetworkFiles() bool {
	n := c.Network
	if n == nil || n.KeepFiles || !c.Namespaces.isNew(MountNamespace) {
		return false
	}
	asked := len(n.DNS)+len(n.DNSSearch)+len(n.DNSOptions)+len(n.Hosts) > 0
	hosts := c.Root.Dir == "/"
	return asked || !hosts || n.mode() != NetworkModeHost && n.mode() != NetworkModeNone
}
