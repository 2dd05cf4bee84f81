//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// imageDockerArchive writes what docker save writes: before version 25 with a directory for each layer, later
// with blobs.
func imageDockerArchive(t *testing.T, file string, v25 bool, tags []string, layers ...[]byte) {
	t.Helper()
	var diffIDs, names []string
	var entries []imageEntry
	seen := map[string]bool{}
	for i, l := range layers {
		id := imageDigest(l)
		diffIDs = append(diffIDs, id)
		name := strings.Repeat(string(rune('a'+i)), 64) + "/layer.tar"
		first := "../" + strings.Repeat("a", 64) + "/layer.tar"
		switch {
		case v25:
			name = "blobs/sha256/" + id[7:]
			if !seen[id] {
				entries = append(entries, imageFile(name, string(l)))
			}
		case seen[id]: // old versions link to what they have written already
			entries = append(entries, imageLink(name, first))
		default:
			entries = append(entries, imageFile(name, string(l)))
		}
		seen[id] = true
		names = append(names, name)
	}
	config, _ := json.Marshal(map[string]any{"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Cmd": []string{"sh"}}, "rootfs": map[string]any{"diff_ids": diffIDs}})
	m, _ := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": tags, "Layers": names}})
	entries = append(entries, imageFile("config.json", string(config)), imageFile("manifest.json", string(m)))
	if err := os.WriteFile(file, imageTar(t, entries...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	a, b := imageTar(t, imageFile("a", "1")), imageTar(t, imageFile("b", "2"))
	imageLayout(t, dir+"/layout", a, b)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.AddFS(os.DirFS(dir + "/layout")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	os.WriteFile(dir+"/oci.tar", archive.Bytes(), 0o600)
	os.WriteFile(dir+"/oci.tar.gz", imageGzip(archive.Bytes()), 0o600)
	os.WriteFile(dir+"/with:colon.tar", archive.Bytes(), 0o600)
	imageDockerArchive(t, dir+"/docker.tar", false, []string{"test:v1", "test:latest"}, a, b, a)
	imageDockerArchive(t, dir+"/docker25.tar", true, nil, a, b, a)
	os.WriteFile(dir+"/text", []byte("this is not a tar"), 0o600)

	// Files of the layers, the lowest first; of a layer that comes twice the upper one counts.
	ab, ba := []string{"a", "b"}, []string{"b", "a"}
	for source, files := range map[string][]string{
		"oci:" + dir + "/layout": ab, "oci:" + dir + "/layout:v1": ab, "oci-archive:" + dir + "/oci.tar": ab, "oci-archive:" + dir + "/oci.tar:v1": ab,
		"oci-archive:" + dir + "/with:colon.tar": ab, "oci-archive:" + dir + "/with:colon.tar:v1": ab,
		"docker-archive:" + dir + "/docker.tar": ba, "docker-archive:" + dir + "/docker.tar:test:v1": ba, "docker-archive:" + dir + "/docker.tar:test": ba,
		"docker-archive:" + dir + "/docker25.tar": ba,
	} {
		s := imageStore(t, nil)
		img, err := s.Open(context.Background(), source, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		root := img.Root()
		if len(root.Layers) != len(files) || len(img.Config.Cmd) > 1 {
			t.Errorf("%s: %+v", source, img)
			continue
		}
		for i, name := range files {
			if _, err := os.Stat(filepath.Join(root.Layers[i], name)); err != nil {
				t.Errorf("%s: %v", source, err)
			}
		}
		again, err := s.Load(context.Background(), source, nil)
		if err != nil || again.Digest != img.Digest {
			t.Errorf("%s: again %v, %v", source, again, err)
		}
	}
	img, err := imageStore(t, nil).Open(context.Background(), "dir:"+dir, nil)
	if err != nil || img.Root().Dir != dir || img.Root().Access != ReadWrite {
		t.Errorf("dir: %+v, %v", img, err)
	}

	for source, want := range map[string]struct {
		is  error
		say string
	}{
		"oci:" + dir + "/layout:v2":                {ErrImageNotFound, "v1"},
		"oci:" + dir + "/nothing":                  {ErrImageNotFound, ""},
		"oci:" + dir:                               {ErrImageNotFound, "index.json"},
		"oci-archive:" + dir + "/oci.tar.gz":       {ErrUnsupported, "gunzip"},
		"oci-archive:" + dir + "/text":             {ErrInvalidImage, "not a tar"},
		"oci-archive:" + dir + "/docker.tar":       {ErrImageNotFound, "index.json"},
		"docker-archive:" + dir + "/oci.tar":       {ErrImageNotFound, "oci-archive"},
		"docker-archive:" + dir + "/docker.tar:v9": {ErrImageNotFound, "test:v1"},
		"dir:" + dir + "/text":                     {ErrInvalidImage, "not a directory"},
		"dir:" + dir + "/nothing":                  {ErrImageNotFound, ""},
		"oci:":                                     {ErrInvalidImage, "after the colon"},
	} {
		s := imageStore(t, nil)
		_, err := s.Open(context.Background(), source, nil)
		if !errors.Is(err, want.is) || !strings.Contains(err.Error(), want.say) {
			t.Errorf("%s: %v", source, err)
		}
		imageStoreEmpty(t, s)
	}
}

// The content of an archive must be what its configuration promises.
func TestLoadDockerArchiveMismatch(t *testing.T) {
	file := t.TempDir() + "/docker.tar"
	imageDockerArchive(t, file, false, nil, imageTar(t, imageFile("a", "1")))
	b, _ := os.ReadFile(file)
	i := bytes.Index(b, []byte("\x001\x00")) // the content of "a"
	if i < 0 {
		t.Fatal("no content")
	}
	b[i+1] = '2'
	os.WriteFile(file, b, 0o600)
	if _, err := imageStore(t, nil).Load(context.Background(), "docker-archive:"+file, nil); !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("error %v", err)
	}
}

// Compression is told by the content.
func TestImageCompression(t *testing.T) {
	layer := imageTar(t, imageFile("f", strings.Repeat("content ", 100_000)))
	enc, _ := zstd.NewWriter(nil)
	half := len(layer) / 2
	flipped := imageGzip(layer)
	flipped[len(flipped)-5] ^= 1 // the checksum
	for _, tc := range []struct {
		name string
		blob []byte
		is   error
	}{
		{"plain", layer, nil},
		{"gzip", imageGzip(layer), nil},
		{"gzip members", append(imageGzip(layer[:half]), imageGzip(layer[half:])...), nil},
		{"gzip with zeros behind", append(imageGzip(layer), make([]byte, 1000)...), nil},
		{"gzip with something behind", append(imageGzip(layer), "something"...), ErrInvalidImage},
		{"gzip with a wrong checksum", flipped, ErrInvalidImage},
		{"gzip cut off", imageGzip(layer)[:500], ErrInvalidImage},
		{"zstd", enc.EncodeAll(layer, nil), nil},
		{"zstd frames", enc.EncodeAll(layer[half:], enc.EncodeAll(layer[:half], nil)), nil},
		{"zstd with a skippable frame", append(enc.EncodeAll(layer, nil), "\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"...), nil},
		{"zstd behind a skippable frame", enc.EncodeAll(layer, []byte("\x50\x2a\x4d\x18\x04\x00\x00\x00abcd")), nil},
		{"zstd with a window beyond the limit", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00}, ErrLimit},
		{"zstd of one segment beyond the limit", []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0}, ErrLimit},
		{"xz", []byte("\xfd7zXZ\x00rest"), ErrUnsupported},
		{"bzip2", []byte("BZh91AY&SY"), ErrUnsupported},
		{"nothing", nil, ErrDigestMismatch}, // the tar that was promised is not empty
	} {
		g := newImageRegistry(t)
		p := g.build(nil, layer)
		d := g.addBlob(tc.blob)
		d["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip" // which it often is not
		p.manifest["layers"] = []any{d}
		g.add("v1", p)
		s := imageStore(t, nil)
		img, err := s.Pull(context.Background(), g.ref("v1"), &PullOptions{Limits: ImageLimits{Window: 8 << 20}})
		if tc.is != nil {
			if !errors.Is(err, tc.is) {
				t.Errorf("%s: error %v", tc.name, err)
			}
			imageStoreEmpty(t, s)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if info, err := os.Stat(img.Root().Layers[0] + "/f"); err != nil || info.Size() != 800_000 {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestImagePlatform(t *testing.T) {
	offer := func(names ...string) (list []descriptor) {
		for _, n := range names {
			p, err := parsePlatform(n)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, descriptor{Platform: &p})
		}
		return append(list, descriptor{})
	}
	for _, tc := range []struct {
		want   string
		offers []descriptor
		i      int
	}{
		{"linux/arm64", offer("linux/amd64", "linux/arm64/v8"), 1},
		{"linux/arm64/v8", offer("linux/amd64", "linux/arm64"), 1},
		{"linux/arm", offer("linux/arm/v5", "linux/arm/v6", "linux/arm/v7"), 2},
		{"linux/arm/v7", offer("linux/arm/v5", "linux/arm/v6"), 1},
		{"linux/arm/v6", offer("linux/arm/v7", "linux/arm64"), -1},
		{"linux/amd64/v3", offer("linux/amd64/v2", "linux/amd64/v3"), 1},
		{"linux/amd64/v3", offer("linux/amd64", "linux/amd64/v2"), 1},
		{"linux/amd64", offer("linux/amd64/v2"), -1},
		{"linux/amd64", offer("unknown/unknown", "linux/amd64"), 1},
		{"windows/amd64", offer("linux/amd64"), -1},
	} {
		acceptable, err := acceptablePlatforms(tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if i := choosePlatform(acceptable, tc.offers); i != tc.i {
			t.Errorf("%s of %s: %d, want %d", tc.want, listPlatforms(tc.offers), i, tc.i)
		}
	}
	if host, err := acceptablePlatforms(""); err != nil || choosePlatform(host, offer("linux/s390y", "linux/"+runtime.GOARCH)) != 1 {
		t.Errorf("host: %v, %v", host, err)
	}

	// Through indexes, one in another, with an attestation.
	g := newImageRegistry(t)
	m := g.add("", g.build(nil, imageTar(t, imageFile("f", "1"))))
	desc := func(d, p string) map[string]any {
		os, arch, _ := strings.Cut(p, "/")
		return map[string]any{"mediaType": mediaOCIManifest, "digest": d, "size": len(g.manifests[d]), "platform": map[string]string{"os": os, "architecture": arch}}
	}
	inner := g.addManifest("", mediaOCIIndex, map[string]any{"schemaVersion": 2, "manifests": []any{desc(m, "unknown/unknown"), desc(m, "linux/"+runtime.GOARCH)}})
	g.addManifest("nested", mediaDockerIndex, map[string]any{"schemaVersion": 2, "mediaType": mediaDockerIndex, "manifests": []any{
		map[string]any{"mediaType": mediaOCIIndex, "digest": inner, "size": len(g.manifests[inner])}}})
	if img := imagePull(t, imageStore(t, nil), g.ref("nested"), nil); img.Digest != m || img.Platform != "linux/"+runtime.GOARCH {
		t.Errorf("%+v", img)
	}
}
