package seccomp

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "of random filters; 0 for a new one each time")

// randomly calls f with sources of different seeds, each of which makes the same again.
func randomly(t *testing.T, times int, f func(t *testing.T, s source)) {
	first, end := *seed, time.Now().Add(time.Minute)
	if first == 0 {
		first = rand.Uint64()
	}
	for i := range times {
		if time.Now().After(end) {
			t.Logf("%d of %d are done in a minute", i, times)
			return
		}
		f(t, source{rand.New(rand.NewPCG(first+uint64(i), 0))})
		if t.Failed() {
			t.Fatalf("run it again with -seed %d", first+uint64(i))
		}
	}
}

// TestRandomFilters compares compiled filters with what they mean.
func TestRandomFilters(t *testing.T) {
	filters, calls := 3000, 600
	if testing.Short() {
		filters = 300
	}
	total, longest := 0, 0
	randomly(t, filters, func(t *testing.T, s source) {
		f := s.filter()
		program, err := f.Compile()
		if err == nil {
			err = Verify(program)
		}
		if err != nil {
			t.Error(err)
			return
		}
		total, longest = total+len(program), max(longest, len(program))
		for range calls {
			d := s.data(f)
			if got, want := run(program, d.words()), Evaluate(f, d); got != want {
				t.Errorf("%+v\nat %+v\ngives %v, want %v\n%s", f, d, got, want, Disassemble(program))
				return
			}
		}
	})
	t.Logf("%d instructions on average, %d at most", total/filters, longest)
}
