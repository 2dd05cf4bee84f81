// Package launch runs a flat program of system calls in a new process.
//
// A [Program] is built in Go: calls, strings, buffers, results that flow into later arguments,
// jumps that depend on a result. It is written, together with a launcher of some 300 bytes of
// position-independent machine code, as a minimal static ELF file into a sealed memfd, and started
// through os/exec. The launcher carries the calls out one after the other. It has no Go
// runtime, no heap, no libc and one thread, so it may do what a Go program may not: setns into
// a user namespace, unshare, clone, and be process number 1.
//
//	 caller's process                               new process
//	+------------------+   os/exec + SysProcAttr   +---------------------------+
//	| Program ── ELF ──┼──────── memfd ───────────▶| launcher: op, op, op, ... |
//	|                  |◀─ messages and failures ──┤            └▶ execve      |
//	|                  |──────── "go on" ─────────▶|                           |
//	+------------------+        socketpair         +---------------------------+
//
// A program can be printed ([Program.String]), and any of its calls can be made to fail
// ([Attr.Fault]), so that every way a start can go wrong can be tested.
//
// The package knows system calls. It knows nothing of containers.
package launch
