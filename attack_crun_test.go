//go:build linux

package container

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// This file attacks what crun, youki, bubblewrap, util-linux, LXC and CRI-O got wrong.

// A user that is a number was parsed to 0:0.
func TestCVE_2026_30892(t *testing.T) {
	leak.Check(t)
	cfg := rangeConfig(t)
	cfg.Seccomp = nil
	c := execSleeper(t, cfg)
	for user, want := range map[string]string{"1": "1:0", "1:1": "1:1", "1:44": "1:44", "0:1": "0:1", "www:1": "33:1", "65533": "65533:0", "007": "7:0"} {
		wantText(t, execSh(t, c, Process{User: user}, "echo $(id -u):$(id -g)"), want)
	}
	for _, user := range []string{":", "1:", ":1", "-1", "1:-1", "+1", "1:+1", "0x1", "1e0", " 1", "1 ", "1:1:1", "4294967295", "4294967296", "4294967297", "1:4294967296", "18446744073709551617", "1\x00", "\u0661"} {
		_, err := execIn(t, c.Exec, &Process{Args: []string{"id"}, User: user})
		var f *FieldError
		if !errors.As(err, &f) || f.Field != "User" {
			t.Errorf("%q: %v", user, err)
		}
	}
}

// /dev of the image is a link, whether the configuration has a mount for it or not.
func TestCVE_2026_47766(t *testing.T) {
	canary := newCanary(t)
	dev := Mount{Type: "tmpfs", Source: "dev", Target: "/dev", Data: "mode=755,size=65536k"}
	for _, to := range linksTo(canary) {
		for name, mounts := range map[string][]Mount{
			"none": nil, "dev": {dev}, "pts": {dev, {Type: "devpts", Target: "/dev/pts"}}, "shm": {{Type: "tmpfs", Target: "/dev/shm"}},
		} {
			cfg := with(attackConfig(t), mounts...)
			os.RemoveAll(cfg.Root.Dir + "/dev")
			writeTree(t, cfg.Root.Dir, map[string]string{"dev": "-> " + to})
			out, err := runIn(t, cfg, &Process{Args: []string{"ls", "-l", "/dev/"}})
			if e := wantError(t, err, "mount", unix.ELOOP); e == nil || !strings.HasPrefix(e.Path, "/dev") {
				t.Errorf("%s, %s: %s", to, name, out)
			}
		}
	}
}

// /dev/null for the standard streams was known by its number only: one of the image's, with permissions of the image's, was taken.
func TestCVE_2026_88265(t *testing.T) {
	cfg := attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	if err := os.MkdirAll(cfg.Root.Dir+"/dev", 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Mknod(cfg.Root.Dir+"/dev/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			t.Fatal(err)
		}
		before := listTree(t, cfg.Root.Dir+"/dev")
		attackNull(t, cfg)
		if after := listTree(t, cfg.Root.Dir+"/dev"); after != before {
			t.Errorf("before %s, after %s", before, after)
		}
		os.Remove(cfg.Root.Dir + "/dev/null")
	}
	if err := unix.Mkfifo(cfg.Root.Dir+"/dev/null", 0o666); err != nil {
		t.Fatal(err)
	}
	attackNull(t, cfg)
}

// Masks were binds of the /dev/null that was found in the container at that moment.
func TestCVE_2025_62161(t *testing.T) {
	cfg, canary := attackConfig(t), newCanary(t)
	root := cfg.Root.Dir
	writeTree(t, root, map[string]string{"dev/null": "-> /proc/sys/kernel/core_pattern", "dev/other": "-> " + up + canary + "/file", "secret": "secret", "masked/file": "secret"})
	cfg.MaskPaths = append(cfg.MaskPaths, "/secret", "/masked")
	racer(t, root+"/dev/null", root+"/dev/other")
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	raceStarts(t, rounds(20, 2000), cfg, Process{Args: []string{"sh", "-c", `cat /secret /masked/* /proc/keys /proc/timer_list 2>/dev/null | wc -c
		for f in /secret /proc/timer_list /masked/x; do (echo attack >>$f) 2>&1 | sed 's/.*: //'; done; stat -c %t:%T /dev/null`}},
		"0\nRead-only file system\nRead-only file system\nRead-only file system\n1:3\n", func() {})
	if now, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(now) != string(pattern) {
		t.Errorf("core_pattern is %q", now)
	}
}

// What is written to /proc for the process goes to a fake of the image's, or of somebody who renames at the right moment.
func TestCVE_2025_62596(t *testing.T) {
	cfg, canary := attackConfig(t), newCanary(t)
	root := cfg.Root.Dir
	writeTree(t, root, map[string]string{"proc/sys/kernel/msgmax": "", "proc/self/oom_score_adj": "", "fake/sys/kernel/msgmax": "", "fake/self/oom_score_adj": "", "link": "-> " + up + canary})
	cfg.Sysctl = map[string]string{"kernel.msgmax": "4321", "net.ipv4.ip_forward": "1"}
	cfg.OomScoreAdj = ptr(1000)
	racer(t, root+"/proc", root+"/fake")
	raceStarts(t, rounds(30, 2000), cfg, Process{Args: []string{"sh", "-c", `for d in /proc /fake; do [ -e $d/1/stat ] && cd $d && break; done
		until [ -e sys/kernel/sem ]; do cd /; cd /proc; [ -e sys/kernel/sem ] || cd /fake; done; cat sys/kernel/msgmax sys/net/ipv4/ip_forward self/oom_score_adj`}}, "4321\n1\n1000\n", func() {})
	for _, dir := range []string{"/proc", "/fake"} {
		for _, name := range []string{"/sys/kernel/msgmax", "/self/oom_score_adj"} {
			if text, err := os.ReadFile(root + dir + name); err != nil || len(text) != 0 {
				t.Errorf("%s: %q, %v", dir+name, text, err)
			}
		}
	}
}

// Read-only paths were looked up by name once to be bound and once more to be made read-only: somebody puts another directory there in
// between, or where there was to be one at all.
func TestGHSA_3q8j_pf29_vwv8(t *testing.T) {
	cfg := attackConfig(t)
	root := cfg.Root.Dir
	writeTree(t, root, map[string]string{"proc/": "", "sys/": "", "other/": "", "away/": "", "own/ro/file": "", "own2/ro/file": ""})
	cfg.ReadonlyPaths = append(cfg.ReadonlyPaths, "/own/ro")
	const mounts = `until m=$(cat /proc/self/mountinfo 2>/dev/null || cat /other/self/mountinfo 2>/dev/null) && [ "$m" ]; do :; done; echo "$m" | `
	// All read-only paths and masks of the kernel's are there and read-only, and so is the other.
	script := mounts + `awk '$5 ~ /^\/(proc|other)\// { n++; if ($6 !~ /^ro/) print $5, $6 } $5 ~ /^\/own2?\/ro/ && $6 ~ /^ro/ { o++ } END { print n, o }'`
	want := sh(t, cfg, script) + "\n"
	racer(t, root+"/proc", root+"/other", root+"/sys", root+"/away", root+"/own", root+"/own2")
	raceStarts(t, rounds(40, 2000), cfg, Process{Args: []string{"sh", "-c", script}}, want, func() {})
}

// attackFromBeside starts containers while another process of the host's, of this user, tries everything on their launchers.
func attackFromBeside(t *testing.T, as int, n int, start func(cfg Config) error, cfg Config) {
	t.Helper()
	leak.Check(t)
	var attr *unix.SysProcAttr
	if as >= 0 {
		attr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(as), Gid: uint32(as), Groups: []uint32{}}}
	}
	cmd, out := sibling(t, attr, "tracer")
	said := hunter{out: out}
	for i := 0; i < n || i < 50*n && !said.one(); i++ {
		if err := start(cfg); err != nil {
			t.Error(err)
			break
		}
	}
	cmd.Process.Signal(unix.SIGTERM)
	text := said.rest(t)
	if err := cmd.Wait(); err != nil || strings.Contains(text, "worked") || !strings.Contains(text, "tried") || strings.Contains(text, "tried 0\n") {
		t.Errorf("%v: %s", err, text)
	}
	t.Log(strings.TrimSpace(text))
}

// mapped gives a configuration ids of its own, and its directory as a layer, which is mapped as well.
func mapped(cfg Config) Config {
	maps := []IDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cfg.UidMappings, cfg.GidMappings, cfg.Root = maps, maps, Root{Layers: []string{cfg.Root.Dir}}
	return cfg
}

// An ordinary user attaches to the process that sets a sandbox up with more rights than theirs.
func TestCVE_2016_8659(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := attackConfig(t)
	attackFromBeside(t, 65534, rounds(60, 2000), func(cfg Config) error {
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		return err
	}, cfg)
}

// The same by the host's user who is root in the container's user namespace: its launcher has that user's id, and descriptors and
// capabilities that are not theirs.
func TestCVE_2020_5291(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := attackConfig(t)
	cfg = mapped(cfg)
	attackFromBeside(t, 100000, rounds(60, 2000), func(cfg Config) error {
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		return err
	}, cfg)
}

// The same with who enters a container that runs.
func TestCVE_2026_41163(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := attackConfig(t)
	cfg = mapped(cfg)
	c := execSleeper(t, cfg)
	attackFromBeside(t, 100000, rounds(100, 2000), func(Config) error {
		_, err := execIn(t, c.Exec, &Process{Args: []string{"true"}})
		return err
	}, cfg)
}

// A descriptor of the cgroup's files, opened by root to enter it, is still open in the program.
func TestCVE_2026_78408(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	cfg.Seccomp = nil
	attackerIn(t, cfg.Root.Dir)
	p := attack("probe")
	first, err := runIn(t, cfg, p)
	c := execSleeper(t, cfg)
	for name, got := range map[string]insight{
		"first": parseProbe(t, first, err),
		"exec":  probeExec(t, func(p *Process) error { return c.Exec(t.Context(), p) }, Process{}),
		"below": probeExec(t, func(p *Process) error { return c.Exec(t.Context(), p) }, Process{Cgroup: "below/it"}),
	} {
		got.only(t, 0, 1, 2)
		for n, fd := range got.FDs {
			if fd.FSMag == unix.CGROUP2_SUPER_MAGIC || fd.FSMag == unix.CGROUP_SUPER_MAGIC {
				t.Errorf("%s: %d is %+v", name, n, fd)
			}
		}
		if strings.Contains(got.Cgroup, "..") { // it is in its own
			t.Errorf("%s: in %s", name, got.Cgroup)
		}
	}
}

// The same by nsenter(1), of which CVE-2026-78408 was.
func TestNsenterCVE_2026_78408(t *testing.T) {
	leak.Check(t)
	cfg := nsenterConfig(t)
	cfg.Seccomp = nil
	attackerIn(t, cfg.Root.Dir)
	c := execSleeper(t, cfg)
	probeExec(t, func(p *Process) error { return c.ExecWithNsenter(t.Context(), p) }, Process{}).only(t, 0, 1, 2)
}

// A tree's owners were shifted by a walk over it, which a container that runs on it could lead to the host.
func TestCVE_2015_1340(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg, canary := attackConfig(t), newCanary(t)
	root := cfg.Root.Dir
	writeTree(t, root, map[string]string{"home/dir/file": "", "link": "-> " + up + canary})
	before := listOwners(t, root)
	racer(t, root+"/home", root+"/link")
	cfg = mapped(cfg)
	for range rounds(20, 500) {
		if out, err := runIn(t, cfg, &Process{Args: []string{"stat", "-c", "%u", "/etc/passwd"}}); err != nil || out != "0\n" {
			t.Fatalf("%s, %v", out, err)
		}
	}
	if after := listOwners(t, root); !reflect.DeepEqual(after, before) {
		t.Errorf("before %v\nafter %v", before, after)
	}
}

// listOwners lists owners and modes by inode; the names are on the move.
func listOwners(t *testing.T, dir string) map[uint64]string {
	t.Helper()
	list := map[uint64]string{}
	err := filepath.WalkDir(dir+"/etc", func(path string, d os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		list[st.Ino] = itoa(int(st.Uid)) + " " + itoa(int(st.Gid)) + " " + itoa(int(st.Mode))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A kernel parameter's value brought others with it, and its name led to those of the host.
func TestCVE_2022_0811(t *testing.T) {
	pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
	for name, value := range map[string]string{
		"kernel.shm_rmid_forced": "1+kernel.core_pattern=|/attack", "kernel.msgmax": "1\nkernel.core_pattern=|/attack",
		"kernel.core_pattern": "|/attack", "kernel/core_pattern": "|/attack", "kernel.msgmax+kernel.core_pattern": "1",
		"net/../kernel/core_pattern": "|/attack", "net.ipv4...kernel.core_pattern": "|/attack", "net//../kernel.core_pattern": "x", "/kernel/core_pattern": "x", "net.ipv4.conf.all/../../../../kernel/core_pattern": "x",
		"fs.mqueue/../../kernel/core_pattern": "x", "user.max_user_namespaces\x00": "1", "kernel.sem ": "1", "vm.overcommit_memory": "1", "fs.binfmt_misc.register": ":x:", "kernel.modprobe": "/attack", "kernel.sysrq": "1",
	} {
		cfg := attackConfig(t)
		cfg.Sysctl = map[string]string{name: value}
		out, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		if err == nil {
			t.Errorf("%q = %q: %s", name, value, out)
		}
		typed(t, name, err)
	}
	if now, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(now) != string(pattern) {
		t.Errorf("core_pattern is %q", now)
	}
}

// attackAnnotations: a specification with these annotations gives the same configuration as without them.
func attackAnnotations(t *testing.T, names map[string]string) {
	t.Helper()
	plain, p := ociConfig(t, func(*specs.Spec) {})
	noted, q := ociConfig(t, func(s *specs.Spec) { s.Annotations = names })
	if !reflect.DeepEqual(noted.Annotations, names) {
		t.Errorf("the annotations are %v", noted.Annotations)
	}
	noted.Annotations = nil
	if !reflect.DeepEqual(plain, noted) || !reflect.DeepEqual(p, q) {
		t.Errorf("annotations change the configuration: %+v\nto %+v", plain, noted)
	}
	// Nor do they change what is done.
	cfg := attackConfig(t)
	listing := func() string {
		text, err := Explain(cfg, &Process{Args: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := listing()
	cfg.Annotations = names
	if after := listing(); after != before {
		t.Error("annotations change the program")
	}
}

// systemd's properties were among the annotations, and as values of an interpreter: one property brought others.
func TestCVE_2024_3154(t *testing.T) {
	attackAnnotations(t, map[string]string{
		"org.systemd.property.ExecStartPre": "[('/bin/sh', ['sh', '-c', 'touch /attack'], false)]", "org.systemd.property.TimeoutStopUSec": "uint64 1",
		"org.systemd.property.DeviceAllow": "[('/dev/sda', 'rwm')]", "org.systemd.property.CollectMode": "'inactive'\nExecStartPre=/bin/sh"})
}

// Checkpoints brought the annotations of another container, with its rights.
func TestCVE_2024_8676(t *testing.T) {
	attackAnnotations(t, map[string]string{
		"io.kubernetes.cri-o.Annotations.checkpoint": "/attack", "io.kubernetes.cri-o.Volumes": `[{"container_path":"/","host_path":"/"}]`, "org.criu.config": "/attack/criu.conf",
		"io.podman.annotations.checkpoint": "true", "io.kubernetes.cri-o.MountPoint": "/", "io.kubernetes.cri-o.privileged": "true"})
}

// The same from another such source.
func TestCVE_2026_53492(t *testing.T) {
	attackAnnotations(t, map[string]string{
		"io.kubernetes.cri.checkpoint-image": "/attack", "io.kubernetes.cri.sandbox-cgroupns": "host", "io.containerd.runc.v2.group": "../../../attack", "run.oci.systemd.subgroup": "../../..",
		"run.oci.handler": "krun", "run.oci.hooks.stderr": "/attack", "run.oci.hooks.stdout": "/attack", "module.wasm.image/variant": "compat", "run.oci.mount_context_type": "rootcontext", "run.oci.pidfd_receiver": "/attack"})
}

// A container escaped its group's limits by an annotation about its cgroup.
func TestCVE_2023_6476(t *testing.T) {
	attackAnnotations(t, map[string]string{
		"io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw": "true", "io.kubernetes.cri-o.UnifiedCgroup.all": "memory.max=max", "io.kubernetes.cri-o.cpu-quota.crio.io": "disable",
		"run.oci.delegate-cgroup": "/", "run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup", "experimental.io.kubernetes.cri-o.cpuset": "0-63", "unified.memory.max": "max"})
}

// The same by a label of an image, of which one was a command to run.
func TestCVE_2026_53488(t *testing.T) {
	plain := &Image{Config: ImageConfig{Cmd: []string{"true"}, Env: []string{"A=1"}}}
	evil := &Image{Config: plain.Config}
	evil.Config.Labels = map[string]string{
		"io.containerd.image.config.stop-signal": "SIGKILL", "containerd.io/restart.logpath": "binary:///bin/sh?-c=touch+/attack", "RUN": "podman run --privileged IMAGE",
		"io.containers.capabilities": "SYS_ADMIN", "io.kubernetes.cri-o.userns-mode": "host", "com.docker.security.seccomp": "unconfined", "INSTALL": "sh", "io.podman.run": "x"}
	if a, b := plain.Process(), evil.Process(); !reflect.DeepEqual(a, b) || !reflect.DeepEqual(plain.Root(), evil.Root()) {
		t.Errorf("labels make %+v of %+v", b, a)
	}
}

// Images brought security options of their own, which became the container's.
func TestCVE_2014_6408(t *testing.T) {
	plain := &Image{Config: ImageConfig{Cmd: []string{"true"}}}
	evil := &Image{Config: plain.Config}
	evil.Config.Volumes = map[string]struct{}{"/proc": {}, "/../../etc": {}, "/dev": {}, "/sys/fs/cgroup:/sys/fs/cgroup:rw": {}}
	evil.Config.ExposedPorts = map[string]struct{}{"22/tcp": {}}
	evil.Config.Healthcheck = &Healthcheck{Test: []string{"CMD-SHELL", "touch /attack"}}
	if a, b := plain.Process(), evil.Process(); !reflect.DeepEqual(a, b) || !reflect.DeepEqual(plain.Root(), evil.Root()) {
		t.Errorf("%+v of %+v", b, a)
	}
	cfg := attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	p := evil.Process()
	p.Args, p.Env = []string{"/attacker"}, attack("probe").Env
	out, err := runIn(t, cfg, p)
	got := parseProbe(t, out, err)
	got.wantStatus(t, "NoNewPrivs", "1", "CapInh", "0000000000000000", "CapAmb", "0000000000000000")
	got.only(t, 0, 1, 2)
}
