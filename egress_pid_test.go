//go:build linux

package container

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file tests the search for processes.

// Who makes connections that belong to no process does not have all descriptors of the container looked at many times at once.
func TestEgressAttackPids(t *testing.T) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var now, most, all atomic.Int32
	p := newPidFinder(os.NewFile(uintptr(fd), "sock_diag"), func() ([]int, error) {
		all.Add(1)
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		return nil, nil
	})
	q := EgressRequest{Network: "tcp", Source: unmapped(conn.LocalAddr()), Addr: unmapped(conn.RemoteAddr())}
	var work sync.WaitGroup
	for range 200 {
		work.Go(func() { p.find(q) })
	}
	time.Sleep(50 * time.Millisecond)
	p.Close()
	begun := all.Load()
	work.Wait()
	if most.Load() > 1 {
		t.Errorf("%d searches at one time", most.Load())
	}
	if more := all.Load() - begun; more > 1 { // one may have been on its way
		t.Errorf("%d searches begin after the end", more)
	}
}
