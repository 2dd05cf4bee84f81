//go:build linux

package container

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file pulls what is small on the wire and large here. It must end with an error, soon, and must not have cost much
// memory, nor leave anything.

// What a bomb may cost, whatever its size.
const (
	bombMemory = 64 << 20
	bombTime   = 2 * time.Minute // on a machine that does much else
)

// peakMemory runs f, and returns by how much the resident memory of the process has grown meanwhile, at most.
func peakMemory(t testing.TB, f func()) int64 {
	t.Helper()
	debug.FreeOSMemory()
	// 5 sets the peak back to what is used now; see proc_pid_clear_refs(5).
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Skipf("the peak of the memory cannot be measured: %v", err)
	}
	before := memoryStatus(t, "VmRSS")
	// What could be freed does not count: else it would be the collector's habits that are measured.
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(before + bombMemory/2))
	f()
	return memoryStatus(t, "VmHWM") - before
}

func memoryStatus(t testing.TB, name string) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+name+":")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// zeros are gzip members that make so many megabytes of zeros.
func zeros(megabytes int) []byte {
	return bytes.Repeat(imageGzipBest(make([]byte, 1<<20)), megabytes)
}

func imageGzipBest(b []byte) []byte {
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
	w.Write(b)
	w.Close()
	return z.Bytes()
}

// bombImage adds an image with this blob for its layer; the diff id is never reached.
func bombImage(g *imageRegistry, blob []byte) string {
	p := g.build(nil, rawTar())
	d := g.addBlob(blob)
	d["mediaType"] = mediaOCILayer + "+gzip"
	p.manifest["layers"] = []any{d}
	g.add("bomb", p)
	return g.ref("bomb")
}

type bomb struct {
	id     string
	blob   func() []byte
	limits ImageLimits
	is     error
}

func runBombs(t *testing.T, bombs []bomb) {
	for _, b := range bombs {
		t.Run(b.id, func(t *testing.T) {
			g := newImageRegistry(t)
			ref := bombImage(g, b.blob())
			s := imageStore(t, nil)
			wantBombFails(t, s, b.is, func(ctx context.Context) error {
				_, err := s.Pull(ctx, ref, &PullOptions{Limits: b.limits})
				return err
			})
		})
	}
}

// wantBombFails runs a pull that must fail, cheaply. With is nil it may also end well.
func wantBombFails(t *testing.T, s *Store, is error, pull func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bombTime)
	defer cancel()
	start := time.Now()
	var err error
	memory := peakMemory(t, func() { err = pull(ctx) })
	if is != nil && !errors.Is(err, is) {
		t.Errorf("the error is %v, want %v", err, is)
	}
	if memory > bombMemory {
		t.Errorf("%d MiB of memory", memory>>20)
	}
	if err != nil {
		imageStoreEmpty(t, s)
	}
	t.Logf("%v, %d MiB: %.150v", time.Since(start).Round(time.Millisecond), memory>>20, err)
}

func TestBombBytes(t *testing.T) {
	leak.Check(t)
	big := imageGzipBest(rawHeader(rawEntry{name: "zeros", size: 10 << 30}))
	small := ImageLimits{Bytes: 64 << 20, Entries: 1000}
	runBombs(t, []bomb{
		{"10 GiB, by its header", func() []byte { return append(big, zeros(10<<10)...) }, ImageLimits{Bytes: 1 << 30}, ErrLimit},
		{"10 GiB, by its ratio", func() []byte { return append(big, zeros(10<<10)...) }, ImageLimits{Ratio: 5}, ErrLimit},
		{"behind the end of the tar", func() []byte { return zeros(10 << 10) }, small, ErrLimit},
		{"many files", func() []byte {
			one := imageGzipBest(append(rawHeader(rawEntry{name: "z", size: 1 << 20}), make([]byte, 1<<20)...))
			return bytes.Repeat(one, 10<<10)
		}, small, ErrLimit},
		// The memory of zlib's kin that is spent on each member, on the stack or not (GO-2022-0524).
		{"CVE_2022_30631 gzip members", func() []byte { return bytes.Repeat(imageGzipBest(nil), 300_000) }, small, ErrDigestMismatch},
		{"gzip in gzip", func() []byte { return imageGzipBest(zeros(1 << 10)) }, small, ErrInvalidImage},
	})
}

func TestBombHeaders(t *testing.T) {
	leak.Check(t)
	small := ImageLimits{Bytes: 64 << 20, Entries: 1000}
	long := strings.Repeat("x", 900<<10)
	repeat := func(b []byte, n int) func() []byte {
		return func() []byte { return bytes.Repeat(imageGzipBest(b), n) }
	}
	attributed := rawEntry{name: "", kind: '5', mode: 0o755}
	for i := range 12 {
		attributed.pax = append(attributed.pax, fmt.Sprint("SCHILY.xattr.user.", i), long[:60<<10])
	}
	runBombs(t, []bomb{
		{"CVE_2022_2879 pax of 1 GiB", func() []byte {
			return append(imageGzipBest(rawHeader(rawEntry{name: "pax", kind: 'x', size: 1 << 30})), zeros(1<<10)...)
		}, ImageLimits{}, ErrInvalidImage},
		{"CVE_2022_2879 name of 1 GiB", func() []byte {
			return append(imageGzipBest(rawHeader(rawEntry{name: "long", kind: 'L', size: 1 << 30})), zeros(1<<10)...)
		}, ImageLimits{}, ErrInvalidImage},
		{"CVE_2022_2879 headers without an entry", repeat(rawPax('x', "comment", long), 1<<10), small, ErrLimit},
		{"names of 900 KiB", repeat(slicesBeforeEnd(rawTar(rawEntry{name: long})), 1), small, ErrLimit},
		{"global headers", repeat(bytes.Repeat(rawPax('g', "comment", "1"), 1000), 5000), ImageLimits{Entries: 200_000}, ErrLimit},
		{"5 million entries", repeat(bytes.Repeat(rawHeader(rawDir("d/")), 5000), 1000), ImageLimits{Entries: 100_000}, ErrLimit},
		{"attributes of one directory", repeat(slicesBeforeEnd(rawTar(rawDir("d"), named(attributed, "d"))), 2000), ImageLimits{Entries: 10_000}, ErrLimit},
		{"attributes of directories", func() []byte {
			var all bytes.Buffer
			for i := range 100 {
				all.Write(imageGzip(slicesBeforeEnd(rawTar(named(attributed, fmt.Sprint("d", i))))))
			}
			return all.Bytes()
		}, ImageLimits{Entries: 10_000}, ErrLimit},
		{"names of directories", func() []byte {
			var all bytes.Buffer
			deep := strings.Repeat(strings.Repeat("n", 200)+"/", 15)
			for i := range 8_000 {
				all.Write(slicesBeforeEnd(rawTar(rawDir(deep + fmt.Sprint(i)))))
			}
			return imageGzip(all.Bytes())
		}, ImageLimits{Entries: 30_000}, ErrLimit},
	})
}

func named(e rawEntry, name string) rawEntry { e.name = name; return e }

// slicesBeforeEnd cuts the two empty blocks off, so that more can follow.
func slicesBeforeEnd(tar []byte) []byte { return tar[:len(tar)-1024] }

// Sparse files: maps that never end, and files that are nothing but holes.
func TestBombSparse(t *testing.T) {
	leak.Check(t)
	limits := ImageLimits{Bytes: 256 << 20, Entries: 1000}
	old := func(size int64, extended byte) []byte {
		h := rawHeader(rawEntry{name: "sparse", kind: 'S'})
		copy(h[257:], "ustar  \x00")
		copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 0)) // one fragment
		h[482] = extended
		copy(h[483:], fmt.Sprintf("%011o\x00", size))
		return rawChecksum(h)
	}
	more := make([]byte, 512)
	for i := range 21 {
		copy(more[24*i:], fmt.Sprintf("%011o\x00%011o\x00", 0, 0))
	}
	more[504] = 1
	pax := func(size, fragments string) []byte {
		body := fragments + "\n"
		h := rawPax('x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sparse", "GNU.sparse.realsize", size)
		return append(h, rawHeader(rawEntry{name: "sparse", size: 10 << 30, content: body})...)
	}
	runBombs(t, []bomb{
		{"CVE_2025_58183 map of 1 GiB", func() []byte {
			ones := bytes.Repeat(imageGzipBest(bytes.Repeat([]byte("0\n"), 1<<19)), 1<<10)
			return append(imageGzipBest(append(pax("1000", "500000000"), "500000000\n"...)), ones...)
		}, limits, ErrInvalidImage},
		{"CVE_2026_32288 map of many blocks", func() []byte {
			return append(imageGzipBest(old(1<<20, 1)), bytes.Repeat(imageGzipBest(bytes.Repeat(more, 2000)), 1000)...)
		}, limits, ErrInvalidImage},
		{"CVE_2026_32288 holes of 8 TiB", func() []byte { return imageGzipBest(append(old(8<<30, 0), make([]byte, 1024)...)) }, limits, ErrLimit},
		{"CVE_2026_32288 holes", func() []byte {
			return bytes.Repeat(imageGzipBest(old(100<<20, 0)), 1000)
		}, limits, ErrLimit},
	})
}

func rawChecksum(h []byte) []byte {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// Frames that want a window of gigabytes.
func TestBombZstd(t *testing.T) {
	leak.Check(t)
	magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	frame := func(b ...byte) func() []byte {
		return func() []byte { return append(append(bytes.Clone(magic), b...), zeros(1)...) }
	}
	single := binary.LittleEndian.AppendUint64([]byte{0xe0}, 2<<30)
	rle := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38} // a window of 128 KiB
	for range 20_000 {
		rle = append(rle, 0x02, 0x00, 0x10, 0) // a block of 128 KiB, by one byte
	}
	small := ImageLimits{Bytes: 64 << 20, Entries: 1000}
	runBombs(t, []bomb{
		{"window of 2 GiB", frame(0x00, 0xa8, 0x01, 0x00, 0x00), ImageLimits{}, ErrLimit},
		{"window of 3 TiB", frame(0x00, 0xff, 0x01, 0x00, 0x00), ImageLimits{}, ErrLimit},
		{"one segment of 2 GiB", frame(append(single, 1, 0, 0)...), ImageLimits{}, ErrLimit},
		{"second frame", func() []byte {
			return append(append(bytes.Clone(magic), 0x20, 0, 1, 0, 0), frame(0x00, 0xa8, 0x01, 0x00, 0x00)()...)
		}, ImageLimits{}, ErrLimit},
		{"blocks of one byte", func() []byte { return append(rle, bytes.Repeat(rle[6:], 2)...) }, small, ErrLimit},
	})
}

// Directories in directories, far below what a name can say: links stand for the way down. What has been made until then
// can be removed.
func TestBombDepth(t *testing.T) {
	leak.Check(t)
	var layer bytes.Buffer
	below := ""
	for i := range 500 {
		dir := below + strings.Repeat("d/", 200)
		layer.Write(slicesBeforeEnd(rawTar(rawDir(dir), rawLink(fmt.Sprint("l", i), dir))))
		below = fmt.Sprint("l", i, "/")
	}
	s := imageStore(t, nil)
	g := newImageRegistry(t)
	ref := bombImage(g, imageGzip(layer.Bytes()))
	wantBombFails(t, s, ErrLimit, func(ctx context.Context) error {
		_, err := s.Pull(ctx, ref, nil)
		return err
	})
}

// Documents without an end: an importer that reads what an archive or a registry calls a manifest.
func TestCVE_2023_25153(t *testing.T) {
	leak.Check(t)
	for _, name := range []string{"index.json", "manifest.json"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "archive.tar")
			if err := os.WriteFile(file, rawHeader(rawEntry{name: name, size: 4 << 30}), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unix.Truncate(file, 5<<30); err != nil {
				t.Fatal(err)
			}
			s := imageStore(t, nil)
			for _, kind := range []string{"oci-archive:", "docker-archive:"} {
				if (kind == "oci-archive:") != (name == "index.json") {
					continue
				}
				wantBombFails(t, s, ErrLimit, func(ctx context.Context) error {
					_, err := s.Load(ctx, kind+file, nil)
					return err
				})
			}
		})
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		b := bytes.Repeat([]byte(" "), 1<<20)
		for n := 0; n < 1<<10 && r.Context().Err() == nil; n++ {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}
	for _, tc := range []struct {
		name, path string
		status     int
		is         error
	}{
		{"manifest", "/manifests/", 200, ErrLimit}, {"CVE_2026_41685 configuration", "/blobs/", 200, ErrLimit},
		{"not found", "/manifests/", 404, nil}, {"forbidden", "/blobs/", 403, nil}, {"ping", "/v2/", 401, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newImageRegistry(t)
			g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
			g.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, tc.path) || tc.name == "ping" && r.URL.Path != "/v2/" {
					return false
				}
				if tc.status == 401 {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				}
				w.WriteHeader(tc.status)
				endless(w, r)
				return true
			}
			s := imageStore(t, nil)
			wantBombFails(t, s, tc.is, func(ctx context.Context) error {
				_, err := s.Pull(ctx, g.ref("v1"), nil)
				return err
			})
		})
	}
}
