//go:build linux

package container

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"
)

// This file attacks the relay from the container's side: what it takes from the caller's process, and who else has to wait for it.

// bareRelay is a relay without sockets in a container: what it sends is lost.
func bareRelay(t *testing.T, policy EgressPolicy) (*relay, *packetSender) {
	t.Helper()
	r := newRelay(&Container{id: "bare", cfg: Config{Network: &NetworkConfig{Mode: NetworkModeEgress, Egress: policy}}})
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := newPacketSender(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.close(); in.Close(); out.Close() })
	return r, raw
}

func bareFlow(i int) flowKey {
	return flowKey{netip.AddrPortFrom(egressAddr4, uint16(i+1)), mustAddrPort("203.0.113.5:1000")}
}

// What waits for a policy is bounded by its bytes: 4096 flows of 16 long packets are 4 GiB.
func TestEgressAttackUDPMemory(t *testing.T) {
	ask := make(chan struct{})
	r, raw := bareRelay(t, func(context.Context, EgressRequest) (EgressDecision, error) {
		<-ask
		return EgressDecision{}, nil
	})
	packet := make([]byte, 60_000)
	for i := range 400 {
		for range maxUDPQueue {
			r.packet(raw, bareFlow(i), packet)
		}
	}
	kept := 0
	r.mu.Lock()
	for _, f := range r.flows {
		for _, b := range f.queue {
			kept += len(b)
		}
	}
	r.mu.Unlock()
	close(ask)
	if kept > 16<<20 {
		t.Errorf("400 flows that are not decided about keep %d MiB", kept>>20)
	}
}

// A connection of the policy's that takes nothing stops no other flow.
func TestEgressAttackUDPStuck(t *testing.T) {
	got := make(chan struct{}, 10)
	r, raw := bareRelay(t, func(_ context.Context, q EgressRequest) (EgressDecision, error) {
		ours, theirs := net.Pipe() // a write waits for a read
		if q.Source.Port() == 2 {
			go func() {
				buf := make([]byte, 10)
				for {
					if _, err := theirs.Read(buf); err != nil {
						return
					}
					got <- struct{}{}
				}
			}()
		}
		return EgressDecision{Allow: true, Conn: ours}, nil
	})
	await := func(what string, so func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	done := make(chan struct{})
	go func() { // as readUDP
		defer close(done)
		for i := range 2 {
			r.packet(raw, bareFlow(i), []byte("a"))
			await("no decision", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				f := r.flows[bareFlow(i)]
				return f != nil && f.conn != nil
			})
			r.packet(raw, bareFlow(i), []byte("b"))
		}
	}()
	for range 2 {
		select {
		case <-got:
		case <-time.After(time.Minute):
			t.Fatal("a flow waits for another")
		}
	}
	<-done
}

// stuckConn is a connection whose Close takes long, as that of TLS can.
type stuckConn struct {
	net.Conn
	closing, leave chan struct{}
	once           sync.Once
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closing) })
	<-c.leave
	return c.Conn.Close()
}

// Nobody waits for the end of a connection of the policy's.
func TestEgressAttackStuckClose(t *testing.T) {
	r, _ := bareRelay(t, nil)
	a, b := net.Pipe()
	defer b.Close()
	conn := &stuckConn{Conn: a, closing: make(chan struct{}), leave: make(chan struct{})}
	f := &udpFlow{conn: conn}
	r.take()
	r.flows[bareFlow(0)] = f
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.endFlow(bareFlow(0), f)
	}()
	<-conn.closing
	if !r.mu.TryLock() {
		t.Error("all of the relay waits for one connection's Close")
	} else {
		r.mu.Unlock()
	}
	close(conn.leave)
	<-ended
}
