package seccomp

// This file says what a filter means, without compiling it.

// Evaluate returns what the filter does at a call, as simply as it can be said. The compiled program does the same, which tests check.
// A filter that Compile refuses has no meaning.
func Evaluate(f *Filter, d Data) Action {
	number := uint32(d.Nr)
	x32 := d.Arch == auditX86_64 && d.Nr >= x32Bit
	for _, t := range f.Tables {
		if t.ABI.Audit() == d.Arch && x32 == (t.ABI == X32) {
			return t.evaluate(number&^t.ABI.bit(), d)
		}
	}
	if x32 && f.has(X86_64) {
		return f.NoX32
	}
	return f.Foreign
}

func (f *Filter) has(abi ABI) bool {
	for _, t := range f.Tables {
		if t.ABI == abi {
			return true
		}
	}
	return false
}

func (t *Table) evaluate(number uint32, d Data) Action {
	for _, r := range t.Rules[number] {
		if r.holds(t.ABI, d) {
			return r.Action
		}
	}
	if _, ok := Name(t.ABI, number); ok {
		return t.Default
	}
	return t.Unknown
}

func (r Rule) holds(abi ABI, d Data) bool {
	for _, c := range r.Cmps {
		if !c.holds(abi, d.Args[c.Arg]) {
			return false
		}
	}
	return true
}

func (c Cmp) holds(abi ABI, arg uint64) bool {
	if c.Low || abi.narrow() {
		arg &= 1<<32 - 1
	}
	switch c.Op {
	case EQ:
		return arg&c.Mask == c.Value
	case NE:
		return arg&c.Mask != c.Value
	case LT:
		return arg < c.Value
	case LE:
		return arg <= c.Value
	case GT:
		return arg > c.Value
	default:
		return arg >= c.Value
	}
}
