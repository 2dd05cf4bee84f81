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
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// testTree is the tree, and the path of a new cgroup in it for this test, right below its root.
func testTree(t *testing.T) (tree cgroupTree, cgroup string) {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Cgroup)
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	cgroup = path.Join(tree.top(), fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), os.Getpid()))
	if err := os.Mkdir(tree.dir(cgroup), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTestCgroups(t, tree.dir(cgroup)) })
	return tree, cgroup
}

// dir is a cgroup as a directory.
func (t cgroupTree) dir(cgroup string) string {
	return t.mount + strings.TrimPrefix(cgroup, t.root)
}

// removeTestCgroups ends what is in a cgroup and removes it.
func removeTestCgroups(t *testing.T, dir string) {
	t.Helper()
	os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeTestCgroups(t, dir+"/"+e.Name())
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%v", err)
			return
		}
	}
}

// inCgroup starts a program in a cgroup, and ends it with the test.
func inCgroup(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd()), Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func procsOf(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// Parents are made and stay; what has been made is removed when one cannot be made.
func TestCgroupPlaceParents(t *testing.T) {
	tree, top := testTree(t)
	ctx := context.Background()
	p := cgroupPlace{Manager: CgroupFS, Parent: top + "/a/b", Name: "x"}
	for range 2 {
		if err := p.prepare(ctx, t.TempDir(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.release(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tree.dir(top + "/a/b/cgroup.procs")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(tree.dir(top)+"/cgroup.max.depth", []byte("3"), 0); err != nil {
		t.Fatal(err)
	}
	p.Parent = top + "/1/2/3/4"
	var e *Error
	err := p.prepare(ctx, t.TempDir(), 0)
	if !errors.As(err, &e) || !errors.Is(err, unix.EAGAIN) || !strings.Contains(e.Remedy, "cgroup.max.depth") || e.Path != top+"/1/2/3/4" {
		t.Errorf("too deep: %v", err)
	}
	if _, err := os.Stat(tree.dir(top + "/1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	// A link or another file system on the way is not followed, and a file of the kernel's is no parent.
	for _, parent := range []string{top + "/cgroup.procs/x", top + "/../x", "relative"} {
		if err := tree.makeParents(parent); err == nil {
			t.Errorf("%s was made", parent)
		}
	}
}

// Of several that make room at the same time, with processes that fork and end, all succeed.
func TestCgroupPlaceRoom(t *testing.T) {
	tree, top := testTree(t)
	dir := tree.dir(top)
	var forker []*exec.Cmd
	for range 3 {
		forker = append(forker, inCgroup(t, dir, "/bin/sh", "-c", "while :; do sleep 0.01 & (exit 0) ; wait; done"))
	}
	other := inCgroup(t, dir, "/bin/sleep", "100")
	inCgroup(t, dir, "/bin/true") // a zombie
	time.Sleep(50 * time.Millisecond)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = tree.makeRoom(top) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if left := procsOf(t, dir); len(left) > 0 {
		t.Errorf("%v are still there", left)
	}
	in := procsOf(t, dir+"/"+callersLeaf)
	for _, cmd := range append(forker, other) {
		if !slices.Contains(in, strconv.Itoa(cmd.Process.Pid)) {
			t.Errorf("%v is not in %s: %v", cmd.Args, callersLeaf, in)
		}
	}
}

// A process that the caller cannot name cannot be moved, and a cgroup with threaded children never gets empty.
func TestCgroupPlaceRoomRefused(t *testing.T) {
	if top := os.Getenv(placeStage); top != "" {
		tree, err := findCgroupTree()
		if err != nil {
			t.Fatal(err)
		}
		var e *Error
		if err := tree.makeRoom(top); !errors.As(err, &e) || !strings.Contains(err.Error(), "process 0 ") || e.Remedy == "" {
			t.Errorf("of another PID namespace: %v", err)
		}
		return
	}
	tree, top := testTree(t)
	dir := tree.dir(top)
	inCgroup(t, dir, "/bin/sleep", "100")
	runStage(t, top, nil, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	})
	leaf := dir + "/" + callersLeaf
	if err := os.WriteFile(leaf+"/cgroup.type", []byte("threaded"), 0); err != nil {
		t.Fatal(err)
	}
	if err := tree.makeRoom(top); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "threaded") {
		t.Errorf("threaded: %v", err)
	}
}

// The keeper ends with who has started it, until it is told to stay; then it ends by SIGTERM, which is how
// systemd stops a scope, and by nothing less.
func TestCgroupPlaceKeeper(t *testing.T) {
	dir := t.TempDir()
	k, err := startKeeper(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := procEntry{pid: k.id.Pid, start: k.id.StartTime}
	k.release()
	if ended, err := p.wait(30 * time.Second); err != nil || !ended {
		t.Errorf("released: %v, %v", ended, err)
	}

	for _, how := range []func(procEntry) error{
		func(p procEntry) error { return p.signal(unix.SIGTERM) },
		func(p procEntry) error { return killKeeper(processID{p.pid, p.start}) },
	} {
		if k, err = startKeeper(dir); err != nil {
			t.Fatal(err)
		}
		p = procEntry{pid: k.id.Pid, start: k.id.StartTime}
		err := k.stay()
		k.release()
		for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGPIPE} {
			err = errors.Join(err, p.signal(sig))
		}
		if ended, werr := p.wait(100 * time.Millisecond); err != nil || werr != nil || ended {
			t.Errorf("stays: %v, %v, %v", ended, err, werr)
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.pid))
			if err == nil && len(fds) == 0 && string(comm) == keeperName+"\n" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("it holds %v, and is called %q: %v", fds, comm, err)
			}
		}
		if err := killKeeper(processID{p.pid, p.start + 1}); err != nil {
			t.Error(err)
		}
		if ended, _ := p.wait(0); ended {
			t.Error("killed by another's number")
		}
		if err := how(p); err != nil {
			t.Error(err)
		}
		if ended, err := p.wait(30 * time.Second); err != nil || !ended {
			t.Errorf("it lives on: %v", err)
		}
		if err := killKeeper(processID{p.pid, p.start}); err != nil {
			t.Error(err)
		}
	}
	if err := killKeeper(processID{os.Getpid(), 0}); err != nil {
		t.Error(err)
	}
}

const placeStage = "CONTAINER_TEST_PLACE"

// runStage runs the calling test again, in a process that is prepared by prepare, and returns its output.
func runStage(t *testing.T, name string, args []string, prepare func(*exec.Cmd)) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	if len(args) > 0 {
		exe, err := os.Readlink("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(args[0], append(args[1:], exe)...)
	}
	cmd.Args = append(cmd.Args, "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(os.Environ(), placeStage+"="+name, "CONTAINER_PURE_DIR=-", "TMPDIR=/tmp")
	cmd.Dir = "/"
	if prepare != nil {
		prepare(cmd)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: ") {
		t.Fatalf("stage %s: %v\n%s", name, err, out)
	}
	return string(out)
}

// A user to whom root has given a cgroup starts containers in it: the caller makes room when the first controllers are enabled, and
// the second container finds the same place.
func TestCgroupPlaceGiven(t *testing.T) {
	if os.Getenv(placeStage) != "" {
		inGiven(t)
		return
	}
	tree, top := testTree(t)
	given := top + "/given"
	dir := tree.dir(given)
	controllers := []string{"hugetlb", "memory", "pids"}
	words, _ := os.ReadFile(tree.dir(top) + "/cgroup.controllers")
	for _, name := range controllers {
		if slices.Contains(strings.Fields(string(words)), name) {
			if err := enableControllers(tree, top, []string{name}); err != nil {
				t.Fatal(err)
			}
		}
	}
	const uid = 31337
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadFile("/sys/kernel/cgroup/delegate")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{"."}, strings.Fields(string(files))...) {
		if err := os.Chown(dir+"/"+name, uid, uid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if systemdRuns() { // then a cgroup that is only writable is not enough
		if err := unix.Setxattr(dir, "user.delegate", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	other := inCgroup(t, dir, "/bin/sleep", "100")
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	runStage(t, given, nil, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd()), Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	})
	if in := procsOf(t, dir+"/"+callersLeaf); !slices.Equal(in, []string{strconv.Itoa(other.Process.Pid)}) {
		t.Errorf("%s: %v", callersLeaf, in)
	}
}

func inGiven(t *testing.T) {
	given := os.Getenv(placeStage)
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i := range 2 {
		p, err := (*CgroupConfig)(nil).place("demo", fmt.Sprintf("/state/%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if p.Parent != given || !p.Shared || p.Top != given || p.Manager != CgroupFS {
			t.Errorf("%+v", p)
		}
		if err := p.prepare(ctx, "", 0); err != nil {
			t.Fatal(err)
		}
		words, err := os.ReadFile(tree.dir(given) + "/cgroup.controllers")
		if err != nil {
			t.Fatal(err)
		}
		controllers := strings.Fields(string(words))
		if err := p.enable(controllers); err != nil {
			t.Fatal(err)
		}
		if on, _ := os.ReadFile(tree.dir(given) + "/cgroup.subtree_control"); len(strings.Fields(string(on))) != len(controllers) {
			t.Errorf("enabled: %q of %q", on, words)
		}
		if own := cgroupOf(os.Getpid()); len(controllers) > 0 && own != given+"/"+callersLeaf {
			t.Errorf("the caller is in %s", own)
		} else if len(controllers) == 0 {
			if err := tree.makeRoom(given); err != nil {
				t.Fatal(err)
			}
		}
		if !p.canBear() {
			t.Error("no process may be born there")
		}
		dir := tree.dir(p.path())
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := inCgroup(t, dir, "/bin/sleep", "100")
		if got := cgroupOf(cmd.Process.Pid); got != p.path() {
			t.Errorf("born in %s", got)
		}
		cmd.Process.Kill()
		cmd.Wait()
		if err := errors.Join(os.Remove(dir), p.release(ctx)); err != nil {
			t.Error(err)
		}
	}
	var e *Error
	if err := (&cgroupPlace{Manager: CgroupFS, Parent: path.Dir(given) + "/not-mine"}).prepare(ctx, "", 0); !errors.As(err, &e) || !errors.Is(err, fs.ErrPermission) || e.Remedy == "" {
		t.Errorf("above: %v", err)
	}
	if err := enableControllers(tree, path.Dir(given), []string{"no-such"}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("above: %v", err)
	}
}

// What is not there is named, with its file and a remedy.
func TestCgroupPlaceControllers(t *testing.T) {
	tree, top := testTree(t)
	var e *Error
	err := enableControllers(tree, top, []string{"no-such"})
	if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || !strings.Contains(err.Error(), "no-such") || !strings.HasSuffix(e.Path, "/cgroup.controllers") || e.Remedy == "" {
		t.Errorf("%v", err)
	}
	if err := enableControllers(tree, top+"/missing", []string{"memory"}); err == nil {
		t.Error("of a cgroup that is not there")
	}
}

func TestCgroupPlaceControllerFiles(t *testing.T) {
	own := "8:pids:/\n5:cpu,cpuacct:/x\n3:blkio:/\n1:name=systemd:/\n0::/memory\n"
	for name, want := range map[string]bool{"pids": true, "cpu": true, "io": true, "memory": false, "systemd": false, "": false} {
		if got := oldController(strings.NewReader(own), name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	all := "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t0\t1\t1\nmemory\t0\t1\t0\nblkio\t0\t1\t1\nodd\n"
	for name, want := range map[string][2]bool{"cpuset": {false, true}, "memory": {true, true}, "io": {false, true}, "rdma": {false, false}} {
		if disabled, known := parseControllers(strings.NewReader(all), name); [2]bool{disabled, known} != want {
			t.Errorf("%s: %v %v", name, disabled, known)
		}
	}
}

// enableControllers enables from where it is the caller's to do so.
func enableControllers(tree cgroupTree, cgroup string, controllers []string) error {
	f := askPlaceFacts()
	return tree.enable(f.top(f.chain(cgroup)), cgroup, controllers)
}
