//go:build linux

package container

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// TestStatsContainer reads the numbers of a container while it runs and when it has ended, until it is destroyed.
func TestStatsContainer(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	p := lifeSh("read x; true")
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := lifeNew(t, cfg)
	if _, err := c.Stats(); !errors.Is(err, ErrNoCgroup) {
		t.Errorf("before Create: %v", err)
	}
	if err := c.Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if !s.Populated || s.CPU.Usage == 0 || len(s.Interfaces) != 1 || s.Interfaces[0].Name != "lo" {
		t.Errorf("%s", asJSON(t, s))
	}
	other, err := Load(filepath.Dir(c.record.dir), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if s, err := other.Stats(); err != nil || len(s.Interfaces) != 1 {
		t.Errorf("of a container that was loaded: %v, %s", err, asJSON(t, s))
	}
	in.Close()
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	s, err = c.Stats()
	if err != nil || s.CPU.Usage == 0 || s.Interfaces != nil {
		t.Errorf("after the end: %v, %s", err, asJSON(t, s))
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Stats(); !errors.Is(err, ErrNotExist) {
		t.Errorf("after Destroy: %v", err)
	}
}

// TestStatsEvery takes snapshots until the end of the container, of the context, of the loop.
func TestStatsEvery(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	p := lifeSh("read x; true")
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := lifeStart(t, cfg, p)
	const interval = 20 * time.Millisecond
	n, last, began := 0, time.Duration(0), time.Now()
	for s, err := range c.StatsEvery(t.Context(), interval) {
		if err != nil || s.CPU.Usage < last {
			t.Fatal(err, s)
		}
		n, last = n+1, s.CPU.Usage
		if n == 2 && len(s.Interfaces) != 1 {
			t.Errorf("interfaces: %v", s.Interfaces)
		}
		if n == 10 {
			in.Close()
		}
	}
	if took := time.Since(began); n < 10 || n > int(took/interval)+2 {
		t.Errorf("%d snapshots in %v", n, took)
	}
	n = 0
	for s, err := range c.StatsEvery(t.Context(), time.Hour) {
		if n++; err != nil || s.Interfaces != nil {
			t.Error(err, s)
		}
	}
	if n != 1 {
		t.Errorf("%d snapshots of a container that has ended", n)
	}

	c = lifeStart(t, cfg, lifeSh("sleep 100"))
	for range c.StatsEvery(t.Context(), time.Hour) {
		break
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, err := range c.StatsEvery(ctx, time.Hour) {
		if err != nil {
			t.Error(err)
		}
	}
	for _, err := range c.StatsEvery(ctx, 0) {
		if !errors.Is(err, ErrInvalidConfig) {
			t.Error(err)
		}
	}
	cfg.Cgroup = nil
	c = lifeStart(t, cfg, lifeSh("sleep 100"))
	for _, err := range c.StatsEvery(t.Context(), time.Hour) {
		if !errors.Is(err, ErrNoCgroup) {
			t.Error(err)
		}
	}
}

// TestStatsInterfaces sends packets to a container over a veth pair: it receives them, and does not send them.
func TestStatsInterfaces(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Program("ip", "iproute2"), testenv.Program("nsenter", "util-linux"))
	c := lifeStart(t, cgroupConfig(t), lifeSh("sleep 100"))
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(testenv.LookPath("ip"), args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v, %s", args, err, out)
		}
	}
	pid := strconv.Itoa(c.Pid())
	host := "cts" + pid
	ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", pid)
	t.Cleanup(func() { exec.Command(testenv.LookPath("ip"), "link", "del", host).Run() })
	ip("address", "add", "198.51.100.1/24", "dev", host)
	ip("link", "set", host, "up")
	if out, err := exec.Command(testenv.LookPath("nsenter"), "-t", pid, "-n", "ip", "link", "set", "eth0", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	eth0 := func() InterfaceStats {
		s, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range s.Interfaces {
			if i.Name == "eth0" {
				return i
			}
		}
		t.Fatalf("no eth0: %+v", s.Interfaces)
		return InterfaceStats{}
	}
	before := eth0()
	ip("neighbour", "add", "198.51.100.2", "lladdr", "02:00:00:00:00:01", "dev", host)
	conn, err := net.Dial("udp", "198.51.100.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const packets, size = 100, 1000
	after := before
	for deadline := time.Now().Add(time.Minute); after.RxPackets < before.RxPackets+packets; after = eth0() {
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing arrives: %+v, %+v", before, after)
		}
	}
	if after.RxBytes-before.RxBytes < packets*size/2 {
		t.Errorf("%+v, %+v", before, after)
	}
	if n := after.TxPackets - before.TxPackets; n > packets/2 {
		t.Errorf("%d packets sent: %+v, %+v", n, before, after)
	}
}

// TestStatsSharedNetwork: the caller's interfaces are not the container's.
func TestStatsSharedNetwork(t *testing.T) {
	cfg := cgroupConfig(t)
	cfg.Namespaces.NewNet = false
	if err := cfg.validate(); err != nil {
		t.Skip(err)
	}
	c := lifeNew(t, cfg)
	if err := c.Run(t.Context(), lifeSh("sleep 100")); err != nil {
		t.Skip(err)
	}
	if s, err := c.Stats(); err != nil || s.Interfaces != nil {
		t.Errorf("%v, %s", err, asJSON(t, s))
	}
}

// TestEventsContainer hears of a pause, and of the end, from whoever listens; and nothing stays behind of those who
// leave early.
func TestEventsContainer(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	p := lifeSh("trap 'exit 7' TERM; echo; while :; do sleep 0.05; done")
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := lifeStart(t, cfg, p)
	out.Read(make([]byte, 1)) // from now on the signal is not ignored
	out.Close()
	other, err := Load(filepath.Dir(c.record.dir), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	for e, err := range c.Events(ctx) {
		if err != nil || e.Type != EventPaused {
			t.Errorf("%+v, %v", e, err)
		}
		break
	}
	for _, listener := range []*Container{c, other} {
		var heard []string
		for e, err := range listener.Events(ctx) {
			if err != nil || time.Since(e.Time) > time.Minute || e.Count != 1 {
				t.Fatal(e, err)
			}
			heard = append(heard, string(e.Type))
			switch n := len(heard); {
			case e.Type == EventExit:
				lifeExpectExit(t, e.Err, lifeExit7)
			case n == 1:
				err = c.Resume(ctx)
			case n == 2:
				err = c.Pause(ctx)
			case n == 3 && listener == c:
				err = context.Canceled
			case n == 3:
				err = c.Resume(ctx)
			case n == 4:
				err = c.Signal(15)
			}
			if err == context.Canceled {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		want := "paused resumed paused"
		if listener == other {
			want = "paused resumed paused resumed exit"
		}
		if got := strings.Join(heard, " "); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
	for e, err := range other.Events(ctx) { // it has ended
		if err != nil || e.Type != EventExit {
			t.Errorf("%+v, %v", e, err)
		}
		lifeExpectExit(t, e.Err, lifeExit7)
	}
	ctx, cancel = context.WithCancel(ctx)
	cancel()
	for e, err := range c.Events(ctx) {
		t.Errorf("with a context that has ended: %+v, %v", e, err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	for e, err := range other.Events(t.Context()) {
		if !errors.Is(err, ErrNotExist) {
			t.Errorf("%+v, %v", e, err)
		}
	}
}
