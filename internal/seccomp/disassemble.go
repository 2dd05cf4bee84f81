package seccomp

import (
	"fmt"
	"strings"
)

// This file makes programs readable.

// Disassemble returns a program with an instruction a line: its number, what it does, and where to go on. It takes
// any program, also one that the kernel does not.
func Disassemble(program []Instruction) string {
	var b strings.Builder
	for at, i := range program {
		fmt.Fprintf(&b, "%4d  %v", at, i)
		switch {
		case i.Code == jumpAlways:
			fmt.Fprintf(&b, "%d", at+1+int(i.K))
		case i.Code&7 == classJump && i.code().name != "":
			fmt.Fprintf(&b, " ? %d : %d", at+1+int(i.Jt), at+1+int(i.Jf))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// String leaves out where a jump goes, which depends on where the instruction is.
func (i Instruction) String() string {
	operand := fmt.Sprint(i.K)
	if i.K > 0xffff {
		operand = fmt.Sprintf("%#x", i.K)
	}
	if i.Code&operandX != 0 {
		operand = "x"
	}
	name := i.code().name
	switch {
	case name == "":
		return fmt.Sprintf("?    %#04x %d %d %#x", i.Code, i.Jt, i.Jf, i.K)
	case i.Code == loadWord:
		return "ld   " + word(min(i.K, dataSize)).String()
	case i.code().memory:
		return fmt.Sprintf("%-4s m[%d]", name, i.K)
	case i.Code == returnA:
		return "ret  a"
	case i.Code == returnValue:
		return "ret  " + Action(i.K).String()
	case i.Code == jumpAlways:
		return "ja   "
	case i.Code == copyToX, i.Code == copyToA, i.Code == classALU|aluNegate, i.Code&0xe0 == modeLen && i.Code&7 <= classLoadX:
		return name
	}
	return fmt.Sprintf("%-4s %s", name, operand)
}

func (w word) String() string {
	const pointer = 8
	arg := int(w-wordArgs) / 8
	switch {
	case w == wordNumber:
		return "number"
	case w == wordArch:
		return "arch"
	case w >= dataSize || w%4 != 0:
		return fmt.Sprintf("[%d]", uint8(w))
	case w == pointer:
		return "ip.low"
	case w == pointer+4:
		return "ip.high"
	case w%8 == 0:
		return fmt.Sprintf("arg%d.low", arg)
	}
	return fmt.Sprintf("arg%d.high", arg)
}
