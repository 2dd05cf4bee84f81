//go:build linux

package container

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file uses a store of networks from many goroutines and processes, and kills these.

func testNetworkStore(t testing.TB) *networkStore {
	t.Helper()
	s, err := openNetworkStore(filepath.Join(t.TempDir(), "networks"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ownEndpoint is one that lives as long as this process.
func ownEndpoint(n int) *endpoint {
	start, _ := startTime(os.Getpid())
	return &endpoint{Key: fmt.Sprintf("ct%011x", n), Process: processID{os.Getpid(), start}, Network: NetworkState{Bridge: "br"}}
}

// storeFiles are all files of a store but for directories that are always there, and locks.
func storeFiles(t testing.TB, s *networkStore) (names []string) {
	t.Helper()
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(s.dir, path)
		if name != "." && name != "collect" && !slices.Contains(networkStoreDirs, name) {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestNetworkStoreBridges(t *testing.T) {
	s := testNetworkStore(t)
	if _, err := s.readBridge("br"); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
	for _, name := range []string{"br", "b.json", "b/../x", "..", "ü"} {
		lock, err := s.lockBridge(name)
		if err != nil {
			t.Fatal(err)
		}
		b := &Bridge{BridgeConfig: BridgeConfig{Name: name, StateDir: s.dir, Subnets: prefixes("10.1.0.0/24", "fd00::/64"), MTU: 1400}, Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.1")}}
		if err := s.writeBridge(b); err != nil {
			t.Fatal(err)
		}
		if got, err := s.readBridge(name); err != nil || fmt.Sprint(got) != fmt.Sprint(b) {
			t.Errorf("%+v, %v", got, err)
		}
		lock.Close()
	}
	if all, err := s.bridges(); err != nil || len(all) != 5 {
		t.Errorf("%v, %v", all, err)
	}
	for _, name := range []string{"br", "b.json", "b/../x", "..", "ü"} {
		lock, err := s.lockBridge(name)
		if err == nil {
			err = errors.Join(s.removeBridge(name), s.removeBridge(name))
			lock.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	if left := storeFiles(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestNetworkStoreBridgeLock has many remove and make a bridge: its lock goes and comes with it, and never has two holders.
func TestNetworkStoreBridgeLock(t *testing.T) {
	s := testNetworkStore(t)
	var inside, most int
	var mu sync.Mutex
	count := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		inside += by
		most = max(most, inside)
	}
	churn(400, 8, func(i int) {
		lock, err := s.lockBridge("br")
		if err != nil {
			t.Error(err)
			return
		}
		defer lock.Close()
		count(1)
		if err := s.writeBridge(&Bridge{BridgeConfig: BridgeConfig{Name: "br"}}); err != nil {
			t.Error(err)
		}
		count(-1) // who removes a bridge has nothing more to do, when the next may already have made another
		if i%2 == 0 {
			if err := s.removeBridge("br"); err != nil {
				t.Error(err)
			}
		}
	})
	if most != 1 {
		t.Errorf("%d had the lock at a time", most)
	}
}

// TestNetworkStoreRefuses opens a store that others could change.
func TestNetworkStoreRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, make := range map[string]func(path string) error{
		"writable": func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o770)) },
		"link":     func(path string) error { return os.Symlink(dir, path) },
		"file":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"in a directory of all": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o777))
		},
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if name == "in a directory of all" {
			path += "/networks"
		}
		if _, err := openNetworkStore(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLease(t *testing.T) {
	s := testNetworkStore(t)
	subnet, gateway := netip.MustParsePrefix("10.1.0.0/29"), netip.MustParseAddr("10.1.0.1")
	taken := []netip.Addr{gateway}
	if _, err := s.lease("br", subnet, taken, netip.Addr{}, "ct1"); !errors.Is(err, ErrNotExist) {
		t.Errorf("a lease of an endpoint that is not there: %v", err)
	}
	var all []netip.Addr
	for i := range 6 {
		e := ownEndpoint(i)
		if err := s.addEndpoint(e); err != nil {
			t.Fatal(err)
		}
		a, err := s.lease("br", subnet, taken, netip.Addr{}, e.Key)
		if i == 5 {
			if !errors.Is(err, ErrPoolExhausted) {
				t.Errorf("%v, %v", a, err)
			}
			break
		}
		if err != nil || slices.Contains(all, a) || a == gateway || !subnet.Contains(a) {
			t.Fatalf("%v, %v", a, err)
		}
		all = append(all, a)
	}
	if fmt.Sprint(all) != "[10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6]" {
		t.Error(all)
	}
	key := ownEndpoint(5).Key
	for want, target := range map[string]error{"10.1.0.1": ErrAddressInUse, "10.1.0.3": ErrAddressInUse, "10.1.0.0": ErrInvalidConfig, "10.1.0.7": ErrInvalidConfig, "10.2.0.1": ErrInvalidConfig, "fd00::1": ErrInvalidConfig} {
		if _, err := s.lease("br", subnet, taken, netip.MustParseAddr(want), key); !errors.Is(err, target) {
			t.Errorf("%s: %v", want, err)
		}
	}
	// Its own once more, and another's after that is gone.
	if a, err := s.lease("br", subnet, taken, all[0], ownEndpoint(0).Key); err != nil || a != all[0] {
		t.Errorf("%v, %v", a, err)
	}
	if err := s.release("br", all[3].String(), key); err != nil { // not its own: nothing happens
		t.Error(err)
	}
	if h, err := s.holder("br", all[3]); err != nil || h.Key != ownEndpoint(3).Key {
		t.Errorf("%+v, %v", h, err)
	}
	if err := s.removeEndpoint(ownEndpoint(3).Key); err != nil {
		t.Fatal(err)
	}
	if a, err := s.lease("br", subnet, taken, all[3], key); err != nil || a != all[3] {
		t.Errorf("%v, %v", a, err)
	}
	// The other family, in the same pool.
	if a, err := s.lease("br", netip.MustParsePrefix("fd00:1::/64"), nil, netip.Addr{}, key); err != nil || a.String() != "fd00:1::1" {
		t.Errorf("%v, %v", a, err)
	}
	lock, err := s.lockBridge("br")
	if err == nil {
		err = s.removeBridge("br")
		lock.Close()
	}
	if !errors.Is(err, ErrAddressInUse) {
		t.Errorf("a bridge in use is removed: %v", err)
	}
	for i := range 6 {
		if err := errors.Join(s.removeEndpoint(ownEndpoint(i).Key), s.removeEndpoint(ownEndpoint(i).Key)); err != nil {
			t.Error(err)
		}
	}
	if err := s.removePool("br"); err != nil {
		t.Error(err)
	}
	if left := storeFiles(t, s); fmt.Sprint(left) != "[bridges/br.lock]" {
		t.Errorf("left: %q", left)
	}
}

// TestLeaseNext leases an address that was freed as the last one of all.
func TestLeaseNext(t *testing.T) {
	s := testNetworkStore(t)
	for _, subnet := range prefixes("10.1.0.0/28", "fd00::/124") {
		e := ownEndpoint(1)
		if err := s.addEndpoint(e); err != nil {
			t.Fatal(err)
		}
		seen := map[netip.Addr]bool{}
		n := map[bool]int{true: 14, false: 15}[subnet.Addr().Is4()]
		for range n {
			a, err := s.lease("br", subnet, nil, netip.Addr{}, e.Key)
			if err != nil || seen[a] {
				t.Fatalf("%v, %v, of %v", a, err, seen)
			}
			seen[a] = true
			if err := s.release("br", a.String(), e.Key); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := s.lease("br", subnet, nil, netip.Addr{}, e.Key); err != nil || !seen[a] {
			t.Errorf("%v, %v", a, err)
		}
		if err := s.removeEndpoint(e.Key); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLeaseHostileHint reads a hint that somebody has written anything into.
func TestLeaseHostileHint(t *testing.T) {
	s := testNetworkStore(t)
	e := ownEndpoint(1)
	if err := s.addEndpoint(e); err != nil {
		t.Fatal(err)
	}
	for i, hint := range []string{"", "\x00\xff", "fd00::1\n", "10.1.0.255", "10.9.0.1 ", strings.Repeat("1", 1000)} {
		if err := errors.Join(os.MkdirAll(s.poolPath("br"), 0o700), os.WriteFile(s.poolPath("br")+"/4", []byte(hint), 0o600)); err != nil {
			t.Fatal(err)
		}
		if a, err := s.lease("br", netip.MustParsePrefix("10.1.0.0/24"), nil, netip.Addr{}, e.Key); err != nil || a != netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}) {
			t.Errorf("%q: %v, %v", hint, a, err)
		}
	}
}

func TestNetworkNames(t *testing.T) {
	s := testNetworkStore(t)
	lookup := func(bridge, name, want string) {
		t.Helper()
		got, err := s.lookup(bridge, name)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s on %s: %v, %v; want %s", name, bridge, got, err, want)
		}
	}
	a, b := ownEndpoint(1), ownEndpoint(2)
	a.Names, a.Network.Addresses = []string{"web", "WWW", "..", "../../x", ""}, prefixes("10.1.0.2/24", "fd00::2/64")
	b.Names, b.Network.Addresses = []string{"www."}, prefixes("10.1.0.3/24")
	for _, e := range []*endpoint{a, b} {
		if err := s.addEndpoint(e); err != nil {
			t.Fatal(err)
		}
	}
	lookup("br", "web", "[10.1.0.2 fd00::2]")
	lookup("br", "Web.", "[10.1.0.2 fd00::2]")
	lookup("br", "www", "[10.1.0.2 fd00::2 10.1.0.3]")
	lookup("br", "../../x", "[10.1.0.2 fd00::2]")
	for _, name := range []string{"", ".", "..", "no", strings.Repeat("x", 5000)} {
		lookup("br", name, "[]")
	}
	lookup("other", "web", "[]")
	a.Names = []string{"other"}
	if err := s.addEndpoint(a); err != nil {
		t.Fatal(err)
	}
	lookup("br", "web", "[]")
	lookup("br", "other", "[10.1.0.2 fd00::2]")
	b.Process.StartTime++ // it is dead
	if err := s.addEndpoint(b); err != nil {
		t.Fatal(err)
	}
	lookup("br", "www", "[]")
	if err := s.collect(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.endpoint(b.Key); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
	if err := s.removeEndpoint(a.Key); err != nil {
		t.Fatal(err)
	}
	if err := s.collect(); err != nil {
		t.Fatal(err)
	}
	if left := storeFiles(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestCollectContainers has endpoints of containers that are there, destroyed, made anew, and of another boot.
func TestCollectContainers(t *testing.T) {
	leak.Check(t)
	s, dir := testNetworkStore(t), filepath.Join(t.TempDir(), "state")
	cfg, _ := lifeConfig(t)
	made := map[string]*Container{}
	for i, id := range []string{"there", "destroyed", "anew", "boot"} {
		c, err := New(dir, id, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Destroy()
		made[id] = c
		e := &endpoint{Key: fmt.Sprintf("ct%011x", i), StateDir: dir, ID: id, Created: c.created, Names: []string{id}, Network: NetworkState{Bridge: "br", Addresses: prefixes("10.1.0.2/24")}}
		if id == "boot" {
			e.Boot = "another"
		}
		if err := s.addEndpoint(e); err != nil {
			t.Fatal(err)
		}
		if _, err := s.lease("br", netip.MustParsePrefix("10.1.0.0/24"), nil, netip.Addr{}, e.Key); err != nil {
			t.Fatal(err)
		}
	}
	made["destroyed"].Destroy()
	made["anew"].Destroy()
	c, err := New(dir, "anew", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if err := s.collect(); err != nil {
		t.Fatal(err)
	}
	var left []string
	for e, err := range s.endpoints() {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, e.ID)
	}
	if fmt.Sprint(left) != "[there]" {
		t.Errorf("there are %v", left)
	}
	files := storeFiles(t, s)
	for _, name := range []string{"pools/br/10.1.0.1", "endpoints/ct00000000000.d/10.1.0.1", "names/br/there/ct00000000000"} {
		if !slices.Contains(files, name) {
			t.Errorf("there is no %s", name)
		}
	}
	if len(files) != 9 { // the directories of these, the endpoint, the hint
		t.Errorf("there are %q", files)
	}
}

// leaseLife is the life of an endpoint and of a bridge, by a process that may be killed anywhere.
func leaseLife(o crashOrder) error {
	s, err := openNetworkStore(o.Dir + "/networks")
	if err != nil {
		return err
	}
	if o.Again {
		return leaseMany(s)
	}
	if err := s.writeBridge(&Bridge{BridgeConfig: BridgeConfig{Name: "br"}}); err != nil {
		return err
	}
	e := ownEndpoint(os.Getpid())
	if err := s.addEndpoint(e); err != nil {
		return err
	}
	for _, subnet := range prefixes("10.1.0.0/30", "fd00::/126") {
		a, err := s.lease("br", subnet, nil, netip.Addr{}, e.Key)
		if err != nil {
			return err
		}
		e.Network.Addresses = append(e.Network.Addresses, netip.PrefixFrom(a, subnet.Bits()))
	}
	e.Names = []string{"a", "b"}
	if err := s.addEndpoint(e); err != nil {
		return err
	}
	if err := s.release("br", e.Network.Addresses[0].Addr().String(), e.Key); err != nil {
		return err
	}
	if err := s.removeEndpoint(e.Key); err != nil {
		return err
	}
	return s.removeBridge("br")
}

// leaseMany leases one address after another until it is killed, and tells of each.
func leaseMany(s *networkStore) error {
	for i := 0; ; i++ {
		e := ownEndpoint(os.Getpid()<<20 + i)
		if err := s.addEndpoint(e); err != nil {
			return err
		}
		a, err := s.lease("br", netip.MustParsePrefix("10.1.0.0/24"), nil, netip.Addr{}, e.Key)
		if err != nil {
			return err
		}
		fmt.Println("leased", a, e.Key, leaseNow())
		if i%2 == 0 {
			fmt.Println("frees", a, e.Key, leaseNow())
			if err := s.removeEndpoint(e.Key); err != nil {
				return err
			}
		}
	}
}

// TestLeaseCrash kills a caller at each point. The next one gets the only addresses of a pool, and collect leaves nothing.
func TestLeaseCrash(t *testing.T) {
	leak.Check(t)
	was := writingTime
	writingTime = 0
	defer func() { writingTime = was }()
	life := crashOrder{Life: "lease", Dir: filepath.Join(t.TempDir(), "dry")}
	points := life.points(t)
	t.Logf("%d points: %v", len(points), points)
	crashAt(t, life, points, func(t *testing.T, o crashOrder) time.Duration {
		s, err := openNetworkStore(o.Dir + "/networks")
		if err != nil {
			t.Fatal(err)
		}
		crashWait()
		keys := []string{}
		for i := range 2 { // all that the pools have
			e := ownEndpoint(i)
			keys = append(keys, e.Key)
			if err := s.addEndpoint(e); err != nil {
				t.Fatal(err)
			}
			for _, subnet := range prefixes("10.1.0.0/30", "fd00::/126") {
				if _, err := s.lease("br", subnet, nil, netip.Addr{}, e.Key); err != nil {
					t.Error(err)
				}
			}
		}
		for _, key := range keys {
			if err := s.removeEndpoint(key); err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(s.collect(), s.removeBridge("br")); err != nil {
			t.Error(err)
		}
		if left := storeFiles(t, s); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		os.RemoveAll(s.dir) // the next one makes it
		return 0
	})
}

// A leaseSpan is a time during which an address was certainly leased, in nanoseconds.
type leaseSpan struct {
	addr, key string
	from, to  int64
}

// leaseNow is the time, for all processes.
func leaseNow() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// TestLeaseProcesses has processes lease from one pool that are killed now and then. No address is ever two's.
func TestLeaseProcesses(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	s := testNetworkStore(t)
	var mu sync.Mutex
	var spans []leaseSpan
	churn(24, 6, func(i int) {
		cmd, out := crashOrder{Life: "lease", Dir: filepath.Dir(s.dir), Again: true}.command(t)
		cmd.Stdout = nil
		pipe, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Error(err)
			return
		}
		mine := map[string]leaseSpan{}
		n, killed := 0, int64(0)
		for lines := bufio.NewScanner(pipe); lines.Scan(); { // to the end: what has been freed must be known
			var what string
			var l leaseSpan
			if _, err := fmt.Sscan(lines.Text(), &what, &l.addr, &l.key, &l.from); err != nil {
				continue // "ready"
			}
			if what == "frees" {
				if old, known := mine[l.key]; known {
					old.to = l.from
					mine[l.key] = old
				}
			} else if killed == 0 || l.from < killed {
				mine[l.key] = l
			}
			if n++; n == 20*(i%3+1) {
				killed = leaseNow() // what it has leased may be another's as soon as it is dead
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if out.Len() > 0 || killed == 0 {
			t.Errorf("it has ended by itself: %s", out)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, l := range mine {
			if l.to == 0 {
				l.to = killed
			}
			spans = append(spans, l)
		}
	})
	slices.SortFunc(spans, func(a, b leaseSpan) int { return cmp.Or(strings.Compare(a.addr, b.addr), cmp.Compare(a.from, b.from)) })
	for i := range spans {
		if i > 0 && spans[i].addr == spans[i-1].addr && spans[i].from < spans[i-1].to {
			t.Errorf("%s is leased to %s and %s", spans[i].addr, spans[i-1].key, spans[i].key)
		}
	}
	t.Logf("%d leases", len(spans))
	crashWait()
	if err := s.collect(); err != nil {
		t.Error(err)
	}
	lock, err := s.lockBridge("br")
	if err == nil {
		err = s.removeBridge("br")
		lock.Close()
	}
	if err != nil {
		t.Error(err)
	}
	if left := slices.DeleteFunc(storeFiles(t, s), func(name string) bool { return strings.Contains(name, temporaryPrefix) }); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestLeaseThousands compares leases where there are few with those where there are thousands: they cost the same.
func TestLeaseThousands(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "") // in memory, as /run is
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	few, err := openNetworkStore(dir + "/few")
	if err != nil {
		t.Fatal(err)
	}
	many, err := openNetworkStore(dir + "/many")
	if err != nil {
		t.Fatal(err)
	}
	subnets := prefixes("10.0.0.0/16", "fd00::/64")
	add := func(s *networkStore, i int) time.Duration {
		t.Helper()
		began := time.Now()
		e := ownEndpoint(i)
		e.Names = []string{e.Key, "all"}
		if err := s.addEndpoint(e); err != nil {
			t.Fatal(err)
		}
		for _, subnet := range subnets {
			if _, err := s.lease("br", subnet, nil, netip.Addr{}, e.Key); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(began)
	}
	remove := func(s *networkStore, i int) {
		t.Helper()
		if err := s.removeEndpoint(ownEndpoint(i).Key); err != nil {
			t.Fatal(err)
		}
	}
	const n, rounds = 2000, 250
	for i := range n {
		add(many, i)
	}
	var first, last []time.Duration
	for i := range rounds { // in turn, so that what else the machine does hits both alike
		first = append(first, add(few, i))
		remove(few, i)
		last = append(last, add(many, n+i))
	}
	began := time.Now()
	for i := range n + rounds {
		remove(many, i)
	}
	one, thousandth := median(first), median(last)
	t.Logf("adding with two leases: %v, after %d %v; removing: %v", one, n, thousandth, time.Since(began)/(n+rounds))
	if thousandth > 3*one+time.Millisecond {
		t.Error("it becomes slow")
	}
}
