//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// A goroutine that ends locked takes its thread with it, but for the first one, which would stay in the mount
// namespace that a worker has made. Here the first thread is nobody's but main's.
func init() { runtime.LockOSThread() }

// TestRows runs each row but that with a registry once. We and the floor must take part.
func TestRows(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.StaticBusybox, testenv.Program("gcc", "gcc libc6-dev"))
	for _, r := range rows {
		if r.name == "pull" {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			if !strings.HasSuffix(r.name, "rootless") {
				testenv.Need(t, testenv.Root)
			}
			leak.Check(t)
			var out bytes.Buffer
			if err := bench(&out, 1, r.name); err != nil {
				t.Fatal(err)
			}
			if text := out.String(); !strings.Contains(text, "C floor ") || !strings.Contains(text, " "+oursName+" ") {
				t.Error(text)
			}
		})
	}
}

// TestImage lets skopeo read a small image that was made in the way of the large one.
func TestImage(t *testing.T) {
	testenv.Need(t, testenv.Program("skopeo", "skopeo"))
	leak.Check(t)
	tree, layout := t.TempDir(), filepath.Join(t.TempDir(), "layout")
	for _, dir := range imageDirs {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, dir, "file"), []byte(dir), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeImage(layout, tree); err != nil {
		t.Fatal(err)
	}
	// skopeo verifies digests and diff ids where it has to uncompress.
	out, err := exec.Command(testenv.LookPath("skopeo"), "copy", "--insecure-policy", "--dest-decompress",
		"oci:"+layout+":latest", "dir:"+t.TempDir()).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestBadInput(t *testing.T) {
	for _, test := range []struct {
		rounds     int
		only, want string
	}{{0, "run", "no rounds"}, {1, "walk", "no such row: walk"}} {
		if err := bench(&bytes.Buffer{}, test.rounds, test.only); err == nil || err.Error() != test.want {
			t.Error(err)
		}
	}
}

func TestPrint(t *testing.T) {
	var out bytes.Buffer
	results := []result{
		{contender{name: oursName}, []sample{{wall: 3e6}, {wall: 1e6}, {wall: 2e6}}},
		{contender{name: "other"}, []sample{{wall: 9e6}, {8e6, 4e6, 3 << 20}, {wall: 1e6, memory: 1}}},
	}
	row{name: "row", about: "about"}.print(&out, results, []string{"third: lost"})
	for _, want := range []string{
		"row: about", "container        2.00     1.00      1.00      1.00", "other        8.00     1.00      0.25      4.00",
		"without third: lost",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}
