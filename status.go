package container

import "time"

// This file says what is known about a container. How it is kept and asked is in state.go.

// Status says where in its life a container is. It is asked of the kernel each time.
type Status string

// The statuses of a container.
const (
	// StatusCreated: it is on disk, and nothing of the user's has run.
	StatusCreated Status = "created"
	// StatusRunning: its first process is alive.
	StatusRunning Status = "running"
	// StatusStopped: its first process has ended.
	StatusStopped Status = "stopped"
)

// ContainerState is what is known about a container at one moment. Its JSON form is what state.json
// holds; unknown fields of a newer version are ignored.
type ContainerState struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Status  Status `json:"status"`

	// Pid is the first process in the caller's PID namespace; 0 when there is none.
	Pid int `json:"pid,omitempty"`

	Created time.Time `json:"created"`
	Started time.Time `json:"started,omitzero"`
	Stopped time.Time `json:"stopped,omitzero"`

	// ExitCode is the code, or 128 plus the signal's number, of a stopped container. It is -1 if
	// nobody saw it end.
	ExitCode int `json:"exitCode"`

	// Bundle is that of the Config.
	Bundle string `json:"bundle,omitempty"`

	// Annotations are those of the Config.
	Annotations map[string]string `json:"annotations,omitempty"`

	// A pid alone means any process once the number is used again. With the time it was started,
	// in clock ticks since boot, and the boot, it means one.
	StartTime uint64 `json:"startTime,omitempty"`
	BootID    string `json:"bootID,omitempty"`
}
