//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file compares stacks of layers with a model: a file system in memory to which each entry of each layer is
// applied, one after the other, as the image specification says. It knows nothing of overlayfs, of directories that are
// opaque, and of what is on disk between two layers.

// unionNode is a file of the model.
type unionNode struct {
	kind byte   // 'd' directory, 'f' file, 'l' link
	text string // content or target
	kids map[string]*unionNode
	own  bool // the layer that is being applied has it
}

func newUnionDir(own bool) *unionNode {
	return &unionNode{kind: 'd', own: own, kids: map[string]*unionNode{}}
}

// errUnion is an entry that no layer may have.
var errUnion = errors.New("the model refuses it")

// apply applies a layer.
func (root *unionNode) apply(entries []imageEntry) error {
	root.disown()
	root.own = true
	for _, e := range entries {
		if err := root.entry(e); err != nil {
			return err
		}
	}
	return nil
}

func (n *unionNode) disown() {
	n.own = false
	for _, kid := range n.kids {
		kid.disown()
	}
}

// prune removes what the layer does not have itself.
func (n *unionNode) prune() {
	for name, kid := range n.kids {
		if !kid.own {
			delete(n.kids, name)
		} else {
			kid.prune()
		}
	}
}

// walk returns the directory of a path. Links of this layer are followed below the root; those of lower layers are not
// known when a layer is unpacked, and what is missing is made.
func (root *unionNode) walk(path []string, create bool) (*unionNode, error) {
	stack := []*unionNode{root}
	links := 0
	for len(path) > 0 {
		name := path[0]
		path = path[1:]
		dir := stack[len(stack)-1]
		if name == ".." {
			stack = stack[:max(len(stack)-1, 1)]
			continue
		}
		kid := dir.kids[name]
		switch {
		case kid == nil || !kid.own:
			if !create {
				return nil, errUnion
			}
			if kid == nil || kid.kind != 'd' {
				kid = newUnionDir(true)
				dir.kids[name] = kid
			}
			kid.own = true
			stack = append(stack, kid)
		case kid.kind == 'd':
			stack = append(stack, kid)
		case kid.kind == 'l':
			if links++; links > 40 {
				return nil, errUnion
			}
			if strings.HasPrefix(kid.text, "/") {
				stack = stack[:1]
			}
			path = append(components(kid.text), path...)
		default:
			return nil, errUnion
		}
	}
	return stack[len(stack)-1], nil
}

func (root *unionNode) entry(e imageEntry) error {
	path := components(e.Name)
	if len(path) == 0 {
		return nil
	}
	base := path[len(path)-1]
	hidden, whiteout := strings.CutPrefix(base, ".wh.")
	if e.Typeflag == tar.TypeLink {
		return root.hardlink(path, base, components(e.Linkname))
	}
	dir, err := root.walk(path[:len(path)-1], true)
	if err != nil {
		return err
	}
	switch {
	case base == ".wh..wh..opq":
		dir.prune()
	case whiteout && dir.kids[hidden] == nil:
	case whiteout && !dir.kids[hidden].own:
		delete(dir.kids, hidden)
	case whiteout:
		dir.kids[hidden].prune()
	case e.Typeflag == tar.TypeDir:
		if kid := dir.kids[base]; kid != nil && kid.kind == 'd' {
			kid.own = true
		} else {
			dir.kids[base] = newUnionDir(true)
		}
	case e.Typeflag == tar.TypeSymlink:
		dir.kids[base] = &unionNode{kind: 'l', text: e.Linkname, own: true}
	default:
		dir.kids[base] = &unionNode{kind: 'f', text: e.content, own: true}
	}
	return nil
}

// hardlink copies: who writes to which name does not matter here.
func (root *unionNode) hardlink(path []string, base string, target []string) error {
	dir, err := root.walk(path[:len(path)-1], true)
	if err != nil || len(target) == 0 {
		return errUnion
	}
	from, err := root.walk(target[:len(target)-1], false)
	if err != nil {
		return err
	}
	kid := from.kids[target[len(target)-1]]
	if kid == nil || !kid.own || kid.kind == 'd' || from == dir && base == target[len(target)-1] {
		return errUnion
	}
	delete(dir.kids, base)
	if _, err := root.walk(target[:len(target)-1], false); err != nil {
		return errUnion // its target, or the way there, has gone with what it replaces
	}
	dir.kids[base] = &unionNode{kind: kid.kind, text: kid.text, own: true}
	return nil
}

// list describes the model as unpackTypes describes a tree.
func (n *unionNode) list(path string, into map[string]string) map[string]string {
	for name, kid := range n.kids {
		p := joinName(path, name)
		switch kid.kind {
		case 'd':
			into[p] = "d"
			kid.list(p, into)
		case 'l':
			into[p] = "l:" + kid.text
		default:
			into[p] = "f:" + kid.text
		}
	}
	return into
}

// randomLayer makes a layer of few names, so that they meet.
func randomLayer(next func(n int) int) (layer []imageEntry) {
	names := []string{"a", "b", "c", "d"}
	path := func() string {
		var parts []string
		for range 1 + next(3) {
			parts = append(parts, names[next(len(names))])
		}
		return strings.Join(parts, "/")
	}
	for i := range 1 + next(12) {
		p := path()
		dir, base := splitName(p)
		switch next(10) {
		case 0, 1:
			layer = append(layer, imageDir(p+"/", 0o755))
		case 2, 3, 4:
			layer = append(layer, imageFile(p, strconv.Itoa(i)+strconv.Itoa(next(10))))
		case 5:
			to := []string{"", "/", "../", "../../"}[next(4)] + path()
			layer = append(layer, imageLink(p, to))
		case 6:
			layer = append(layer, imageHardlink(p, path()))
		case 7, 8:
			layer = append(layer, imageFile(joinName(dir, ".wh."+base), ""))
		case 9:
			layer = append(layer, imageFile(joinName(dir, ".wh..wh..opq"), ""))
		}
	}
	return layer
}

// randomStack makes layers; of what the model refuses, all but a few entries are left out.
func randomStack(next func(n int) int) (layers [][]imageEntry) {
	model := newUnionDir(true)
	for range 1 + next(4) {
		model.disown()
		model.own = true
		var layer []imageEntry
		for _, e := range randomLayer(next) {
			before := model.clone()
			if model.entry(e) != nil && next(50) != 7 {
				model = before
				continue
			}
			layer = append(layer, e)
		}
		layers = append(layers, layer)
	}
	return layers
}

func (n *unionNode) clone() *unionNode {
	c := *n
	if n.kids != nil {
		c.kids = map[string]*unionNode{}
		for name, kid := range n.kids {
			c.kids[name] = kid.clone()
		}
	}
	return &c
}

func describeLayers(layers [][]imageEntry) string {
	var b strings.Builder
	for _, layer := range layers {
		b.WriteString("layer:")
		for _, e := range layer {
			fmt.Fprintf(&b, " %c %s", e.Typeflag, e.Name)
			if e.Linkname != "" {
				b.WriteString(" -> " + e.Linkname)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// unpackStack unpacks layers as a store does, and returns the image.
func unpackStack(t testing.TB, s *Store, layers [][]imageEntry) (*Image, error) {
	t.Helper()
	r := &imageRecord{}
	for i, layer := range layers {
		id := digestOf([]byte{byte(i)})
		if err := os.MkdirAll(s.layerDir(id), 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(s.layerDir(id), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		meta, err := unpackLayer(context.Background(), fd, bytes.NewReader(imageTar(t, layer...)), unpackOwnership(), unpackLimits)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		r.Layers = append(r.Layers, imageLayer{DiffID: id, OpaqueRoot: meta.OpaqueRoot})
	}
	return s.toImage("test", r), nil
}

// checkStack compares one stack with the model. It returns whether the stack could be unpacked.
func checkStack(t testing.TB, layers [][]imageEntry, mount bool) bool {
	t.Helper()
	dir := imageTempDir(t)
	defer func() {
		if err := removeTree(unix.AT_FDCWD, dir); err != nil {
			t.Error(err)
		}
	}()
	model := newUnionDir(true)
	var refused error
	for i, layer := range layers {
		if refused = model.apply(layer); refused != nil {
			layers = layers[:i+1]
			break
		}
	}
	img, err := unpackStack(t, &Store{dir: dir}, layers)
	if (err != nil) != (refused != nil) {
		t.Errorf("%sunpacked: %v, the model: %v", describeLayers(layers), err, refused)
	}
	if err != nil || refused != nil {
		return false
	}
	want := model.list("", map[string]string{})
	view, err := openRootView(img.Root())
	if err != nil {
		t.Fatal(err)
	}
	defer view.close()
	if got := listView(t, view, want); !maps.Equal(got, want) {
		t.Errorf("%sread:  %q\nmodel: %q", describeLayers(layers), got, want)
	}
	if mount {
		target := dir + "/merged"
		if err := errors.Join(os.Mkdir(target, 0o700), mountOverlay(target, img.Root().Layers)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
				t.Error(err)
			}
		}()
		got := listMerged(t, target)
		if !maps.Equal(got, want) {
			t.Errorf("%soverlayfs: %q\nmodel:     %q", describeLayers(layers), got, want)
		}
	}
	return true
}

// listMerged describes what overlayfs shows, without what it only lists: in a directory that no lower layer has, it lists
// whiteouts, which are not there when they are looked at.
func listMerged(t testing.TB, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && path == root {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		switch d.Type() {
		case fs.ModeDir:
			got[rel] = "d"
		case fs.ModeSymlink:
			target, _ := os.Readlink(path)
			got[rel] = "l:" + target
		case fs.ModeDevice | fs.ModeCharDevice:
			if _, err := os.Lstat(path); err == nil {
				got[rel] = "w"
			}
		default:
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			got[rel] = "f:" + string(text)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

// mountOverlay is imageMount for a target of the caller's, also with one layer.
func mountOverlay(target string, layers []string) error {
	lower := target
	for _, l := range layers {
		lower = l + ":" + lower
	}
	return unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+lower)
}

// listView reads the names of a model, and those beside them, through a view of the layers.
func listView(t testing.TB, v *rootView, names map[string]string) map[string]string {
	t.Helper()
	got := map[string]string{}
	try := map[string]bool{}
	for name := range names {
		dir, _ := splitName(name)
		for _, base := range []string{"a", "b", "c", "d"} {
			try[joinName(dir, base)], try[joinName(name, base)], try[base] = true, true, true
		}
	}
	for name := range try {
		dir, _ := splitName(name)
		if dir != "" && names[dir] != "d" {
			continue // through a link, or below a file
		}
		fd, err := v.open("/"+name, false)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Error(err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			got[name] = "d"
		case unix.S_IFLNK:
			target, _ := readLink(fd)
			got[name] = "l:" + target
		default:
			text, _ := os.ReadFile(fdPath(fd))
			got[name] = "f:" + string(text)
		}
		unix.Close(fd)
	}
	return got
}

// Random stacks of layers, most of which no tool would make: what is visible is what the model says. CONTAINER_TEST_STACKS
// is how many; CONTAINER_TEST_SEED the number of the first.
func TestRandomStacks(t *testing.T) {
	leak.Check(t)
	stacks, first := 300, uint64(os.Getpid())
	if n, err := strconv.Atoi(os.Getenv("CONTAINER_TEST_STACKS")); err == nil {
		stacks = n
	}
	if n, err := strconv.ParseUint(os.Getenv("CONTAINER_TEST_SEED"), 10, 64); err == nil {
		first = n
	}
	mount := testenv.Root.Probe() == nil && testenv.Overlay.Probe() == nil
	good := 0
	for i := range stacks {
		random := rand.New(rand.NewPCG(first+uint64(i), 1))
		if checkStack(t, randomStack(random.IntN), mount && i%10 == 0) {
			good++
		}
		if t.Failed() {
			t.Fatalf("CONTAINER_TEST_SEED=%d", first+uint64(i))
		}
	}
	t.Logf("%d stacks, %d of them of layers that can be unpacked; every tenth mounted: %v", stacks, good, mount)
	if good < stacks/3 {
		t.Error("most are refused: the test shows little")
	}
}

// FuzzLayers is the same with stacks that the fuzzer chooses.
func FuzzLayers(f *testing.F) {
	f.Add([]byte{2, 5, 3, 1, 0, 2, 4, 7, 1, 0, 1, 9, 0, 6, 2, 2, 5, 1, 3, 0})
	f.Add([]byte{1, 3, 2, 0, 1, 5, 2, 1, 1, 2, 2, 8, 0, 0, 3, 3, 6, 2, 1, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b) % n
		}
		checkStack(t, randomStack(next), false)
	})
}
