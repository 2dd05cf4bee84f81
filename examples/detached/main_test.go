//go:build linux

package main

import (
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

func TestDetached(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay)
	dir := t.TempDir()
	step := func(wantOut string, wantCode int, args ...string) {
		t.Helper()
		out, stderr, code := clitest.Run(t, append([]string{"-state", dir}, args...)...)
		if !strings.HasPrefix(out, wantOut) || code != wantCode {
			t.Errorf("%q exits with %d: %s%s", args, code, out, stderr)
		}
	}
	step("", 2, "run", "x")
	step("", 0, "list")
	step("", 0, "run", "a", "sleep", "1000")
	step("a running pid=", 0, "list")
	step("", 0, "destroy", "a")
	step("", 0, "run", "x", "sh", "-c", "sleep 0.2; exit 9")
	step("", 9, "wait", "x")
	step("", 9, "wait", "x") // as often as one likes
	step("x stopped pid=0 exit=9", 0, "list")
	step("", 125, "run", "x", "true") // the id is taken
	step("", 0, "destroy", "x")
	step("", 125, "destroy", "x")
	step("", 0, "list")
}
