// Package seccomp compiles rules for system calls into filters of classic BPF, and evaluates such filters. It knows
// the numbers of system calls, and no profiles. Nothing here touches the kernel.
package seccomp

// This file holds what a filter is before it is compiled.

// An ABI is a way to call the kernel, by the name of its architecture in libseccomp without the prefix.
type ABI string

// The ABIs whose numbers are known.
const (
	X86_64  ABI = "X86_64"
	X86     ABI = "X86" // i386
	X32     ABI = "X32" // audit architecture of X86_64, numbers with bit 30
	AARCH64 ABI = "AARCH64"
	ARM     ABI = "ARM"
)

// An Action is what a filter returns: SECCOMP_RET_* with its data; see seccomp(2).
type Action uint32

// An Op compares an argument with a value, both unsigned.
type Op uint8

// The comparisons.
const (
	EQ Op = iota // argument & Mask == Value
	NE           // argument & Mask != Value
	LT           // the others look at the whole argument
	LE
	GT
	GE
)

// A Cmp is a condition on an argument.
type Cmp struct {
	Arg   uint8 // 0 to 5
	Op    Op
	Mask  uint64 // of EQ and NE; all ones for the whole argument
	Value uint64
	Low   bool // the argument's upper half counts as 0: the kernel does not look at it for an int. So it is on ABIs of 32 bits
}

// A Rule has an action for the calls for which all conditions hold.
type Rule struct {
	Cmps   []Cmp
	Action Action
}

// A Table has the rules of an ABI.
type Table struct {
	ABI     ABI
	Rules   map[uint32][]Rule // by the number, without X32's bit, and less than that; the first that holds counts
	Default Action            // of a known call for which no rule holds
	Unknown Action            // the same of a number that this package does not know, and of negative numbers
}

// A Filter is what to do with each system call.
type Filter struct {
	Tables  []Table // one for each ABI
	Foreign Action  // of the ABIs that have no table
	NoX32   Action  // of X32 in place of Foreign, if X86_64 has a table, with which it shares AUDIT_ARCH_X86_64
}

// An Instruction is struct sock_filter.
type Instruction struct {
	Code   uint16
	Jt, Jf uint8
	K      uint32
}

// Data is struct seccomp_data.
type Data struct {
	Nr                 int32
	Arch               uint32 // AUDIT_ARCH_*
	InstructionPointer uint64
	Args               [6]uint64
}

// MaxInstructions is the kernel's bound.
const MaxInstructions = 4096
