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

// result is what a contender needed, round by round.
type result struct {
	contender
	times []time.Duration
}

func (r result) median() time.Duration {
	sorted := slices.Sorted(slices.Values(r.times))
	return sorted[len(sorted)/2]
}

// print writes a table: times in milliseconds, and the medians as multiples of each other.
func (r row) print(out io.Writer, results []result, skipped []string) {
	fmt.Fprintf(out, "%s: %s\n", r.name, r.about)
	ours := time.Duration(0)
	for _, c := range results {
		if c.name == oursName {
			ours = c.median()
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmedian ms\tmin ms\tours/it\tit/ours\t")
	for _, c := range results {
		median := c.median()
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", c.name, ms(median), ms(slices.Min(c.times)), ratio(ours, median), ratio(median, ours))
	}
	w.Flush()
	for _, s := range skipped {
		fmt.Fprintln(out, "  without", s)
	}
	fmt.Fprintln(out)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000) }

// ratio divides, if both are known.
func ratio(a, b time.Duration) string {
	if a == 0 || b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}
