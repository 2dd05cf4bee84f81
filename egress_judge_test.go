//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/leak"
)

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// judgeOf is a judge with a policy and rules.
func judgeOf(policy EgressPolicy, rules ...string) *egressJudge {
	return newEgressJudge("box", &NetworkConfig{Egress: policy, EgressAllow: rules}, quietLog())
}

func tcpTo(addr string) EgressRequest {
	return EgressRequest{Network: "tcp", Addr: netip.MustParseAddrPort(addr), Source: netip.MustParseAddrPort("[::ffff:10.0.0.2]:4000"), Pid: 7}
}

func wantDenied(t *testing.T, err error, text string) {
	t.Helper()
	var e *Error
	if !errors.Is(err, ErrEgressDenied) || !errors.As(err, &e) || e.ID != "box" || !strings.Contains(err.Error(), text) {
		t.Errorf("%v; want a denial with %q", err, text)
	}
}

func TestEgressDecide(t *testing.T) {
	leak.Check(t)
	ctx := t.Context()
	_, err := judgeOf(nil).decide(ctx, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "no rule")
	if _, err = judgeOf(DenyEgress).decide(ctx, tcpTo("192.0.2.1:80")); err != nil {
		wantDenied(t, err, "policy")
	}
	d, err := judgeOf(DenyEgress, "192.0.2.0/24").decide(ctx, tcpTo("[::ffff:192.0.2.1]:80"))
	if err != nil || d.Addr != netip.MustParseAddrPort("192.0.2.1:80") || d.Conn != nil {
		t.Errorf("%+v, %v", d, err)
	}

	// The policy sees all there is, and its error is passed on.
	var seen EgressRequest
	failure := errors.New("not on a Sunday")
	j := judgeOf(func(_ context.Context, r EgressRequest) (EgressDecision, error) {
		seen = r
		return EgressDecision{Allow: true}, failure
	})
	j.book.note("example.com", netip.MustParseAddr("192.0.2.1"), time.Hour)
	j.book.note("www.example.com", netip.MustParseAddr("192.0.2.1"), time.Hour)
	_, err = j.decide(ctx, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "not on a Sunday")
	want := EgressRequest{Network: "tcp", Addr: netip.MustParseAddrPort("192.0.2.1:80"), Names: []string{"www.example.com", "example.com"},
		Source: netip.MustParseAddrPort("10.0.0.2:4000"), Container: "box", Pid: 7}
	if !errors.Is(err, failure) || fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("%v, %v", seen, err)
	}

	// Elsewhere.
	other := netip.MustParseAddrPort("192.0.2.9:90")
	j = judgeOf(func(context.Context, EgressRequest) (EgressDecision, error) {
		return EgressDecision{Allow: true, Addr: other}, nil
	})
	if d, err := j.decide(ctx, tcpTo("169.254.169.254:80")); err != nil || d.Addr != other {
		t.Errorf("%+v, %v", d, err)
	}
	a, b := net.Pipe()
	defer b.Close()
	j = judgeOf(func(context.Context, EgressRequest) (EgressDecision, error) {
		return EgressDecision{Allow: true, Conn: a}, nil
	})
	if d, err := j.decide(ctx, tcpTo("169.254.169.254:80")); err != nil || d.Conn != a {
		t.Errorf("%+v, %v", d, err)
	}
	// A connection that comes with a no is closed, and so is one for a name.
	j = judgeOf(func(context.Context, EgressRequest) (EgressDecision, error) { return EgressDecision{Conn: a}, nil })
	_, err = j.decide(ctx, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "policy")
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is open")
	}
}

// Whoever allows it, what is special stays closed.
func TestEgressSpecial(t *testing.T) {
	for _, addr := range []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.1.1", "224.0.0.251", "239.255.255.250", "255.255.255.255", "240.0.0.1",
		"100.100.100.200", "168.63.129.16", "192.0.0.192",
		"::", "::1", "fe80::1", "fe80::1%lo", "2001:db8::1%eth0", "ff02::1", "fd00:ec2::254", "fd20:ce::254",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
		"2001:0:1:2:3:4:5601:5601", // Teredo of 169.254.169.254
	} {
		to := netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
		for what, j := range map[string]*egressJudge{
			"all rules":  judgeOf(nil, "0.0.0.0/0", "::/0", "*"),
			"all policy": judgeOf(AllowAllEgress),
			"redirected": judgeOf(func(_ context.Context, r EgressRequest) (EgressDecision, error) {
				return EgressDecision{Allow: true, Addr: to}, nil
			}),
		} {
			j.book.note("example.com", to.Addr(), time.Hour)
			r := EgressRequest{Network: "tcp", Addr: to}
			if what == "redirected" {
				r.Addr = netip.MustParseAddrPort("192.0.2.1:80")
			}
			if d, err := j.decide(t.Context(), r); err == nil || !errors.Is(err, ErrEgressDenied) {
				t.Errorf("%s, %s: %+v, %v", what, addr, d, err)
			}
		}
		j := judgeOf(func(_ context.Context, r EgressRequest) (EgressDecision, error) {
			return EgressDecision{Allow: true, Special: true}, nil
		})
		if d, err := j.decide(t.Context(), EgressRequest{Network: "tcp", Addr: to}); err != nil || d.Addr.Addr() != to.Addr().Unmap() {
			t.Errorf("special, %s: %+v, %v", addr, d, err)
		}
	}
	for _, addr := range []string{"192.0.2.1", "8.8.8.8", "10.0.0.1", "2606:2800::1", "fd00::1", "64:ff9b::8.8.8.8", "2002:808:808::1"} {
		if what := specialAddress(netip.MustParseAddr(addr)); what != "" {
			t.Errorf("%s is %s", addr, what)
		}
	}
}

// What listens on all addresses of this host is behind each of them, and no name leads there.
func TestEgressOwnAddress(t *testing.T) {
	defer func() { hostAddresses = addressCache{} }()
	hostAddresses = addressCache{asked: time.Now().Add(time.Hour), addrs: []netip.Addr{netip.MustParseAddr("203.0.113.5")}}
	j := judgeOf(nil, "*")
	for _, addr := range []string{"203.0.113.5", "64:ff9b::203.0.113.5", "203.0.113.6"} {
		a := netip.MustParseAddr(addr)
		j.book.note("rebind.example", a, time.Hour)
		_, err := j.decide(t.Context(), EgressRequest{Network: "tcp", Addr: netip.AddrPortFrom(a, 22)})
		if (err == nil) != (addr == "203.0.113.6") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	hostAddresses = addressCache{}
	own := hostAddresses.get()
	if !slices.Contains(own, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("own addresses %v", own)
	}
}

// Policies that panic, hang, end their goroutine or answer too late.
func TestEgressHostilePolicy(t *testing.T) {
	leak.Check(t)
	ctx := t.Context()
	_, err := judgeOf(func(context.Context, EgressRequest) (EgressDecision, error) { panic("oh no") }).decide(ctx, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "oh no")
	_, err = judgeOf(func(context.Context, EgressRequest) (EgressDecision, error) {
		var none []int
		none[len(none)]++
		return EgressDecision{Allow: true}, nil
	}).decide(ctx, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "out of range")
	_, err = judgeOf(func(context.Context, EgressRequest) (EgressDecision, error) { runtime.Goexit(); panic("") }).decide(ctx, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "ended its goroutine")
	if err := judgeOf(func(context.Context, EgressRequest) (EgressDecision, error) { panic("name") }).allowName(ctx, "a.example", netip.AddrPort{}); err == nil {
		t.Error("a name was allowed")
	}

	// One that minds its ctx.
	j := judgeOf(func(ctx context.Context, _ EgressRequest) (EgressDecision, error) {
		<-ctx.Done()
		return EgressDecision{Allow: true}, nil
	})
	j.limit = 20 * time.Millisecond
	_, err = j.decide(ctx, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = j.decide(gone, tcpTo("192.0.2.1:80"))
	wantDenied(t, err, "")

	// One that does not: nobody waits for it, there is a bound of them, and a connection that it makes too late is closed.
	a, b := net.Pipe()
	defer b.Close()
	release := make(chan struct{})
	var calls atomic.Int32
	j = newEgressJudge("box", &NetworkConfig{MaxConnections: 3, Egress: func(context.Context, EgressRequest) (EgressDecision, error) {
		calls.Add(1)
		<-release
		return EgressDecision{Allow: true, Conn: a}, nil
	}}, quietLog())
	j.limit = 20 * time.Millisecond
	for range 10 {
		_, err = j.decide(ctx, tcpTo("192.0.2.1:80"))
		wantDenied(t, err, "")
	}
	waitFor(t, func() bool { return calls.Load() >= 3 })
	if n := calls.Load(); n != 3 || !strings.Contains(err.Error(), "3 calls") {
		t.Errorf("%d calls, %v", n, err)
	}
	close(release)
	b.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := b.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the late connection: %v", err)
	}
}

// OnEgress that panics or hangs harms nobody, and there is a bound of calls that hang.
func TestEgressReport(t *testing.T) {
	leak.Check(t)
	var mu sync.Mutex
	var events []EgressEvent
	told := make(chan struct{}, 100)
	n := &NetworkConfig{MaxConnections: 2, OnEgress: func(e EgressEvent) {
		mu.Lock()
		events = append(events, e)
		mu.Unlock()
		told <- struct{}{}
		panic("oh no")
	}}
	var text bytes.Buffer
	j := newEgressJudge("box", n, slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &text}, nil)))
	j.book.note("example.com", netip.MustParseAddr("192.0.2.1"), time.Hour)
	_, denial := j.decide(t.Context(), tcpTo("192.0.2.1:80"))
	j.report(tcpTo("192.0.2.1:80"), denial)
	<-told
	mu.Lock()
	if e := events[0]; e.Err != denial || e.Names[0] != "example.com" || e.Container != "box" || e.Pid != 7 || time.Since(e.Time) > time.Minute {
		t.Errorf("%+v", e)
	}
	mu.Unlock()
	release := make(chan struct{})
	var calls atomic.Int32
	n.OnEgress = func(EgressEvent) { calls.Add(1); <-release }
	j = newEgressJudge("box", n, slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &text}, nil)))
	for range 100 {
		j.report(tcpTo("192.0.2.1:80"), denial)
	}
	close(release)
	mu.Lock()
	defer mu.Unlock()
	if c, lines := calls.Load(), strings.Count(text.String(), "msg=egress"); c > 2 || lines > 1+3*maxDenialLines || lines < maxDenialLines || strings.Count(text.String(), "does not return") != 1 {
		t.Errorf("%d calls, %d lines:\n%s", c, lines, text.String())
	}
}

// A lockedWriter can be looked at while others write.
type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

// A container asks for names all the time; addresses are its as long as they are valid.
func TestEgressBook(t *testing.T) {
	now := time.Now()
	b := &nameBook{now: func() time.Time { return now }}
	addr := netip.MustParseAddr("192.0.2.1")
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	b.note("a", mapped, 0)
	b.note("b", addr, 90*time.Second)
	b.note("c", addr, 48*time.Hour)
	b.note("a", addr, 0)
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, "[a c b]"}, {59 * time.Second, "[a c b]"}, {time.Second, "[c b]"}, {30 * time.Second, "[c]"}, {58*time.Minute + 29*time.Second, "[c]"}, {time.Second, "[]"}} {
		now = now.Add(step.after)
		if got := fmt.Sprint(b.names(addr)); got != step.want {
			t.Errorf("after %v: %s, want %s", step.after, got, step.want)
		}
	}
	// It is bounded.
	for i := range 3 * maxBookEntries {
		b.note(fmt.Sprint("n", i), netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), time.Minute+time.Duration(i))
	}
	if len(b.ends) != maxBookEntries || b.names(netip.AddrFrom4([4]byte{192, 0, 0, 0})) == nil && len(b.byAddr) > maxBookEntries {
		t.Errorf("%d entries, %d addresses", len(b.ends), len(b.byAddr))
	}
	for i := range 3 * maxBookNames {
		b.note(fmt.Sprint("m", i), addr, 2*time.Minute)
	}
	if names := b.names(addr); len(names) != maxBookNames || names[0] != fmt.Sprint("m", 3*maxBookNames-1) {
		t.Errorf("%d names, the last %s", len(names), names[0])
	}
	now = now.Add(2 * time.Hour)
	if b.names(addr) != nil || len(b.ends) != 0 || len(b.byAddr) != 0 {
		t.Errorf("left: %d entries, %d addresses", len(b.ends), len(b.byAddr))
	}
}

// What a translator of the local network's makes of an address counts as that address.
func TestEgressAttackTranslated(t *testing.T) {
	for _, a := range []string{"64:ff9b:1::a9fe:a9fe", "64:ff9b:1::7f00:1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::", "0.0.0.0", "255.255.255.255"} {
		if specialAddress(netip.MustParseAddr(a)) == "" {
			t.Errorf("%s is dialed", a)
		}
	}
}
