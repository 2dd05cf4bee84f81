//go:build linux

package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attaches rules to cgroups, and opens and makes devices there.

// deviceHelperVar holds the order for a process that this test program starts as.
const deviceHelperVar = "CONTAINER_TEST_DEVICES"

func init() {
	order := strings.Fields(os.Getenv(deviceHelperVar))
	if len(order) == 0 {
		return
	}
	err := map[string]func(string) error{"answer": deviceAnswers, "hammer": deviceHammer, "poor": devicePoor, "first": deviceFirst, "set": deviceSet}[order[0]](order[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// deviceAnswers tells for each question whether the kernel denies it. Nodes are made in a directory.
func deviceAnswers(dir string) error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var q deviceQuestion
		fmt.Sscan(lines.Text(), &q.access, &q.kind, &q.major, &q.minor)
		mode := map[rune]uint32{'b': unix.S_IFBLK, 'c': unix.S_IFCHR}[q.typ()]
		node := fmt.Sprintf("%s/%c%d.%d", dir, q.typ(), q.major, q.minor)
		var err error
		switch q.access {
		case deviceMknod:
			if err = unix.Mknod(node+"m", mode|0o600, int(unix.Mkdev(q.major, q.minor))); err == nil {
				os.Remove(node + "m")
			}
		default: // access(2) asks as open(2) does, and does not look for a driver
			err = unix.Access(node, map[deviceAccess]uint32{0: unix.X_OK, deviceRead: unix.R_OK, deviceWrite: unix.W_OK, deviceRead | deviceWrite: unix.R_OK | unix.W_OK}[q.access])
		}
		fmt.Println(err == unix.EPERM)
	}
	return nil
}

// deviceHammer opens a node until its input ends. It says so when it has tried a thousand times.
func deviceHammer(node string) error {
	var tries, opened atomic.Int64
	go func() {
		for {
			if tries.Add(1) == 1000 {
				fmt.Println("often")
			}
			if fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
				opened.Add(1)
				unix.Close(fd)
			}
		}
	}()
	io.Copy(io.Discard, os.Stdin)
	fmt.Println(tries.Load(), opened.Load())
	return nil
}

func deviceSet(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 2 {
		if err := (&Cgroup{dir: f, path: "/x"}).setDevices(DefaultDeviceRules()); err != nil {
			return err
		}
	}
	return nil
}

// devicePoor sets rules without the right to lock memory.
func devicePoor(dir string) error {
	runtime.LockOSThread()
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
		return err
	}
	header, sets := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(header, &sets[0]); err != nil {
		return err
	}
	sets[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	sets[0].Permitted &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(header, &sets[0]); err != nil {
		return err
	}
	return deviceSet(dir)
}

// deviceFirst sets rules when the lowest descriptor is free, so that a program gets it.
func deviceFirst(dir string) error {
	unix.Close(0)
	return deviceSet(dir)
}

// deviceHelper starts this test program with an order, in a cgroup if c is not nil.
func deviceHelper(t testing.TB, c *Cgroup, order string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), deviceHelperVar+"="+order)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if c != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(c.dir.Fd())
	}
	return cmd
}

// deviceTestCgroup makes a cgroup below a directory of the tree, for a test.
func deviceTestCgroup(t testing.TB, below string) *Cgroup {
	t.Helper()
	dir, err := os.MkdirTemp(below, "container-devices-")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	return &Cgroup{dir: f, path: "/" + filepath.Base(dir)}
}

func needDeviceCgroup(t testing.TB) (tree string) {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Cgroup, deviceCgroup)
	dir, err := testenv.CgroupDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustSetDevices(t testing.TB, c *Cgroup, rules []DeviceRule) {
	t.Helper()
	if err := c.setDevices(rules); err != nil {
		t.Fatal(err)
	}
}

// canOpenZero tells what a process of the cgroup may do with /dev/zero.
func canOpenZero(t testing.TB, c *Cgroup) bool {
	t.Helper()
	cmd := exec.Command("sh", "-c", "head -c 1 /dev/zero | wc -c")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.dir.Fd())}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)) == "1"
}

var (
	allowAll = []DeviceRule{{Allow: true}}
	denyZero = []DeviceRule{{Allow: true}, {Type: 'c', Major: new(uint32(1)), Minor: new(uint32(5))}}
)

// wantZero sets rules and looks at what they do.
func wantZero(t testing.TB, what string, c *Cgroup, rules []DeviceRule, want bool) {
	t.Helper()
	mustSetDevices(t, c, rules)
	if got := canOpenZero(t, c); got != want {
		t.Errorf("%s: /dev/zero can be opened: %v", what, got)
	}
}

func TestDevicesCgroup(t *testing.T) {
	c := deviceTestCgroup(t, needDeviceCgroup(t))
	wantZero(t, "nothing", c, nil, true)
	wantZero(t, "deny it", c, denyZero, false)
	wantZero(t, "allow it", c, allowAll, true)
	wantZero(t, "default", c, DefaultDeviceRules(), true)
	wantZero(t, "none", c, []DeviceRule{}, false)
	if ids, err := bpfQueryDevices(int(c.dir.Fd())); err != nil || len(ids) != 1 {
		t.Errorf("programs %v, %v", ids, err)
	}
	wantZero(t, "no rules", c, nil, true)
	wantZero(t, "still none", c, nil, true)
	if ids, err := bpfQueryDevices(int(c.dir.Fd())); err != nil || len(ids) != 0 {
		t.Errorf("programs %v, %v", ids, err)
	}
	mustSetDevices(t, c, denyZero)
	if err := c.Apply(&Resources{}); err != nil {
		t.Error(err)
	}
	if canOpenZero(t, c) {
		t.Error("Resources that say nothing about devices have taken the rules away")
	}
}

// Every question that the kernel asks is answered as the rules say.
func TestDevicesKernelAnswers(t *testing.T) {
	c := deviceTestCgroup(t, needDeviceCgroup(t))
	const base = 2000
	dir := t.TempDir()
	var questions []deviceQuestion
	for kind := uint32(bpfBlockDevice); kind <= bpfCharDevice; kind++ {
		for major := uint32(base); major < base+5; major++ {
			for minor := range uint32(4) {
				q := deviceQuestion{kind: kind, major: major, minor: minor}
				mode := map[rune]uint32{'b': unix.S_IFBLK, 'c': unix.S_IFCHR}[q.typ()]
				if err := unix.Mknod(fmt.Sprintf("%s/%c%d.%d", dir, q.typ(), major, minor), mode|0o700, int(unix.Mkdev(major, minor))); err != nil {
					t.Fatal(err)
				}
				for _, q.access = range []deviceAccess{0, deviceMknod, deviceRead, deviceWrite, deviceRead | deviceWrite} {
					questions = append(questions, q)
				}
			}
		}
	}
	cmd := deviceHelper(t, c, "answer "+dir)
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	answers := bufio.NewScanner(stdout)
	random, verdicts := rand.New(rand.NewPCG(3, 4)), map[bool]int{}
	for i := range 60 {
		rules := append([]DeviceRule{{Allow: i%2 == 0}}, randomDeviceRules(random)...)
		for i := range rules {
			if m := rules[i].Major; m != nil {
				*m = base + *m%4
			}
			if m := rules[i].Minor; m != nil {
				*m %= 3
			}
		}
		mustSetDevices(t, c, rules)
		var b strings.Builder
		for _, q := range questions {
			fmt.Fprintln(&b, q.access, q.kind, q.major, q.minor)
		}
		io.WriteString(stdin, b.String())
		for _, q := range questions {
			if !answers.Scan() {
				t.Fatal("the helper has ended")
			}
			denied := answers.Text() == "true"
			verdicts[denied]++
			if denied == allowedByRules(rules, q) {
				t.Fatalf("%s, asked for %+v: denied %v", showDeviceRules(rules), q, denied)
			}
		}
	}
	if verdicts[true] < 1000 || verdicts[false] < 1000 {
		t.Errorf("too much of one kind: %v", verdicts)
	}
}

// The rules of a cgroup and of those above it count together, and so do programs of others, which stay.
func TestDevicesOthers(t *testing.T) {
	parent := deviceTestCgroup(t, needDeviceCgroup(t))
	child := deviceTestCgroup(t, parent.dir.Name())
	mustSetDevices(t, parent, denyZero)
	wantZero(t, "the parent denies", child, allowAll, false)
	mustSetDevices(t, parent, allowAll)
	wantZero(t, "the child denies", child, denyZero, false)
	wantZero(t, "both allow", child, allowAll, true)

	dir := int(child.dir.Fd())
	other, err := bpfLoadDevices("sd_devices", compileDeviceRules(denyZero), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := bpfAttachDevices(dir, other, nil); err != nil {
		t.Fatal(err)
	}
	for _, rules := range [][]DeviceRule{allowAll, denyZero, nil, allowAll} {
		wantZero(t, "somebody else denies", child, rules, false)
	}
	if err := bpfDetachDevices(dir, other); err != nil {
		t.Fatal(err)
	}
	if !canOpenZero(t, child) {
		t.Error("nobody denies any more")
	}

	// Two callers who were the first at the same time.
	twin, err := bpfLoadDevices(deviceProgram, compileDeviceRules(denyZero), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(twin)
	if err := bpfAttachDevices(dir, twin, nil); err != nil {
		t.Fatal(err)
	}
	wantZero(t, "a twin", child, allowAll, true)

	// A program that excludes others cannot be gone around.
	alone := deviceTestCgroup(t, parent.dir.Name())
	mustSetDevices(t, parent, nil)
	exclusive := &bpfAttachment{cgroup: uint32(alone.dir.Fd()), program: uint32(other), kind: unix.BPF_CGROUP_DEVICE}
	if err := exclusive.do(unix.BPF_PROG_ATTACH); err != nil {
		t.Fatal(err)
	}
	err = alone.setDevices(allowAll)
	if e := wantError(t, err, "cgroup", unix.EPERM); !strings.Contains(e.Remedy, "excludes others") {
		t.Error(err)
	}
}

// What setDevices needs, and needs not.
func TestDevicesRights(t *testing.T) {
	tree := needDeviceCgroup(t)
	for _, order := range []string{"set", "poor", "first"} {
		c := deviceTestCgroup(t, tree)
		if out, err := deviceHelper(t, nil, order+" "+c.dir.Name()).Output(); err != nil {
			t.Errorf("%s: %v: %s", order, err, out)
		}
		if ids, err := bpfQueryDevices(int(c.dir.Fd())); err != nil || len(ids) != 1 {
			t.Errorf("%s: programs %v, %v", order, ids, err)
		}
	}
	c := deviceTestCgroup(t, tree)
	cmd := deviceHelper(t, nil, "set "+c.dir.Name())
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{Size: 1}}
	if out, err := cmd.Output(); err == nil || !strings.Contains(string(out), "cgroup /x: not supported here: Resources.Devices: operation not permitted") || !strings.Contains(string(out), "Config.DevicesOnly") {
		t.Errorf("root of a user namespace: %v: %s", err, out)
	}
	os.Remove(c.dir.Name())
	err := c.setDevices(allowAll)
	wantError(t, err, "cgroup", ErrNotExist)
}

// An ordinary user is told what to do instead.
func TestDevicesUser(t *testing.T) {
	testenv.Need(t, testenv.User)
	e := wantError(t, CanLimitDevices(), "cgroup", ErrUnsupported)
	if !errors.Is(e, unix.EPERM) || !strings.Contains(e.Remedy, "Config.DevicesOnly") {
		t.Error(e)
	}
}

// While rules that deny are replaced by others that do, nothing gets through, and the load survives signals.
func TestAttackDevicesReplaced(t *testing.T) {
	parent := deviceTestCgroup(t, needDeviceCgroup(t))
	child := deviceTestCgroup(t, parent.dir.Name())
	sets := [][]DeviceRule{denyZero, {}, append(manyDeviceRules(300), denyZero...)}
	mustSetDevices(t, parent, denyZero)
	var hammers []*exec.Cmd
	var outputs []*bufio.Reader
	var inputs []io.Closer
	var busy sync.WaitGroup
	often := make(chan struct{})
	for _, c := range []*Cgroup{parent, child} {
		cmd := deviceHelper(t, c, "hammer /dev/zero")
		in, _ := cmd.StdinPipe()
		stdout, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(stdout)
		busy.Go(func() { out.ReadString('\n') })
		hammers, outputs, inputs = append(hammers, cmd), append(outputs, out), append(inputs, in)
	}
	go func() { busy.Wait(); close(often) }()
	stop := make(chan struct{})
	go func() { // as a profiler does
		for {
			select {
			case <-stop:
				return
			default:
				unix.Kill(os.Getpid(), unix.SIGURG)
			}
		}
	}()
	for i := 0; i < 1000 || !isClosed(often); i++ {
		if err := parent.setDevices(sets[i%len(sets)]); err != nil {
			t.Errorf("replacement %d: %v", i, err)
			break
		}
	}
	close(stop)
	<-often
	for i, cmd := range hammers {
		inputs[i].Close()
		var tries, opened int
		fmt.Fscan(outputs[i], &tries, &opened)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if tries < 1000 || opened > 0 {
			t.Errorf("%d tries, %d of them successful", tries, opened)
		}
		t.Logf("%d tries", tries)
	}
}

// Several callers set rules at the same time: none fails, and the rules of one are left.
func TestAttackDevicesCrowd(t *testing.T) {
	c := deviceTestCgroup(t, needDeviceCgroup(t))
	mustSetDevices(t, c, denyZero)
	errs := make(chan error)
	const callers = 4
	for range callers {
		go func() {
			var err error
			for i := 0; i < 100 && err == nil; i++ {
				err = c.setDevices(denyZero)
			}
			errs <- err
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if ids, err := bpfQueryDevices(int(c.dir.Fd())); err != nil || len(ids) != 1 {
		t.Errorf("programs %v, %v", ids, err)
	}
	if canOpenZero(t, c) {
		t.Error("it can be opened")
	}
}

func BenchmarkDevicesAttach(b *testing.B) {
	tree := needDeviceCgroup(b)
	c := deviceTestCgroup(b, tree)
	for b.Loop() {
		mustSetDevices(b, c, DefaultDeviceRules())
	}
}
