//go:build linux

package container

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// This file is the name server of a container on a bridge: it knows the containers there, and forwards the rest. It runs in the caller's process; its
// sockets are in the container's network namespace.

// nameServerTable is the table of nftables in the container's namespace that leads to the sockets.
const nameServerTable = "container-names"

// startNameServer starts the name server of a container whose namespace is netns and has lo up, and nothing of the container's own in it yet. The sockets
// are on ports that the kernel chooses, and packets to port 53 are led there: a program in the container can have port 53 of all its addresses itself.
//
// Equivalent to: nft add rule ip container-names output ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:PORT
func startNameServer(netns *os.File, s *networkStore, b *Bridge, n *NetworkConfig) (*dnsServer, error) {
	var packets net.PacketConn
	var listener net.Listener
	err := inNetworkNamespace(netns, func() (err error) {
		var sockets net.ListenConfig
		sockets.SetMultipathTCP(false)
		at := netip.AddrPortFrom(ownNameServer, 0).String()
		if packets, err = sockets.ListenPacket(context.Background(), "udp4", at); err != nil {
			return err
		}
		if listener, err = sockets.Listen(context.Background(), "tcp4", at); err != nil {
			return err
		}
		return redirectNames(addrPortOf(packets.LocalAddr()).Port(), addrPortOf(listener.Addr()).Port())
	})
	if err != nil {
		if packets != nil {
			packets.Close()
		}
		if listener != nil {
			listener.Close()
		}
		return nil, &Error{Op: "name server", Path: ownNameServer.String(), Err: err, Remedy: "it needs nftables with nat in the kernel, and the right to change the container's network"}
	}
	server := newDNSServer(bridgeNames(s, b, n))
	server.servePacket(packets)
	server.serveListener(listener)
	return server, nil
}

// bridgeNames is what a container on a bridge is answered. On an internal bridge nothing is forwarded: questions are a way out like any other
// (CVE-2024-29018).
func bridgeNames(s *networkStore, b *Bridge, n *NetworkConfig) dnsOptions {
	return dnsOptions{
		allow: func(context.Context, string, netip.AddrPort) error {
			if b.Internal {
				return errInternalBridge
			}
			return nil
		},
		local: func(name string) ([]netip.Addr, bool) {
			addrs, err := s.lookup(b.Name, name)
			return addrs, err == nil && len(addrs) > 0
		},
		reverse: func(addr netip.Addr) (string, bool) {
			e, err := s.holder(b.Name, addr)
			if err != nil || len(e.Names) == 0 {
				return "", false
			}
			alive, err := e.answers()
			return strings.ToLower(e.Names[0]), err == nil && alive
		},
		upstreams: upstreamsOf(n),
	}
}

var errInternalBridge = errors.New("the bridge is internal")

// redirectNames makes the table in the namespace of the calling thread.
func redirectNames(udp, tcp uint16) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: nameServerTable})
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	addr := ownNameServer.AsSlice()
	for _, to := range []struct {
		protocol byte
		port     uint16
	}{{unix.IPPROTO_UDP, udp}, {unix.IPPROTO_TCP, tcp}} {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{to.protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, // destination address
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: addr},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // destination port
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, dnsPort}},
			&expr.Immediate{Register: 1, Data: addr},
			&expr.Immediate{Register: 2, Data: []byte{byte(to.port >> 8), byte(to.port)}},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
		}})
	}
	return c.Flush()
}
