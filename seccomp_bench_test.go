//go:build linux

package container

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

func defaultCaps(t testing.TB) uint64 {
	caps, err := (*Capabilities)(nil).sets()
	if err != nil {
		t.Fatal(err)
	}
	return caps.bounding
}

// BenchmarkSeccompCompile is the first start of a process with the default profile.
func BenchmarkSeccompCompile(b *testing.B) {
	for b.Loop() {
		clear(filterCache.filters)
		if _, err := DefaultSeccompProfile().compile(defaultCaps(b)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSeccompCached is every other start: what is compiled is found by its content.
func BenchmarkSeccompCached(b *testing.B) {
	p := DefaultSeccompProfile()
	for b.Loop() {
		if _, err := p.compile(defaultCaps(b)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeccompDefaultProfile(b *testing.B) {
	for b.Loop() {
		DefaultSeccompProfile()
	}
}

func BenchmarkSeccompCopy(b *testing.B) {
	cfg := DefaultConfig()
	for b.Loop() {
		deepCopy(cfg)
	}
}

// BenchmarkSeccompRecord is what it costs to write and to read a configuration with the default profile.
func BenchmarkSeccompRecord(b *testing.B) {
	cfg := DefaultConfig()
	for _, profile := range []*SeccompProfile{nil, cfg.Seccomp} {
		cfg.Seccomp = profile
		text, _ := json.Marshal(&cfg)
		b.Run(fmt.Sprintf("write/filter=%v", profile != nil), func(b *testing.B) {
			for b.Loop() {
				json.Marshal(&cfg)
			}
		})
		b.Run(fmt.Sprintf("read/filter=%v", profile != nil), func(b *testing.B) {
			for b.Loop() {
				if err := json.Unmarshal(text, new(Config)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSeccompAttach is what the kernel takes to attach the default filter: programs that attach it ten times and not at all, in turn.
func BenchmarkSeccompAttach(b *testing.B) {
	f, err := DefaultSeccompProfile().compile(defaultCaps(b))
	if err != nil {
		b.Fatal(err)
	}
	const times = 10
	run := func(n int) time.Duration {
		pl := &plan{emitter: emitter{Program: launch.New(0)}}
		pl.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
		for range n {
			pl.installFilter(f)
		}
		pl.Exit(0)
		start := time.Now()
		if err := runToEnd("attach", pl.Program, ""); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	least := [2]time.Duration{time.Hour, time.Hour}
	for b.Loop() {
		least[0], least[1] = min(least[0], run(0)), min(least[1], run(times))
	}
	b.ReportMetric(float64(least[1]-least[0])/times/1000, "us/attach")
}

// BenchmarkSeccompRun is a start to the end of the program, with and without the default filter, in turn; the least counts.
func BenchmarkSeccompRun(b *testing.B) {
	cfg := testConfig(b)
	bare := cfg
	bare.Seccomp = nil
	p := &Process{Args: []string{"true"}}
	least := [2]time.Duration{time.Hour, time.Hour}
	for b.Loop() {
		for i, cfg := range []Config{bare, cfg} {
			start := time.Now()
			if out, err := runIn(b, cfg, &Process{Args: p.Args}); err != nil {
				b.Fatal(err, out)
			}
			least[i] = min(least[i], time.Since(start))
		}
	}
	b.ReportMetric(float64(least[0])/1000, "us/without")
	b.ReportMetric(float64(least[1])/1000, "us/with")
	b.ReportMetric(float64(least[1])/float64(least[0]), "ratio")
}
