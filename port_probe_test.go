//go:build linux

package container

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
)

// This file tests how ports are tried.

// A port that has been tried can be had at once, though processes are being started that had the socket for a moment.
func TestProbePortIsInNobodysWay(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						exec.Command("true").Run()
					}
				}
			})
		}
		defer wg.Wait()
		defer close(stop)
		var lc net.ListenConfig
		for i := range 1000 {
			at := netip.AddrPortFrom(loopback4, uint16(20000+i))
			for _, proto := range []string{"tcp", "udp"} {
				if err := probePort(proto, netip.Addr{}, at.Port()); err != nil {
					t.Fatal(err)
				}
			}
			l, err := lc.Listen(context.Background(), "tcp4", at.String())
			if err != nil {
				t.Fatal(err)
			}
			if err := probePort("tcp", netip.Addr{}, at.Port()); err == nil {
				t.Fatal("a port at which somebody listens can be had")
			}
			l.Close()
			p, err := lc.ListenPacket(context.Background(), "udp4", at.String())
			if err != nil {
				t.Fatal(err)
			}
			if err := probePort("udp", netip.Addr{}, at.Port()); err == nil {
				t.Fatal("a port of UDP that somebody has can be had")
			}
			p.Close()
		}
	})
}
