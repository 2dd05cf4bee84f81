//go:build linux

package container

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// This file is the packet filter of a container whose way out is decided about: it brings to our sockets what leaves. It is pure. It
// guards nothing: a root in the container who changes it reaches nobody at all, since there is no way but our sockets.

const (
	// egressMark is on packets that the relay has sent.
	egressMark = 0x0e62e55
	// egressPort is that of our sockets in the container, out of the range of ports that the kernel chooses.
	egressPort = 65535
)

var (
	// The container's own addresses. The first is kept for hosts that have nothing but IPv6 behind them (RFC 7335), so that nobody
	// else has it; the second is local (RFC 4193).
	egressAddr4 = netip.MustParseAddr("192.0.0.2")
	egressAddr6 = netip.MustParseAddr("fd63:6f6e:7461:696e::2")

	// Where our sockets are. The first is also that of the name server.
	egressSocket4 = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.11"), egressPort)
	egressSocket6 = netip.AddrPortFrom(egressAddr6, egressPort)
)

// egressRuleset is the batch of messages for nf_tables, one for kernels with IPv6 and one for those without.
var egressRuleset = [2]func() ([]byte, error){
	sync.OnceValues(func() ([]byte, error) { return compileEgress(false) }),
	sync.OnceValues(func() ([]byte, error) { return compileEgress(true) }),
}

// compileEgress is
//
//	table inet container {
//		chain egress {
//			type filter hook prerouting priority mangle; policy accept;
//			iif != lo accept
//			meta mark OURS meta l4proto != tcp accept      # answers
//			ip daddr 127.0.0.11 th dport 53 tproxy to SOCKET accept
//			ip daddr { 127.0.0.0/8, 192.0.0.2 } accept     # the container's own
//			ip6 daddr { ::1, fd63:6f6e:7461:696e::2 } accept
//			tcp dport 53 tproxy to SOCKET accept
//			tcp flags syn meta mark != OURS tproxy to SOCKET drop
//			meta l4proto tcp tproxy to SOCKET accept
//			icmp type destination-unreachable accept, and the same of IPv6
//			tcp flags syn reject with tcp reset
//			meta l4proto udp tproxy to SOCKET accept
//			meta l4proto != tcp reject with icmpx admin-prohibited
//		}
//	}
//
// The first packet of a connection is dropped after the relay has seen it on a packet socket. When there is somebody to talk to, the relay
// sends it again, with its mark. A rule with tproxy applies while our socket is there: without a relay what comes after it
// refuses.
func compileEgress(ipv6 bool) ([]byte, error) {
	const table, chain, policyAccept = "container", "egress", 1
	b := nftBatch{}
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, netlinkAttr(unix.NFTA_TABLE_NAME, zeroEnded(table)))
	priority := int32(-150) // mangle
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE,
		netlinkAttr(unix.NFTA_CHAIN_TABLE, zeroEnded(table)), netlinkAttr(unix.NFTA_CHAIN_NAME, zeroEnded(chain)),
		netlinkAttr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED,
			netlinkAttr(unix.NFTA_HOOK_HOOKNUM, bigUint32(unix.NF_INET_PRE_ROUTING)), netlinkAttr(unix.NFTA_HOOK_PRIORITY, bigUint32(uint32(priority)))),
		netlinkAttr(unix.NFTA_CHAIN_POLICY, bigUint32(policyAccept)), netlinkAttr(unix.NFTA_CHAIN_TYPE, zeroEnded("filter")))
	rules := egressRules(ipv6)
	for i, rule := range rules {
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_APPEND)
		if i == len(rules)-1 {
			flags |= unix.NLM_F_ACK // the one answer, if all of it has been taken
		}
		var list [][]byte
		for _, e := range rule {
			data, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil {
				return nil, err
			}
			list = append(list, netlinkAttr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data))
		}
		b.add(unix.NFT_MSG_NEWRULE, flags, netlinkAttr(unix.NFTA_RULE_TABLE, zeroEnded(table)), netlinkAttr(unix.NFTA_RULE_CHAIN, zeroEnded(chain)),
			netlinkAttr(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, list...))
	}
	return b.close(), nil
}

// egressRules are the rules of compileEgress.
func egressRules(ipv6 bool) [][]expr.Any {
	accept, drop := verdict(expr.VerdictAccept), verdict(expr.VerdictDrop)
	tcp, udp := protocolIs(unix.IPPROTO_TCP), protocolIs(unix.IPPROTO_UDP)
	syn := join(tcp, loaded(segment(13, 1), 0x17), compare(expr.CmpOpEq, []byte{2}))
	ours := nativeUint32(egressMark)
	unmarked := join(mark, compare(expr.CmpOpNeq, ours))
	domain := join(segment(2, 2), compare(expr.CmpOpEq, []byte{0, 53}))
	families := []family{{unix.NFPROTO_IPV4, egressSocket4}}
	rules := [][]expr.Any{
		join(exprs{&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}}, compare(expr.CmpOpNeq, nativeUint32(loopbackIndex)), accept),
		join(mark, compare(expr.CmpOpEq, ours), exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, compare(expr.CmpOpNeq, []byte{unix.IPPROTO_TCP}), accept),
	}
	v4 := families[0]
	for _, p := range []exprs{udp, tcp} {
		rules = append(rules, join(v4.is(), v4.to(egressSocket4.Addr()), p, domain, v4.tproxy(), accept))
	}
	rules = append(rules, join(v4.is(), loaded(header(16, 4), 0xff, 0, 0, 0), compare(expr.CmpOpEq, []byte{127, 0, 0, 0}), accept),
		join(v4.is(), v4.to(egressAddr4), accept))
	if ipv6 {
		v6 := family{unix.NFPROTO_IPV6, egressSocket6}
		families = append(families, v6)
		rules = append(rules, join(v6.is(), v6.to(netip.IPv6Loopback()), accept), join(v6.is(), v6.to(egressAddr6), accept))
	}
	for _, f := range families {
		rules = append(rules, join(f.is(), tcp, domain, f.tproxy(), accept),
			join(f.is(), syn, unmarked, f.tproxy(), drop),
			join(f.is(), tcp, f.tproxy(), accept),
			join(f.is(), udp, f.tproxy(), accept))
	}
	rules = append(rules, acceptICMP(unix.IPPROTO_ICMP, 3))
	if ipv6 {
		rules = append(rules, acceptICMP(unix.IPPROTO_ICMPV6, 1))
	}
	return append(rules, join(syn, exprs{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
		join(exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, compare(expr.CmpOpNeq, []byte{unix.IPPROTO_TCP}),
			exprs{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}))
}

// acceptICMP lets through what tells that nobody listens, which clients of published ports wait for.
func acceptICMP(protocol, typ byte) exprs {
	return join(protocolIs(protocol), segment(0, 1), compare(expr.CmpOpEq, []byte{typ}), verdict(expr.VerdictAccept))
}

type exprs = []expr.Any

func join(parts ...exprs) exprs {
	var all exprs
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

var mark = exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}}

func verdict(k expr.VerdictKind) exprs { return exprs{&expr.Verdict{Kind: k}} }

func compare(op expr.CmpOp, data []byte) exprs {
	return exprs{&expr.Cmp{Op: op, Register: 1, Data: data}}
}

func protocolIs(p byte) exprs {
	return join(exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, compare(expr.CmpOpEq, []byte{p}))
}

func header(offset, size uint32) exprs {
	return exprs{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
}

func segment(offset, size uint32) exprs {
	return exprs{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: size}}
}

// loaded is what is loaded, and what of it the mask leaves.
func loaded(load exprs, mask ...byte) exprs {
	return join(load, exprs{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}})
}

// family is IPv4 or IPv6, and where our socket is.
type family struct {
	proto  byte
	socket netip.AddrPort
}

func (f family) is() exprs {
	return join(exprs{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}}, compare(expr.CmpOpEq, []byte{f.proto}))
}

func (f family) to(a netip.Addr) exprs {
	offset := uint32(16)
	if a.Is6() {
		offset = 24
	}
	return join(header(offset, uint32(a.BitLen()/8)), compare(expr.CmpOpEq, a.AsSlice()))
}

func (f family) tproxy() exprs {
	return exprs{
		&expr.Immediate{Register: 1, Data: f.socket.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, f.socket.Port())},
		&expr.TProxy{Family: f.proto, TableFamily: unix.NFPROTO_INET, RegAddr: 1, RegPort: 2},
	}
}

// An nftBatch is a transaction of nf_tables.
type nftBatch struct{ bytes []byte }

func (b *nftBatch) add(typ, flags uint16, attrs ...[]byte) {
	if b.bytes == nil {
		b.edge(unix.NFNL_MSG_BATCH_BEGIN)
	}
	parts := append([][]byte{{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}}, attrs...)
	b.bytes = append(b.bytes, netlinkBytes(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, parts...)...)
}

func (b *nftBatch) edge(typ uint16) {
	b.bytes = append(b.bytes, netlinkBytes(typ, 0, []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})...)
}

func (b *nftBatch) close() []byte {
	b.edge(unix.NFNL_MSG_BATCH_END)
	return b.bytes
}
