//go:build linux

package main

import (
	"os"
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// It runs in a network of its own, and leaves that as it was.
func TestNetwork(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Overlay, testenv.Nft, testenv.StaticBusybox, testenv.Program("curl", "curl"), testenv.Program("ip", "iproute2"), testenv.Program("unshare", "util-linux"))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := clitest.Command(t)
	cmd.Path = testenv.LookPath("unshare")
	cmd.Args = []string{"unshare", "-n", "-m", "sh", "-c", "ip link set lo up; " + self + " || exit; ip -o link | grep -v ' lo:'; nft list tables", "sh"}
	out, errs, code := clitest.Output(t, cmd)
	if code != 0 {
		t.Fatalf("code %d; output:\n%s%s", code, out, errs)
	}
	for _, want := range []string{"client: hello from the server\n", "host, at http://127.0.0.1:"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if _, left, _ := strings.Cut(out, "host, at "); strings.Count(left, "\n") != 1 {
		t.Errorf("left:\n%s", left)
	}
}
