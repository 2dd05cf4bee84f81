//go:build linux

package container

import (
	"context"
	"net/netip"
	"testing"
)

// This file tests the table of flows of a port of UDP.

// Clients who send while no socket is there yet, each from a thousand addresses, take bounded memory.
func TestPublishWaitingIsBounded(t *testing.T) {
	s := &packetPort{relay: &portRelay{}, flows: make(map[portFlowKey]*portFlow)}
	packet := make([]byte, 60000)
	for i := range 1000 {
		key := portFlowKey{client: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(1+i))}
		f := &portFlow{key: key, cancel: context.CancelFunc(func() {})}
		f.place = s.young.PushBack(f)
		s.flows[key] = f
		for range 3 {
			s.deliver(key, packet)
		}
	}
	kept := 0
	for _, f := range s.flows {
		for _, p := range f.waiting {
			kept += len(p)
		}
	}
	if kept == 0 || kept > maxWaitingBytes || int64(kept) != s.relay.kept.Load() {
		t.Errorf("%d bytes are kept, %d are counted", kept, s.relay.kept.Load())
	}
	for _, f := range s.flows {
		s.answered(f)
	}
	if n := s.relay.kept.Load(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
}
