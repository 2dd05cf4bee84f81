//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// This file prints what was measured.

// sample is what one round took. Where processor time and memory cannot be told from those of this
// process, they are zero.
type sample struct {
	wall, cpu time.Duration
	memory    int64 // the largest resident set, in bytes
}

// result is what a contender needed, round by round.
type result struct {
	contender
	samples []sample
}

// figures are what the table shows of a result.
type figures struct {
	median, min, cpu time.Duration
	memory           int64
}

func (r result) figures() figures {
	var wall, cpu []time.Duration
	var f figures
	for _, s := range r.samples {
		wall, cpu = append(wall, s.wall), append(cpu, s.cpu)
		f.memory = max(f.memory, s.memory)
	}
	f.median, f.min, f.cpu = median(wall), slices.Min(wall), median(cpu)
	return f
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// print writes a table: times in milliseconds, and the medians as multiples of each other.
func (r row) print(out io.Writer, results []result, skipped []string) {
	var ours figures
	for _, c := range results {
		if c.name == oursName {
			ours = c.figures()
		}
	}
	fmt.Fprintf(out, "%s: %s\n", r.name, r.about)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmedian ms\tmin ms\tours/it\tit/ours\tcpu ms\tours/it\tMiB\t")
	for _, c := range results {
		f := c.figures()
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", c.name, ms(f.median), ms(f.min),
			ratio(ours.median, f.median), ratio(f.median, ours.median),
			ms(f.cpu), ratio(ours.cpu, f.cpu), known(float64(f.memory)/(1<<20), 0))
	}
	w.Flush()
	for _, s := range skipped {
		fmt.Fprintln(out, "  without", s)
	}
	fmt.Fprintln(out)
}

func ms(d time.Duration) string { return known(d.Seconds()*1000, 2) }

// ratio divides, if both are known.
func ratio(a, b time.Duration) string {
	if b == 0 {
		return "-"
	}
	return known(float64(a)/float64(b), 2)
}

// known prints a number, or a dash for 0.
func known(x float64, digits int) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, x)
}
