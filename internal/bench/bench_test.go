//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// A goroutine that ends locked takes its thread with it, but for the first one, which would stay in the mount
// namespace that a worker has made. Here the first thread is nobody's but main's.
func init() { runtime.LockOSThread() }

// Some rows run this program again.
func init() { help() }

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
			floor := slices.Contains([]string{"limits", "bridge", "egress", "egress-stream", "port", "port-stream"}, r.name) || strings.Contains(out.String(), "C floor ") // a C program that makes a cgroup there is not
			if text := out.String(); !floor || !strings.Contains(text, " "+oursName+" ") {
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

// TestRace lets each contender fail in some round.
func TestRace(t *testing.T) {
	lost := errors.New("lost")
	add := func(f *field, name string, ends int) {
		round := -1
		f.add(name, func() (contender, error) {
			return contender{once: func() (sample, error) {
				if round++; round == ends {
					return sample{}, lost
				}
				return sample{wall: time.Duration(round)}, nil
			}}, nil
		})
	}
	var f field
	add(&f, oursName, 9)
	for i := range 4 {
		add(&f, fmt.Sprint("other ", i), i)
	}
	results, err := f.race(2)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{oursName, "other 3"} {
		if i >= len(results) || results[i].name != name || !slices.Equal(results[i].samples, []sample{{wall: 1}, {wall: 2}}) {
			t.Errorf("%v", results)
		}
	}
	if want := []string{"other 0: round 0: lost", "other 1: round 1: lost", "other 2: round 2: lost"}; !slices.Equal(f.skipped, want) {
		t.Errorf("without %q", f.skipped)
	}
	for ends := range 3 {
		var f field
		add(&f, "other", 9)
		add(&f, oursName, ends)
		if _, err := f.race(2); !errors.Is(err, lost) {
			t.Errorf("ours failed in round %d: %v", ends, err)
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
