package container

import "strings"

// This file says what [Check] answers. The checks are in check_linux.go.

// CheckResult is one line of [Check]: a thing that containers need, whether this host and this user
// have it, and if not, how to get it.
type CheckResult struct {
	// Name is what was looked at: "user namespaces".
	Name string
	// OK tells whether it is there. Not everything is needed by every container: Detail tells what
	// is lost without it.
	OK bool
	// Detail is what was found.
	Detail string
	// Remedy is what to do, mostly a command. Empty if OK.
	Remedy string
}

// String returns the result as one line or two: the remedy stands on a line of its own.
func (r CheckResult) String() string {
	var b strings.Builder
	if r.OK {
		b.WriteString("ok       ")
	} else {
		b.WriteString("missing  ")
	}
	b.WriteString(r.Name)
	if r.Detail != "" {
		b.WriteString(": " + r.Detail)
	}
	if r.Remedy != "" {
		b.WriteString("\n         -> " + r.Remedy)
	}
	return b.String()
}
