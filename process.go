package container

import (
	"io"
	"os"
	"time"
)

// Process describes a process to run in a container and, once it has been started, is the handle
// to it. A Process can be used once. The program begins with the default action of every signal and none blocked, whatever the
// caller ignores.
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

	// Tty gives the process a terminal of the container's own as its controlling terminal and its three
	// streams; it is /dev/console too. Stdin and Stdout are then copied to and from it, and Stderr must be
	// nil or the same as Stdout. Where Stdin is a terminal it is in raw mode while the copying lasts, and
	// the size follows that of the terminal (SIGWINCH). The end of any other Stdin is not passed on,
	// since a terminal has no end: write "\x04" for what Ctrl-D does. With both nil nothing is copied, and what
	// the process writes is dropped, until [Process.Attach]. The caller holds the other side of the terminal: when
	// the caller's process ends, the container's gets SIGHUP. A caller that is killed cannot restore its own terminal:
	// see reset(1).
	Tty bool

	// ConsoleSize is the terminal's first size. Zero: that of the caller's terminal, if Stdin or Stdout
	// is one; else the kernel's 0 by 0, which programs take for unknown.
	ConsoleSize ConsoleSize

	// ConsoleSocket is a connected stream socket of the Unix domain that takes the other side of the terminal, as
	// one SCM_RIGHTS message, before the program runs: what OCI runtimes call --console-socket. The caller keeps
	// no copy: Stdin and Stdout must be nil. The socket stays the caller's to close. Nil: the caller keeps it.
	ConsoleSocket *os.File `json:"-"`

	// DetachKeys end the copying when they are typed: Stdin is restored, Wait returns ErrDetached and the
	// process goes on. Keys are characters or "ctrl-" and a character, with commas between: "ctrl-p,ctrl-q". If
	// empty, there are none.
	DetachKeys string

	// ExtraFiles become the descriptors 3, 4, ... of the process. Nothing else is open in it. A nil
	// entry leaves its number closed.
	ExtraFiles []*os.File `json:"-"`

	// Cgroup is a cgroup below the container's, "jobs/1", that the process is born in. It is made if it is missing, and stays until Destroy. If
	// empty, the container's own; for Exec, that of the first process. Needs Config.Cgroup or Config.Resources.
	Cgroup string

	// WaitDelay bounds the time that Wait, after the process has ended, waits for a grandchild to
	// close the pipes of Stdin, Stdout and Stderr, or the terminal; then they are closed and Wait returns
	// exec.ErrWaitDelay. Zero: no bound.
	WaitDelay time.Duration

	// Timeout bounds the time that the process may run, from the moment that its program runs. Then it gets Config.StopSignal,
	// and SIGKILL after Config.StopTimeout; see [ExitError.TimedOut]. The caller's process sees to it, so it is
	// refused with Config.Detached. Zero: no bound.
	Timeout time.Duration

	// CPUTime bounds the time on CPUs that all processes of the cgroup use that this one is in: for the first process of a
	// container all of the container's, for Exec those of Cgroup, which must be set. It ends as with Timeout, a few milliseconds
	// after that time has been used. Zero: no bound. See RLIMIT_CPU in Rlimits for single processes.
	CPUTime time.Duration

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
	AppArmorProfile string
	SelinuxLabel    string
	SeccompNotify   SeccompHandler `json:"-"`

	live *liveProcess // nil until it has been started

	term *terminal // the caller's side of Tty; nil until a start

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
