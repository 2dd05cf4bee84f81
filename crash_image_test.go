//go:build linux

package container

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file kills a process at each point at which something of an image has just come into the store.

// crashLoad opens a store, loads an image from a layout that is beside it, and closes the store.
func crashLoad(o crashOrder) error {
	s, err := OpenStore(o.Dir+"/store", nil)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Load(context.Background(), "oci:"+o.Dir+"/layout", &PullOptions{Jobs: 1})
	return err
}

// crashTree is what the layers of an image hold.
func crashTree(t testing.TB, img *Image) (trees []map[string]string) {
	t.Helper()
	for _, dir := range img.layers {
		tree := imageTree(t, dir)
		for path, about := range tree { // directories that the layer implies have the time of the unpacking
			tree[path], _, _ = strings.Cut(about, " mtime=")
		}
		trees = append(trees, tree)
	}
	return trees
}

func TestCrashImagePoints(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	dir := imageTempDir(t)
	imageLayout(t, dir+"/layout",
		imageTar(t, imageDir("d", 0o755), imageFile("d/f", "1"), imageFile("g", "2")),
		imageTar(t, imageFile("d/.wh.f", ""), imageLink("l", "g")))
	store := filepath.Join(dir, "store")
	o := crashOrder{Life: "load", Dir: dir}
	points := o.points(t)
	t.Logf("%d points: %q", len(points), slices.Sorted(maps.Keys(points)))
	if len(points) < 15 {
		t.Error("there are few points")
	}
	open := func(t *testing.T) (*Store, []map[string]string) {
		t.Helper()
		s, err := OpenStore(store, nil)
		if err != nil {
			t.Fatal(err)
		}
		img, err := s.Load(context.Background(), "oci:"+dir+"/layout", nil)
		if err != nil {
			t.Fatal(err)
		}
		return s, crashTree(t, img)
	}
	remove := func() {
		if err := removeTree(unix.AT_FDCWD, store); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	s, want := open(t)
	s.Close()
	remove()
	crashAt(t, o, points, func(t *testing.T, o crashOrder) time.Duration {
		t.Helper()
		defer remove()
		stop := crashReap()
		crashNoProcess(t)
		stop()
		s, got := open(t)
		if !slices.EqualFunc(got, want, maps.Equal) {
			t.Errorf("the image has %v, want %v", got, want)
		}
		s.Close()
		// Whoever opens the store when some time has passed removes what was on its way.
		old := time.Now().Add(-time.Hour)
		for _, pattern := range []string{"ingest/*", "trash/*", ".tmp-*", "*/.tmp-*", "blobs/sha256/.tmp-*", "layers/*/.tmp-*"} {
			list, _ := filepath.Glob(store + "/" + pattern)
			for _, path := range list {
				os.Chtimes(path, old, old)
			}
		}
		s, _ = open(t)
		s.Close()
		for _, pattern := range []string{"ingest/*", "trash/*", ".tmp-*", "*/.tmp-*", "blobs/sha256/.tmp-*", "layers/*/.tmp-*", "layers/*/owner"} {
			if left, _ := filepath.Glob(store + "/" + pattern); len(left) > 0 {
				t.Errorf("left in the store: %q", left)
			}
		}
		return 0
	})
}
