package container

import (
	"errors"
	"os"
)

// This file holds what a handler of system calls sees and answers.

// SeccompCall is a system call that waits for an answer. Its methods look at the thread that waits, and change it; they may be
// used until the handler has returned. They return [ErrCallEnded] if the thread does not wait any more.
//
// The caller needs the right to trace the process, as whoever has started the container has it; see ptrace(2). An ordinary
// user does not have it for the execve that starts the program, which the launcher makes: there ReadAt and the like
// return an error with EPERM.
type SeccompCall struct {
	// Name is the call's name, empty if this package does not know the number. Architecture is the ABI by which it was made:
	// "SCMP_ARCH_X86_64". Number is its number there.
	Name         string
	Architecture string
	Number       uint32
	// Args are its arguments as they were in the registers.
	Args [6]uint64
	// Pid is the number of the thread in the caller's PID namespace.
	Pid int

	waiting *seccompThread
}

// ErrCallEnded is returned by the methods of SeccompCall when the call has been interrupted by a signal, or its thread has been
// killed. What had been read until then may be another process's and is not returned.
var ErrCallEnded = errors.New("the system call has ended")

// SeccompAnswer says how a call ends. The zero answer is success with the result 0, without the kernel having done anything.
type SeccompAnswer struct {
	// Errno fails the call; 1 to 4095. Greater ones are EPERM.
	Errno uint
	// Value is the result of a call that does not fail.
	Value int64
	// File becomes a descriptor of the calling process, close-on-exec if CloseOnExec is set, whose number is the result: in one
	// step with the answer, so that none is left behind if the call is interrupted. It is closed here in any case. Nil: none.
	// Linux 5.14.
	File        *os.File
	CloseOnExec bool
	// Continue lets the kernel carry the call out. The rest is not looked at, but File is closed.
	//
	// It is no decision on safety: the kernel reads the arguments anew, and another thread of the program may have changed
	// what they point to since the handler has looked at it, as may who shares its memory or can write to it. So a handler that continues
	// what it finds harmless stops mistakes and no attacks. Arguments in registers, such as numbers, flags and
	// descriptors, do not change, but what a descriptor refers to may. See seccomp_unotify(2).
	Continue bool
}
