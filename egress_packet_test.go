//go:build linux

package container

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// This file tests the reading and writing of packets.

// FuzzSYN reads what a container may have written, and writes it again.
func FuzzSYN(f *testing.F) {
	tcp := make([]byte, 24)
	tcp[0], tcp[1], tcp[2], tcp[3], tcp[12], tcp[13] = 1, 2, 0, 80, 6<<4, 2
	for _, key := range []flowKey{{mustAddrPort("192.0.0.2:1000"), mustAddrPort("203.0.113.5:80")}, {mustAddrPort("[fd00::1]:1000"), mustAddrPort("[2001:db8::5]:80")}} {
		f.Add(synPacket(key, tcp))
		f.Add(udpPacket(key.src, key.dst, []byte("text")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		key, tcp, ok := parseSYN(b)
		if !ok {
			return
		}
		again := synPacket(key, bytes.Clone(tcp))
		key2, tcp2, ok := parseSYN(again)
		if !ok || key2.src.Addr() != key.src.Addr() || key2.dst.Addr() != key.dst.Addr() || len(tcp2) != len(tcp) || len(again) > maxSYN {
			t.Errorf("%v %x became %v %x", key, tcp, key2, tcp2)
		}
		if sum := checksumOf(key, again); sum != 0 {
			t.Errorf("the checksum of %x is off by %#x", again, sum)
		}
		for _, answer := range [][]byte{resetPacket(key, tcp), unreachableNet.packet(key, unix.IPPROTO_TCP, tcp)} {
			if len(answer) < tcpHeader {
				t.Errorf("%x", answer)
			}
		}
	})
}

// checksumOf is 0 for a packet of TCP whose checksum is right.
func checksumOf(key flowKey, packet []byte) uint16 {
	_, _, tcp, _ := parseIP(packet, unix.IPPROTO_TCP)
	sum := onesSum(onesSum(unix.IPPROTO_TCP+uint32(len(tcp)), key.src.Addr().AsSlice()), key.dst.Addr().AsSlice())
	return foldSum(onesSum(sum, tcp), false)
}
