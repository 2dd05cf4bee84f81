package container

import (
	"syscall"
	"time"
)

// This file says what is known about a container. How it is kept and asked is in state.go.

// Status says where in its life a container is. It is asked of the kernel each time.
type Status string

// The statuses of a container.
const (
	// StatusCreating: it is on disk, and has no process yet.
	StatusCreating Status = "creating"
	// StatusCreated: its first process has set everything up and waits for Start. Nothing of the
	// user's has run.
	StatusCreated Status = "created"
	// StatusRunning: its first process is alive.
	StatusRunning Status = "running"
	// StatusPaused: its first process is alive and its cgroup frozen.
	StatusPaused Status = "paused"
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
	// nobody saw it end: its creator is gone, and it was not Config.Detached.
	ExitCode int `json:"exitCode"`

	// ExitSignal is the signal that ended the process; 0 if it exited.
	ExitSignal syscall.Signal `json:"exitSignal,omitempty"`

	// OOMKilled, TimedOut and CPUTimeUsedUp are those of ExitError.
	OOMKilled     bool `json:"oomKilled,omitempty"`
	TimedOut      bool `json:"timedOut,omitempty"`
	CPUTimeUsedUp bool `json:"cpuTimeUsedUp,omitempty"`

	// Bundle is that of the Config.
	Bundle string `json:"bundle,omitempty"`

	// Rootless tells whether an ordinary user has made the container.
	Rootless bool `json:"rootless,omitempty"`

	// CgroupPath is the first process's cgroup below the root of the cgroup2 tree, as the caller sees
	// it: "/user.slice/x". Empty where there is none.
	CgroupPath string `json:"cgroupPath,omitempty"`

	// Network is what the container's network has become; nil without a NetworkConfig.
	Network *NetworkState `json:"network,omitempty"`

	// NamespacePaths are the first process's namespaces, "/proc/1234/ns/net", while there is one. They
	// are for the caller's use; the file does not hold them.
	NamespacePaths map[NamespaceKind]string `json:"-"`

	// Annotations are those of the Config.
	Annotations map[string]string `json:"annotations,omitempty"`

	// A pid alone means any process once the number is used again. With the time it was started,
	// in clock ticks since boot, and the boot, it means one.
	StartTime uint64 `json:"startTime,omitempty"`
	BootID    string `json:"bootID,omitempty"`
}
