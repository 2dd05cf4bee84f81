//go:build linux

package launch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// This file holds what can go wrong with a program.

// Error is the failure of one call of a program in its process.
type Error struct {
	// Step is what the call was for.
	Step Step
	// Syscall is the call's name.
	Syscall string
	// Op is the call's index in the program.
	Op int
	// Errno is why it failed.
	Errno unix.Errno
}

func (e *Error) Error() string {
	s := e.Step.Name
	if e.Step.Object != "" {
		s += " " + e.Step.Object
	}
	return fmt.Sprintf("%s: %s: %v", s, e.Syscall, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }

var (
	// ErrDied says that the process was killed while it was still in the launcher.
	ErrDied = errors.New("the process was killed before it could execute the program")

	// ErrUnsupported is returned by Start where there is no launcher for the architecture.
	ErrUnsupported = fmt.Errorf("no launcher for this architecture: %w", errors.ErrUnsupported)
)

// parseFailure reads the report of a failing op: its address and its result. The process may be in
// other hands by now, so nothing is taken for granted.
func (p *Program) parseFailure(addr, result uint64) error {
	i, rest := (addr-opsBase)/opSize, (addr-opsBase)%opSize
	switch {
	case addr < opsBase || rest != 0 || i > uint64(len(p.ops)) || int64(result) >= 0:
		return fmt.Errorf("launch: message from the process that is none (%#x, %#x)", addr, result)
	case i == uint64(len(p.ops)):
		return errors.New("launch: the program went on after its last call")
	}
	return &Error{Step: p.StepOf(int(i)), Syscall: syscallName(p.ops[i].nr), Op: int(i), Errno: unix.Errno(-result)}
}
