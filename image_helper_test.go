//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// This file holds what the tests of images share: tars written entry by entry, and a registry that
// can be made to misbehave.

// imageEntry is one entry of a tar; imageTar fills in what is usual.
type imageEntry struct {
	tar.Header
	content string
}

func imageDir(name string, mode int64) imageEntry {
	return imageEntry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func imageFile(name, content string) imageEntry {
	return imageEntry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content: content}
}

func imageLink(name, target string) imageEntry {
	return imageEntry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func imageHardlink(name, target string) imageEntry {
	return imageEntry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

// imageTar writes a tar.
func imageTar(t testing.TB, entries ...imageEntry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.content))
		}
		if h.ModTime.IsZero() {
			h.ModTime = unixTime(1700000000)
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func imageGzip(b []byte) []byte {
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestSpeed)
	w.Write(b)
	w.Close()
	return z.Bytes()
}

// imageRegistry is a registry of one repository: blobs and manifests by digest or tag, with a hook in front.
type imageRegistry struct {
	*httptest.Server
	mu        sync.Mutex
	blobs     map[string][]byte
	manifests map[string][]byte
	types     map[string]string
	requests  []string
	// hook may answer a request itself, and returns true then.
	hook func(w http.ResponseWriter, r *http.Request) bool
}

func newImageRegistry(t testing.TB) *imageRegistry {
	g := &imageRegistry{blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Server.Close)
	return g
}

func (g *imageRegistry) serve(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.requests = append(g.requests, r.Method+" "+r.URL.Path)
	hook := g.hook
	g.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	i := strings.LastIndexByte(r.URL.Path, '/')
	kind, id := r.URL.Path[:i], r.URL.Path[i+1:]
	switch {
	case r.URL.Path == "/v2/":
	case strings.HasSuffix(kind, "/manifests"):
		b, ok := g.manifests[id]
		if !ok {
			http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", g.types[id])
		w.Write(b)
	case strings.HasSuffix(kind, "/blobs"):
		b, ok := g.blobs[id]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", unixTime(0), bytes.NewReader(b))
	default:
		http.NotFound(w, r)
	}
}

// blobRequests counts how often blobs were asked for.
func (g *imageRegistry) blobRequests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, r := range g.requests {
		if strings.Contains(r, "/blobs/") {
			n++
		}
	}
	return n
}

func imageDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ref is the reference of a tag.
func (g *imageRegistry) ref(tag string) string {
	return strings.TrimPrefix(g.URL, "http://") + "/test/image:" + tag
}

// addManifest adds a document under its digest and, if not empty, a tag.
func (g *imageRegistry) addManifest(tag, mediaType string, v any) string {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	d := imageDigest(b)
	for _, id := range []string{d, tag} {
		g.manifests[id], g.types[id] = b, mediaType
	}
	return d
}

func (g *imageRegistry) addBlob(b []byte) map[string]any {
	d := imageDigest(b)
	g.blobs[d] = b
	return map[string]any{"digest": d, "size": len(b)}
}

// imageParts is an image before it is added; tests break parts of it.
type imageParts struct {
	manifest map[string]any
	config   map[string]any
}

// build makes the parts of an image of plain tars, as gzip blobs.
func (g *imageRegistry) build(config map[string]any, layers ...[]byte) *imageParts {
	p := &imageParts{}
	diffIDs, descs := []string{}, []any{}
	for _, l := range layers {
		diffIDs = append(diffIDs, imageDigest(l))
		d := g.addBlob(imageGzip(l))
		d["mediaType"] = mediaOCILayer + "+gzip"
		descs = append(descs, d)
	}
	p.config = map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	}
	p.manifest = map[string]any{"schemaVersion": 2, "mediaType": mediaOCIManifest, "layers": descs}
	return p
}

// add adds the parts to the registry, and returns the digest of the manifest.
func (g *imageRegistry) add(tag string, p *imageParts) string {
	b, _ := json.Marshal(p.config)
	c := g.addBlob(b)
	c["mediaType"] = mediaOCIConfig
	p.manifest["config"] = c
	return g.addManifest(tag, mediaOCIManifest, p.manifest)
}

// imageStore opens a new store.
func imageStore(t testing.TB, opt *StoreOptions) *Store {
	t.Helper()
	dir := filepath.Join(imageTempDir(t), "store")
	s, err := OpenStore(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// imageTempDir is t.TempDir for trees that os.RemoveAll cannot remove.
func imageTempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "image-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeTree(unix.AT_FDCWD, dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// imageTree describes a tree, a line for each file, sorted. detail adds owner and times.
func imageTree(t testing.TB, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	inodes := map[uint64][]string{}
	err := filepath.Walk(root, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			line += fmt.Sprintf(" size=%d sha=%x", st.Size, sum[:6])
			if st.Nlink > 1 {
				inodes[st.Ino] = append(inodes[st.Ino], rel)
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(path)
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		line += fmt.Sprintf(" mtime=%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		tree[rel] = line + imageXattrs(path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range inodes {
		sort.Strings(names)
		for _, n := range names {
			tree[n] += " links=" + strings.Join(names, ",")
		}
	}
	return tree
}

func imageXattrs(path string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return ""
	}
	names := strings.Split(strings.Trim(string(buf[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		if name == "security.selinux" {
			continue
		}
		v := make([]byte, 64<<10)
		n, _ := unix.Lgetxattr(path, name, v)
		fmt.Fprintf(&b, " %s=%q", name, v[:max(n, 0)])
	}
	return b.String()
}

// imageGoRoot is where Go's own sources are: files of all sizes, and the tars of archive/tar's tests. Empty without go in
// the PATH.
func imageGoRoot() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
