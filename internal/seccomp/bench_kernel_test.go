//go:build linux

package seccomp

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/container/internal/testenv"
)

// BenchmarkAttach measures the system call that attaches a filter, of the tree that Compile makes and of a chain, and of the tree
// for the compatible ABIs, too. Each is on a thread of its own, which ends then.
func BenchmarkAttach(b *testing.B) {
	testenv.Need(b, seccompFilters)
	abis := append([]ABI{Native()}, Compatible(Native())...)
	native, all := defaultFilter(abis[:1]...), defaultFilter(abis...)
	for _, test := range []struct {
		name    string
		program []Instruction
	}{
		{"tree", compiled(b, native)}, {"chain", chain(native)}, {"compatible", compiled(b, all)},
	} {
		b.Run(test.name, func(b *testing.B) {
			var total, best time.Duration
			for b.Loop() {
				took := timeAttach(b, test.program)
				total += took
				if best == 0 || took < best {
					best = took
				}
			}
			b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/attach")
			b.ReportMetric(float64(best.Nanoseconds()), "ns/best")
			b.ReportMetric(float64(len(test.program)), "instructions")
			b.ReportMetric(0, "ns/op") // most of it is the thread's
		})
	}
}

// timeAttach measures attaching a program to a thread, which ends then.
func timeAttach(b *testing.B, program []Instruction) (took time.Duration) {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			start := time.Now()
			err = attach(program)
			took = time.Since(start)
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		b.Fatal(err)
	}
	return took
}
