//go:build linux

package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

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
		"tty-caller": ttyCaller,
		"tty":        ttyAttack,
		"lookers":    lookIntoOthers,
		"exe":        rewriteExecutables,
		"connect":    connectTo,
	}
	if what := os.Getenv(attackVar); what != "" {
		attackers[what](os.Args[1:])
		os.Exit(0)
	}
}

// attackerIn puts the test binary into a root as /attacker; it must not need libraries.
func attackerIn(t testing.TB, root string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/attacker", text, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(root+"/attacker", "-test.run=^$").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if bytes.Contains(text, []byte("ld-linux")) {
		t.Skip("the test binary is not static: CGO_ENABLED=0")
	}
}

// newCanary makes a tree of the host's that no attack may change: it is compared at the end with mode,
// owner, times and content.
func newCanary(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"file": "canary", "dir/file": "canary", "dir/sub/": "", "link": "-> file"})
	if err := errors.Join(os.WriteFile(dir+"/private", []byte("canary"), 0o600), unix.Mkfifo(dir+"/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	unchanged(t, dir)
	return dir
}

var up = strings.Repeat("../", 30)

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
	cfg := testConfig(t)
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
			cfg := testConfig(t)
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
	cfg := testConfig(t)
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
	state := &ContainerState{Version: stateVersion, ID: "mine", Status: StatusRunning, Created: c.created, Pid: pid, StartTime: startTime(pid), BootID: bootID()}
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
		cfg := testConfig(t)
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

func ttyCaller([]string)          {}
func ttyAttack([]string)          {}
func lookIntoOthers([]string)     {}
func rewriteExecutables([]string) {}

var _ = strconv.Itoa
var _ unsafe.Pointer
