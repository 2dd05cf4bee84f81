package container

import "time"

// This file says what can happen to a container, as data. How it is noticed is in events_follow.go.

// An Event is something that has happened to a container.
type Event struct {
	// Time is when it was noticed.
	Time time.Time
	Type EventType

	// Count is how often it has happened since the last event of this type: the processes killed for an EventOOM, the
	// failed forks for an EventPidsMax. 1 for the others.
	Count uint64

	// Err is for an EventExit what Wait returns: nil after an exit with 0, an [*ExitError], or why it is not known.
	Err error `json:"-"`
}

// EventType says what has happened.
type EventType string

// The types of events.
const (
	// EventOOM: the kernel has killed a process for want of memory. It needs the memory controller.
	EventOOM EventType = "oom"
	// EventPidsMax: a fork has failed because of the limit of the pids controller, which it needs.
	EventPidsMax EventType = "pids-max"
	// EventPaused: all processes are stopped. EventResumed: they go on.
	EventPaused  EventType = "paused"
	EventResumed EventType = "resumed"
	// EventExit: the first process has ended. It is the last event.
	EventExit EventType = "exit"
)

// PressureResource is what processes wait for.
type PressureResource string

// The resources whose pressure is measured.
const (
	PressureCPU    PressureResource = "cpu"
	PressureMemory PressureResource = "memory"
	PressureIO     PressureResource = "io"
)

// A PressureTrigger says how much pressure is worth a notification: waiting for Stall or longer within a Window. There is at
// most one notification in each Window. The zero value is 200 ms in 2 s.
//
// The window may be at most 10 s, and for some kernels at least 500 ms. Without CAP_SYS_RESOURCE it must be a multiple of
// 2 s, and the kernel Linux 6.7 or later, or one that has got this from there, as 6.1 and 6.6 have.
type PressureTrigger struct {
	// Full counts the time in which nobody did anything but wait; else it is the time in which one process or more
	// waited.
	Full bool
	// Stall is at least 1 us and at most Window. If zero: a tenth of the window.
	Stall time.Duration
	// Window is counted in microseconds by the kernel. If zero: 2 s.
	Window time.Duration
}
