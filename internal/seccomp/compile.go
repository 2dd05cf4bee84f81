package seccomp

import (
	"cmp"
	"fmt"
	"slices"
)

// This file turns filters into graphs. The number of a call is looked at before any argument, so that the
// kernel, which tries each number at loading, learns which calls it need not ask the program about.

// LengthError is what Compile returns for a filter whose program the kernel would not take.
type LengthError struct {
	Instructions int // of the program, or at least so many
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("the filter takes %d instructions or more; the kernel takes %d", e.Instructions, MaxInstructions)
}

// Compile returns a program that does what the filter says. The error is a *LengthError, or about what no filter may have.
func (f *Filter) Compile() ([]Instruction, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	g := &graph{known: map[node]ref{}}
	root, err := g.filter(f)
	if err != nil {
		return nil, err
	}
	program := assemble(g.nodes, root)
	if len(program) > MaxInstructions {
		return nil, &LengthError{len(program)}
	}
	return program, nil
}

func (f *Filter) check() error {
	seen := map[ABI]bool{}
	for i := range f.Tables {
		t := &f.Tables[i]
		switch {
		case t.ABI.calls() == nil:
			return fmt.Errorf("there is no table of ABI %q", t.ABI)
		case seen[t.ABI]:
			return fmt.Errorf("%s has two tables", t.ABI)
		}
		seen[t.ABI] = true
		for number, rules := range t.Rules {
			if number >= x32Bit {
				return fmt.Errorf("%s: %d is no number of a system call", t.ABI, number)
			}
			for _, r := range rules {
				for _, c := range r.Cmps {
					if c.Arg > 5 || c.Op > GE {
						return fmt.Errorf("%s: system call %d: there is no argument %d, or no comparison %d", t.ABI, number, c.Arg, c.Op)
					}
				}
			}
		}
	}
	return nil
}

func (g *graph) filter(f *Filter) (ref, error) {
	foreign := g.end(f.Foreign)
	root, x86 := foreign, map[ABI]spans{}
	for i := range f.Tables {
		t := &f.Tables[i]
		s, err := g.table(t)
		if err != nil {
			return 0, err
		}
		if t.ABI == X86_64 || t.ABI == X32 {
			x86[t.ABI] = s
			continue
		}
		root = g.equal(wordArch, t.ABI.Audit(), g.tree(s), root)
	}
	if len(x86) > 0 {
		root = g.equal(wordArch, auditX86_64, g.tree(g.shareX86_64(f, x86)), root)
	}
	return root, nil
}

// shareX86_64 returns the spans of both ABIs of AUDIT_ARCH_X86_64, by numbers with the bit.
func (g *graph) shareX86_64(f *Filter, tables map[ABI]spans) spans {
	both, ok := tables[X86_64]
	if !ok {
		both = both.add(0, g.end(f.Foreign))
	}
	beyond := both[len(both)-1].to // what is not known at the end of a table, as are negative numbers
	high, ok := tables[X32]
	if !ok {
		high = high.add(0, g.end(f.NoX32))
	}
	for _, s := range high {
		if s.first < x32Bit {
			both = both.add(s.first|x32Bit, s.to)
		}
	}
	return both.add(negative, beyond)
}

// A span has the same decision for all numbers from first up to the next span.
type span struct {
	first uint32
	to    ref
}

// spans are in order, and begin with number 0.
type spans []span

// add sets the decision from a number on, which is not less than that of the last span.
func (s spans) add(first uint32, to ref) spans {
	if n := len(s); n > 0 && s[n-1].first == first {
		s = s[:n-1]
	}
	if n := len(s); n > 0 && s[n-1].to == to {
		return s
	}
	return append(s, span{first, to})
}

// table returns what to do with each number. The error is a *LengthError.
func (g *graph) table(t *Table) (spans, error) {
	unknown, usual := g.end(t.Unknown), g.end(t.Default)
	s := spans{{0, unknown}}
	for _, c := range t.numbers() {
		otherwise := unknown
		if c.known {
			otherwise = usual
		}
		to := g.rules(t, c.number, otherwise)
		if n := g.size(to); n > MaxInstructions {
			return nil, &LengthError{n} // there may be much more to come
		}
		s = s.add(c.number, to).add(c.number+1, unknown)
	}
	return s, nil
}

// A numbered call is known, or has a rule.
type numbered struct {
	number uint32
	known  bool
}

// numbers returns all such calls in order.
func (t *Table) numbers() []numbered {
	known := t.ABI.calls().numbers
	all, ruled := make([]numbered, 0, len(known)), 0
	for _, number := range known {
		all = append(all, numbered{number, true})
		if _, ok := t.Rules[number]; ok {
			ruled++
		}
	}
	if ruled == len(t.Rules) {
		return all
	}
	for number := range t.Rules {
		if _, ok := slices.BinarySearch(known, number); !ok {
			all = append(all, numbered{number, false})
		}
	}
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	return all
}

// rules returns the decision about a call by its arguments.
func (g *graph) rules(t *Table, number uint32, otherwise ref) ref {
	rules := t.Rules[number]
	if i := slices.IndexFunc(rules, func(r Rule) bool { return len(r.Cmps) == 0 }); i >= 0 {
		rules, otherwise = rules[:i], g.end(rules[i].Action)
	}
	to := otherwise
	for _, r := range slices.Backward(rules) {
		holds := g.end(r.Action)
		for _, c := range slices.Backward(r.Cmps) {
			holds = g.cmp(c, t.ABI, holds, to)
		}
		to = holds
	}
	return to
}

// cmp adds a condition on an argument.
func (g *graph) cmp(c Cmp, abi ABI, yes, no ref) ref {
	switch c.Op {
	case NE:
		c.Op, yes, no = EQ, no, yes
	case LE:
		c.Op, yes, no = GT, no, yes
	case LT:
		c.Op, yes, no = GE, no, yes
	}
	low, high, value := lowWord(c.Arg), highWord(c.Arg), uint32(c.Value)
	valueHigh, maskHigh := uint32(c.Value>>32), uint32(c.Mask>>32)

	var to ref
	switch c.Op {
	case EQ:
		to = g.masked(low, uint32(c.Mask), value, yes, no)
	case GT:
		to = g.greater(low, value, yes, no)
	case GE:
		to = g.atLeast(low, value, yes, no)
	}
	switch narrow := c.Low || abi.narrow(); {
	case narrow && valueHigh != 0:
		return no // the argument's upper half is 0
	case narrow:
		return to
	case c.Op == EQ:
		return g.masked(high, maskHigh, valueHigh, to, no)
	case valueHigh == 0:
		return g.equal(high, 0, to, yes)
	}
	return g.greater(high, valueHigh, yes, g.equal(high, valueHigh, to, no))
}

// tree adds a search for the span of a number.
func (g *graph) tree(s spans) ref { return g.search(g.islands(s)) }

func (g *graph) search(s spans) ref {
	if len(s) == 1 {
		return s[0].to
	}
	middle := len(s) / 2
	high := g.search(s[middle:])
	return g.atLeast(wordNumber, s[middle].first, high, g.search(s[:middle]))
}

// islands makes one span of three where that in the middle is a single number and the others do the same, since one
// test for that number is less than two for where spans begin.
func (g *graph) islands(s spans) (merged spans) {
	for i := 0; i < len(s); i++ {
		sea := s[i]
		if i+2 < len(s) && s[i+2].to == sea.to && s[i+2].first == s[i+1].first+1 {
			sea.to = g.equal(wordNumber, s[i+1].first, s[i+1].to, sea.to)
			i += 2
		}
		merged = append(merged, sea)
	}
	return merged
}
