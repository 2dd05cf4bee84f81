//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// BenchmarkPull pulls an image of 4 layers, made of Go's own source tree, from a registry in this process, into a
// new store. The time of the processor is reported beside the time on the clock, which on a
// machine with other work says little; divide it by MB.
func BenchmarkPull(b *testing.B) {
	g := newImageRegistry(b)
	var layers [][]byte
	total := 0
	root := imageGoRoot()
	if root == "" {
		b.Skip("needs go in the PATH: its sources are the image")
	}
	for _, dir := range []string{"src/cmd", "src/runtime", "src/internal", "src/net"} {
		layer := imageTarOf(b, filepath.Join(root, dir))
		layers = append(layers, layer)
		total += len(layer)
	}
	g.add("v1", g.build(nil, layers...))
	layers = nil
	b.SetBytes(int64(total))
	b.ReportAllocs()
	cpu := imageCPU()
	for b.Loop() {
		imagePull(b, imageStore(b, nil), g.ref("v1"), nil)
	}
	b.ReportMetric(float64((imageCPU()-cpu).Milliseconds())/float64(b.N), "cpu-ms/op")
}

// BenchmarkPullStored opens an image that the store has.
func BenchmarkPullStored(b *testing.B) {
	g := newImageRegistry(b)
	var layers [][]byte
	for i := range 8 {
		layers = append(layers, imageTar(b, imageFile("f", string(rune('a'+i)))))
	}
	g.add("v1", g.build(nil, layers...))
	s := imageStore(b, nil)
	imagePull(b, s, g.ref("v1"), nil)
	g.Close()
	for b.Loop() {
		if _, err := s.Pull(context.Background(), g.ref("v1"), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func imageCPU() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// imageTarOf packs a directory.
func imageTarOf(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
