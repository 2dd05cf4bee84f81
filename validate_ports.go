package container

import (
	"cmp"
	"net/netip"
	"slices"
)

// This file checks port mappings, each by itself and against each other, before anything else happens.

// check returns all complaints about a mapping by itself, joined.
func (m PortMapping) check() error {
	var errs fieldErrors
	switch m.Protocol {
	case "", "tcp", "udp", "sctp":
	default:
		errs.addf("Protocol", "unknown protocol %.20q; one of tcp, udp, sctp", m.Protocol)
	}
	if m.HostSocket != "" {
		errs.socketPath("HostSocket", m.HostSocket)
		if m.HostIP.IsValid() || m.HostPort != 0 {
			errs.addf("HostSocket", "stands for HostIP and HostPort; leave these out")
		}
	}
	if m.ContainerSocket != "" {
		errs.socketPath("ContainerSocket", m.ContainerSocket)
		if m.ContainerPort != 0 {
			errs.addf("ContainerSocket", "stands for ContainerPort; leave that out")
		}
	} else if m.ContainerPort == 0 {
		errs.addf("ContainerPort", "is required: 1 to 65535")
	}
	if (m.HostSocket != "" || m.ContainerSocket != "") && (m.protocol() != "tcp" || m.count() > 1) {
		errs.addf("Protocol", "a unix socket stands for one port of tcp")
	}
	if m.HostIP.IsValid() {
		switch {
		case m.HostIP.Is4In6(), m.HostIP.Zone() != "":
			errs.addf("HostIP", "%v has a form that no packet has; write it without zone, and IPv4 as such", m.HostIP)
		case m.HostIP.IsMulticast(), m.HostIP == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			errs.addf("HostIP", "%v is no address of a host", m.HostIP)
		}
	}
	if int(m.HostPort)+m.count()-1 > 65535 || int(m.ContainerPort)+m.count()-1 > 65535 {
		errs.addf("Count", "%d ports go beyond port 65535", m.count())
	}
	return errs.join()
}

const maxSocketPath = 107 // sockaddr_un, with a NUL

// socketPath complains about what cannot be the path of a unix socket.
func (e *fieldErrors) socketPath(field, p string) {
	if e.absolute(field, p) && len(p) > maxSocketPath {
		e.addf(field, "has %d bytes; the path of a unix socket has at most %d", len(p), maxSocketPath)
	}
	e.printable(field, p)
}

// overlaps tells whether two mappings want the same port of the same address, or the same socket.
func (m PortMapping) overlaps(o PortMapping) bool {
	if m.HostSocket != "" || o.HostSocket != "" {
		return m.HostSocket == o.HostSocket
	}
	if m.protocol() != o.protocol() || m.HostPort == 0 || o.HostPort == 0 {
		return false
	}
	a, b := m.HostIP, o.HostIP
	everywhere := !a.IsValid() || !b.IsValid() || a.BitLen() == b.BitLen() && (a.IsUnspecified() || b.IsUnspecified())
	if !everywhere && a != b {
		return false
	}
	return int(m.HostPort) < int(o.HostPort)+o.count() && int(o.HostPort) < int(m.HostPort)+m.count()
}

// checkPortOverlaps complains about each mapping that wants what another wants.
func checkPortOverlaps(all []PortMapping) (errs fieldErrors) {
	const most = 100 // complaints
	var order []int  // by port
	sockets := make(map[string]int)
	for i, m := range all {
		if m.HostSocket == "" {
			order = append(order, i)
		} else if j, ok := sockets[m.HostSocket]; ok {
			errs.addf(index("PortMappings", i), "%v wants the socket that PortMappings[%d] wants", m, j)
		} else {
			sockets[m.HostSocket] = i
		}
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(all[i].protocol(), all[j].protocol()), cmp.Compare(all[i].HostPort, all[j].HostPort))
	})
	for n, i := range order {
		end := int(all[i].HostPort) + all[i].count()
		for _, j := range order[n+1:] {
			if all[j].protocol() != all[i].protocol() || int(all[j].HostPort) >= end || len(errs) >= most {
				break
			}
			if all[i].overlaps(all[j]) {
				errs.addf(index("PortMappings", max(i, j)), "wants a port of the host that PortMappings[%d], %v, wants", min(i, j), all[min(i, j)])
			}
		}
	}
	return errs
}

// addIn adds the complaints of a part, each with the name of what the part is in.
func (e *fieldErrors) addIn(outer string, err error) {
	var inner fieldErrors
	inner.add(err)
	for _, err := range inner {
		*e = append(*e, inField(outer, err))
	}
}
