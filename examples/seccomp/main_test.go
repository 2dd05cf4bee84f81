//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// TestSeccomp records what a command needs, and runs it with the profile that comes of that, and not without.
func TestSeccomp(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Program("unshare", "util-linux"))
	file := filepath.Join(t.TempDir(), "profile.json")
	command := []string{"--", "unshare", "-U", "sh", "-c", "echo made"}
	if out, errs, code := clitest.Run(t, append([]string{"run"}, command...)...); code == 0 {
		t.Fatalf("the default profile lets it: %q, %q", out, errs)
	}
	out, errs, code := clitest.Run(t, append([]string{"audit", "-o", file}, command...)...)
	if out != "made\n" || code != 0 || !strings.Contains(errs, "denied: unshare(), 1 times by unshare\n") {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
	out, errs, code = clitest.Run(t, append([]string{"run", "-profile", file}, command...)...)
	if out != "made\n" || errs != "" || code != 0 {
		text, _ := os.ReadFile(file)
		t.Errorf("code %d, %q, %q with %.600s", code, out, errs, text)
	}
	for _, args := range [][]string{{}, {"audit"}, {"other", "true"}, {"run", "-o", "x", "true"}} {
		if _, _, code := clitest.Run(t, args...); code != 2 {
			t.Errorf("%q: code %d", args, code)
		}
	}
	if _, errs, code := clitest.Run(t, "run", "-profile", "/dev/null", "true"); code != 125 || !strings.HasPrefix(errs, "seccomp: ") {
		t.Errorf("a bad profile: code %d, %q", code, errs)
	}
}
