//go:build linux

package container

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// BenchmarkEgressDecide is what a connection waits for a list, where the rule that allows it is the last.
func BenchmarkEgressDecide(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		var rules []string
		for i := range n - 1 {
			rules = append(rules, fmt.Sprintf("*.host%d.example:443", i))
		}
		j := newEgressJudge("bench", &NetworkConfig{EgressAllow: append(rules, "www.example.com:443")}, quietLog())
		addr := netip.MustParseAddr("93.184.216.34")
		j.book.note("www.example.com", addr, time.Hour)
		r := EgressRequest{Network: "tcp", Addr: netip.AddrPortFrom(addr, 443)}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := j.decide(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDNSForward is the way of a question through the name server, beside the way to the upstream alone.
func BenchmarkDNSForward(b *testing.B) {
	up, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer up.Close()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := up.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) == nil {
				m.Response, m.Additionals = true, nil
				m.Answers = []dnsmessage.Resource{dnsRecord(m.Questions[0].Name.String(), 60, "192.0.2.1")}
				packed, _ := m.Pack()
				up.WriteTo(packed, from)
			}
		}
	}()
	j := newEgressJudge("bench", &NetworkConfig{EgressAllow: []string{"*.example.com"}}, quietLog())
	s := newDNSServer(dnsOptions{allow: j.allowName, book: j.book, upstreams: func() []netip.AddrPort { return []netip.AddrPort{addrPortOf(up.LocalAddr())} }})
	defer s.close()
	ours, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s.servePacket(ours)
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 1}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("www.example.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	question, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	for _, to := range []struct {
		name string
		addr net.Addr
	}{{"upstream", up.LocalAddr()}, {"ours", ours.LocalAddr()}} {
		b.Run(to.name, func(b *testing.B) {
			c, err := net.Dial("udp", to.addr.String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 4096)
			for b.Loop() {
				c.SetDeadline(time.Now().Add(10 * time.Second))
				c.Write(question)
				if _, err := c.Read(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
