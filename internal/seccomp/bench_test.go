package seccomp

import (
	"slices"
	"testing"
)

func BenchmarkCompile(b *testing.B) {
	for _, test := range []struct {
		name string
		abis []ABI
	}{{"native", []ABI{X86_64}}, {"all", []ABI{X86_64, X86, X32}}} {
		b.Run(test.name, func(b *testing.B) {
			f := defaultFilter(test.abis...)
			b.ReportAllocs()
			var program []Instruction
			for b.Loop() {
				program = compiled(b, f)
			}
			b.ReportMetric(float64(len(program)), "instructions")
		})
	}
}

// BenchmarkTables measures what the first use of an ABI costs.
func BenchmarkTables(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		parseCalls(callsX86_64)
	}
}

// chain compiles a filter of one ABI with one number after the other, as the simplest compilers do, to compare with.
func chain(f *Filter) []Instruction {
	g, t := &graph{known: map[node]ref{}}, &f.Tables[0]
	to := g.end(t.Unknown)
	for _, number := range slices.Backward(t.ABI.calls().numbers) {
		to = g.equal(wordNumber, number, g.rules(t, number, g.end(t.Default)), to)
	}
	return assemble(g.nodes, g.equal(wordArch, t.ABI.Audit(), to, g.end(f.Foreign)))
}
