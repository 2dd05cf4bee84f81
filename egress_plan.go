//go:build linux

package container

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns egress into steps of the plan: routes and rules that bring each connection to sockets of ours, and these sockets. It runs in the
// caller's process.

// loopbackIndex is that of lo, which is the first device of each network namespace.
const loopbackIndex = 1

// relayRoom is for packets that the relay has not read yet, in bytes. The kernel takes it for as much as net.core.rmem_max allows.
const relayRoom = 4 << 20

// haveIPv6 tells whether the kernel has IPv6 at all.
var haveIPv6 = sync.OnceValue(func() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err != unix.EAFNOSUPPORT
})

// stepEgress makes all addresses local, sends connections to our sockets, and sends these to the caller.
func (pl *plan) stepEgress() error {
	if pl.cfg.networkMode() != NetworkModeEgress {
		return nil
	}
	ipv6 := haveIPv6()
	messages := []netlinkMessage{addressMessage(egressAddr4), allLocalMessage(egressAddr4)}
	if ipv6 {
		// IPv6 may be switched off for new devices.
		for _, m := range []netlinkMessage{addressMessage(egressAddr6), allLocalMessage(egressAddr6)} {
			m.ignore = []unix.Errno{unix.EACCES, unix.EOPNOTSUPP}
			messages = append(messages, m)
		}
	}
	pl.netlink(unix.NETLINK_ROUTE, messages...)
	compile := egressRuleset[0]
	if ipv6 {
		compile = egressRuleset[1]
	}
	rules, err := compile()
	if err != nil {
		return &Error{Op: "egress", Err: err}
	}
	pl.netlink(unix.NETLINK_NETFILTER, netlinkMessage{what: "rules", bytes: rules})
	pl.Step("network", "sockets")
	for _, s := range egressSockets(ipv6) {
		pl.sendSocket(pl.makeSocket(s))
	}
	pl.sendSocket(pl.makeTap())
	pl.sendSocket(pl.Call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG).Result())
	return nil
}

// addressMessage is ip address add ADDR dev lo.
func addressMessage(a netip.Addr) netlinkMessage {
	bits, flags := byte(a.BitLen()), byte(0)
	if a.Is6() {
		flags = unix.IFA_F_NODAD // it is to be the source of a route at once
	}
	return netlinkMessage{what: a.String(), bytes: netlinkBytes(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_ACK,
		[]byte{addressFamily(a), bits, flags, unix.RT_SCOPE_UNIVERSE}, nativeUint32(loopbackIndex),
		netlinkAttr(unix.IFA_LOCAL, a.AsSlice()), netlinkAttr(unix.IFA_ADDRESS, a.AsSlice()))}
}

// allLocalMessage is ip route add local default dev lo src ADDR: a packet to anywhere arrives here.
func allLocalMessage(a netip.Addr) netlinkMessage {
	return localMessage(netip.PrefixFrom(a, 0).Masked(), a)
}

// localMessage is ip route add local PREFIX dev lo src ADDR: a packet to there arrives here.
func localMessage(to netip.Prefix, source netip.Addr) netlinkMessage {
	scope := byte(unix.RT_SCOPE_HOST)
	if source.Is6() {
		scope = unix.RT_SCOPE_UNIVERSE
	}
	return netlinkMessage{what: "route", bytes: netlinkBytes(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK,
		[]byte{addressFamily(source), byte(to.Bits()), 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, scope, unix.RTN_LOCAL}, nativeUint32(0),
		netlinkAttr(unix.RTA_DST, to.Addr().AsSlice()), netlinkAttr(unix.RTA_OIF, nativeUint32(loopbackIndex)), netlinkAttr(unix.RTA_PREFSRC, source.AsSlice()))}
}

func addressFamily(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// egressSockets are the sockets of the relay but for the last two, in the order in which the relay gets them: for each family a
// listener, a socket for packets of UDP, and one to send packets as they are.
func egressSockets(ipv6 bool) []socketSpec {
	mark := socketOption{unix.SOL_SOCKET, unix.SO_MARK, egressMark}
	transparent := socketOption{unix.SOL_IP, unix.IP_TRANSPARENT, 1}
	room := socketOption{unix.SOL_SOCKET, unix.SO_RCVBUF, relayRoom}
	sockets := []socketSpec{
		{domain: unix.AF_INET, typ: unix.SOCK_STREAM, options: []socketOption{transparent}, bind: egressSocket4, listen: 1 << 16},
		{domain: unix.AF_INET, typ: unix.SOCK_DGRAM, options: []socketOption{transparent, {unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1}, room}, bind: egressSocket4},
		{domain: unix.AF_INET, typ: unix.SOCK_RAW, protocol: unix.IPPROTO_RAW, options: []socketOption{mark}},
	}
	if ipv6 {
		only := socketOption{unix.SOL_IPV6, unix.IPV6_V6ONLY, 1}
		transparent := socketOption{unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1}
		sockets = append(sockets,
			socketSpec{domain: unix.AF_INET6, typ: unix.SOCK_STREAM, options: []socketOption{only, transparent}, bind: egressSocket6, listen: 1 << 16},
			socketSpec{domain: unix.AF_INET6, typ: unix.SOCK_DGRAM, options: []socketOption{only, transparent, {unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1}, room}, bind: egressSocket6},
			socketSpec{domain: unix.AF_INET6, typ: unix.SOCK_RAW, protocol: unix.IPPROTO_RAW, options: []socketOption{mark}})
	}
	return sockets
}

// makeTap makes a packet socket that sees the first packet of each connection to elsewhere, as it is when the rules drop it.
func (pl *plan) makeTap() launch.Arg {
	fd := pl.Call(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0).Result() // sees nothing yet
	code, n := tapFilter()
	pl.Call(unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, pl.Words(launch.Arg(n), pl.Bytes(code)), 16)
	pl.Call(unix.SYS_SETSOCKOPT, fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, pl.struct32(1), 4)
	pl.Call(unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_RCVBUF, pl.struct32(relayRoom), 4)
	addr := make([]byte, unix.SizeofSockaddrLinklayer)
	binary.NativeEndian.PutUint16(addr, unix.AF_PACKET)
	binary.BigEndian.PutUint16(addr[2:], unix.ETH_P_ALL)
	binary.NativeEndian.PutUint32(addr[4:], loopbackIndex)
	pl.Call(unix.SYS_BIND, fd, pl.Bytes(addr), launch.Arg(len(addr)))
	return fd
}

// tapFilter is the filter of that socket: what it is not woken for costs next to nothing. It may let through too much, which isSYN in the relay
// does not, but nothing that the rules drop may be missing.
func tapFilter() (code []byte, length int) {
	const load, half, byte1, jump = unix.BPF_LD | unix.BPF_ABS, unix.BPF_H, unix.BPF_B, unix.BPF_JMP | unix.BPF_K
	const protocol, mark = 1<<32 - 0x1000, 1<<32 - 0x1000 + 20 // SKF_AD_OFF + SKF_AD_PROTOCOL, SKF_AD_MARK
	insns := []unix.SockFilter{
		{Code: load | unix.BPF_W, K: mark},
		{Code: jump | unix.BPF_JEQ, K: egressMark, Jt: 18}, // to the end: ours
		{Code: load | half, K: protocol},
		{Code: jump | unix.BPF_JEQ, K: unix.ETH_P_IP, Jt: 0, Jf: 9},
		// IPv4
		{Code: load | byte1, K: 9},
		{Code: jump | unix.BPF_JEQ, K: unix.IPPROTO_TCP, Jf: 14},
		{Code: load | byte1, K: 16},
		{Code: jump | unix.BPF_JEQ, K: 127, Jt: 12},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 13},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x17},
		{Code: jump | unix.BPF_JEQ, K: 2, Jf: 8},
		{Code: unix.BPF_RET | unix.BPF_K, K: maxSYN},
		// IPv6
		{Code: jump | unix.BPF_JEQ, K: unix.ETH_P_IPV6, Jf: 6},
		{Code: load | byte1, K: 6},
		{Code: jump | unix.BPF_JEQ, K: unix.IPPROTO_TCP, Jf: 4},
		{Code: load | byte1, K: 40 + 13},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x17},
		{Code: jump | unix.BPF_JEQ, K: 2, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: maxSYN},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	for _, in := range insns {
		code = binary.NativeEndian.AppendUint16(code, in.Code)
		code = append(code, in.Jt, in.Jf)
		code = binary.NativeEndian.AppendUint32(code, in.K)
	}
	return code, len(insns)
}
