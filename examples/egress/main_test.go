//go:build linux

package main

import (
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// What a program wants is printed, and it gets nothing of it.
func TestEgressAsked(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay, testenv.Program("curl", "curl"))
	curl := testenv.LookPath("curl")
	out, errs, code := clitest.Run(t, "-n", "--", "sh", "-c", curl+" -sS -m 60 http://192.0.2.1/; "+curl+" -sS -m 60 http://example.invalid/")
	if out != "" || code != 6 {
		t.Errorf("code %d, output %q", code, out)
	}
	for _, want := range []string{"egress: asked for tcp 192.0.2.1:80\n", "egress: asked for dns example.invalid\n", "denied"} {
		if !strings.Contains(errs, want) {
			t.Errorf("no %q in:\n%s", want, errs)
		}
	}
	if _, _, code := clitest.Run(t); code != 2 {
		t.Errorf("without a command: code %d", code)
	}
}
