//go:build linux

package container

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files")

// TestExplainGolden compares the listing of a default start as root, whose parts that depend on the host
// are replaced, with the one that was read and found good.
func TestExplainGolden(t *testing.T) {
	testenv.Need(t, testenv.Root)
	cfg := DefaultConfig()
	cfg.Root = Directory("/var")
	got, err := Explain(cfg, &Process{Args: []string{"sh", "-c", "true"}, Cwd: "/work", User: "1000:1000"})
	if err != nil {
		t.Fatal(err)
	}
	wantListing(t, "testdata/explain.golden", got)
}

// The network of a container whose way out the caller decides about.
func TestExplainEgressGolden(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if !haveIPv6() {
		t.Skip("the kernel has no IPv6")
	}
	cfg := DefaultConfig()
	cfg.Root, cfg.Network = Directory("/var"), &NetworkConfig{Mode: NetworkModeEgress}
	got, err := Explain(cfg, &Process{Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ = strings.Cut(got, "\nnetwork ")
	got, _, _ = strings.Cut("network "+got, "\nroot /var\n")
	wantListing(t, "testdata/explain_egress.golden", got)
}

// wantListing compares a listing, without numbers and addresses, with what it should be.
func wantListing(t *testing.T, file, got string) {
	t.Helper()
	got = regexp.MustCompile(`(?m)^  +\d+ `).ReplaceAllString(got, "  ")            // numbers of the calls
	got = regexp.MustCompile(`&\d+`).ReplaceAllString(got, "&")                     // addresses
	got = regexp.MustCompile(`(on \S+:|then|else) \d+`).ReplaceAllString(got, "$1") // and of jumps
	got = regexp.MustCompile(`(?m)^(  prctl\(24, )\d+\)\n(  prctl\(24, \d+\)\n)+`).ReplaceAllString(got, "${1}...)\n")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the listing is not that of %s; if it should not be, run the test with -update. It is:\n%s", file, got)
	}
}

// Each step stands in the listing at most once, in the order of the table, and those that a default start
// needs are there.
func TestExplainOrder(t *testing.T) {
	cfg := testConfig(t)
	cfg.OomScoreAdj, cfg.NoNewPrivileges = ptr(1), true
	cfg.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	list, err := Explain(cfg, &Process{Args: []string{"true"}, Cwd: "/a"})
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for _, call := range []string{
		"oom_score_adj", "unshare(", "clone(", "setsid", "keyctl", "socket(", "open_tree(AT_FDCWD", `mount_setattr(AT_FDCWD, "/"`,
		"mount /proc\n", "mount /dev/pts\n", "sethostname(", "ip_forward", "pivot_root", "umount2", "prctl(38, 1", "prctl(24, ", "setgroups|setresgid",
		"capset", "faccessat2", "close_range", "execve(",
	} {
		at := -1
		for name := range strings.SplitSeq(call, "|") {
			if i := strings.LastIndex(list, name); i > at {
				at = i
			}
		}
		if call == "unshare(" { // the first one is that of the user namespace
			at = strings.Index(list, call)
		}
		if at < last {
			t.Errorf("%s is not in its place (%d, after %d)", call, at, last)
		}
		last = at
	}
	order := ExplainOrder()
	at := 0
	for _, s := range startSteps {
		line := s.name + ": " + s.why + "\n"
		if s.why == "" || !strings.HasPrefix(order[at:], line) {
			t.Errorf("%q is not the next line of the order", line)
		}
		at += len(line)
	}
}

// Explain changes nothing and starts nothing: not even a missing root is made.
func TestExplainDoesNothing(t *testing.T) {
	cfg := testConfig(t)
	unchanged(t, cfg.Root.Dir)
	if _, err := Explain(cfg, &Process{Args: []string{"true"}, Cwd: "/new"}); err != nil {
		t.Fatal(err)
	}
	upper := t.TempDir() + "/upper"
	cfg.Root = Root{Dir: cfg.Root.Dir, Access: CopyOnWrite, Upper: upper}
	if _, err := Explain(cfg, &Process{Args: []string{"true"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(upper); err == nil {
		t.Error("the upper directory has been made")
	}
	cfg.Root = Directory(upper)
	if _, err := Explain(cfg, &Process{Args: []string{"true"}}); err == nil {
		t.Error("a root that is missing is explained")
	}
}

// A host without user namespaces: one clear error, with the remedy.
func TestNoUserNamespaces(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		cfg := DefaultConfig()
		cfg.Root = Directory(busyboxRoot(t))
		dir := t.TempDir()
		c, err := New(dir, "test", cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = runOnce(t, c, &Process{Args: []string{"true"}})
		if e := wantError(t, err, "user namespace", unix.ENOSPC); !strings.Contains(e.Remedy, "max_user_namespaces") {
			t.Errorf("the remedy is %q", e.Remedy)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}, "-U", "-r")
}
