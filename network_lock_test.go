//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file stops a process that holds a lock that others wait for.

// lockLife holds a lock until it is killed.
func lockLife(o crashOrder) error {
	f, err := os.OpenFile(o.Dir, os.O_RDONLY, 0)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		time.Sleep(time.Hour)
	}
}

// holdLock has another process hold a lock, and be stopped.
func holdLock(t testing.TB, path string) (pid int, end func()) {
	t.Helper()
	if f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600); err == nil { // a directory is there
		f.Close()
	}
	cmd, _ := crashOrder{Life: "lock", Dir: path}.command(t)
	cmd.Stdout, cmd.Stderr = nil, os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	return cmd.Process.Pid, end
}

// cancelLocked is a context that is done as soon as somebody waits for a lock.
func cancelLocked(t testing.TB, path string) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	before := atLocked
	atLocked = func(p string) {
		if p == path {
			cancel()
		}
	}
	return ctx, func() { cancel(); atLocked = before }
}

// wantLocked demands that an error says who holds a lock.
func wantLocked(t testing.TB, err error, path string, pid int) {
	t.Helper()
	var e *Error
	if !errors.Is(err, ErrLocked) || !errors.As(err, &e) {
		t.Errorf("%v", err)
		return
	}
	for _, want := range []string{path + ":", fmt.Sprintf("process %d holds it", pid), "is stopped"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
}

// Whoever waits for a lock of a stopped process is called off by the context; nothing is lost, and all goes on when the lock is free.
func TestNetworkLockedForEver(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		defer func(p, h context.Context) { patiently, hastily = p, h }(patiently, hastily)
		patiently = patience{context.Background(), 400 * time.Millisecond}
		hastily = patience{context.Background(), 20 * time.Millisecond}
		cfg := netConfig(t)
		cfg.Network.PortMappings = []PortMapping{{ContainerPort: 80}}
		dir, peer := cfg.Network.StateDir, netPeer(t)
		name := DefaultBridgeName
		var late []*Container // what could not be destroyed yet
		does := map[string]func(ctx context.Context) error{
			"EnsureBridge": func(ctx context.Context) error {
				_, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir})
				return err
			},
			"EnsureBridge, another": func(ctx context.Context) error {
				_, err := EnsureBridge(ctx, BridgeConfig{StateDir: dir, Name: "other", Internal: true, Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}})
				return errors.Join(err, RemoveBridge(ctx, dir, "other"))
			},
			"RemoveBridge": func(ctx context.Context) error { return RemoveBridge(ctx, dir, name) },
			"Reconcile":    func(ctx context.Context) error { return Reconcile(ctx, dir) },
			"Run": func(ctx context.Context) error {
				c := lifeNew(t, cfg)
				err := c.Run(ctx, lifeSh("sleep 1000"))
				derr := c.Destroy()
				if errors.Is(derr, ErrLocked) {
					late, derr = append(late, c), nil
				}
				return errors.Join(err, derr)
			},
			"SetupContainerNetwork": func(ctx context.Context) error {
				n, err := SetupContainerNetwork(ctx, peer, *cfg.Network)
				if err == nil {
					err = n.Cleanup()
				}
				return err
			},
		}
		locks := map[string]string{ // and who must wait for it
			"bridges/" + escapeRef(name) + ".lock": "EnsureBridge RemoveBridge Run SetupContainerNetwork",
			"bridges/all.lock":                     "EnsureBridge RemoveBridge",
			"nat.lock":                             "Reconcile Run SetupContainerNetwork",
			"nat.gate":                             "Reconcile Run SetupContainerNetwork",
			"ports/lock":                           "Run SetupContainerNetwork",
			"collect":                              "Reconcile RemoveBridge",
			"pools/" + escapeRef(name) + "/4":      "Run SetupContainerNetwork",
		}
		for lock, who := range locks {
			t.Run(lock, func(t *testing.T) {
				if err := does["SetupContainerNetwork"](t.Context()); err != nil { // all files are there
					t.Fatal(err)
				}
				path := filepath.Join(dir, lock)
				pid, end := holdLock(t, path)
				for what, do := range does {
					if !strings.Contains(" "+who+" ", " "+what+" ") {
						continue
					}
					ctx, cancel := cancelLocked(t, path)
					begin := time.Now()
					err := do(ctx)
					cancel()
					if took := time.Since(begin); took > 30*time.Second {
						t.Errorf("%s took %v", what, took)
					}
					if !errors.Is(err, context.Canceled) {
						t.Errorf("%s: %v", what, err)
					}
					wantLocked(t, err, path, pid)
				}
				end()
				lockedAgain(t, path)
				for _, c := range late {
					if err := c.Destroy(); err != nil {
						t.Error(err)
					}
				}
				late = nil
				if err := Reconcile(t.Context(), dir); err != nil {
					t.Error(err)
				}
				netNothing(t, dir)
				for what, do := range does {
					if err := do(t.Context()); err != nil {
						t.Errorf("%s, when the lock is free: %v", what, err)
					}
				}
			})
		}

		// Without a context the patience is bounded, and calling again goes on.
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		path := filepath.Join(dir, "nat.lock")
		pid, end := holdLock(t, path)
		for range 2 {
			wantLocked(t, c.Destroy(), path, pid)
			if _, err := c.State(); err != nil {
				t.Error(err)
			}
		}
		end()
		lockedAgain(t, path)
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		netNothing(t, dir)
	})
}

// lockedAgain has a lock for a moment, after all who have given up waiting for it: one of them waits in the kernel until it has it.
func lockedAgain(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err == nil {
		err = flockUntil(t.Context(), int(f.Fd()), path, unix.LOCK_EX)
		f.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

// The lock of a container's record is waited for until the context is done, too.
func TestRecordLockedForEver(t *testing.T) {
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	pid, end := holdLock(t, c.record.dir)
	for what, do := range map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error { return c.Create(ctx, lifeSh("true")) },
		"Run":    func(ctx context.Context) error { return c.Run(ctx, lifeSh("true")) },
		"Start":  func(ctx context.Context) error { return c.Start(ctx) },
	} {
		ctx, cancel := cancelLocked(t, c.record.dir)
		err := do(ctx)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
		wantLocked(t, err, c.record.dir, pid)
	}
	end()
	if err := errors.Join(c.Create(t.Context(), lifeSh("true")), c.Start(t.Context())); err != nil {
		t.Error(err)
	}
}

// Who waits for a record has his turn, though another process takes it again and again.
func TestRecordLockTurns(t *testing.T) {
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	const many = 5000 // half a minute: who is woken may be too late for any one of them
	for what, ctx := range map[string]context.Context{"without end": context.Background(), "with one": t.Context()} {
		other, err := os.Open(c.record.dir)
		if err != nil {
			t.Fatal(err)
		}
		var turns atomic.Int32
		locked, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for turns.Add(1) <= many {
				if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
					t.Error(err)
				}
				if turns.Load() == 1 {
					close(locked)
				}
				time.Sleep(5 * time.Millisecond)
				unix.Flock(int(other.Fd()), unix.LOCK_UN)
			}
		}()
		<-locked
		lock, err := c.record.lockUntil(ctx)
		before := turns.Load()
		if err != nil {
			t.Fatal(err)
		}
		lock.Close()
		turns.Add(many)
		<-done
		other.Close()
		if before > many {
			t.Errorf("%s: no turn until the other was done", what)
		}
	}
}

// Who loads a container that is being made has it once it is there, however long the caller keeps the lock: there may be no moment
// without it from New to the end of Destroy.
func TestLoadOfLocked(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	state, aside := c.record.path("state.json"), filepath.Join(t.TempDir(), "state.json")
	if err := os.Rename(state, aside); err != nil {
		t.Fatal(err)
	}
	_, end := holdLock(t, c.record.dir)
	defer end()
	loaded := make(chan error, 1)
	go func() {
		_, err := Load(filepath.Split(c.record.dir))
		loaded <- err
	}()
	select {
	case err := <-loaded:
		t.Errorf("of a container that is being made: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := os.Rename(aside, state); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-loaded:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it waits for the lock")
		end()
		<-loaded
	}
}

// However many have waited in vain, what is left of them is one thread and one descriptor, until the lock is free.
func TestLockGivenUp(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	_, end := holdLock(t, c.record.dir)
	count := func(dir string) int {
		list, err := os.ReadDir("/proc/self/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	descriptors, threads := count("fd"), count("task")
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		_, err := c.record.lockUntil(ctx)
		cancel()
		if !errors.Is(err, ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if n := count("fd"); n > descriptors+1 {
		t.Errorf("%d descriptors, %d before", n, descriptors)
	}
	if n := count("task"); n > threads+8 { // the runtime's own come and go
		t.Errorf("%d threads, %d before", n, threads)
	}
	end()
	lock, err := c.record.lockUntil(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
}

// One who wants the lock of the rules alone gets it, however many share it all the time.
func TestRulesLockAlone(t *testing.T) {
	s := testNetworkStore(t)
	ctx, stop := context.WithCancel(t.Context())
	const sharers = 8
	done, shares := make(chan error), make(chan bool, sharers)
	for range sharers {
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				n, err := openNAT(s, unix.LOCK_SH)
				if err != nil {
					done <- err
					return
				}
				if i == 0 {
					shares <- true
				}
				time.Sleep(3 * time.Millisecond)
				n.close()
			}
			done <- nil
		}()
	}
	for range sharers {
		<-shares
	}
	for i := range 20 {
		short, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		how := unix.LOCK_EX
		if i%2 == 0 {
			how = unix.LOCK_SH
		}
		n, err := openNAT(s.during(short), how)
		if err == nil {
			err = n.again(unix.LOCK_EX)
			n.close()
		}
		cancel()
		if err != nil {
			t.Error(i, err)
			break
		}
	}
	stop()
	for range sharers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Who waits with a context has his turn like those that wait without, however many come again at once; and who wants another file of the same name waits for nobody.
func TestNetworkLockTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	ctx, stop := context.WithCancel(t.Context())
	const others, rounds = 8, 10
	done, first := make(chan error), make(chan bool, others)
	var turns atomic.Int64 // of the others
	for range others {
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				lock, err := lockPath(context.Background(), path)
				if err != nil {
					done <- err
					return
				}
				if i == 0 {
					first <- true
				}
				turns.Add(1)
				time.Sleep(3 * time.Millisecond)
				lock.Close()
			}
			done <- nil
		}()
	}
	for range others {
		<-first
	}
	// How many come before somebody is a matter of how fast who is woken gets a processor; so it is compared.
	with, without := int64(0), int64(0)
	for range rounds {
		for _, row := range []struct {
			ctx context.Context
			sum *int64
		}{{patience{context.Background(), time.Minute}, &with}, {context.Background(), &without}} {
			before := turns.Load()
			lock, err := lockPath(row.ctx, path)
			if err != nil {
				t.Fatal(err)
			}
			*row.sum += turns.Load() - before
			lock.Close()
			time.Sleep(5 * time.Millisecond) // another has it meanwhile
		}
	}
	if t.Logf("%d others have been before in %d times, without a context %d", with, rounds, without); with > 5*without+5*others*rounds {
		t.Errorf("%d others have been before in %d times, and without a context %d", with, rounds, without)
	}
	stop()
	for range others {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}

	_, end := holdLock(t, path)
	waits := make(chan bool)
	before := atLocked
	defer func() { atLocked = before }()
	atLocked = func(string) {
		select {
		case waits <- true:
		default:
		}
	}
	go func() {
		lock, err := lockPath(t.Context(), path)
		if err == nil {
			lock.Close()
		}
		done <- err
	}()
	<-waits
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	lock, err := lockPath(patience{context.Background(), time.Minute}, path)
	if err != nil {
		t.Error(err)
	} else {
		lock.Close()
	}
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A start that has waited too long can be tried again with the same container, when the lock is free.
func TestNetworkLockedTwice(t *testing.T) {
	inHostNetwork(t, func(t *testing.T) {
		cfg := netConfig(t)
		cfg.Network.PortMappings = []PortMapping{{ContainerPort: 80}}
		lifeStart(t, cfg, lifeSh("true")).Destroy() // all files are there
		c := lifeNew(t, cfg)
		path := filepath.Join(cfg.Network.StateDir, "nat.lock")
		pid, end := holdLock(t, path)
		for range 2 {
			var err error
			for wait := 300 * time.Millisecond; wait < time.Minute && !errors.Is(err, ErrLocked); wait *= 8 { // on a busy machine it may not come so far
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				err = c.Run(ctx, lifeSh("true"))
				cancel()
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			wantLocked(t, err, path, pid)
			if st, err := c.State(); err != nil || st.Status != StatusCreating || st.Pid != 0 {
				t.Errorf("%+v, %v", st, err)
			}
		}
		end()
		p := lifeSh("ip addr show eth0")
		if err := c.Run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := lifeWait(t, p.Wait); err != nil {
			t.Error(err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		netNothing(t, cfg.Network.StateDir)
	})
}
