//go:build linux

package container

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// This file tests what programs see of connections that are refused.

// The answer no of a policy whose own context has ended is an answer: the program is told at once.
func TestEgressAttackCanceledPolicy(t *testing.T) {
	withServers(t, func(t *testing.T, _ int) {
		cfg := egressConfig(t)
		var asked atomic.Int32
		cfg.Network.Egress = func(context.Context, EgressRequest) (EgressDecision, error) {
			asked.Add(1)
			return EgressDecision{}, fmt.Errorf("the service that knows: %w", context.Canceled)
		}
		in := startInside(t, cfg)
		var n int32
		var got string
		for range 3 { // on a machine that is slow for a moment, one of these is quick: the kernel asks again after a second
			asked.Store(0)
			got = in.do("dial a tcp %s:80", server4)
			if n = asked.Load(); n == 1 {
				break
			}
		}
		if n != 1 || !strings.HasPrefix(got, "ECONNREFUSED") {
			t.Errorf("%s, and the policy was asked %d times", got, n)
		}
	})
}

// What becomes TCP by other ways than connect(2) of a TCP socket is asked about as well: MPTCP, and data in the first packet (TCP Fast Open, here without a
// cookie, which a container with its own settings can have).
func TestEgressAttackOtherTCP(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		var reached atomic.Int32
		serve(t, servers, server4+":80", echo)
		serve(t, servers, server4+":81", func(*net.TCPConn) { reached.Add(1) })
		cfg := egressConfig(t)
		cfg.Sysctl = map[string]string{"net.ipv4.tcp_fastopen": "5", "net.ipv4.tcp_fastopen_blackhole_timeout_sec": "0"}
		var mu sync.Mutex
		var asked []string
		cfg.Network.Egress = func(_ context.Context, q EgressRequest) (EgressDecision, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, q.Network+" "+q.Addr.String())
			return EgressDecision{Allow: q.Addr.Port() == 80, Special: true}, nil
		}
		in := startInside(t, cfg)
		in.want("ECONNREFUSED", "multipath a %s:81", server4)
		in.want("ECONNREFUSED", "fastopen b %s:81 early", server4)
		in.want("ok false", "multipath c %s:80", server4)
		in.want("ok late", "say c late")
		in.want("ok", "fastopen d %s:80 early", server4)
		in.want("ok early", "read d")
		if n := reached.Load(); n > 0 {
			t.Errorf("the forbidden port was reached %d times", n)
		}
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(asked)
		if n, kinds := len(asked), slices.Compact(asked); n < 4 || !slices.Equal(kinds, []string{"tcp " + server4 + ":80", "tcp " + server4 + ":81"}) {
			t.Errorf("asked %d times, about %q", n, kinds)
		}
	})
}
