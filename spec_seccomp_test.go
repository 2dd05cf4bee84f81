package container

import (
	"testing"

	"example.com/container/internal/seccomp"
)

// The default profile means the same as a specification, to runtimes that take rules in any order: all rules for a call have one
// action.
func TestOCISeccompDefault(t *testing.T) {
	if seccomp.Native() != seccomp.X86_64 {
		t.Skip("compares calls of amd64")
	}
	for _, caps := range [][]string{DefaultCapabilities(), AllCapabilities()} {
		cfg := DefaultConfig()
		cfg.Root = Directory("/root")
		cfg.Capabilities = &Capabilities{Bounding: caps}
		spec, err := ToSpec(cfg, &Process{Args: []string{"sh"}})
		if err != nil {
			t.Fatal(err)
		}
		actions := map[string]string{}
		for _, r := range spec.Linux.Seccomp.Syscalls {
			for _, name := range r.Names {
				if a := string(r.Action); actions[name] != "" && actions[name] != a {
					t.Errorf("%s: %s and %s", name, actions[name], a)
				}
				actions[name] = string(r.Action)
			}
		}
		facts := factsOf(seccomp.X86_64, caps...)
		want, got := compileFilter(t, cfg.Seccomp, facts), compileFilter(t, seccompFromSpec(spec.Linux.Seccomp), facts)
		t.Logf("%d rules, %d instructions, of %d", len(spec.Linux.Seccomp.Syscalls), len(got), len(want))
		for nr := range uint32(500) {
			for _, args := range argVectors() {
				if a, b := simulate(t, want, seccomp.X86_64, nr, args), simulate(t, got, seccomp.X86_64, nr, args); a != b {
					t.Fatalf("%d(%#x): %v, as a specification %v", nr, args, a, b)
				}
			}
		}
	}
}

func TestEachPrefixWithout(t *testing.T) {
	values := []uint32{0x5412, 0x541c, 0, 1<<32 - 1}
	covered := func(v uint32) (n int) {
		eachPrefixWithout(values, 0, 0, func(prefix uint32, bits int) {
			if bits == 0 || (v^prefix)>>(32-bits) == 0 {
				n++
			}
		})
		return n
	}
	for _, v := range values {
		if covered(v) != 0 {
			t.Errorf("%#x is among the rest", v)
		}
		for bit := range 32 {
			if other := v ^ 1<<bit; covered(other) != 1 && other != 0x541c && other != 0x5412 {
				t.Errorf("%#x is there %d times", other, covered(other))
			}
		}
	}
}
