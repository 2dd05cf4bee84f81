//go:build linux

package container

import (
	"context"
	"io"
	"path/filepath"
	"testing"
)

// BenchmarkRunTty is BenchmarkRun with a terminal: what the pair costs, and reading it to its end.
func BenchmarkRunTty(b *testing.B) {
	cfg := testConfig(b)
	dir := filepath.Join(b.TempDir(), "state")
	for b.Loop() {
		c, err := New(dir, "bench", cfg)
		if err != nil {
			b.Fatal(err)
		}
		p := &Process{Args: []string{"/bin/true"}, Tty: true, Stdout: io.Discard}
		if err := c.Run(context.Background(), p); err != nil {
			b.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			b.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}
