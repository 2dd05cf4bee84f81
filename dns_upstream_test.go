//go:build linux

package container

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A fakeUpstream is a name server on a port of the loopback device, UDP and TCP, that answers as the test says. It is for what no real server does.
type fakeUpstream struct {
	addr netip.AddrPort

	mu    sync.Mutex
	asked []dnsmessage.Message // with "udp" or "tcp" at the same place in by
	by    []string
}

// newFakeUpstream serves until the test ends. Each of the messages that answer returns is sent; none is nothing.
func newFakeUpstream(t *testing.T, answer func(network string, q dnsmessage.Message) [][]byte) *fakeUpstream {
	t.Helper()
	f := new(fakeUpstream)
	var pc net.PacketConn
	var l net.Listener
	for range 100 {
		var err error
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			break
		}
		pc.Close()
	}
	if l == nil {
		t.Fatal("no port that is free for both")
	}
	f.addr = addrPortOf(pc.LocalAddr())
	var work sync.WaitGroup
	t.Cleanup(func() { pc.Close(); l.Close(); work.Wait() })
	note := func(network string, packed []byte) (m dnsmessage.Message) {
		if err := m.Unpack(packed); err != nil {
			t.Errorf("an upstream was asked something that it cannot read: %v", err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.asked, f.by = append(f.asked, m), append(f.by, network)
		return m
	}
	work.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, msg := range answer("udp", note("udp", buf[:n])) {
				pc.WriteTo(msg, from)
			}
		}
	})
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				packed, err := readDNSMessage(c)
				if err != nil {
					return
				}
				for _, msg := range answer("tcp", note("tcp", packed)) {
					writeDNSMessage(c, msg)
				}
			})
		}
	})
	return f
}

func (f *fakeUpstream) upstreams() []netip.AddrPort { return []netip.AddrPort{f.addr} }

// networks returns how it was asked.
func (f *fakeUpstream) networks() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.by)
}

// dnsAnswer makes an answer to a question.
func dnsAnswer(t *testing.T, q dnsmessage.Message, change func(m *dnsmessage.Message)) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
	change(&m)
	packed, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return packed
}

// dnsRecord makes a record from an address or another body.
func dnsRecord(name string, ttl uint32, body any) dnsmessage.Resource {
	r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}}
	switch b := body.(type) {
	case string:
		a := netip.MustParseAddr(b)
		if a.Is4() {
			r.Body = &dnsmessage.AResource{A: a.As4()}
		} else {
			r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		}
	case dnsmessage.ResourceBody:
		r.Body = b
	}
	return r
}

// dnsQuestion packs a question, with EDNS if size is not zero.
func dnsQuestion(t *testing.T, name string, typ dnsmessage.Type, size int) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}},
	}
	if size > 0 {
		opt := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
		if err := opt.Header.SetEDNS0(size, 0, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = append(m.Additionals, opt)
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// askDNS answers a question without a socket.
func askDNS(t *testing.T, s *dnsServer, msg []byte, stream bool) *dnsmessage.Message {
	t.Helper()
	packed := s.answer(msg, netip.MustParseAddrPort("127.0.0.1:1"), stream)
	m := new(dnsmessage.Message)
	if err := m.Unpack(packed); err != nil {
		t.Fatalf("answer %x: %v", packed, err)
	}
	if id := binary.BigEndian.Uint16(msg); m.ID != id || !m.Response {
		t.Errorf("not an answer: %v", m.Header)
	}
	return m
}

// dnsAddresses are the addresses of an answer, as text.
func dnsAddresses(m *dnsmessage.Message) (text []string) {
	for _, r := range m.Answers {
		for _, a := range addressesIn(r.Body) {
			text = append(text, a.String())
		}
	}
	return text
}
