//go:build linux && (amd64 || arm64)

package launch

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"
)

// This file decodes the launcher's machine code: it must run wherever its bytes are copied, with no
// stack, and keep its hands off everything but ops and data.

// An instruction of either architecture, as far as the check needs it.
type instruction struct {
	at       int
	text     string
	op       string
	regs     []string // all that it names, under their 64-bit names
	target   int      // of a branch, else -1
	relative bool     // it names an address relative to its own that is no branch target
	stores   bool     // it writes memory
}

// What the launcher is made of. Not here: calls and returns, push and pop, atomics, anything that
// loads from near the code (literal pools).
var instructions = map[string]string{
	"amd64": "MOV LEA ADD SUB SHL SHR CMP TEST JAE JE JNE JNS JMP SYSCALL",
	"arm64": "MOV MOVK LDR STR ADD SUB CMP CMN TBZ CBZ CBNZ B SVC",
}

// The registers it uses. Not here: stack and frame pointers, and what a system call clobbers (RCX
// and R11 on amd64).
var registers = map[string]string{
	"amd64": "RAX RBX RDX RSI RDI R8 R9 R10 R12 R13 R14 R15",
	"arm64": "X0 X1 X2 X3 X4 X5 X8 X9 X10 X11 X12 X13 X14",
}

func TestCode(t *testing.T) {
	decode := map[string]func(*testing.T, []byte) []instruction{"amd64": decodeAmd64, "arm64": decodeArm64}[runtime.GOARCH]
	checkCodeOf(t, runtime.GOARCH, decode(t, code()), len(code()))
}

// checkCodeOf checks the launcher of arch, size bytes long.
func checkCodeOf(t *testing.T, arch string, code []instruction, size int) {
	t.Helper()
	if size >= 512 {
		t.Errorf("the launcher has %d bytes", size)
	}
	has := func(list, word string) bool { return strings.Contains(" "+list+" ", " "+word+" ") }
	starts := map[int]bool{}
	for _, in := range code {
		starts[in.at] = true
	}
	calls, stores := 0, 0
	for _, in := range code {
		if !has(instructions[arch], in.op) {
			t.Errorf("%s: an instruction that the launcher has no use for", in.text)
		}
		for _, r := range in.regs {
			if !has(registers[arch], r) {
				t.Errorf("%s: register %s", in.text, r)
			}
		}
		if in.relative {
			t.Errorf("%s: the address of something near the code", in.text)
		}
		if in.target != -1 && !starts[in.target] {
			t.Errorf("%s: jumps to %#x, which is no instruction of the launcher", in.text, in.target)
		}
		if in.op == "SYSCALL" || in.op == "SVC" {
			calls++
		}
		if in.stores {
			stores++
		}
	}
	if calls != 1 {
		t.Errorf("%d system calls, there is one in the loop", calls)
	}
	if stores != 3 { // a result; the op and the result of a failure
		t.Errorf("%d stores", stores)
	}
	if last := code[len(code)-1]; last.op != "JMP" && last.op != "B" || strings.Contains(last.text, "B.") {
		t.Errorf("%s: the launcher does not end in a jump", last.text)
	}
}

func decodeAmd64(t *testing.T, code []byte) (list []instruction) {
	t.Helper()
	wide := func(r x86asm.Reg) string {
		if r >= x86asm.EAX && r <= x86asm.R15L {
			r += x86asm.RAX - x86asm.EAX
		}
		return r.String()
	}
	for at := 0; at < len(code); {
		x, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			t.Fatalf("%#x: % x: %v", at, code[at:min(at+8, len(code))], err)
		}
		in := instruction{at: at, text: fmt.Sprintf("%#x: %v", at, x), op: x.Op.String(), target: -1}
		for i, arg := range x.Args {
			switch a := arg.(type) {
			case x86asm.Reg:
				in.regs = append(in.regs, wide(a))
			case x86asm.Rel:
				in.target = at + x.Len + int(a)
			case x86asm.Mem:
				in.relative = a.Base == 0 || a.Base == x86asm.RIP || a.Index != 0 || a.Segment != 0
				in.regs = append(in.regs, wide(a.Base))
				// Of the instructions above only MOV writes what its first operand names.
				in.stores = i == 0 && in.op != "CMP" && in.op != "TEST"
			}
		}
		list = append(list, in)
		at += x.Len
	}
	return list
}

func decodeArm64(t *testing.T, code []byte) (list []instruction) {
	t.Helper()
	for at := 0; at < len(code); at += 4 {
		x, err := arm64asm.Decode(code[at:])
		if err != nil {
			t.Fatalf("%#x: % x: %v", at, code[at:at+4], err)
		}
		in := instruction{at: at, text: fmt.Sprintf("%#x: %v", at, x), op: x.Op.String(), target: -1}
		in.stores = strings.HasPrefix(in.op, "ST")
		reg := func(name string) {
			in.regs = append(in.regs, strings.Replace(name, "W", "X", 1))
		}
		for _, arg := range x.Args {
			switch a := arg.(type) {
			case arm64asm.Reg:
				reg(a.String())
			case arm64asm.RegSP:
				reg(arm64asm.Reg(a).String())
			case arm64asm.RegExtshiftAmount:
				name, _, _ := strings.Cut(a.String(), ",")
				reg(strings.TrimSpace(name))
			case arm64asm.MemImmediate:
				reg(arm64asm.Reg(a.Base).String())
				in.relative = in.relative || a.Mode != arm64asm.AddrOffset
			case arm64asm.MemExtend:
				in.relative = true
			case arm64asm.PCRel:
				if strings.Contains(" B TBZ CBZ CBNZ ", " "+in.op+" ") {
					in.target = at + int(a)
				} else {
					in.relative = true
				}
			case arm64asm.Imm, arm64asm.Imm64, arm64asm.ImmShift, arm64asm.Cond, nil:
			default:
				t.Logf("%s: operand %T", in.text, arg)
			}
		}
		list = append(list, in)
	}
	return list
}
