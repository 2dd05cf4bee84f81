//go:build linux

package container

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// This file reads the documents of an image: index, manifest and configuration. They come from
// strangers: every digest is checked for its form before it becomes part of a path, every document
// is parsed only after its bytes have been compared with the digest that names it, and what could be
// read in two ways is refused (CVE-2021-41190).

// The largest documents that are read, in bytes. The same as containerd's.
const (
	maxManifestSize    = 4 << 20
	maxImageConfigSize = 8 << 20
)

// Media types. Docker's and the specification's mean the same things.
const (
	mediaOCIIndex       = "application/vnd.oci.image.index.v1+json"
	mediaOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	mediaOCIConfig      = "application/vnd.oci.image.config.v1+json"
	mediaOCILayer       = "application/vnd.oci.image.layer.v1.tar"
	mediaDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaDockerConfig   = "application/vnd.docker.container.image.v1+json"
	mediaDockerSchema1  = "application/vnd.docker.distribution.manifest.v1"
)

// digest is a verified "sha256:<64 lower-case hexadecimal digits>". Its hex form is safe in a path.
type digest string

// parseDigest accepts the one form of a digest that this package stores.
func parseDigest(s string) (digest, error) {
	hexpart, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hexpart) != sha256.Size*2 {
		return "", fmt.Errorf("%w: digest %.100q is not sha256: and 64 hexadecimal digits", ErrInvalidImage, s)
	}
	for _, c := range []byte(hexpart) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("%w: digest %.100q is not sha256: and 64 lower-case hexadecimal digits", ErrInvalidImage, s)
		}
	}
	return digest(s), nil
}

// hex is the part after "sha256:".
func (d digest) hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// short is for messages.
func (d digest) short() string { return "sha256:" + d.hex()[:12] }

// UnmarshalText lets encoding/json refuse malformed digests.
func (d *digest) UnmarshalText(text []byte) error {
	v, err := parseDigest(string(text))
	*d = v
	return err
}

// digestOf hashes bytes.
func digestOf(b []byte) digest {
	sum := sha256.Sum256(b)
	return sumDigest(sum[:])
}

func sumDigest(sum []byte) digest { return digest("sha256:" + hex.EncodeToString(sum)) }

// descriptor points to a document or a layer by its content.
type descriptor struct {
	MediaType   string            `json:"mediaType,omitempty"`
	Digest      digest            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// verify compares bytes with the descriptor that promised them.
func (d *descriptor) verify(b []byte) error {
	if d.Size >= 0 && int64(len(b)) != d.Size {
		return fmt.Errorf("%w: %s has %d bytes instead of %d", ErrDigestMismatch, d.Digest, len(b), d.Size)
	}
	if got := digestOf(b); got != d.Digest {
		return fmt.Errorf("%w: expected %s, received %s", ErrDigestMismatch, d.Digest, got)
	}
	return nil
}

// manifest is an image manifest, or, with Manifests set, an index of manifests.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        descriptor   `json:"config,omitzero"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

// manifestNames are the names in a manifest that mean something here.
var manifestNames = []string{
	"schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "digest", "size", "platform", "annotations", "os", "architecture", "variant",
}

func (m *manifest) isIndex() bool { return m.Manifests != nil }

// parseManifest reads an image manifest or index. mediaType is what the sender called it, and may
// be empty.
func parseManifest(b []byte, mediaType string) (*manifest, error) {
	if strings.HasPrefix(mediaType, mediaDockerSchema1) {
		return nil, errSchema1
	}
	if err := checkJSON(b, manifestNames...); err != nil {
		return nil, fmt.Errorf("%w: manifest: %v", ErrInvalidImage, err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, fmt.Errorf("%w: manifest: %v", ErrInvalidImage, err)
	}
	if string(fields["schemaVersion"]) == "1" || fields["fsLayers"] != nil {
		return nil, errSchema1
	}
	m := new(manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %v", ErrInvalidImage, err)
	}
	hasIndex, hasImage := fields["manifests"] != nil, fields["layers"] != nil || fields["config"] != nil
	switch {
	case hasIndex && hasImage:
		return nil, fmt.Errorf("%w: the document is both a manifest and an index", ErrInvalidImage)
	case !hasIndex && !hasImage:
		return nil, fmt.Errorf("%w: the document is neither a manifest nor an index", ErrInvalidImage)
	case hasIndex && m.Manifests == nil:
		m.Manifests = []descriptor{}
	}
	// What the document says of itself, and what the sender said, must fit what it is.
	for _, mt := range []string{m.MediaType, mediaType} {
		switch mt {
		case mediaOCIIndex, mediaDockerIndex:
			if !hasIndex {
				return nil, fmt.Errorf("%w: a manifest is called an index (%s)", ErrInvalidImage, mt)
			}
		case mediaOCIManifest, mediaDockerManifest:
			if hasIndex {
				return nil, fmt.Errorf("%w: an index is called a manifest (%s)", ErrInvalidImage, mt)
			}
		}
	}
	if hasIndex {
		return m, nil
	}
	if m.Config.Digest == "" {
		return nil, fmt.Errorf("%w: the manifest has no config", ErrInvalidImage)
	}
	for i, l := range m.Layers {
		if l.Digest == "" || l.Size < 0 {
			return nil, fmt.Errorf("%w: layer %d has no digest or a negative size", ErrInvalidImage, i)
		}
	}
	return m, nil
}

var errSchema1 = fmt.Errorf("%w: the manifest is of Docker's schema 1, which has no verifiable layers", ErrInvalidImage)

// configFile is an image's configuration document.
type configFile struct {
	platform
	Config ImageConfig `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// parseConfigFile reads an image's configuration, and checks that it belongs to the manifest.
func parseConfigFile(b []byte, m *manifest) (*configFile, error) {
	switch m.Config.MediaType {
	case "", mediaOCIConfig, mediaDockerConfig, "application/octet-stream", "text/plain":
	default:
		return nil, fmt.Errorf("%w: it is an artifact of type %s, not the root of a file system", ErrInvalidImage, m.Config.MediaType)
	}
	if err := checkJSON(b); err != nil {
		return nil, fmt.Errorf("%w: configuration: %v", ErrInvalidImage, err)
	}
	c := new(configFile)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%w: configuration: %v", ErrInvalidImage, err)
	}
	if len(m.Layers) == 0 {
		return nil, fmt.Errorf("%w: it has no layers, so there is nothing to run", ErrInvalidImage)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("%w: the configuration names %d layers, the manifest %d", ErrInvalidImage, len(c.RootFS.DiffIDs), len(m.Layers))
	}
	return c, nil
}

// checkJSON refuses documents that two parsers could read differently: names that come twice in one
// object, and anything after the first value. Names of fields, which encoding/json compares without
// regard to case, must differ in more than case; names in the user's own maps need not. The names given must be written as
// they are here: "Manifests" would be a field to encoding/json, and to others not.
func checkJSON(b []byte, names ...string) error {
	exact := make(map[string]string, len(names))
	for _, name := range names {
		exact[foldName(name)] = name
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		object bool
		key    bool   // the next token is a key
		name   string // the last key
		own    bool   // a map of the user's, not a set of fields
		seen   map[string]bool
	}
	ownMaps := map[string]bool{}
	for _, name := range []string{"Labels", "annotations", "ExposedPorts", "Volumes"} {
		ownMaps[foldName(name)] = true
	}
	var stack []level
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if top := len(stack) - 1; top >= 0 && stack[top].object {
			if name, ok := tok.(string); ok && stack[top].key {
				if !stack[top].own {
					written := name
					name = foldName(name)
					if want := exact[name]; want != "" && want != written {
						return fmt.Errorf("the name %.50q, which some read as %q", written, want)
					}
				}
				if stack[top].seen[name] {
					return fmt.Errorf("the name %.100q comes twice", name)
				}
				stack[top].seen[name] = true
				stack[top].key, stack[top].name = false, name
				continue
			}
			stack[top].key = true
		}
		switch tok {
		case json.Delim('{'):
			own := len(stack) > 0 && ownMaps[stack[len(stack)-1].name]
			stack = append(stack, level{object: true, key: true, own: own, seen: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
		if len(stack) > 64 {
			return errors.New("nested more than 64 deep")
		}
		if len(stack) == 0 {
			break
		}
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the document")
	}
	return nil
}

// foldName makes names equal that encoding/json takes for the same field. That is more than letters of two cases: the
// Kelvin sign is a k, and the long s an s.
func foldName(name string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}
