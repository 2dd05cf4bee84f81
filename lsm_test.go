//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// loadProfile loads a profile that allows everything but what the rules deny, and returns its name.
func loadProfile(t testing.TB, name, rules string) string {
	t.Helper()
	name = fmt.Sprintf("container-test-%s-%d", name, os.Getpid())
	file := filepath.Join(t.TempDir(), "profile")
	text := "profile " + name + " flags=(attach_disconnected,mediate_deleted) {\n" +
		"file,\ncapability,\nnetwork,\nmount,\nremount,\numount,\npivot_root,\nsignal,\nptrace,\nunix,\ndbus,\nchange_profile,\n" + rules + "\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	parser := testenv.LookPath("apparmor_parser")
	if out, err := exec.Command(parser, "-K", "-r", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(parser, "-K", "-R", file).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	return name
}

// labelConfig is a container with two files that profiles of the tests deny.
func labelConfig(t testing.TB) Config {
	cfg := testConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{"etc/one": "1\n", "etc/two": "2\n"})
	return cfg
}

// tellLabel tells the label of the process, and which of the files it may read.
const tellLabel = `cat /proc/self/attr/current /etc/one /etc/two 2>/dev/null; true`

// toFile is a process that writes to a file, so that its plan does not depend on pipes, and what reads that.
func toFile(t testing.TB, script string) (p *Process, read func() string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &Process{Args: []string{"sh", "-c", script}, Stdout: f, Stderr: f}, func() string {
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// TestAppArmor runs programs under a profile: in a start and in the others ways in, by lsm_set_self_attr and by the file.
func TestAppArmor(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.AppArmor)
	one := loadProfile(t, "one", "deny /etc/one r,")
	two := loadProfile(t, "two", "deny /etc/two r,")
	base := labelConfig(t)
	base.AppArmorProfile = one
	byFile := func(c *Container) {
		c.fault = &launch.Fault{Op: callIn(t, planOf(t, c.cfg, &Process{Args: []string{"sh", "-c", tellLabel}}), "lsm_set_self_attr("), Errno: unix.ENOSYS}
	}
	for name, change := range map[string]func(*Config){
		"user namespace": func(*Config) {},
		"root":           func(cfg *Config) { cfg.Namespaces.NewUser = false },
		"privileges":     func(cfg *Config) { cfg.NoNewPrivileges = false },
		"init":           func(cfg *Config) { cfg.Init = true },
		"detached":       func(cfg *Config) { cfg.Detached = true },
		"host's pids":    func(cfg *Config) { cfg.Namespaces.NewPID, cfg.Namespaces.NewUser = false, false },
	} {
		for _, way := range []string{"call", "file"} {
			t.Run(name+" by "+way, func(t *testing.T) {
				leak.Check(t)
				cfg := base
				change(&cfg)
				c, err := New(t.TempDir(), "label", cfg)
				if err != nil {
					t.Fatal(err)
				}
				if way == "file" {
					byFile(c)
				}
				p, read := toFile(t, tellLabel)
				if out, err := runOnce(t, c, p); err != nil {
					t.Fatal(out, err)
				}
				wantText(t, read(), one+" (enforce)\n2\n")
			})
		}
	}
	t.Run("exec", func(t *testing.T) {
		leak.Check(t)
		c := execSleeper(t, base)
		wantText(t, execSh(t, c, Process{}, tellLabel), one+" (enforce)\n2")
		wantText(t, execSh(t, c, Process{AppArmorProfile: two}, tellLabel), two+" (enforce)\n1")
		wantText(t, execSh(t, c, Process{AppArmorProfile: unconfined}, tellLabel), "unconfined\n1\n2")
		// What the container has made of its /proc does not matter.
		all := &Capabilities{Bounding: AllCapabilities(), Effective: AllCapabilities(), Permitted: AllCapabilities()}
		execSh(t, c, Process{Capabilities: all}, "mount -t tmpfs tmpfs /proc && mkdir -p /proc/thread-self/attr/apparmor && touch /proc/thread-self/attr/apparmor/exec /proc/thread-self/attr/exec")
		wantText(t, execSh(t, c, Process{}, "cat /etc/one /etc/two 2>/dev/null; true"), "2")
		target, err := c.target()
		if err != nil {
			t.Fatal(err)
		}
		defer target.close()
		p, read := toFile(t, "cat /etc/one /etc/two 2>/dev/null; true")
		pl, err := newJoinPlan(&c.cfg, p, stdioFiles{}, target)
		if err != nil {
			t.Fatal(err)
		}
		pl.closeAll()
		c.fault = &launch.Fault{Op: callIn(t, pl, "lsm_set_self_attr("), Errno: unix.ENOSYS}
		if err := errors.Join(c.Exec(context.Background(), p), p.Wait()); err != nil {
			t.Fatal(err)
		}
		wantText(t, read(), "2\n")
		c.fault.Errno, c.fault.Skip = 0, true
		p, _ = toFile(t, "sleep 100")
		wantUnverified(t, c.Exec(context.Background(), p), "AppArmorProfile")
		c.fault = nil
	})
	t.Run("create", func(t *testing.T) {
		leak.Check(t)
		c, err := New(t.TempDir(), "label", base)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Destroy()
		var out strings.Builder
		p := &Process{Args: []string{"sh", "-c", tellLabel}, Stdout: &out}
		if err := errors.Join(c.Create(context.Background(), p), c.Start(context.Background()), c.Wait()); err != nil {
			t.Fatal(err)
		}
		wantText(t, out.String(), one+" (enforce)\n2\n")
	})
	t.Run("skipped", func(t *testing.T) {
		leak.Check(t)
		for _, init := range []bool{false, true} {
			cfg := base
			cfg.Init = init
			skipLabel(t, cfg)
		}
	})
	t.Run("missing", func(t *testing.T) {
		leak.Check(t)
		cfg := base
		cfg.AppArmorProfile = "container-test-no-such"
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		if e := wantError(t, err, "AppArmor profile", unix.ENOENT); !strings.Contains(e.Remedy, "apparmor_parser") {
			t.Errorf("the remedy is %q", e.Remedy)
		}
	})
	t.Run("stack", func(t *testing.T) {
		leak.Check(t)
		cfg := base
		cfg.AppArmorStack = true
		label, rest, _ := strings.Cut(sh(t, cfg, tellLabel), "\n") // on top of nothing
		if has := profilesOf(label); len(has) != 1 || !has[one] || rest != "2" {
			t.Errorf("the label is %q, and it reads %q", label, rest)
		}
		asLabelled(t, two, &syscall.SysProcAttr{}, one, "stack")
	})
	t.Run("ordinary user", func(t *testing.T) {
		asLabelled(t, "", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}, one, "")
	})
}

// skipLabel leaves the call out: the program has run for a moment, and is killed.
func skipLabel(t *testing.T, cfg Config) {
	t.Helper()
	p := &Process{Args: []string{"sleep", "1000"}}
	c, err := New(t.TempDir(), "label", cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.fault = &launch.Fault{Op: callIn(t, planOf(t, cfg, p), "lsm_set_self_attr("), Skip: true}
	wantUnverified(t, c.Run(context.Background(), p), "AppArmorProfile")
	if status, err := c.Status(); status == StatusRunning || err != nil {
		t.Errorf("the container is %s, %v", status, err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
}

const labelVar = "CONTAINER_TEST_APPARMOR"

// asLabelled runs TestAppArmorHelper in a process of its own.
func asLabelled(t *testing.T, as string, attr *syscall.SysProcAttr, profile, how string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{program, "-test.run=^TestAppArmorHelper$", "-test.v"}
	if as != "" {
		args = append([]string{testenv.LookPath("aa-exec"), "-p", as, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = attr
	cmd.Env = append(os.Environ(), labelVar+"="+profile+" "+how, "TMPDIR=/tmp", "HOME=/tmp")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAppArmorHelper") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAppArmorHelper is a part of TestAppArmor for callers that are confined or have no rights.
func TestAppArmorHelper(t *testing.T) {
	profile, how, ok := strings.Cut(os.Getenv(labelVar), " ")
	if !ok {
		t.Skip("for TestAppArmor")
	}
	cfg := labelConfig(t)
	cfg.AppArmorProfile, cfg.AppArmorStack = profile, how == "stack"
	out := sh(t, cfg, tellLabel)
	if how != "stack" {
		wantText(t, out, profile+" (enforce)\n2")
		c := execSleeper(t, cfg)
		wantText(t, execSh(t, c, Process{}, tellLabel), profile+" (enforce)\n2")
		return
	}
	label, rest, _ := strings.Cut(out, "\n")
	own, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		t.Fatal(err)
	}
	if has := profilesOf(label); len(has) != 2 || !has[profile] || !strings.HasPrefix(string(own), "container-test-two") || rest != "" {
		t.Errorf("stacked on %s, the label is %s, and it reads %q", own, label, rest)
	}
}

// TestLabelsAbsent asks for what the kernel does not have.
func TestLabelsAbsent(t *testing.T) {
	leak.Check(t)
	for field, change := range map[string]func(*Config){
		"AppArmorProfile": func(cfg *Config) { cfg.AppArmorProfile = "some" },
		"SelinuxLabel":    func(cfg *Config) { cfg.SelinuxLabel = "a:b:c:s0" },
		"MountLabel":      func(cfg *Config) { cfg.MountLabel = "a:b:c:s0" },
	} {
		if field == "AppArmorProfile" && appArmorEnabled() || field != "AppArmorProfile" && selinuxEnabled() {
			continue
		}
		cfg := testConfig(t)
		change(&cfg)
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		var f *FieldError
		if !errors.Is(err, ErrUnsupported) || !errors.As(err, &f) || f.Field != field || !strings.Contains(f.Problem, "boot with") {
			t.Errorf("%s: %v", field, err)
		}
	}
	cfg := testConfig(t)
	cfg.AppArmorProfile = unconfined
	sh(t, cfg, "true")
}

// TestLabelNames refuses names that would mean something else to the kernel.
func TestLabelNames(t *testing.T) {
	for _, bad := range []string{"a\nb", "a\x00", " a", "a ", strings.Repeat("x", maxLabel+1)} {
		cfg := DefaultConfig()
		cfg.Root = Directory("/x")
		cfg.AppArmorProfile = bad
		if err := cfg.validate(); !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "AppArmorProfile") {
			t.Errorf("%.20q: %v", bad, err)
		}
		if err := (&Process{Args: []string{"x"}, SelinuxLabel: "a:b:c" + bad + "\t"}).validate(); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	cfg := DefaultConfig()
	cfg.Root = Directory("/x")
	cfg.AppArmorStack, cfg.MountLabel = true, "nothing"
	err := cfg.validate()
	if err == nil || !strings.Contains(err.Error(), "AppArmorStack") || !strings.Contains(err.Error(), "MountLabel") {
		t.Errorf("got %v", err)
	}
}

// TestLabelsCompared takes labels as kernels show them.
func TestLabelsCompared(t *testing.T) {
	for _, x := range []struct {
		has, want string
		same      bool
	}{
		{"a (enforce)\n", "a", true},
		{"a (complain)", "a", true},
		{"a//b (enforce)", "a//b", true},
		{"unconfined\n", "unconfined", true},
		{"a//&b (enforce)", "b//&a", true},
		{"a (enforce)//&b (complain)", "b//&a (enforce)", true},
		{"a//&unconfined (enforce)", "a", true},
		{"a (enforce)", "a//&unconfined", true},
		{"unconfined", "a", false},
		{"a//&b (enforce)", "a", false},
		{"a (enforce)", "a//&b", false},
		{"a//b (enforce)", "a", false},
		{"", "a", false},
	} {
		r := runningCheck{AppArmor: x.want}
		if same := r.sameAppArmor(x.has); same != x.same {
			t.Errorf("%q for %q: %t", x.has, x.want, same)
		}
	}
}

// TestLabelNotThroughFakes writes the attribute where something is mounted over it, or /proc is no procfs.
func TestLabelNotThroughFakes(t *testing.T) {
	leak.Check(t)
	if f, err := openProcFS(t.TempDir()); err == nil {
		f.Close()
		t.Error("a directory passes for procfs")
	}
	testenv.Need(t, testenv.Root)
	for _, x := range []struct {
		over  string
		ours  bool // the descriptor is of the caller's mount namespace, as in a start
		call  string
		errno unix.Errno
	}{
		{"/proc/thread-self/attr", false, "openat2", unix.EXDEV},
		{"/proc/thread-self/attr/exec", false, "openat2", unix.EXDEV},
		{"/proc/thread-self/attr", true, "write", unix.EINVAL}, // what is mounted in the container's does not matter: it is the kernel that knows no "x"
		{"/proc/thread-self/attr/exec", true, "write", unix.EINVAL},
	} {
		proc, err := openProcFS("/proc")
		if err != nil {
			t.Fatal(err)
		}
		e := emitter{launch.New(0), make(map[[4]launch.Arg]launch.Arg)}
		e.Call(unix.SYS_UNSHARE, unix.CLONE_NEWNS)
		e.Call(unix.SYS_MOUNT_SETATTR, cwdFD, e.Str("/"), unix.AT_RECURSIVE, e.Words(0, 0, unix.MS_PRIVATE, 0), 32)
		if strings.HasSuffix(x.over, "attr") {
			e.Call(unix.SYS_MOUNT, e.Str("tmpfs"), e.Str(x.over), e.Str("tmpfs"), 0, 0)
		} else {
			e.Call(unix.SYS_MOUNT, e.Str("/dev/null"), e.Str(x.over), 0, unix.MS_BIND, 0)
		}
		dir := e.File(proc)
		if !x.ours {
			dir = e.open(cwdFD, "/proc", unix.O_PATH|unix.O_DIRECTORY, 0, 0).Result()
		}
		e.Step("label", "")
		// The call is for a module that this kernel does not have, or comes before it had such a call.
		e.setSelfAttr(dir, lsmAttr{1 << 20, lsmAttrExec, []string{"exec"}}, "x")
		e.Exit(0)
		err = runToEnd("label", e.Program, t.TempDir())
		proc.Close()
		if e := wantError(t, err, "label", x.errno); e != nil && !strings.Contains(err.Error(), x.call) {
			t.Errorf("%s: %v", x.over, err)
		}
	}
}
