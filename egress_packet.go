//go:build linux

package container

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// This file reads the packets that the relay gets to see and writes those that it sends: a connection that is let through, a connection that is
// refused, an answer over UDP. It is pure. What is read was written by a container.

const (
	ipv4Header, ipv6Header = 20, 40
	tcpHeader, udpHeader   = 20, 8
	maxTCPHeader           = 60
	maxIPv4Header          = 60

	// maxSYN is how much of a packet the relay needs to see.
	maxSYN = maxIPv4Header + maxTCPHeader
)

// A flowKey is a connection, or a flow of packets, by its two ends.
type flowKey struct{ src, dst netip.AddrPort }

// parseSYN reads the first packet of a connection: its ends, and its header of TCP with the options. Data that may be with it is not taken; the
// program's kernel sends it again.
func parseSYN(b []byte) (key flowKey, tcp []byte, ok bool) {
	src, dst, tcp, ok := parseIP(b, unix.IPPROTO_TCP)
	if !ok || len(tcp) < tcpHeader {
		return key, nil, false
	}
	size := int(tcp[12]>>4) * 4
	if size < tcpHeader || size > len(tcp) || tcp[13]&0x17 != 2 {
		return key, nil, false
	}
	key = flowKey{netip.AddrPortFrom(src, binary.BigEndian.Uint16(tcp)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(tcp[2:]))}
	return key, tcp[:size], key.src.Port() != 0 && key.dst.Port() != 0
}

// parseIP reads the header of a packet of a protocol, and returns what follows.
func parseIP(b []byte, protocol byte) (src, dst netip.Addr, rest []byte, ok bool) {
	switch {
	case len(b) >= ipv4Header && b[0]>>4 == 4:
		size := int(b[0]&0xf) * 4
		if size < ipv4Header || size > len(b) || b[9] != protocol || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return src, dst, nil, false
		}
		return netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[size:], true
	case len(b) >= ipv6Header && b[0]>>4 == 6 && b[6] == protocol:
		return netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[ipv6Header:], true
	}
	return src, dst, nil, false
}

// ipPacket is a packet with its header; the kernel adds IPv4's checksum.
func ipPacket(src, dst netip.Addr, protocol byte, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, ipv4Header, ipv4Header+len(payload))
		b[0] = 4<<4 | ipv4Header/4
		binary.BigEndian.PutUint16(b[2:], uint16(ipv4Header+len(payload)))
		b[6] = 0x40 // not to be fragmented
		b[8], b[9] = 64, protocol
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, ipv6Header, ipv6Header+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = protocol, 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// withChecksum puts the checksum of the payload and the ends of its packet at an offset of the payload.
func withChecksum(src, dst netip.Addr, protocol byte, payload []byte, at int) []byte {
	binary.BigEndian.PutUint16(payload[at:], 0)
	sum := onesSum(0, src.AsSlice())
	sum = onesSum(sum, dst.AsSlice())
	sum += uint32(protocol) + uint32(len(payload))
	sum = onesSum(sum, payload)
	binary.BigEndian.PutUint16(payload[at:], foldSum(sum, protocol == unix.IPPROTO_UDP))
	return payload
}

// onesSum adds 16-bit words.
func onesSum(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// foldSum is the checksum; one that must not be zero is all ones instead, which means the same.
func foldSum(sum uint32, notZero bool) uint16 {
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	if sum = ^sum & 0xffff; sum == 0 && notZero {
		return 0xffff
	}
	return uint16(sum)
}

// synPacket is the first packet of a connection again.
func synPacket(key flowKey, tcp []byte) []byte {
	src, dst := key.src.Addr(), key.dst.Addr()
	return ipPacket(src, dst, unix.IPPROTO_TCP, withChecksum(src, dst, unix.IPPROTO_TCP, tcp, 16))
}

// resetPacket answers the first packet of a connection: there is nobody.
func resetPacket(key flowKey, tcp []byte) []byte {
	b := make([]byte, tcpHeader)
	binary.BigEndian.PutUint16(b, key.dst.Port())
	binary.BigEndian.PutUint16(b[2:], key.src.Port())
	binary.BigEndian.PutUint32(b[8:], binary.BigEndian.Uint32(tcp[4:])+1)
	b[12], b[13] = tcpHeader/4<<4, 0x14 // RST, ACK
	src, dst := key.dst.Addr(), key.src.Addr()
	return ipPacket(src, dst, unix.IPPROTO_TCP, withChecksum(src, dst, unix.IPPROTO_TCP, b, 16))
}

// udpPacket goes from one end to the other.
func udpPacket(from, to netip.AddrPort, payload []byte) []byte {
	b := make([]byte, udpHeader, udpHeader+len(payload))
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(udpHeader+len(payload)))
	b = append(b, payload...)
	return ipPacket(from.Addr(), to.Addr(), unix.IPPROTO_UDP, withChecksum(from.Addr(), to.Addr(), unix.IPPROTO_UDP, b, 6))
}

// unreachable is why a packet could not be delivered, as types and codes of ICMP.
type unreachable struct{ code4, code6 byte }

var (
	unreachableNet  = unreachable{0, 0} // ENETUNREACH for the program
	unreachableHost = unreachable{1, 3} // EHOSTUNREACH
	unreachablePort = unreachable{3, 4} // ECONNREFUSED
)

// packet tells the sender that what it has sent from one end to the other is lost; head is what began with the header of TCP or UDP.
func (u unreachable) packet(key flowKey, protocol byte, head []byte) []byte {
	src, dst := key.src.Addr(), key.dst.Addr()
	lost := ipPacket(src, dst, protocol, head)
	if src.Is4() {
		lost[10], lost[11] = 0, 0
		binary.BigEndian.PutUint16(lost[10:], foldSum(onesSum(0, lost[:ipv4Header]), false))
		b := append([]byte{3, u.code4, 0, 0, 0, 0, 0, 0}, lost...)
		binary.BigEndian.PutUint16(b[2:], foldSum(onesSum(0, b), false))
		return ipPacket(dst, src, unix.IPPROTO_ICMP, b)
	}
	b := append([]byte{1, u.code6, 0, 0, 0, 0, 0, 0}, lost...)
	return ipPacket(dst, src, unix.IPPROTO_ICMPV6, withChecksum(dst, src, unix.IPPROTO_ICMPV6, b, 2))
}
