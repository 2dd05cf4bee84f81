//go:build linux

package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// This file makes an image of what every machine with Go has: Go itself. It is an OCI layout of
// gzipped layers with the directories below, some hundred megabytes of sources and programs.

// imageDirs are the directories of a Go tree that become layers, one each.
var imageDirs = []string{"src/cmd", "src/internal", "test", "bin"}

// makeImage writes an OCI layout with one image, tagged latest, into dir.
func makeImage(dir, goroot string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	var layers []object
	var diffIDs []string
	for _, sub := range imageDirs {
		layer, diffID, err := makeLayer(dir, goroot, sub)
		if err != nil {
			return err
		}
		layers, diffIDs = append(layers, layer), append(diffIDs, diffID)
	}
	config, err := writeBlob(dir, "config.v1", object{
		"architecture": runtime.GOARCH, "os": "linux", "config": object{},
		"rootfs": object{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return err
	}
	manifest, err := writeBlob(dir, "manifest.v1", object{
		"schemaVersion": 2, "mediaType": mediaType("manifest.v1+json"), "config": config, "layers": layers,
	})
	if err != nil {
		return err
	}
	manifest["annotations"] = object{"org.opencontainers.image.ref.name": "latest"}
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": []object{manifest}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

func mediaType(kind string) string { return "application/vnd.oci.image." + kind }

// writeBlob writes a JSON document and returns its descriptor.
func writeBlob(dir, kind string, document object) (descriptor object, err error) {
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(text))
	err = os.WriteFile(filepath.Join(dir, "blobs/sha256", sum), text, 0o644)
	return object{"mediaType": mediaType(kind + "+json"), "digest": "sha256:" + sum, "size": len(text)}, err
}

// makeLayer writes goroot/sub as a layer and returns its descriptor and its diff id.
func makeLayer(dir, goroot, sub string) (descriptor object, diffID string, err error) {
	f, err := os.CreateTemp(dir, "layer")
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	blobSum, diffSum := sha256.New(), sha256.New()
	zip := gzip.NewWriter(io.MultiWriter(f, blobSum))
	archive := tar.NewWriter(io.MultiWriter(zip, diffSum))
	err = filepath.WalkDir(filepath.Join(goroot, sub), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		return addFile(archive, goroot, path)
	})
	if err != nil {
		return nil, "", err
	}
	if err := archive.Close(); err != nil {
		return nil, "", err
	}
	if err := zip.Close(); err != nil {
		return nil, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	sum := hex.EncodeToString(blobSum.Sum(nil))
	descriptor = object{"mediaType": mediaType("layer.v1.tar+gzip"), "digest": "sha256:" + sum, "size": info.Size()}
	err = os.Rename(f.Name(), filepath.Join(dir, "blobs/sha256", sum))
	return descriptor, "sha256:" + hex.EncodeToString(diffSum.Sum(nil)), err
}

// addFile adds a file or directory as root's, by its path below goroot.
func addFile(archive *tar.Writer, goroot, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	if h.Name, err = filepath.Rel(goroot, path); err != nil {
		return err
	}
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if err := archive.WriteHeader(h); err != nil || info.IsDir() {
		return err
	}
	_, err = io.Copy(archive, f)
	return err
}
