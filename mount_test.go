//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// with adds mounts to a configuration.
func with(cfg Config, mounts ...Mount) Config {
	cfg.Mounts = append(append([]Mount(nil), cfg.Mounts...), mounts...)
	return cfg
}

func TestMountTypes(t *testing.T) {
	cfg := with(testConfig(t),
		Mount{Type: "tmpfs", Target: "/m/tmp", Data: "size=1m,mode=1777", Flags: NoSuid},
		Mount{Type: "proc", Target: "/m/proc"},
		Mount{Type: "sysfs", Target: "/m/sys", Flags: MountReadOnly},
		Mount{Type: "cgroup2", Target: "/m/cgroup", Flags: MountReadOnly},
		Mount{Type: "devpts", Target: "/m/pts", Data: "newinstance,ptmxmode=0666"},
		Mount{Type: "mqueue", Target: "/m/mqueue", Source: "name"},
		Mount{Type: "bind", Source: t.TempDir(), Target: "/m/bind"})
	wantText(t, sh(t, cfg, `grep ' /m/' /proc/mounts | cut -d' ' -f1-3 | grep -v /m/bind
		stat -c %a /m/tmp; ls /m/pts; (echo >/sys/fs/cgroup/cgroup.procs) 2>&1 | grep -o 'Read-only.*'; ls /m/cgroup/cgroup.procs`),
		`tmpfs /m/tmp tmpfs
proc /m/proc proc
sysfs /m/sys sysfs
cgroup2 /m/cgroup cgroup2
devpts /m/pts devpts
name /m/mqueue mqueue
1777
ptmx
Read-only file system
/m/cgroup/cgroup.procs`)
}

func TestOverlayMount(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a/x": "a", "b/y": "b"})
	cfg := with(testConfig(t), Mount{Type: "overlay", Target: "/merged", Data: "lowerdir=" + dir + "/a:" + dir + "/b"})
	wantText(t, sh(t, cfg, "cat /merged/x /merged/y; (echo >/merged/z) 2>&1 | grep -o Read-only"), "abRead-only")
}

func TestBindReadOnly(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"file": "text", "sub/": ""})
	unchanged(t, dir)
	cfg := with(testConfig(t),
		Mount{Type: "bind", Source: dir, Target: "/dir", Flags: MountReadOnly},
		Mount{Type: "bind", Source: dir + "/file", Target: "/new/file", Flags: MountReadOnly | Recursive})
	wantText(t, sh(t, cfg, `for f in /dir/x /dir/file /dir/sub/x /new/file; do (echo >>$f) 2>&1 | grep -o 'Read-only.*'; done; cat /new/file`),
		strings.Repeat("Read-only file system\n", 4)+"text")
}

// A bind of a tree with a mount below.
func TestBindRecursive(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"sub/": ""})
		mount(t, "tmpfs", dir+"/sub", "tmpfs", 0)
		writeTree(t, dir, map[string]string{"sub/file": ""})
		base := testConfig(t)
		base.Namespaces.NewUser = false
		const script = `ls /b/sub; for f in /b/x /b/sub/x; do (echo >>$f) 2>/dev/null && echo wrote $f; done; rm -f /b/x /b/sub/x 2>/dev/null; true`
		for _, test := range []struct {
			flags MountFlags
			want  string
		}{
			{0, "wrote /b/x\nwrote /b/sub/x"}, // the directory below the mount
			{MountReadOnly, ""},
			{Recursive, "file\nwrote /b/x\nwrote /b/sub/x"},
			{Recursive | MountReadOnly, "file"},
			{Recursive | MountReadOnly | TopOnly, "file\nwrote /b/sub/x"},
		} {
			cfg := with(base, Mount{Type: "bind", Source: dir, Target: "/b", Flags: test.flags})
			wantText(t, sh(t, cfg, script), test.want)
		}
		// In a user namespace nothing that the host has covered may be shown.
		base.Namespaces.NewUser = true
		_, err := runIn(t, with(base, Mount{Type: "bind", Source: dir, Target: "/b"}), &Process{Args: []string{"true"}})
		if e := wantError(t, err, "mount source", unix.EINVAL); !strings.Contains(e.Remedy, "Recursive") {
			t.Errorf("the remedy is %q", e.Remedy)
		}
		wantText(t, sh(t, with(base, Mount{Type: "bind", Source: dir, Target: "/b", Flags: Recursive | MountReadOnly}), script), "file")
	})
}

func TestMountFlagsHaveEffect(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"link": "-> file", "file": "#!/bin/sh\necho run"})
	if err := os.Chmod(dir+"/file", 0o755); err != nil {
		t.Fatal(err)
	}
	base := testConfig(t)
	bind := func(flags MountFlags) Config {
		return with(base, Mount{Type: "bind", Source: dir, Target: "/b", Flags: flags})
	}
	wantText(t, sh(t, bind(0), "/b/file; cat /b/link >/dev/null && echo followed"), "run\nfollowed")
	wantText(t, sh(t, bind(NoExec), "/b/file 2>&1 | grep -o Permission"), "Permission")
	wantText(t, sh(t, bind(NoSymFollow), "cat /b/link 2>/dev/null || echo not followed"), "not followed")
	for flags, want := range map[MountFlags]string{
		NoSuid: "nosuid", NoDev: "nodev", NoExec: "noexec", NoAtime: "noatime", RelAtime: "relatime", NoDirAtime: "nodiratime",
		NoSymFollow: "nosymfollow", NoSuid | NoDev | NoExec: "nosuid,nodev,noexec",
	} {
		got := sh(t, with(base, Mount{Type: "tmpfs", Target: "/t", Flags: flags}), "grep ' /t ' /proc/mounts | cut -d' ' -f4")
		for _, option := range strings.Split(want, ",") {
			if !strings.Contains(","+got+",", ","+option+",") {
				t.Errorf("%v: %s is not in %s", flags, option, got)
			}
		}
	}
	got := sh(t, with(base, Mount{Type: "tmpfs", Target: "/t", Flags: StrictAtime}), "grep ' /t ' /proc/mounts | cut -d' ' -f4")
	if strings.Contains(got, "atime") {
		t.Errorf("strictatime shows as %s", got)
	}
	if os.Geteuid() == 0 {
		cfg := with(base, Mount{Type: "bind", Source: "/dev", Target: "/b", Flags: NoDev | Recursive})
		wantText(t, sh(t, cfg, "(: </b/null) 2>&1 | grep -o denied"), "denied")
	}
}

// What the host has set on a mount a user namespace cannot take away.
func TestLockedFlags(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		mount(t, "tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_RDONLY)
		base := testConfig(t)
		for _, clear := range []MountFlags{NoSuid, NoExec, MountReadOnly} {
			cfg := with(base, Mount{Type: "bind", Source: dir, Target: "/b", ClearFlags: clear, Flags: Recursive})
			_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
			if e := wantError(t, err, "mount source", unix.EPERM); e.Path != dir || e.Remedy == "" {
				t.Errorf("%v: path %q, remedy %q", clear, e.Path, e.Remedy)
			}
		}
		// Without ClearFlags they are kept.
		wantText(t, sh(t, with(base, Mount{Type: "bind", Source: dir, Target: "/b", Flags: NoDev | Recursive}), "grep ' /b ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1-4"),
			"ro,nosuid,nodev,noexec")
		if testenv.Root.Probe() == nil {
			base.Namespaces.NewUser = false
			wantText(t, sh(t, with(base, Mount{Type: "bind", Source: dir, Target: "/b", ClearFlags: NoExec}), "grep ' /b ' /proc/mounts | grep -c noexec; true"), "0")
		}
	})
}

func TestMountTargets(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	writeTree(t, dir, map[string]string{"file": "text", "dir/inside": "inside"})
	writeTree(t, outside, map[string]string{"canary": "canary"})
	unchanged(t, outside)
	base := testConfig(t)
	root := base.Root.Dir
	up := strings.Repeat("../", 20)
	writeTree(t, root, map[string]string{
		"real/": "", "absolute": "-> /real", "relative": "-> real", "real/chain": "-> " + up + "relative/../real",
		"out": "-> " + outside, "out2": "-> " + up + outside, "dangling": "-> /nowhere/at/all", "file": "",
		"magic": "-> /proc/self/cwd", "magic-root": "-> /proc/1/root",
	})
	bind := func(source, target string) Config {
		return with(base, Mount{Type: "bind", Source: dir + "/" + source, Target: target})
	}
	for target, where := range map[string]string{
		"/real": "/real", "/a/b/c": "/a/b/c", "/absolute": "/real", "/relative": "/real", "/real/chain": "/real", "/absolute/new/dir": "/real/new/dir",
	} {
		wantText(t, sh(t, bind("dir", target), "cat "+where+"/inside; grep -c ' "+where+" ' /proc/mounts"), "inside1")
	}
	wantText(t, sh(t, bind("file", "/x/y/file"), "cat /x/y/file; test -f /x/y/file"), "text")
	wantText(t, sh(t, bind("file", "/file"), "cat /file"), "text")
	for target, reason := range map[string]error{
		"/dangling": unix.ENOENT, "/out": unix.ENOENT, "/out2": unix.ENOENT, "/out/new": unix.ENOENT, "/out2/deep/er": unix.ENOENT,
		"/magic": unix.ELOOP, "/magic-root/x": unix.ELOOP, "/file": nil, "/file/below": unix.ENOTDIR,
	} {
		_, err := runIn(t, bind("dir", target), &Process{Args: []string{"true"}})
		if e := wantError(t, err, "mount", reason); e.Path != target {
			t.Errorf("%s: path %q", target, e.Path)
		}
	}
	_, err := runIn(t, bind("file", "/real"), &Process{Args: []string{"true"}})
	wantError(t, err, "mount", nil)
}

// An image must not have our /proc, /sys and /dev mounted somewhere else.
func TestCVE_2019_19921(t *testing.T) { kernelTrees(t, "proc", "sys") }

func TestCVE_2026_41579(t *testing.T) { kernelTrees(t, "dev") }

func kernelTrees(t *testing.T, names ...string) {
	outside := t.TempDir()
	writeTree(t, outside, map[string]string{"ptmx": "", "null": "text", "fs/": "", "self/": ""})
	unchanged(t, outside)
	for _, name := range names {
		for _, to := range []string{outside, "/etc", "etc", strings.Repeat("../", 20) + outside, "/nowhere"} {
			cfg := testConfig(t)
			writeTree(t, cfg.Root.Dir, map[string]string{name: "-> " + to})
			unchanged(t, cfg.Root.Dir+"/etc")
			_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
			var e *Error
			if !errors.As(err, &e) || e.Op != "mount" || !strings.HasPrefix(e.Path, "/"+name) || !errors.Is(err, unix.ELOOP) {
				t.Errorf("%s -> %s: %v", name, to, err)
			}
		}
		// A file in its place is an error too.
		cfg := testConfig(t)
		writeTree(t, cfg.Root.Dir, map[string]string{name: "text"})
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		wantError(t, err, "mount", nil) // EINVAL or ENOTDIR
	}
}

// A link of the image must not lead a mount of the user's over the kernel's trees (CVE-2019-16884).
func TestMountOverKernelTreesByLink(t *testing.T) {
	dir := t.TempDir()
	for link, to := range map[string]string{"data": "/proc", "data2": "proc/sys", "data3": "/sys", "data4": "/sys/fs"} {
		cfg := testConfig(t)
		writeTree(t, cfg.Root.Dir, map[string]string{link: "-> " + to})
		_, err := runIn(t, with(cfg, Mount{Type: "bind", Source: dir, Target: "/" + link}), &Process{Args: []string{"true"}})
		if e := wantError(t, err, "mount", unix.EXDEV); !strings.Contains(e.Remedy, "link") {
			t.Errorf("%s: the remedy is %q", to, e.Remedy)
		}
	}
}

func TestTmpfs(t *testing.T) {
	base := testConfig(t)
	cfg := with(base, Mount{Type: "tmpfs", Target: "/t", Data: "size=64k"})
	wantText(t, sh(t, cfg, `dd if=/dev/zero of=/t/x bs=4k count=100 2>&1 | grep -o 'No space.*'; stat -c %s /t/x`), "No space left on device\n65536")
	_, err := runIn(t, with(base, Mount{Type: "tmpfs", Target: "/t", Data: "size=much"}), &Process{Args: []string{"true"}})
	wantError(t, err, "mount", unix.EINVAL)
	_, err = runIn(t, with(base, Mount{Type: "tmpfs", Target: "/t", Data: "no-such-option"}), &Process{Args: []string{"true"}})
	wantError(t, err, "mount", unix.EINVAL)

	testenv.Need(t, testenv.Overlay)
	writeTree(t, base.Root.Dir, map[string]string{"t/file": "old", "t/sub/x": "x"})
	unchanged(t, base.Root.Dir+"/t")
	cfg = with(base, Mount{Type: "tmpfs", Target: "/t", Data: "size=1m", CopyUp: true})
	wantText(t, sh(t, cfg, `cat /t/file /t/sub/x; echo new >/t/file; rm -r /t/sub; ls /t; cat /t/file`), "oldxfile\nnew")
}

func TestIDMappedBind(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a": "", "b": ""})
	if err := errors.Join(os.Chown(dir+"/a", 100005, 100006), os.Chown(dir+"/b", 5, 6), os.Chown(dir, 100000, 100000)); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	ids := []IDMap{{ContainerID: 100000, HostID: 0, Size: 1000}}
	cfg = with(cfg, Mount{Type: "bind", Source: dir, Target: "/b", UidMappings: ids, GidMappings: ids})
	for _, newUser := range []bool{true, false} {
		cfg.Namespaces.NewUser = newUser
		out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", "stat -c %u:%g /b/a /b/b; rm -f /b/new; touch /b/new; chown 7:8 /b/new"}})
		if err != nil || out != "5:6\n65534:65534\n" {
			t.Errorf("%q, %v", out, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(dir+"/new", &st); err != nil || st.Uid != 100007 || st.Gid != 100008 {
			t.Errorf("on the host: %d:%d, %v", st.Uid, st.Gid, err)
		}
	}
}

// Of a recursive bind all mounts are idmapped, or the topmost one alone.
func TestIDMappedRecursive(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"sub/": "", "file": ""})
		mount(t, "tmpfs", dir+"/sub", "tmpfs", 0)
		writeTree(t, dir, map[string]string{"sub/file": ""})
		if err := errors.Join(os.Chown(dir+"/file", 5, 5), os.Chown(dir+"/sub/file", 5, 5)); err != nil {
			t.Fatal(err)
		}
		base := testConfig(t)
		base.Namespaces.NewUser = false
		ids := []IDMap{{ContainerID: 5, HostID: 7, Size: 1}}
		for flags, want := range map[MountFlags]string{Recursive: "7\n7", Recursive | TopOnly: "7\n5"} {
			cfg := with(base, Mount{Type: "bind", Source: dir, Target: "/b", Flags: flags, UidMappings: ids, GidMappings: ids})
			wantText(t, sh(t, cfg, "stat -c %u /b/file /b/sub/file"), want)
		}
	})
}

func TestMountSources(t *testing.T) {
	cfg := testConfig(t)
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := runIn(t, with(cfg, Mount{Type: "bind", Source: missing, Target: "/b"}), &Process{Args: []string{"true"}})
	if e := wantError(t, err, "mount", unix.ENOENT); e.Path != missing || !strings.Contains(e.Remedy, "Optional") {
		t.Errorf("path %q, remedy %q", e.Path, e.Remedy)
	}
	wantText(t, sh(t, with(cfg, Mount{Type: "bind", Source: missing, Target: "/b", Optional: true}), "ls -d /b 2>&1"+"; true"),
		"ls: /b: No such file or directory")
}

// A mount's propagation: what the host mounts below a slave appears inside, and what is mounted inside
// a shared one appears on the host.
func TestMountPropagation(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		caps := append(DefaultCapabilities(), "CAP_SYS_ADMIN")
		for propagation, want := range map[Propagation][2]bool{"": {}, Private: {}, Slave: {true, false}, RSlave: {true, false}, Shared: {true, true}, RShared: {true, true}, Unbindable: {}} {
			dir := t.TempDir()
			mount(t, dir, dir, "", unix.MS_BIND)
			mount(t, "", dir, "", unix.MS_SHARED)
			writeTree(t, dir, map[string]string{"in/": "", "out/": ""})
			cfg := with(testConfig(t), Mount{Type: "bind", Source: dir, Target: "/b", Flags: Recursive, Propagation: propagation})
			cfg.Namespaces.NewUser = false
			cfg.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}
			ready, stdout := pipe(t)
			stdin, goOn := pipe(t)
			c, err := New(t.TempDir(), "test", cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Destroy()
			err = c.Run(t.Context(), &Process{Args: []string{"sh", "-c", "mount -t tmpfs inside /b/out; touch /b/out/inside; echo ready; read x; ls /b/in; umount /b/out"}, Stdin: stdin, Stdout: stdout, Stderr: os.Stderr})
			if err != nil {
				t.Fatal(err)
			}
			stdout.Close()
			readLine(t, ready)
			_, err = os.Stat(dir + "/out/inside")
			toHost := err == nil
			mount(t, "tmpfs", dir+"/in", "tmpfs", 0)
			writeTree(t, dir, map[string]string{"in/outside": ""})
			goOn.WriteString("go\n")
			toContainer := strings.Contains(readAll(t, ready), "outside")
			if err := c.Wait(); err != nil {
				t.Error(err)
			}
			if got := [2]bool{toContainer, toHost}; got != want {
				t.Errorf("%q: into the container, out of it: %v, want %v", propagation, got, want)
			}
		}
	})
}

func TestSysctls(t *testing.T) {
	cfg := testConfig(t)
	outside, _ := os.ReadFile("/proc/sys/kernel/msgmax")
	cfg.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321", "net/ipv4/conf/lo/forwarding": "0", "fs.mqueue.msg_max": "13"}
	wantText(t, sh(t, cfg, "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax net/ipv4/conf/lo/forwarding fs/mqueue/msg_max"), "1\n4321\n0\n13")
	if now, _ := os.ReadFile("/proc/sys/kernel/msgmax"); string(now) != string(outside) {
		t.Errorf("on the host: %s", now)
	}
	for name, value := range map[string]string{"kernel.core_pattern": "x", "vm.swappiness": "1", "kernel.hostname": "h", "net.ipv4": "1\n2"} {
		cfg.Sysctl = map[string]string{name: value}
		if _, err := runIn(t, cfg, &Process{Args: []string{"true"}}); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg.Sysctl = map[string]string{"net.no.such": "1"}
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	if e := wantError(t, err, "sysctl", unix.ENOENT); e.Path != "net.no.such" {
		t.Errorf("path %q", e.Path)
	}
	cfg.Sysctl = map[string]string{"kernel.msgmax": "much"}
	_, err = runIn(t, cfg, &Process{Args: []string{"true"}})
	wantError(t, err, "sysctl", unix.EINVAL)
}

// A parameter of a joined namespace is set there, unless it is the caller's.
func TestSysctlJoined(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := testConfig(t)
	cfg.Namespaces.NewUser = false
	other := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
	cfg.Namespaces.NewNet = false
	cfg.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	cfg.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: fmt.Sprintf("/proc/%d/ns/net", other.Pid())}
	wantText(t, sh(t, cfg, "cat /proc/sys/net/ipv4/ip_forward"), "1")
	cfg.Namespaces.Join[NetworkNamespace] = "/proc/self/ns/net"
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	var f *FieldError
	if !errors.As(err, &f) || !strings.HasPrefix(f.Field, "Sysctl") {
		t.Errorf("in the caller's own: %v", err)
	}
}
