//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// rangeConfig is a configuration with more than one id: root has all of them, others their subordinate
// ones.
func rangeConfig(t testing.TB) Config {
	t.Helper()
	cfg := testConfig(t)
	if os.Geteuid() == 0 {
		return cfg
	}
	testenv.Need(t, testenv.SubIDs)
	var err error
	if cfg.UidMappings, cfg.GidMappings, err = SubordinateIDs(); err != nil {
		t.Fatal(err)
	}
	forgetUserNamespaces(t)
	return cfg
}

func ptr[T any](v T) *T { return &v }

const printCaps = `grep -E '^Cap' /proc/self/status | tr -d '\t'`

func TestCapabilities(t *testing.T) {
	cfg := rangeConfig(t)
	var def uint64
	for _, name := range DefaultCapabilities() {
		n, _ := capabilityNumber(name)
		def |= 1 << n
	}
	show := func(inh, prm, eff, bnd, amb uint64) string {
		return fmt.Sprintf("CapInh:%016x\nCapPrm:%016x\nCapEff:%016x\nCapBnd:%016x\nCapAmb:%016x", inh, prm, eff, bnd, amb)
	}
	const kill, chown = 1 << unix.CAP_KILL, 1 << unix.CAP_CHOWN
	for _, test := range []struct {
		name, user string
		caps       *Capabilities
		want       string
	}{
		// CVE-2022-24769: nothing is inheritable.
		{"default, root", "0", nil, show(0, def, def, def, 0)},
		// CVE-2016-8867: nothing is left.
		{"default, user", "33", nil, show(0, 0, 0, def, 0)},
		{"none, root", "0", &Capabilities{}, show(0, 0, 0, 0, 0)},
		{"none, user", "33", &Capabilities{}, show(0, 0, 0, 0, 0)},
		{"ambient, user", "33", &Capabilities{Bounding: []string{"KILL", "CHOWN"}, Effective: []string{"KILL"}, Permitted: []string{"KILL", "CHOWN"},
			Inheritable: []string{"KILL"}, Ambient: []string{"KILL"}}, show(kill, kill, kill, kill|chown, kill)},
		{"bounding more than permitted, user", "33", &Capabilities{Bounding: []string{"KILL", "CHOWN"}, Effective: []string{"KILL"}, Permitted: []string{"KILL"}},
			show(0, 0, 0, kill|chown, 0)},
	} {
		for _, noNewPrivs := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, %v", test.name, noNewPrivs), func(t *testing.T) {
				cfg := cfg
				cfg.Capabilities, cfg.NoNewPrivileges = test.caps, noNewPrivs
				wantText(t, shAs(t, cfg, &Process{User: test.user}, printCaps), test.want)
				cfg.Capabilities = nil // the process's own count
				wantText(t, shAs(t, cfg, &Process{User: test.user, Capabilities: test.caps}, printCaps), test.want)
			})
		}
	}
}

// Without a user namespace, as root.
func TestCapabilitiesOfTheHost(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := testConfig(t)
	cfg.Namespaces.NewUser = false
	wantText(t, shAs(t, cfg, &Process{User: "33:33"}, "grep -E '^Cap(Inh|Prm|Eff|Amb)|^Groups' /proc/self/status | tr -d '\t'"),
		"Groups:33 \nCapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\nCapAmb:0000000000000000")
}

func TestNoNewPrivileges(t *testing.T) {
	cfg := rangeConfig(t)
	// A setuid copy of busybox, of root.
	suid := cfg.Root.Dir + "/suid/busybox"
	text, err := os.ReadFile(cfg.Root.Dir + "/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	writeTree(t, cfg.Root.Dir, map[string]string{"suid/": ""})
	if err := os.WriteFile(suid, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(suid, 0o4755); err != nil {
		t.Fatal(err)
	}
	const script = `grep NoNewPrivs /proc/self/status | tr -d '\t'; /suid/busybox grep -E '^CapEff' /proc/self/status | grep -c 'CapEff:.0000000000000000'`
	wantText(t, shAs(t, cfg, &Process{User: "33"}, script), "NoNewPrivs:1\n1")
	// busybox gives up the ids of a setuid file, but not without having had them.
	p := &Process{User: "33", NoNewPrivileges: ptr(false)}
	wantText(t, shAs(t, cfg, p, "grep NoNewPrivs /proc/self/status | tr -d '\t'"), "NoNewPrivs:0")
}

func TestLimits(t *testing.T) {
	cfg := testConfig(t)
	const script = `grep -E 'open files|core file|Max cpu' /proc/self/limits | tr -s ' ' | cut -d' ' -f1-6; umask; cat /proc/self/oom_score_adj; cat /proc/self/personality; awk '{ print $19, $41 }' /proc/self/stat; ionice; taskset -p $$ | tr -dc 0-9a-f: | cut -d: -f2`
	cfg.Rlimits = []Rlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}, {Type: "core", Soft: 0, Hard: 0}}
	cfg.Umask, cfg.OomScoreAdj = ptr(uint32(0o077)), ptr(500)
	cfg.Personality = &Personality{Domain: "LINUX32"}
	cfg.Scheduler = &Scheduler{Policy: "batch", Nice: 7}
	cfg.IOPriority = &IOPriority{Class: "idle"}
	cfg.CPUAffinity = "0"
	wantText(t, sh(t, cfg, script), `Max cpu time unlimited unlimited seconds
Max core file size 0 0
Max open files 77 88 files
0077
500
00000008
7 3
idle
1`)
	p := &Process{
		Rlimits: []Rlimit{{Type: "nofile", Soft: 20, Hard: 20}, {Type: "core", Soft: 0, Hard: 0}, {Type: "cpu", Soft: 100, Hard: 200}},
		Umask:   ptr(uint32(0)), OomScoreAdj: ptr(600), Personality: &Personality{Domain: "LINUX"},
		Scheduler: &Scheduler{Policy: "idle"}, IOPriority: &IOPriority{Class: "be", Priority: 6}, CPUAffinity: "0",
	}
	wantText(t, shAs(t, cfg, p, script), `Max cpu time 100 200 seconds
Max core file size 0 0
Max open files 20 20 files
0000
600
00000000
0 5
best-effort: prio 6
1`)
	cfg = testConfig(t)
	wantText(t, sh(t, cfg, "umask"), "0022")

	// What may not be had is an error.
	if os.Geteuid() != 0 {
		for step, p := range map[string]*Process{
			"rlimit":    {Rlimits: []Rlimit{{Type: "nofile", Soft: 1 << 30, Hard: 1 << 30}}},
			"scheduler": {Scheduler: &Scheduler{Policy: "fifo", Priority: 1}},
			"oom score": {OomScoreAdj: ptr(-1000)},
		} {
			p.Args = []string{"true"}
			_, err := runIn(t, cfg, p)
			var e *Error
			if !errors.As(err, &e) || e.Op != step || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
				t.Errorf("%s: %v", step, err)
			}
		}
	} else if mayLowerOOMScore() {
		wantText(t, shAs(t, cfg, &Process{OomScoreAdj: ptr(-200)}, "cat /proc/self/oom_score_adj"), "-200")
	}
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}, CPUAffinity: "8191"})
	wantError(t, err, "CPU affinity", unix.EINVAL)
}

// mayLowerOOMScore tells whether this root has CAP_SYS_RESOURCE on the host.
func mayLowerOOMScore() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective>>unix.CAP_SYS_RESOURCE&1 == 1
}

// A key in the caller's session keyring must not be found inside.
func TestKeyring(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaskPaths = nil // which hides /proc/keys
	const name = "container-test-key"
	runtime.LockOSThread() // for good: a session keyring belongs to a thread, which starts the container
	// The keyring of the user's session is created by its first use, and shared by the user's processes.
	id, err := unix.AddKey("user", name, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
	if err != nil {
		t.Skipf("needs keys: %v", err)
	}
	defer unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_SESSION_KEYRING, 0, 0)
	// Only who possesses it sees it: who has a keyring it is in.
	if err := unix.KeyctlSetperm(id, 0x3f000000); err != nil {
		t.Fatal(err)
	}
	script := `grep -c ` + name + ` /proc/keys; true`
	wantText(t, sh(t, cfg, script), "0")
	cfg.HostKeyring = true
	wantText(t, sh(t, cfg, script), "1")
}

func TestUser(t *testing.T) {
	cfg := rangeConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\n1000:x:0:0::/evil:/bin/sh\nevil:x:5:5::relative:/bin/sh\n:x:1:1::/:\nbroken\n",
		"etc/group":  "root:x:0:\nwww:x:33:\nextra:x:44:www\nmore:x:55:root,www,evil\n4:x:0:www\n",
	})
	const script = `echo $(awk '/^Uid/ { print $5 } /^Gid/ { print $5 } /^Groups/ { $1 = ""; print }' /proc/self/status) $HOME`
	for _, test := range []struct {
		user string
		more []string
		want string
	}{
		{"", nil, "0 0 0 /root"},
		{"root", nil, "0 0 0 55 /root"},
		{"www", nil, "33 33 0 33 44 55 /var/www"},
		{"33", nil, "33 33 33 /var/www"},
		{"www:extra", nil, "33 44 44 /var/www"},
		{"33:7", nil, "33 7 7 /var/www"},
		{"1000", nil, "1000 0 0 /"}, // CVE-2016-3697: a number is no name
		{"1000:1000", []string{"44", "more"}, "1000 1000 44 55 1000 /"},
		{"evil", nil, "5 5 5 55 /"}, // its home is no path
		{"77", nil, "77 0 0 /"},
	} {
		wantText(t, shAs(t, cfg, &Process{User: test.user, AdditionalGroups: test.more}, script), test.want)
	}
	for _, user := range []string{"nobody", "www:nogroup", "-1", "4294967295", "www:", ":www", "a b"} {
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}, User: user})
		var f *FieldError
		if !errors.As(err, &f) || f.Field != "User" || !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("user %q: %v", user, err)
		}
	}
}

// Passwd files that lead elsewhere.
func TestHostilePasswd(t *testing.T) {
	host := t.TempDir()
	writeTree(t, host, map[string]string{"passwd": "www:x:0:0::/:/bin/sh\n"})
	for name, make := range map[string]func(path string) error{
		"absolute link": func(path string) error { return os.Symlink(filepath.Join(host, "passwd"), path) },
		"relative link": func(path string) error {
			return os.Symlink("../../../../../../../../.."+filepath.Join(host, "passwd"), path)
		},
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o644) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"large":     func(path string) error { return os.WriteFile(path, make4M(), 0o644) },
		"loop":      func(path string) error { return os.Symlink("passwd", path) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			path := cfg.Root.Dir + "/etc/passwd"
			os.Remove(path)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			_, err := runIn(t, cfg, &Process{Args: []string{"true"}, User: "www"})
			var f *FieldError
			if !errors.As(err, &f) || f.Field != "User" {
				t.Errorf("%v", err)
			}
		})
	}
}

func make4M() []byte { return []byte(strings.Repeat("a:x:1:1::/:\n", 400000)) }

func TestWorkingDirectory(t *testing.T) {
	cfg := rangeConfig(t)
	root := cfg.Root.Dir
	outside := t.TempDir()
	unchanged(t, outside)
	if err := os.Mkdir(root+"/private", 0o700); err != nil {
		t.Fatal(err)
	}
	writeTree(t, root, map[string]string{"there/": "", "link": "-> " + outside, "up": "-> ../../../../../../../../../../../.." + outside, "inside": "-> /there"})
	for _, test := range []struct{ cwd, user, want string }{
		{"", "", "/"},
		{"/there", "", "/there"},
		{"/there/", "", "/there"},
		{"/new/a/b", "", "/new/a/b"},
		{"/inside", "", "/there"},
		{"/inside/../there", "", "/there"}, // cleaned as text
		{"/private", "33", "/private"},     // root may enter it
		{"/proc/self", "", ""},
	} {
		p := &Process{Cwd: test.cwd, User: test.user}
		got := shAs(t, cfg, p, "pwd -P; stat -c %a:%u . >/dev/null; true")
		if test.want != "" && strings.Split(got, "\n")[0] != test.want {
			t.Errorf("Cwd %q: in %s, want %s", test.cwd, got, test.want)
		}
	}
	if _, err := os.Stat(root + "/new/a/b"); err != nil {
		t.Error(err)
	}
	// Links lead to places inside, or nowhere.
	for _, cwd := range []string{"/link", "/up", "/link/new", "/up/new"} {
		out, err := runIn(t, cfg, &Process{Args: []string{"pwd", "-P"}, Cwd: cwd})
		wantError(t, err, "working directory", unix.ENOENT)
		if err == nil {
			t.Errorf("%s: in %s", cwd, out)
		}
	}
	if err := os.MkdirAll(root+outside, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, cwd := range []string{"/link", "/up"} {
		out, err := runIn(t, cfg, &Process{Args: []string{"pwd", "-P"}, Cwd: cwd})
		if err != nil || strings.TrimSpace(out) != outside {
			t.Errorf("%s: %q, %v", cwd, out, err)
		}
	}
	// A file is not a directory.
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}, Cwd: "/etc/passwd"})
	wantError(t, err, "working directory", unix.ENOTDIR)
}

// No directory of the host's that the caller has open can become the working directory or the executable.
func TestCVE_2024_21626(t *testing.T) {
	cfg := testConfig(t)
	outside := t.TempDir()
	for range 20 { // not close-on-exec, as those of a careless caller
		fd, err := unix.Open(outside, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	for n := 3; n <= 20; n++ {
		name := "/proc/self/fd/" + strconv.Itoa(n)
		writeTree(t, cfg.Root.Dir, map[string]string{"dir": "-> " + name})
		for _, cwd := range []string{name, "/dir", name + "/../..", "/dir/sub"} {
			if filepath.Clean(cwd) != cwd {
				continue // cleaned as text
			}
			out, err := runIn(t, cfg, &Process{Args: []string{"pwd"}, Cwd: cwd})
			var e *Error
			if !errors.As(err, &e) || e.Op != "working directory" {
				t.Errorf("Cwd %s: %q, %v", cwd, out, err)
			}
		}
		_, err := runIn(t, cfg, &Process{Args: []string{name + "/bin/true"}})
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The fourth is the directory that ls reads.
	if out, err := runIn(t, cfg, &Process{Args: []string{"ls", "/proc/self/fd"}}); err != nil || out != "0\n1\n2\n3\n" {
		t.Errorf("open: %q, %v", out, err)
	}
}

func TestOpenDescriptors(t *testing.T) {
	cfg := testConfig(t)
	r, w := pipe(t)
	fmt.Fprintln(w, "from outside")
	out, err := runIn(t, cfg, &Process{Args: []string{"ls", "/proc/self/fd"}, ExtraFiles: []*os.File{r, nil, w}})
	if err != nil || out != "0\n1\n2\n3\n4\n5\n" { // ls has opened 4
		t.Errorf("%q, %v", out, err)
	}
	out, err = runIn(t, cfg, &Process{Args: []string{"ls", "/proc/self/fd"}})
	if err != nil || out != "0\n1\n2\n3\n" {
		t.Errorf("%q, %v", out, err)
	}
	out, err = runIn(t, cfg, &Process{Args: []string{"sh", "-c", "read x <&3; echo $x; [ -c /dev/stdin ] && cat; echo again >/dev/stdout"}, ExtraFiles: []*os.File{r}})
	if err != nil || out != "from outside\nagain\n" {
		t.Errorf("%q, %v", out, err)
	}
	// /dev/stdout is the user's too.
	cfg = rangeConfig(t)
	wantText(t, shAs(t, cfg, &Process{User: "33"}, "echo mine >/dev/stdout"), "mine")
}

func TestExecutables(t *testing.T) {
	cfg := testConfig(t)
	root := cfg.Root.Dir
	writeTree(t, root, map[string]string{
		"bin/no-x": "#!/bin/sh\n", "a/dir/": "", "a/both": "#!/bin/sh\necho a", "b/both": "#!/bin/sh\necho b", "b/dir": "#!/bin/sh\necho b/dir",
		"bin/no-interpreter": "#!/missing\n", "bin/no-format": "no format", "here": "#!/bin/sh\necho here", "bin/empty": "",
		"a/denied": "#!/bin/sh\n", "b/denied": "#!/bin/sh\necho second", "bin/loop": "-> loop",
	})
	for _, name := range []string{"a/both", "b/both", "b/dir", "bin/no-interpreter", "bin/no-format", "here", "b/denied", "bin/empty"} {
		if err := os.Chmod(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args0, path, cwd string
		want             string
		err              error
	}{
		{"missing", "", "", "", ErrNotFound},
		{"/missing", "", "", "", ErrNotFound},
		{"missing/slash", "", "", "", ErrNotFound},
		{"no-x", "", "", "", ErrNotExecutable},
		{"/bin/no-x", "", "", "", ErrNotExecutable},
		{"/etc", "", "", "", ErrNotExecutable},
		{"/etc/passwd", "", "", "", ErrNotExecutable},
		{"/etc/passwd/x", "", "", "", ErrNotFound},
		{"no-interpreter", "", "", "", ErrNotFound},
		{"no-format", "", "", "", ErrNotExecutable},
		{"empty", "", "", "", ErrNotExecutable},
		{"loop", "", "", "", ErrNotFound},
		{"both", "/a:/b", "", "a", nil},
		{"both", "/b:/a", "", "b", nil},
		{"both", "/missing:/b:/a", "", "b", nil},
		{"dir", "/a:/b", "", "b/dir", nil},
		{"denied", "/a:/b", "", "second", nil},
		{"here", "/bin", "/", "", ErrNotFound},
		{"here", ".:/bin", "/", "", ErrNotFound},
		{"here", ":/bin:", "/", "", ErrNotFound},
		{"here", "a:/bin", "/", "", ErrNotFound},
		{"./here", "/bin", "/", "here", nil},
		{"../b/both", "/bin", "/a", "b", nil},
		{"sh", "", "", "", ErrNotFound}, // PATH is empty
	} {
		p := &Process{Args: []string{test.args0}, Cwd: test.cwd}
		if test.path != "" || test.args0 == "sh" {
			p.Env = []string{"PATH=" + test.path}
		}
		out, err := runIn(t, cfg, p)
		if strings.TrimSpace(out) != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s in %q: %q, %v", test.args0, test.path, out, err)
		}
		if test.err != nil {
			if e := wantError(t, err, "execute", nil); e.Path != test.args0 {
				t.Errorf("%s: names %q", test.args0, e.Path)
			}
		}
	}
	// noexec is seen before execve.
	cfg.Mounts = append(cfg.Mounts, Mount{Type: "bind", Source: root + "/b", Target: "/noexec", Flags: NoExec})
	_, err := runIn(t, cfg, &Process{Args: []string{"/noexec/both"}})
	if !errors.Is(err, ErrNotExecutable) {
		t.Errorf("noexec: %v", err)
	}
}

// A process that was started is not to be looked into by others before it has executed: it becomes
// not dumpable before it joins anybody, and again when its user has changed.
func TestNotDumpableBeforeExecute(t *testing.T) {
	cfg := testConfig(t)
	list, err := Explain(cfg, &Process{Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	const call = "prctl(4)"
	first, clone, user := strings.Index(list, call), strings.Index(list, "clone("), strings.LastIndex(list, "setresuid(")
	if first < 0 || clone < first || strings.LastIndex(list, call) < user {
		t.Errorf("%d, %d, %d in\n%s", first, clone, user, list)
	}
}
