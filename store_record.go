//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// This file holds the small files of a store: what they contain, and how they are written. All are
// written under another name and renamed; whoever reads one sees all of it or nothing.

// storeConfig is config.json: what is fixed when the store is made.
type storeConfig struct {
	Ownership Ownership `json:"ownership"`
	// Maps from the ids of images to those of the host, for OwnershipSubIDs.
	UIDMap []IDMap `json:"uidMap,omitempty"`
	GIDMap []IDMap `json:"gidMap,omitempty"`
}

// durability tells whether a record survives a crash of the host. What is not known to be on the disk
// is valid only in the boot that wrote it: after a crash files may be there with their size and without their
// content.
type durability struct {
	BootID  string `json:"bootID"`
	Durable bool   `json:"durable"`
}

func (d *durability) valid() bool {
	boot, err := bootID()
	return d.Durable || (err == nil && d.BootID != "" && d.BootID == boot)
}

// untilBoot is what a record says that is valid in this boot, or not at all if that cannot be named.
func untilBoot() durability {
	boot, _ := bootID()
	return durability{BootID: boot}
}

// layerMeta is layers/<diff id>/meta.json.
type layerMeta struct {
	DiffID digest `json:"diffID"`
	// Blob is the compressed form from which the layer was unpacked; no digest if it was not verified by one.
	Blob     digest `json:"blob,omitempty"`
	BlobSize int64  `json:"blobSize,omitempty"`

	Bytes          int64 `json:"bytes"` // of regular files
	Inodes         int64 `json:"inodes"`
	Entries        int64 `json:"entries"`
	SkippedDevices int64 `json:"skippedDevices,omitempty"`
	SkippedXattrs  int64 `json:"skippedXattrs,omitempty"`

	// OpaqueRoot: nothing of the layers below is visible.
	OpaqueRoot bool `json:"opaqueRoot,omitempty"`
	// ImpliedDirs have no entry in the tar; their attributes should be those of the layers below.
	ImpliedDirs []string `json:"impliedDirs,omitempty"`
	// Owners are the entries that do not have the owner, the capabilities or the mode of the image.
	Owners []layerOwner `json:"owners,omitempty"`

	Unpacker int `json:"unpacker"`
	durability
}

// unpackerVersion is written to meta.json. A version that unpacks differently counts it up.
const unpackerVersion = 3

// imageRecord is images/<manifest>.json: everything that is needed to open an image, in one file.
type imageRecord struct {
	Manifest digest       `json:"manifest"`
	Config   digest       `json:"config"`
	Platform platform     `json:"platform"`
	Layers   []imageLayer `json:"layers"` // the lowest first
	Run      ImageConfig  `json:"run"`
	Created  time.Time    `json:"created"` // when it was pulled
	durability
}

type imageLayer struct {
	DiffID     digest `json:"diffID"`
	Blob       digest `json:"blob,omitempty"`
	BlobSize   int64  `json:"blobSize,omitempty"`
	Bytes      int64  `json:"bytes"`
	OpaqueRoot bool   `json:"opaqueRoot,omitempty"`
}

// refRecord is refs/<reference>: what a name stands for.
type refRecord struct {
	Reference string    `json:"reference"`
	Manifest  digest    `json:"manifest"`
	Index     digest    `json:"index,omitempty"`
	Time      time.Time `json:"time"`
}

// writeFile writes a small file in one step.
func (s *Store) writeFile(name string, content []byte) error {
	path := filepath.Join(s.dir, name)
	tmp, err := os.CreateTemp(filepath.Join(s.dir, "ingest"), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // after the rename there is nothing to remove
	at("store: temporary file")
	_, err = tmp.Write(content)
	if err == nil && s.sync {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		at("store: temporary file written")
		err = os.Rename(tmp.Name(), path)
		at("store: file")
	}
	return err
}

func (s *Store) writeJSON(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.writeFile(name, append(b, '\n'))
}

// readJSON reads a small file. A file that is missing or torn is reported as fs.ErrNotExist: it will be
// written anew.
func (s *Store) readJSON(name string, v any) error {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged (%v): %w", name, err, fs.ErrNotExist)
	}
	return nil
}

// haveLayer tells whether a layer is there and may be used.
func (s *Store) haveLayer(id digest) (*layerMeta, error) {
	m := new(layerMeta)
	err := s.readJSON("layers/"+id.hex()+"/meta.json", m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case m.DiffID != id || !m.valid():
		return nil, nil
	}
	if info, err := os.Lstat(s.layerDir(id)); err != nil || !info.IsDir() {
		return nil, nil
	}
	return m, nil
}

// image reads an image's record, if it and all its layers may be used.
func (s *Store) image(id digest) (*imageRecord, error) {
	r := new(imageRecord)
	err := s.readJSON("images/"+id.hex()+".json", r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case r.Manifest != id || !r.valid():
		return nil, nil
	}
	for _, l := range r.Layers {
		if _, err := os.Stat(s.layerDir(l.DiffID)); err != nil {
			return nil, nil
		}
	}
	return r, nil
}

// layerDir is the directory that overlayfs gets.
func (s *Store) layerDir(id digest) string { return filepath.Join(s.dir, "layers", id.hex(), "fs") }

// ref reads what a name stands for; nil if it is not known.
func (s *Store) ref(name string) (*refRecord, error) {
	r := new(refRecord)
	err := s.readJSON("refs/"+escapeRef(name), r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case r.Reference != name:
		return nil, nil
	}
	if _, err := parseDigest(string(r.Manifest)); err != nil {
		return nil, nil
	}
	return r, nil
}

func (s *Store) writeRef(r *refRecord) error { return s.writeJSON("refs/"+escapeRef(r.Reference), r) }

// escapeRef turns a name into a file name: what is not a letter, a digit, or one of "-_.:@+" is written
// as %XX, and so is a leading dot. Long names are replaced by their digest.
func escapeRef(name string) string {
	var b strings.Builder
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			strings.IndexByte("-_:@+", c) >= 0, c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 || b.Len() > 200 {
		return "%sha256-" + digestOf([]byte(name)).hex() // "%s" begins no escape
	}
	return b.String()
}

// toImage makes the public form of a record.
func (s *Store) toImage(name string, r *imageRecord) *Image {
	img := &Image{
		Reference: name,
		Digest:    string(r.Manifest),
		Platform:  r.Platform.String(),
		Config:    r.Run,
	}
	// A layer may come twice, and overlayfs takes a directory once. The upper one hides all of the
	// lower one, and whatever that hides: so the lower one can be left out.
	seen := map[digest]bool{}
	for _, l := range slices.Backward(r.Layers) {
		if seen[l.DiffID] {
			continue
		}
		seen[l.DiffID] = true
		img.Size += l.Bytes
		img.layers = append(img.layers, s.layerDir(l.DiffID))
		if l.OpaqueRoot {
			break // nothing below is visible
		}
	}
	slices.Reverse(img.layers)
	return img
}

// readBlob reads a document. It is verified by whoever uses it.
func (s *Store) readBlob(id digest) ([]byte, error) {
	return os.ReadFile(filepath.Join(s.dir, "blobs/sha256", id.hex()))
}

// writeBlob writes a document under its digest.
func (s *Store) writeBlob(b []byte) error {
	return s.writeFile("blobs/sha256/"+digestOf(b).hex(), b)
}
