package seccomp

import (
	"errors"
	"testing"
)

// alternating is a filter whose program has no two neighbouring numbers with the same action, and so is long.
func alternating(abi ABI, numbers uint32, cmps ...Cmp) *Filter {
	rules := map[uint32][]Rule{}
	for n := range numbers {
		rules[n] = []Rule{{cmps, Errno(uint16(n%1000 + 1))}, {nil, Errno(uint16(n%1000 + 2001))}}
	}
	return &Filter{Tables: []Table{{ABI: abi, Rules: rules, Default: Allow, Unknown: Allow}}, Foreign: KillProcess, NoX32: Log}
}

// TestLongPrograms are such that few jumps reach where they have to go, up to what the kernel takes, and beyond.
func TestLongPrograms(t *testing.T) {
	eight := []Cmp{whole(0, EQ, 1<<40|1), whole(1, GT, 1<<33|7), whole(2, NE, 5), {Arg: 3, Op: EQ, Mask: 0xf0, Value: 0x30}}
	longest, refused := 0, 0
	for _, cmps := range [][]Cmp{nil, eight[:1], eight[:2], eight} {
		for numbers := uint32(20); numbers < 2500; numbers += numbers/10 + 7 {
			f := alternating(X86_64, numbers, cmps...)
			f.Tables = append(f.Tables, alternating(ARM, numbers/3, cmps...).Tables...)
			program, err := f.Compile()
			var long *LengthError
			if errors.As(err, &long) && long.Instructions > MaxInstructions {
				refused++
				break
			}
			if err == nil {
				err = Verify(program)
			}
			if err != nil {
				t.Fatal(err)
			}
			longest = max(longest, len(program))
			tryLong(t, f, program, numbers+2)
		}
	}
	t.Logf("%d instructions", longest)
	if longest < 3500 || refused < 3 {
		t.Errorf("the longest has %d instructions; %d are too long", longest, refused)
	}
}

func tryLong(t *testing.T, f *Filter, program []Instruction, numbers uint32) {
	t.Helper()
	for n := range numbers {
		for _, args := range [][]uint64{
			{}, {1<<40 | 1}, {1}, {1<<40 | 1, 1<<33 | 8}, {1<<40 | 1, 1<<33 | 8, 5, 0x30}, {1<<40 | 1, 1<<33 | 8, 6, 0x13f},
		} {
			for _, abi := range []ABI{X86_64, X32, ARM, X86} {
				d := call(abi, n, args...)
				if got, want := run(program, d.words()), Evaluate(f, d); got != want {
					t.Fatalf("%d numbers: %+v gives %v, want %v", numbers, d, got, want)
				}
			}
		}
	}
}

// fullProgram compiles the longest program that the kernel takes.
func fullProgram(t *testing.T, abi ABI) []Instruction {
	t.Helper()
	for n := uint64(MaxInstructions); n > 3000; n-- {
		program, err := inARow(abi, n).Compile()
		if err == nil {
			return program
		}
	}
	t.Fatal("no filter is short enough")
	return nil
}

// inARow is a filter that compares an argument with so many values.
func inARow(abi ABI, n uint64) *Filter {
	var rules []Rule
	for i := range n {
		rules = append(rules, Rule{[]Cmp{low(0, EQ, i)}, Errno(uint16(i%2 + 1))})
	}
	f := one(abi, 600, append(rules, Rule{nil, Errno(3)})...)
	f.Tables[0].Default = Allow
	return f
}

// TestLastInstruction: a program of exactly as many instructions as the kernel takes, and of one more.
func TestLastInstruction(t *testing.T) {
	full := fullProgram(t, X86_64)
	if err := Verify(full); err != nil || len(full) != MaxInstructions {
		t.Errorf("%v; %d instructions", err, len(full))
	}
	for arg, want := range map[uint64]Action{0: Errno(1), 1: Errno(2), 2000: Errno(1), 3001: Errno(2), 5000: Errno(3)} {
		if got := simulate(t, full, call(X86_64, 600, arg)); got != want {
			t.Errorf("%d gives %v, want %v", arg, got, want)
		}
	}
	for n := uint64(4000); n < 5000; n += 10 {
		_, err := inARow(X86_64, n).Compile()
		var long *LengthError
		if err != nil && (!errors.As(err, &long) || long.Instructions <= MaxInstructions) {
			t.Errorf("%d values: %v", n, err)
		}
	}
}
