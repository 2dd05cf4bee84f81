package container

// Rlimit is a resource limit; see getrlimit(2).
type Rlimit struct {
	// Type is the name: "RLIMIT_NOFILE" or "nofile".
	Type string
	// Soft and Hard are the limits in the resource's own unit. RlimInfinity means none.
	Soft, Hard uint64
}

// RlimInfinity is "no limit".
const RlimInfinity = ^uint64(0)
