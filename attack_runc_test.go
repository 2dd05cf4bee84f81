//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attacks what runc, libcontainer and the Docker of their time got wrong. The wider tests of the same kind are in
// attack_test.go.

// linksTo are the ways in which a link of the container's names a place of the host's.
func linksTo(place string) []string {
	return []string{place, up + place, "/proc/self/root" + place, "/proc/1/cwd" + place, "/../../.." + place}
}

// attackTargets starts containers in which links lie where files and directories are mounted: layout makes them, to lead to the
// canary. The start fails, or all is inside.
func attackTargets(t *testing.T, layout func(cfg *Config, to string) (script string)) {
	t.Helper()
	leak.Check(t)
	canary := newCanary(t)
	for _, to := range linksTo(canary) {
		cfg := attackConfig(t)
		script := layout(&cfg, to)
		out, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", script + "; awk '{ print $5 }' /proc/self/mountinfo; echo end"}})
		if err != nil {
			typed(t, to, err)
			t.Logf("%s: %v", to, err)
		} else if !strings.HasSuffix(out, "end\n") {
			t.Errorf("%s: %s", to, out)
		}
		notOurs(t, to, out, err, "canary\n", "canaryours")
	}
}

// The paths of mounts were joined to the root's, and what was a link on the way was followed on the host.
func TestCVE_2019_18837(t *testing.T) {
	source := t.TempDir()
	writeTree(t, source, map[string]string{"file": "ours"})
	attackTargets(t, func(cfg *Config, to string) string {
		writeTree(t, cfg.Root.Dir, map[string]string{"mnt": "-> " + to, "deep/er": "-> " + to + "/dir"})
		*cfg = with(*cfg,
			Mount{Type: "bind", Source: source, Target: "/mnt/new"},
			Mount{Type: "bind", Source: source + "/file", Target: "/mnt/file"},
			Mount{Type: "tmpfs", Target: "/deep/er/sub"})
		return "echo attack >/mnt/file; echo attack >/deep/er/sub/file"
	})
}

// What the container has left as links at its last run is where the next one mounts.
func TestCVE_2015_3629(t *testing.T) {
	source := t.TempDir()
	writeTree(t, source, map[string]string{"file": "ours"})
	attackTargets(t, func(cfg *Config, to string) string {
		first := *cfg
		first.Mounts = append(first.Mounts, Mount{Type: "bind", Source: source, Target: "/data/dir/made"})
		sh(t, first, "cat /data/dir/made/file")
		sh(t, *cfg, "rm -rf /data && ln -s "+to+" /data && rm -rf /proc /sys 2>/dev/null; readlink /data")
		*cfg = first
		return "echo attack >/data/dir/made/new"
	})
}

// A file of the configuration is put into a volume in which the container has made a link of its name.
func TestCVE_2025_9566(t *testing.T) {
	source := t.TempDir()
	writeTree(t, source, map[string]string{"file": "ours"})
	attackTargets(t, func(cfg *Config, to string) string {
		volume := t.TempDir()
		writeTree(t, volume, map[string]string{"config": "-> " + to + "/file", "dir": "-> " + to + "/dir"})
		*cfg = with(*cfg,
			Mount{Type: "bind", Source: volume, Target: "/vol"},
			Mount{Type: "bind", Source: source + "/file", Target: "/vol/config"},
			Mount{Type: "bind", Source: source + "/file", Target: "/vol/dir/config"})
		return "cat /vol/config"
	})
}

// The descriptors of a container's first process were opened by names in its image: /dev/null was a link.
func TestCVE_2015_3627(t *testing.T) {
	canary := newCanary(t)
	for _, to := range linksTo(canary + "/file") {
		cfg := attackConfig(t)
		attackerIn(t, cfg.Root.Dir)
		writeTree(t, cfg.Root.Dir, map[string]string{"dev/null": "-> " + to, "dev/zero": "-> " + to})
		attackNull(t, cfg)
	}
}

// attackNull starts a process without streams, whose /dev/null must be the kernel's whatever the image has in its place.
func attackNull(t *testing.T, cfg Config) {
	t.Helper()
	out := filepath.Join(cfg.Root.Dir, "tmp/out")
	for _, extra := range []string{"", "exec"} {
		c := lifeNew(t, cfg)
		p := &Process{Args: []string{"sh", "-c", "/attacker >/tmp/out"}, Env: attack("probe").Env}
		run := c.Run
		if extra != "" {
			if err := c.Run(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
				t.Fatal(err)
			}
			run = c.Exec
		}
		if err := run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		err := lifeWait(t, p.Wait)
		text, rerr := os.ReadFile(out)
		got := parseProbe(t, string(text), errors.Join(err, rerr))
		got.only(t, 0, 1, 2)
		for _, fd := range []int{0, 2} {
			if f := got.FDs[fd]; f.Mode&unix.S_IFMT != unix.S_IFCHR || f.Rdev != unix.Mkdev(1, 3) {
				t.Errorf("descriptor %d is %+v", fd, f)
			}
			for _, m := range got.Mounts { // it was opened by the caller, on no mount of the container's
				if id, _, _ := strings.Cut(m, " "); extra == "" && id == itoa(int(got.FDs[fd].Mount)) && got.FDs[fd].Mount != 0 {
					t.Errorf("descriptor %d is on %s", fd, m)
				}
			}
		}
		if err := c.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
}

// Files of /proc that act on the host could be written by the container's root.
func TestCVE_2015_3630(t *testing.T) {
	devModes(t, func(t *testing.T, cfg Config) {
		cfg.Seccomp = nil
		// To whom the mode does not allow it, root, there is nothing that writes; nor to what is a mask.
		got := sh(t, cfg, `find /proc /sys -maxdepth 4 -path '/proc/[0-9]*' -prune -o -path /proc/self -prune -o -path /proc/thread-self -prune -o -path /proc/pressure -prune -o -type f -perm /222 -print 2>/dev/null |
			while read f; do (: >>"$f") 2>/dev/null && [ -s "$f" ] && echo "$f"; done; true`)
		wantText(t, got, "")
	})
}

// Volumes of an image lay over files of /proc that security modules are set by.
func TestCVE_2015_3631(t *testing.T) {
	volume := t.TempDir()
	writeTree(t, volume, map[string]string{"exec": "", "attr/exec": "", "self/attr/exec": ""})
	unchanged(t, volume)
	for _, target := range []string{"/proc", "/proc/self", "/proc/self/attr", "/proc/thread-self/attr/exec", "/proc/sys/kernel", "/proc/../proc/1", "//proc/./self", "/sys"} {
		cfg := attackConfig(t)
		out, err := runIn(t, with(cfg, Mount{Type: "bind", Source: volume, Target: target}), &Process{Args: []string{"mount"}})
		if err == nil {
			t.Errorf("%s: %s", target, out)
		}
		typed(t, target, err)
	}
}

// The same by a link, with a tree that looks like /proc: labels were written to its files.
func TestCVE_2019_16884(t *testing.T) {
	volume := t.TempDir()
	writeTree(t, volume, map[string]string{"self/attr/exec": "", "thread-self/attr/exec": "", "1/attr/exec": "", "sys/kernel/msgmax": ""})
	unchanged(t, volume)
	for target, to := range map[string]string{"/data": "/proc", "/data/self": "/proc", "/a/b": "../proc/../proc", "/x/y/z": "/proc/thread-self"} {
		cfg := attackConfig(t)
		writeTree(t, cfg.Root.Dir, map[string]string{strings.Trim(strings.TrimSuffix(target, "/self"), "/"): "-> " + to})
		cfg.Sysctl = map[string]string{"kernel.msgmax": "4321"}
		_, err := runIn(t, with(cfg, Mount{Type: "bind", Source: volume, Target: target}), &Process{Args: []string{"true"}})
		var e *Error
		if !errors.As(err, &e) || e.Op != "mount" {
			t.Errorf("%s -> %s: %v", target, to, err)
		}
	}
}

// A link /proc of the image's leads to a tree of its own, whose attr/exec takes the label and does nothing.
func TestCVE_2023_28642(t *testing.T) {
	for _, to := range []string{"fake", "/fake", "/etc/../fake", up + "fake"} {
		cfg := attackConfig(t)
		writeTree(t, cfg.Root.Dir, map[string]string{"fake/self/attr/exec": "", "fake/thread-self/attr/exec": "", "fake/sys/kernel/msgmax": "", "proc": "-> " + to})
		unchanged(t, cfg.Root.Dir+"/fake")
		cfg.Sysctl = map[string]string{"kernel.msgmax": "4321"}
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		wantError(t, err, "mount", unix.ELOOP)
	}
}

// The image's /proc is a directory when it is looked at and a link when it is mounted on.
func TestCVE_2023_27561(t *testing.T) { attackKernelTreeRace(t, "proc", "proc") }

// The same in another runtime, with /sys; both could lead to the host's root.
func TestCVE_2025_54867(t *testing.T) { attackKernelTreeRace(t, "sys", "sysfs") }

func attackKernelTreeRace(t *testing.T, tree, fsType string) {
	cfg, canary := attackConfig(t), newCanary(t)
	root := cfg.Root.Dir
	writeTree(t, root, map[string]string{tree + "/": "", "link": "-> " + up + canary})
	// The names go on changing, so it looks for /proc under both. All that is mounted on that tree must be, masks and all.
	const mounts = `until m=$(cat /proc/self/mountinfo 2>/dev/null || cat /link/self/mountinfo 2>/dev/null) && [ "$m" ]; do :; done; echo "$m" | `
	script := mounts + `grep -cE ' /(` + tree + `|link)(/[^ ]*)? '`
	want := sh(t, cfg, script) + "\n"
	racer(t, root+"/"+tree, root+"/link")
	raceStarts(t, rounds(40, 2000), cfg, Process{Args: []string{"sh", "-c", script}}, want, func() {})
}

// Files through which a container is managed could be written by everybody on the host, depending on the umask.
func TestCVE_2014_3499(t *testing.T) {
	leak.Check(t)
	old := unix.Umask(0)
	defer unix.Umask(old)
	for _, detached := range []bool{false, true} {
		cfg := attackConfig(t)
		cfg.Detached = detached
		stateDir := filepath.Join(t.TempDir(), "made", "state")
		c, err := New(stateDir, "open", cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		n := 0
		err = filepath.WalkDir(stateDir, func(path string, d os.DirEntry, err error) error {
			if info, ierr := os.Lstat(path); ierr != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", path, info.Mode(), ierr)
			}
			n++
			return err
		})
		if err != nil || n < 4 {
			t.Errorf("%d files, %v", n, err)
		}
		if err := c.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
}

// The same as CVE-2019-5736 where the patch was forgotten: here by Exec, of a container that has had its time to prepare.
func TestCVE_2020_14298(t *testing.T) {
	leak.Check(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unchanged(t, exe)
	cfg := withAllCaps(attackConfig(t))
	attackerIn(t, cfg.Root.Dir)
	c := execSleeper(t, cfg)
	execSh(t, c, Process{}, `echo '#!/proc/self/exe' >/script; chmod 755 /script; ln -s /proc/self/exe /link; ln -sf /proc/self/exe /bin/ls; rm -f /bin/id; echo '#!/proc/thread-self/exe' >/bin/id; chmod 755 /bin/id`)
	for _, entry := range []string{"/proc/self/exe", "/proc/thread-self/exe", "/script", "/link", "ls", "id"} {
		if out, err := execIn(t, c.Exec, &Process{Args: []string{entry, "-test.run=^$"}}); err == nil || strings.Contains(out, "PASS") {
			t.Errorf("%s ran: %q, %v", entry, out, err)
		}
	}
	p := attack("exe")
	var out bytes.Buffer
	p.Stdout, p.Stderr = &out, &out
	if err := c.Exec(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for range rounds(25, 2000) {
		execIn(t, c.Exec, &Process{Args: []string{"true"}})
	}
	if err := p.Wait(); err != nil || strings.Contains(out.String(), "worked") {
		t.Errorf("%s, %v", &out, err)
	}
}

// The same as CVE-2016-9962 where the patch was forgotten: here with a terminal, for which the launcher holds more
// descriptors than for anything else.
func TestCVE_2020_14300(t *testing.T) {
	attackExecs(t, rounds(60, 2000), func() *Process { return &Process{Args: []string{"true"}, Tty: true} })
}

// A message to the process inside was longer than the 16 bits of its length: what came after it was taken for the namespaces that
// were to be made.
func TestCVE_2021_43784(t *testing.T) {
	leak.Check(t)
	long := strings.Repeat("x", 70000)
	cfg := attackConfig(t)
	cfg.Namespaces.NewNet, cfg.Namespaces.Join = false, map[NamespaceKind]string{NetworkNamespace: "/" + long}
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	typed(t, "a namespace's path", err)

	cfg = attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	own := map[string]string{}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		own[kind], _ = os.Readlink("/proc/self/ns/" + kind)
	}
	for _, size := range []int{65535, 65536, 65537, 70000, 131000} {
		value := strings.Repeat("v", size)
		got := probeIn(t, cfg, Process{Env: []string{"LONG=" + value, "AGAIN=" + value, "LAST=1"}})
		if e := strings.Join(got.Env, "\n"); !strings.Contains(e, "LONG="+value+"\nAGAIN="+value+"\nLAST=1\n") {
			t.Errorf("%d: the environment has %d bytes", size, len(e))
		}
		for kind, link := range own {
			if got.Namespace[kind] == link {
				t.Errorf("%d: the %s namespace is the caller's", size, kind)
			}
		}
		got.wantStatus(t, "NoNewPrivs", "1")
	}
}

// A device cgroup denied what it listed instead of allowing it: whoever may make a node opens the host's memory and disks.
func TestGO_2022_0396(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Cgroup, deviceCgroup)
	leak.Check(t)
	cfg := attackConfig(t)
	cfg.Namespaces.NewUser = false
	caps := append(DefaultCapabilities(), "CAP_MKNOD")
	cfg.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}
	cfg.Resources = &Resources{Devices: DefaultDeviceRules()}
	cfg = with(cfg, Mount{Type: "tmpfs", Target: "/nodes", ClearFlags: NoDev})
	got := sh(t, cfg, `cd /nodes; for n in "c 1 1" "c 1 2" "c 1 4" "b 7 0" "b 8 0" "b 254 0" "b 259 0" "c 10 237" "c 1 11" "c 10 200"; do
			mknod x $n && { (: <x) 2>&1 | sed "s/^.*: /$n /"; (: >>x) 2>/dev/null && echo "$n opened"; rm x; }; done
		mknod x c 1 3 && echo usable >x && echo usable`)
	wantText(t, got, strings.ReplaceAll("c 1 1, c 1 2, c 1 4, b 7 0, b 8 0, b 254 0, b 259 0, c 10 237, c 1 11, c 10 200, ", ", ", " Operation not permitted\n")+"usable")
}

// attackInheritable makes a program with file capabilities for those who have them inheritable, and runs it as a user who was not
// to have any. With inheritable ones, control, it has them: the attack is real.
func attackInheritable(t *testing.T, attempt func(t *testing.T, c *Container) insight, control bool) {
	t.Helper()
	leak.Check(t)
	cfg := rangeConfig(t)
	cfg.Seccomp, cfg.NoNewPrivileges = nil, false
	attackerIn(t, cfg.Root.Dir)
	if err := exec.Command("cp", cfg.Root.Dir+"/attacker", cfg.Root.Dir+"/capped").Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cfg.Root.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := runIn(t, cfg, attack("filecaps", "/capped")); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	attempt(t, lifeStart(t, cfg, lifeSh("sleep 1000"))).wantStatus(t, "CapInh", "0000000000000000", "CapAmb", "0000000000000000")
	if control {
		caps := DefaultCapabilities()
		cfg.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps}
		p := Process{User: "1000:1000", Args: []string{"/capped"}, Env: attack("probe").Env}
		out, err := runIn(t, cfg, &p)
		if got := parseProbe(t, out, err); got.Status["CapPrm"] == "0000000000000000" {
			t.Errorf("the file capabilities are none: %v", got.Status)
		}
	}
}

// nothing checks that a process has no capabilities at all.
func (p insight) nothing(t testing.TB) insight {
	t.Helper()
	p.wantStatus(t, "CapPrm", "0000000000000000", "CapEff", "0000000000000000")
	return p
}

// cappedIn executes the program with file capabilities.
func cappedIn(t *testing.T, start func(context.Context, *Process) error, p Process) insight {
	t.Helper()
	p.Args, p.Env = append(p.Args, "/capped"), attack("probe").Env
	out, err := execIn(t, start, &p)
	return parseProbe(t, out, err)
}

// The inheritable set of a container's first process was not empty: file capabilities gave a user what root had.
func TestCVE_2022_27649(t *testing.T) {
	attackInheritable(t, func(t *testing.T, c *Container) insight {
		out, err := runIn(t, c.cfg, &Process{User: "1000:1000", Args: []string{"/capped"}, Env: attack("probe").Env})
		return parseProbe(t, out, err).nothing(t)
	}, true)
}

// The same for what is executed in it.
func TestCVE_2022_29162(t *testing.T) {
	attackInheritable(t, func(t *testing.T, c *Container) insight {
		return cappedIn(t, c.Exec, Process{User: "1000:1000"}).nothing(t)
	}, false)
}

// The same for root, which hands them on to users that it becomes.
func TestCVE_2022_27650(t *testing.T) {
	attackInheritable(t, func(t *testing.T, c *Container) insight {
		out, err := execIn(t, c.Exec, attack("become", "1000", "/capped"))
		return parseProbe(t, out, err).nothing(t)
	}, false)
}

// The same where capabilities were asked for: they were to be permitted and effective, and became inheritable as well.
func TestCVE_2025_27612(t *testing.T) {
	attackInheritable(t, func(t *testing.T, c *Container) insight {
		caps := []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE"}
		p := Process{Capabilities: &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}}
		got := cappedIn(t, c.Exec, p)
		if got.Status["CapEff"] == "0000000000000000" {
			t.Error("root has none of those that were asked for")
		}
		p.User = "1000:1000"
		return cappedIn(t, c.Exec, p).nothing(t)
	}, false)
}
