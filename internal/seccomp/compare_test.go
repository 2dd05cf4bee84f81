package seccomp

import (
	"fmt"
	"testing"
)

// This file tests conditions on arguments, at the values where they change.

// compiled compiles a filter that the kernel takes.
func compiled(t testing.TB, f *Filter) []Instruction {
	t.Helper()
	program, err := f.Compile()
	if err == nil {
		err = Verify(program)
	}
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// one is a filter with rules for one call, and EPERM for it where none of them holds.
func one(abi ABI, number uint32, rules ...Rule) *Filter {
	return &Filter{Tables: []Table{{
		ABI: abi, Rules: map[uint32][]Rule{number: rules}, Default: Errno(eperm), Unknown: Errno(enosys),
	}}, Foreign: KillProcess, NoX32: Errno(enosys)}
}

// call makes a call as the kernel describes it.
func call(abi ABI, number uint32, args ...uint64) Data {
	d := Data{Nr: int32(number | abi.bit()), Arch: abi.Audit()}
	copy(d.Args[:], args)
	return d
}

func simulate(t testing.TB, program []Instruction, d Data) Action {
	t.Helper()
	got, err := Simulate(program, d)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// compares says what the comparisons mean, for numbers of any width.
var compares = map[Op]func(arg, mask, value uint64) bool{
	EQ: func(arg, mask, value uint64) bool { return arg&mask == value },
	NE: func(arg, mask, value uint64) bool { return arg&mask != value },
	LT: func(arg, _, value uint64) bool { return arg < value },
	LE: func(arg, _, value uint64) bool { return arg <= value },
	GT: func(arg, _, value uint64) bool { return arg > value },
	GE: func(arg, _, value uint64) bool { return arg >= value },
}

// TestComparisons tries each comparison, mask, argument and width with all edges, and arguments around them.
func TestComparisons(t *testing.T) {
	masks := []uint64{1<<64 - 1, 0, 1, 0x7e020000, 1<<32 - 1, 0xffffffff_00000000, 1<<63 | 1, 1 << 31, 1 << 32, 3 << 31}
	tried := 0
	for op := EQ; op <= GE; op++ {
		for _, value := range edges {
			for m, mask := range masks {
				if op > NE && m > 0 {
					break // they have none
				}
				for width := range 3 {
					c := Cmp{Arg: uint8(tried % 6), Op: op, Mask: mask, Value: value, Low: width == 1}
					abi := []ABI{X86_64, X86_64, ARM}[width]
					tried += tryComparison(t, abi, c, width > 0)
				}
			}
		}
	}
	t.Logf("%d calls", tried)
}

func tryComparison(t *testing.T, abi ABI, c Cmp, low bool) (tried int) {
	t.Helper()
	f := one(abi, 20, Rule{[]Cmp{c}, Allow})
	program := compiled(t, f)
	for _, edge := range append([]uint64{c.Value, c.Value ^ c.Mask, c.Value | ^c.Mask}, edges...) {
		for _, arg := range []uint64{edge - 1, edge, edge + 1, edge | 1<<32, edge | 1<<63, edge &^ (1<<32 - 1)} {
			d := call(abi, 20, ^arg, ^arg, ^arg, ^arg, ^arg, ^arg)
			d.Args[c.Arg] = arg
			seen, want := arg, Errno(eperm)
			if low {
				seen = uint64(uint32(arg))
			}
			if compares[c.Op](seen, c.Mask, c.Value) {
				want = Allow
			}
			if got := run(program, d.words()); got != want || Evaluate(f, d) != want {
				t.Fatalf("%s: %+v at %#x gives %v, want %v\n%s", abi, c, arg, got, want, Disassemble(program))
			}
			tried++
		}
	}
	return tried
}

// TestCVE_2019_10063: flatpak denied the ioctl TIOCSTI by comparing 64 bits, of which the kernel looks at 32.
func TestCVE_2019_10063(t *testing.T) {
	const tiocsti = 0x5412
	ioctl, _ := Number(X86_64, "ioctl")
	allow := Rule{nil, Allow}
	careless := compiled(t, one(X86_64, ioctl, Rule{[]Cmp{whole(1, EQ, tiocsti)}, Errno(eperm)}, allow))
	low := compiled(t, one(X86_64, ioctl, Rule{[]Cmp{{Arg: 1, Op: EQ, Mask: 1<<64 - 1, Value: tiocsti, Low: true}}, Errno(eperm)}, allow))

	for _, test := range []struct {
		command       uint64
		careless, low Action
	}{
		{tiocsti, Errno(eperm), Errno(eperm)},
		{tiocsti | 1<<32, Allow, Errno(eperm)}, // the attack
		{tiocsti | 0xffffffff<<32, Allow, Errno(eperm)},
		{tiocsti + 1, Allow, Allow},
	} {
		d := call(X86_64, ioctl, 0, test.command)
		if got := simulate(t, careless, d); got != test.careless {
			t.Errorf("64 bits: %#x gives %v, want %v", test.command, got, test.careless)
		}
		if got := simulate(t, low, d); got != test.low {
			t.Errorf("32 bits: %#x gives %v, want %v", test.command, got, test.low)
		}
	}
}

// TestUpperHalvesOfX86: a program of 64 bits can make a call of X86 with whole registers, of which that sees the lower half.
func TestUpperHalvesOfX86(t *testing.T) {
	ioctl, _ := Number(X86, "ioctl")
	program := compiled(t, one(X86, ioctl, Rule{[]Cmp{whole(1, EQ, 0x5412)}, Errno(enosys)}, Rule{nil, Allow}))
	if got := simulate(t, program, call(X86, ioctl, 0, 0x5412|1<<32)); got != Errno(enosys) {
		t.Errorf("%v, want errno %d", got, enosys)
	}
}

// TestVsockIsNotSendfile: go-seccomp-bpf v1.6.0 goes on comparing numbers of calls after it has loaded an argument. So
// socket(AF_VSOCK) is allowed by moby's rules with it: AF_VSOCK is 40, which is the number of sendfile. The kernel takes the lower half of the family.
func TestVsockIsNotSendfile(t *testing.T) {
	for _, abi := range allABIs {
		program := compiled(t, defaultFilter(abi))
		socket, _ := Number(abi, "socket")
		for family := range uint64(1000) {
			want := Allow
			if family == 38 || family == 40 {
				want = Errno(eperm)
			}
			for _, upper := range []uint64{0, 1 << 32, 1 << 63} {
				if got := simulate(t, program, call(abi, socket, family|upper)); got != want {
					t.Errorf("%s: socket(%#x) gives %v, want %v", abi, family|upper, got, want)
				}
			}
		}
	}
}

// TestFirstRuleCounts also where a later one holds, or its conditions are the same.
func TestFirstRuleCounts(t *testing.T) {
	equal := func(value uint64) []Cmp { return []Cmp{whole(0, EQ, value)} }
	f := one(X86_64, 39,
		Rule{[]Cmp{whole(0, EQ, 1), whole(1, NE, 0)}, Errno(2)},
		Rule{equal(1), Errno(3)}, Rule{equal(1), Allow}, Rule{[]Cmp{whole(0, GE, 1)}, Errno(4)}, Rule{nil, Log}, Rule{equal(0), Allow})
	program := compiled(t, f)
	for _, test := range []struct {
		args []uint64
		want Action
	}{
		{[]uint64{1, 1}, Errno(2)}, {[]uint64{1, 1 << 32}, Errno(2)}, {[]uint64{1, 0}, Errno(3)},
		{[]uint64{2, 5}, Errno(4)}, {[]uint64{1 << 32, 0}, Errno(4)}, {[]uint64{0, 0}, Log},
	} {
		if got := simulate(t, program, call(X86_64, 39, test.args...)); got != test.want {
			t.Errorf("%v give %v, want %v", test.args, got, test.want)
		}
	}
}

// TestNumbersOfAllKinds: known, unknown, negative, of X32, of other architectures.
func TestNumbersOfAllKinds(t *testing.T) {
	table := func(abi ABI, unknown uint16) Table {
		return Table{ABI: abi, Rules: map[uint32][]Rule{7: {{nil, Allow}}}, Default: Errno(eperm), Unknown: Errno(unknown)}
	}
	only64 := []Table{table(X86_64, 64)}
	both := []Table{table(X32, 32), table(X86_64, 64)}
	no64 := []Table{table(X32, 32)}
	const noX32, s390 = 99, 0x80000016
	for _, test := range []struct {
		tables []Table
		arch   uint32
		number uint32
		want   Action
	}{
		{only64, auditX86_64, 7, Allow}, {only64, auditX86_64, 8, Errno(eperm)}, {only64, auditX86_64, 400, Errno(64)},
		{only64, auditX86_64, 1<<32 - 1, Errno(64)}, {only64, auditX86_64, 1 << 31, Errno(64)}, {only64, auditX86_64, x32Bit - 1, Errno(64)},
		{only64, auditX86_64, x32Bit, Errno(noX32)}, {only64, auditX86_64, x32Bit | 7, Errno(noX32)}, {only64, auditX86_64, 1<<31 - 1, Errno(noX32)},
		{only64, auditX86, 7, KillProcess}, {only64, s390, 7, KillProcess}, {only64, 0, 7, KillProcess},
		{both, auditX86_64, 7, Allow}, {both, auditX86_64, x32Bit | 7, Allow}, {both, auditX86_64, x32Bit | 8, Errno(eperm)},
		{both, auditX86_64, x32Bit | 400, Errno(32)}, {both, auditX86_64, 1<<32 - 1, Errno(64)}, {both, auditX86_64, 1<<31 - 1, Errno(32)},
		{no64, auditX86_64, 7, KillProcess}, {no64, auditX86_64, x32Bit | 7, Allow}, {no64, auditX86_64, 1<<32 - 1, KillProcess},
		{nil, auditX86_64, 7, KillProcess}, {nil, auditX86_64, x32Bit | 7, KillProcess},
	} {
		f := &Filter{Tables: test.tables, Foreign: KillProcess, NoX32: Errno(noX32)}
		d := Data{Nr: int32(test.number), Arch: test.arch}
		if got := simulate(t, compiled(t, f), d); got != test.want || Evaluate(f, d) != test.want {
			t.Errorf("%d tables, arch %#x, number %#x: %v, want %v", len(test.tables), test.arch, test.number, got, test.want)
		}
	}
}

// TestBadFilters have an error, and not a program that means something else.
func TestBadFilters(t *testing.T) {
	for i, f := range []*Filter{
		{Tables: []Table{{ABI: "S390X"}}},
		{Tables: []Table{{}}},
		{Tables: []Table{{ABI: X86}, {ABI: ARM}, {ABI: X86}}},
		one(X32, 7|x32Bit, Rule{nil, Allow}),
		one(X86_64, 1<<32-1, Rule{nil, Allow}),
		one(X86_64, 7, Rule{nil, Allow}, Rule{[]Cmp{{Arg: 6}}, Allow}),
		one(X86_64, 7, Rule{[]Cmp{{Op: GE + 1}}, Allow}),
	} {
		if program, err := f.Compile(); err == nil || program != nil {
			t.Errorf("filter %d: %v, %d instructions", i, err, len(program))
		} else {
			t.Log(err)
		}
	}
}

func TestActions(t *testing.T) {
	for action, want := range map[Action]string{
		Allow: "allow", Errno(1): "errno 1", Trace(65535): "trace 65535", KillProcess: "kill process", KillThread: "kill thread",
		Trap: "trap", Notify: "notify", Log: "log", 0x12340000: "0x12340000", Errno(0): "errno 0",
	} {
		if got := fmt.Sprint(action); got != want {
			t.Errorf("%#x is %q, want %q", uint32(action), got, want)
		}
	}
}
