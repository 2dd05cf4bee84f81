//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// needSystemd needs the manager that makes the caller's scopes: the system's for root, else the user's.
func needSystemd(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		testenv.Need(t, testenv.SystemdRoot)
	} else {
		testenv.Need(t, testenv.SystemdUser)
	}
}

// systemdPlace is a place in a scope, removed after the test.
func systemdPlace(t *testing.T) cgroupPlace {
	t.Helper()
	needSystemd(t)
	p, err := (&CgroupConfig{Manager: CgroupSystemd}).place(strings.ReplaceAll(t.Name(), "/", "+"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.release(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// gone tells whether systemd knows the unit no longer, waiting a moment.
func gone(t *testing.T, p cgroupPlace) bool {
	t.Helper()
	s, err := dialSystemd(context.Background(), p.User)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := s.call(context.Background(), "GetUnit", p.Unit).Err
		if isBusError(err, "NoSuchUnit") {
			return true
		}
		if err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// keepers are the processes called so.
func keepers(t *testing.T) (pids []int) {
	t.Helper()
	all, err := procEntries()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid)); string(comm) == keeperName+"\n" {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// makeContainer makes the container's cgroup in a prepared place.
func makeContainer(t *testing.T, tree cgroupTree, p *cgroupPlace) *Cgroup {
	t.Helper()
	if err := os.Mkdir(tree.dir(p.path()), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := tree.open(p.path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return &Cgroup{dir: dir, path: p.path()}
}

// A scope is made, a cgroup in it gets controllers, and all is gone after release.
func TestSystemdScope(t *testing.T) {
	p := systemdPlace(t)
	ctx := context.Background()
	began := time.Now()
	if err := p.prepare(ctx, t.TempDir(), time.Second); err != nil {
		t.Fatal(err)
	}
	t.Logf("prepare: %v", time.Since(began))
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	slice := map[bool]string{true: "user.slice", false: "system.slice"}[p.User]
	if path.Base(p.Parent) != p.Unit || path.Base(path.Dir(p.Parent)) != slice || p.Top != p.Parent || p.Name != "container" || p.Shared {
		t.Errorf("%+v", p)
	}
	if in := procsOf(t, tree.dir(p.Parent)); len(in) > 0 {
		t.Errorf("in the scope itself: %v", in)
	}
	if in := procsOf(t, tree.dir(p.Parent)+"/keeper"); !slices.Equal(in, []string{strconv.Itoa(p.Keeper.Pid)}) {
		t.Errorf("the keeper is %d; there is %v", p.Keeper.Pid, in)
	}
	if err := p.enable([]string{"cpu", "memory", "pids"}); err != nil {
		t.Fatal(err)
	}
	c := makeContainer(t, tree, &p)
	for name, text := range map[string]string{"memory.max": "10485760\n", "pids.max": "17\n", "cpu.max": "50000 100000\n"} {
		if err := c.writeFile(name, text); err != nil {
			t.Error(err)
		}
	}
	limits := func() (text string) {
		for _, name := range []string{"memory.max", "pids.max", "cpu.max"} {
			got, err := c.readFile(name)
			if err != nil {
				t.Error(err)
			}
			text += got
		}
		above, err := os.ReadFile(tree.dir(p.Parent) + "/pids.max")
		if err != nil {
			t.Error(err)
		}
		return text + string(above)
	}
	const want = "10485760\n17\n50000 100000\nmax\n"
	if got := limits(); got != want {
		t.Errorf("limits: %q", got)
	}

	// What systemd does to its own cgroups leaves ours alone.
	s, err := dialSystemd(ctx, p.User)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.call(ctx, "Reload").Err; err != nil {
		t.Fatal(err)
	}
	if err := s.call(ctx, "SetUnitProperties", p.Unit, true, []unitProperty{}).Err; err != nil {
		t.Error(err)
	}
	if got := limits(); got != want {
		t.Errorf("limits after daemon-reload: %q", got)
	}

	// The name is taken; the second one leaves nothing.
	before := keepers(t)
	again := p
	again.Parent, again.Keeper = "", processID{}
	var e *Error
	err = again.prepare(ctx, t.TempDir(), time.Second)
	if !errors.Is(err, fs.ErrExist) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "stop "+p.Unit) {
		t.Errorf("again: %v", err)
	}
	for deadline := time.Now().Add(time.Minute); !slices.Equal(keepers(t), before); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("keepers: %v, before %v", keepers(t), before)
		}
	}

	began = time.Now()
	if err := p.release(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("release: %v", time.Since(began))
	if _, err := os.Stat(tree.dir(p.Parent)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scope's cgroup: %v", err)
	}
	if !gone(t, p) {
		t.Error("the unit is still there")
	}
	if ended, _ := (procEntry{pid: p.Keeper.Pid, start: p.Keeper.StartTime}).wait(0); !ended {
		t.Error("the keeper is still there")
	}
}

// A process gets into the cgroup by birth where the kernel lets it, and by systemd where it does not.
func TestSystemdBirth(t *testing.T) {
	p := systemdPlace(t)
	ctx := context.Background()
	if err := p.prepare(ctx, t.TempDir(), time.Second); err != nil {
		t.Fatal(err)
	}
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	c := makeContainer(t, tree, &p)
	if err := os.Mkdir(tree.dir(p.path())+"/jobs", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Logf("the caller is in %s; can bear: %v", cgroupOf(os.Getpid()), p.canBear())
	born := exec.Command("/bin/sleep", "100")
	born.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.dir.Fd())}
	err = born.Start()
	if p.canBear() != (err == nil) || err != nil && !errors.Is(err, unix.EACCES) {
		t.Errorf("born: %v", err)
	}
	if err == nil {
		if got := cgroupOf(born.Process.Pid); got != p.path() {
			t.Errorf("born in %s", got)
		}
		born.Process.Kill()
		born.Wait()
	}
	for _, below := range []string{"", "jobs"} {
		cmd := exec.Command("/bin/sleep", "100")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := p.attach(ctx, cmd.Process.Pid, below); err != nil {
			t.Error(err)
		}
		t.Logf("attach: %v", time.Since(began))
		if got := cgroupOf(cmd.Process.Pid); got != path.Join(p.path(), below) {
			t.Errorf("moved to %s", got)
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	if err := p.attach(ctx, os.Getpid(), "missing"); err == nil {
		t.Error("moved to a cgroup that is not there")
	}
}

// Systemctl stop ends the container, also one that does not listen; release then has nothing to do.
func TestSystemdStop(t *testing.T) {
	p := systemdPlace(t)
	ctx := context.Background()
	if err := p.prepare(ctx, t.TempDir(), time.Second); err != nil {
		t.Fatal(err)
	}
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	makeContainer(t, tree, &p)
	deaf := exec.Command("/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done")
	if err := deaf.Start(); err != nil {
		t.Fatal(err)
	}
	defer deaf.Process.Kill()
	if err := p.attach(ctx, deaf.Process.Pid, ""); err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(p.systemctl())
	began := time.Now()
	if out, err := exec.Command(args[0], append(args[1:], "stop", p.Unit)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	deaf.Wait()
	if !gone(t, p) {
		t.Error("the unit is still there")
	}
	if _, err := os.Stat(tree.dir(p.Parent)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the scope's cgroup: %v", err)
	}
	if err := p.release(ctx); err != nil {
		t.Error(err)
	}
}

// A container that ends does not take its cgroup with it: the keeper stays.
func TestSystemdStays(t *testing.T) {
	p := systemdPlace(t)
	ctx := context.Background()
	if err := p.prepare(ctx, t.TempDir(), time.Second); err != nil {
		t.Fatal(err)
	}
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	c := makeContainer(t, tree, &p)
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := p.attach(ctx, cmd.Process.Pid, ""); err != nil {
		t.Fatal(err)
	}
	in.Close()
	cmd.Wait()
	time.Sleep(time.Second)
	if _, err := c.readFile("cgroup.events"); err != nil {
		t.Error(err)
	}
}

// Whoever is killed while a scope is made leaves an intent, by which another process removes all of it; and the keeper ends
// by itself before it has been told to stay.
func TestSystemdCrash(t *testing.T) {
	if point := os.Getenv(placeStage); point != "" {
		at = func(p string) {
			if p == point {
				unix.Kill(os.Getpid(), unix.SIGKILL)
			}
		}
		p := cgroupPlace{Manager: CgroupSystemd, Name: scopeChild, Unit: os.Getenv("CONTAINER_TEST_UNIT"), Slice: "user.slice", User: os.Geteuid() != 0}
		t.Error(p.prepare(context.Background(), "/", time.Second))
		return
	}
	for _, point := range []string{"scope: keeper", "scope: made", "scope: keeper moved", "scope: keeper stays"} {
		p := systemdPlace(t)
		before := keepers(t)
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), placeStage+"="+point, "CONTAINER_TEST_UNIT="+p.Unit, "CONTAINER_PURE_DIR=-")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
			t.Fatalf("%s: %v\n%s", point, err, out)
		}
		if point == "scope: keeper stays" {
			if slices.Equal(keepers(t), before) {
				t.Errorf("%s: it does not", point)
			}
			if err := p.release(context.Background()); err != nil {
				t.Errorf("%s: %v", point, err)
			}
		}
		if !gone(t, p) {
			t.Errorf("%s: the unit is still there", point)
		}
		for deadline := time.Now().Add(time.Minute); !slices.Equal(keepers(t), before); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: keepers: %v, before %v", point, keepers(t), before)
			}
		}
		if err := p.release(context.Background()); err != nil {
			t.Errorf("%s: %v", point, err)
		}
	}
}

// A context that ends leaves nothing.
func TestSystemdCancel(t *testing.T) {
	p := systemdPlace(t)
	before := keepers(t)
	for _, d := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		q := p
		err := q.prepare(ctx, t.TempDir(), time.Second)
		cancel()
		if err == nil {
			if err := q.release(context.Background()); err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: %v", d, err)
		}
		if !gone(t, p) {
			t.Errorf("%v: the unit is still there", d)
		}
	}
	for deadline := time.Now().Add(time.Minute); !slices.Equal(keepers(t), before); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("keepers: %v, before %v", keepers(t), before)
		}
	}
}

// The caller's own scope is used if systemd has delegated it, and only then; also by the second container.
func TestSystemdOwnScope(t *testing.T) {
	if kind := os.Getenv(placeStage); kind != "" {
		own := cgroupOf(os.Getpid())
		for range 2 {
			began := time.Now()
			p, err := (*CgroupConfig)(nil).place("demo", "/x")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("place: %v", time.Since(began))
			if given := kind == "Delegate=yes"; given != (p.Parent == own) || given != p.Shared {
				t.Fatalf("in %s, %s: %+v", own, kind, p)
			}
			if kind != "Delegate=yes" {
				return
			}
			if err := p.prepare(context.Background(), "", 0); err != nil {
				t.Fatal(err)
			}
			if err := p.enable([]string{"memory", "pids"}); err != nil {
				t.Fatal(err)
			}
			if got := cgroupOf(os.Getpid()); got != own+"/"+callersLeaf {
				t.Errorf("the caller is in %s", got)
			}
			if err := p.enable([]string{"hugetlb"}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "hugetlb") {
				t.Errorf("not delegated: %v", err)
			} else {
				t.Log(err)
			}
		}
		return
	}
	needSystemd(t)
	testenv.Need(t, testenv.Program("systemd-run", "systemd"))
	for _, kind := range []string{"Delegate=yes", "Delegate=no"} {
		args := []string{"systemd-run", "--scope", "--quiet", "-p", kind, "--"}
		if os.Geteuid() != 0 {
			args = slices.Insert(args, 1, "--user")
		}
		t.Log(runStage(t, kind, args, nil))
	}
}
