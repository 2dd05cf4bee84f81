//go:build linux

package launch

import (
	"encoding/binary"
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

// parseFailure reads the report of a failing op: its address and its result.
func (p *Program) parseFailure(addr, result uint64) error {
	return parseFailure(addr, result, 0, len(p.ops), p.call)
}

// call describes the call i.
func (p *Program) call(i int) CallInfo { return CallInfo{syscallName(p.ops[i].nr), p.StepOf(i)} }

// parseFailure reads a report of the calls from first on. The process may be in other hands by now, so
// nothing is taken for granted.
func parseFailure(addr, result uint64, first, end int, call func(i int) CallInfo) error {
	i, rest := (addr-opsBase)/opSize, (addr-opsBase)%opSize
	switch {
	case addr < opsBase || rest != 0 || i < uint64(first) || i > uint64(end) || int64(result) >= 0:
		return fmt.Errorf("launch: message from the process that is none (%#x, %#x)", addr, result)
	case i == uint64(end):
		return errors.New("launch: the program went on after its last call")
	}
	info := call(int(i))
	return &Error{Step: info.Step, Syscall: info.Syscall, Op: int(i), Errno: unix.Errno(-result)}
}

// LastCalls describes the last calls of a program, for somebody who reads the failure of one and does not have
// the program.
type LastCalls struct {
	First int // the index of the first of them
	Calls []CallInfo
}

// CallInfo is what is known about a call.
type CallInfo struct {
	Syscall string
	Step    Step
}

// LastCalls describes the calls from first on.
func (p *Program) LastCalls(first int) LastCalls {
	l := LastCalls{First: first}
	for i := first; i < len(p.ops); i++ {
		l.Calls = append(l.Calls, p.call(i))
	}
	return l
}

// FailureSize is the size of what a program writes about a failing call.
const FailureSize = messageSize

// ParseFailure turns what a program has written about a failing call into an *Error.
func (l LastCalls) ParseFailure(msg []byte) error {
	if len(msg) != FailureSize {
		return fmt.Errorf("launch: message of %d bytes", len(msg))
	}
	addr, result := binary.LittleEndian.Uint64(msg), binary.LittleEndian.Uint64(msg[8:])
	return parseFailure(addr, result, l.First, l.First+len(l.Calls), func(i int) CallInfo { return l.Calls[i-l.First] })
}
