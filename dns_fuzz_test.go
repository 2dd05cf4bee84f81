//go:build linux

package container

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// This file feeds the name server with what programs in a container, and name servers outside, may send.

// packedMessage packs a message of a seed.
func packedMessage(f *testing.F, m dnsmessage.Message) []byte {
	packed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	return packed
}

// FuzzDNSQuestion: whatever a program sends, what it gets is an answer to it that fits, and nothing is asked that no rule allows.
func FuzzDNSQuestion(f *testing.F) {
	plain := dnsmessage.Question{Name: dnsmessage.MustNewName("web."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	opt := dnsmessage.Resource{Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookie..")}}}}
	opt.Header.SetEDNS0(1232, 0, true)
	for _, m := range []dnsmessage.Message{
		{},
		{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{plain}},
		{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{plain}, Additionals: []dnsmessage.Resource{opt}},
		{Header: dnsmessage.Header{ID: 7, OpCode: 4}, Questions: []dnsmessage.Question{plain, plain}},
		{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("5.0.88.10.in-addr.arpa."), Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}}},
		{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("forbidden.example."), Type: 9999, Class: dnsmessage.ClassANY}}},
	} {
		f.Add(packedMessage(f, m), true)
		f.Add(packedMessage(f, m), false)
	}
	web := []netip.Addr{netip.MustParseAddr("10.88.0.5"), netip.MustParseAddr("fd00::5")}
	j := newEgressJudge("fuzz", &NetworkConfig{EgressAllow: []string{"allowed.example"}}, quietLog())
	s := newDNSServer(dnsOptions{
		allow: j.allowName, book: j.book,
		local:   func(name string) ([]netip.Addr, bool) { return web, name == "web" },
		reverse: func(a netip.Addr) (string, bool) { return "web", slices.Contains(web, a) },
		// Not asked: there is none.
		upstreams: func() []netip.AddrPort { return nil },
	})
	f.Fuzz(func(t *testing.T, msg []byte, stream bool) {
		packed := s.answer(msg, netip.AddrPort{}, stream)
		if packed == nil {
			return
		}
		var q, m dnsmessage.Message
		if err := m.Unpack(packed); err != nil {
			t.Fatalf("%x is answered with %x: %v", msg, packed, err)
		}
		if !m.Response || m.ID != uint16(msg[0])<<8|uint16(msg[1]) || !stream && len(packed) > maxUDPAnswer || len(packed) > 65535 {
			t.Errorf("%x is answered with %v", msg, m)
		}
		if q.Unpack(msg) == nil && len(q.Questions) == 1 && q.OpCode == 0 && (len(m.Questions) != 1 || m.Questions[0] != q.Questions[0]) {
			t.Errorf("%v is answered with %v", q, m)
		}
		if m.RCode == dnsmessage.RCodeServerFailure && normalName(m.Questions[0].Name.String()) != "allowed.example" {
			t.Errorf("%v is not refused", m.Questions)
		}
	})
}

// FuzzDNSReply: whatever a name server answers, a program gets only addresses of the name that it has asked for or of what that is an alias of, and each of
// them is known to be given out.
func FuzzDNSReply(f *testing.F) {
	question := dnsmessage.Question{Name: dnsmessage.MustNewName("Www.example.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	header := dnsmessage.Header{ID: 4711, Response: true}
	alias := func(from, to string) dnsmessage.Resource {
		return dnsRecord(from, 5, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)})
	}
	for _, answers := range [][]dnsmessage.Resource{
		nil,
		{dnsRecord("www.example.com.", 60, "192.0.2.1"), dnsRecord("other.example.", 60, "192.0.2.2")},
		{alias("www.example.com.", "a."), alias("a.", "b."), alias("b.", "a."), dnsRecord("b.", 1<<31, "2001:db8::1")},
		{alias("www.example.com.", "www.example.com.")},
		{dnsRecord("www.example.com.", 60, &dnsmessage.HTTPSResource{SVCBResource: dnsmessage.SVCBResource{Priority: 1, Target: dnsmessage.MustNewName("."), Params: []dnsmessage.SVCParam{{Key: dnsmessage.SVCParamIPv4Hint, Value: []byte{1, 2, 3, 4, 5}}}}})},
		{dnsRecord("example.com.", 60, &dnsmessage.UnknownResource{Type: typeDNAME, Data: []byte{1, 'x', 0}}), dnsRecord("www.example.com.", 60, &dnsmessage.UnknownResource{Type: 999, Data: []byte{0xc0, 0}})},
	} {
		f.Add(packedMessage(f, dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{question}, Answers: answers, Authorities: answers, Additionals: answers}))
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		msg, ok := parseUpstream(packed, 4711, question)
		if !ok || msg == nil || msg.Truncated {
			return
		}
		q := &dnsQuery{question: question, name: "www.example.com", size: 512}
		q.header.ID = 1
		r := cleanReply(q, msg).as(q)
		for _, q.stream = range []bool{false, true} {
			again, err := q.pack(r)
			var m dnsmessage.Message
			if err != nil || m.Unpack(again) != nil {
				t.Fatalf("%v cannot be passed on: %v", r, err)
			}
			if !q.stream && len(again) > 512 || len(m.Additionals) != 0 {
				t.Errorf("%d bytes, %v", len(again), m.Additionals)
			}
			aliases := []string{"www.example.com"}
			for range m.Answers {
				for _, res := range m.Answers {
					if c, ok := res.Body.(*dnsmessage.CNAMEResource); ok && slices.Contains(aliases, normalName(res.Header.Name.String())) {
						if name := normalName(c.CNAME.String()); !slices.Contains(aliases, name) {
							aliases = append(aliases, name)
						}
					}
				}
			}
			for _, res := range append(m.Answers, m.Authorities...) {
				if res.Header.TTL > 3600 {
					t.Errorf("%v", res)
				}
				for _, a := range addressesIn(res.Body) {
					if !slices.ContainsFunc(r.given, func(g givenAddr) bool { return g.addr == a }) || !slices.Contains(aliases, normalName(res.Header.Name.String())) {
						t.Errorf("%v gives out %v", res, a)
					}
				}
			}
		}
	})
}

// FuzzResolvConf: whatever stands in the host's file, there are one to three servers.
func FuzzResolvConf(f *testing.F) {
	f.Add("# x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\noptions ndots:5\nnameserver bad\n nameserver\t127.0.0.53 # y\nnameserver ::1\nnameserver 1.1.1.1")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		servers := resolvConfServers(text)
		if n := len(servers); n < 1 || n > 3 {
			t.Errorf("%q: %v", text, servers)
		}
		for _, s := range servers {
			if !s.IsValid() || s.Port() != 53 {
				t.Errorf("%q: %v", text, servers)
			}
		}
	})
}

// FuzzReverseAddr: a name is that of an address exactly if it is the one that the address has.
func FuzzReverseAddr(f *testing.F) {
	f.Add([]byte{10, 88, 0, 5}, "5.0.88.10.in-addr.arpa")
	f.Add([]byte{0xfd, 15: 5}, "5.0.0.0.ip6.arpa")
	f.Add([]byte{}, strings.Repeat("a", 63)+".ip6.arpa")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		reverse := func(a netip.Addr) string {
			var parts []string
			if a.Is4() {
				parts = strings.Split(a.String(), ".")
				slices.Reverse(parts)
				return strings.Join(parts, ".") + ".in-addr.arpa"
			}
			digits := []byte(strings.ReplaceAll(a.StringExpanded(), ":", ""))
			slices.Reverse(digits)
			return strings.Join(strings.Split(string(digits), ""), ".") + ".ip6.arpa"
		}
		// A mapped address is written with dots, which is not how it is in DNS.
		if a, ok := netip.AddrFromSlice(b); ok && !a.Is4In6() {
			if got, ok := reverseAddr(reverse(a)); !ok || got != a {
				t.Errorf("%s: %v", reverse(a), got)
			}
		}
		if a, ok := reverseAddr(normalName(name)); ok && !a.Is4In6() && reverse(a) != normalName(name) {
			t.Errorf("%q is %v", name, a)
		}
	})
}
