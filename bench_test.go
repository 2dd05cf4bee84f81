//go:build linux

package container

import (
	"fmt"
	"os"
	"path/filepath"
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
