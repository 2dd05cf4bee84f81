//go:build linux

#include "textflag.h"

// The launcher: it carries out ops (op.go) until one of them is an execve or an exit. It is never
// called in this process; its bytes are copied into the ELF file. It uses no stack, and no
// address of its own.
//
//	R12  the op
//	BX   what is left of its indirect bits
//	AX   number of the call, then its result
TEXT ·launcher(SB), NOSPLIT|NOFRAME, $0
	MOVL $0x401100, R12 // opsBase + 2*opSize

call:
	MOVL 4(R12), BX
	MOVQ 8(R12), DI
	SHRL $1, BX
	JCC  2(PC)
	MOVQ (DI), DI
	MOVQ 16(R12), SI
	SHRL $1, BX
	JCC  2(PC)
	MOVQ (SI), SI
	MOVQ 24(R12), DX
	SHRL $1, BX
	JCC  2(PC)
	MOVQ (DX), DX
	MOVQ 32(R12), R10
	SHRL $1, BX
	JCC  2(PC)
	MOVQ (R10), R10
	MOVQ 40(R12), R8
	SHRL $1, BX
	JCC  2(PC)
	MOVQ (R8), R8
	MOVQ 48(R12), R9
	SHRL $1, BX
	JCC  2(PC)
	MOVQ (R9), R9

	MOVL 0(R12), AX
	CMPL AX, $-1    // opSub
	JEQ  subtract
	SYSCALL

result:
	MOVQ  56(R12), R13
	TESTQ R13, R13
	JEQ   cases
	MOVQ  AX, (R13)

cases:
	LEAQ 72(R12), R13
	MOVL $7, R14

nextcase:
	MOVL  4(R13), R15
	TESTL R15, R15
	JEQ   nocase
	CMPL  AX, 0(R13)
	JEQ   jump
	ADDQ  $8, R13
	SUBL  $1, R14
	JNE   nextcase

nocase:
	MOVL  64(R12), R15
	TESTQ AX, AX
	JPL   go
	MOVL  68(R12), R15
	TESTL R15, R15
	JNE   jump

	// No one expected this: leave op and result for the report, which is ops 0 and 1.
	MOVL $0x10000000, R13 // failAddr
	MOVQ R12, 0(R13)
	MOVQ AX, 8(R13)
	MOVL $0x401000, R12   // opsBase
	JMP  call

go:
	TESTL R15, R15
	JNE   jump
	ADDQ  $128, R12
	JMP   call

jump:
	SUBL $1, R15
	SHLQ $7, R15
	LEAQ 0x401000(R15), R12
	JMP  call

subtract:
	MOVQ DI, AX
	SUBQ SI, AX
	JMP  result

	// The end, for code.go.
	QUAD $0x646e652d68636e6c

// func launcherAddr() uintptr
TEXT ·launcherAddr(SB), NOSPLIT, $0-8
	LEAQ ·launcher(SB), AX
	MOVQ AX, ret+0(FP)
	RET
