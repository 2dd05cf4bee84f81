//go:build linux

package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a testing.TB that notes how a test would have ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                      {}
func (r *recorder) Skipf(f string, args ...any)  { r.skipped = fmt.Sprintf(f, args...) }
func (r *recorder) Fatalf(f string, args ...any) { r.failed = fmt.Sprintf(f, args...) }
func (r *recorder) Errorf(f string, args ...any) { r.failed = fmt.Sprintf(f, args...) }

func TestNeed(t *testing.T) {
	met := Requirement{Name: "met", Probe: func() error { return nil }}
	unmet := Requirement{Name: "unmet", Probe: func() error { return errors.New("no moon (wait a month)") }}
	unmetRoot := Requirement{Name: "root", Probe: func() error { return errors.New("not root") }}

	for _, test := range []struct {
		must          string
		needs         []Requirement
		skips, failed bool
	}{
		{"", []Requirement{met}, false, false},
		{"", []Requirement{met, unmet}, true, false},
		{"other", []Requirement{unmet}, true, false},
		{"other, unmet", []Requirement{met, unmet}, false, true},
		{"all", []Requirement{unmet}, false, true},
		{"all", []Requirement{unmetRoot}, true, false},
		{"all,root", []Requirement{unmetRoot}, false, true},
	} {
		t.Setenv(MustVar, test.must)
		r := &recorder{TB: t}
		Need(r, test.needs...)
		if (r.skipped != "") != test.skips || (r.failed != "") != test.failed {
			t.Errorf("must=%q: skipped %q, failed %q", test.must, r.skipped, r.failed)
		}
		if said := r.skipped + r.failed; said != "" && !strings.HasPrefix(said, "needs ") {
			t.Errorf("must=%q: says %q", test.must, said)
		}
	}
}

func TestAgain(t *testing.T) {
	for _, test := range []struct {
		out           string
		err           error
		skips, failed bool
	}{
		{"--- PASS: TestAgain (0.1s)\nPASS\n", nil, false, false},
		{"--- PASS: TestAgain (0.1s)\nPASS\n", errors.New("it left things behind"), false, true},
		{"--- SKIP: TestAgain (0.1s)\nPASS\n", nil, true, false},
		{"--- SKIP: TestAgain (0.1s)\nPASS\n", errors.New("it left things behind"), false, true},
		{"--- PASS: TestAgainst (0.1s)\nPASS\n", nil, false, true},
		{"testing: warning: no tests to run\nPASS\n", nil, false, true},
		{"--- FAIL: TestAgain (0.1s)\nFAIL\n", errors.New("exit status 1"), false, true},
	} {
		r := &recorder{TB: t}
		Again(r, []byte(test.out), test.err)
		if (r.skipped != "") != test.skips || (r.failed != "") != test.failed {
			t.Errorf("%q, %v: skipped %q, failed %q", test.out, test.err, r.skipped, r.failed)
		}
	}
}

func TestMissingProgramNamesItsPackage(t *testing.T) {
	err := Program("no-such-program", "its-package").Probe()
	if err == nil || !strings.Contains(err.Error(), "apt-get install its-package") {
		t.Error(err)
	}
	if err := Program("sh", "dash").Probe(); err != nil {
		t.Error(err)
	}
}

// TestProbes asks for everything: what is missing shows in go test -v, and no probe may break.
func TestProbes(t *testing.T) {
	all := []Requirement{Root, User, UserNS, SubIDs, Overlay, Cgroup, Registry, Nft, StaticBusybox,
		CgroupController("memory"), SystemdUser, SystemdRoot, AppArmor, SELinux}
	for _, r := range all {
		t.Run(r.Name, func(t *testing.T) { Need(t, r) })
	}
	if (Root.Probe() == nil) && (User.Probe() == nil) {
		t.Error("both root and an ordinary user")
	}
}

func TestSubRange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	content := "other:1:1\nme:200000:zero\nme:300000:0\nbroken\nme:400000:65536\n77:500000:10\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		who   user.User
		first string
		count int
	}{
		{user.User{Username: "me", Uid: "5"}, "400000", 65536},
		{user.User{Username: "x", Uid: "77"}, "500000", 10},
		{user.User{Username: "nobody", Uid: "6"}, "", 0},
	} {
		if first, count := subRange(file, &test.who); first != test.first || count != test.count {
			t.Errorf("%s: %s %d", test.who.Username, first, count)
		}
	}
}
