//go:build linux

package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"example.com/container/internal/testenv"
)

// An image of eight layers, copy-on-write in memory.
func BenchmarkRunImage(b *testing.B) {
	testenv.Need(b, testenv.Overlay)
	cfg := testConfig(b)
	layers := []string{cfg.Root.Dir}
	for i := range 7 {
		dir := b.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), nil, 0o644); err != nil {
			b.Fatal(err)
		}
		layers = append(layers, dir)
	}
	cfg.Root = Root{Layers: layers}
	benchmarkRun(b, cfg)
}

// A caller with a gigabyte of live heap: a start must not copy its page tables, as fork does.
func BenchmarkRunLargeCaller(b *testing.B) {
	for _, userns := range []bool{false, true} {
		b.Run(fmt.Sprintf("userns=%v", userns), func(b *testing.B) {
			if !userns {
				testenv.Need(b, testenv.Root)
			}
			heap := make([]byte, 1<<30)
			for i := 0; i < len(heap); i += 4096 {
				heap[i] = 1
			}
			cfg := testConfig(b)
			cfg.Namespaces.NewUser = userns
			benchmarkRun(b, cfg)
			heap[0]++
		})
	}
}

// Ranges of subordinate ids: newuidmap and newgidmap run for the first start only.
func BenchmarkRunRanges(b *testing.B) {
	testenv.Need(b, testenv.User, testenv.SubIDs)
	forgetUserNamespaces(b)
	uid, gid, err := SubordinateIDs()
	if err != nil {
		b.Fatal(err)
	}
	cfg := testConfig(b)
	cfg.UidMappings, cfg.GidMappings = uid, gid
	benchmarkRun(b, cfg)
}

// BenchmarkHook is a Run without hooks, and with one program run by the caller or by the launcher.
func BenchmarkHook(b *testing.B) {
	for _, kind := range []hookKind{"", hookCreateRuntime, hookCreateContainer, hookStartContainer} {
		b.Run("hook="+string(kind), func(b *testing.B) {
			cfg := testConfig(b)
			if kind != "" {
				hookSet(&cfg, kind, Hook{Path: "/bin/busybox", Args: []string{"true"}})
			}
			dir := b.TempDir()
			for b.Loop() {
				c, err := New(dir, "bench", cfg)
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Run(b.Context(), &Process{Args: []string{"true"}}); err != nil {
					b.Fatal(err)
				}
				c.Wait()
				if err := c.Destroy(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Another process in a container that runs.
func BenchmarkExec(b *testing.B) {
	testenv.Need(b, testenv.Root)
	cfg := testConfig(b)
	cfg.Namespaces.NewUser = false
	benchmarkExec(b, cfg)
}

func BenchmarkExecRootless(b *testing.B) { benchmarkExec(b, testConfig(b)) }

func benchmarkExec(b *testing.B, cfg Config) {
	c := execSleeper(b, cfg)
	for b.Loop() {
		p := &Process{Args: []string{"/bin/true"}}
		if err := c.Exec(context.Background(), p); err != nil {
			b.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateStart is a Run in its two phases.
func BenchmarkCreateStart(b *testing.B) {
	dir, cfg := b.TempDir(), testConfig(b)
	for b.Loop() {
		c, err := New(dir, "bench", cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Create(b.Context(), &Process{Args: []string{"true"}}); err != nil {
			b.Fatal(err)
		}
		if err := c.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		c.Wait()
		if err := c.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParallelRun is the time for each container when 8 run at a time.
func BenchmarkParallelRun(b *testing.B) {
	dir, cfg := b.TempDir(), testConfig(b)
	var ids atomic.Int64
	b.SetParallelism((8 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c, err := New(dir, fmt.Sprint(ids.Add(1)), cfg)
			if err != nil {
				b.Error(err)
				return
			}
			if err := c.Run(b.Context(), &Process{Args: []string{"true"}}); err != nil {
				b.Error(err)
			}
			c.Wait()
			if err := c.Destroy(); err != nil {
				b.Error(err)
			}
		}
	})
}
