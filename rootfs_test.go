//go:build linux

package container

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/launch"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// listTree lists everything below a directory, for comparing it with later.
func listTree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if content = string(text); len(text) >= 1<<12 {
				content = fmt.Sprintf("%x", sha256.Sum256(text))
			}
		case unix.S_IFLNK:
			content, _ = os.Readlink(path)
		}
		fmt.Fprintf(&b, "%s %o %d:%d %d %v %v %q %q\n", path, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim, st.Ctim, imageXattrs(path), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// unchanged checks at the end of the test that nothing below a directory has changed.
func unchanged(t testing.TB, dir string) {
	t.Helper()
	before := listTree(t, dir)
	t.Cleanup(func() {
		t.Helper()
		if after := listTree(t, dir); after != before {
			t.Errorf("changed; before:\n%s\nafter:\n%s", before, after)
		}
	})
}

const tryWrites = `for f in /x /etc/passwd /etc/new /etc/group; do (echo more >>$f) 2>/dev/null && echo wrote $f || echo failed $f; done`

func TestRootReadWrite(t *testing.T) {
	cfg := testConfig(t)
	wantText(t, sh(t, cfg, tryWrites), "wrote /x\nwrote /etc/passwd\nwrote /etc/new\nwrote /etc/group")
	if text, err := os.ReadFile(cfg.Root.Dir + "/etc/new"); err != nil || string(text) != "more\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestRootReadOnly(t *testing.T) {
	cfg := testConfig(t)
	cfg.Root.Access = ReadOnly
	writeTree(t, cfg.Root.Dir, map[string]string{"proc/": "", "sys/": "", "dev/": ""})
	unchanged(t, cfg.Root.Dir)
	wantText(t, sh(t, cfg, tryWrites+"; (echo >/x) 2>&1; touch /dev/shm/x && echo shm"),
		"failed /x\nfailed /etc/passwd\nfailed /etc/new\nfailed /etc/group\nsh: can't create /x: Read-only file system\nshm")
}

func TestRootCopyOnWrite(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	cfg := testConfig(t)
	cfg.Root.Access = CopyOnWrite
	unchanged(t, cfg.Root.Dir)
	wantText(t, sh(t, cfg, tryWrites+"; rm -r /root; ls -d /root 2>&1; true"),
		"wrote /x\nwrote /etc/passwd\nwrote /etc/new\nwrote /etc/group\nls: /root: No such file or directory")
	wantText(t, sh(t, cfg, "ls -d /x /etc/new 2>/dev/null; ls -d /root"), "/root")
}

func TestUpperSize(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	cfg := testConfig(t)
	cfg.Root.Access, cfg.Root.UpperSize = CopyOnWrite, 1<<20
	got := sh(t, cfg, `dd if=/dev/zero of=/x bs=64k count=64 2>&1 | grep -o 'No space left on device'; test $(stat -c %s /x) -le 1048576 && echo bounded`)
	wantText(t, got, "No space left on device\nbounded")
}

func TestUpperDirectory(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	for name, root := range map[string]func() Root{
		"directory": func() Root { return Directory(busyboxRoot(t)) },
		"host":      func() Root { return HostRoot },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Root = root()
			cfg.Root.Access, cfg.Root.Upper = CopyOnWrite, filepath.Join(t.TempDir(), "deep/upper")
			t.Cleanup(func() { removeOverlayWork(t, cfg.Root.Upper) })
			sh(t, cfg, "echo kept >/etc/kept; chmod 711 /etc")
			wantText(t, sh(t, cfg, "cat /etc/kept; stat -c %a /etc"), "kept\n711")
			if _, err := os.Stat("/etc/kept"); err == nil {
				t.Error("the file is on the host")
			}
		})
	}
}

// removeOverlayWork removes what overlayfs leaves in its work directory: one without any permission.
func removeOverlayWork(t testing.TB, dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// testLayers are three layers: the topmost hides a file, a directory and the content of another one.
func testLayers(t testing.TB) []string {
	bottom, middle, top := busyboxRoot(t), t.TempDir(), t.TempDir()
	writeTree(t, bottom, map[string]string{"a/one": "bottom", "a/two": "bottom", "b/x": "bottom", "c/x": "bottom"})
	writeTree(t, middle, map[string]string{"a/two": "middle", "a/three": "middle", "d/x": "middle"})
	writeTree(t, top, map[string]string{"a/three": "top", "c/y": "top"})
	prefix := "user.overlay."
	if os.Geteuid() == 0 {
		prefix = "trusted.overlay." // what the mount reads
	}
	if err := unix.Setxattr(filepath.Join(top, "c"), prefix+"opaque", []byte("y"), 0); err != nil {
		t.Skipf("needs xattrs: %v", err)
	}
	for _, name := range []string{"a/one", "b"} { // whiteouts, which a user may make as well
		if err := unix.Mknod(filepath.Join(top, name), unix.S_IFCHR, 0); err != nil {
			t.Fatal(err)
		}
	}
	return []string{bottom, middle, top}
}

const showLayers = `cd /; for f in a/* b c/* d/*; do [ -e $f ] && echo $f $(cat $f); done; touch /a/new /c/new && echo wrote`

const wantLayers = "a/three top\na/two middle\nc/y top\nd/x middle\nwrote"

func TestLayers(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	cfg := testConfig(t)
	if os.Geteuid() == 0 {
		cfg.Namespaces.NewUser = false // whose overlays read trusted attributes
	}
	cfg.Root = Root{Layers: testLayers(t)}
	for _, dir := range cfg.Root.Layers {
		unchanged(t, dir)
	}
	wantText(t, sh(t, cfg, showLayers), wantLayers)
	cfg.Root.Access = ReadOnly
	wantText(t, sh(t, cfg, showLayers+"; true"), strings.TrimSuffix(wantLayers, "\nwrote")+
		"\ntouch: /a/new: Read-only file system\ntouch: /c/new: Read-only file system")
}

// Before Linux 6.7 there is no option lowerdir+; the answer of such a kernel is injected.
func TestLayersOfOldKernels(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	cfg := testConfig(t)
	if os.Geteuid() == 0 {
		cfg.Namespaces.NewUser = false
	}
	for _, upper := range []string{"", filepath.Join(t.TempDir(), "a,b:c")} {
		cfg.Root = Root{Layers: testLayers(t), Upper: upper}
		// Names that need escaping.
		odd := filepath.Join(t.TempDir(), `odd,:\ name`)
		if err := os.Mkdir(odd, 0o755); err != nil {
			t.Fatal(err)
		}
		writeTree(t, odd, map[string]string{"odd": "odd"})
		cfg.Root.Layers = append([]string{odd}, cfg.Root.Layers...)
		for _, old := range []bool{false, true} { // before Linux 6.7 there is no difference
			c, err := New(t.TempDir(), "test", cfg)
			if err != nil {
				t.Fatal(err)
			}
			p := &Process{Args: []string{"sh", "-c", showLayers + "; cat /odd; grep -c ' / / ' /proc/self/mountinfo; ls -a / | grep -c merged"}}
			if old {
				c.fault = &launch.Fault{Op: findCall(t, cfg, p, `"lowerdir+"`), Errno: unix.EINVAL}
			}
			out, err := runOnce(t, c, p)
			if want := wantLayers + "\nodd1\n0\n"; out != want {
				t.Errorf("old %v, upper %q: got:\n%s\nwant:\n%s (%v)", old, upper, out, want, err)
			}
			if upper != "" {
				removeOverlayWork(t, upper)
			}
		}
	}
}

// Before Linux 6.5 fsconfig(2) refuses values with a comma.
func TestLayerWithComma(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	cfg := testConfig(t)
	root := filepath.Join(t.TempDir(), `a,b:c\d`)
	if err := os.Rename(cfg.Root.Dir, root); err != nil {
		t.Fatal(err)
	}
	cfg.Root = Root{Dir: root, Access: CopyOnWrite}
	wantText(t, sh(t, cfg, "echo new >/new; cat /new"), "new")
}

// findCall returns the number of the first call whose line in the listing contains the text.
func findCall(t testing.TB, cfg Config, p *Process, text string) int {
	t.Helper()
	list := planOf(t, cfg, p).String()
	for line := range strings.Lines(list) {
		var n int
		if strings.Contains(line, text) && strings.HasPrefix(line, "  ") {
			if _, err := fmt.Sscan(line, &n); err == nil {
				return n
			}
		}
	}
	t.Fatalf("no call with %s in:\n%s", text, list)
	return 0
}

// Merged directories look as those of the lower layer do.
func TestOwnersOfMergedDirectories(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	t.Run("layer", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Root.Access = CopyOnWrite
		if os.Geteuid() == 0 {
			if err := os.Chown(cfg.Root.Dir, 12, 34); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Chmod(cfg.Root.Dir, 0o2751); err != nil {
			t.Fatal(err)
		}
		want := "2751 0:0"
		if os.Geteuid() == 0 {
			want = "2751 12:34"
		}
		wantText(t, sh(t, cfg, "stat -c '%a %u:%g' /"), want)
	})
	t.Run("host", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Root = HostRoot
		dirs := []string{"/etc", "/home", "/root", "/srv", "/tmp", "/usr", "/var"}
		for _, line := range strings.Split(sh(t, cfg, "stat -c '%n %a %u:%g' "+strings.Join(dirs, " ")), "\n") {
			var name, owner string
			var mode uint32
			if _, err := fmt.Sscanf(line, "%s %o %s", &name, &mode, &owner); err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(name, &st); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("%d:%d", st.Uid, st.Gid)
			if os.Geteuid() != 0 {
				want = "0:0"
			}
			if mode != st.Mode&0o7777 || owner != want {
				t.Errorf("%s: mode %o, owner %s; on the host %o, %s", name, mode, owner, st.Mode&0o7777, want)
			}
		}
	})
}

func TestHostRootCopyOnWrite(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	cfg := testConfig(t)
	cfg.Root = HostRoot
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"file": "text"})
	unchanged(t, dir)
	probe := "/opt/container-test-probe" // deeper down the owner must have an id inside
	if os.Geteuid() == 0 {
		probe = "/var/tmp/container-test-probe"
	}
	got := sh(t, cfg, `cat `+dir+`/file; echo; echo more >>`+dir+`/file && rm -f `+dir+`/file && echo changed
		touch /etc/container-test-probe `+probe+` /container-test-probe && echo wrote
		ls -A /run; ls /dev | tr '\n' ' '; ls / | grep -c '^proc$'; id -u`)
	wantText(t, got, "text\nchanged\nwrote\nfd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 1\n0")
	for _, path := range []string{"/etc/container-test-probe", probe, "/container-test-probe"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is on the host", path)
		}
	}
}

func TestHostRootReadOnly(t *testing.T) {
	cfg := testConfig(t)
	cfg.Root = Root{Dir: "/", Access: ReadOnly}
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"file": "text"})
	unchanged(t, dir)
	got := sh(t, cfg, `cat `+dir+`/file; echo
		for f in /x /etc/x /usr/x `+dir+`/file /run/x; do (echo >$f) 2>&1 | grep -o 'Read-only.*'; done; ls -A /run`)
	wantText(t, got, "text"+strings.Repeat("\nRead-only file system", 5))
}

// In a private mount namespace of the test: a directory with content, a mount over it, and mounts
// below other mounts. The container sees what the host sees, and nothing that lies hidden.
func TestHostRootWithSubmounts(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	inMountNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"covered/secret": "hidden", "plain/file": "plain"})
		mount(t, "tmpfs", dir+"/covered", "tmpfs", 0)
		writeTree(t, dir, map[string]string{"covered/seen": "seen", "covered/deep/": "", "covered/file": ""})
		mount(t, "tmpfs", dir+"/covered/deep", "tmpfs", 0)
		writeTree(t, dir, map[string]string{"covered/deep/er": "deep"})
		for _, access := range []Access{CopyOnWrite, ReadOnly} {
			cfg := testConfig(t)
			cfg.Root = Root{Dir: "/", Access: access}
			before := listTree(t, dir)
			out := sh(t, cfg, `cd `+dir+`; find covered plain -type f | sort; rm -f covered/seen covered/deep/er plain/file; touch covered/deep/new covered/new; umount covered/deep covered; true`)
			if lines := strings.Split(out, "\n"); len(lines) < 4 || strings.Join(lines[:4], " ") != "covered/deep/er covered/file covered/seen plain/file" {
				t.Errorf("%s: got:\n%s", access, out)
			}
			if strings.Contains(out, "secret") {
				t.Errorf("%s: the hidden file is there", access)
			}
			if after := listTree(t, dir); after != before {
				t.Errorf("%s: the host has changed; before:\n%s\nafter:\n%s", access, before, after)
			}
		}
	})
}

// After the pivot there is no way to the host's files.
func TestNothingOfTheHostIsReachable(t *testing.T) {
	for _, access := range []Access{ReadWrite, CopyOnWrite} {
		cfg := testConfig(t)
		cfg.Root.Access = access
		cfg.Capabilities = &Capabilities{}
		cfg.Capabilities.Bounding = AllCapabilities()
		cfg.Mounts = append(cfg.Mounts, Mount{Type: "tmpfs", Target: "/etc", CopyUp: true})
		cfg.Capabilities.Effective, cfg.Capabilities.Permitted = cfg.Capabilities.Bounding, cfg.Capabilities.Bounding
		writeTree(t, cfg.Root.Dir, map[string]string{"here": ""})
		canary := filepath.Join(t.TempDir(), "canary")
		if err := os.WriteFile(canary, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		got := sh(t, cfg, `ls -d /../../../here /proc/1/root/here /proc/self/cwd/../../here
			ls -d /..`+canary+` /proc/1/root/..`+canary+` /proc/1/cwd`+canary+` 2>/dev/null
			# What is mounted is the root and what was asked for: nothing on a path that is not inside.
			while read id parent dev root point rest; do [ -e "$point" ] || echo "unreachable $point"; done </proc/self/mountinfo
			awk '$5 == "/"' /proc/self/mountinfo | wc -l
			# Taking off mounts reveals nothing, and the root itself stays.
			umount -l /proc/sys /sys /dev 2>/dev/null; umount -l / 2>/dev/null
			ls -d /here; ls -d `+canary+` 2>/dev/null
			mkdir -p /c && chroot /c /bin/true 2>/dev/null; ls -d /here`)
		wantText(t, got, "/../../../here\n/proc/1/root/here\n/proc/self/cwd/../../here\n1\n/here\n/here")
	}
}

func TestRootIsMissing(t *testing.T) {
	cfg := testConfig(t)
	missing := filepath.Join(t.TempDir(), "missing")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		root   Root
		reason error
		path   string
	}{
		{Directory(missing), unix.ENOENT, missing},
		{Directory(file), unix.ENOTDIR, file},
		{Root{Dir: missing, Access: CopyOnWrite}, unix.ENOENT, missing},
		{Root{Layers: []string{cfg.Root.Dir, missing}}, unix.ENOENT, missing},
		{Root{Layers: []string{file}}, unix.ENOTDIR, file},
	} {
		dir := t.TempDir()
		cfg.Root = test.root
		c, err := New(dir, "test", cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = runOnce(t, c, &Process{Args: []string{"true"}})
		if e := wantError(t, err, "root", test.reason); e.Path != test.path || e.Remedy == "" {
			t.Errorf("path %q, remedy %q", e.Path, e.Remedy)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// What the root's propagation says is so, seen from the host and from inside.
func TestRootPropagation(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		for _, test := range []struct {
			propagation Propagation
			optional    string // field of mountinfo
			fromHost    bool
			toHost      bool
		}{
			{"", "", false, false},
			{RPrivate, "", false, false},
			{RSlave, "master:", true, false},
			{RShared, "shared:", true, false},
			{Unbindable, "unbindable", false, false},
		} {
			t.Run(string(test.propagation), func(t *testing.T) {
				cfg := testConfig(t)
				cfg.Namespaces.NewUser = false
				caps := append(DefaultCapabilities(), "CAP_SYS_ADMIN")
				cfg.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}
				root := cfg.Root.Dir
				mount(t, root, root, "", unix.MS_BIND)
				mount(t, "", root, "", unix.MS_SHARED)
				writeTree(t, root, map[string]string{"in/": "", "out/": ""})
				cfg.Root.Propagation = test.propagation
				in, err := os.CreateTemp("", "")
				if err != nil {
					t.Fatal(err)
				}
				os.Remove(in.Name())
				defer in.Close()

				c, err := New(t.TempDir(), "test", cfg)
				if err != nil {
					t.Fatal(err)
				}
				ready, stdout := pipe(t)
				stdin, go_ := pipe(t)
				p := &Process{Args: []string{"sh", "-c", `mount -t tmpfs inside /out; touch /out/inside; echo ready; read x
					ls /in; awk '$5 == "/" { for (i = 7; $i != "-"; i++) print $i }' /proc/self/mountinfo`}, Stdin: stdin, Stdout: stdout, Stderr: os.Stderr}
				defer c.Destroy()
				if err := c.Run(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				stdout.Close()
				readLine(t, ready)
				if _, err := os.Stat(root + "/out/inside"); (err == nil) != test.toHost {
					t.Errorf("the container's mount is on the host: %v", err == nil)
				}
				mount(t, "tmpfs", root+"/in", "tmpfs", 0)
				writeTree(t, root, map[string]string{"in/outside": ""})
				fmt.Fprintln(go_, "go")
				out := readAll(t, ready)
				if err := c.Wait(); err != nil {
					t.Error(err)
				}
				if got := strings.Contains(out, "outside"); got != test.fromHost {
					t.Errorf("the host's mount is in the container: %v", got)
				}
				if test.optional != "" && !strings.Contains(out, test.optional) || test.optional == "" && strings.Contains(out, ":") {
					t.Errorf("the root's propagation is %q", out)
				}
			})
		}
	})
}

// A directory of the host's that is removed between the look and the start is not in the container.
func TestHostDirectoryIsRemoved(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	inMountNamespace(t, func(t *testing.T) {
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"mnt/": "", "gone/": "", "file": "x", "stays/": ""})
		mount(t, "tmpfs", dir+"/mnt", "tmpfs", 0)
		cfg := DefaultConfig()
		cfg.Root = HostRoot
		pl, err := newPlan(&cfg, &Process{Args: []string{"true"}}, stdioFiles{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(dir+"/gone"), os.Remove(dir+"/file")); err != nil {
			t.Fatal(err)
		}
		s, err := pl.start(context.Background(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.reap(); err != nil || s.status != 0 {
			t.Errorf("%v, %v", err, s.status)
		}
		s.release()
		s.pidfd.Close()
	})
}

// inMountNamespace runs a test again, alone, in a mount namespace of its own whose mounts are
// private, as root of a user namespace if it is not root.
func inMountNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	inNamespaces(t, f, "-m")
}

// nestedStage is set in the environment of a test that runs again in other namespaces.
const nestedStage = "CONTAINER_PURE_DIR"

func inNamespaces(t *testing.T, f func(t *testing.T), flags ...string) {
	t.Helper()
	if os.Getenv(nestedStage) != "" {
		f(t)
		return
	}
	testenv.Need(t, testenv.UserNS, testenv.Program("unshare", "util-linux"))
	if os.Geteuid() != 0 {
		flags = append([]string{"-U", "-r"}, flags...)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.LookPath("unshare"), append(flags, self, "-test.run=^"+t.Name()+"$", "-test.v=true")...)
	cmd.Env = append(os.Environ(), nestedStage+"=1")
	out, err := cmd.CombinedOutput()
	testenv.Again(t, out, err)
}

// mount mounts until the end of the test.
func mount(t testing.TB, source, target, fsType string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, fsType, flags, ""); err != nil {
		t.Fatal(err)
	}
	if flags&(unix.MS_SHARED|unix.MS_PRIVATE|unix.MS_SLAVE|unix.MS_REMOUNT) == 0 {
		t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	}
}

// On most hosts "/" is shared: nothing that is mounted for a container may travel there.
func TestNothingTravelsToASharedHost(t *testing.T) {
	testenv.Need(t, testenv.Overlay)
	inMountNamespace(t, func(t *testing.T) {
		if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		hostMounts := func() string {
			text, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		base := with(testConfig(t), Mount{Type: "tmpfs", Target: "/tmp", CopyUp: true}, Mount{Type: "bind", Source: t.TempDir(), Target: "/opt", Propagation: RSlave})
		layers := base.Root.Dir
		for _, root := range []Root{base.Root, HostRoot, {Dir: layers, Access: CopyOnWrite}, {Layers: []string{layers}, Access: ReadOnly}} {
			for _, newUser := range []bool{true, false} {
				cfg := base
				cfg.Root, cfg.Namespaces.NewUser = root, newUser
				before := hostMounts()
				stdin, goOn := pipe(t)
				ready, stdout := pipe(t)
				c, err := New(t.TempDir(), "test", cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Destroy()
				if err := c.Run(t.Context(), &Process{Args: []string{"sh", "-c", "echo ready; read x"}, Stdin: stdin, Stdout: stdout}); err != nil {
					t.Fatal(err)
				}
				stdout.Close()
				readLine(t, ready)
				if during := hostMounts(); during != before {
					t.Errorf("%v, user namespace %v: while the container runs the host has\n%s\nand before it had\n%s", root, newUser, during, before)
				}
				goOn.WriteString("go\n")
				if err := c.Wait(); err != nil {
					t.Error(err)
				}
				if after := hostMounts(); after != before {
					t.Errorf("%v, user namespace %v: afterwards the host has\n%s\nand before it had\n%s", root, newUser, after, before)
				}
			}
		}
	})
}
