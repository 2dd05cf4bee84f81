// Package testenv lets a test say by name what it needs of the host.
//
//	testenv.Need(t, testenv.Root, testenv.Overlay, testenv.Program("skopeo", "skopeo"))
//
// A test whose needs are not met is skipped, and the skip names what is missing and how to get it.
// With the names of requirements in the environment variable CONTAINER_TEST_MUST, separated by
// commas, such a skip is a failure: CI sets it, so that a test that never ran cannot look like one
// that passed.
//
// Whether a requirement is met is found out by doing what it stands for, never by a version number.
package testenv

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// MustVar is the environment variable that turns skips into failures: "root,userns,registry", or
// "all".
const MustVar = "CONTAINER_TEST_MUST"

// Requirement is something of the host that a test cannot do without.
type Requirement struct {
	// Name is the word for it in CONTAINER_TEST_MUST and in the skip.
	Name string
	// Probe returns nil if the requirement is met, and otherwise an error that says what is missing
	// and how to get it. It is called for each test and should remember its answer if that is costly.
	Probe func() error
}

// Need skips the test if one of the requirements is not met, or fails it if CONTAINER_TEST_MUST
// names that requirement.
func Need(t testing.TB, requirements ...Requirement) {
	t.Helper()
	for _, r := range requirements {
		err := r.Probe()
		switch {
		case err == nil:
		case must(os.Getenv(MustVar), r.Name):
			t.Fatalf("needs %s, and %s demands it: %v", r.Name, MustVar, err)
		default:
			t.Skipf("needs %s: %v", r.Name, err)
		}
	}
}

// must tells whether the list names the requirement. "all" names every one but root and user, of
// which nobody can have both.
func must(list, name string) bool {
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		if word == name || word == "all" && name != "root" && name != "user" {
			return true
		}
	}
	return false
}

// missing makes a probe's error: what is missing, and the command that mends it.
func missing(remedy, format string, args ...any) error {
	return fmt.Errorf("%s (%s)", fmt.Sprintf(format, args...), remedy)
}

// install is the command that brings a Debian package.
func install(pkg string) string { return "apt-get install " + pkg }
