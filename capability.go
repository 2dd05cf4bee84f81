package container

// This file holds the capability sets; see capabilities(7).

// Capabilities are the five sets of a process, as names: "CAP_CHOWN". The kernel demands that the
// effective set lies in the permitted one, and the ambient set in both the permitted and
// the inheritable one.
type Capabilities struct {
	Bounding    []string
	Effective   []string
	Permitted   []string
	Inheritable []string
	Ambient     []string
}
