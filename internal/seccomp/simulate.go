package seccomp

import (
	"errors"
	"fmt"
)

// This file checks and runs programs as the kernel does: bpf_check_classic in net/core/filter.c, then
// seccomp_check_filter in kernel/seccomp.c.

// scratchWords is the number of words of memory that a program has: BPF_MEMWORDS.
const scratchWords = 16

// dataSize is that of struct seccomp_data.
const dataSize = 64

// Simulate returns what a program does at a call. The error is that the kernel would not take the program.
func Simulate(program []Instruction, d Data) (Action, error) {
	if err := Verify(program); err != nil {
		return 0, err
	}
	return run(program, d.words()), nil
}

// Verify tells whether the kernel would take a program.
func Verify(program []Instruction) error {
	if len(program) == 0 || len(program) > MaxInstructions {
		return fmt.Errorf("%d instructions", len(program))
	}
	for at, i := range program {
		if err := i.check(len(program) - at - 1); err != nil {
			return fmt.Errorf("instruction %d, %v: %w", at, i, err)
		}
	}
	if program[len(program)-1].Code&7 != classReturn {
		return errors.New("the last instruction does not return")
	}
	return checkMemory(program)
}

// check tells what is wrong with an instruction that has so many after it.
func (i Instruction) check(after int) error {
	switch {
	case i.code().name == "":
		return errors.New("a filter may not have this instruction")
	case i.Code == loadWord && (i.K >= dataSize || i.K%4 != 0):
		return errors.New("no word of seccomp_data")
	case i.code().memory && i.K >= scratchWords:
		return errors.New("no word of memory")
	case i.Code == classALU|aluDiv && i.K == 0:
		return errors.New("division by 0")
	case (i.Code == classALU|aluShiftLeft || i.Code == classALU|aluShiftRight) && i.K >= 32:
		return errors.New("shift by more than 31")
	case i.Code == jumpAlways && uint64(i.K) >= uint64(after),
		i.branches() && int(max(i.Jt, i.Jf)) >= after:
		return errors.New("jump out of the program")
	}
	return nil
}

func (i Instruction) branches() bool { return i.Code&7 == classJump && i.Code != jumpAlways }

// checkMemory tells whether each word of memory that is read has been written, whatever way leads there.
func checkMemory(program []Instruction) error {
	const all = 1<<scratchWords - 1
	written := make([]uint16, len(program)) // on all ways to the instruction, of jumps
	for at := range written {
		written[at] = all
	}
	valid := uint16(0)
	for at, i := range program {
		valid &= written[at]
		switch class := i.Code & 7; {
		case class == classStore || class == classStoreX:
			valid |= 1 << i.K
		case i.code().memory && valid&(1<<i.K) == 0:
			return fmt.Errorf("instruction %d, %v: reads memory that is not written", at, i)
		case i.Code == jumpAlways:
			written[at+1+int(i.K)] &= valid
			valid = all
		case class == classJump:
			written[at+1+int(i.Jt)] &= valid
			written[at+1+int(i.Jf)] &= valid
			valid = all
		}
	}
	return nil
}

// words returns the call as a program sees it.
func (d Data) words() (words [dataSize / 4]uint32) {
	words[0], words[1] = uint32(d.Nr), d.Arch
	words[2], words[3] = uint32(d.InstructionPointer), uint32(d.InstructionPointer>>32)
	for i, arg := range d.Args {
		words[4+2*i], words[5+2*i] = uint32(arg), uint32(arg>>32)
	}
	return words
}

// machine is what a program computes with.
type machine struct {
	a, x   uint32
	memory [scratchWords]uint32
	words  [dataSize / 4]uint32
}

// run runs a program that has been checked; jumps go forward, so it ends.
func run(program []Instruction, words [dataSize / 4]uint32) Action {
	m := machine{words: words}
	for at := 0; ; at++ {
		i := program[at]
		operand := i.K
		if i.Code&operandX != 0 {
			operand = m.x
		}
		switch i.Code & 7 {
		case classReturn:
			if i.Code == returnA {
				return Action(m.a)
			}
			return Action(i.K)
		case classJump:
			at += m.jump(i, operand)
		case classALU:
			if i.Code&0xf0 == aluDiv && operand == 0 {
				return KillThread // as the kernel has it
			}
			m.a = alu(i.Code&0xf0, m.a, operand)
		default:
			m.move(i)
		}
	}
}

// jump returns how many instructions are skipped.
func (m *machine) jump(i Instruction, operand uint32) int {
	var yes bool
	switch i.Code &^ operandX {
	case jumpAlways:
		return int(i.K)
	case jumpEqual:
		yes = m.a == operand
	case jumpGreater:
		yes = m.a > operand
	case jumpAtLeast:
		yes = m.a >= operand
	case jumpBits:
		yes = m.a&operand != 0
	}
	if yes {
		return int(i.Jt)
	}
	return int(i.Jf)
}

// move loads, stores and copies.
func (m *machine) move(i Instruction) {
	switch i.Code & 7 {
	case classStore:
		m.memory[i.K] = m.a
	case classStoreX:
		m.memory[i.K] = m.x
	case classMisc:
		if i.Code == copyToX {
			m.x = m.a
		} else {
			m.a = m.x
		}
	case classLoad:
		m.a = m.load(i)
	case classLoadX:
		m.x = m.load(i)
	}
}

func (m *machine) load(i Instruction) uint32 {
	switch i.Code & 0xe0 {
	case modeAbs:
		return m.words[i.K/4]
	case modeMem:
		return m.memory[i.K]
	case modeLen:
		return dataSize
	}
	return i.K
}

func alu(op uint16, a, b uint32) uint32 {
	switch op {
	case aluAdd:
		return a + b
	case aluSub:
		return a - b
	case aluMul:
		return a * b
	case aluDiv:
		return a / b
	case aluOr:
		return a | b
	case aluAnd:
		return a & b
	case aluShiftLeft:
		return a << (b % 32)
	case aluShiftRight:
		return a >> (b % 32)
	case aluXor:
		return a ^ b
	}
	return -a // aluNegate
}
