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

// maps prints the maps of the shell's user namespace with single spaces, and setgroups.
const printMaps = `cat /proc/self/uid_map /proc/self/gid_map | sed 's/^ *//; s/  */ /g'; cat /proc/self/setgroups`

// forgetUserNamespaces makes the test begin and end without kept user namespaces.
func forgetUserNamespaces(t testing.TB) {
	forget := func() {
		keptUserNamespaces.mu.Lock()
		defer keptUserNamespaces.mu.Unlock()
		for _, f := range keptUserNamespaces.open {
			f.Close()
		}
		keptUserNamespaces.open = nil
	}
	forget()
	t.Cleanup(forget)
}

func TestDefaultMaps(t *testing.T) {
	cfg := testConfig(t)
	if os.Geteuid() != 0 {
		wantText(t, sh(t, cfg, printMaps+"; id -u; id -g; touch /x"),
			fmt.Sprintf("0 %d 1\n0 %d 1\ndeny\n0\n0", os.Geteuid(), os.Getegid()))
		return
	}
	outside, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(strings.Fields(string(outside)), " ")
	wantText(t, sh(t, cfg, printMaps+"; id -u; touch /x; chown 1234:4321 /x"), all+"\n"+all+"\nallow\n0")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(cfg.Root.Dir, "x"), &st); err != nil || st.Uid != 1234 || st.Gid != 4321 {
		t.Errorf("the file belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
}

func TestKeepID(t *testing.T) {
	testenv.Need(t, testenv.User)
	cfg := testConfig(t)
	cfg.UidMappings, cfg.GidMappings = KeepID()
	uid, gid := os.Geteuid(), os.Getegid()
	wantText(t, sh(t, cfg, printMaps+"; id -u; id -g; grep CapEff /proc/self/status; touch /x; stat -c %u:%g /x"),
		fmt.Sprintf("%d %d 1\n%d %d 1\ndeny\n%d\n%d\nCapEff:\t0000000000000000\n%d:%d", uid, uid, gid, gid, uid, gid, uid, gid))
}

func TestSubordinateIDs(t *testing.T) {
	testenv.Need(t, testenv.User, testenv.SubIDs)
	forgetUserNamespaces(t)
	uid, gid, err := SubordinateIDs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.UidMappings, cfg.GidMappings = uid, gid
	script := printMaps + `; id -u; rm -f /x; touch /x; chown 33:33 /x`
	want := strings.TrimSuffix(string(idMapText(uid))+string(idMapText(gid)), "\n") + "\nallow\n0"
	wantText(t, sh(t, cfg, script), want)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(cfg.Root.Dir, "x"), &st); err != nil {
		t.Fatal(err)
	}
	if host, _ := mapToHost(uid, 33); st.Uid != host {
		t.Errorf("the file belongs to %d on the host, want %d", st.Uid, host)
	}

	// Another user, and its groups: this needs setgroups.
	wantText(t, shAs(t, cfg, &Process{User: "www"}, "id -u; id -G"), "33\n33 44")

	// The second start finds the namespace open and does without the helpers.
	t.Setenv("PATH", t.TempDir())
	wantText(t, sh(t, cfg, script), want)
	first, second := sh(t, cfg, "readlink /proc/self/ns/user"), sh(t, cfg, "readlink /proc/self/ns/user")
	wantText(t, second, first)

	// The proof that this was a proof: without the kept one it fails, and says why.
	forgetUserNamespaces(t)
	_, err = runIn(t, cfg, &Process{Args: []string{"true"}})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrUnsupported) || !strings.Contains(e.Remedy, "uidmap") {
		t.Errorf("without newuidmap: %v", err)
	}
}

// Ranges that are not the user's are refused by newuidmap, with its words and a remedy.
func TestForeignRange(t *testing.T) {
	testenv.Need(t, testenv.User, testenv.SubIDs)
	forgetUserNamespaces(t)
	cfg := testConfig(t)
	cfg.UidMappings = []IDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}, {ContainerID: 1, HostID: 1, Size: 10}}
	cfg.GidMappings = []IDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	e := wantError(t, err, "write id map with newuidmap", nil)
	if !strings.Contains(e.Remedy, "/etc/subuid") {
		t.Errorf("the remedy is %q", e.Remedy)
	}
	if len(keptUserNamespaces.open) > 0 {
		t.Error("a namespace without maps is kept")
	}
}

func TestExplicitMaps(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := testConfig(t)
	root := cfg.Root.Dir
	if err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 100000, 100000))
	}); err != nil {
		t.Fatal(err)
	}
	cfg.UidMappings = []IDMap{{ContainerID: 0, HostID: 100000, Size: 1000}}
	cfg.GidMappings = []IDMap{{ContainerID: 0, HostID: 100000, Size: 1000}, {ContainerID: 1000, HostID: 5000, Size: 1}}
	adj := 300
	cfg.OomScoreAdj = &adj
	cfg.Namespaces.NewTime = true
	cfg.TimeOffsets.Boottime = 1e9
	wantText(t, sh(t, cfg, printMaps+"; id -u; touch /x; chown 7:1000 /x; cat /proc/self/oom_score_adj"),
		"0 100000 1000\n0 100000 1000\n1000 5000 1\nallow\n0\n300")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "x"), &st); err != nil || st.Uid != 100007 || st.Gid != 5000 {
		t.Errorf("the file belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
	// An id that is not mapped.
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}, User: "1000"})
	var f *FieldError
	if !errors.As(err, &f) || f.Field != "User" || !strings.Contains(f.Problem, "not mapped") {
		t.Errorf("an unmapped user: %v", err)
	}
}

// A map without 0: there is no root inside, and the process is the caller.
func TestMapsWithoutRoot(t *testing.T) {
	cfg := testConfig(t)
	cfg.UidMappings = []IDMap{{ContainerID: 500, HostID: os.Geteuid(), Size: 1}}
	cfg.GidMappings = []IDMap{{ContainerID: 600, HostID: os.Getegid(), Size: 1}}
	wantText(t, sh(t, cfg, "id -u; id -g; stat -c %u:%g /bin; true"), "500\n600\n500:600")
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}, User: "0"})
	var f *FieldError
	if !errors.As(err, &f) || f.Field != "User" {
		t.Errorf("user 0 without a map for it: %v", err)
	}
}

// The way for hosts where AppArmor lets only known programs make user namespaces: os/exec clones.
func TestUserNamespaceByClone(t *testing.T) {
	cfg := testConfig(t)
	start := func() {
		t.Helper()
		var out strings.Builder
		p := &Process{Args: []string{"sh", "-c", printMaps + "; echo $$"}, Stdout: &out}
		streams, err := openStreams(p)
		if err != nil {
			t.Fatal(err)
		}
		pl := &plan{cfg: &cfg, proc: p, log: cfg.logger(), stdio: streams.files}
		if err := pl.resolve(); err != nil {
			t.Fatal(err)
		}
		pl.userns = usernsClone
		if err := pl.compile(startSteps); err != nil {
			t.Fatal(err)
		}
		s, err := pl.start(t.Context(), t.TempDir(), nil)
		if err != nil {
			streams.abandon()
			t.Fatal(err)
		}
		streams.start()
		if err := s.reap(); err != nil {
			t.Error(err)
		}
		s.release()
		s.pidfd.Close()
		if err := streams.wait(0); err != nil {
			t.Error(err)
		}
		groups := "allow"
		if os.Geteuid() != 0 && !pl.needsHelpers() {
			groups = "deny"
		}
		wantText(t, out.String(), string(idMapText(pl.uidMaps))+string(idMapText(pl.gidMaps))+groups+"\n1\n")
	}
	start()
	if os.Geteuid() != 0 && testenv.SubIDs.Probe() == nil {
		forgetUserNamespaces(t)
		var err error
		if cfg.UidMappings, cfg.GidMappings, err = SubordinateIDs(); err != nil {
			t.Fatal(err)
		}
		start()
	}
}
