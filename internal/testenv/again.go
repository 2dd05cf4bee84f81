package testenv

import (
	"strings"
	"testing"
)

// Again ends a test as its namesake has ended, a test that was run by this binary once more in a process of its own with -test.v: passed, failed,
// or skipped, with what that process has said.
func Again(t testing.TB, out []byte, err error) {
	t.Helper()
	switch text := string(out); {
	case err == nil && strings.Contains(text, "--- PASS: "+t.Name()+" "):
	case err == nil && strings.Contains(text, "--- SKIP: "+t.Name()+" "):
		t.Skipf("in a process of its own:\n%s", text)
	default:
		t.Errorf("in a process of its own: %v\n%s", err, text)
	}
}
