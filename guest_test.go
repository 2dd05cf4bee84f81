//go:build linux

package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/guest"
	"example.com/container/internal/testenv"
)

// This file runs tests where the host cannot be asked: on Debian's kernels, with all controllers of
// cgroup v2, under systemd and AppArmor. They are ordinary tests that are skipped on a host without
// what they need, and must not be skipped there.

// What runs in the guests, by the names of the tests.
const (
	// cgroupTests are what the guests are for.
	cgroupTests = "TestCgroupContainer|TestCgroupDelegate|TestAttackCgroupLimits|TestStats|TestEvents|TestLimits|TestPause$|TestDevicesCgroup"
	// labelTests ask the kernel's AppArmor, through lsm_set_self_attr(2) since Linux 6.8 and through procfs before.
	labelTests = "TestAppArmor$|TestLabels|TestLandlockFiles"
	// networkTests meet rules and devices as Debian's kernels have them, in modules.
	networkTests = "TestBridge$|TestEgressTCP|TestEgressUDP|TestPublishSources|TestMacvlan|TestNetDevices$"
	// systemdTests ask systemd for a cgroup.
	systemdTests = "TestSystemd"
	// oldKernelTests take other ways before Linux 6.7 or so: overlays, mounts, records.
	oldKernelTests = "TestLayer|TestRootCopyOnWrite|TestBindReadOnly|TestCreateStart|TestExecIsLikeRun|TestDetached|" +
		"TestDestroy$|TestIdmappedLayersAndBinds|TestDefaultMaps|TestImageRun|TestUserNamespaceByClone|TestExecWithNsenterOpensAll"
	// oldKernelUserTests are those of them that are others for an ordinary user.
	oldKernelUserTests = "TestLayer|TestHostRootCopyOnWrite|TestExecIsLikeRun|TestImageRun|TestUserNamespaceByClone|TestExecWithNsenter"
	// delegatedTests are those of cgroupTests that are others in a delegated cgroup.
	delegatedTests = "TestCgroupContainer|TestCgroupDelegate|TestAttackCgroup|TestLimitsMemory|TestLimitsPids|TestLimitsSet|TestPause$"
)

// A guestRun is tests that run as somebody, one after the other.
type guestRun struct {
	as    string // root, tester or session; see guest.Guest
	tests string // a pattern
	must  string // for CONTAINER_TEST_MUST
	pkg   string // a directory; if empty, this package
}

// guests are booted by TestGuest, with what runs in each.
var guests = []struct {
	name string
	guest.Guest
	runs []guestRun
}{
	{"script-6.1", guest.Guest{Kernel: "6.1"}, []guestRun{
		{as: "root", must: scriptMust + ",root", tests: "TestProbes", pkg: "internal/testenv"},
		{as: "root", must: scriptMust + ",root,sctp", tests: cgroupTests + "|" + oldKernelTests + "|" + labelTests + "|" + networkTests + "|TestNATSCTP"},
		{as: "tester", must: scriptMust + ",user", tests: delegatedTests + "|TestEvents|" + oldKernelUserTests},
	}},
	{"selinux-6.1", guest.Guest{Kernel: "6.1", SELinux: true}, []guestRun{
		{as: "root", must: selinuxMust + ",root", tests: "TestSELinux|TestLabels"},
	}},
	{"systemd-6.12", guest.Guest{Kernel: "6.12", Systemd: true}, []guestRun{
		{as: "root", must: guestMust + ",root,systemd-root,sctp", tests: systemdTests + "|TestLimitsMemory|" + labelTests + "|TestNATSCTP"},
		{as: "tester", must: systemdMust + ",user", tests: systemdTests + "|TestLimitsMemory|TestCgroupDelegate"},
		{as: "session", must: systemdMust + ",user", tests: systemdTests},
		{as: "root", must: guestMust + ",root,systemd-root", tests: "TestLimitsOcirun", pkg: "examples/ocirun"},
		{as: "root", must: guestMust + ",root", tests: "TestLimits", pkg: "examples/limits"},
	}},
}

// What must be there: a test that misses one of these fails.
const (
	guestMust   = "userns,subids,overlay,busybox,nft,apparmor,cgroup,cgroup-memory,cgroup-cpu,cgroup-pids"
	selinuxMust = "userns,subids,overlay,busybox,selinux"
	scriptMust  = guestMust + ",cgroup-cpuset,cgroup-io,cgroup-hugetlb,cgroup-rdma,cgroup-misc"
	// An ordinary user gets three controllers of systemd.
	systemdMust = guestMust + ",systemd-user"
)

// TestGuest takes minutes, and runs if it is asked for only:
//
//	go test -run TestGuest .                                          all of them
//	CONTAINER_GUEST_RUN=TestStats go test -v -run TestGuest/systemd . other tests, in some guests
func TestGuest(t *testing.T) {
	testenv.Need(t, testenv.Guest)
	files := guestFiles(t)
	for _, g := range guests {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			var commands strings.Builder
			fmt.Fprintf(&commands, "export %s=%s\nstatus=0\n", testenv.GuestVar, g.name)
			for _, r := range g.runs {
				commands.WriteString(r.command())
			}
			commands.WriteString("exit $status")

			output := guestOutput{to: t.Output()}
			g.Guest.Files, g.Command, g.Output = files, commands.String(), &output
			ctx := t.Context()
			if deadline, ok := t.Deadline(); ok {
				var cancel context.CancelFunc
				ctx, cancel = context.WithDeadline(ctx, deadline.Add(-20*time.Second))
				defer cancel()
			}
			status, err := g.Run(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if status != 0 {
				t.Errorf("tests fail in the guest %s", g.name)
			}
			t.Logf("%d tests passed, %d were skipped; slow ones: %s", output.passed, output.skipped, strings.Join(output.slow, ", "))
		})
	}
}

// directory is the package's, in the module and in the guest.
func (r guestRun) directory() string { return path.Clean("./" + r.pkg) }

// command returns lines for the shell in the guest.
func (r guestRun) command() string {
	tests := r.tests
	if other := os.Getenv("CONTAINER_GUEST_RUN"); other != "" {
		tests = other
	}
	return fmt.Sprintf(`echo "--- of %[1]s as %[2]s on Linux $(uname -r):"
(cd /vm/%[1]s && CONTAINER_TEST_MUST=%[3]s as %[2]s ./package.test -test.v -test.run '%[4]s' -test.timeout 25m) || status=1
`, r.directory(), r.as, r.must, tests)
}

// guestFiles makes the directory that goes into the guests: for each package its tests and what
// they read.
func guestFiles(t *testing.T) string {
	files := t.TempDir()
	made := map[string]bool{}
	for _, g := range guests {
		for _, r := range g.runs {
			dir := r.directory()
			if made[dir] {
				continue
			}
			made[dir] = true
			cmd := exec.Command("go", "test", "-c", "-o", filepath.Join(files, dir, "package.test"), "./"+dir)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // a libc is the host's
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", cmd, err, out)
			}
			if data := filepath.Join(dir, "testdata"); isDirectory(data) {
				if err := os.CopyFS(filepath.Join(files, data), os.DirFS(data)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return files
}

func isDirectory(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// guestOutput passes on what tests with -test.v write, but for the lines that a passed test has
// only because of the flag, and counts the tests.
type guestOutput struct {
	to              io.Writer
	line            []byte
	passed, skipped int
	slow            []string // those that took ten seconds or more, and how long
}

// slowTest is how a test that took so long ends.
var slowTest = regexp.MustCompile(`^--- PASS: Test(\w+ \(\d{2,})\.`)

var boring = regexp.MustCompile(`^ *(=== (RUN|PAUSE|CONT|NAME)|--- PASS)`)

func (o *guestOutput) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		o.line, rest = append(o.line, line...), after
		if !whole {
			break
		}
		switch {
		case bytes.HasPrefix(o.line, []byte("--- PASS")):
			o.passed++
			if slow := slowTest.FindSubmatch(o.line); slow != nil {
				o.slow = append(o.slow, string(slow[1])+" s)")
			}
		case bytes.HasPrefix(o.line, []byte("--- SKIP")):
			o.skipped++
		}
		if !boring.Match(o.line) {
			fmt.Fprintf(o.to, "%s\n", o.line)
		}
		o.line = o.line[:0]
	}
	return len(p), nil
}
