//go:build linux

package container

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkCgroupStats takes snapshots of a cgroup with the controllers that this host has for it: again and again of one that is open, as a
// monitor does; and of one that is opened for it, as Container.Stats does. Then it reads the same files in the usual way,
// and does nothing with them.
func BenchmarkCgroupStats(b *testing.B) {
	c, dir := testCgroup(b)
	if _, err := c.Stats(); err != nil {
		b.Fatal(err)
	}
	var names []string
	for name := range c.files.open {
		names = append(names, name)
	}
	files := func(b *testing.B) { b.ReportMetric(float64(len(names)), "files") }
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Stats(); err != nil {
				b.Fatal(err)
			}
		}
		files(b)
	})
	b.Run("once", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, err := os.Open(dir)
			if err != nil {
				b.Fatal(err)
			}
			c := &Cgroup{dir: f, path: c.path}
			if _, err := c.Stats(); err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
		files(b)
	})
	b.Run("ReadFile", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, name := range names {
				if _, err := os.ReadFile(filepath.Join(dir, name)); err != nil {
					b.Fatal(err)
				}
			}
		}
		files(b)
	})
}

// BenchmarkStatsRecorded takes snapshots of what a cgroup with all controllers had in its files, from plain files.
func BenchmarkStatsRecorded(b *testing.B) {
	c := recordedCgroup(b, recorded(b, "linux-6.12.txt"))
	if _, err := c.Stats(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Stats(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(c.files.open)), "files")
}

// BenchmarkStatsParse parses the longest file.
func BenchmarkStatsParse(b *testing.B) {
	text := []byte(recorded(b, "linux-6.12.txt")["memory.stat"])
	b.ReportAllocs()
	for b.Loop() {
		var s MemoryStat
		if !s.parse(text) {
			b.Fatal("it does not parse")
		}
	}
	b.SetBytes(int64(len(text)))
}
