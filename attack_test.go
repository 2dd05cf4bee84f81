//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attacks: each test is an escape that worked against some runtime, named after it where it
// has a number, with one line on how it works against a naive one. Races are in attack_race_test.go.

// attackVar makes the test binary the attacker's program, inside a container or beside it.
const attackVar = "CONTAINER_TEST_ATTACK"

// attackers are what the program can be. They report on standard output.
var attackers map[string]func(args []string)

func init() {
	attackers = map[string]func(args []string){
		"tty-caller":   ttyCaller,
		"tty":          ttyAttack,
		"lookers":      lookIntoOthers,
		"exe":          rewriteExecutables,
		"connect":      connectTo,
		"null":         changeStreams,
		"probe":        innerProbe,
		"racer":        raceNames,
		"tracer":       traceLaunchers,
		"filecaps":     setFileCaps,
		"become":       becomeUser,
		"read":         readFiles,
		"calls":        makeCalls,
		"landlock":     landlocked,
		"landlock tcp": landlockedTCP,
	}
	if what := os.Getenv(attackVar); what != "" {
		time.AfterFunc(5*time.Minute, func() { os.Exit(3) }) // whatever becomes of the test
		attackers[what](os.Args[1:])
		os.Exit(0)
	}
}

// attackConfig is testConfig without a filter of system calls, which would not let most attacks begin: each of the other walls must
// hold alone.
func attackConfig(t testing.TB) Config {
	t.Helper()
	cfg := testConfig(t)
	cfg.Seccomp = nil
	return cfg
}

// attackerIn puts the test binary into a root as /attacker; it must not need libraries.
func attackerIn(t testing.TB, root string) {
	t.Helper()
	testenv.Need(t, testenv.StaticTest)
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/attacker", text, 0o755); err != nil {
		t.Fatal(err)
	}
}

// newCanary makes a tree of the host's that no attack may change: it is compared at the end with mode,
// owner, times, attributes and content, and nothing in it may have been changed for a moment.
func newCanary(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"file": "canary", "dir/file": "canary", "dir/sub/": "", "link": "-> file"})
	if err := errors.Join(os.WriteFile(dir+"/private", []byte("canary"), 0o600), unix.Mkfifo(dir+"/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	unchanged(t, dir)
	untouched(t, dir)
	return dir
}

var up = strings.Repeat("../", 30)

// Root in a container may be the owner of the host's /dev/null, and has it as a standard stream: it must not be able to change the
// node by that descriptor. Every program that was started later would meet a /dev/null that it cannot open.
func TestHostNullCannotBeChanged(t *testing.T) {
	leak.Check(t)
	own, err := os.OpenFile(os.DevNull, os.O_RDWR, 0) // as a service has it
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	status := func() (st unix.Stat_t) {
		if err := unix.Stat(os.DevNull, &st); err != nil {
			t.Fatal(err)
		}
		st.Atim, st.Mtim = unix.Timespec{}, unix.Timespec{}
		return st
	}
	before := status()
	cfg := withAllCaps(attackConfig(t))
	attackerIn(t, cfg.Root.Dir)
	try := func(newUser bool, in, out *os.File, start func(c Config, p *Process) error) {
		c := cfg
		c.Namespaces.NewUser = newUser
		if !newUser {
			c.Capabilities = nil // of the host's root the rest may be missing
		}
		p := attack("null")
		p.Stdin, p.Stderr = in, out
		var exit *ExitError
		if err := start(c, p); !errors.As(err, &exit) || exit.Code != 7 {
			t.Errorf("the attacker ended with %v", err)
		}
		if after := status(); after != before {
			t.Errorf("/dev/null is %+v, was %+v", after, before)
			_ = os.Chmod(os.DevNull, 0o666)
			_ = os.Chown(os.DevNull, int(before.Uid), int(before.Gid))
		}
	}
	for _, newUser := range []bool{true, false} {
		if !newUser && os.Geteuid() != 0 {
			continue
		}
		for _, stream := range []*os.File{nil, own} {
			try(newUser, stream, stream, func(c Config, p *Process) error { return lifeStart(t, c, p).Wait() })
			try(newUser, stream, stream, func(c Config, p *Process) error {
				box := lifeStart(t, c, lifeSh("sleep 100"))
				if err := box.Exec(t.Context(), p); err != nil {
					return err
				}
				return p.Wait()
			})
		}
	}
}

// changeStreams tries to change what the standard streams are, uses them and exits with 7.
func changeStreams([]string) {
	for fd := range 3 {
		_ = unix.Fchmod(fd, 0)
		_ = unix.Fchown(fd, 1, 1)
		_ = unix.Futimes(fd, make([]unix.Timeval, 2))
		_ = unix.Fsetxattr(fd, "trusted.x", []byte("x"), 0)
	}
	if n, err := unix.Read(0, make([]byte, 8)); n != 0 || err != nil {
		os.Exit(1)
	}
	if n, err := unix.Write(2, []byte("nothing")); n != 7 || err != nil {
		os.Exit(2)
	}
	os.Exit(7)
}

// The host's root with a mount on top of it in the caller's own namespace: a runtime that takes off
// as many mounts as it has made leaves the rest, and "/.." leads to the host.
func TestOldRootUnderStackedMounts(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		if err := unix.Mount("/", "/", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		canary := newCanary(t)
		for _, access := range []Access{ReadWrite, CopyOnWrite} {
			cfg := DefaultConfig()
			cfg.Seccomp = nil
			cfg.Root, cfg.Namespaces.NewUser = Directory(busyboxRoot(t)), false // the kernel allows none here
			cfg.Root.Access = access
			out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", "cat /.." + canary + "/file; ls -d /../proc/1; awk '$5 == \"/\"' /proc/self/mountinfo | wc -l"}})
			if want := "cat: can't open '/.." + canary + "/file': No such file or directory\n/../proc/1\n1\n"; out != want {
				t.Errorf("%s: %s, %v", access, out, err)
			}
		}
	})
}

// In a user namespace devices are the host's own nodes. Root there may be their owner, and change
// the host's /dev/null, unless the binds are read-only, which does not keep anyone from writing to a device.
func TestHostDevicesCannotBeChanged(t *testing.T) {
	cfg := attackConfig(t)
	caps := AllCapabilities()
	cfg.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}
	status := func() (list [6]unix.Stat_t) {
		for i, d := range DefaultDevices() {
			if err := unix.Stat(d.Path, &list[i]); err != nil {
				t.Fatal(err)
			}
			list[i].Atim, list[i].Mtim = unix.Timespec{}, unix.Timespec{} // others use them
		}
		return list
	}
	before := status()
	got := sh(t, cfg, `for d in null zero full random urandom tty; do
			for c in "chmod 4644" "chown 1:1" "touch -t 200001010000" "rm -f"; do $c /dev/$d 2>/dev/null && echo "$c $d"; done
		done; echo x >/dev/null && echo x >>/dev/zero && echo usable`)
	for i, now := range status() {
		if now != before[i] {
			d := DefaultDevices()[i]
			t.Errorf("%s was %+v, and is %+v", d.Path, before[i], now)
			unix.Chmod(d.Path, before[i].Mode&0o7777)
			unix.Chown(d.Path, int(before[i].Uid), int(before[i].Gid))
		}
	}
	wantText(t, got, "usable")
}

// What an earlier container left in the upper directory is where the next one's mount points are made: a
// directory of it that has become a link leads mkdir to the host.
func TestCVE_2026_87766(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	inMountNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"a/mnt/": "", "a/made/": "", "a/another": "", "a/away": "-> x"})
		mount(t, "tmpfs", dir+"/a/mnt", "tmpfs", 0)
		canary := newCanary(t)
		for _, to := range []string{canary, up + canary} {
			cfg := attackConfig(t)
			cfg.Root = HostRoot
			cfg.Root.Upper = filepath.Join(t.TempDir(), "upper")
			defer removeOverlayWork(t, cfg.Root.Upper)
			sh(t, cfg, "mv "+dir+"/a "+dir+"/b && ln -s "+to+" "+dir+"/a && readlink "+dir+"/a")
			out, err := runIn(t, cfg, &Process{Args: []string{"ls", "-l", dir}})
			if err == nil {
				t.Errorf("it started: %s", out)
			}
			t.Log(err)
		}
	})
}

// A record that somebody else has made names the process to kill, and the host's tree to mount. CVE-2021-41091
// was the other direction: what other users could reach below the state directory.
func TestCVE_2021_41091(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := attackConfig(t)
	dir := t.TempDir()
	c, err := New(dir, "mine", cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir+"/mine", func(path string, d fs.DirEntry, err error) error {
		if info, _ := d.Info(); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.Command("sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Wait()
	defer victim.Process.Kill()
	pid := victim.Process.Pid
	state := &ContainerState{Version: stateVersion, ID: "mine", Status: StatusRunning, Created: c.created, Pid: pid, StartTime: stateStart(t, pid), BootID: stateBoot(t)}
	if err := c.record.write("state.json", state); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return os.Chown(dir+"/mine", 1234, 1234) },
		func() error { return errors.Join(os.Chown(dir+"/mine", 0, 0), os.Chmod(dir+"/mine", 0o777)) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if c, err := Load(dir, "mine"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Load: %v, %v", c, err)
			if c != nil {
				t.Log("Destroy:", c.Signal(unix.SIGCONT))
			}
		}
	}
	os.RemoveAll(dir + "/mine")
}

// Sockets of the host are doors to its services; a bind of their directory, read-only or not, opens them
// (CVE-2020-15257 was the same with an abstract one).
func TestHostRootHasNoSockets(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(dir+"/socket", 0o777); err != nil {
		t.Fatal(err)
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/attacker", exe, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, access := range []Access{CopyOnWrite, ReadOnly} {
		cfg := attackConfig(t)
		cfg.Root = Root{Dir: "/", Access: access}
		out, err := runIn(t, cfg, &Process{Args: []string{dir + "/attacker", dir + "/socket"}, Env: []string{attackVar + "=connect"}})
		if err != nil || !strings.Contains(out, "refused") {
			t.Errorf("%s: %q, %v", access, out, err)
		}
	}
}

func connectTo(args []string) {
	_, err := net.Dial("unix", args[0])
	fmt.Println("connected:", err)
}

// A terminal on standard input takes characters by ioctl as if they had been typed, which the caller's shell
// runs when the container has ended.
func TestCVE_2017_5226(t *testing.T) {
	t.Run("the caller's streams", func(t *testing.T) { attackTerminal(t, "") })
	t.Run("own terminal", func(t *testing.T) { attackTerminal(t, "tty") })
}

// attackTerminal runs the attack from a process with the caller's terminal, or one of its own.
func attackTerminal(t *testing.T, own string) {
	cfg := attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals:", err)
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals:", err)
	}
	defer slave.Close()
	state, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	state.Lflag = 0 // every character counts at once, and none is echoed
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, state); err != nil {
		t.Fatal(err)
	}
	caller := exec.Command("/proc/self/exe", t.TempDir(), cfg.Root.Dir, own)
	caller.Env = append(os.Environ(), attackVar+"=tty-caller")
	caller.Stdin = slave
	caller.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	out, err := caller.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if own == "" && strings.Contains(string(out), "worked") || !strings.Contains(string(out), "queue 0\n") {
		t.Errorf("%s", out)
	}
	if own != "" && !strings.Contains(string(out), "worked: take it") {
		t.Errorf("the terminal is not its own: %s", out)
	}
	if !strings.Contains(string(out), "caller: the attack is real") {
		t.Logf("the kernel allows it to nobody: %s", out)
	}
}

// ttyCaller is a program at a terminal that runs a container with it.
func ttyCaller(args []string) {
	if unix.IoctlSetPointerInt(0, unix.TIOCSTI, 'x') == nil {
		fmt.Println("caller: the attack is real")
		os.Stdin.Read(make([]byte, 16))
	}
	cfg := DefaultConfig()
	cfg.Seccomp = nil // which denies it, too
	cfg.Root = Directory(args[1])
	c, err := New(args[0], "tty", cfg)
	if err == nil {
		p := &Process{Args: []string{"/attacker"}, Env: []string{attackVar + "=tty"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
		if args[2] == "tty" {
			p.Tty, p.Stderr = true, nil
		}
		err = c.Run(context.Background(), p)
	}
	if err == nil {
		err = errors.Join(c.Wait(), c.Destroy())
	}
	queue, qerr := unix.IoctlGetInt(0, unix.TIOCINQ)
	if err = errors.Join(err, qerr); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("queue %d\n", queue)
}

func ttyAttack([]string) {
	try := func(what string, err error) {
		if err == nil {
			fmt.Println("worked:", what)
		}
	}
	high := uint64(1) << 32 // the kernel takes no notice of it, a filter may (CVE-2019-10063)
	push := func(what string, fd int) {
		try(what, unix.IoctlSetPointerInt(fd, unix.TIOCSTI, 'x'))
		try(what+" high bits", unix.IoctlSetPointerInt(fd, uint(high|unix.TIOCSTI), 'x'))
		try(what+" selection", unix.IoctlSetPointerInt(fd, unix.TIOCLINUX, 3))
	}
	push("at once", 0)
	try("take it", unix.IoctlSetInt(0, unix.TIOCSCTTY, 0))
	try("steal it", unix.IoctlSetInt(0, unix.TIOCSCTTY, 1))
	if fd, err := unix.Open("/dev/tty", unix.O_RDWR, 0); err == nil {
		push("/dev/tty", fd)
	}
	if fd, err := unix.Open("/proc/self/fd/0", unix.O_RDWR, 0); err == nil {
		push("opened again", fd)
	}
	push("after that", 0)
}

// The entry point /proc/self/exe, or a script whose interpreter it is, is the runtime's own binary; opened by
// O_PATH and held until the runtime has ended, it can be overwritten.
func TestCVE_2019_5736(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unchanged(t, exe)
	base := attackConfig(t)
	attackerIn(t, base.Root.Dir)
	writeTree(t, base.Root.Dir, map[string]string{"script": "#!/proc/self/exe\n", "link": "-> /proc/self/exe"})
	if err := os.Chmod(base.Root.Dir+"/script", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, hostPIDs := range []bool{false, true} {
		cfg := base
		cfg.Namespaces.NewPID = !hostPIDs
		for _, entry := range []string{"/proc/self/exe", "/proc/thread-self/exe", "/script", "/link"} {
			out, err := runIn(t, cfg, &Process{Args: []string{entry, "-test.run=^$"}})
			if err == nil || strings.Contains(out, "PASS") {
				t.Errorf("%s ran: %q, %v", entry, out, err)
			}
		}
		done := make(chan struct{})
		go func() { // there are launchers to find
			defer close(done)
			for range 10 {
				if c, err := New(t.TempDir(), "other", base); err == nil {
					c.Run(context.Background(), &Process{Args: []string{"true"}})
					c.Wait()
					c.Destroy()
				}
			}
		}()
		out, err := runIn(t, cfg, &Process{Args: []string{"/attacker"}, Env: []string{attackVar + "=exe"}})
		<-done
		if err != nil || strings.Contains(out, "worked") {
			t.Errorf("host's processes %v: %s, %v", hostPIDs, out, err)
		}
	}
}

// rewriteExecutables opens the executable of every process that is not its own, and that for writing.
func rewriteExecutables([]string) {
	own, _ := os.Stat("/proc/self/exe")
	held := map[string]int{}
	for end := time.Now().Add(400 * time.Millisecond); time.Now().Before(end); {
		list, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, name := range list {
			if fd, err := unix.Open(name, unix.O_PATH, 0); err == nil {
				if st, err := os.Stat(fdPath(fd)); err != nil || os.SameFile(st, own) || held[name] != 0 {
					unix.Close(fd)
				} else {
					held[name] = fd
				}
			}
		}
		for name, fd := range held {
			if w, err := unix.Open(fdPath(fd), unix.O_WRONLY, 0); err == nil {
				fmt.Println("worked:", name)
				unix.Close(w)
			}
		}
	}
}

// While a container starts in a PID namespace that it shares, others there trace the runtime, or take
// its descriptors of the host's directories.
func TestCVE_2016_9962(t *testing.T) {
	base := attackConfig(t)
	attackerIn(t, base.Root.Dir)
	caps := AllCapabilities()
	base.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}
	ready, stdout := pipe(t)
	spy, err := New(t.TempDir(), "spy", base)
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Destroy()
	p := &Process{Args: []string{"/attacker"}, Env: []string{attackVar + "=lookers"}, Stdout: stdout, Stderr: stdout}
	if err := spy.Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	readLine(t, ready)
	pid := strconv.Itoa(spy.Pid())
	cfg := base
	cfg.Namespaces.NewPID, cfg.Namespaces.NewUser = false, false
	cfg.Namespaces.Join = map[NamespaceKind]string{PIDNamespace: "/proc/" + pid + "/ns/pid", UserNamespace: "/proc/" + pid + "/ns/user"}
	started, said := 0, hunter{out: ready}
	for i := 0; i < 60 || i < 3000 && !said.one(); i++ {
		c, err := New(t.TempDir(), "started", cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(t.Context(), &Process{Args: []string{"true"}}); err == nil {
			started++
			c.Wait()
		} else if started == 0 {
			t.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}
	spy.Signal(unix.SIGTERM)
	out := said.rest(t)
	if strings.Contains(out, "worked") || !strings.Contains(out, "tried") || strings.Contains(out, "tried 0") {
		t.Errorf("%s", out)
	}
	t.Logf("%d starts; %s", started, strings.TrimSpace(out))
}

// lookIntoOthers tries everything on processes that bear the launcher's name, until SIGTERM.
func lookIntoOthers([]string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	runtime.LockOSThread() // who traces is a thread
	fmt.Println("ready")
	buf, tried := make([]byte, 64), 0
	comm := func(pid int) string {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return strings.TrimSpace(string(text))
	}
	for {
		select {
		case <-stop:
			fmt.Println("tried", tried)
			return
		default:
		}
		for _, pid := range pidsInSight() {
			if comm(pid) != launch.ProcessName {
				continue
			}
			if tried++; tried == 1 {
				fmt.Println("found one")
			}
			dir := fmt.Sprintf("/proc/%d/", pid)
			try := func(what string, err error) {
				// After execve it is another program, which is as good as the attacker itself.
				if exe, rerr := os.Readlink(dir + "exe"); err == nil && rerr == nil && strings.Contains(exe, "memfd") {
					fmt.Println("worked:", what)
				}
			}
			for _, name := range []string{"root/etc", "cwd/.", "exe", "mem", "environ", "maps", "map_files", "fd", "fd/0", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8"} {
				f, err := os.Open(dir + name)
				if err == nil && name == "mem" {
					_, err = f.ReadAt(buf, 0x400000)
				}
				if err == nil && name == "environ" {
					_, err = f.Read(buf)
				}
				try(name, err)
				f.Close()
			}
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				for target := range 9 {
					got, err := unix.PidfdGetfd(fd, target, 0)
					try("pidfd_getfd", err)
					unix.Close(got)
				}
				unix.Close(fd)
			}
			local := unix.Iovec{Base: &buf[0]}
			local.SetLen(len(buf))
			_, err := unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: 0x400000, Len: len(buf)}}, 0)
			try("process_vm_readv", err)
			err = unix.PtraceSeize(pid)
			try("ptrace", err)
			if err == nil { // of the program that it has become; it must not stay traced
				unix.PtraceInterrupt(pid)
				unix.Wait4(pid, nil, unix.WALL, nil)
				if unix.PtraceDetach(pid) != nil { // it has been killed: its parent waits for us
					unix.Wait4(pid, nil, unix.WALL, nil)
				}
			}
		}
	}
}

// Where the hierarchy of cgroups is the host's, or can be written to, a container changes its own limits and
// those of its user's other processes.
func TestCVE_2023_25809(t *testing.T) {
	for _, newCgroup := range []bool{true, false} {
		cfg := attackConfig(t)
		cfg.Namespaces.NewCgroup = newCgroup
		got := sh(t, cfg, `find /sys/fs/cgroup -type d 2>/dev/null | while read d; do mkdir "$d/attack" 2>/dev/null && echo "made $d/attack" && rmdir "$d/attack"
				(echo $$ >"$d/cgroup.procs") 2>/dev/null && echo "entered $d"; done
			find /sys/fs/cgroup -type f -name '*.max' 2>/dev/null | while read f; do (echo max >"$f") 2>/dev/null && echo "set $f"; done
			mount -o remount,rw,bind /sys/fs/cgroup 2>/dev/null && echo remounted
			unshare -Urm sh -c 'mount -o remount,rw,bind /sys/fs/cgroup && echo remounted; umount -l /sys/fs/cgroup && echo unmounted; mount -t cgroup2 none /tmp && mkdir /tmp/attack && echo made' 2>/dev/null
			find /sys/fs/cgroup -maxdepth 0`)
		wantText(t, got, "/sys/fs/cgroup")
	}
}

// In a user namespace of their own, programs have all capabilities: what is masked must not come off there,
// and a second /proc or /sys must not be had.
func TestNestedUserNamespace(t *testing.T) {
	devModes(t, func(t *testing.T, cfg Config) {
		cfg.Seccomp = nil
		got := sh(t, cfg, `unshare -Urmpf sh -c '
			for d in /proc/timer_list /proc/keys /proc/interrupts /sys/firmware /proc/sys /proc/sysrq-trigger /proc /sys /dev; do
				umount $d && echo "umount $d"; umount -l $d && echo "umount -l $d"; case $d in /proc | /dev) continue ;; esac; mount -o remount,rw,bind $d && echo "remount $d"; done
			mount -t proc proc /tmp && echo "a second /proc"
			mount --bind /proc /tmp && echo "/proc without its masks"
			mount -o move /proc /tmp && echo "moved"
			echo x >/proc/sys/kernel/msgmax && echo wrote
			cat /proc/keys /proc/timer_list' 2>/dev/null; echo end`)
		wantText(t, got, "end")
	})
}

// Files that a runtime puts into /etc are links in the image: crun wrote through one, and Docker's mounts went
// where they led.
func TestCVE_2025_24965(t *testing.T) {
	canary := newCanary(t)
	source := t.TempDir()
	writeTree(t, source, map[string]string{"hosts": "ours"})
	for _, to := range []string{canary + "/file", up + canary + "/file", canary + "/new", up + canary + "/dir/new", "/proc/self/cwd" + canary + "/new", "/proc/1/root" + canary + "/file"} {
		cfg := attackConfig(t)
		mounts := map[string]string{"/etc/hosts": "", "/etc/hostname": "", "/etc/resolv.conf": "", "/run/.containerenv": "", "/etc/deep/er": ""}
		for target := range mounts {
			cfg = with(cfg, Mount{Type: "bind", Source: source + "/hosts", Target: target})
			writeTree(t, cfg.Root.Dir, map[string]string{target[1:]: "-> " + to})
		}
		if _, err := runIn(t, cfg, &Process{Args: []string{"true"}}); err == nil {
			t.Errorf("%s: no error", to)
		}
		// Where the image has the place as well, the mount is there.
		if strings.HasSuffix(to, canary+"/file") && !strings.HasPrefix(to, "/proc") {
			writeTree(t, cfg.Root.Dir, map[string]string{canary[1:] + "/file": "the image's"})
			wantText(t, sh(t, cfg, "cat /etc/hosts "+canary+"/file"), "oursours")
		}
	}
	for name, make := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o644) },
	} {
		cfg := attackConfig(t)
		if err := make(cfg.Root.Dir + "/etc/hosts"); err != nil {
			t.Fatal(err)
		}
		out, err := runIn(t, with(cfg, Mount{Type: "bind", Source: source + "/hosts", Target: "/etc/hosts"}), &Process{Args: []string{"cat", "/etc/hosts"}})
		if name == "directory" && err == nil || name == "FIFO" && out != "ours" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// An image with a link in the place of all that is mounted, masked or made: each leads to the host.
func TestImageOfLinks(t *testing.T) {
	canary := newCanary(t)
	for _, to := range []string{up + canary, "/proc/self/root" + canary} {
		cfg := attackConfig(t)
		targets := append(DefaultMaskPaths(), DefaultReadonlyPaths()...)
		for _, m := range cfg.Mounts {
			targets = append(targets, m.Target)
		}
		targets = append(targets, "/dev", "/dev/pts", "/dev/null", "/dev/shm", "/dev/console", "/dev/ptmx", "/masked", "/read-only", "/work")
		for _, target := range targets {
			root := cfg.Root.Dir
			for _, top := range []string{"/proc", "/sys", "/dev", "/masked", "/read-only", "/work"} {
				os.RemoveAll(root + top)
			}
			writeTree(t, root, map[string]string{target[1:]: "-> " + to})
			cfg.MaskPaths, cfg.ReadonlyPaths = append(DefaultMaskPaths(), "/masked"), append(DefaultReadonlyPaths(), "/read-only")
			out, err := runIn(t, cfg, &Process{Cwd: "/work/dir", Args: []string{"sh", "-c", "cat " + canary + "/file; cat /proc/timer_list; echo x >/proc/sys/kernel/msgmax; ls /sys/firmware; echo end"}})
			if err == nil && (!strings.HasSuffix(out, "end\n") || strings.Contains(out, "canary\n") || strings.Contains(out, "canarycat") || strings.Contains(out, "cpu:")) {
				t.Errorf("%s -> %s: %s", target, to, out)
			}
		}
	}
}

// A socket without a file, in the network namespace that a container may share with the host, takes orders from
// whoever connects.
func TestCVE_2020_15257(t *testing.T) {
	cfg := attackConfig(t)
	cfg.Namespaces.NewNet = false
	abstract := func(text string) (n int) {
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) == 8 && strings.HasPrefix(f[7], "@") {
				n++
			}
		}
		return n
	}
	for try := 1; ; try++ { // somebody else's may come at that moment, but not each time
		before, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			t.Fatal(err)
		}
		inside := sh(t, cfg, "cat /proc/net/unix")
		if abstract(inside) <= abstract(string(before)) {
			break
		}
		if try == 5 {
			t.Fatalf("before:\n%s\nwhile it runs:\n%s", before, inside)
		}
	}
}

// Descriptors that the caller has forgotten to mark close-on-exec, of directories, files and sockets, are open
// in the container if nobody closes them, among them where ExtraFiles has a gap.
func TestForgottenDescriptors(t *testing.T) {
	canary := newCanary(t)
	cfg := attackConfig(t)
	for i := range 50 {
		fd, err := unix.Open([]string{canary, canary + "/file", "/"}[i%3], unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	r, _ := pipe(t)
	extra := make([]*os.File, 20)
	extra[10] = r
	out, err := runIn(t, cfg, &Process{Args: []string{"ls", "/proc/self/fd"}, ExtraFiles: extra})
	if list := strings.Fields(out); err != nil || !slices.Equal(list, []string{"0", "1", "13", "2", "3"}) { // ls has opened 3
		t.Errorf("%q, %v", out, err)
	}
}

// Capabilities that are inheritable give to a user, by way of a file's own inheritable ones, what only root had.
func TestCVE_2022_24769(t *testing.T) {
	cfg := rangeConfig(t)
	for _, user := range []string{"0", "1000"} {
		wantText(t, shAs(t, cfg, &Process{User: user}, "grep CapInh /proc/self/status"), "CapInh:\t0000000000000000")
	}
}

// Capabilities that are ambient stay with a user who is not root.
func TestCVE_2016_8867(t *testing.T) {
	cfg := rangeConfig(t)
	wantText(t, shAs(t, cfg, &Process{User: "1000"}, "grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status"),
		"CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000")
}

// A user's number that the image's passwd has as the name of root made the process root.
func TestCVE_2016_3697(t *testing.T) {
	cfg := rangeConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{"etc/passwd": "1000:x:0:0::/:/bin/sh\n", "etc/group": "1000:x:0:\n"})
	for _, user := range []string{"1000", "1000:1000"} {
		got := shAs(t, cfg, &Process{User: user}, "id -u; id -g")
		if uid, gid, _ := strings.Cut(got, "\n"); uid != "1000" || strings.Contains(user, ":") && gid != "1000" {
			t.Errorf("%s: %s:%s", user, uid, gid)
		}
	}
}
