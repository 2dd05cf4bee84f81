//go:build linux

package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

const imageCapability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// A store with subordinate ids has the image's owners, modes and capabilities, shifted by the map, and what it has it
// can delete.
func TestStoreSubIDs(t *testing.T) {
	testenv.Need(t, testenv.User, testenv.SubIDs)
	s := imageStore(t, nil)
	if s.config.Ownership != OwnershipSubIDs {
		t.Fatalf("ownership %q is the default", s.config.Ownership)
	}
	own := func(e imageEntry, uid, gid int, mode int64) imageEntry {
		e.Uid, e.Gid, e.Mode = uid, gid, mode
		return e
	}
	cap := imageFile("caps", "1")
	cap.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": imageCapability}
	entries := []imageEntry{
		own(imageFile("root", "1"), 0, 0, 0o644),
		own(imageFile("suid", "1"), 33, 44, 0o6755),
		own(imageDir("closed/", 0), 33, 44, 0o500),
		own(imageFile("closed/in", "1"), 1, 1, 0),
		own(imageDir("closed/deep/", 0), 0, 0, 0),
		own(imageFile("closed/deep/in", "1"), 5, 5, 0o600),
		own(imageLink("link", "nowhere"), 33, 44, 0o777),
		own(imageEntry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"}}, 33, 44, 0o620),
		own(cap, 0, 7, 0o755),
	}
	for i := range 5000 { // more than one program
		entries = append(entries, own(imageFile(fmt.Sprintf("many/%d", i), ""), 2, 2, 0o600))
	}
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, entries...)))
	far := own(imageFile("far", ""), 1<<30, 0, 0o644)
	g.add("far", g.build(nil, imageTar(t, own(imageDir("x", 0), 1, 1, 0o700), far)))

	root := imagePull(t, s, g.ref("v1"), nil).Root().Layers[0]
	for _, want := range []struct {
		path     string
		uid, gid uint32
		mode     uint32
	}{
		{"root", 0, 0, unix.S_IFREG | 0o644}, {"suid", 33, 44, unix.S_IFREG | 0o6755}, {"closed", 33, 44, unix.S_IFDIR | 0o500},
		{"link", 33, 44, unix.S_IFLNK | 0o777}, {"fifo", 33, 44, unix.S_IFIFO | 0o620}, {"many/4999", 2, 2, unix.S_IFREG | 0o600},
		{"caps", 0, 7, unix.S_IFREG | 0o755},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, want.path), &st); err != nil {
			t.Error(err)
			continue
		}
		uid, _ := mapToHost(s.config.UIDMap, want.uid)
		gid, _ := mapToHost(s.config.GIDMap, want.gid)
		if st.Uid != uid || st.Gid != gid || st.Mode != want.mode {
			t.Errorf("%s: %d:%d %o, want %d:%d %o", want.path, st.Uid, st.Gid, st.Mode, uid, gid, want.mode)
		}
	}
	if x := imageXattrs(root + "/caps"); !strings.Contains(x, "security.capability") {
		t.Errorf("caps: %q", x)
	}
	if err := s.remove("layers/" + filepath.Base(filepath.Dir(root))); err == nil {
		t.Error("the user could delete the files of others without help: the test shows nothing")
	}
	if err := s.removeLayer(context.Background(), "layers/"+filepath.Base(filepath.Dir(root))); err != nil {
		t.Error(err)
	}

	_, err := s.Pull(context.Background(), g.ref("far"), nil)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "/etc/subuid") {
		t.Errorf("error %v", err)
	}
	if names, _ := filepath.Glob(s.Dir() + "/ingest/*"); len(names) > 0 {
		t.Errorf("left in ingest: %q", names)
	}
}

// A store of one owner keeps capabilities, by a user namespace of one id.
func TestStoreSingle(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	s := imageStore(t, &StoreOptions{Ownership: OwnershipSingle})
	f := imageFile("caps", "1")
	f.Uid = 12
	f.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": imageCapability}
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, f)))
	root := imagePull(t, s, g.ref("v1"), nil).Root().Layers[0]
	var st unix.Stat_t
	if err := unix.Lstat(root+"/caps", &st); err != nil || int(st.Uid) != os.Geteuid() {
		t.Errorf("owner %d, %v", st.Uid, err)
	}
	if x := imageXattrs(root + "/caps"); !strings.Contains(x, "security.capability") {
		t.Errorf("caps: %q", x)
	}
}

func TestStoreOpen(t *testing.T) {
	s := imageStore(t, &StoreOptions{Ownership: OwnershipSingle})
	if _, err := OpenStore(s.Dir(), &StoreOptions{Ownership: OwnershipRoot}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("another ownership: %v", err)
	}
	if _, err := OpenStore(imageTempDir(t), &StoreOptions{Ownership: "mine"}); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("an unknown ownership: %v", err)
	}
	if err := os.WriteFile(s.Dir()+"/VERSION", []byte("2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(s.Dir(), nil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `version "2"`) {
		t.Errorf("another version: %v", err)
	}
}

// What a process that was killed has left is removed by the next one; what is being made is not.
func TestStoreOrphans(t *testing.T) {
	s := imageStore(t, nil)
	alive, err := s.newStage()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.discard()
	dead, err := s.newStage()
	if err != nil {
		t.Fatal(err)
	}
	dead.owner.Close() // the kernel drops the lock
	old := unixTime(1)
	for _, st := range []*stage{alive, dead} {
		if err := os.Chtimes(filepath.Join(s.Dir(), st.name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenStore(s.Dir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	names, _ := filepath.Glob(s.Dir() + "/ingest/*")
	if len(names) != 1 || filepath.Base(names[0]) != filepath.Base(alive.name) {
		t.Errorf("in ingest are %q, want only %q", names, alive.name)
	}
}

func TestStoreEscapeRef(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{
		"a/b:c", "a%2Fb:c", "..", ".", "", "../x", "a/../b", "%", "%%", "a b", "ä", strings.Repeat("x", 300), strings.Repeat("x", 301),
		"127.0.0.1:5000/x:y linux/arm64", "a\x00b", ".hidden", "%sha256-x",
	} {
		e := escapeRef(name)
		if e == "" || e[0] == '.' || strings.ContainsAny(e, "/\x00") || len(e) > 250 {
			t.Errorf("%q becomes %q", name, e)
		}
		if other, ok := seen[e]; ok {
			t.Errorf("%q and %q become %q", name, other, e)
		}
		seen[e] = name
	}
}

// A full disk is an error, after which nothing is left.
func TestStoreFull(t *testing.T) {
	testenv.Need(t, testenv.Root)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := OpenStore(dir+"/store", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("small", "1")), imageTar(t, imageFile("large", strings.Repeat("x", 4<<20)))))
	if _, err := s.Pull(context.Background(), g.ref("v1"), nil); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), " of 2") {
		t.Errorf("error %v", err)
	}
	for _, sub := range []string{"ingest", "images", "refs"} {
		if names, _ := filepath.Glob(s.Dir() + "/" + sub + "/*"); len(names) > 0 {
			t.Errorf("left: %q", names)
		}
	}
}

// What a killed pull leaves does not matter to the next one: a stage that nobody holds, a damaged record, a
// layer without its record.
func TestStoreDamaged(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
	for name, damage := range map[string]func(s *Store, layer string) error{
		"torn meta.json": func(s *Store, layer string) error { return os.WriteFile(layer+"/meta.json", []byte(`{"diff`), 0o600) },
		"no meta.json":   func(s *Store, layer string) error { return os.Remove(layer + "/meta.json") },
		"no layer":       func(s *Store, layer string) error { return os.RemoveAll(layer) },
		"other layer's meta.json": func(s *Store, layer string) error {
			return s.writeJSON("layers/"+filepath.Base(layer)+"/meta.json", &layerMeta{DiffID: digestOf(nil), durability: durability{Durable: true}})
		},
	} {
		s := imageStore(t, nil)
		img := imagePull(t, s, g.ref("v1"), nil)
		if err := damage(s, filepath.Dir(img.Root().Layers[0])); err != nil {
			t.Fatal(err)
		}
		img = imagePull(t, s, g.ref("v1"), &PullOptions{Policy: PullAlways})
		if b, err := os.ReadFile(img.Root().Layers[0] + "/f"); err != nil || string(b) != "1" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if m, err := s.haveLayer(digest("sha256:" + filepath.Base(filepath.Dir(img.Root().Layers[0])))); m == nil || err != nil {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}
