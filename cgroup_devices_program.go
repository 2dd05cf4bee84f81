package container

// This file compiles rules about devices to a program of eBPF, of type BPF_PROG_TYPE_CGROUP_DEVICE. The kernel
// runs it whenever a process of the cgroup is to open or to make a device, with a struct bpf_cgroup_dev_ctx in
// r1; 1 in r0 allows, 0 denies. It needs no maps, no helpers, no loops and no stack.

// bpfInsn is an instruction in the kernel's form, struct bpf_insn. It is for little-endian processors, as the launcher is.
type bpfInsn struct {
	code uint8
	regs uint8 // the destination, and from bit 4 on the source
	off  int16
	imm  int32
}

// The instructions that are needed, with the kernel's names. Jumps skip off instructions.
const (
	bpfLoad      = 0x61 // BPF_LDX|BPF_MEM|BPF_W: dst = the 32 bits at src+off
	bpfLoadHalf  = 0x69 // BPF_LDX|BPF_MEM|BPF_H: dst = the 16 bits at src+off
	bpfSet       = 0xb7 // BPF_ALU64|BPF_MOV|BPF_K: dst = imm
	bpfAnd       = 0x57 // BPF_ALU64|BPF_AND|BPF_K: dst &= imm
	bpfShift     = 0x77 // BPF_ALU64|BPF_RSH|BPF_K: dst >>= imm
	bpfJump      = 0x05 // BPF_JMP|BPF_JA
	bpfJumpBits  = 0x45 // BPF_JMP|BPF_JSET|BPF_K: if dst & imm
	bpfJumpOther = 0x55 // BPF_JMP|BPF_JNE|BPF_K: if dst != imm
	bpfExit      = 0x95 // BPF_JMP|BPF_EXIT
)

// The registers of the program.
const (
	verdictReg = iota // r0
	contextReg
	wantedReg // kinds of access that no rule has decided yet
	fieldReg
)

// Offsets in struct bpf_cgroup_dev_ctx. The access is a deviceAccess in the upper half of a number, and the type is in the lower.
const (
	bpfAccessOffset = 0
	bpfTypeOffset   = 0
	bpfMajorOffset  = 4
	bpfMinorOffset  = 8

	bpfBlockDevice = 1
	bpfCharDevice  = 2
)

// maxDeviceProgram is the number of instructions that every kernel takes (BPF_MAXINSNS).
const maxDeviceProgram = 4096

// compileDeviceRules makes the program. It goes through the rules from the last to the first: what a rule denies and is still
// wanted is denied, what it allows is wanted no longer.
func compileDeviceRules(rules []DeviceRule) []bpfInsn {
	rules = simplifyDeviceRules(rules)
	program := []bpfInsn{
		{code: bpfLoad, regs: wantedReg | contextReg<<4, off: bpfAccessOffset},
		{code: bpfShift, regs: wantedReg, imm: 16},
		{code: bpfSet, regs: verdictReg, imm: 0},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		conditions := deviceConditions(rules[i])
		program = append(program, rules[i].compile(conditions)...)
		if rules[i].allowsAll() && len(conditions) == 0 {
			return program // the verifier refuses instructions that are never reached
		}
	}
	return append(program,
		bpfInsn{code: bpfJumpOther, regs: wantedReg, off: 1},
		bpfInsn{code: bpfSet, regs: verdictReg, imm: 1},
		bpfInsn{code: bpfExit},
	)
}

// allowsAll tells whether nothing is left to be decided where the rule matches.
func (r DeviceRule) allowsAll() bool { return r.Allow && r.access() == anyDeviceAccess }

// deviceConditions are loads of what the rule asks about, each with a jump away if it is something else. They are loaded each time,
// since the verifier would learn from a comparison what a register holds, and follow each rule once for
// each of the numbers in the rules before it.
func deviceConditions(r DeviceRule) (conditions []bpfInsn) {
	unless := func(load uint8, off int16, want uint32) {
		conditions = append(conditions,
			bpfInsn{code: load, regs: fieldReg | contextReg<<4, off: off},
			bpfInsn{code: bpfJumpOther, regs: fieldReg, imm: int32(want)})
	}
	switch r.Type {
	case 'b':
		unless(bpfLoadHalf, bpfTypeOffset, bpfBlockDevice)
	case 'c':
		unless(bpfLoadHalf, bpfTypeOffset, bpfCharDevice)
	}
	if r.Major != nil {
		unless(bpfLoad, bpfMajorOffset, *r.Major)
	}
	if r.Minor != nil {
		unless(bpfLoad, bpfMinorOffset, *r.Minor)
	}
	return conditions
}

func (r DeviceRule) compile(conditions []bpfInsn) []bpfInsn {
	var act []bpfInsn
	switch access := int32(r.access()); {
	case r.allowsAll():
		act = []bpfInsn{{code: bpfSet, regs: verdictReg, imm: 1}, {code: bpfExit}}
	case r.Allow:
		act = []bpfInsn{{code: bpfAnd, regs: wantedReg, imm: int32(anyDeviceAccess) &^ access}}
	default:
		act = []bpfInsn{{code: bpfJumpBits, regs: wantedReg, off: 1, imm: access}, {code: bpfJump, off: 1}, {code: bpfExit}}
	}
	for i := 1; i < len(conditions); i += 2 {
		conditions[i].off = int16(len(conditions) - i - 1 + len(act))
	}
	return append(conditions, act...)
}
