//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/net/dns/dnsmessage"
)

// This file does to the name server what programs in a container, name servers and their neighbours may want to.

// A program asks more than is answered, of a policy that never answers.
func TestDNSFlood(t *testing.T) {
	leak.Check(t)
	var asking, most atomic.Int32
	s := newDNSServer(dnsOptions{upstreams: func() []netip.AddrPort { return nil }, allow: func(ctx context.Context, name string, _ netip.AddrPort) error {
		n := asking.Add(1)
		defer asking.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	defer s.close()
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
	before := runtime.NumGoroutine()
	c, err := net.Dial("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 6000 {
		if i%100 == 0 {
			time.Sleep(time.Millisecond) // so that not only the kernel drops them
		}
		c.Write(dnsQuestion(t, fmt.Sprintf("n%d.example.", i), dnsmessage.TypeA, 0))
	}
	var conns []net.Conn
	for i := range 3 * maxDNSConns {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if i%2 == 0 {
			c.Write([]byte{0xff}) // and never the rest
		} else {
			writeDNSMessage(c, dnsQuestion(t, "tcp.example.", dnsmessage.TypeA, 0))
		}
	}
	open := 0
	for _, c := range conns {
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open++
		}
	}
	if m, now := most.Load(), runtime.NumGoroutine(); m < maxDNSQuestions/2 || m > maxDNSQuestions || open > maxDNSConns || now > before+maxDNSQuestions+maxDNSConns+10 {
		t.Errorf("at most %d questions at a time, %d connections, %d goroutines more", m, open, now-before)
	}
	begin := time.Now()
	s.close()
	if d := time.Since(begin); d > dnsTime-time.Second {
		t.Errorf("closed after %v", d)
	}
}

// A name server gives the largest answer that there can be, and one that is never used up.
func TestDNSGiantAnswer(t *testing.T) {
	leak.Check(t)
	s, _ := dnsFor(t, nil, func(network string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			if m.Truncated = network == "udp"; m.Truncated {
				return
			}
			m.Answers = make([]dnsmessage.Resource, 4090) // 16 bytes each
			for i := range m.Answers {
				m.Answers[i] = dnsRecord("giant.example.", 1<<31-1, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String())
			}
		})}
	})
	for i := range 10 {
		m := askDNS(t, s, dnsQuestion(t, "giant.example.", dnsmessage.TypeA, 65535), i%2 == 0)
		if want := map[bool]int{true: 4090}[i%2 == 0]; len(m.Answers) != want || m.Truncated != (want == 0) {
			t.Errorf("%d answers, %v", len(m.Answers), m.Header)
		}
	}
	if n := len(s.book.ends); n != 4090 {
		t.Errorf("%d addresses in the book", n)
	}
	// An answer of aliases of aliases.
	s, _ = dnsFor(t, nil, func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			for i := range 60 {
				m.Answers = append(m.Answers, dnsRecord(fmt.Sprintf("a%d.", i), 60, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(fmt.Sprintf("a%d.", i+1))}))
			}
			m.Answers = append(m.Answers, dnsRecord("a60.", 60, "192.0.2.1"))
			slices.Reverse(m.Answers)
		})}
	})
	if m := askDNS(t, s, dnsQuestion(t, "a0.", dnsmessage.TypeA, 4096), false); len(m.Answers) > maxChain || len(s.book.ends) != 0 {
		t.Errorf("%d aliases followed, %d addresses", len(m.Answers), len(s.book.ends))
	}
}

// Somebody else than the server answers, first and with all that there is to guess.
func TestDNSOffPath(t *testing.T) {
	leak.Check(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	forger, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if err := q.Unpack(buf[:n]); err != nil {
				t.Error(err)
				return
			}
			answer := func(addr string) []byte {
				return dnsAnswer(t, q, func(m *dnsmessage.Message) {
					m.Answers = []dnsmessage.Resource{dnsRecord(q.Questions[0].Name.String(), 60, addr)}
				})
			}
			for range 20 {
				forger.WriteTo(answer("192.0.2.66"), from)
			}
			pc.WriteTo(answer("192.0.2.1"), from)
		}
	}()
	s := newDNSServer(dnsOptions{upstreams: func() []netip.AddrPort { return []netip.AddrPort{addrPortOf(pc.LocalAddr())} }, book: new(nameBook)})
	for range 20 {
		if got := dnsAddresses(askDNS(t, s, dnsQuestion(t, "bank.example.", dnsmessage.TypeA, 0), false)); !slices.Equal(got, []string{"192.0.2.1"}) {
			t.Errorf("%v", got)
		}
	}
	if names := s.book.names(netip.MustParseAddr("192.0.2.66")); names != nil {
		t.Errorf("the forged address is of %q", names)
	}
	s.close()
	pc.Close()
	<-done
}

// A name first leads to where it may, then elsewhere: the connection is decided about where it goes, when it goes.
func TestDNSRebinding(t *testing.T) {
	leak.Check(t)
	var addr atomic.Value
	j := judgeOf(nil, "*.attacker.example", "10.1.0.0/16:5432")
	s, _ := dnsFor(t, func(o *dnsOptions) { o.allow, o.book = j.allowName, j.book }, func(_ string, q dnsmessage.Message) [][]byte {
		return [][]byte{dnsAnswer(t, q, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{dnsRecord(q.Questions[0].Name.String(), 0, addr.Load().(string))}
		})}
	})
	connect := func(port uint16) error {
		m := askDNS(t, s, dnsQuestion(t, "www.attacker.example.", dnsmessage.TypeALL, 0), false)
		a := netip.MustParseAddr(dnsAddresses(m)[0])
		_, err := j.decide(t.Context(), EgressRequest{Network: "tcp", Addr: netip.AddrPortFrom(a, port)})
		return err
	}
	for _, test := range []struct {
		addr    string
		port    uint16
		allowed bool
	}{
		{"93.184.216.34", 80, true}, {"192.168.1.1", 80, false}, {"10.0.0.1", 80, false}, {"127.0.0.1", 80, false}, {"169.254.169.254", 80, false}, {"0.0.0.0", 80, false},
		{"::1", 80, false}, {"::ffff:127.0.0.1", 80, false}, {"::ffff:10.0.0.1", 80, false}, {"fe80::1", 80, false}, {"fd00::1", 80, false}, {"64:ff9b::10.0.0.1", 80, false},
		{"100.64.0.1", 80, false}, {"224.0.0.251", 5353, false}, {"255.255.255.255", 80, false}, {"10.1.0.1", 5432, true}, {"10.1.0.1", 80, false}, {"2606:2800::1", 80, true},
	} {
		addr.Store(test.addr)
		if err := connect(test.port); (err == nil) != test.allowed {
			t.Errorf("%s: %v", test.addr, err)
		}
	}
}

// A server that says nothing costs time, but not that of who closes.
func TestDNSSilentUpstream(t *testing.T) {
	leak.Check(t)
	s, up := dnsFor(t, func(o *dnsOptions) {
		servers := slices.Repeat(o.upstreams(), 5) // one after the other is given its time
		o.upstreams = func() []netip.AddrPort { return servers }
	}, func(string, dnsmessage.Message) [][]byte { return nil })
	done := make(chan *dnsmessage.Message)
	go func() { done <- askDNS(t, s, dnsQuestion(t, "a.example.", dnsmessage.TypeA, 0), false) }()
	waitFor(t, func() bool { return len(up.networks()) > 0 })
	begin := time.Now()
	s.close()
	if m := <-done; m.RCode != dnsmessage.RCodeServerFailure || time.Since(begin) > dnsTime/2 {
		t.Errorf("%v after %v", m.Header, time.Since(begin))
	}
}
