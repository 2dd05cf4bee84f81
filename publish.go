//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file publishes ports of a container by carrying their connections: the ports of the host are bound before the container starts, so
// that a conflict is told before anything runs. It runs in the caller's process, with its rights, and ends with it. What becomes of
// a connection is in publish_tcp.go and publish_udp.go, how the container is reached in publish_way.go.
//
// The naive way, a child in the namespace that dials 127.0.0.1, shows each client as the container's own loopback, which
// many programs trust (CVE-2021-20199).

// A portRelay carries connections from ports of the host into a container.
type portRelay struct {
	log      *slog.Logger
	mappings []PortMapping // with the ports that were chosen
	way      portWay
	slots    chan struct{} // the relay's, filled by connections and flows
	streams  []*streamPort
	packets  []*packetPort

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	full   sync.Once    // told
	kept   atomic.Int64 // bytes of packets that wait
}

// portRelayFor is what carries the container's ports; nil if nothing has to. It binds the host's, and notes what was chosen in st.
func (c *Container) portRelayFor(st *stored) (*portRelay, error) {
	n := c.cfg.Network
	var way portWay
	mappings := n.PortMappings
	hosts := allHosts
	switch {
	case len(mappings) == 0:
		return nil, nil
	case n.relays():
		way = newInsideWay(c)
	case n.mode() == NetworkModeBridge && !c.cfg.Detached:
		// The kernel forwards them, but from loopback addresses, which no other device may have.
		mappings, hosts = onLoopback(st.Network.PortMappings), loopbackHosts
		way = newBridgeWay(st.Network)
	}
	if way == nil || len(mappings) == 0 {
		return nil, nil
	}
	p, err := newPortRelay(c, mappings, hosts, func(sockets []*socketFile) error {
		st.Sockets = sockets
		return c.record.write("state.json", st)
	})
	if err != nil {
		return nil, err
	}
	p.way = way
	if n.relays() {
		st.Network.PortMappings = p.mappings
	}
	return p, nil
}

// publishPorts has the ports that this process carries bound.
func (c *Container) publishPorts(st *stored, n *networkLink) error {
	ports, err := c.portRelayFor(st)
	if ports == nil {
		return err
	}
	if n.relay == nil {
		n.relay = newRelay(c)
	}
	ports.slots, n.relay.ports = n.relay.slots, ports
	return nil
}

// stepPublish gives the container an address of its own, and makes those local that clients have in it, where not all addresses are.
func (pl *plan) stepPublish() {
	if pl.cfg.networkMode() != NetworkModeNone || len(pl.cfg.Network.PortMappings) == 0 {
		return
	}
	messages := []netlinkMessage{addressMessage(egressAddr4), localMessage(netip.PrefixFrom(portClient4, 32), egressAddr4)}
	if haveIPv6() {
		for _, m := range []netlinkMessage{addressMessage(egressAddr6), localMessage(netip.PrefixFrom(portClient6, 128), egressAddr6)} {
			m.ignore = []unix.Errno{unix.EACCES, unix.EOPNOTSUPP} // switched off for new devices
			messages = append(messages, m)
		}
	}
	pl.netlink(unix.NETLINK_ROUTE, messages...)
}

// onLoopback are the mappings that the host's own programs expect at loopback addresses, and the kernel does not forward.
func onLoopback(mappings []PortMapping) (list []PortMapping) {
	for _, m := range mappings {
		if m.Protocol != "sctp" && (!m.HostIP.IsValid() || m.HostIP.IsUnspecified() || m.HostIP == loopback6) {
			list = append(list, m)
		}
	}
	return list
}

// allHosts are the addresses to bind for a mapping.
func allHosts(m PortMapping) []netip.Addr {
	if m.HostIP.IsValid() {
		return []netip.Addr{m.HostIP.Unmap()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// loopbackHosts are those of them that are loopback addresses.
func loopbackHosts(m PortMapping) []netip.Addr {
	switch {
	case !m.HostIP.IsValid():
		return []netip.Addr{loopback4, loopback6}
	case m.HostIP.Is4():
		return []netip.Addr{loopback4}
	}
	return []netip.Addr{loopback6}
}

// newPortRelay binds the host's ports; note records what they have in the file system. Connections wait until serve.
func newPortRelay(c *Container, mappings []PortMapping, hosts func(PortMapping) []netip.Addr, note func([]*socketFile) error) (*portRelay, error) {
	p := &portRelay{log: c.cfg.logger().With("id", c.id), mappings: slices.Clone(mappings)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	// Those with a number first, or a chosen one may be in their way.
	for _, chosen := range []bool{false, true} {
		for i := range p.mappings {
			m := &p.mappings[i]
			if m.HostSocket != "" || chosen != (m.HostPort == 0) {
				continue
			}
			if err := p.bind(m, hosts(*m)); err != nil {
				p.close()
				return nil, err
			}
		}
	}
	if err := p.bindSockets(note); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// bind binds the ports of a mapping, and chooses them if that is left to us.
func (p *portRelay) bind(m *PortMapping, hosts []netip.Addr) error {
	if m.HostPort != 0 {
		return p.bindAll(*m, hosts)
	}
	var err error
	for range 100 {
		var first uint16
		if first, err = freePort(*m, hosts[0]); err != nil {
			return bindError(*m, hosts[0].String(), err)
		}
		if int(first)+int(max(m.Count, 1))-1 > 65535 {
			continue
		}
		chosen := *m
		chosen.HostPort = first
		streams, packets := len(p.streams), len(p.packets)
		if err = p.bindAll(chosen, hosts); err == nil {
			m.HostPort = first
			return nil
		}
		p.unbind(streams, packets)
		if !errors.Is(err, ErrPortInUse) {
			return err
		}
	}
	return err
}

// freePort is a port that the kernel chooses.
func freePort(m PortMapping, host netip.Addr) (uint16, error) {
	if m.Protocol == "udp" {
		conn, err := listenPacket(netip.AddrPortFrom(host, 0))
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		return conn.LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
	}
	l, err := listenStream(netip.AddrPortFrom(host, 0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// bindAll binds all ports of a mapping at all addresses.
func (p *portRelay) bindAll(m PortMapping, hosts []netip.Addr) error {
	for i := range max(m.Count, 1) {
		to := &portTarget{port: m.ContainerPort + i, path: m.ContainerSocket}
		for _, host := range hosts {
			addr := netip.AddrPortFrom(host, m.HostPort+i)
			var err error
			if m.Protocol == "udp" {
				var conn *net.UDPConn
				if conn, err = listenPacket(addr); err == nil {
					p.packets = append(p.packets, newPacketPort(p, conn, host.IsUnspecified(), to))
				}
			} else {
				var l net.Listener
				if l, err = listenStream(addr); err == nil {
					p.streams = append(p.streams, &streamPort{relay: p, listener: l, to: to})
				}
			}
			if err != nil && len(hosts) > 1 && host.Is6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
				continue // a host without IPv6
			}
			if err != nil {
				return bindError(m, addr.String(), err)
			}
		}
	}
	return nil
}

// listenStream listens at an address of the host.
func listenStream(addr netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), "tcp"+familyName(addr.Addr()), addr.String())
}

// listenPacket is listenStream for UDP. Packets tell which address they were sent to.
func listenPacket(addr netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(network, _ string, conn syscall.RawConn) (err error) {
		level, option := unix.SOL_IP, unix.IP_PKTINFO
		if network == "udp6" {
			level, option = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
		}
		cerr := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
		return errors.Join(err, cerr)
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp"+familyName(addr.Addr()), addr.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// bindError says which port of the host cannot be had, and what can be done about it.
func bindError(m PortMapping, addr string, err error) error {
	e := &Error{Op: "publish port", Path: cmp.Or(m.Protocol, "tcp") + " " + addr, Err: err}
	if m.HostSocket != "" {
		e.Path = m.HostSocket
	}
	var syscallErr *os.SyscallError
	if errors.As(err, &syscallErr) {
		e.Err = syscallErr
	}
	switch {
	case m.HostSocket != "" && errors.Is(err, unix.EEXIST):
		e.Err, e.Remedy = fmt.Errorf("%w: %w", ErrPortInUse, e.Err), "there is a file of this name; that of a container goes with its Destroy; if no program uses it, remove it"
	case m.HostSocket != "" && errors.Is(err, unix.ENOENT):
		e.Remedy = "the directory of HostSocket must exist"
	case errors.Is(err, unix.EADDRINUSE):
		e.Err, e.Remedy = fmt.Errorf("%w: %w", ErrPortInUse, e.Err), "another program or container has it; take another HostPort, or 0 for one that is free"
	case errors.Is(err, unix.EACCES) && m.HostSocket == "":
		e.Remedy = "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; take a higher HostPort"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		e.Remedy = "HostIP must be an address of this host"
	}
	return e
}

// serve carries what comes, and what has come already.
func (p *portRelay) serve() {
	if p == nil {
		return
	}
	for _, s := range p.streams {
		p.work.Go(s.accept)
	}
	for _, s := range p.packets {
		p.work.Go(s.receive)
	}
}

// end ends all of it: nothing is bound any more.
func (p *portRelay) end() {
	if p == nil {
		return
	}
	p.cancel()
	p.unbind(0, 0)
}

// close ends all of it, and waits until nothing of it is left.
func (p *portRelay) close() {
	if p == nil {
		return
	}
	p.end()
	p.work.Wait()
	if p.way != nil {
		p.way.close()
	}
}

// unbind closes what was bound after the first so many.
func (p *portRelay) unbind(streams, packets int) {
	for _, s := range p.streams[streams:] {
		if s.file != nil {
			if err := s.file.remove(hastily, true); err != nil {
				p.log.Warn("the file of a published socket could not be removed, which Destroy will", "err", err)
			}
		}
		s.listener.Close()
	}
	for _, s := range p.packets[packets:] {
		s.conn.Close()
	}
	p.streams, p.packets = p.streams[:streams], p.packets[:packets]
}

// take takes a place among the connections.
func (p *portRelay) take() bool {
	select {
	case p.slots <- struct{}{}:
		return true
	default:
		p.full.Do(func() {
			p.log.Warn("connections to published ports are refused: there are too many at one time; see NetworkConfig.MaxConnections", "max", cap(p.slots))
		})
		return false
	}
}

func (p *portRelay) give() { <-p.slots }

// portDialTime is how long a program in the container may take to accept a connection.
const portDialTime = 30 * time.Second
