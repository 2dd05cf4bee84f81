//go:build linux

#include "textflag.h"

// The launcher: it carries out ops (op.go) until one of them is an execve or an exit. It is never
// called in this process; its bytes are copied into the ELF file. It uses no stack, no literal
// pool, and no address of its own.
//
//	R9       the op
//	R10      its indirect bits
//	R0 - R5  arguments; R8 number of the call; R0 its result
TEXT ·launcher(SB), NOSPLIT|NOFRAME, $0
	MOVZ $(0x40<<16), R9
	MOVK $0x1100, R9     // opsBase + 2*opSize

call:
	MOVWU 4(R9), R10
	MOVD  8(R9), R0
	TBZ   $0, R10, 2(PC)
	MOVD  (R0), R0
	MOVD  16(R9), R1
	TBZ   $1, R10, 2(PC)
	MOVD  (R1), R1
	MOVD  24(R9), R2
	TBZ   $2, R10, 2(PC)
	MOVD  (R2), R2
	MOVD  32(R9), R3
	TBZ   $3, R10, 2(PC)
	MOVD  (R3), R3
	MOVD  40(R9), R4
	TBZ   $4, R10, 2(PC)
	MOVD  (R4), R4
	MOVD  48(R9), R5
	TBZ   $5, R10, 2(PC)
	MOVD  (R5), R5

	MOVWU 0(R9), R8
	CMNW  $1, R8     // opSub
	BEQ   subtract
	SVC

result:
	MOVD 56(R9), R11
	CBZ  R11, cases
	MOVD R0, (R11)

cases:
	ADD  $72, R9, R11
	MOVZ $7, R12

nextcase:
	MOVWU 4(R11), R13
	CBZW  R13, nocase
	MOVWU 0(R11), R14
	CMPW  R14, R0
	BEQ   jump
	ADD   $8, R11
	SUBW  $1, R12
	CBNZW R12, nextcase

nocase:
	MOVWU 64(R9), R13
	TBZ   $63, R0, go
	MOVWU 68(R9), R13
	CBNZW R13, jump

	// No one expected this: leave op and result for the report, which is ops 0 and 1.
	MOVZ $(0x1000<<16), R11 // failAddr
	MOVD R9, 0(R11)
	MOVD R0, 8(R11)
	MOVZ $(0x40<<16), R9
	MOVK $0x1000, R9        // opsBase
	B    call

go:
	CBNZW R13, jump
	ADD   $128, R9
	B     call

jump:
	SUBW $1, R13
	MOVZ $(0x40<<16), R9
	MOVK $0x1000, R9
	ADD  R13<<7, R9
	B    call

subtract:
	SUB R1, R0
	B   result

	// The end, for code.go.
	WORD $0x68636e6c
	WORD $0x646e652d

// func launcherAddr() uintptr
TEXT ·launcherAddr(SB), NOSPLIT, $0-8
	MOVD $·launcher(SB), R0
	MOVD R0, ret+0(FP)
	RET
