package container

import (
	"slices"
	"strings"
)

// This file holds resource limits and their numbers. It is data; the launcher's program sets them.

// Rlimit is a resource limit; see getrlimit(2).
type Rlimit struct {
	// Type is the name: "RLIMIT_NOFILE" or "nofile".
	Type string
	// Soft and Hard are the limits in the resource's own unit. RlimInfinity means none. Raising Hard
	// above the caller's needs CAP_SYS_RESOURCE on the host.
	Soft, Hard uint64
}

// RlimInfinity is "no limit".
const RlimInfinity = ^uint64(0)

// rlimitNames is indexed by the resource's number in asm-generic/resource.h, which holds for all
// architectures that this package has a launcher for.
var rlimitNames = []string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile",
	"memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
}

// resource returns the number of the limit's resource.
func (r Rlimit) resource() (int, error) {
	name := strings.TrimPrefix(strings.ToLower(r.Type), "rlimit_")
	if n := slices.Index(rlimitNames, name); n >= 0 {
		return n, nil
	}
	return 0, fieldErrorf("Type", "unknown resource %q; one of %s", r.Type, strings.Join(rlimitNames, ", "))
}
