package seccomp

import (
	"errors"
	"testing"
	"time"
)

// TestHostileFilters bounds the time for filters that nobody writes.
func TestHostileFilters(t *testing.T) {
	const many = 10_000
	conditions := func(n int, cmp func(i uint64) []Cmp) []Rule {
		rules := make([]Rule, n)
		for i := range rules {
			rules[i] = Rule{cmp(uint64(i)), Errno(uint16(i%100 + 1))}
		}
		return rules
	}
	different := conditions(many, func(i uint64) []Cmp { return []Cmp{whole(uint8(i%6), EQ, i<<30)} })
	everywhere := map[uint32][]Rule{}
	for _, number := range X86_64.calls().numbers {
		everywhere[number] = different
	}
	for _, test := range []struct {
		name  string
		rules map[uint32][]Rule
	}{
		{"different values", map[uint32][]Rule{1: different}},
		{"of all calls", everywhere},
		{"the same condition", map[uint32][]Rule{1: conditions(many, func(uint64) []Cmp { return []Cmp{whole(0, GT, 1<<33)} })}},
		{"many conditions in a rule", map[uint32][]Rule{1: {{conditions(1, func(uint64) []Cmp {
			var cmps []Cmp
			for i := range uint64(many) {
				cmps = append(cmps, Cmp{Arg: uint8(i % 6), Op: NE, Mask: i | 1<<40, Value: 1 << 40})
			}
			return cmps
		})[0].Cmps, Allow}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := time.Now()
			f := &Filter{Tables: []Table{{ABI: X86_64, Rules: test.rules, Default: Allow, Unknown: Allow}}}
			program, err := f.Compile()
			took := time.Since(start)
			var long *LengthError
			if err != nil && (!errors.As(err, &long) || long.Instructions <= MaxInstructions) {
				t.Error(err)
			}
			t.Logf("%v: %d instructions, %v", took, len(program), err)
			if took > 5*time.Second {
				t.Error("that is long")
			}
		})
	}
}
