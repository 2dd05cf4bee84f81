//go:build linux

package container

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// This file holds the rules for containers on bridges. They are the same whatever containers there are: only the sets of nat_sets.go
// change. It is pure.
//
// What they do not do: a packet that they accept can still be dropped by the host's other tables, and the other way round.

// natVersion is part of the name of an empty chain: rules without it are those of another version of this package, or none, and are replaced. It goes
// up by one with each change of the rules or sets; the test with the text of the rules tells.
const natVersion = "version-2"

// A natChain is a chain with its rules.
type natChain struct {
	name     string
	bridge   bool // it is in the table of the family bridge
	typ      nftables.ChainType
	hook     *nftables.ChainHook // nil: reached by jumps
	priority *nftables.ChainPriority
	rules    [][]expr.Any
}

// natChains are all chains. The comments are what nft(8) would be told.
func natChains() []natChain {
	return []natChain{
		{name: natVersion},
		{name: natVersion, bridge: true},

		// The host's loopback addresses are not on a bridge, whatever route_localnet says.
		{"early", false, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, [][]expr.Any{
			nftRule(nftInputIn(setBridges), nftIP4, nftIP4Dst(127), nftDrop), // iifname @bridges ip daddr 127.0.0.0/8 drop
			nftRule(nftInputIn(setBridges), nftIP4, nftIP4Src(127), nftDrop), // iifname @bridges ip saddr 127.0.0.0/8 drop
		}},

		// Published ports, from other hosts and containers, and from the host itself. A port of a loopback address is for the host itself:
		// a packet of another host's can carry that address, and would be forwarded before the kernel has looked at it.
		{"prerouting", false, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, [][]expr.Any{
			nftRule(nftIP4, nftIP4Dst(127), nftRet),                                    // ip daddr 127.0.0.0/8 return
			nftRule(nftIP6, nftIP6Dst(nftLoopback6...), nftRet),                        // ip6 daddr ::1 return
			nftRule(nftInputIn(setInternal), nftRet),                                   // iifname @internal return
			nftRule(nftToHost, expr.Verdict{Kind: expr.VerdictJump, Chain: "publish"}), // fib daddr type local jump publish
		}},
		{"output", false, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, [][]expr.Any{
			nftRule(nftToHost, expr.Verdict{Kind: expr.VerdictJump, Chain: "publish"}), // fib daddr type local jump publish
		}},
		{"publish", false, "", nil, nil, [][]expr.Any{
			nftRule(nftIP4, nftLoad(1, nftNetwork, 16, 4), nftL4proto(9), nftLoad(10, nftTransport, 2, 2), nftDnat(setExact4)),   // dnat ip to ip daddr . meta l4proto . th dport map @exact4
			nftRule(nftIP6, nftLoad(1, nftNetwork, 24, 16), nftL4proto(12), nftLoad(13, nftTransport, 2, 2), nftDnat(setExact6)), // the same for ip6
			nftRule(nftIP4, nftIP4Dst(127), nftRet),                                            // ip daddr 127.0.0.0/8 return
			nftRule(nftIP6, nftIP6Dst(nftLoopback6...), nftRet),                                // ip6 daddr ::1 return
			nftRule(nftIP4, nftL4proto(1), nftLoad(9, nftTransport, 2, 2), nftDnat(setPorts4)), // dnat ip to meta l4proto . th dport map @ports4
			nftRule(nftIP6, nftL4proto(1), nftLoad(9, nftTransport, 2, 2), nftDnat(setPorts6)), // the same for ip6
		}},

		// Bridges are separate from each other. What comes in has been asked for from inside, or is for a published port.
		{"forward", false, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, [][]expr.Any{
			nftRule(nftInputIn(setBridges), expr.Verdict{Kind: expr.VerdictJump, Chain: "leave"}),  // iifname @bridges jump leave
			nftRule(nftOutputIn(setBridges), expr.Verdict{Kind: expr.VerdictJump, Chain: "enter"}), // oifname @bridges jump enter
			// The host is no router for others because of us.
			nftRule(nftIP4, nftInputIn(setOpened4), nftDrop), // meta nfproto ipv4 iifname @opened4 drop
			nftRule(nftIP6, nftInputIn(setOpened6), nftDrop), // meta nfproto ipv6 iifname @opened6 drop
		}},
		{"leave", false, "", nil, nil, [][]expr.Any{
			nftRule(nftSameBridge, nftAccept),         // iifname . oifname @same accept
			nftRule(nftInputIn(setInternal), nftDrop), // iifname @internal drop
			nftRule(nftAsked, nftAccept),              // ct state established,related accept
			// Link-local addresses are not forwarded (RFC 3927 2.7); clouds give out credentials there, and at that of IPv6.
			nftRule(nftIP4, nftIP4Dst(169, 254), nftReject),                                                      // ip daddr 169.254.0.0/16 reject with icmpx admin-prohibited
			nftRule(nftIP6, nftIP6Dst(0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54), nftReject), // ip6 daddr fd00:ec2::254 reject with icmpx admin-prohibited
		}},
		{"enter", false, "", nil, nil, [][]expr.Any{
			nftRule(nftAsked, nftAccept),               // ct state established,related accept
			nftRule(nftOutputIn(setInternal), nftDrop), // oifname @internal drop
			nftRule(nftPublished, nftAccept),           // ct status dnat accept
			nftRule(nftDrop),
		}},

		// From an internal bridge, the host is what it is on that bridge.
		{"input", false, nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, [][]expr.Any{
			nftRule(nftInputIn(setInternal), expr.Verdict{Kind: expr.VerdictJump, Chain: "own"}), // iifname @internal jump own
		}},
		{"own", false, "", nil, nil, [][]expr.Any{
			nftRule(nftAsked, nftAccept), // ct state established,related accept
			nftRule(nftIP4, nftInput(1), nftLoad(2, nftNetwork, 16, 4), nftIn(setOwn4), nftAccept),                                         // iifname . ip daddr @own4 accept
			nftRule(nftIP6, nftInput(1), nftLoad(2, nftNetwork, 24, 16), nftIn(setOwn6), nftAccept),                                        // iifname . ip6 daddr @own6 accept
			nftRule(nftIP6, nftIsProto(unix.IPPROTO_ICMPV6), nftAtLeast(nftTransport, 0, 133), nftAtMost(nftTransport, 0, 136), nftAccept), // icmpv6 type 133-136 accept
			nftRule(nftDrop),
		}},

		// What goes out has the host's address. What goes back to the bridge that it came from has it as well, or the answer would not come
		// this way. With br_netfilter it does, and where a packet came from is not known here: then it is only that of a container to itself that
		// must have another address.
		{"postrouting", false, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, [][]expr.Any{
			nftRule(nftSameBridge, nftPublished, nftMasquerade),                                // iifname . oifname @same ct status dnat masquerade
			nftRule(nftIP4, nftLoad(1, nftNetwork, 12, 8), nftIn(setSelf4), nftMasquerade),     // ip saddr . ip daddr @self4 masquerade
			nftRule(nftIP6, nftLoad(1, nftNetwork, 8, 32), nftIn(setSelf6), nftMasquerade),     // ip6 saddr . ip6 daddr @self6 masquerade
			nftRule(nftInputIn(setBridges), nftOutput(1), nftNotIn(setBridges), nftMasquerade), // iifname @bridges oifname != @bridges masquerade
			nftRule(nftIP4, nftIP4Src(127), nftOutputIn(setBridges), nftMasquerade),            // ip saddr 127.0.0.0/8 oifname @bridges masquerade
		}},

		// A container sends from its own addresses, and is no router. Frames of protocols that are not known cannot be checked, nor can those with tags.
		{"prerouting", true, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, [][]expr.Any{
			nftRule(nftInputIn(setDevices), expr.Verdict{Kind: expr.VerdictJump, Chain: "check"}), // iifname @devices jump check
		}},
		{"check", true, "", nil, nil, [][]expr.Any{
			nftRule(nftInput(1), nftLoad(2, nftLink, 6, 6), nftNotIn(setMAC), nftDrop),                        // iifname . ether saddr != @mac drop
			nftRule(nftIs(nftLink, 12, 0x08, 0x00), expr.Verdict{Kind: expr.VerdictGoto, Chain: "check-ip"}),  // ether type ip goto check-ip
			nftRule(nftIs(nftLink, 12, 0x86, 0xdd), expr.Verdict{Kind: expr.VerdictGoto, Chain: "check-ip6"}), // ether type ip6 goto check-ip6
			nftRule(nftIs(nftLink, 12, 0x08, 0x06), expr.Verdict{Kind: expr.VerdictGoto, Chain: "check-arp"}), // ether type arp goto check-arp
			nftRule(nftDrop),
		}},
		{"check-ip", true, "", nil, nil, [][]expr.Any{
			nftRule(nftInput(1), nftLoad(2, nftNetwork, 12, 4), nftNotIn(setIP4), nftDrop), // iifname . ip saddr != @ip4 drop
			nftRule(nftIsProto(unix.IPPROTO_IGMP), nftDrop),                                // meta l4proto igmp drop, see check-icmp6
			nftRule(nftIsProto(unix.IPPROTO_UDP), nftIs(nftTransport, 0, 0, 67), nftDrop),  // udp sport 67 drop: an answer of a DHCP server
			nftRule(nftAccept),
		}},
		{"check-arp", true, "", nil, nil, [][]expr.Any{
			nftRule(nftIs(nftNetwork, 0, 0, 1, 8, 0, 6, 4), nftInput(1), nftLoad(2, nftNetwork, 8, 6), nftIn(setMAC),
				nftInput(1), nftLoad(2, nftNetwork, 14, 4), nftIn(setIP4), nftAccept), // arp htype 1 ptype ip hlen 6 plen 4 iifname . arp saddr ether @mac iifname . arp saddr ip @ip4 accept
			nftRule(nftDrop),
		}},
		{"check-ip6", true, "", nil, nil, [][]expr.Any{
			nftRule(nftIsProto(unix.IPPROTO_ICMPV6), expr.Verdict{Kind: expr.VerdictGoto, Chain: "check-icmp6"}), // meta l4proto ipv6-icmp goto check-icmp6
			nftRule(nftInput(1), nftLoad(2, nftNetwork, 8, 16), nftNotIn(setIP6), nftDrop),                       // iifname . ip6 saddr != @ip6 drop
			nftRule(nftIsProto(unix.IPPROTO_UDP), nftIs(nftTransport, 0, 547>>8, 547&255), nftDrop),              // udp sport 547 drop: an answer of a DHCP server
			nftRule(nftAccept),
		}},
		// Which groups a container listens to is for routers, of which there is none on the bridge, and would be heard by all containers. Who asks says that it is one.
		{"check-icmp6", true, "", nil, nil, [][]expr.Any{
			nftRule(nftAtLeast(nftTransport, 0, 130), nftAtMost(nftTransport, 0, 132), nftDrop),                           // icmpv6 type 130-132 drop
			nftRule(nftIs(nftTransport, 0, 143), nftDrop),                                                                 // icmpv6 type mld2-listener-report drop
			nftRule(nftIs(nftTransport, 0, 134), nftDrop),                                                                 // icmpv6 type nd-router-advert drop
			nftRule(nftIs(nftTransport, 0, 137), nftDrop),                                                                 // icmpv6 type nd-redirect drop
			nftRule(nftIs(nftTransport, 0, 136), nftInput(1), nftLoad(2, nftTransport, 8, 16), nftNotIn(setIP6), nftDrop), // icmpv6 type nd-neighbor-advert iifname . icmpv6 taddr != @ip6 drop
			nftRule(nftInput(1), nftLoad(2, nftNetwork, 8, 16), nftIn(setIP6), nftAccept),                                 // iifname . ip6 saddr @ip6 accept
			// Who has no address yet asks whether somebody has it.
			nftRule(nftIP6Src(make([]byte, 16)...), nftIs(nftTransport, 0, 135), nftInput(1), nftLoad(2, nftTransport, 8, 16), nftIn(setIP6), nftAccept), // ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . icmpv6 taddr @ip6 accept
			nftRule(nftDrop),
		}},
	}
}

// nftRule joins expressions.
func nftRule(parts ...any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		switch p := p.(type) {
		case expr.Verdict:
			all = append(all, &p)
		case expr.Any:
			all = append(all, p)
		case []expr.Any:
			all = append(all, p...)
		}
	}
	return all
}

const (
	nftLink      = expr.PayloadBaseLLHeader
	nftNetwork   = expr.PayloadBaseNetworkHeader
	nftTransport = expr.PayloadBaseTransportHeader
)

// The registers are 1 to 4 of 16 bytes each, and 8 to 23, of 4 bytes each, in the same place.
var (
	nftDrop   = expr.Verdict{Kind: expr.VerdictDrop}
	nftAccept = expr.Verdict{Kind: expr.VerdictAccept}
	nftRet    = expr.Verdict{Kind: expr.VerdictReturn}
	nftReject = &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}

	nftMasquerade = &expr.Masq{}

	nftIP4 = []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, nftEqual(1, unix.NFPROTO_IPV4)}
	nftIP6 = []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, nftEqual(1, unix.NFPROTO_IPV6)}

	nftLoopback6 = append(make([]byte, 15), 1)

	nftToHost     = []expr.Any{&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}, nftEqual(1, binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)...)}
	nftAsked      = nftCtBits(expr.CtKeySTATE, 2|4)   // established, related
	nftPublished  = nftCtBits(expr.CtKeySTATUS, 1<<5) // IPS_DST_NAT
	nftSameBridge = []expr.Any{nftInput(1), nftOutput(2), nftIn(setSame)}
)

func nftEqual(register uint32, data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

func nftLoad(register uint32, base expr.PayloadBase, offset, size uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, DestRegister: register, Base: base, Offset: offset, Len: size}
}

func nftIs(base expr.PayloadBase, offset uint32, data ...byte) []expr.Any {
	return []expr.Any{nftLoad(1, base, offset, uint32(len(data))), nftEqual(1, data...)}
}

func nftAtLeast(base expr.PayloadBase, offset uint32, data ...byte) []expr.Any {
	return []expr.Any{nftLoad(1, base, offset, uint32(len(data))), &expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: data}}
}

func nftAtMost(base expr.PayloadBase, offset uint32, data ...byte) []expr.Any {
	return []expr.Any{nftLoad(1, base, offset, uint32(len(data))), &expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: data}}
}

// The first bytes of an address.
func nftIP4Src(data ...byte) []expr.Any { return nftIs(nftNetwork, 12, data...) }
func nftIP4Dst(data ...byte) []expr.Any { return nftIs(nftNetwork, 16, data...) }
func nftIP6Src(data ...byte) []expr.Any { return nftIs(nftNetwork, 8, data...) }
func nftIP6Dst(data ...byte) []expr.Any { return nftIs(nftNetwork, 24, data...) }

func nftInput(register uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}
}

func nftOutput(register uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register}
}

func nftInputIn(s *natSet) []expr.Any  { return []expr.Any{nftInput(1), nftIn(s)} }
func nftOutputIn(s *natSet) []expr.Any { return []expr.Any{nftOutput(1), nftIn(s)} }

func nftL4proto(register uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}
}

func nftIsProto(proto byte) []expr.Any { return []expr.Any{nftL4proto(1), nftEqual(1, proto)} }

func nftCtBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// nftIn looks up what begins in register 1.
func nftIn(s *natSet) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: s.name, SetID: s.id()}
}

func nftNotIn(s *natSet) expr.Any {
	return &expr.Lookup{SourceRegister: 1, SetName: s.name, SetID: s.id(), Invert: true}
}

// nftDnat forwards to what the map has for register 1; without an element the next rule is asked.
func nftDnat(s *natSet) []expr.Any {
	family, port := uint32(unix.NFPROTO_IPV4), uint32(9)
	if s.val[0] == nftables.TypeIP6Addr {
		family, port = unix.NFPROTO_IPV6, 12
	}
	return []expr.Any{
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: s.name, SetID: s.id()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: 1, RegProtoMin: port, Specified: true},
	}
}

// id is the set's number in a transaction.
func (s *natSet) id() uint32 { return uint32(slices.Index(natSets, s) + 1) }
