package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"example.com/container"
)

// A progress shows how far a pull is, in one line of a terminal. Elsewhere it shows nothing.
type progress struct {
	to     io.Writer // nil: nobody looks
	layers map[string]container.PullProgress
	shown  time.Time
}

func newProgress(f *os.File) *progress {
	p := &progress{layers: map[string]container.PullProgress{}}
	if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		p.to = f
	}
	return p
}

// update takes an event of a layer; calls come one at a time.
func (p *progress) update(e container.PullProgress) {
	p.layers[e.Layer] = e
	if p.to == nil || time.Since(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = time.Now()
	done, received, total := 0, int64(0), int64(0)
	for _, l := range p.layers {
		if l.Phase == container.PhaseDone || l.Phase == container.PhaseExists {
			done++
		}
		received, total = received+l.Bytes, total+l.Total
	}
	fmt.Fprintf(p.to, "\r\x1b[K%s: %d of %d layers, %.1f of %.1f MB", e.Reference, done, e.Count, float64(received)/1e6, float64(total)/1e6)
}

// finish takes the line away.
func (p *progress) finish() {
	if p.to != nil && !p.shown.IsZero() {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
