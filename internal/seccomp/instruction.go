package seccomp

// This file holds the instructions of classic BPF: BPF_* in linux/bpf_common.h and linux/filter.h.

// The classes, in the lowest three bits of a code.
const (
	classLoad = iota
	classLoadX
	classStore
	classStoreX
	classALU
	classJump
	classReturn
	classMisc
)

// What is in the other bits.
const (
	operandX = 0x08 // BPF_X, else BPF_K

	modeImm = 0x00
	modeAbs = 0x20
	modeMem = 0x60
	modeLen = 0x80

	aluAdd        = 0x00
	aluSub        = 0x10
	aluMul        = 0x20
	aluDiv        = 0x30
	aluOr         = 0x40
	aluAnd        = 0x50
	aluShiftLeft  = 0x60
	aluShiftRight = 0x70
	aluNegate     = 0x80
	aluXor        = 0xa0
)

// Whole codes.
const (
	loadWord    = classLoad | modeAbs
	andValue    = classALU | aluAnd
	jumpAlways  = classJump
	jumpEqual   = classJump | 0x10
	jumpGreater = classJump | 0x20
	jumpAtLeast = classJump | 0x30
	jumpBits    = classJump | 0x40
	returnValue = classReturn
	returnA     = classReturn | 0x10
	copyToX     = classMisc
	copyToA     = classMisc | 0x80
)

// A code is what an instruction does.
type code struct {
	name   string // as in tools/bpf of the kernel; "" if no filter may have it
	memory bool   // K is a word of memory
}

// code returns what the instruction does, and the zero code if the kernel takes it in no filter.
func (i Instruction) code() code {
	if int(i.Code) >= len(codes) {
		return code{}
	}
	return codes[i.Code]
}

// codes are those that the kernel takes. Of the usual operations BPF_MOD is missing.
var codes = [256]code{
	loadWord:             {name: "ld"},
	classLoad | modeImm:  {name: "ldi"},
	classLoad | modeMem:  {name: "ld", memory: true},
	classLoad | modeLen:  {name: "ldl"},
	classLoadX | modeImm: {name: "ldxi"},
	classLoadX | modeMem: {name: "ldx", memory: true},
	classLoadX | modeLen: {name: "ldxl"},
	classStore:           {name: "st", memory: true},
	classStoreX:          {name: "stx", memory: true},
	copyToX:              {name: "tax"},
	copyToA:              {name: "txa"},
	returnValue:          {name: "ret"},
	returnA:              {name: "ret"},

	classALU | aluAdd:                   {name: "add"},
	classALU | aluAdd | operandX:        {name: "add"},
	classALU | aluSub:                   {name: "sub"},
	classALU | aluSub | operandX:        {name: "sub"},
	classALU | aluMul:                   {name: "mul"},
	classALU | aluMul | operandX:        {name: "mul"},
	classALU | aluDiv:                   {name: "div"},
	classALU | aluDiv | operandX:        {name: "div"},
	classALU | aluOr:                    {name: "or"},
	classALU | aluOr | operandX:         {name: "or"},
	andValue:                            {name: "and"},
	andValue | operandX:                 {name: "and"},
	classALU | aluShiftLeft:             {name: "lsh"},
	classALU | aluShiftLeft | operandX:  {name: "lsh"},
	classALU | aluShiftRight:            {name: "rsh"},
	classALU | aluShiftRight | operandX: {name: "rsh"},
	classALU | aluXor:                   {name: "xor"},
	classALU | aluXor | operandX:        {name: "xor"},
	classALU | aluNegate:                {name: "neg"},

	jumpAlways:             {name: "ja"},
	jumpEqual:              {name: "jeq"},
	jumpEqual | operandX:   {name: "jeq"},
	jumpGreater:            {name: "jgt"},
	jumpGreater | operandX: {name: "jgt"},
	jumpAtLeast:            {name: "jge"},
	jumpAtLeast | operandX: {name: "jge"},
	jumpBits:               {name: "jset"},
	jumpBits | operandX:    {name: "jset"},
}
