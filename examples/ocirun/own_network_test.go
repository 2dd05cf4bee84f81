//go:build linux

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file runs tests where the host's network, and what programs keep about it, are the test's own.

const ownNetworkVar = "CONTAINER_TEST_OWN_NETWORK"

// inOwnNetwork runs the rest of a test in a network namespace and a mount namespace of its own.
func inOwnNetwork(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.Program("ip", "iproute2"), testenv.Program("unshare", "util-linux"))
	if os.Getenv(ownNetworkVar) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(testenv.LookPath("unshare"), "--net", "--mount", self, "-test.run=^"+t.Name()+"$", "-test.v=true")
		cmd.Env = append(os.Environ(), ownNetworkVar+"=1")
		out, err := cmd.CombinedOutput()
		testenv.Again(t, out, err)
		if testing.Verbose() {
			t.Logf("%s", out)
		}
		return
	}
	for _, dir := range []string{"/run", "/var/lib"} { // names of namespaces, leases
		if err := unix.Mount("none", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	}
	ip(t, "link set lo up")
	f(t)
}

// ip runs ip(8).
func ip(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command(testenv.LookPath("ip"), strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}
