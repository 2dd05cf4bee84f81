//go:build linux

package main

import (
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

func TestCheck(t *testing.T) {
	out, errs, code := clitest.Run(t)
	if code != 0 || errs != "" || !strings.Contains(out, "user namespaces: ") {
		t.Errorf("code %d, output %q, errors %q", code, out, errs)
	}
}
