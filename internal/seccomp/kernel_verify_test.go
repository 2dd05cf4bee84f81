//go:build linux

package seccomp

import (
	"testing"

	"golang.org/x/sys/unix"
)

// This file compares the check and the simulation with the kernel's, by programs that no compiler would make.

// TestKernelVerifies attaches random programs, most of which compute with all that there is.
func TestKernelVerifies(t *testing.T) {
	if !inChild(t) {
		return
	}
	const number, calls = 500, 16 // no call has this number
	taken, compared := 0, 0
	randomly(t, 3000, func(t *testing.T, s source) {
		program := s.program(number)
		var asked []Data
		for range calls {
			d := Data{Nr: number, Arch: Native().Audit()}
			for i := range d.Args {
				d.Args[i] = s.register()
			}
			asked = append(asked, d)
		}
		ours := Verify(program)
		got := make([]unix.Errno, calls)
		theirs := onThread(program, func() {
			if ours != nil {
				return
			}
			for i, d := range asked {
				if want := run(program, d.words()); want&^actionData == errno {
					got[i] = ask(d)
				}
			}
		})
		if (ours == nil) != (theirs == nil) || theirs != nil && theirs != unix.EINVAL {
			t.Errorf("the kernel says %v, we say %v:\n%s", theirs, ours, Disassemble(program))
			return
		}
		if ours != nil {
			return
		}
		taken++
		for i, d := range asked {
			want := run(program, d.words())
			if want&^actionData != errno {
				continue // it may kill
			}
			compared++
			if !agrees(want, 0, got[i]) {
				t.Errorf("%+v gives %d, want %v:\n%s", d, got[i], want, Disassemble(program))
				return
			}
		}
	})
	t.Logf("the kernel takes %d; %d calls", taken, compared)
	if taken < 300 || compared < 1000 {
		t.Error("these programs are not of many kinds")
	}
}

// TestKernelChecks attaches programs of which some are at the edge of what the kernel takes. All that it takes allow everything.
func TestKernelChecks(t *testing.T) {
	if !inChild(t) {
		return
	}
	for _, test := range programs {
		if err := onThread(test.program, nil); (err == nil) != test.good {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
