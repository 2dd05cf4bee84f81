//go:build linux

package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/container/internal/testenv"
)

// pureCheck returns the results by name, and asserts what holds for all of them.
func pureCheck(t *testing.T) map[string]CheckResult {
	t.Helper()
	results := make(map[string]CheckResult)
	for _, r := range Check() {
		t.Log(r)
		results[r.Name] = r
		if r.OK != (r.Remedy == "") || r.Detail == "" {
			t.Errorf("a remedy, or none, that does not fit: %+v", r)
		}
	}
	if len(results) != len(hostChecks) {
		t.Errorf("%d results of %d checks", len(results), len(hostChecks))
	}
	return results
}

// What Check says about this host is what a program of the host finds.
func TestCheck(t *testing.T) {
	testenv.Need(t, testenv.Program("unshare", "util-linux"))
	results := pureCheck(t)
	for name, script := range map[string]string{
		"user namespaces":        "unshare -Urm true",
		"new /proc":              "unshare -Urmpf mount -t proc proc /proc",
		"new /sys":               "unshare -Urmn mount -t sysfs sysfs /sys",
		"overlay":                "unshare -Urm sh -ec 'mount -t tmpfs tmpfs /proc; cd /proc; mkdir l u w; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w,userxattr /proc'",
		"changes kept in memory": "unshare -Urm sh -ec 'mount -t tmpfs tmpfs /proc; setfattr -n user.overlay.opaque -v y /proc'",
		"other namespaces":       "unshare -UrmnpuiCf true",
	} {
		if program := "setfattr"; strings.Contains(script, program) {
			if _, err := exec.LookPath(program); err != nil {
				continue
			}
		}
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if (err == nil) != results[name].OK {
			t.Errorf("%v\nbut %s: %v\n%s", results[name], script, err, out)
		}
	}
}

// pureStage runs the test again, alone, in new namespaces as their root, and returns true in that run.
func pureStage(t *testing.T, flags uintptr, env ...string) bool {
	t.Helper()
	if os.Getenv("CONTAINER_PURE_DIR") != "" {
		return true
	}
	testenv.Need(t, testenv.UserNS)
	uid, gid := selfMap()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), "CONTAINER_PURE_DIR=/"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | flags, UidMappings: uid, GidMappings: gid}
	out, err := cmd.CombinedOutput()
	testenv.Again(t, out, err)
	return false
}

// A host without user namespaces: one line says so and what to do, and those that need them say so.
func TestCheckWithoutUserNamespaces(t *testing.T) {
	if !pureStage(t, unix.CLONE_NEWNS) {
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	r := pureCheck(t)["user namespaces"]
	if r.OK || !strings.Contains(r.Detail, "user.max_user_namespaces is 0") || r.Remedy != "as root: sysctl -w user.max_user_namespaces=15000" {
		t.Errorf("got %+v", r)
	}
}

// Limits on the other kinds.
func TestCheckWithoutNetworkNamespaces(t *testing.T) {
	if !pureStage(t, unix.CLONE_NEWNS) {
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	results := pureCheck(t)
	if r := results["other namespaces"]; r.OK || !strings.Contains(r.Remedy, "user.max_net_namespaces") {
		t.Errorf("got %+v", r)
	}
	if r := results["user namespaces"]; !r.OK {
		t.Errorf("got %+v", r)
	}
}

// A /proc with something mounted over a part of it, as in an ordinary container.
func TestCheckMaskedProc(t *testing.T) {
	if !pureStage(t, unix.CLONE_NEWNS|unix.CLONE_NEWPID) {
		return
	}
	// In the mount namespace of an inner user namespace, these two are locked together.
	for _, m := range []struct{ kind, target string }{{"proc", "/proc"}, {"tmpfs", "/proc/sys"}} {
		if err := unix.Mount(m.kind, m.target, m.kind, 0, ""); err != nil {
			t.Fatal(m.target, err)
		}
	}
	results := pureCheck(t)
	if r := results["new /proc"]; r.OK || !strings.Contains(r.Remedy, "systempaths=unconfined") {
		t.Errorf("got %+v", r)
	}
	if r := results["user namespaces"]; !r.OK {
		t.Errorf("got %+v", r)
	}
}

// An ordinary user, once with and once without subordinate ids.
func TestCheckSubordinateIDs(t *testing.T) {
	if !pureAsUserWithSubIDs(t) {
		return
	}
	results := pureCheck(t)
	if r := results["subordinate ids"]; !r.OK || !strings.Contains(r.Detail, "65536 user ids and 2000 group ids") {
		t.Errorf("got %+v", r)
	}
	if r := results["newuidmap and newgidmap"]; !r.OK {
		t.Errorf("got %+v", r)
	}
	dir := t.TempDir()
	for _, name := range []string{"newuidmap", "newgidmap"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	if r := pureCheck(t)["newuidmap and newgidmap"]; r.OK || !strings.Contains(r.Remedy, "chmod u+s "+dir) {
		t.Errorf("not setuid: %+v", r)
	}
	t.Setenv("PATH", "/none")
	if r := pureCheck(t)["newuidmap and newgidmap"]; r.OK || !strings.Contains(r.Remedy, "uidmap") {
		t.Errorf("not there: %+v", r)
	}
}

// The probe leaves nothing behind on the host, as root without a user namespace either.
func TestProbeLeavesNothing(t *testing.T) {
	testenv.Need(t, testenv.Root)
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	p := runProbe(noUser)
	for _, tag := range []uint32{tagMountSetattr, tagFsopen, tagTmpfs, tagProc, tagSysfs, tagOverlay, tagXattr, tagSeccomp, tagCloseRange} {
		if err := p.err(tag); err != nil {
			t.Logf("question %d: %v", tag, err)
		}
	}
	if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(after) != string(before) {
		t.Errorf("mounts have changed: %v\n%s", err, after)
	}
}

// AppArmor's and Debian's switches are not here to try; what is said about them is.
func TestCheckUserNamespacesRemedies(t *testing.T) {
	for err, want := range map[error]string{
		unix.ENOSPC: "user.max_user_namespaces",
		unix.EUSERS: "fewer",
		unix.EINVAL: "CONFIG_USER_NS",
		unix.EPERM:  "",
	} {
		r := checkUserNamespaces(&host{userErr: err})
		if r.OK || r.Remedy == "" || !strings.Contains(r.Remedy, want) {
			t.Errorf("%v: %+v", err, r)
		}
	}
	if got := appArmorProfile("/usr/bin/x"); !strings.Contains(got, `profile "userns.usr.bin.x" "/usr/bin/x"`) {
		t.Error(got)
	}
}

func TestOwnCgroup(t *testing.T) {
	for _, tt := range []struct {
		text, path string
		hybrid     bool
	}{
		{"0::/user.slice/user-1000.slice\n", "/user.slice/user-1000.slice", false},
		{"0::/a:b\n", "/a:b", false},
		{"0::/a \r\n", "/a \r", false},
		{"1:name=systemd:/\n0::/x\n", "/x", false},
		{"4:memory:/\n0::/\n", "/", true},
		{"4:cpu,cpuacct:/\n", "", true},
		{"", "", false},
		{"junk\n0\n0:\n", "", false},
	} {
		if path, hybrid := parseOwnCgroup(strings.NewReader(tt.text)); path != tt.path || hybrid != tt.hybrid {
			t.Errorf("%q: got %q, %v", tt.text, path, hybrid)
		}
	}
	const info = `22 1 0:20 / /proc rw - proc proc rw
23 1 0:21 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
24 1 0:22 /slice /sys/fs/with\040space rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
25 1 0:22 / /other rw - cgroup2 cgroup2 rw
`
	if root, mount := findCgroup2(strings.NewReader(info)); root != "/slice" || mount != "/sys/fs/with space" {
		t.Errorf("got %q, %q", root, mount)
	}
}

func TestCheckCgroups(t *testing.T) {
	for name, h := range map[string]*host{
		"none":   {cgroup: ownCgroup{}},
		"hybrid": {cgroup: ownCgroup{path: "/", mount: "/m", hybrid: true}},
	} {
		if r := checkCgroup(h); r.OK || !strings.Contains(r.Remedy, "systemd.unified_cgroup_hierarchy=1") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	refused := &Error{Op: "systemd", Err: ErrUnsupported, Remedy: "log in"}
	scope := cgroupPlace{Unit: "x.scope", Slice: "user.slice"}
	for _, tt := range []struct {
		name           string
		cgroups        cgroupHost
		place, systemd string // a part of the detail, or after "!" of the remedy
	}{
		{"nothing", cgroupHost{placeErr: (&placeFacts{}).noPlace()}, "!chown", "!file system"},
		{"systemd, but not for the caller", cgroupHost{place: scope, systemd: true, user: true, systemdErr: refused}, "!systemd-run --user", "!log in"},
		{"the user's systemd", cgroupHost{place: scope, systemd: true, user: true}, "in scopes of systemd, in user.slice", "the user's answers"},
		{"delegated", cgroupHost{place: cgroupPlace{Parent: "/own", Top: "/own", Shared: true}, systemd: true, user: true}, "below the caller's own, /own,", "the user's answers"},
		{"root", cgroupHost{place: cgroupPlace{Parent: "/container", Top: "/"}, systemd: true}, "below /container", "the system's answers"},
	} {
		h := &host{cgroup: ownCgroup{dir: "/", path: "/own", mount: t.TempDir()}, cgroups: tt.cgroups}
		for want, r := range map[string]CheckResult{tt.place: checkCgroupPlace(h), tt.systemd: checkSystemd(h)} {
			remedy, bad := strings.CutPrefix(want, "!")
			if r.OK == bad || bad != (r.Remedy != "") || bad && !strings.Contains(r.Remedy, remedy) || !bad && !strings.Contains(r.Detail, want) {
				t.Errorf("%s: %+v, want %q", tt.name, r, want)
			}
		}
	}
	if r := checkCgroupBirth(&host{cgroups: cgroupHost{placeErr: ErrUnsupported}}); r.OK {
		t.Errorf("got %+v", r)
	}
	if r := checkCgroupPlace(&host{cgroup: ownCgroup{mount: "/none"}}); r.OK || !strings.Contains(r.Remedy, "remount") {
		t.Errorf("read-only: %+v", r)
	}
	if r := (cgroupTree{}).compareControllers("/", strings.Fields("memory pids")); r.OK || !strings.Contains(r.Detail, "no cpu, cpuset, io:") || r.Remedy == "" {
		t.Errorf("got %+v", r)
	}
	if r := (cgroupTree{}).compareControllers("/", strings.Fields("cpuset cpu io memory pids misc")); !r.OK {
		t.Errorf("got %+v", r)
	}
}

func TestCheckResultString(t *testing.T) {
	for _, tt := range []struct {
		r    CheckResult
		want string
	}{
		{CheckResult{Name: "a", OK: true, Detail: "b"}, "ok       a: b"},
		{CheckResult{Name: "a", Detail: "b", Remedy: "c"}, "missing  a: b\n         -> c"},
	} {
		if got := tt.r.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
