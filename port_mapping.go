package container

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// This file describes ports of a container that can be reached from outside, and reads them from text. It is pure.

// PortMapping is a port of a container, or a range of them, that can be reached from outside.
type PortMapping struct {
	// HostIP is the address of the host that it can be reached at. If it is not valid, all of them, of both families. With NetworkModeBridge, for a
	// detached container all but those of loopback.
	HostIP netip.Addr
	// HostPort is the first port on the host. Zero: a free one, or as many in a row, is chosen, see NetworkState.PortMappings.
	HostPort uint16
	// ContainerPort is the first port in the container.
	ContainerPort uint16
	// Count is the number of ports. Zero means one.
	Count uint16
	// Protocol is "tcp" (if empty), "udp" or "sctp". Relayed ports cannot be sctp. Over sctp the host itself can send its own port no message that is
	// longer than a packet of the bridge: the kernel sizes packets for the loopback device, and they are lost on their way to the container. Other
	// hosts and containers can.
	Protocol string
	// HostSocket is the absolute path of a unix socket on the host that stands for HostIP and HostPort, ContainerSocket that of one in the
	// container in place of ContainerPort. Relayed ports only. The file of HostSocket goes when the container ends; if the caller was killed, with
	// Destroy or the next Create. What somebody else has put in its place stays.
	HostSocket      string `json:",omitempty"`
	ContainerSocket string `json:",omitempty"`
}

// ParsePortMapping reads a port mapping as people write it:
//
//	80                          any free port of the host to port 80
//	8080:80                     on all addresses of the host
//	127.0.0.1:8080:80/tcp       on one; an IPv6 address stands in brackets, as in [::1]:8080:80
//	192.0.2.1::53/udp           any free port of this address
//	8000-8010:9000-9010/sctp    a range, as long as the other
//	9000-9010                   a free range of the host to this one
//	/run/web.sock:80            a unix socket of the host
//	8080:/run/web.sock          one of the container
//
// Each complaint is a *FieldError; they are joined.
func ParsePortMapping(s string) (PortMapping, error) {
	m, err := parsePortMapping(s)
	if err != nil {
		return PortMapping{}, fieldErrorf("PortMapping", "%.100q: %v", s, err)
	}
	var errs fieldErrors
	errs.addIn("PortMapping", m.check())
	if err := errs.join(); err != nil {
		return PortMapping{}, err
	}
	return m, nil
}

func parsePortMapping(s string) (m PortMapping, err error) {
	host, port := "", s
	switch i := strings.LastIndexByte(s, ':'); {
	case strings.HasPrefix(s, "/") && i > 0:
		host, port = s[:i], s[i+1:]
	case strings.HasPrefix(s, "/"):
		return m, errors.New("after a socket of the host comes a colon, and the port of the container")
	case strings.Contains(s, ":/"):
		host, port, _ = strings.Cut(s, ":/")
		port = "/" + port
	case i >= 0:
		host, port = s[:i], s[i+1:]
	}
	var count, hostCount uint16
	if strings.HasPrefix(port, "/") {
		m.ContainerSocket = port
	} else {
		port, protocol, ok := strings.Cut(port, "/")
		m.Protocol = strings.ToLower(protocol)
		if !ok {
			m.Protocol = "tcp"
		} else if protocol == "" {
			return m, errors.New("after the slash comes a protocol: tcp, udp, sctp")
		}
		if m.ContainerPort, count, err = parsePorts(port); err != nil {
			return m, err
		}
	}
	if strings.HasPrefix(host, "/") {
		m.HostSocket, m.Count = host, count
		return m, nil
	}
	ip := ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		ip, host = host[:i], host[i+1:]
		inner, bracket := strings.CutPrefix(ip, "[")
		if bracket {
			if ip, bracket = strings.CutSuffix(inner, "]"); !bracket {
				return m, errors.New("an address begins with [ and does not end with ]")
			}
		}
		if m.HostIP, err = netip.ParseAddr(ip); err != nil {
			return m, fmt.Errorf("%q is not an IP address; names are not looked up", ip)
		}
		if m.HostIP.Is6() != bracket {
			return m, errors.New("an IPv6 address, and no other, stands in brackets")
		}
		m.HostIP = m.HostIP.Unmap()
	}
	if host == "" {
		m.Count = count
		return m, nil
	}
	if m.HostPort, hostCount, err = parsePorts(host); err != nil {
		return m, err
	}
	if m.HostPort == 0 {
		return m, errors.New("port 0 is none; leave it out for any free one")
	}
	if m.ContainerSocket != "" {
		count = 0
	}
	if count != hostCount {
		return m, errors.New("the ranges of ports have not the same length")
	}
	m.Count = count
	return m, nil
}

// parsePorts reads "80" or "80-90". The count is 0 for a single port.
func parsePorts(s string) (first, count uint16, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if first, err = parsePort(from); err != nil || !isRange {
		return first, 0, err
	}
	last, err := parsePort(to)
	if err == nil && (last < first || first == 0) {
		err = fmt.Errorf("%q is not a range of ports", s)
	}
	if last == first {
		return first, 0, err
	}
	return first, last - first + 1, err
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a port; use 1 to 65535", s)
	}
	return uint16(n), nil
}

// PortMappingsFromStrings reads many, as ParsePortMapping does, and refuses those that want the same port of the host. All complaints are joined.
func PortMappingsFromStrings(list []string) ([]PortMapping, error) {
	var errs fieldErrors
	all := make([]PortMapping, 0, len(list))
	for i, s := range list {
		m, err := ParsePortMapping(s)
		if err != nil {
			errs.addIn(index("PortMappings", i), err)
			continue
		}
		all = append(all, m)
	}
	if len(errs) == 0 {
		errs = checkPortOverlaps(all)
	}
	if err := errs.join(); err != nil {
		return nil, err
	}
	return all, nil
}

// String is what ParsePortMapping reads.
func (m PortMapping) String() string {
	var b strings.Builder
	ports := func(first uint16) string {
		if m.count() > 1 {
			return fmt.Sprintf("%d-%d", first, int(first)+m.count()-1)
		}
		return strconv.Itoa(int(first))
	}
	switch {
	case m.HostSocket != "":
		b.WriteString(m.HostSocket + ":")
	case m.HostIP.Is6():
		fmt.Fprintf(&b, "[%v]:", m.HostIP)
	case m.HostIP.IsValid():
		fmt.Fprintf(&b, "%v:", m.HostIP)
	}
	if m.HostSocket == "" && m.HostPort != 0 {
		b.WriteString(ports(m.HostPort))
	}
	if m.HostSocket == "" && (m.HostPort != 0 || m.HostIP.IsValid() || m.ContainerSocket != "") {
		b.WriteString(":")
	}
	if m.ContainerSocket != "" {
		return b.String() + m.ContainerSocket
	}
	b.WriteString(ports(m.ContainerPort))
	if p := m.protocol(); p != "tcp" {
		b.WriteString("/" + p)
	}
	return b.String()
}

// count is Count with its zero value resolved.
func (m PortMapping) count() int { return max(1, int(m.Count)) }

// protocol is Protocol with its zero value resolved.
func (m PortMapping) protocol() string {
	if m.Protocol == "" {
		return "tcp"
	}
	return m.Protocol
}
