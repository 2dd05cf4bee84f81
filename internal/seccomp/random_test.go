package seccomp

import (
	"math/rand/v2"
	"slices"
)

// This file makes filters and calls at random, with calls near to what the filters look at.

var allABIs = []ABI{X86_64, X86, X32, AARCH64, ARM}

// edges are values where comparisons go wrong.
var edges = []uint64{
	0, 1, 2, 7, 8, 40, 0x5412, 0x7e020000, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1<<32 | 0x5412,
	1 << 40, 1<<63 - 1, 1 << 63, 0xffffffff_00000000, 1<<64 - 2, 1<<64 - 1,
}

var someActions = []Action{Allow, Errno(1), Errno(38), KillProcess, KillThread, Trap, Trace(7), Log, Notify, Errno(4095)}

// A source makes random things. It is made of a seed, or of the bytes of a fuzzer.
type source struct{ *rand.Rand }

func pick[T any](s source, from []T) T { return from[s.IntN(len(from))] }

func (s source) value() uint64 {
	v := pick(s, edges)
	switch s.IntN(4) {
	case 0:
		v += uint64(s.IntN(3)) - 1
	case 1:
		v ^= 1 << s.IntN(64)
	case 2:
		v |= pick(s, edges) << 32
	}
	return v
}

func (s source) cmp() Cmp {
	c := Cmp{Arg: uint8(s.IntN(6)), Op: Op(s.IntN(6)), Mask: 1<<64 - 1, Value: s.value(), Low: s.IntN(3) == 0}
	if s.IntN(2) == 0 {
		c.Arg = 0 // some conditions are about the same
	}
	if s.IntN(3) == 0 {
		c.Mask = s.value()
		if s.IntN(4) > 0 {
			c.Value &= c.Mask
		}
	}
	return c
}

func (s source) rules() []Rule {
	rules := make([]Rule, 1+s.IntN(3))
	for i := range rules {
		rules[i].Action = pick(s, someActions)
		for range s.IntN(4) {
			rules[i].Cmps = append(rules[i].Cmps, s.cmp())
		}
	}
	return rules
}

func (s source) number(abi ABI) uint32 {
	known := abi.calls().numbers
	number := pick(s, known)
	switch s.IntN(20) {
	case 0:
		number++
	case 1:
		number = uint32(s.IntN(x32Bit))
	case 2:
		number = x32Bit - 1
	}
	return number
}

func (s source) table(abi ABI) Table {
	t := Table{ABI: abi, Rules: map[uint32][]Rule{}, Default: pick(s, someActions), Unknown: pick(s, someActions)}
	shared := s.rules()
	for range s.IntN(120) {
		first := s.number(abi)
		for number := first; number <= first+uint32(s.IntN(6)) && number < x32Bit; number++ {
			switch s.IntN(5) {
			case 0:
				t.Rules[number] = s.rules()
			case 1:
				t.Rules[number] = shared
			default:
				t.Rules[number] = []Rule{{Action: pick(s, someActions[:3])}}
			}
		}
	}
	return t
}

func (s source) filter() *Filter {
	f := &Filter{Foreign: pick(s, someActions), NoX32: pick(s, someActions)}
	abis := slices.Clone(allABIs)
	s.Shuffle(len(abis), func(i, j int) { abis[i], abis[j] = abis[j], abis[i] })
	for _, abi := range abis[:s.IntN(len(abis)+1)] {
		f.Tables = append(f.Tables, s.table(abi))
	}
	return f
}

// data makes a call that the filter has something about, more often than not.
func (s source) data(f *Filter) Data {
	d := Data{Arch: pick(s, allABIs).Audit(), Nr: int32(s.Uint32()), InstructionPointer: s.Uint64()}
	for i := range d.Args {
		d.Args[i] = s.value()
	}
	if len(f.Tables) == 0 || s.IntN(10) == 0 {
		return d
	}
	t := &f.Tables[s.IntN(len(f.Tables))]
	d.Arch = t.ABI.Audit()
	number := s.number(t.ABI)
	if len(t.Rules) > 0 && s.IntN(3) > 0 {
		number = s.ruled(t, &d)
	}
	switch s.IntN(16) {
	case 0:
		number++
	case 1:
		number--
	case 2:
		number |= negative
	case 3:
		number ^= x32Bit
	}
	d.Nr = int32(number | t.ABI.bit())
	return d
}

// ruled returns a number that has rules, and sets arguments near to what they compare.
func (s source) ruled(t *Table, d *Data) uint32 {
	numbers := make([]uint32, 0, len(t.Rules))
	for number := range t.Rules {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers) // so that the seed decides
	number := pick(s, numbers)
	for _, r := range t.Rules[number] {
		for _, c := range r.Cmps {
			switch s.IntN(6) {
			case 0, 1:
				d.Args[c.Arg] = c.Value
			case 2:
				d.Args[c.Arg] = c.Value + uint64(s.IntN(3)) - 1
			case 3:
				d.Args[c.Arg] = c.Value | ^c.Mask
			case 4:
				d.Args[c.Arg] = c.Value ^ 1<<s.IntN(64)
			}
		}
	}
	return number
}

// instruction makes one at random, mostly such that the kernel takes it so many instructions before the end.
func (s source) instruction(after int) Instruction {
	i := Instruction{Code: uint16(s.IntN(256)), K: uint32(s.value())}
	if s.IntN(200) > 0 {
		for i.code().name == "" || i.Code&7 == classReturn && s.IntN(10) > 0 {
			i.Code = uint16(s.IntN(256))
		}
	}
	if s.IntN(100) == 0 {
		i.Code |= 1 << s.IntN(16)
	}
	if i.Code != loadWord && s.IntN(200) == 0 {
		i.Jt, i.Jf = uint8(s.Uint32()), uint8(s.Uint32())
		return i
	}
	switch class := i.Code & 7; {
	case i.Code == loadWord:
		i.K = pick(s, []uint32{0, 4, uint32(wordArgs) + 4*uint32(s.IntN(12))}) // where the call is made from is not known
	case i.code().memory:
		i.K = uint32(s.IntN(scratchWords))
	case i.Code == jumpAlways:
		i.K = uint32(s.IntN(max(after, 1)))
	case class == classJump:
		i.Jt, i.Jf = uint8(s.IntN(max(min(after, 4), 1))), uint8(s.IntN(max(min(after, 9), 1)))
	case class == classALU && i.Code&operandX == 0 && s.IntN(2) == 0:
		i.K = uint32(s.IntN(40))
	}
	return i
}

// program makes one at random that does something at a call, and allows all others. What it returns is an error number,
// or at times anything.
func (s source) program(number uint32) []Instruction {
	program := []Instruction{
		{Code: loadWord, K: uint32(wordNumber)}, {Code: jumpEqual, K: number, Jt: 1}, {Code: returnValue, K: uint32(Allow)},
	}
	n := 1 + s.IntN(40)
	if s.IntN(2) == 0 { // memory is written before it is read
		for k := range uint32(scratchWords) {
			program = append(program, Instruction{Code: classStore, K: k})
		}
	}
	for k := range n {
		program = append(program, s.instruction(n-k-1+3))
	}
	return append(program, Instruction{Code: andValue, K: 0xfff},
		Instruction{Code: classALU | aluOr, K: uint32(errno)}, Instruction{Code: returnA})
}
