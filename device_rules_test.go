package container

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// This file compares programs for devices, run by an emulator, with what the rules say.

// deviceQuestion is what the kernel asks a program.
type deviceQuestion struct {
	access       deviceAccess
	kind         uint32 // bpfBlockDevice or bpfCharDevice
	major, minor uint32
}

func (q deviceQuestion) typ() rune {
	if q.kind == bpfBlockDevice {
		return 'b'
	}
	return 'c'
}

// allowedByRules answers from the documentation of DeviceRule: the last rule that is about the device and
// the kind of access decides; none denies.
func allowedByRules(rules []DeviceRule, q deviceQuestion) bool {
	for letter, bit := range map[string]deviceAccess{"m": 1, "r": 2, "w": 4} {
		if q.access&bit == 0 {
			continue
		}
		allowed := false
		for _, r := range rules {
			switch {
			case r.Type != 0 && r.Type != 'a' && r.Type != q.typ():
			case r.Major != nil && *r.Major != q.major:
			case r.Minor != nil && *r.Minor != q.minor:
			case r.Access != "" && !strings.Contains(r.Access, letter):
			default:
				allowed = r.Allow
			}
		}
		if !allowed {
			return false
		}
	}
	return true
}

// emulate runs a program, as strictly as the kernel's verifier is: what it would refuse is an error.
func emulate(program []bpfInsn, q deviceQuestion) (allowed bool, err error) {
	context := []uint32{uint32(q.access)<<16 | q.kind, q.major, q.minor}
	var regs [11]uint64
	written := [11]bool{contextReg: true}
	for pc := 0; ; pc++ {
		if pc < 0 || pc >= len(program) {
			return false, fmt.Errorf("it goes on at %d of %d", pc, len(program))
		}
		in := program[pc]
		dst, src, imm := in.regs&15, in.regs>>4, uint64(int64(in.imm))
		switch in.code {
		case bpfLoad, bpfLoadHalf:
			if !written[src] {
				return false, fmt.Errorf("instruction %d reads r%d, which nothing has written", pc, src)
			}
		case bpfSet, bpfJump, bpfExit:
		default:
			if !written[dst] {
				return false, fmt.Errorf("instruction %d reads r%d, which nothing has written", pc, dst)
			}
		}
		jump := false
		switch in.code {
		case bpfLoad, bpfLoadHalf:
			if src != contextReg || in.off < 0 || in.off%4 != 0 || in.off > 8 {
				return false, fmt.Errorf("instruction %d loads from r%d+%d", pc, src, in.off)
			}
			regs[dst] = uint64(context[in.off/4])
			if in.code == bpfLoadHalf {
				regs[dst] &= 0xffff
			}
		case bpfSet:
			regs[dst] = imm
		case bpfAnd:
			regs[dst] &= imm
		case bpfShift:
			regs[dst] >>= imm
		case bpfJump:
			jump = true
		case bpfJumpBits:
			jump = regs[dst]&imm != 0
		case bpfJumpOther:
			jump = regs[dst] != imm
		case bpfExit:
			if !written[verdictReg] || regs[verdictReg] > 1 {
				return false, fmt.Errorf("instruction %d returns %d", pc, regs[verdictReg])
			}
			return regs[verdictReg] == 1, nil
		default:
			return false, fmt.Errorf("instruction %d has the code %#x", pc, in.code)
		}
		switch in.code {
		case bpfLoad, bpfLoadHalf, bpfSet:
			written[dst] = true
		}
		if jump {
			if in.off < 0 {
				return false, fmt.Errorf("instruction %d jumps back", pc)
			}
			pc += int(in.off)
		}
	}
}

// unreached returns the first instruction that no path leads to; the verifier refuses a program that has one.
func unreached(program []bpfInsn) int {
	seen := make([]bool, len(program)+1)
	seen[0] = true
	for i, in := range program {
		switch {
		case !seen[i]:
			return i
		case in.code == bpfExit:
		case in.code == bpfJump:
			seen[i+1+int(in.off)] = true
		case in.code == bpfJumpBits || in.code == bpfJumpOther:
			seen[i+1+int(in.off)], seen[i+1] = true, true
		default:
			seen[i+1] = true
		}
	}
	return -1
}

// checkDeviceProgram compares the program for rules with the rules.
func checkDeviceProgram(t testing.TB, rules []DeviceRule) {
	t.Helper()
	program := compileDeviceRules(rules)
	if at := unreached(program); at >= 0 {
		t.Fatalf("%s: instruction %d is never reached: %v", showDeviceRules(rules), at, program)
	}
	checkDeviceAnswers(t, program, rules)
}

// checkDeviceAnswers compares a program with rules, for each device that they tell apart.
func checkDeviceAnswers(t testing.TB, program []bpfInsn, rules []DeviceRule) {
	t.Helper()
	majors, minors := []uint32{0, 4095}, []uint32{0, 1<<20 - 1}
	for _, r := range rules {
		if r.Major != nil {
			majors = append(majors, *r.Major)
		}
		if r.Minor != nil {
			minors = append(minors, *r.Minor)
		}
	}
	for kind := uint32(bpfBlockDevice); kind <= bpfCharDevice; kind++ {
		for access := range anyDeviceAccess + 1 {
			for _, major := range majors {
				for _, minor := range minors {
					q := deviceQuestion{access, kind, major, minor}
					got, err := emulate(program, q)
					if want := allowedByRules(rules, q); err != nil || got != want {
						t.Fatalf("%s, asked for %+v: %v, %v, want %v\n%v", showDeviceRules(rules), q, got, err, want, program)
					}
				}
			}
		}
	}
}

func showDeviceRules(rules []DeviceRule) string {
	var b strings.Builder
	number := func(n *uint32) string {
		if n == nil {
			return "*"
		}
		return fmt.Sprint(*n)
	}
	for _, r := range rules {
		fmt.Fprintf(&b, "[%v %q %s:%s %q]", r.Allow, r.Type, number(r.Major), number(r.Minor), r.Access)
	}
	return b.String()
}

// deviceRulesFrom makes rules of bytes, three for each, out of few numbers, so that they meet.
func deviceRulesFrom(data []byte) (rules []DeviceRule) {
	for ; len(data) >= 3; data = data[3:] {
		number := func(n byte, most uint32) *uint32 {
			switch {
			case n == 0:
				return nil
			case n == 15:
				return &most
			}
			return new(uint32(n))
		}
		access := ""
		for i, letter := range "rwm" {
			if data[0]>>i&1 != 0 {
				access += string(letter)
			}
		}
		rules = append(rules, DeviceRule{
			Allow: data[0]&8 != 0, Type: []rune{0, 'a', 'b', 'c'}[data[0]>>4&3],
			Major: number(data[1]&15, 4095), Minor: number(data[1]>>4, 1<<20-1), Access: access,
		})
	}
	return rules
}

// All lists of up to three rules over few devices.
func TestDevicesExhaustive(t *testing.T) {
	var all []DeviceRule
	for _, allow := range []bool{false, true} {
		for _, typ := range []rune{'a', 'c'} {
			for _, major := range []*uint32{nil, new(uint32(1))} {
				for _, access := range []string{"", "r", "rw"} {
					all = append(all, DeviceRule{Allow: allow, Type: typ, Major: major, Access: access})
				}
			}
		}
	}
	checkDeviceProgram(t, nil)
	for _, a := range all {
		checkDeviceProgram(t, []DeviceRule{a})
		for _, b := range all {
			checkDeviceProgram(t, []DeviceRule{a, b})
			if testing.Short() {
				continue
			}
			for _, c := range all {
				checkDeviceProgram(t, []DeviceRule{a, b, c})
			}
		}
	}
}

func TestDevicesDefault(t *testing.T) {
	rules := DefaultDeviceRules()
	if errs := checkDeviceRules("x", rules); len(errs) > 0 {
		t.Fatal(errs)
	}
	checkDeviceProgram(t, rules)
	for _, test := range []struct {
		q    deviceQuestion
		want bool
	}{
		{deviceQuestion{deviceRead | deviceWrite, bpfCharDevice, 1, 3}, true},
		{deviceQuestion{deviceRead, bpfCharDevice, 5, 1}, true},
		{deviceQuestion{deviceRead, bpfCharDevice, 5, 2}, true},
		{deviceQuestion{deviceWrite, bpfCharDevice, 136, 77}, true},
		{deviceQuestion{deviceMknod, bpfCharDevice, 1, 1}, true},
		{deviceQuestion{deviceMknod, bpfBlockDevice, 8, 0}, true},
		{deviceQuestion{deviceRead, bpfBlockDevice, 8, 0}, false},
		{deviceQuestion{deviceRead, bpfCharDevice, 1, 1}, false},    // /dev/mem
		{deviceQuestion{deviceRead, bpfCharDevice, 1, 11}, false},   // /dev/kmsg
		{deviceQuestion{deviceRead, bpfCharDevice, 4, 0}, false},    // /dev/tty0
		{deviceQuestion{deviceRead, bpfCharDevice, 10, 200}, false}, // /dev/net/tun
		{deviceQuestion{deviceRead, bpfCharDevice, 10, 229}, false}, // /dev/fuse
	} {
		if got, err := emulate(compileDeviceRules(rules), test.q); got != test.want || err != nil {
			t.Errorf("%+v: %v, %v", test.q, got, err)
		}
	}
}

// Rules that make no difference make no instructions either.
func TestDevicesSimplify(t *testing.T) {
	one, two := new(uint32(1)), new(uint32(2))
	for name, test := range map[string]struct{ rules, want []DeviceRule }{
		"deny what is denied":      {[]DeviceRule{{}, {Type: 'b'}}, nil},
		"deny all, allow all":      {[]DeviceRule{{}, {Type: 'c', Major: one}, {Allow: true}}, []DeviceRule{{Allow: true}}},
		"taken back":               {[]DeviceRule{{Allow: true, Type: 'c', Major: one, Minor: two, Access: "r"}, {Type: 'c', Access: "rm"}}, nil},
		"taken back by two":        {[]DeviceRule{{Allow: true, Type: 'c'}, {Access: "r"}, {Access: "mw"}}, nil},
		"taken back in part":       {[]DeviceRule{{Allow: true, Type: 'c'}, {Access: "r"}}, []DeviceRule{{Allow: true, Type: 'c'}, {Access: "r"}}},
		"denied elsewhere":         {[]DeviceRule{{Allow: true, Type: 'c', Major: one}, {Major: two}}, []DeviceRule{{Allow: true, Type: 'c', Major: one}}},
		"the same twice":           {[]DeviceRule{{Allow: true, Type: 'c'}, {Allow: true, Type: 'c'}}, []DeviceRule{{Allow: true, Type: 'c'}}},
		"a number is not any":      {[]DeviceRule{{Allow: true, Type: 'c'}, {Type: 'c', Minor: one}}, []DeviceRule{{Allow: true, Type: 'c'}, {Type: 'c', Minor: one}}},
		"one type is not any type": {[]DeviceRule{{Allow: true}, {Type: 'c'}}, []DeviceRule{{Allow: true}, {Type: 'c'}}},
	} {
		if got := simplifyDeviceRules(test.rules); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %s", name, showDeviceRules(got))
		}
		checkDeviceProgram(t, test.rules)
	}
}

func TestDevicesChecked(t *testing.T) {
	for _, test := range []struct {
		rule DeviceRule
		want []string
	}{
		{DeviceRule{}, nil},
		{DeviceRule{Type: 'b', Major: new(uint32(4095)), Minor: new(uint32(1<<20 - 1)), Access: "mwr"}, nil},
		{DeviceRule{Type: 'p'}, []string{"D[1].Type"}},
		{DeviceRule{Major: new(uint32(4096)), Minor: new(uint32(1 << 20)), Access: "rx"}, []string{"D[1].Major", "D[1].Minor", "D[1].Access"}},
	} {
		var got []string
		for _, err := range checkDeviceRules("D", []DeviceRule{{}, test.rule}) {
			var f *FieldError
			if errors.As(err, &f) && errors.Is(err, ErrInvalidConfig) {
				got = append(got, f.Field)
			}
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%+v: %q", test.rule, got)
		}
	}
	for n, complaint := range map[int]string{2000: "D: 2000 rules make a program of ", 5000: "D: 5000 rules are more than "} {
		if errs := checkDeviceRules("D", manyDeviceRules(n)); len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), complaint) {
			t.Errorf("too many: %v", errs)
		}
	}
}

// manyDeviceRules are rules of which none is superfluous, in a form that makes the verifier follow many paths.
func manyDeviceRules(n int) (rules []DeviceRule) {
	for i := range n {
		rules = append(rules, DeviceRule{Allow: true, Type: 'c', Major: new(uint32(i % 16)), Minor: new(uint32(i / 16)), Access: []string{"r", "w", "m", "rw", "wm", "rm"}[i%6]})
	}
	return rules
}

func FuzzDeviceProgram(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0x3f, 0x11, 0, 0x2a, 0xf1, 0})
	f.Add([]byte{0x08, 0, 0, 0x31, 0x10, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		checkDeviceProgram(t, deviceRulesFrom(data[:min(len(data), 60)]))
	})
}

// randomDeviceRules makes rules for tests that need no fuzzing.
func randomDeviceRules(r *rand.Rand) []DeviceRule {
	data := make([]byte, 3*r.IntN(12))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return deviceRulesFrom(data)
}
