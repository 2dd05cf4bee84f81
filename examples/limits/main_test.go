//go:build linux

package main

import (
	"os"
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, func() { os.Exit(run()) }) }

func TestLimitsExample(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Cgroup)
	for _, name := range []string{"cpu", "memory", "pids"} {
		testenv.Need(t, testenv.CgroupController(name))
	}
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"exit":   {[]string{"--", "sh", "-c", "exit 3"}, 3, "exit, code 3"},
		"memory": {[]string{"-memory", "32m", "--", "sh", "-c", "head -c 100m /dev/zero | tail | wc -c"}, 137, "oom"},
		"time":   {[]string{"-time", "1s", "-cpus", "0.2", "--", "sh", "-c", "while :; do :; done"}, 137, "timeout"},
	} {
		if _, errs, code := clitest.Run(t, test.args...); code != test.code || !strings.Contains(errs, test.says) {
			t.Errorf("%s: code %d: %s", name, code, errs)
		}
	}
}
