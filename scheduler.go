package container

// Scheduler holds the parameters of sched_setattr(2).
type Scheduler struct {
	// Policy is "other", "batch", "idle", "fifo", "rr" or "deadline".
	Policy string
	// Nice is -20 to 19, for other and batch.
	Nice int32
	// Priority is 1 to 99, for fifo and rr.
	Priority uint32
	// ResetOnFork: children start with policy other.
	ResetOnFork bool
	// Runtime, Deadline and Period are in nanoseconds, for deadline.
	Runtime, Deadline, Period uint64
}

// IOPriority holds the parameters of ioprio_set(2).
type IOPriority struct {
	// Class is "rt", "be" or "idle".
	Class string
	// Priority is 0, the highest, to 7.
	Priority int
}

// Personality is an execution domain; see personality(2).
type Personality struct {
	// Domain is "LINUX", or "LINUX32" for a uname that tells of a 32-bit machine.
	Domain string
}
