package seccomp

import "testing"

// TestSize bounds the programs of filters of the usual size: attaching one takes time for each instruction.
func TestSize(t *testing.T) {
	for _, test := range []struct {
		abis []ABI
		most int
	}{
		{[]ABI{X86_64}, 140},
		{[]ABI{X86_64, X86, X32}, 400},
		{[]ABI{AARCH64}, 140},
		{[]ABI{AARCH64, ARM}, 300},
	} {
		program, err := defaultFilter(test.abis...).Compile()
		if err != nil {
			t.Fatal(err)
		}
		if err := Verify(program); err != nil {
			t.Error(err)
		}
		t.Logf("%v: %d instructions", test.abis, len(program))
		if len(program) > test.most {
			t.Errorf("more than %d", test.most)
		}
	}
}

// TestNumberComesFirst: the kernel does not run the program at all for calls of which it learns at attaching that they are allowed
// whatever their arguments are. It follows the program as far as that loads nothing but number and architecture.
func TestNumberComesFirst(t *testing.T) {
	f := defaultFilter(X86_64, X86, X32)
	program := compiled(t, f)
	for _, table := range f.Tables {
		constant, steps := 0, 0
		for number, rules := range table.Rules {
			action, n, ok := constantAction(program, call(table.ABI, number))
			if want := len(rules[0].Cmps) == 0; ok != want || want && action != rules[0].Action {
				t.Errorf("%s: %d: %v, %t, want %v", table.ABI, number, action, ok, rules[0])
			}
			if ok {
				constant, steps = constant+1, steps+n
			}
		}
		t.Logf("%s: %d calls take %d instructions on average", table.ABI, constant, steps/constant)
	}
}

// constantAction does what the kernel's seccomp_is_const_allow does.
func constantAction(program []Instruction, d Data) (action Action, steps int, constant bool) {
	m, words := machine{}, d.words()
	for at := 0; ; at++ {
		steps++
		switch i := program[at]; {
		case i.Code == loadWord && i.K <= uint32(wordArch):
			m.a = words[i.K/4]
		case i.Code == loadWord:
			return 0, steps, false
		case i.Code == returnValue:
			return Action(i.K), steps, true
		case i.Code == andValue:
			m.a &= i.K
		case i.Code&7 == classJump:
			at += m.jump(i, i.K)
		default:
			return 0, steps, false
		}
	}
}
