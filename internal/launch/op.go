//go:build linux

package launch

// This file fixes the layout of an op, the contract between the builder in Go and the launcher in
// assembly, and the addresses at which the parts of a program are mapped.

// An op is one system call with what to do about its result. The launcher
//
//  1. takes the six arguments, loading those whose bit in indirect is set from the address given,
//  2. makes the call nr, or subtracts args[1] from args[0] if nr is opSub,
//  3. writes the result to the address store, if there is one,
//  4. goes on at the target of the first case whose value equals the low 32 bits of the result,
//     else at fail if the result is negative, else at next.
//
// Targets are indices of ops plus one. Zero is the default: for next the following op, for fail
// the report (ops 0 and 1), and in a case it ends the list.
type op struct {
	nr       uint32
	indirect uint32
	args     [6]int64
	store    uint64
	next     uint32
	fail     uint32
	cases    [maxCases]opCase
}

type opCase struct {
	value  int32
	target uint32
}

const (
	opSize   = 128
	maxCases = 7

	// opSub is no system call: the result is args[0] - args[1].
	opSub = 0xffffffff

	// opCrash is none either: its first argument is loaded from address 0, where nothing is.
	opCrash = 0xfffffffe
)

// Where the parts lie in the launcher's address space. The assembly files know these numbers.
const (
	textBase = 0x400000        // ELF headers and launcher, one page
	opsBase  = textBase + 4096 // the ops, in the same segment: read-only
	dataBase = 0x10000000      // strings, buffers and results

	// A failing op without a target leaves its own address and its result here, and goes to op 0.
	failAddr = dataBase

	// messageSize is the size of a failure, and of what Send sends.
	messageSize = 16
)

// maxOps is how many ops have room before the data, but for those that link puts at the end.
const maxOps = (dataBase-opsBase)/opSize - 2

// The first ops of every program.
const (
	opReport = 0 // write the failure to the socket
	opExit   = 1 // exit_group; if a filter forbids even that, the process crashes
	opFirst  = 2 // where the launcher starts
)
