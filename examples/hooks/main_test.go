//go:build linux

package main

import (
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

func TestHooks(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay)
	out, stderr, code := clitest.Run(t, "sh", "-c", "cat /dev/shm/note; sleep 0.2; exit 7")
	if code != 7 || out != "made by a hook\nand one inside\n" {
		t.Errorf("exits with %d: %s%s", code, out, stderr)
	}
	if want := "createRuntime: hooks is creating\npoststart: hooks is running\npoststop: hooks is stopped\n"; stderr != want {
		t.Errorf("tells %q, want %q", stderr, want)
	}
	if _, _, code := clitest.Run(t); code != 2 {
		t.Errorf("without a command it exits with %d", code)
	}
}
