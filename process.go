package container

import (
	"io"
	"os"
	"time"
)

// Process describes a process to run in a container and, once it has been started, is the handle
// to it. A Process can be used once.
type Process struct {
	// Args is the command line. Args[0] is looked up in the container, in the directories of the
	// process's own PATH; with a slash in it, it is a path, relative to Cwd. Required.
	Args []string

	// Env is the environment, "KEY=value"; of entries with the same key the last one wins. PATH
	// and HOME are added if they are missing: HOME from the container's passwd.
	Env []string

	// InheritEnv puts the caller's environment in front of Env.
	InheritEnv bool

	// Cwd is the working directory, an absolute path in the container. If empty, "/". It is made
	// if it is missing.
	Cwd string

	// User is a name or a number of the container's passwd, with a group after a colon if wanted:
	// "www-data", "1000", "1000:1000". A number is never looked up as a name. If empty, "0".
	User string

	// AdditionalGroups are the supplementary groups, by name or number, besides those that the
	// container's group file lists for a user given by name.
	AdditionalGroups []string

	// Stdin, Stdout and Stderr are as in os/exec: nil is /dev/null, an *os.File is passed to the
	// process, for anything else there is a pipe and a goroutine that copies. If Stdout and Stderr are the same
	// and comparable, one goroutine at a time calls Write.
	Stdin  io.Reader `json:"-"`
	Stdout io.Writer `json:"-"`
	Stderr io.Writer `json:"-"`

	// ExtraFiles become the descriptors 3, 4, ... of the process. Nothing else is open in it. A nil
	// entry leaves its number closed.
	ExtraFiles []*os.File `json:"-"`

	// WaitDelay bounds the time that Wait, after the process has ended, waits for a grandchild to
	// close the pipes of Stdin, Stdout and Stderr; then they are closed and Wait returns
	// exec.ErrWaitDelay. Zero: no bound.
	WaitDelay time.Duration

	// LeaveZombie leaves the exit status to be collected again, by the process that inherits this one when the caller
	// ends: a subreaper (PR_SET_CHILD_SUBREAPER), as the monitor of a container is. Wait works; until the
	// caller ends, the process stays a zombie. It means nothing with Config.Detached.
	LeaveZombie bool

	// What follows overrides the container's setting of the same name. Nil or empty: the container's.
	Capabilities    *Capabilities
	NoNewPrivileges *bool
	Rlimits         []Rlimit
	Umask           *uint32
	OomScoreAdj     *int
	Personality     *Personality
	Scheduler       *Scheduler
	IOPriority      *IOPriority
	CPUAffinity     string

	live *liveProcess // nil until it has been started

	// Both ends of what StdinPipe, StdoutPipe and StderrPipe have made.
	childEnds, parentEnds []*os.File
}

// override is the process's own setting, or if it has none the container's.
func override[T any](own, container *T) *T {
	if own != nil {
		return own
	}
	return container
}
