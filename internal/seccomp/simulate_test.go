//go:build linux

package seccomp

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// This file tests what a program may be. That the kernel thinks the same is in kernel_verify_test.go.

var end = Instruction{Code: returnValue, K: uint32(Allow)}

// programs tells of each whether the kernel takes it.
var programs = []struct {
	name    string
	program []Instruction
	good    bool
}{
	{"nothing", nil, false},
	{"the shortest", []Instruction{end}, true},
	{"the longest", filled(MaxInstructions), true},
	{"too long", filled(MaxInstructions + 1), false},
	{"no end", []Instruction{{Code: loadWord}}, false},
	{"ends with a jump", []Instruction{end, {Code: jumpAlways}}, false},
	{"returns the accumulator", []Instruction{{Code: classLoad | modeImm, K: uint32(Allow)}, {Code: returnA}}, true},
	{"returns x", []Instruction{{Code: classReturn | operandX}}, false},

	{"jump to the last", []Instruction{{Code: jumpAlways, K: 1}, end, end}, true},
	{"jump behind the last", []Instruction{{Code: jumpAlways, K: 2}, end, end}, false},
	{"jump around", []Instruction{{Code: jumpAlways, K: 1<<32 - 1}, end, end}, false},
	{"branch to the last", []Instruction{{Code: jumpEqual, Jt: 1, Jf: 1}, end, end}, true},
	{"branch behind the last", []Instruction{{Code: jumpEqual, Jt: 2}, end, end}, false},
	{"other branch behind the last", []Instruction{{Code: jumpBits, Jf: 2}, end, end}, false},
	{"far branch", []Instruction{{Code: jumpEqual, Jf: 255}, end}, false},

	{"the last word", []Instruction{{Code: loadWord, K: 60}, end}, true},
	{"behind the last word", []Instruction{{Code: loadWord, K: 64}, end}, false},
	{"half a word", []Instruction{{Code: loadWord, K: 2}, end}, false},
	{"an extension", []Instruction{{Code: loadWord, K: 1<<32 - 0x1000}, end}, false},
	{"a byte", []Instruction{{Code: loadWord | unix.BPF_B}, end}, false},
	{"indirect", []Instruction{{Code: unix.BPF_LD | unix.BPF_IND}, end}, false},
	{"size", []Instruction{{Code: classLoad | modeLen}, end}, true},

	{"the last of the memory", []Instruction{{Code: classStore, K: 15}, {Code: classLoadX | modeMem, K: 15}, end}, true},
	{"behind the memory", []Instruction{{Code: classStore, K: 16}, end}, false},
	{"memory that is not written", []Instruction{{Code: classStore, K: 1}, {Code: classLoad | modeMem, K: 2}, end}, false},
	{"memory that is written on one way", []Instruction{{Code: jumpEqual, Jf: 1}, {Code: classStore}, {Code: classLoad | modeMem}, end}, false},
	{"memory that is written on both ways", []Instruction{
		{Code: jumpEqual, Jf: 2}, {Code: classStore}, {Code: jumpAlways, K: 1}, {Code: classStoreX}, {Code: classLoad | modeMem}, end,
	}, true},

	{"division", []Instruction{{Code: classALU | aluDiv, K: 1}, end}, true},
	{"division by 0", []Instruction{{Code: classALU | aluDiv}, end}, false},
	{"remainder", []Instruction{{Code: classALU | unix.BPF_MOD, K: 1}, end}, false},
	{"shift by 31", []Instruction{{Code: classALU | aluShiftLeft, K: 31}, end}, true},
	{"shift by 32", []Instruction{{Code: classALU | aluShiftLeft, K: 32}, end}, false},
	{"other shift by 32", []Instruction{{Code: classALU | aluShiftRight, K: 32}, end}, false},
	{"negation", []Instruction{{Code: classALU | aluNegate}, end}, true},
	{"negation of x", []Instruction{{Code: classALU | aluNegate | operandX}, end}, false},
	{"a large code", []Instruction{{Code: 0x100 | loadWord}, end}, false},
}

func filled(n int) []Instruction {
	program := make([]Instruction, n)
	for i := range program {
		program[i] = end
	}
	return program
}

func TestVerify(t *testing.T) {
	for _, test := range programs {
		err := Verify(test.program)
		if (err == nil) != test.good {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, simulated := Simulate(test.program, Data{}); (simulated == nil) != test.good {
			t.Errorf("%s: simulation: %v", test.name, simulated)
		}
	}
}

// TestCodes compares the codes with their names in the kernel's headers.
func TestCodes(t *testing.T) {
	for ours, theirs := range map[uint16]uint16{
		loadWord: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, andValue: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K,
		jumpAlways: unix.BPF_JMP | unix.BPF_JA, jumpEqual: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
		jumpGreater: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, jumpAtLeast: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K,
		jumpBits: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, returnValue: unix.BPF_RET | unix.BPF_K, returnA: unix.BPF_RET | unix.BPF_A,
		copyToX: unix.BPF_MISC | unix.BPF_TAX, copyToA: unix.BPF_MISC | unix.BPF_TXA, classStoreX: unix.BPF_STX,
		classLoadX | modeLen: unix.BPF_LDX | unix.BPF_W | unix.BPF_LEN, classALU | aluNegate: unix.BPF_ALU | unix.BPF_NEG,
		classALU | aluShiftRight | operandX: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_X, classALU | aluXor: unix.BPF_ALU | unix.BPF_XOR,
	} {
		if ours != theirs {
			t.Errorf("%#x is %#x", ours, theirs)
		}
	}
	for ours, theirs := range map[uint32]uint32{
		uint32(Allow): unix.SECCOMP_RET_ALLOW, uint32(Log): unix.SECCOMP_RET_LOG, uint32(Notify): unix.SECCOMP_RET_USER_NOTIF,
		uint32(Trace(3)): unix.SECCOMP_RET_TRACE | 3, uint32(Errno(3)): unix.SECCOMP_RET_ERRNO | 3, uint32(Trap): unix.SECCOMP_RET_TRAP,
		uint32(KillThread): unix.SECCOMP_RET_KILL_THREAD, uint32(KillProcess): unix.SECCOMP_RET_KILL_PROCESS,
		auditX86_64: unix.AUDIT_ARCH_X86_64, auditX86: unix.AUDIT_ARCH_I386, auditAARCH64: unix.AUDIT_ARCH_AARCH64, auditARM: unix.AUDIT_ARCH_ARM,
		MaxInstructions: unix.BPF_MAXINSNS, scratchWords: unix.BPF_MEMWORDS,
	} {
		if ours != theirs {
			t.Errorf("%#x is %#x", ours, theirs)
		}
	}
}

func TestDisassemble(t *testing.T) {
	program := compiled(t, one(X86_64, 41, Rule{[]Cmp{whole(1, EQ, 3<<32|0x12345678)}, Allow}))
	program = append(program, Instruction{Code: jumpAlways, K: 2}, Instruction{Code: 0xffff, K: 5}, Instruction{Code: classStore, K: 3},
		Instruction{Code: loadWord, K: 12}, Instruction{Code: loadWord, K: 7}, Instruction{Code: classALU | aluAdd | operandX}, Instruction{Code: copyToX})
	text := Disassemble(program)
	for _, want := range []string{
		"   0  ld   arch\n   1  jeq  0xc000003e ? 2 : ", "  ld   number\n", "  jeq  41 ? ", "  ld   arg1.high\n", "  jeq  3 ? ",
		"  ld   arg1.low\n", "  jeq  0x12345678 ? ", "  ret  allow\n", "  ret  errno 38\n", "  ret  kill process\n",
		"  ja   ", "?    0xffff 0 0 0x5\n", "  st   m[3]\n", "  ld   ip.high\n", "  ld   [7]\n", "  add  x\n", "  tax\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
