//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// This file is what attacks by images share: tars written byte by byte, which no library would write, and a host around
// the layer that must stay as it is.

// rawEntry is an entry of a tar as it stands there. Nothing of it is checked or made to fit.
type rawEntry struct {
	name, link string
	kind       byte // 0 is a regular file
	mode       int64
	size       int64 // of the header; the content may be shorter or longer. 0: that of the content
	major      int64
	minor      int64
	pax        []string // key, value, key, value
	content    string
}

// rawHeader is one block of ustar. Texts that are too long are cut off.
func rawHeader(e rawEntry) []byte {
	b := make([]byte, 512)
	size, mode := max(e.size, int64(len(e.content))), e.mode
	if mode == 0 {
		mode = 0o755
	}
	kind := e.kind
	if kind == 0 {
		kind = '0'
	}
	copy(b[0:100], e.name)
	for at, v := range map[int]int64{100: mode, 108: 0, 116: 0, 329: e.major, 337: e.minor} {
		copy(b[at:], fmt.Sprintf("%07o", v))
	}
	copy(b[124:], fmt.Sprintf("%011o", size))
	copy(b[136:], fmt.Sprintf("%011o", 1700000000))
	b[156] = kind
	copy(b[157:257], e.link)
	copy(b[257:], "ustar\x0000")
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func rawPadding(n int) []byte { return make([]byte, (512-n%512)%512) }

// rawPax is an extended header of pax.
func rawPax(kind byte, records ...string) []byte {
	var text strings.Builder
	for i := 0; i+1 < len(records); i += 2 {
		rest := " " + records[i] + "=" + records[i+1] + "\n"
		n := len(rest) + 1
		for len(fmt.Sprint(n))+len(rest) != n {
			n++
		}
		fmt.Fprint(&text, n, rest)
	}
	b := rawHeader(rawEntry{name: "pax", kind: kind, content: text.String()})
	return slices.Concat(b, []byte(text.String()), rawPadding(text.Len()))
}

// rawTar writes entries. Long names get an extended header.
func rawTar(entries ...rawEntry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		if len(e.name) > 100 || strings.ContainsRune(e.name, 0) {
			e.pax = append(e.pax, "path", e.name)
		}
		if len(e.link) > 100 || strings.ContainsRune(e.link, 0) {
			e.pax = append(e.pax, "linkpath", e.link)
		}
		if len(e.pax) > 0 {
			b.Write(rawPax('x', e.pax...))
		}
		b.Write(rawHeader(e))
		b.WriteString(e.content)
		b.Write(rawPadding(len(e.content)))
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func rawFile(name, content string) rawEntry { return rawEntry{name: name, content: content} }
func rawDir(name string) rawEntry           { return rawEntry{name: name, kind: '5'} }
func rawLink(name, to string) rawEntry      { return rawEntry{name: name, link: to, kind: '2'} }
func rawHard(name, to string) rawEntry      { return rawEntry{name: name, link: to, kind: '1'} }

// attackedHost is a place for a layer, and what is around it.
type attackedHost struct {
	dir     string // of the layer
	canary  string // somewhere else, by its absolute path
	sibling string // beside it, with its name as the beginning of the own one
	up      string // from the layer to /
}

func newAttackedHost(t testing.TB) *attackedHost {
	t.Helper()
	dir := imageTempDir(t)
	h := &attackedHost{dir: dir + "/fs", canary: newCanary(t), sibling: dir + "/fs-canary", up: strings.Repeat("../", strings.Count(dir, "/")+1)}
	writeTree(t, dir, map[string]string{"fs-canary/file": "canary", "fs-canary/dir/file": "canary", "file": "canary"})
	unchanged(t, h.sibling)
	t.Cleanup(func() { // before the comparisons: what is there beside them?
		names, err := filepath.Glob(dir + "/*")
		if text, rerr := os.ReadFile(dir + "/file"); err != nil || rerr != nil || string(text) != "canary" || len(names) > 3 {
			t.Errorf("around the layer are %q; %q, %v, %v", names, text, err, rerr)
		}
	})
	return h
}

// imageAttack is one hostile image: its layers, what comes of it, and where.
type imageAttack struct {
	id     string // under which it worked somewhere: "CVE_2018_1002207"
	how    string // it worked
	layers func(h *attackedHost) [][]rawEntry
	is     error                                          // that refuses it; nil: it is harmless when contained
	check  func(t *testing.T, h *attackedHost, fs string) // of the topmost layer
}

// one is the layers of an attack that needs only one.
func one(layer func(h *attackedHost) []rawEntry) func(h *attackedHost) [][]rawEntry {
	return func(h *attackedHost) [][]rawEntry { return [][]rawEntry{layer(h)} }
}

// runAttacks unpacks each image, by the unpacker alone, where the layer's place is known to the attacker, and by a pull.
func runAttacks(t *testing.T, attacks []imageAttack) {
	for _, a := range attacks {
		t.Run(a.id, func(t *testing.T) {
			t.Run("unpack", func(t *testing.T) {
				h := newAttackedHost(t)
				layers := a.layers(h)
				var err error
				for i, entries := range layers {
					if i > 0 && err == nil {
						err = removeTree(unix.AT_FDCWD, h.dir)
					}
					if err == nil {
						_, _, err = unpackInto(t, filepath.Dir(h.dir), unpackOwnership(), bytes.NewReader(rawTar(entries...)))
					}
				}
				attackResult(t, a, h, h.dir, err)
			})
			t.Run("pull", func(t *testing.T) {
				h := newAttackedHost(t)
				g := newImageRegistry(t)
				var tars [][]byte
				for _, entries := range a.layers(h) {
					tars = append(tars, rawTar(entries...))
				}
				g.add("v1", g.build(nil, tars...))
				s := imageStore(t, nil)
				img, err := s.Pull(context.Background(), g.ref("v1"), nil)
				if err != nil {
					if a.is == nil || len(tars) == 1 {
						imageStoreEmpty(t, s)
					}
					attackResult(t, a, h, "", err)
					return
				}
				layers := img.Root().Layers
				attackResult(t, a, h, layers[len(layers)-1], nil)
			})
		})
	}
}

func attackResult(t *testing.T, a imageAttack, h *attackedHost, fs string, err error) {
	t.Helper()
	switch {
	case a.is == nil && err != nil:
		t.Errorf("%s: %v", a.how, err)
	case a.is != nil && !errors.Is(err, a.is):
		t.Errorf("%s: the error is %v, want %v", a.how, err, a.is)
	case err == nil && a.check != nil:
		a.check(t, h, fs)
	}
}

// wantTypes compares what is in a layer; see unpackTypes. "*" stands for any content.
func wantTypes(want map[string]string) func(t *testing.T, h *attackedHost, fs string) {
	return func(t *testing.T, h *attackedHost, fs string) {
		t.Helper()
		got := unpackTypes(t, fs)
		for name, w := range want {
			if w == "*" && got[name] != "" {
				got[name] = "*"
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// contained says that a name that leads out has led to the same place below the layer.
func contained(name func(h *attackedHost) string, want string) func(t *testing.T, h *attackedHost, fs string) {
	return func(t *testing.T, h *attackedHost, fs string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(fs, name(h))); err != nil || string(text) != want {
			t.Errorf("in the layer: %q, %v", text, err)
		}
	}
}
