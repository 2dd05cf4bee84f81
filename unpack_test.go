//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var unpackLimits = ImageLimits{Bytes: 1 << 20, Entries: 10_000, Window: 8 << 20}

// unpackInto unpacks a tar into a new directory "fs" below dir.
func unpackInto(t testing.TB, dir string, own Ownership, r io.Reader) (*layerMeta, string, error) {
	t.Helper()
	root := filepath.Join(dir, "fs")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	m, err := unpackLayer(context.Background(), fd, r, own, unpackLimits)
	return m, root, err
}

// unpackOwnership is the one that this user has.
func unpackOwnership() Ownership {
	if os.Geteuid() == 0 {
		return OwnershipRoot
	}
	return OwnershipSingle
}

func unpackEntries(t testing.TB, entries ...imageEntry) (*layerMeta, string, error) {
	t.Helper()
	return unpackInto(t, imageTempDir(t), unpackOwnership(), bytes.NewReader(imageTar(t, entries...)))
}

// unpackTypes describes a layer in short: "d" directory, "D" opaque directory, "f:content", "l:target", "w" whiteout, "p" fifo.
func unpackTypes(t testing.TB, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		if path == root {
			return nil
		}
		rel, _ := filepath.Rel(root, path)
		switch info.Mode().Type() {
		case os.ModeDir:
			tree[rel] = "d"
			if strings.Contains(imageXattrs(path), "user.overlay.opaque") {
				tree[rel] = "D"
			}
		case os.ModeSymlink:
			target, _ := os.Readlink(path)
			tree[rel] = "l:" + target
		case os.ModeDevice | os.ModeCharDevice:
			tree[rel] = "w"
		case os.ModeNamedPipe:
			tree[rel] = "p"
		default:
			b, _ := os.ReadFile(path)
			tree[rel] = "f:" + string(b)
		}
		return nil
	})
	return tree
}

// What a sequence of entries means, in the format of overlayfs.
func TestUnpackSemantics(t *testing.T) {
	wh := func(name string) imageEntry { return imageFile(name, "") }
	for _, tc := range []struct {
		name    string
		entries []imageEntry
		want    map[string]string
	}{
		{"plain", []imageEntry{imageDir("a/", 0o755), imageFile("a/b", "1"), imageLink("l", "a/b"), imageHardlink("h", "a/b")},
			map[string]string{"a": "d", "a/b": "f:1", "l": "l:a/b", "h": "f:1"}},
		{"names", []imageEntry{imageDir("./", 0o755), imageFile("./a", "1"), imageFile("/b", "2"), imageFile("c//d/./e", "3"), imageDir("./f/", 0o755)},
			map[string]string{"a": "f:1", "b": "f:2", "c": "d", "c/d": "d", "c/d/e": "f:3", "f": "d"}},
		{"whiteout", []imageEntry{wh("a/.wh.b")}, map[string]string{"a": "d", "a/b": "w"}},
		{"whiteout after its name", []imageEntry{imageFile("x", "1"), wh(".wh.x")}, map[string]string{"x": "f:1"}},
		{"whiteout before its name", []imageEntry{wh(".wh.x"), imageFile("x", "1")}, map[string]string{"x": "f:1"}},
		{"whiteout before directory", []imageEntry{wh(".wh.x"), imageDir("x/", 0o755), imageFile("x/y", "")}, map[string]string{"x": "D", "x/y": "f:"}},
		{"whiteout after directory", []imageEntry{imageDir("x/", 0o755), wh(".wh.x")}, map[string]string{"x": "D"}},
		{"whiteout before implied directory", []imageEntry{wh(".wh.x"), imageFile("x/y/z", "")}, map[string]string{"x": "D", "x/y": "d", "x/y/z": "f:"}},
		{"opaque first", []imageEntry{imageDir("x/", 0o755), wh("x/.wh..wh..opq"), imageFile("x/y", "")}, map[string]string{"x": "D", "x/y": "f:"}},
		{"opaque last", []imageEntry{imageFile("x/y", ""), wh("x/.wh..wh..opq"), imageDir("x/", 0o700)}, map[string]string{"x": "D", "x/y": "f:"}},
		{"file becomes directory", []imageEntry{imageFile("x", "1"), imageDir("x/", 0o755), imageFile("x/y", "2")}, map[string]string{"x": "D", "x/y": "f:2"}},
		{"directory becomes file", []imageEntry{imageDir("x/", 0o755), imageFile("x/y", "2"), imageFile("x", "1")}, map[string]string{"x": "f:1"}},
		{"directory becomes link", []imageEntry{imageDir("y", 0o755), imageFile("x/y", "2"), imageLink("x", "y"), imageFile("x/z", "3")},
			map[string]string{"x": "l:y", "y": "d", "y/z": "f:3"}},
		{"link becomes directory", []imageEntry{imageDir("y", 0o755), imageLink("x", "y"), imageFile("x/a", ""), imageDir("x", 0o755), imageFile("x/b", "")},
			map[string]string{"x": "D", "x/b": "f:", "y": "d", "y/a": "f:"}},
		{"link becomes file", []imageEntry{imageFile("y", "1"), imageLink("x", "y"), imageFile("x", "2")}, map[string]string{"x": "f:2", "y": "f:1"}},
		{"link is replaced by a name that leads through it", []imageEntry{imageDir("x/", 0o755), imageLink("x/l", "../x"), imageFile("x/l/l", "1"), imageFile("x/m", "2")},
			map[string]string{"x": "d", "x/l": "f:1", "x/m": "f:2"}},
		{"twice", []imageEntry{imageFile("x", "1"), imageFile("x", "22")}, map[string]string{"x": "f:22"}},
		{"linked file is replaced", []imageEntry{imageFile("x", "1"), imageHardlink("y", "x"), imageFile("x", "2")}, map[string]string{"x": "f:2", "y": "f:1"}},
		{"link to a link", []imageEntry{imageLink("x", "nowhere"), imageHardlink("y", "x")}, map[string]string{"x": "l:nowhere", "y": "l:nowhere"}},
		{"parent is a link", []imageEntry{imageDir("usr/lib/", 0o755), imageLink("lib", "/usr/lib"), imageFile("lib/x", "1")},
			map[string]string{"usr": "d", "usr/lib": "d", "lib": "l:/usr/lib", "usr/lib/x": "f:1"}},
		{"parent is a link to a lower layer", []imageEntry{imageLink("lib", "usr/lib"), imageFile("lib/x/y", "1")},
			map[string]string{"usr": "d", "usr/lib": "d", "lib": "l:usr/lib", "usr/lib/x": "d", "usr/lib/x/y": "f:1"}},
		{"fifo", []imageEntry{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o600}}}, map[string]string{"p": "p"}},
		{"devices", []imageEntry{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 3}}, {Header: tar.Header{Typeflag: tar.TypeChar, Name: "w"}},
			{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "b", Devmajor: 8}}}, map[string]string{}},
		{"aufs", []imageEntry{imageDir(".wh..wh.plnk/", 0o700), imageFile(".wh..wh.plnk/1.2", "x"), imageFile(".wh..wh.aufs", "")}, map[string]string{}},
		{"long name", []imageEntry{imageFile(strings.Repeat("n", 255), "")}, map[string]string{strings.Repeat("n", 255): "f:"}},
		{"no text", []imageEntry{imageFile("a\xff\xfeb\n", "")}, map[string]string{"a\xff\xfeb\n": "f:"}},
		{"empty", nil, map[string]string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, root, err := unpackEntries(t, tc.entries...)
			if err != nil {
				t.Fatal(err)
			}
			if got := unpackTypes(t, root); !maps.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestUnpackOpaqueRoot(t *testing.T) {
	m, _, err := unpackEntries(t, imageFile(".wh..wh..opq", ""), imageFile("x", ""))
	if err != nil || !m.OpaqueRoot {
		t.Errorf("%+v, %v", m, err)
	}
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("below", "")), imageTar(t, imageFile(".wh..wh..opq", ""), imageFile("x", ""))))
	if l := imagePull(t, imageStore(t, nil), g.ref("v1"), nil).Root().Layers; len(l) != 1 {
		t.Errorf("layers %q: what is below an opaque root is still there", l)
	}
}

func TestUnpackMetadata(t *testing.T) {
	dir := imageDir("d/", 0o1755)
	dir.ModTime = unixTime(1234567890)
	file := imageFile("d/f", "1")
	file.Mode, file.Uid, file.Gid = 0o6711, 1234, 70000
	file.ModTime = unixTime(1600000000).Add(123456789)
	file.PAXRecords = map[string]string{
		"SCHILY.xattr.user.mine":                 "value\x00\xff",
		"SCHILY.xattr.user.overlay.opaque":       "y",
		"SCHILY.xattr.user.overlay.redirect":     "/etc",
		"SCHILY.xattr.trusted.overlay.opaque":    "y",
		"SCHILY.xattr.trusted.overlay.metacopy":  "",
		"SCHILY.xattr.security.selinux":          "label",
		"SCHILY.xattr.system.posix_acl_access":   "acl",
		"SCHILY.xattr.security.capability":       "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.overlay.overlay.deep": "y",
	}
	locked := imageDir("locked/", 0)
	link := imageLink("d/l", "nowhere")
	link.Uid = 1234
	m, root, err := unpackEntries(t, dir, file, link, locked, imageFile("locked/in", "2"), imageFile("implied/x/y", ""))
	if err != nil {
		t.Fatal(err)
	}
	tree := imageTree(t, root+"/d")
	id, capability := "0:0", ""
	if os.Geteuid() == 0 {
		id, capability = "1234:70000", ` security.capability="\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`
	} else {
		id = fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())
	}
	if want := "106711 " + id + " size=1 sha=6b86b273ff34 mtime=1600000000.123456789" + capability + ` user.mine="value\x00\xff"`; tree["f"] != want {
		t.Errorf("got  %s\nwant %s", tree["f"], want)
	}
	if !strings.HasPrefix(tree["."], "041755 ") || !strings.HasSuffix(tree["."], "mtime=1234567890.000000000") {
		t.Errorf("directory %q", tree["."])
	}
	if m.SkippedXattrs != 7 {
		t.Errorf("%d extended attributes were skipped, want 7", m.SkippedXattrs)
	}
	var st unix.Stat_t
	if err := unix.Lstat(root+"/locked", &st); err != nil || st.Mode != unix.S_IFDIR {
		t.Errorf("locked: mode %o, %v", st.Mode, err)
	}
	if got := []string{".", "implied", "implied/x"}; !slices.Equal(m.ImpliedDirs, got) {
		t.Errorf("implied %q", m.ImpliedDirs)
	}
	if os.Geteuid() != 0 && len(m.Owners) != 2 {
		t.Errorf("owners %+v", m.Owners)
	}
}

// Root can test what an ordinary user gets: nothing is chowned, everything is noted.
func TestUnpackSingle(t *testing.T) {
	f := imageFile("f", "1")
	f.Uid, f.Mode = 33, 0o4755
	gone := imageFile("gone/x", "1")
	gone.Gid = 44
	m, root, err := unpackInto(t, imageTempDir(t), OwnershipSingle, bytes.NewReader(imageTar(t, f, gone, imageFile("gone", ""))))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Owners) != 1 || m.Owners[0].Path != "f" || m.Owners[0].UID != 33 || m.Owners[0].Mode != unix.S_IFREG|0o4755 {
		t.Errorf("owners %+v", m.Owners)
	}
	var st unix.Stat_t
	if err := unix.Lstat(root+"/f", &st); err != nil || int(st.Uid) != os.Geteuid() {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
}

// The corpus of what must be refused. Whatever happens, nothing outside changes.
func TestUnpackHostile(t *testing.T) {
	outside := imageTempDir(t) // absolute; the tars name it
	long := strings.Repeat("d/", 300)
	for _, tc := range []struct {
		name    string
		entries []imageEntry
		is      error // nil: it is harmless when contained
	}{
		{"dot dot", []imageEntry{imageFile("../x", "1")}, ErrInvalidImage},
		{"dot dot within", []imageEntry{imageDir("a", 0o755), imageFile("a/../../x", "1")}, ErrInvalidImage},
		{"dot dot at the end", []imageEntry{imageDir("a/..", 0o755)}, ErrInvalidImage},
		{"dot dot inside", []imageEntry{imageDir("a", 0o755), imageFile("a/../b", "1")}, ErrInvalidImage},
		{"absolute", []imageEntry{imageFile(outside+"/x", "1")}, nil},
		{"absolute link", []imageEntry{imageLink("l", outside), imageFile("l/x", "1")}, nil},
		{"relative link", []imageEntry{imageLink("l", "../../../../../../../../.."+outside), imageFile("l/x", "1")}, nil},
		{"parent link", []imageEntry{imageLink("l", "../outside"), imageFile("l/x", "1")}, nil},
		{"chain of links", []imageEntry{imageLink("a", "b"), imageLink("b", "c/d"), imageLink("c", outside), imageFile("a/x", "1")}, nil},
		{"loop", []imageEntry{imageLink("a", "b"), imageLink("b", "a"), imageFile("a/x", "1")}, unix.ELOOP},
		{"write through a link", []imageEntry{imageLink("x", outside+"/canary"), imageFile("x", "changed")}, nil},
		{"chmod through a link", []imageEntry{imageLink("x", outside+"/canary"), imageDir("x", 0o777)}, nil},
		{"link swapped", []imageEntry{imageDir("a", 0o755), imageFile("a/x", ""), imageLink("a", outside), imageFile("a/canary", "changed")}, nil},
		{"magic link", []imageEntry{imageLink("p", "/proc/self/root"), imageFile("p/x", "1")}, nil},
		{"root is a link", []imageEntry{imageLink(".", outside), imageFile("x", "1")}, ErrInvalidImage},
		{"root is a link by slash", []imageEntry{imageLink("/", outside), imageFile("x", "1")}, ErrInvalidImage},
		{"root is a file", []imageEntry{imageFile(".", "")}, ErrInvalidImage},
		{"hard link outside", []imageEntry{imageHardlink("x", outside+"/canary")}, ErrInvalidImage},
		{"hard link dot dot", []imageEntry{imageHardlink("x", "../outside/canary")}, ErrInvalidImage},
		{"hard link through a link", []imageEntry{imageLink("l", outside), imageHardlink("x", "l/canary"), imageFile("x", "changed")}, ErrInvalidImage},
		{"hard link to a link, then write", []imageEntry{imageLink("l", outside+"/canary"), imageHardlink("x", "l"), imageFile("x", "changed")}, nil},
		{"hard link to a directory", []imageEntry{imageDir("d", 0o755), imageHardlink("x", "d")}, ErrInvalidImage},
		{"hard link to itself", []imageEntry{imageFile("x", "1"), imageHardlink("x", "x")}, ErrInvalidImage},
		{"hard link to itself through a link", []imageEntry{imageFile("d/x", "1"), imageLink("l", "d"), imageHardlink("l/x", "d/x")}, ErrInvalidImage},
		{"hard link through what it replaces", []imageEntry{imageFile("d/x", "1"), imageLink("d/l", "../d"), imageHardlink("d/l", "d/l/x")}, ErrInvalidImage},
		{"hard link to the root", []imageEntry{imageHardlink("x", ".")}, ErrInvalidImage},
		{"hard link to nothing", []imageEntry{imageHardlink("x", "y")}, ErrInvalidImage},
		{"hard link to a whiteout", []imageEntry{imageFile(".wh.y", ""), imageHardlink("x", "y")}, ErrInvalidImage},
		{"whiteout of nothing", []imageEntry{imageFile(".wh.", "")}, ErrInvalidImage},
		{"whiteout of dot", []imageEntry{imageFile(".wh..", "")}, ErrInvalidImage},
		{"whiteout of dot dot", []imageEntry{imageFile("a/.wh...", "")}, ErrInvalidImage},
		{"whiteout of a whiteout", []imageEntry{imageFile(".wh..wh.foo", "")}, ErrInvalidImage},
		{"whiteout with content", []imageEntry{imageFile(".wh.foo", "1")}, ErrInvalidImage},
		{"whiteout that is a directory", []imageEntry{imageDir(".wh.foo", 0o755)}, ErrInvalidImage},
		{"whiteout that is a link", []imageEntry{imageLink(".wh.foo", outside)}, ErrInvalidImage},
		{"opaque that is a link", []imageEntry{imageLink("a/.wh..wh..opq", outside)}, ErrInvalidImage},
		{"whiteout in the middle", []imageEntry{imageFile(".wh.foo/x", "")}, ErrInvalidImage},
		{"whiteout through a link", []imageEntry{imageLink("l", outside), imageFile("l/.wh.canary", "")}, nil},
		{"opaque through a link", []imageEntry{imageLink("l", outside), imageFile("l/.wh..wh..opq", "")}, nil},
		{"file as a directory", []imageEntry{imageFile("x", "1"), imageFile("x/y", "2")}, ErrInvalidImage},
		{"deep", []imageEntry{imageDir(long, 0o755)}, ErrLimit},
		{"long component", []imageEntry{imageFile(strings.Repeat("n", 256), "")}, ErrLimit},
		{"long name", []imageEntry{imageFile(strings.Repeat("n/", 2048)+"n", "")}, ErrLimit},
		{"large", []imageEntry{imageFile("x", strings.Repeat("x", 1<<20+1))}, ErrLimit},
		{"empty link", []imageEntry{imageLink("x", "")}, ErrInvalidImage},
		{"owner", []imageEntry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "x", Uid: -1}}}, ErrInvalidImage},
		{"type", []imageEntry{{Header: tar.Header{Typeflag: 'Z', Name: "x"}}}, ErrInvalidImage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := imageTempDir(t)
			for _, d := range []string{outside, filepath.Join(dir, "outside")} {
				os.Mkdir(d, 0o700)
				os.WriteFile(d+"/canary", []byte("alive"), 0o600)
			}
			before := []any{imageTree(t, outside), imageTree(t, dir+"/outside")}
			_, root, err := unpackInto(t, dir, unpackOwnership(), bytes.NewReader(imageTar(t, tc.entries...)))
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v is not %v", err, tc.is)
			}
			after := []any{imageTree(t, outside), imageTree(t, dir+"/outside")}
			if fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("outside changed:\n%v\n%v", before, after)
			}
			if err := removeTree(unix.AT_FDCWD, root); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnpackBombs(t *testing.T) {
	entries := func(n int) io.Reader {
		r, w := io.Pipe()
		go func() {
			tw := tar.NewWriter(w)
			for i := range n {
				tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint(i)})
			}
			w.CloseWithError(tw.Close())
		}()
		t.Cleanup(func() { r.Close() })
		return r
	}
	if _, _, err := unpackInto(t, imageTempDir(t), OwnershipSingle, entries(20_000)); !errors.Is(err, ErrLimit) {
		t.Errorf("many entries: %v", err)
	}
	// Zeros, 1000 to 1, through the whole of a pull.
	g := newImageRegistry(t)
	var zeros bytes.Buffer
	tw := tar.NewWriter(&zeros)
	tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: 100 << 20})
	tw.Write(make([]byte, 100<<20))
	tw.Close()
	g.add("bomb", g.build(nil, zeros.Bytes()))
	// After the end of the tar, where no entry's size tells.
	g.add("tail", g.build(nil, append(imageTar(t), make([]byte, 100<<20)...)))
	for _, opt := range []PullOptions{
		{Limits: ImageLimits{Bytes: 1 << 20, Entries: 1000}},
		{Limits: ImageLimits{Ratio: 2}},
	} {
		for _, tag := range []string{"bomb", "tail"} {
			s := imageStore(t, nil)
			if _, err := s.Pull(context.Background(), g.ref(tag), &opt); !errors.Is(err, ErrLimit) {
				t.Errorf("%s: %v", tag, err)
			}
			imageStoreEmpty(t, s)
		}
	}
}

// FuzzUnpack feeds tars to the unpacker. It must neither panic nor touch anything outside its root.
func FuzzUnpack(f *testing.F) {
	seeds := [][]imageEntry{
		{imageDir("a/", 0o755), imageFile("a/b", "1"), imageLink("l", "a"), imageFile("l/x", "2"), imageHardlink("h", "l/x")},
		{imageLink("l", "../outside"), imageFile("l/canary", "x"), imageFile("l/.wh.canary", "")},
		{imageFile(".wh.x", ""), imageFile("x/y", ""), imageFile("x/.wh..wh..opq", "")},
		{imageLink("a", "b"), imageLink("b", "../.."), imageHardlink("h", "a/outside/canary"), imageDir("a", 0)},
	}
	for _, s := range seeds {
		f.Add(imageTar(f, s...))
	}
	files, _ := filepath.Glob(filepath.Join(imageGoRoot(), "src/archive/tar/testdata/*.tar"))
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil && len(b) < 64<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := imageTempDir(t)
		outside := filepath.Join(dir, "outside")
		os.Mkdir(outside, 0o700)
		os.WriteFile(outside+"/canary", []byte("alive"), 0o600)
		before := imageTree(t, outside)
		_, root, _ := unpackInto(t, dir, OwnershipSingle, bytes.NewReader(b))
		if after := imageTree(t, outside); !maps.Equal(before, after) {
			t.Errorf("outside changed: %v, %v", before, after)
		}
		if names, _ := filepath.Glob(dir + "/*"); len(names) != 2 {
			t.Errorf("outside are %q", names)
		}
		if err := removeTree(unix.AT_FDCWD, root); err != nil {
			t.Error(err)
		}
	})
}
