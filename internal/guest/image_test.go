//go:build linux

package guest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Two builders do not meet; one that waits gives up with its context.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v", err)
	}
	first.Close()
	second, err := lockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// What a killed builder has left goes, and what nobody uses; the rest stays.
func TestSweep(t *testing.T) {
	cache := t.TempDir()
	for _, name := range []string{"tmp-123", "old", "new"} {
		if err := os.MkdirAll(filepath.Join(cache, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cache, name, "root.img"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(cache, "lock"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * unused)
	for _, name := range []string{"old", "lock"} {
		if err := os.Chtimes(filepath.Join(cache, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	sweep(cache)
	var left []string
	entries, _ := os.ReadDir(cache)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, []string{"lock", "new"}) {
		t.Errorf("left are %q", left)
	}
	if !touch(filepath.Join(cache, "new")) || touch(filepath.Join(cache, "none")) {
		t.Error("which image is there?")
	}
}

// A build that fails leaves nothing but the lock, and says whose fault it is.
func TestBuildFails(t *testing.T) {
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	cache := t.TempDir()
	t.Setenv(CacheVar, cache)
	// It is called off when mmdebstrap is at work.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if made, _ := filepath.Glob(cache + "/tmp-*/container.cil"); len(made) > 0 {
				time.Sleep(200 * time.Millisecond)
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err := Build(ctx, io.Discard)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "mmdebstrap") {
		t.Error(err)
	}
	if left, _ := filepath.Glob(cache + "/*"); !slices.Equal(left, []string{cache + "/lock"}) {
		t.Errorf("left are %q", left)
	}
}

// A guest gives out files, and none beside the directory.
func TestReadOut(t *testing.T) {
	archive := func(status string, names ...string) io.Reader {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if status != "" {
			w.WriteHeader(&tar.Header{Name: "status", Size: int64(len(status)), Mode: 0o600})
			io.WriteString(w, status)
		}
		for _, name := range names {
			w.WriteHeader(&tar.Header{Name: name, Size: 1, Mode: 0o600})
			io.WriteString(w, "x")
		}
		w.Close()
		b.Write(make([]byte, 4096)) // the rest of the disk
		return &b
	}
	for _, test := range []struct {
		from   io.Reader
		status int
		fails  bool
	}{
		{archive("3\n", "out/a", "elsewhere"), 3, false},
		{archive(""), 0, true},
		{archive("bad\n"), 0, true},
		{bytes.NewReader(make([]byte, 4096)), 0, true},
		{archive("0\n", "out/../../b"), 0, false},
	} {
		dir := filepath.Join(t.TempDir(), "out")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		status, err := Guest{Out: dir}.readOut(test.from)
		if status != test.status || (err != nil) != test.fails {
			t.Errorf("status %d, %v; want %d, failure %t", status, err, test.status, test.fails)
		}
		if beside, _ := filepath.Glob(filepath.Dir(dir) + "/*"); len(beside) != 1 {
			t.Errorf("came out: %q", beside)
		}
	}
}
