//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// This file reads images from files: an OCI layout as a directory or in a tar, and what docker save
// writes. Archives are read in place: one pass over the headers notes where each file
// is, then layers are read from there, several at a time.

// Load returns the image of a source that is not a registry, after bringing it into the store:
//
//	oci:DIR[:TAG]               an OCI image layout; TAG is org.opencontainers.image.ref.name
//	oci-archive:FILE[:TAG]      the same in a tar
//	docker-archive:FILE[:TAG]   what "docker save" writes; TAG is a name like debian:13
//	dir:DIR                     a directory that is used as it is, and written to
//
// Without TAG there must be one image. Errors are as of Pull.
func (s *Store) Load(ctx context.Context, source string, opt *PullOptions) (*Image, error) {
	img, err := s.load(ctx, source, opt)
	if err != nil {
		return nil, imageError("load", source, err)
	}
	return img, nil
}

func (s *Store) load(ctx context.Context, source string, opt *PullOptions) (*Image, error) {
	if opt == nil {
		opt = &PullOptions{}
	}
	if !isTransport(source) {
		return nil, remedy(fmt.Errorf("%w: not a source of a known kind", ErrInvalidImage),
			"write it as oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG] or dir:DIR; references are for Pull")
	}
	kind, rest, _ := strings.Cut(source, ":")
	if kind == "dir" {
		return loadDirectory(source, rest)
	}
	// The key is no reference of a registry: "oci:5000/x:v1" could be a directory's or that of a host named oci.
	p, err := s.newPull(source, "file "+source, opt)
	if err != nil {
		return nil, err
	}
	file, tag, err := splitTag(rest)
	if err != nil {
		return nil, err
	}
	var src imageSource
	switch kind {
	case "oci":
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, notFound(err)
		}
		defer root.Close()
		src = &ociLayout{files: dirFiles{root}, tag: tag}
	default:
		archive, err := openArchive(ctx, file)
		if err != nil {
			return nil, notFound(err)
		}
		defer archive.f.Close()
		if src = (&ociLayout{files: archive, tag: tag}); kind == "docker-archive" {
			src = &dockerArchive{files: archive, tag: tag}
		}
	}
	lock, err := s.lockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.unlock()
	return p.run(ctx, src)
}

// loadDirectory makes an image of a plain directory; nothing is stored.
func loadDirectory(source, dir string) (*Image, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, notFound(err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: %s is not a directory", ErrInvalidImage, dir)
	}
	return &Image{Reference: source, dir: dir}, nil
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrImageNotFound, err)
	}
	return err
}

// splitTag splits "FILE[:TAG]". A file that exists under the whole name is taken for that; otherwise
// the tag begins at the first colon after which the rest is not a file.
func splitTag(s string) (file, tag string, err error) {
	if s == "" {
		return "", "", remedy(fmt.Errorf("%w: no file is named", ErrInvalidImage), "name a file or directory after the colon")
	}
	if _, err := os.Stat(s); err == nil {
		return s, "", nil
	}
	for i, c := range []byte(s) {
		if c != ':' {
			continue
		}
		if _, err := os.Stat(s[:i]); err == nil {
			return s[:i], s[i+1:], nil
		}
	}
	return s, "", nil
}

// sourceFiles are the files of a layout or an archive.
type sourceFiles interface {
	open(name string) (io.ReadCloser, int64, error)
}

// readSourceFile reads a small file.
func readSourceFile(files sourceFiles, name string, limit int64) ([]byte, error) {
	r, size, err := files.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes; at most %d", ErrLimit, name, size, limit)
	}
	return readBounded(r, limit, name)
}

// dirFiles are the files of a directory; links do not lead out of it.
type dirFiles struct{ root *os.Root }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrInvalidImage, name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// archiveFiles are the files of a tar.
type archiveFiles struct {
	f     *os.File
	index map[string]archiveEntry
}

type archiveEntry struct {
	offset, size int64
	link         string // another name in the archive
}

// openArchive notes where the files of a tar are.
func openArchive(ctx context.Context, file string) (*archiveFiles, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	a := &archiveFiles{f: f, index: map[string]archiveEntry{}}
	if err := a.read(ctx); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return a, nil
}

func (a *archiveFiles) read(ctx context.Context) error {
	var magic [6]byte
	a.f.ReadAt(magic[:], 0)
	for _, z := range []struct{ magic, command string }{
		{"\x1f\x8b", "gunzip"}, {"\x28\xb5\x2f\xfd", "unzstd"}, {"\xfd7zXZ", "unxz"}, {"BZh", "bunzip2"},
	} {
		if bytes.HasPrefix(magic[:], []byte(z.magic)) {
			return remedy(fmt.Errorf("%w: the archive as a whole is compressed", ErrUnsupported), "decompress it with "+z.command+" first; the layers in it may be compressed")
		}
	}
	const maxFiles = 100_000
	tr := tar.NewReader(a.f) // which reads exactly to the end of a header, and seeks over content
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("%w: not a tar: %w", ErrInvalidImage, err)
		}
		if len(a.index) >= maxFiles {
			return fmt.Errorf("%w: more than %d files in the archive", ErrLimit, maxFiles)
		}
		name := archiveName(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := a.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.index[name] = archiveEntry{offset: at, size: h.Size}
		case tar.TypeSymlink:
			a.index[name] = archiveEntry{link: archiveName(path.Join(path.Dir(name), h.Linkname))}
		case tar.TypeLink:
			a.index[name] = archiveEntry{link: archiveName(h.Linkname)}
		}
	}
}

// archiveName is a name as the key of the index. Nothing is ever opened by it.
func archiveName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (a *archiveFiles) open(name string) (io.ReadCloser, int64, error) {
	e, ok := a.index[archiveName(name)]
	for links := 0; ok && e.link != ""; links++ {
		if links > maxSymlinks {
			return nil, 0, fmt.Errorf("%w: %s: too many links", ErrInvalidImage, name)
		}
		e, ok = a.index[e.link]
	}
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w in the archive", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(a.f, e.offset, e.size)), e.size, nil
}

// ociLayout is an image layout of the OCI image specification.
type ociLayout struct {
	files sourceFiles
	tag   string
}

const annotationRefName = "org.opencontainers.image.ref.name"

func (o *ociLayout) root(ctx context.Context) ([]byte, string, error) {
	b, err := readSourceFile(o.files, "index.json", maxManifestSize)
	if err != nil {
		return nil, "", remedy(notFound(err), "an OCI layout has a file index.json")
	}
	m, err := parseManifest(b, mediaOCIIndex)
	if err != nil {
		return nil, "", fmt.Errorf("index.json: %w", err)
	}
	if o.tag == "" && len(m.Manifests) != 1 {
		// Several: perhaps one per platform.
		for _, d := range m.Manifests {
			if d.Platform == nil {
				return nil, "", remedy(fmt.Errorf("%w: the layout has %d images", ErrImageNotFound, len(m.Manifests)), "name one of the tags: "+o.tags(m))
			}
		}
		return b, mediaOCIIndex, nil
	}
	var found []descriptor
	for _, d := range m.Manifests {
		if o.tag == "" || d.Annotations[annotationRefName] == o.tag {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, "", remedy(fmt.Errorf("%w: the layout has no tag %q", ErrImageNotFound, o.tag), "name one of the tags: "+o.tags(m))
	case 1:
		b, err := o.document(ctx, found[0], maxManifestSize)
		if err == nil {
			err = found[0].verify(b)
		}
		return b, found[0].MediaType, err
	}
	return nil, "", fmt.Errorf("%w: the layout has the tag %q %d times", ErrInvalidImage, o.tag, len(found))
}

// tags lists the tags of a layout for a message.
func (o *ociLayout) tags(m *manifest) string {
	var tags []string
	for _, d := range m.Manifests {
		if t := d.Annotations[annotationRefName]; t != "" {
			tags = append(tags, t)
		}
	}
	if tags == nil {
		return "there are none"
	}
	return strings.Join(tags, ", ")
}

func (o *ociLayout) document(ctx context.Context, d descriptor, limit int64) ([]byte, error) {
	b, err := readSourceFile(o.files, "blobs/sha256/"+d.Digest.hex(), limit)
	return b, blobMissing(d, err)
}

func (o *ociLayout) layer(ctx context.Context, d descriptor) (io.ReadCloser, descriptor, error) {
	r, _, err := o.files.open("blobs/sha256/" + d.Digest.hex())
	return r, d, blobMissing(d, err)
}

func blobMissing(d descriptor, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the blob %s is missing: %w", ErrInvalidImage, d.Digest, err)
	}
	return err
}

// dockerArchive is what docker save writes. Since version 25 the archive is an OCI layout as well, but
// its index may lack what manifest.json has, so that is what is read for all versions. There is
// no manifest; one is made, so that the image has a digest: the same archive, the same digest.
type dockerArchive struct {
	files sourceFiles
	tag   string

	config []byte
	layers map[digest]string // files, by the digest that the made manifest gives them
}

func (d *dockerArchive) root(ctx context.Context) ([]byte, string, error) {
	b, err := readSourceFile(d.files, "manifest.json", maxManifestSize)
	if err != nil {
		return nil, "", remedy(notFound(err), "a docker archive has a file manifest.json; for an OCI layout use oci-archive:")
	}
	var images []dockerArchiveImage
	if err = checkJSON(b); err == nil {
		err = json.Unmarshal(b, &images)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: manifest.json: %v", ErrInvalidImage, err)
	}
	img, err := d.choose(images)
	if err != nil {
		return nil, "", err
	}
	if d.config, err = readSourceFile(d.files, img.Config, maxImageConfigSize); err != nil {
		return nil, "", fmt.Errorf("%w: configuration: %w", ErrInvalidImage, err)
	}
	m := &manifest{
		SchemaVersion: 2,
		MediaType:     mediaOCIManifest,
		Config:        descriptor{MediaType: mediaOCIConfig, Digest: digestOf(d.config), Size: int64(len(d.config))},
		Layers:        []descriptor{},
	}
	var config configFile
	if err := json.Unmarshal(d.config, &config); err != nil {
		return nil, "", fmt.Errorf("%w: configuration: %v", ErrInvalidImage, err)
	}
	if len(config.RootFS.DiffIDs) != len(img.Layers) {
		return nil, "", fmt.Errorf("%w: the configuration names %d layers, manifest.json %d", ErrInvalidImage, len(config.RootFS.DiffIDs), len(img.Layers))
	}
	d.layers = map[digest]string{}
	for i, file := range img.Layers {
		r, size, err := d.files.open(file)
		if err != nil {
			return nil, "", fmt.Errorf("%w: layer %d: %w", ErrInvalidImage, i, err)
		}
		r.Close()
		// Which digest the file has is not known. That it has the right content follows from the diff id, by which it is named here.
		id := config.RootFS.DiffIDs[i]
		d.layers[id] = file
		m.Layers = append(m.Layers, descriptor{MediaType: mediaOCILayer, Digest: id, Size: size})
	}
	raw, err := json.Marshal(m)
	return raw, mediaOCIManifest, err
}

type dockerArchiveImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// choose finds the image of the tag.
func (d *dockerArchive) choose(images []dockerArchiveImage) (*dockerArchiveImage, error) {
	var all []string
	for i := range images {
		for _, t := range images[i].RepoTags {
			if t == d.tag || t == d.tag+":latest" {
				return &images[i], nil
			}
			all = append(all, t)
		}
	}
	if d.tag == "" && len(images) == 1 {
		return &images[0], nil
	}
	return nil, remedy(fmt.Errorf("%w: the archive has %d images, and no tag %q", ErrImageNotFound, len(images), d.tag), "name one of the tags: "+strings.Join(all, ", "))
}

func (d *dockerArchive) document(ctx context.Context, want descriptor, limit int64) ([]byte, error) {
	return d.config, nil
}

func (d *dockerArchive) layer(ctx context.Context, want descriptor) (io.ReadCloser, descriptor, error) {
	r, _, err := d.files.open(d.layers[want.Digest])
	want.Digest = ""
	return r, want, err
}
