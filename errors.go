package container

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// The sentinels of this package. Test for them with [errors.Is].
var (
	// ErrExist is returned by New when a container with this id is there already. It wraps fs.ErrExist.
	ErrExist error = &sentinel{"container already exists", fs.ErrExist}

	// ErrNotExist is returned when the container is not, or no longer, on disk; another process may
	// have destroyed it at any time. It wraps fs.ErrNotExist.
	ErrNotExist error = &sentinel{"container does not exist", fs.ErrNotExist}

	// ErrInvalidID is returned for an id that does not match [A-Za-z0-9_+.-]{1,1024}, or is "." or "..".
	ErrInvalidID = errors.New("invalid container id")

	// ErrInvalidConfig is wrapped by each complaint about a field of a Config or Process.
	ErrInvalidConfig error = &sentinel{"invalid configuration", fs.ErrInvalid}

	// ErrRunning is returned by an operation that needs a container whose first process has not been
	// started yet, or has ended.
	ErrRunning = errors.New("container is running")

	// ErrNotCreated is returned by Start when nobody has called Create.
	ErrNotCreated = errors.New("container has not been created")

	// ErrNotRunning is returned by an operation that needs a process when there is none, or none any more.
	ErrNotRunning = errors.New("container is not running")

	// ErrPaused is returned by Exec when the container is paused: the process would not start until the
	// container goes on.
	ErrPaused = errors.New("container is paused")

	// ErrNoCgroup is returned by what needs a cgroup of the container's own, when it has none: set Config.Cgroup or
	// Config.Resources.
	ErrNoCgroup = errors.New("container has no cgroup of its own")

	// ErrUnsupported is returned where this kernel, this host or this user cannot do what was asked
	// for. The message names what is missing. It wraps errors.ErrUnsupported.
	ErrUnsupported error = &sentinel{"not supported here", errors.ErrUnsupported}

	// ErrNotFound is returned when Process.Args[0] is not an executable of the container: the shell's
	// exit code 127.
	ErrNotFound = errors.New("executable file not found in the container")

	// ErrLocked is returned when somebody has held a lock until ctx was done, or one of the network for ten seconds where there is no ctx. The *Error names
	// the lock's file, and the process that holds it if that is known: it may be stopped. Nothing is lost by then: what has been
	// called can be called again.
	ErrLocked = errors.New("another process holds the lock")

	// ErrNotExecutable is returned when Process.Args[0] is there but cannot be executed: the shell's
	// exit code 126.
	ErrNotExecutable = errors.New("file is not executable")
)

// ErrVerify is returned by Create, Run, Start and Exec when the kernel shows a new process in another way than was asked for: a wall
// is missing. Path in the *Error names it. The process has been killed; without hooks nothing of the container has run, or,
// where it is the seccomp filter or the label that is missing, the program may have run for a moment.
var ErrVerify = errors.New("the process is not what was asked for")

type sentinel struct {
	text string
	is   error
}

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Unwrap() error { return s.is }

// Error says which operation failed, on which container and which object.
type Error struct {
	// Op is the operation or the step of a start: "create", "mount", "unshare", "execve".
	Op string
	// ID is the container's id. Empty where there is none yet.
	ID string
	// Path is the file, namespace or other object that the step was about. May be empty.
	Path string
	// Err is the reason; often a syscall.Errno.
	Err error
	// Remedy says what the user can do about it. May be empty.
	Remedy string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("container")
	if e.ID != "" {
		b.WriteString(" " + e.ID)
	}
	b.WriteString(": " + e.Op)
	if e.Path != "" {
		b.WriteString(" " + e.Path)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Remedy != "" {
		b.WriteString(" (" + e.Remedy + ")")
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// FieldError is one complaint about a Config, Process or other input: which field, what is wrong
// with it, and what would be right. New and Run return all complaints at once, joined by
// errors.Join; each wraps ErrInvalidConfig.
type FieldError struct {
	// Field names the field as in Go: "Mounts[2].Target".
	Field string
	// Problem says what is wrong and what would be right.
	Problem string
	// Err is a more specific cause. May be nil.
	Err error
}

func (e *FieldError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Field, e.Problem, e.Err)
	}
	return e.Field + ": " + e.Problem
}

// Unwrap makes errors.Is(err, ErrInvalidConfig) and the cause visible.
func (e *FieldError) Unwrap() []error {
	if e.Err != nil {
		return []error{ErrInvalidConfig, e.Err}
	}
	return []error{ErrInvalidConfig}
}

// fieldErrorf makes a FieldError.
func fieldErrorf(field, format string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// ExitError is returned by Wait when the process ended with a status other than 0, or because one of its times was used up.
type ExitError struct {
	// Code is the exit code, or 128 plus the signal's number, as a shell reports it.
	Code int
	// Signal is the signal that ended the process; 0 if it exited.
	Signal syscall.Signal
	// CoreDumped tells whether a core was written.
	CoreDumped bool
	// OOMKilled tells whether the kernel has killed it because its cgroup, or the host, was out of memory. It is known
	// only of a container with a cgroup of its own and the memory controller: with a limit of memory.
	OOMKilled bool
	// TimedOut and CPUTimeUsedUp tell whether it was ended because of Process.Timeout or Process.CPUTime. Code may then be
	// anything, also 0.
	TimedOut      bool
	CPUTimeUsedUp bool
}

// A Verdict says in a word how a process has ended.
type Verdict string

// The verdicts.
const (
	VerdictExit    Verdict = "exit"     // it has exited; Code says with what
	VerdictSignal  Verdict = "signal"   // Signal has ended it
	VerdictOOM     Verdict = "oom"      // the kernel has killed it because of memory
	VerdictTimeout Verdict = "timeout"  // Process.Timeout was over
	VerdictCPUTime Verdict = "cpu time" // Process.CPUTime was used up
)

// Verdict returns the most particular reason.
func (e *ExitError) Verdict() Verdict {
	switch {
	case e.OOMKilled:
		return VerdictOOM
	case e.TimedOut:
		return VerdictTimeout
	case e.CPUTimeUsedUp:
		return VerdictCPUTime
	case e.Signal != 0:
		return VerdictSignal
	}
	return VerdictExit
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != 0 {
		text = fmt.Sprintf("signal: %v", e.Signal)
	}
	if e.CoreDumped {
		text += " (core dumped)"
	}
	switch e.Verdict() {
	case VerdictOOM:
		text += " (out of memory)"
	case VerdictTimeout:
		text += " (its time was over)"
	case VerdictCPUTime:
		text += " (its CPU time was used up)"
	}
	return text
}

// ExitCode is the code that a shell would report: Code.
func (e *ExitError) ExitCode() int { return e.Code }
