//go:build linux

package container

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file makes system calls of the caller fail, one after the other: the test binary lives as a caller under a filter whose
// listener the test serves, with the package's own means. The calls of the launcher are not touched here; TestFaults does that.

// faultCallerVar makes the test binary that caller: its arguments are STATEDIR ROOT IMAGE, its standard input has an order a line.
const faultCallerVar = "CONTAINER_TEST_FAULT_CALLER"

// faultAllVar asks for all faults instead of a sample.
const faultAllVar = "CONTAINER_TEST_FAULTS"

func init() {
	if os.Getenv(faultCallerVar) == "" {
		return
	}
	lives := map[string]func([]string) error{"run": faultRun, "create": faultCreate, "load": faultLoad, "pull": faultPull}
	orders := bufio.NewScanner(os.Stdin)
	before := faultFiles()
	for orders.Scan() {
		var life string
		var errno unix.Errno
		fmt.Sscan(orders.Text(), &life, &errno)
		faultMark(1)
		err := lives[life](os.Args[1:])
		faultMark(2)
		r := faultReport{Failed: err != nil}
		if err != nil {
			var e *Error
			r.Text, r.Typed, r.Is = err.Error(), errors.As(err, &e), errors.Is(err, errno)
		}
		if errno == 0 {
			time.Sleep(50 * time.Millisecond)
			before = faultFiles() // what is opened once is open now
		}
		for range 1000 {
			if r.Files = faultDifference(before, faultFiles()); r.Files == "" {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
			if r.Child = err != unix.ECHILD; !r.Child || time.Now().After(deadline) {
				break
			}
		}
		os.Chmod(os.Args[1]+"/store", 0o700)
		removeTree(unix.AT_FDCWD, os.Args[1]+"/store")
		json.NewEncoder(os.Stdout).Encode(r)
	}
	os.Exit(0)
}

// faultReport is what a life tells of itself.
type faultReport struct {
	Failed    bool
	Typed, Is bool   // the error is an Error, and wraps the number
	Text      string // of the error
	Files     string // open that were not before
	Child     bool   // one is left
}

// faultMark tells the supervisor where a life begins and ends.
func faultMark(n uintptr) { unix.RawSyscall(unix.SYS_GETPRIORITY, 99, n, 0) }

// faultFiles counts the open files of each kind.
func faultFiles() map[string]int {
	files := map[string]int{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			kind, _, _ := strings.Cut(target, ":[")
			files[kind]++
		}
	}
	return files
}

func faultDifference(before, after map[string]int) string {
	var list []string
	for kind, n := range after {
		if n > before[kind] {
			list = append(list, fmt.Sprintf("%d %s", n-before[kind], kind))
		}
	}
	return strings.Join(list, ", ")
}

func faultConfig(args []string) Config {
	cfg := DefaultConfig()
	cfg.Root = Directory(args[1])
	cfg.Seccomp = nil
	return cfg
}

func faultRun(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := New(args[0], "x", faultConfig(args))
	if err != nil {
		return err
	}
	err = func() error {
		var out bytes.Buffer
		p := lifeSh("cat; echo out")
		p.Stdin, p.Stdout = strings.NewReader("in"), &out
		if err := c.Run(ctx, p); err != nil {
			return err
		}
		if err := c.Wait(); err != nil {
			return err
		}
		if out.String() != "inout\n" {
			return fmt.Errorf("output %q", &out)
		}
		if status, err := c.Status(); status != StatusStopped {
			return errors.Join(err, fmt.Errorf("status %s", status))
		}
		return nil
	}()
	return errors.Join(err, c.Destroy())
}

func faultCreate(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := New(args[0], "x", faultConfig(args))
	if err != nil {
		return err
	}
	err = func() error {
		if err := c.Create(ctx, lifeSh("sleep 1000")); err != nil {
			return err
		}
		p := lifeSh("true")
		if err := c.Exec(ctx, p); err != nil {
			return err
		}
		if err := p.Wait(); err != nil {
			return err
		}
		if err := c.Start(ctx); err != nil {
			return err
		}
		if err := c.Signal(unix.SIGKILL); err != nil {
			return err
		}
		if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			return fmt.Errorf("it was killed, and its end was %w", err)
		}
		return nil
	}()
	return errors.Join(err, c.Destroy())
}

func faultLoad(args []string) error {
	c, err := New(args[0], "x", faultConfig(args))
	if err != nil {
		return err
	}
	err = func() error {
		other, err := Load(args[0], "x")
		if err != nil {
			return err
		}
		if _, err := other.State(); err != nil {
			return err
		}
		if list, err := List(args[0]); err != nil || len(list) != 1 {
			return errors.Join(err, fmt.Errorf("%d containers", len(list)))
		}
		return nil
	}()
	return errors.Join(err, c.Destroy())
}

func faultPull(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := OpenStore(args[0]+"/store", &StoreOptions{Ownership: OwnershipSingle, Sync: true})
	if err != nil {
		return err
	}
	_, err = s.Pull(ctx, args[2], &PullOptions{Jobs: 1})
	return errors.Join(err, s.Close())
}

// faults has the calls that are made to fail, and how. Not here: what only the Go runtime makes, and cannot live without; and close(2), which
// closes the descriptor also when it fails, which the one who answers for it cannot do.
var faults = map[unix.Errno]string{
	unix.EMFILE: `openat openat2 memfd_create socketpair socket pipe2 pidfd_open fcntl open_tree epoll_create1`,
	unix.EIO: `read pread64 unlinkat unlink renameat renameat2 rename fsync fdatasync sendfile copy_file_range fstat newfstatat
		statx getdents64 readlinkat readlink faccessat faccessat2 pidfd_send_signal lseek ioctl chdir fchmod fchmodat fchown fchownat lchown utimensat
		fsetxattr lsetxattr setxattr fgetxattr lgetxattr getxattr statfs fstatfs mkdir symlink link flistxattr llistxattr listxattr syncfs`,
	unix.ENOSPC: `write pwrite64 mkdirat mknodat linkat symlinkat ftruncate fallocate`,
	unix.ENOMEM: `sendmsg recvmsg flock move_mount mount_setattr fsopen fsconfig fsmount mount umount2 connect bind getsockopt setsockopt sendto recvfrom accept4 process_vm_readv`,
	unix.EAGAIN: `clone clone3 vfork fork`,
	unix.EINTR:  `openat read write recvmsg sendmsg waitid flock pread64 openat2 fsync connect`,
}

// A faultSupervisor answers the calls of the caller.
type faultSupervisor struct {
	mu    sync.Mutex
	pid   int
	alive bool           // between the marks
	seen  map[string]int // calls of this life
	name  string         // the call that fails, the nth
	nth   int
	errno unix.Errno
	hit   bool
}

func (s *faultSupervisor) handle(ctx context.Context, call *SeccompCall) SeccompAnswer {
	pass := SeccompAnswer{Continue: true}
	if unix.Access(fmt.Sprintf("/proc/%d/task/%d", s.pid, call.Pid), unix.F_OK) != nil {
		return pass // a child
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case call.Name == "getpriority" && call.Args[0] == 99:
		if s.alive = call.Args[1] == 1; s.alive {
			s.seen, s.hit = map[string]int{}, false
		}
		return SeccompAnswer{}
	case !s.alive, call.Name == "clone" && call.Args[0]&unix.CLONE_THREAD != 0, s.neverFails(call):
		return pass
	}
	s.seen[call.Name]++
	if call.Name != s.name || s.seen[call.Name] != s.nth {
		return pass
	}
	s.hit = true
	return SeccompAnswer{Errno: uint(s.errno)}
}

// neverFails tells whether a call cannot fail in that way. The runtime counts on it, for its eventfd and for the pipe by which it learns of a
// failed execve; fcntl(2) can fail where it makes descriptors, what does not wait is not interrupted, and /proc is on no disk.
func (s *faultSupervisor) neverFails(call *SeccompCall) bool {
	switch call.Name {
	case "read", "write":
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid, int32(call.Args[0])))
		return !strings.HasPrefix(link, "/") || strings.HasPrefix(link, "/proc/") || strings.HasSuffix(link, "/"+goFile)
	case "waitid":
		return call.Args[3]&unix.WNOHANG != 0
	case "openat", "openat2":
		dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid, int32(call.Args[0])))
		path, err := call.ReadString(call.Args[1], 4095)
		return s.errno == unix.EINTR && (err != nil || strings.HasPrefix(path, "/proc") || strings.HasPrefix(dir, "/proc") || dir == "/" && !strings.HasPrefix(path, "/"))
	case "newfstatat":
		path, err := call.ReadString(call.Args[1], 4095)
		return err != nil || strings.HasPrefix(path, "/proc/")
	case "flock":
		return s.errno == unix.EINTR && call.Args[1]&unix.LOCK_NB != 0
	case "fcntl":
		return !slices.Contains([]uint64{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_ADD_SEALS}, call.Args[1])
	}
	return false
}

// A faultCaller is the caller.
type faultCaller struct {
	faultSupervisor
	t      *testing.T
	args   []string
	child  *launch.Child
	orders *os.File
	out    *bufio.Reader
	pipe   *os.File
}

// newFaultCaller starts the test binary under the filter. The launcher installs it as for a container's program.
func newFaultCaller(t *testing.T, args ...string) *faultCaller {
	t.Helper()
	names := []string{"getpriority"}
	for _, list := range faults {
		names = append(names, strings.Fields(list)...)
	}
	slices.Sort(names)
	filter, err := askAbout(slices.Compact(names)...).compile(1<<63 - 1)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &faultCaller{t: t, args: args}
	pl := &plan{log: slog.Default(), emitter: emitter{launch.New(0), map[[4]launch.Arg]launch.Arg{}}}
	pl.listener = &listenerLink{handler: c.handle}
	if pl.listener.ours, pl.listener.theirs, err = launch.SocketPair(); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		pl.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	pl.Send(1, 0)
	pl.Wait()
	pl.installFilter(filter)
	pl.Call(unix.SYS_EXECVE, pl.Str(exe), pl.Strs(append([]string{exe}, args...)), pl.Strs(append(os.Environ(), faultCallerVar+"=1", "GODEBUG=asyncpreemptoff=1")))

	in, orders := pipe(t)
	out, answers := pipe(t)
	c.orders, c.pipe, c.out = orders, out, bufio.NewReader(out)
	if c.child, err = pl.Start(&launch.Attr{Stdio: [3]*os.File{in, answers, os.Stderr}}); err != nil {
		t.Fatal(err)
	}
	in.Close()
	answers.Close()
	pl.listener.theirs.Close()
	c.pid = c.child.Process().Pid
	pl.listener.receive(slog.Default())
	if _, err := c.child.Next(); err != nil {
		t.Fatal(err)
	}
	if err := c.child.Go(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.child.Next(); err != io.EOF {
		t.Fatal(err)
	}
	return c
}

// end ends it.
func (c *faultCaller) end() {
	c.orders.Close()
	c.child.Process().Wait()
	c.child.Release()
	c.pipe.Close()
}

// live has it live once.
func (c *faultCaller) live(life, name string, nth int, errno unix.Errno) (faultReport, bool) {
	c.t.Helper()
	c.mu.Lock()
	c.name, c.nth, c.errno, c.hit = name, nth, errno, false
	c.mu.Unlock()
	var r faultReport
	fmt.Fprintln(c.orders, life, int(errno))
	hang := time.AfterFunc(2*time.Minute, func() {
		c.t.Errorf("%s, %s %d, %v: it hangs", life, name, nth, errno)
		c.child.Process().Signal(unix.SIGQUIT)
	})
	line, err := c.out.ReadBytes('\n')
	hang.Stop()
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		c.t.Fatalf("%s, %s %d, %v: the caller has ended: %v", life, name, nth, errno, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return r, c.hit
}

// TestCallerFaults makes each call of the caller's fail: the result is success or an Error with the number, and whatever is
// left another process can destroy. With EINTR it is success.
func TestCallerFaults(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	leak.Check(t)
	root, dir := busyboxRoot(t), imageTempDir(t)
	registry := newImageRegistry(t)
	registry.add("v1", registry.build(map[string]any{}, imageTar(t, imageDir("etc/", 0o755), imageFile("etc/f", "x"), imageLink("l", "etc/f"), imageHardlink("h", "etc/f")),
		imageTar(t, imageFile("etc/.wh.f", ""), imageFile("n", "y"))))
	caller := newFaultCaller(t, dir, root, registry.ref("v1"))
	defer func() { caller.end() }()
	all := os.Getenv(faultAllVar) == "all"
	sum := map[string]int{}
	for _, life := range []string{"load", "run", "create", "pull"} {
		for range 3 { // the runtime gets to know its files and threads
			if r, _ := caller.live(life, "", 0, 0); r.Failed {
				t.Fatalf("%s: %+v", life, r)
			}
		}
		seen := maps.Clone(caller.seen)
		t.Logf("%s: %v", life, seen)
		for errno, list := range faults {
			for name := range strings.FieldsSeq(list) {
				for nth := 1; nth <= seen[name]; nth++ {
					if !all && nth > 1 && nth != seen[name] && (nth*7+len(name))%10 != 0 {
						continue
					}
					r, hit := caller.live(life, name, nth, errno)
					if hit {
						sum["injected"]++
						if r.Failed {
							sum["reported"]++
						}
					}
					if r.Child || r.Files != "" {
						caller.end() // the next one has nothing to do with it
						caller = newFaultCaller(t, caller.args...)
						caller.live(life, "", 0, 0)
						caller.live(life, "", 0, 0)
					}
					faultJudge(t, fmt.Sprintf("%s, %s %d of %d, %v", life, name, nth, seen[name], errno), r, hit, errno, dir)
				}
			}
		}
	}
	t.Logf("%v", sum)
	if sum["injected"] < 100 {
		t.Error("too few calls failed")
	}
}

func faultJudge(t *testing.T, what string, r faultReport, hit bool, errno unix.Errno, dir string) {
	t.Helper()
	switch {
	case r.Failed && (!hit || errno == unix.EINTR):
		t.Errorf("%s: %s", what, r.Text)
	case r.Failed && (!r.Typed || !r.Is && !strings.HasPrefix(what, "pull")): // of two ways to a registry one error is told
		t.Errorf("%s: the error does not say it: %s", what, r.Text)
	}
	if r.Files != "" {
		t.Errorf("%s: left open: %s (%s)", what, r.Files, r.Text)
	}
	if r.Child {
		t.Errorf("%s: a child is left (%s)", what, r.Text)
	}
	c, err := Load(dir, "x")
	if err == nil {
		err = c.Destroy()
	}
	if err != nil && !errors.Is(err, ErrNotExist) {
		t.Errorf("%s: then Destroy: %v", what, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%s: left: %v, %v", what, left, err)
		removeTree(unix.AT_FDCWD, dir+"/x")
	}
}
