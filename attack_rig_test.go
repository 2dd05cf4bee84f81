//go:build linux

package container

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// This file holds what the attacks are made with: a canary that sees what is there for a moment only, a racer in a process of
// its own, and a program that tells what it finds inside.

// longVar makes the attacks that are repeated as long as they are meant to be; otherwise they have the time of a
// test in CI.
const longVar = "CONTAINER_TEST_LONG"

// sampleVar makes tests that take a container's life apart call by call try some of the calls only: with 3 each third, from one at random.
const sampleVar = "CONTAINER_TEST_SAMPLE"

// sampled tells which of them are tried.
func sampled(t testing.TB) func(i int) bool {
	n, err := strconv.Atoi(os.Getenv(sampleVar))
	if err != nil || n < 1 {
		n = 1
	}
	first := rand.IntN(n)
	if n > 1 {
		t.Logf("each %d. one, from the %d.", n, first)
	}
	return func(i int) bool { return i%n == first }
}

// rounds is how often an attack is repeated.
func rounds(short, long int) int {
	if os.Getenv(longVar) != "" {
		return long
	}
	return short
}

// withAllCaps gives all capabilities to the container's root.
func withAllCaps(cfg Config) Config {
	caps := AllCapabilities()
	cfg.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}
	return cfg
}

// attack is a process that is the attacker of that name; attackerIn has put its program into the root.
func attack(what string, args ...string) *Process {
	return &Process{Args: append([]string{"/attacker"}, args...), Env: []string{attackVar + "=" + what}}
}

// untouched checks at the end of the test that meanwhile nothing in the directories below dir was made, removed, renamed or
// changed, be it for a moment. It is inotify(7), which ordinary users have as well, and which sees what is done by way of other mounts.
func untouched(t testing.TB, dir string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	names := map[int32]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		const changes = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
		wd, err := unix.InotifyAddWatch(fd, path, changes)
		names[int32(wd)] = path
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		t.Helper()
		defer unix.Close(fd)
		for buf := make([]byte, 1<<16); ; {
			n, err := unix.Read(fd, buf)
			if err != nil || n <= 0 {
				return
			}
			for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
				wd, mask, end := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))
				t.Errorf("touched: %s/%s, event %#x", names[wd], strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00"), mask)
				b = b[end:]
			}
		}
	})
}

// racer is a process that exchanges names without end until the end of the test: names[0] with names[1], names[2] with names[3], ...
func racer(t testing.TB, names ...string) {
	t.Helper()
	cmd, out := sibling(t, nil, "racer", names...)
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		text := readAll(t, out)
		if err := cmd.Wait(); err != nil || !strings.HasPrefix(text, "exchanged ") || strings.HasPrefix(text, "exchanged 0 ") {
			t.Errorf("the racer: %s, %v", text, err)
		}
		t.Log(strings.TrimSpace(text))
	})
}

// sibling starts an attacker beside the container. It is at work when it says so.
func sibling(t testing.TB, attr *unix.SysProcAttr, what string, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	out, w := pipe(t)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = []string{attackVar + "=" + what}, w, w, attr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if line := readLine(t, out); line != "ready" {
		t.Fatalf("the attacker says %q", line)
	}
	return cmd, out
}

func raceNames(names []string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	for n := 0; ; n++ {
		if n == 1 {
			fmt.Println("ready")
		}
		select {
		case <-stop:
			fmt.Println("exchanged", n, "times")
			return
		default:
		}
		for i := 0; i < len(names); i += 2 {
			if err := exchange(names[i], names[i+1])(); err != nil && err != unix.ENOENT {
				fmt.Println(err)
				return
			}
		}
	}
}

// An insight is what a program sees that runs inside.
type insight struct {
	FDs       map[int]probeFD
	Status    map[string]string // of /proc/self/status
	Mounts    []string          // of /proc/self/mountinfo
	Cwd, Exe  string
	Env       []string
	Session   string   // the session keyring
	Limits    []string // of /proc/self/limits
	Open      []string // what can be opened of process 1's
	Cgroup    string
	Namespace map[string]string
}

type probeFD struct {
	Link        string
	Mount       uint64
	Mode        uint16
	Ino         uint64
	Rdev, FSMag uint64
}

func innerProbe([]string) {
	p := insight{FDs: map[int]probeFD{}, Status: map[string]string{}, Namespace: map[string]string{}, Env: os.Environ()}
	for fd := range 1024 { // before anything is opened here
		link, err := os.Readlink(fdPath(fd))
		if err != nil || strings.HasPrefix(link, "anon_inode:[event") { // those two are the Go runtime's own
			continue
		}
		var st unix.Statx_t
		var vfs unix.Statfs_t
		unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st)
		unix.Fstatfs(fd, &vfs)
		p.FDs[fd] = probeFD{Link: link, Mount: st.Mnt_id, Mode: st.Mode, Ino: st.Ino, Rdev: unix.Mkdev(st.Rdev_major, st.Rdev_minor), FSMag: uint64(vfs.Type)}
	}
	text := func(name string) string { b, _ := os.ReadFile(name); return strings.TrimSpace(string(b)) }
	for line := range strings.Lines(text("/proc/self/status")) {
		key, value, _ := strings.Cut(line, ":")
		p.Status[key] = strings.Join(strings.Fields(value), " ")
	}
	p.Mounts, p.Limits, p.Cgroup = strings.Split(text("/proc/self/mountinfo"), "\n"), strings.Split(text("/proc/self/limits"), "\n"), text("/proc/self/cgroup")
	p.Cwd, _ = os.Getwd()
	p.Exe, _ = os.Readlink("/proc/self/exe")
	p.Session, _ = unix.KeyctlString(unix.KEYCTL_DESCRIBE, unix.KEY_SPEC_SESSION_KEYRING)
	for _, name := range []string{"environ", "mem", "maps", "exe", "root", "cwd", "fd", "ns/mnt", "auxv", "stack"} {
		if f, err := os.Open("/proc/1/" + name); err == nil {
			f.Close()
			p.Open = append(p.Open, name)
		}
	}
	links, _ := filepath.Glob("/proc/self/ns/*")
	for _, link := range links {
		p.Namespace[filepath.Base(link)], _ = os.Readlink(link)
	}
	json.NewEncoder(os.Stdout).Encode(p)
}

// probeIn runs the probe in a new container.
func probeIn(t testing.TB, cfg Config, p Process) insight {
	t.Helper()
	a := attack("probe")
	p.Args, p.Env = a.Args, append(p.Env, a.Env...)
	out, err := runIn(t, cfg, &p)
	return parseProbe(t, out, err)
}

// probeExec runs it in a running one.
func probeExec(t testing.TB, start func(*Process) error, p Process) insight {
	t.Helper()
	a := attack("probe")
	p.Args, p.Env = a.Args, append(p.Env, a.Env...)
	var b strings.Builder
	p.Stdout, p.Stderr = &b, &b
	err := start(&p)
	if err == nil {
		err = p.Wait()
	}
	return parseProbe(t, b.String(), err)
}

func parseProbe(t testing.TB, out string, err error) (p insight) {
	t.Helper()
	if err = errors.Join(err, json.Unmarshal([]byte(out), &p)); err != nil {
		t.Fatalf("%v; it says %s", err, out)
	}
	return p
}

// only checks that these descriptors are open and no others.
func (p insight) only(t testing.TB, fds ...int) {
	t.Helper()
	for fd, is := range p.FDs {
		if !slices.Contains(fds, fd) {
			t.Errorf("descriptor %d is open: %+v", fd, is)
		}
	}
}

// wantStatus checks fields of /proc/self/status: name, value, name, value, ...
func (p insight) wantStatus(t testing.TB, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if p.Status[pairs[i]] != pairs[i+1] {
			t.Errorf("%s is %q, want %q", pairs[i], p.Status[pairs[i]], pairs[i+1])
		}
	}
}

// notOurs checks that a container says nothing of what the attack would have brought.
func notOurs(t testing.TB, what, out string, err error, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(out, s) {
			t.Errorf("%s: it has %q: %s, %v", what, s, out, err)
		}
	}
}

// typed checks that an error is one of the package's own, which says what was being done.
func typed(t testing.TB, what string, err error) {
	t.Helper()
	var e *Error
	var f *FieldError
	if !errors.As(err, &e) && !errors.As(err, &f) {
		t.Errorf("%s: the error is %T %v", what, err, err)
	}
}

// readFiles says which files can be read.
func readFiles(names []string) {
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil {
			fmt.Printf("read %s: %.200s\n", name, text)
		} else {
			fmt.Println("not", name)
		}
	}
}

// setFileCaps puts file capabilities that need inheritable ones onto a program: /attacker has them permitted if the process has
// them inheritable.
func setFileCaps(args []string) {
	// struct vfs_cap_data: revision 2 with the effective flag, permitted low, inheritable low, the same high.
	value := []byte{1, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 1, 0, 0}
	for _, name := range args {
		if err := unix.Setxattr(name, "security.capability", value, 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// becomeUser becomes another user and then a probe, which is another program.
func becomeUser(args []string) {
	id, _ := strconv.Atoi(args[0])
	err := errors.Join(unix.Setgroups(nil), unix.Setresgid(id, id, id), unix.Setresuid(id, id, id))
	if err == nil {
		err = unix.Exec(args[1], args[1:], attack("probe").Env)
	}
	fmt.Println(err)
	os.Exit(1)
}

// traceLaunchers attacks launchers from beside: another process of the host's, of whatever user it was started as.
func traceLaunchers([]string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	runtime.LockOSThread() // who traces is a thread
	fmt.Println("ready")
	tried := map[int]bool{}
	for {
		select {
		case <-stop:
			fmt.Println("tried", len(tried))
			return
		default:
		}
		for _, pid := range pidsInSight() {
			if isLauncher(pid) {
				if len(tried) == 0 {
					fmt.Println("found one")
				}
				tried[pid] = true
				traceOne(pid)
			}
		}
	}
}

// pidsInSight are the processes in /proc.
func pidsInSight() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isLauncher tells whether a process is one, and has not become the program yet.
func isLauncher(pid int) bool {
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.HasPrefix(string(comm), "container:")
}

// hasLaunchersFiles tells whether there are descriptors in an open /proc/PID/fd that no program gets.
func hasLaunchersFiles(fd int) bool {
	own, err := unix.Dup(fd)
	if err != nil {
		return true
	}
	dir := os.NewFile(uintptr(own), "")
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n > 2 {
			return true
		}
	}
	return false
}

// withinExecve tells whether a process has lost one memory to execve(2) and has not got the program's yet: it has a page for the
// arguments, where a launcher has some fifty. The kernel closes the files a moment later. The directory belongs to the container's root by then, who may
// see the numbers that are in use; for what is behind them the kernel asks as ptrace(2) does, and refuses.
func withinExecve(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	pages, _, _ := strings.Cut(string(text), " ")
	n, err := strconv.Atoi(pages)
	return err == nil && 0 < n && n < 10
}

func traceOne(pid int) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	try := func(what string, err error) {
		if err == nil && isLauncher(pid) {
			fmt.Println("worked:", what)
		}
	}
	for _, name := range []string{"root/etc", "cwd/.", "mem", "environ", "fd", "fd/0", "fd/3", "fd/4"} {
		flags := unix.O_RDONLY
		if name == "mem" {
			flags = unix.O_RDWR
		}
		fd, err := unix.Open(dir+name, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if name == "fd" && err == nil && (!hasLaunchersFiles(fd) || withinExecve(pid)) {
			err = unix.EPERM // only the name is still the launcher's
		}
		try(name, err)
		unix.Close(fd)
	}
	if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
		for fd := range 8 {
			got, err := unix.PidfdGetfd(pidfd, fd, 0)
			try("pidfd_getfd", err)
			unix.Close(got)
		}
		unix.Close(pidfd)
	}
	buf := make([]byte, 16)
	local := unix.Iovec{Base: &buf[0]}
	local.SetLen(len(buf))
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: 0x400000, Len: len(buf)}}, 0)
	try("process_vm_readv", err)
	err = unix.PtraceSeize(pid)
	try("ptrace", err)
	if err == nil { // what it has become by now; it must not stay traced
		unix.PtraceInterrupt(pid)
		unix.Wait4(pid, nil, unix.WALL, nil)
		if unix.PtraceDetach(pid) != nil {
			unix.Wait4(pid, nil, unix.WALL, nil)
		}
	}
}
