//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/net/dns/dnsmessage"
)

var errTestNo = errors.New("no")

// dnsFor is a server with an upstream that has one name.
func dnsFor(t *testing.T, change func(*dnsOptions), answer func(network string, q dnsmessage.Message) [][]byte) (*dnsServer, *fakeUpstream) {
	t.Helper()
	up := newFakeUpstream(t, answer)
	opts := dnsOptions{upstreams: up.upstreams, book: new(nameBook)}
	if change != nil {
		change(&opts)
	}
	s := newDNSServer(opts)
	t.Cleanup(s.close)
	return s, up
}

// An answer is forwarded with what belongs to it, and its addresses are in the book under the name that was asked for.
func TestDNSForward(t *testing.T) {
	leak.Check(t)
	s, up := dnsFor(t, nil, func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			name := q.Questions[0].Name.String()
			m.Answers = []dnsmessage.Resource{
				dnsRecord(name, 300, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("cdn.example.net.")}),
				dnsRecord("cdn.example.net.", 90000, "192.0.2.7"),
				dnsRecord("victim.example.", 90000, "192.0.2.66"), // has not been asked for
			}
			m.Authorities = []dnsmessage.Resource{dnsRecord("example.net.", 1, &dnsmessage.NSResource{NS: dnsmessage.MustNewName("ns.example.net.")}), dnsRecord("example.net.", 1, "192.0.2.67")}
			m.Additionals = []dnsmessage.Resource{dnsRecord("ns.example.net.", 90000, "192.0.2.68")}
		})}
	})
	m := askDNS(t, s, dnsQuestion(t, "WWW.Example.com.", dnsmessage.TypeA, 0), false)
	if got := dnsAddresses(m); m.RCode != 0 || !slices.Equal(got, []string{"192.0.2.7"}) || len(m.Authorities) != 0 || len(m.Additionals) != 0 {
		t.Errorf("%v %v %v %v", m.RCode, got, m.Authorities, m.Additionals)
	}
	if owner := m.Answers[0].Header.Name.String(); owner != "WWW.Example.com." {
		t.Errorf("owner %s", owner)
	}
	if ttl := m.Answers[1].Header.TTL; ttl != 3600 {
		t.Errorf("TTL %d", ttl)
	}
	for addr, want := range map[string][]string{"192.0.2.7": {"www.example.com"}, "192.0.2.66": nil, "192.0.2.67": nil, "192.0.2.68": nil} {
		if got := s.book.names(netip.MustParseAddr(addr)); !slices.Equal(got, want) {
			t.Errorf("names of %s: %q", addr, got)
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if h := up.asked[0].Header; h.ID == 4711 || !h.RecursionDesired {
		t.Errorf("asked with %v", h)
	}
}

// Nothing of a refused name leaves the process.
func TestDNSRefused(t *testing.T) {
	leak.Check(t)
	var names []string
	s, up := dnsFor(t, func(o *dnsOptions) {
		o.allow = func(_ context.Context, name string, source netip.AddrPort) error {
			names = append(names, name)
			return errTestNo
		}
	}, func(string, dnsmessage.Message) [][]byte { return nil })
	for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeTXT, dnsmessage.TypeHTTPS, dnsmessage.TypePTR, 65534} {
		m := askDNS(t, s, dnsQuestion(t, "SECRET.tunnel.example.", typ, 1232), false)
		if m.RCode != dnsmessage.RCodeRefused || len(m.Answers) != 0 {
			t.Errorf("%v: %v", typ, m)
		}
		opt, ok := m.Additionals[0].Body.(*dnsmessage.OPTResource)
		if !ok || len(opt.Options) != 1 || opt.Options[0].Code != optionExtendedError {
			t.Errorf("%v: %v", typ, m.Additionals)
		}
	}
	if len(up.networks()) != 0 || len(names) != 5 || names[0] != "secret.tunnel.example" {
		t.Errorf("upstream was asked by %v; policy about %q", up.networks(), names)
	}
	if m := askDNS(t, s, dnsQuestion(t, ".", dnsmessage.TypeNS, 0), false); m.RCode != dnsmessage.RCodeRefused || names[5] != "." {
		t.Errorf("root: %v, %q", m, names)
	}
}

// What is wrong with a question is said; what is no question is not answered.
func TestDNSMalformed(t *testing.T) {
	s := newDNSServer(dnsOptions{upstreams: func() []netip.AddrPort { return nil }})
	defer s.close()
	change := func(f func(m *dnsmessage.Message)) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(dnsQuestion(t, "example.com.", dnsmessage.TypeA, 1232)); err != nil {
			t.Fatal(err)
		}
		f(&m)
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return packed
	}
	for _, test := range []struct {
		what string
		msg  []byte
		want int // -1: none
	}{
		{"nothing", nil, -1},
		{"half a header", make([]byte, 11), -1},
		{"an answer", change(func(m *dnsmessage.Message) { m.Response = true }), -1},
		{"a header", make([]byte, 12), int(dnsmessage.RCodeFormatError)},
		{"half a question", dnsQuestion(t, "example.com.", dnsmessage.TypeA, 0)[:20], int(dnsmessage.RCodeFormatError)},
		{"a loop", append(append([]byte{1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12), 0, 1, 0, 1), int(dnsmessage.RCodeFormatError)},
		{"two questions", change(func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }), int(dnsmessage.RCodeFormatError)},
		{"two OPT", change(func(m *dnsmessage.Message) { m.Additionals = append(m.Additionals, m.Additionals[0]) }), int(dnsmessage.RCodeFormatError)},
		{"a status", change(func(m *dnsmessage.Message) { m.OpCode = 2 }), int(dnsmessage.RCodeNotImplemented)},
		{"an update", change(func(m *dnsmessage.Message) { m.OpCode = 5 }), int(dnsmessage.RCodeNotImplemented)},
		{"a zone", change(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAXFR }), int(dnsmessage.RCodeRefused)},
		{"chaos", change(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }), int(dnsmessage.RCodeRefused)},
		{"a line feed", change(func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("a\nb.example.") }), int(dnsmessage.RCodeRefused)},
		{"EDNS 7", change(func(m *dnsmessage.Message) { m.Additionals[0].Header.TTL = 7 << 16 }), 0},
		{"no upstream", dnsQuestion(t, "example.com.", dnsmessage.TypeA, 0), int(dnsmessage.RCodeServerFailure)},
	} {
		packed := s.answer(test.msg, netip.AddrPort{}, false)
		var m dnsmessage.Message
		err := m.Unpack(packed)
		if (test.want < 0) != (packed == nil) || packed != nil && (err != nil || int(m.RCode) != test.want) {
			t.Errorf("%s: %v %v", test.what, m, err)
		}
		if test.what == "EDNS 7" && m.Additionals[0].Header.ExtendedRCode(m.RCode) != rcodeBadVersion {
			t.Errorf("%s: %v", test.what, m)
		}
	}
}

// What does not fit is asked for by TCP, on both sides.
func TestDNSTruncated(t *testing.T) {
	leak.Check(t)
	var all []dnsmessage.Resource
	for i := range 200 {
		all = append(all, dnsRecord("many.example.", 60, fmt.Sprintf("192.0.2.%d", i)))
	}
	s, up := dnsFor(t, nil, func(network string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			if m.Truncated = network == "udp"; !m.Truncated {
				m.Answers = all
			}
		})}
	})
	for _, test := range []struct {
		size   int
		stream bool
		want   int
	}{{0, false, 0}, {1232, false, 0}, {4096, false, 200}, {65535, false, 200}, {0, true, 200}} {
		m := askDNS(t, s, dnsQuestion(t, "many.example.", dnsmessage.TypeA, test.size), test.stream)
		if len(m.Answers) != test.want || m.Truncated != (test.want == 0) || m.RCode != 0 {
			t.Errorf("size %d, stream %v: %d answers, truncated %v, %v", test.size, test.stream, len(m.Answers), m.Truncated, m.RCode)
		}
	}
	if by := up.networks(); !reflect.DeepEqual(by[:2], []string{"udp", "tcp"}) {
		t.Errorf("asked by %v", by)
	}
}

// Forged answers are not taken: what has another number, name or type is passed over, and after some of them TCP is used.
func TestDNSForged(t *testing.T) {
	leak.Check(t)
	forged := func(q dnsmessage.Message, i int) []byte {
		return dnsAnswer(t, q, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{dnsRecord("bank.example.", 60, "192.0.2.66")}
			m.Questions = slices.Clone(m.Questions)
			switch i % 4 {
			case 0:
				m.ID++
			case 1:
				m.Questions[0].Name = dnsmessage.MustNewName("other.example.")
			case 2:
				m.Questions[0].Type = dnsmessage.TypeMX
			case 3:
				m.Questions = nil
			}
		})
	}
	for _, n := range []int{4, 7, 8, 50} {
		s, up := dnsFor(t, nil, func(network string, q dnsmessage.Message) (answers [][]byte) {
			if network == "udp" {
				for i := range n {
					answers = append(answers, forged(q, i))
				}
			}
			return append(answers, dnsAnswer(t, q, func(m *dnsmessage.Message) {
				m.Answers = []dnsmessage.Resource{dnsRecord("bank.example.", 60, "192.0.2.1")}
			}))
		})
		begin := time.Now()
		m := askDNS(t, s, dnsQuestion(t, "bank.example.", dnsmessage.TypeA, 0), false)
		want := []string{"udp", "tcp"}[:1+min(n/maxForged, 1)]
		if got := dnsAddresses(m); !slices.Equal(got, []string{"192.0.2.1"}) || !slices.Equal(up.networks(), want) && time.Since(begin) < dnsTry { // or it has been asked again
			t.Errorf("%d forged: %v by %v", n, got, up.networks())
		}
	}
}

// An answer in another case than the question may be a guess: it is asked for again on a connection. Without connections there is nothing better.
func TestDNSOtherCase(t *testing.T) {
	leak.Check(t)
	for _, tcp := range []bool{true, false} {
		s, up := dnsFor(t, nil, func(network string, q dnsmessage.Message) [][]byte {
			if network == "tcp" && !tcp {
				return nil
			}
			return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
				lower := strings.ToLower(q.Questions[0].Name.String())
				m.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName(lower), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
				m.Answers = []dnsmessage.Resource{dnsRecord(lower, 60, map[string]string{"udp": "192.0.2.66", "tcp": "192.0.2.1"}[network])}
			})}
		})
		name := "abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz.example." // all in lower case once in 2^59
		begin := time.Now()
		m, by := askDNS(t, s, dnsQuestion(t, name, dnsmessage.TypeA, 0), false), "[udp tcp]"
		want := "[192.0.2.1]"
		if !tcp {
			want, by = "[192.0.2.66]", "[udp tcp udp]"
		}
		if fmt.Sprint(dnsAddresses(m)) != want || fmt.Sprint(up.networks()) != by && time.Since(begin) < dnsTry {
			t.Errorf("%v by %v", dnsAddresses(m), up.networks())
		}
	}
}

// The numbers of questions differ, and so does the case of their letters, and so do their ports.
func TestDNSRandom(t *testing.T) {
	ids, cases := map[uint16]bool{}, map[string]bool{}
	for range 200 {
		_, id, q, err := upstreamQuery(dnsKey{name: "www.example.com", typ: dnsmessage.TypeA}, upstreamWay{edns: true, mixed: true})
		if err != nil || !strings.EqualFold(q.Name.String(), "www.example.com.") {
			t.Fatal(q.Name, err)
		}
		ids[id], cases[q.Name.String()] = true, true
	}
	if len(ids) < 190 || len(cases) < 150 {
		t.Errorf("of 200 questions %d numbers and %d cases", len(ids), len(cases))
	}
}

// A server that knows no EDNS is asked without, one that fails is passed over, and a failure is passed on if there is nothing better.
func TestDNSUpstreams(t *testing.T) {
	leak.Check(t)
	old := newFakeUpstream(t, func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			if len(q.Additionals) > 0 {
				m.RCode = dnsmessage.RCodeFormatError
				return
			}
			m.Answers = []dnsmessage.Resource{dnsRecord(q.Questions[0].Name.String(), 60, "2001:db8::1")}
		})}
	})
	failing := newFakeUpstream(t, func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) { m.RCode, m.Questions = dnsmessage.RCodeServerFailure, nil })}
	})
	closed := netip.MustParseAddrPort("127.0.0.1:1")
	for _, test := range []struct {
		servers []netip.AddrPort
		want    dnsmessage.RCode
	}{
		{[]netip.AddrPort{old.addr}, 0},
		{[]netip.AddrPort{failing.addr, old.addr}, 0},
		{[]netip.AddrPort{closed, old.addr}, 0},
		{[]netip.AddrPort{failing.addr}, dnsmessage.RCodeServerFailure},
		{[]netip.AddrPort{closed}, dnsmessage.RCodeServerFailure},
	} {
		s := newDNSServer(dnsOptions{upstreams: func() []netip.AddrPort { return test.servers }})
		m := askDNS(t, s, dnsQuestion(t, "a.example.", dnsmessage.TypeAAAA, 0), false)
		if m.RCode != test.want || test.want == 0 && !slices.Equal(dnsAddresses(m), []string{"2001:db8::1"}) {
			t.Errorf("%v: %v", test.servers, m)
		}
		s.close()
	}
}

// The same question many times at once is one question to the upstream.
func TestDNSFlights(t *testing.T) {
	leak.Check(t)
	release := make(chan struct{})
	var begun atomic.Int32
	s, up := dnsFor(t, func(o *dnsOptions) {
		o.allow = func(context.Context, string, netip.AddrPort) error { begun.Add(1); return nil }
	}, func(_ string, q dnsmessage.Message) [][]byte {
		<-release
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{dnsRecord(q.Questions[0].Name.String(), 60, "192.0.2.1")}
		})}
	})
	var all sync.WaitGroup
	for i := range 50 {
		name := []string{"same.example.", "SAME.example."}[i%2]
		all.Go(func() {
			m := askDNS(t, s, dnsQuestion(t, name, dnsmessage.TypeA, 0), false)
			if len(m.Answers) != 1 || m.Answers[0].Header.Name.String() != name {
				t.Errorf("%v", m.Answers)
			}
		})
	}
	waitFor(t, func() bool { return begun.Load() == 50 && len(up.networks()) > 0 })
	time.Sleep(50 * time.Millisecond) // for those that would be too many
	close(release)
	all.Wait()
	if n := len(up.networks()); n > 3 {
		t.Errorf("asked %d times", n)
	}
}

// Names of its own are answered without anybody.
func TestDNSLocal(t *testing.T) {
	web := []netip.Addr{netip.MustParseAddr("10.88.0.5"), netip.MustParseAddr("fd00::5")}
	s := newDNSServer(dnsOptions{
		local:     func(name string) ([]netip.Addr, bool) { return web, name == "web" },
		reverse:   func(a netip.Addr) (string, bool) { return "web", slices.Contains(web, a) },
		upstreams: func() []netip.AddrPort { return nil },
	})
	defer s.close()
	for _, test := range []struct {
		name string
		typ  dnsmessage.Type
		want string
	}{
		{"web.", dnsmessage.TypeA, "[10.88.0.5]"},
		{"Web.", dnsmessage.TypeAAAA, "[fd00::5]"},
		{"web.", dnsmessage.TypeALL, "[10.88.0.5 fd00::5]"},
		{"web.", dnsmessage.TypeMX, "[]"},
		{"localhost.", dnsmessage.TypeA, "[127.0.0.1]"},
		{"a.localhost.", dnsmessage.TypeAAAA, "[::1]"},
	} {
		if m := askDNS(t, s, dnsQuestion(t, test.name, test.typ, 0), false); m.RCode != 0 || fmt.Sprint(dnsAddresses(m)) != test.want {
			t.Errorf("%s %v: %v", test.name, test.typ, m)
		}
	}
	for _, name := range []string{"5.0.88.10.in-addr.arpa.", "5." + strings.Repeat("0.", 27) + "0.0.d.f.ip6.arpa."} {
		m := askDNS(t, s, dnsQuestion(t, name, dnsmessage.TypePTR, 0), false)
		if len(m.Answers) != 1 || m.Answers[0].Body.(*dnsmessage.PTRResource).PTR.String() != "web." {
			t.Errorf("%s: %v", name, m)
		}
	}
	if m := askDNS(t, s, dnsQuestion(t, "6.0.88.10.in-addr.arpa.", dnsmessage.TypePTR, 0), false); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("another: %v", m)
	}
}

// All of it over sockets, also while it is closed.
func TestDNSSockets(t *testing.T) {
	leak.Check(t)
	s, _ := dnsFor(t, nil, func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{dnsRecord(q.Questions[0].Name.String(), 60, "192.0.2.1")}
		})}
	})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.servePacket(pc)
	s.serveListener(l)
	for _, addr := range []net.Addr{pc.LocalAddr(), l.Addr()} {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, addr.Network(), addr.String())
		}}
		addrs, err := r.LookupNetIP(t.Context(), "ip4", "host.example")
		if err != nil || len(addrs) != 1 || addrs[0] != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("%s: %v, %v", addr.Network(), addrs, err)
		}
	}
	idle, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 { // one connection, several questions
		if err := writeDNSMessage(c, dnsQuestion(t, "host.example.", dnsmessage.TypeA, 0)); err != nil {
			t.Fatal(err)
		}
		if msg, err := readDNSMessage(c); err != nil || len(msg) < 12 {
			t.Fatal(msg, err)
		}
	}
	s.close()
	s.close()
	s.servePacket(pc) // closed: nothing happens
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is open after close")
	}
}
