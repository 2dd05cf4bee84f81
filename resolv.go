package container

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// This file is the text of hosts(5) and resolv.conf(5). It is pure; network_files.go brings it into a container.

// ResolvConf is what resolv.conf(5) says.
type ResolvConf struct {
	// Servers are asked one after the other; the C library takes the first three. None: it asks 127.0.0.1.
	Servers []netip.Addr
	// Search are domains that names without a dot are looked up in. None: that of the host name.
	Search []string
	// Options are as in resolv.conf(5), "ndots:2".
	Options []string
}

// localHosts is the beginning of each hosts file.
const localHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

// WriteHosts writes a hosts file: the lines of the local host, and then entries. The naive way, a function that is told the path of a root and
// writes to etc/hosts in it, follows the links of whoever has made the root, and overwrites the host's own file: open the
// file in an [os.Root], or let Config.Network mount one of its own. A name that would become more than one is a *FieldError, and
// nothing is written.
func WriteHosts(w io.Writer, entries []HostEntry) error {
	check := networkCheck{n: &NetworkConfig{Hosts: entries}}
	check.hostLines()
	if err := check.join(); err != nil {
		return err
	}
	return writeText(w, "hosts", hostsText(entries))
}

// WriteResolvConf writes a resolv.conf file. All that is said of WriteHosts holds.
func WriteResolvConf(w io.Writer, c ResolvConf) error {
	check := networkCheck{n: &NetworkConfig{DNS: c.Servers, DNSSearch: c.Search, DNSOptions: c.Options}}
	check.resolvLines()
	if err := check.join(); err != nil {
		return err
	}
	return writeText(w, "resolv.conf", c.text())
}

func writeText(w io.Writer, name string, text []byte) error {
	if _, err := w.Write(text); err != nil {
		return &Error{Op: "write", Path: name, Err: err}
	}
	return nil
}

func hostsText(entries []HostEntry) []byte {
	b := bytes.NewBufferString(localHosts)
	for _, e := range entries {
		fmt.Fprintf(b, "%v\t%s\n", e.Addr, strings.Join(e.Names, " "))
	}
	return b.Bytes()
}

func (c ResolvConf) text() []byte {
	var b bytes.Buffer
	for _, s := range c.Servers {
		fmt.Fprintf(&b, "nameserver %v\n", s)
	}
	if len(c.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Search, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(c.Options, " "))
	}
	return b.Bytes()
}

// parseResolvConf reads what is understood of a file, as the C library does: the last search or domain counts, and options add up.
func parseResolvConf(text string) (c ResolvConf) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, ";")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				c.Servers = append(c.Servers, a)
			}
		case "search", "domain":
			c.Search = nil
			for _, name := range words[1:] {
				if name == "." || isHostName(strings.TrimSuffix(name, ".")) {
					c.Search = append(c.Search, name)
				}
			}
		case "options":
			for _, o := range words[1:] {
				if isWord(o, "-_:") {
					c.Options = append(c.Options, o)
				}
			}
		}
	}
	return c
}

// ownNameServer is where a container finds the name server of ours.
var ownNameServer = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// resolvConf is what a container's resolv.conf says, given the host's.
func (n *NetworkConfig) resolvConf(host func() ResolvConf) ResolvConf {
	c := ResolvConf{n.DNS, n.DNSSearch, n.DNSOptions}
	switch {
	case n.mode() == NetworkModeEgress || n.NameServer:
		c.Servers = []netip.Addr{ownNameServer} // which asks n.DNS
	case len(c.Servers) > 0:
	case n.mode() == NetworkModeHost:
		c = c.orElse(host())
	case n.mode() == NetworkModeBridge:
		for _, a := range host().Servers {
			if !a.IsLoopback() && !a.IsUnspecified() && a.Zone() == "" { // what is the host's own, or on a link of its
				c.Servers = append(c.Servers, a)
			}
		}
	}
	return c
}

// orElse has what c does not say from another.
func (c ResolvConf) orElse(other ResolvConf) ResolvConf {
	if len(c.Servers) == 0 {
		c.Servers = other.Servers
	}
	if len(c.Search) == 0 {
		c.Search = other.Search
	}
	if len(c.Options) == 0 {
		c.Options = other.Options
	}
	return c
}

// hosts is what a container's hosts file says besides the lines of each: its own names, and Hosts.
func (c *Config) hosts(id string, addresses []netip.Prefix) []HostEntry {
	n := c.Network
	var names []string
	for _, name := range append([]string{c.Hostname, id}, n.Aliases...) {
		if isHostName(name) && name != "localhost" {
			names = append(names, name)
		}
	}
	var entries []HostEntry
	for _, p := range addresses {
		entries = append(entries, HostEntry{p.Addr(), names})
	}
	if len(entries) == 0 {
		entries = []HostEntry{{netip.AddrFrom4([4]byte{127, 0, 1, 1}), names}}
	}
	if len(names) == 0 {
		entries = nil
	}
	return append(entries, n.Hosts...)
}
