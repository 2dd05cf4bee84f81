//go:build linux

package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file has images whose documents lie: two readings of one document, digests that are no digests, layouts of
// links, what others have left in the store, and configurations that name the host's files.

// A document that is an index to one reader and an image to another.
func TestCVETypeConfusion(t *testing.T) {
	leak.Check(t)
	good := `"sha256:` + strings.Repeat("ab", 32) + `"`
	desc := func(mt string) string { return `{"mediaType":"` + mt + `","digest":` + good + `,"size":3}` }
	image := `"config":` + desc(mediaOCIConfig) + `,"layers":[` + desc(mediaOCILayer) + `]`
	index := `"manifests":[` + desc(mediaOCIManifest) + `]`
	for name, docs := range map[string][]string{
		"CVE_2021_41190": { // both in one
			`{"schemaVersion":2,` + image + `,` + index + `}`,
			`{"schemaVersion":2,"mediaType":"` + mediaOCIManifest + `",` + image + `,` + index + `}`,
			`{"schemaVersion":2,` + image + `,"manifests":null}`,
			`{"schemaVersion":2,` + image + `,"manifests":[]}`,
			`{"schemaVersion":2,` + index + `,"layers":[]}`,
			`{"schemaVersion":2,` + index + `,"config":null}`,
		},
		"GO_2022_0379": { // one that is called the other
			`{"schemaVersion":2,"mediaType":"` + mediaOCIIndex + `",` + image + `}`,
			`{"schemaVersion":2,"mediaType":"` + mediaDockerIndex + `",` + image + `}`,
			`{"schemaVersion":2,"mediaType":"` + mediaOCIManifest + `",` + index + `}`,
			`{"schemaVersion":2,"mediaType":"` + mediaDockerManifest + `",` + index + `}`,
		},
		"names": { // by names that only some take for the same
			`{"schemaVersion":2,` + image + `,"Manifests":[` + desc(mediaOCIManifest) + `]}`,
			`{"schemaVersion":2,` + image + `,"manifestS":[` + desc(mediaOCIManifest) + `]}`,
			`{"schemaVersion":2,` + image + `,"manife\u017fts":[` + desc(mediaOCIManifest) + `]}`,
			`{"schemaVersion":2,` + image + `,"layer\u017f":[]}`,
			`{"schemaVersion":2,` + index + `,"Layers":[]}`,
			`{"schemaVersion":2,` + index + `,"\u006dediatype":"x"}`,
			`{"schemaVersion":2,` + image + `,"layers":[]}`,
			`{"schemaVersion":2,` + image + `,"\u006cayers":[]}`,
			`{"schemaVersion":2,` + image + `,"annotations":{"a":"1"},"Annotations":{"b":"1"}}`,
			`{"schemaVersion":2,"config":{"digest":` + good + `,"Digest":` + good + `,"size":3},"layers":[]}`,
			`{"schemaVersion":2,"config":{"digest":` + good + `,"dige\u017ft":` + good + `,"size":3},"layers":[]}`,
			`{"schemaVersion":2,"config":{"digest":` + good + `,"size":3,"\u017fize":4},"layers":[]}`,
			`{"schemaVersion":2,` + image + `}{"schemaVersion":2,` + index + `}`,
			`{"schemaVersion":1,"fsLayers":[],` + image + `}`,
			`[{"schemaVersion":2,` + image + `}]`, `null`, `""`, ``, "\xef\xbb\xbf{}", `{"schemaVersion":2}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, doc := range docs {
				for _, called := range []string{"", mediaOCIManifest, mediaOCIIndex, "application/json"} {
					if m, err := parseManifest([]byte(doc), called); !errors.Is(err, ErrInvalidImage) {
						t.Errorf("%s, called %q: %+v, %v", doc, called, m, err)
					}
				}
				g := newImageRegistry(t)
				g.addManifest("v1", mediaOCIManifest, []byte(doc))
				s := imageStore(t, nil)
				if _, err := s.Pull(t.Context(), g.ref("v1"), nil); !errors.Is(err, ErrInvalidImage) {
					t.Errorf("pull of %s: %v", doc, err)
				}
				if g.blobRequests() > 0 {
					t.Errorf("%s was believed: %q", doc, g.requests)
				}
				imageStoreEmpty(t, s)
			}
		})
	}
}

// Digests that are no digests, and content that is not that of the digest.
func TestCVEDigests(t *testing.T) {
	leak.Check(t)
	canary := newCanary(t)
	hex := strings.Repeat("ab", 32)
	bad := []string{
		"sha256:../../../../../.." + canary + "/file", "../" + hex, "sha256:" + hex[:63], "sha256:" + hex + "0", "sha256:" + strings.ToUpper(hex), "SHA256:" + hex, "sha256-" + hex, "sha256:" + hex + "\n",
		" sha256:" + hex, "sha256:" + strings.Repeat("/", 64), "sha256:" + strings.Repeat(".", 64), "md5:" + hex[:32], "sha1:" + hex[:40], "sha512:" + hex + hex, "sha256:", ":", "", "sha256", hex, "sha256:" + hex[:62] + "\u00e9",
		"sha256:" + hex[:63] + "g", "sha256:" + hex + "?x=1", "sha256:" + hex + "/../../v2/other/blobs/x", "sha256:" + hex[:60] + "%2e%2e",
	}
	layer := imageTar(t, imageFile("f", "1"))
	// A digest becomes a path on the host, and a path of a request with the caller's credentials.
	t.Run("CVE_2024_3727", func(t *testing.T) {
		for _, d := range bad {
			for where, f := range map[string]func(p *imageParts){
				"layer":   func(p *imageParts) { p.manifest["layers"].([]any)[0].(map[string]any)["digest"] = d },
				"diff id": func(p *imageParts) { p.config["rootfs"] = map[string]any{"diff_ids": []string{d}} },
			} {
				g := newImageRegistry(t)
				p := g.build(nil, layer)
				f(p)
				g.add("v1", p)
				s := imageStore(t, nil)
				if _, err := s.Pull(t.Context(), g.ref("v1"), nil); !errors.Is(err, ErrInvalidImage) {
					t.Errorf("%s %q: %v", where, d, err)
				}
				imageStoreEmpty(t, s)
				for _, r := range g.requests {
					if len(d) > 20 && strings.Contains(r, d) {
						t.Errorf("%q was asked for: %s", d, r)
					}
				}
			}
			g := newImageRegistry(t)
			g.addManifest("v1", mediaOCIIndex, map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{"digest": d, "size": 3}}})
			if _, err := imageStore(t, nil).Pull(t.Context(), g.ref("v1"), nil); !errors.Is(err, ErrInvalidImage) {
				t.Errorf("index %q: %v", d, err)
			}
			if _, err := imageStore(t, nil).Pull(t.Context(), strings.TrimSuffix(g.ref(""), ":")+"@"+d, nil); err == nil || len(g.requests) > 3 {
				t.Errorf("reference %q: %v, %q", d, err, g.requests)
			}
		}
	})
	// The reference names a digest, the registry sends something else, which is right in itself.
	t.Run("GO_2024_3038", func(t *testing.T) {
		g := newImageRegistry(t)
		evil := g.add("v1", g.build(map[string]any{"Cmd": []string{"evil"}}, layer))
		pin := "sha256:" + hex
		for _, header := range []string{"", pin, evil} {
			g.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/manifests/"+pin) {
					return false
				}
				w.Header().Set("Docker-Content-Digest", header)
				w.Header().Set("Content-Type", mediaOCIManifest)
				w.Write(g.manifests[evil])
				return true
			}
			s := imageStore(t, nil)
			if _, err := s.Pull(t.Context(), strings.TrimSuffix(g.ref(""), ":")+"@"+pin, nil); !errors.Is(err, ErrDigestMismatch) {
				t.Errorf("%q: %v", header, err)
			}
			imageStoreEmpty(t, s)
		}
	})
	// Each part is exchanged, with one of the same size, a shorter and a longer one; by a proxy with and without ranges.
	for id, kinds := range map[string][]string{"CVE_2026_33542": {"config", "layer"}, "CVE_2026_48769": {"manifest"}} {
		t.Run(id, func(t *testing.T) {
			for _, kind := range kinds {
				for i, change := range []func(b []byte) []byte{
					func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, func(b []byte) []byte { return append(b, ' ') }, func(b []byte) []byte { return append(b, b...) },
					func(b []byte) []byte { return b[:len(b)-1] }, func(b []byte) []byte { return nil },
				} {
					if i >= 3 && kind != "manifest" {
						continue // the rest is waited for, see TestImageTruncated
					}
					for _, length := range []bool{true, false} {
						g := newImageRegistry(t)
						p := g.build(nil, layer)
						m := g.add("inner", p)
						g.addManifest("v1", mediaOCIIndex, map[string]any{"schemaVersion": 2, "manifests": []any{map[string]any{"mediaType": mediaOCIManifest, "digest": m, "size": len(g.manifests[m])}}})
						target := map[string]string{"manifest": m, "config": p.manifest["config"].(map[string]any)["digest"].(string), "layer": p.manifest["layers"].([]any)[0].(map[string]any)["digest"].(string)}[kind]
						g.hook = func(w http.ResponseWriter, r *http.Request) bool {
							if !strings.HasSuffix(r.URL.Path, target) {
								return false
							}
							b := change(bytes.Clone(append(g.manifests[target], g.blobs[target]...)))
							if w.Header().Set("Content-Type", mediaOCIManifest); !length {
								w.(http.Flusher).Flush()
							}
							w.Write(b)
							return true
						}
						s := imageStore(t, nil)
						_, err := s.Pull(t.Context(), g.ref("v1"), nil)
						if err == nil || kind != "layer" && !errors.Is(err, ErrDigestMismatch) {
							t.Errorf("%s: %v", kind, err)
						}
						imageStoreEmpty(t, s)
						if len(g.requests) > 40 {
							t.Errorf("%s: %d requests", kind, len(g.requests))
						}
					}
				}
			}
		})
	}
	// A part of a blob where all of it was asked for, another part than was asked for, and redirects without an end.
	t.Run("ranges and loops", func(t *testing.T) {
		for _, contentRange := range []string{"bytes 0-9/10", "bytes 5-9/10", "", "bytes */*", "bytes 18446744073709551615-1/1"} {
			g := newImageRegistry(t)
			g.add("v1", g.build(nil, layer))
			g.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				w.Header().Set("Content-Range", contentRange)
				w.WriteHeader(http.StatusPartialContent)
				w.Write(g.blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]])
				return true
			}
			ctx, cancel := context.WithCancel(t.Context())
			s := imageStore(t, nil)
			if _, err := s.Pull(ctx, g.ref("v1"), nil); err == nil {
				t.Errorf("%q: no error", contentRange)
			}
			cancel()
			imageStoreEmpty(t, s)
		}
		g := newImageRegistry(t)
		g.hook = func(w http.ResponseWriter, r *http.Request) bool { return redirect(w, r, g.URL+r.URL.Path+"x", 307) }
		if _, err := imageStore(t, nil).Pull(t.Context(), g.ref("v1"), nil); err == nil || len(g.requests) > 20 {
			t.Errorf("%v, %d requests", err, len(g.requests))
		}
	})
}

// Layouts and archives whose files are links to the host's.
func TestCVELayoutLinks(t *testing.T) {
	leak.Check(t)
	canary := newCanary(t)
	victim := t.TempDir()
	imageLayout(t, victim, imageTar(t, imageFile("secret", "s3cret"))) // an image that is none of the attacker's
	for id, links := range map[string]map[string]string{
		"CVE_2026_48749": {"index.json": victim + "/index.json"},
		"CVE_2026_48750": {"blobs": victim + "/blobs", "index.json": victim + "/index.json"},
		"CVE_2026_48752": {"blobs/sha256": victim + "/blobs/sha256"},
		"CVE_2015_1340":  {"index.json": up + canary[1:] + "/private"},
		"ggcr_2306":      {"*": victim},
		"relative":       {"*": "../" + filepath.Base(victim)},
		"fifo":           {"index.json": canary + "/fifo"},
		"device":         {"index.json": "/dev/zero"},
	} {
		t.Run(id, func(t *testing.T) {
			dir := filepath.Join(filepath.Dir(victim), "evil-"+id)
			imageLayout(t, dir, imageTar(t, imageFile("secret", "s3cret")))
			for name, to := range links {
				if name == "*" { // each blob by itself
					blobs, _ := filepath.Glob(dir + "/blobs/sha256/*")
					for _, b := range blobs {
						target := to + strings.TrimPrefix(b, dir)
						if !strings.HasPrefix(to, "/") {
							target = "../../" + target
						}
						if err := errors.Join(os.Remove(b), os.Symlink(target, b)); err != nil {
							t.Fatal(err)
						}
					}
					continue
				}
				if err := errors.Join(os.RemoveAll(dir+"/"+name), os.Symlink(to, dir+"/"+name)); err != nil {
					t.Fatal(err)
				}
			}
			s := imageStore(t, nil)
			img, err := s.Load(t.Context(), "oci:"+dir, nil)
			if err == nil {
				t.Errorf("it was loaded: %+v", img)
			}
			imageStoreEmpty(t, s)
		})
	}
}

// A docker-archive names its files itself: ids that are paths.
func TestCVE_2014_9358(t *testing.T) {
	leak.Check(t)
	canary := newCanary(t)
	layer := imageTar(t, imageFile("f", "1"))
	config, _ := json.Marshal(map[string]any{"architecture": runtime.GOARCH, "os": "linux", "rootfs": map[string]any{"diff_ids": []string{imageDigest(layer)}}})
	for i, m := range []map[string]any{
		{"Config": up + canary[1:] + "/private", "Layers": []string{"layer.tar"}},
		{"Config": canary + "/private", "Layers": []string{"layer.tar"}},
		{"Config": "config.json", "Layers": []string{canary + "/file"}},
		{"Config": "config.json", "Layers": []string{"link"}},
		{"Config": "config.json", "Layers": []string{"loop"}},
		{"Config": "config.json", "Layers": []string{"/proc/self/fd/0"}},
		{"Config": "config.json", "Layers": []string{"../layer.tar/../../" + canary}},
		{"Config": "config.json", "Layers": []string{}},
	} {
		file := filepath.Join(t.TempDir(), "archive.tar")
		doc, _ := json.Marshal([]any{m})
		b := rawTar(rawFile("manifest.json", string(doc)), rawFile("config.json", string(config)), rawFile("layer.tar", string(layer)), rawLink("link", canary+"/file"),
			rawLink("loop", "loop2"), rawLink("loop2", "loop"), rawFile("repositories", `{"../../x":{"latest":"../../`+canary+`"}}`), rawFile(canary+"/file", "changed"))
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := imageStore(t, nil)
		if _, err := s.Load(t.Context(), "docker-archive:"+file, nil); err == nil {
			t.Errorf("%d was loaded", i)
		} else if secretIn(err.Error()) != "" || strings.Contains(err.Error(), "canary\"") {
			t.Error(err)
		}
		imageStoreEmpty(t, s)
	}
}

// Layers are decompressed by programs of the host, or of the image: here by nobody else. The image and PATH have them ready.
func TestCVE_2014_9357(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	names := []string{"xz", "unxz", "unpigz", "pigz", "gzip", "gunzip", "zstd", "unzstd", "bzip2", "tar", "sh", "docker-credential-desktop", "newuidmap.x"}
	var entries []rawEntry
	for _, n := range names {
		script := "#!/bin/sh\necho $0 >>" + dir + "/executed\n"
		if err := os.WriteFile(filepath.Join(dir, n), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, rawFile("usr/bin/"+n, script))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if out, err := exec.Command("unpigz").CombinedOutput(); err != nil || os.Remove(dir+"/executed") != nil {
		t.Fatalf("the poison does not work: %v, %s", err, out)
	}
	for _, blob := range [][]byte{imageGzip(rawTar(entries...)), rawTar(entries...), []byte("\xfd7zXZ\x00\x00\x04" + strings.Repeat("x", 1000)), []byte("BZh91AY&SY" + strings.Repeat("x", 1000))} {
		g := newImageRegistry(t)
		p := g.build(nil, rawTar(entries...))
		p.manifest["layers"] = []any{g.addBlob(blob)}
		g.add("v1", p)
		_, err := imageStore(t, nil).Pull(t.Context(), g.ref("v1"), nil)
		if err != nil && !errors.Is(err, ErrUnsupported) {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(dir + "/executed"); err == nil {
		t.Errorf("was executed: %s", text)
	}
}

// What one image leaves in the store must not become another's: names, documents and layers are bound to content.
func TestCVECachePoisoning(t *testing.T) {
	leak.Check(t)
	layer := imageTar(t, imageFile("f", "good"))
	g := newImageRegistry(t)
	p := g.build(map[string]any{"Cmd": []string{"good"}}, layer)
	want := g.add("v1", p)
	configDigest := p.manifest["config"].(map[string]any)["digest"].(string)
	// An image says that its layer is another's, by digest, diff id or both, and comes first.
	t.Run("CVE_2024_24557", func(t *testing.T) {
		evil := newImageRegistry(t)
		for i, f := range []func(e *imageParts){
			func(e *imageParts) { e.config["rootfs"] = p.config["rootfs"] },
			func(e *imageParts) {
				d := e.manifest["layers"].([]any)[0].(map[string]any)
				good := p.manifest["layers"].([]any)[0].(map[string]any)
				evil.blobs[good["digest"].(string)] = evil.blobs[d["digest"].(string)]
				e.manifest["layers"], e.config["rootfs"] = []any{good}, p.config["rootfs"]
			},
			func(e *imageParts) {
				e.config["rootfs"] = map[string]any{"diff_ids": []string{imageDigest(layer)}}
				e.config["history"] = []any{map[string]any{"created_by": "the same command"}}
			},
		} {
			s := imageStore(t, nil)
			e := evil.build(nil, imageTar(t, imageFile("f", "evil")))
			f(e)
			evil.add("v1", e)
			if _, err := s.Pull(t.Context(), evil.ref("v1"), nil); !errors.Is(err, ErrDigestMismatch) {
				t.Errorf("%d: %v", i, err)
			}
			img := imagePull(t, s, g.ref("v1"), nil)
			if text, err := os.ReadFile(img.Root().Layers[0] + "/f"); string(text) != "good" || err != nil || img.Digest != want {
				t.Errorf("%d: %q, %v", i, text, err)
			}
		}
	})
	// A name of one kind of source that reads like one of another: a directory is taken for a registry's image.
	t.Run("CVE_2026_50195", func(t *testing.T) {
		dir := t.TempDir()
		t.Chdir(dir)
		imageLayout(t, dir+"/5000/image", imageTar(t, imageFile("f", "evil")))
		s := imageStore(t, nil)
		if _, err := s.Load(t.Context(), "oci:5000/image:v1", nil); err != nil {
			t.Fatal(err)
		}
		if img, err := s.Pull(t.Context(), "oci:5000/image:v1", &PullOptions{Policy: PullNever}); !errors.Is(err, ErrImageNotFound) {
			t.Errorf("the registry oci:5000 has the image of a directory: %+v, %v", img, err)
		}
		// And a tag that has been pulled for another platform, or from another registry.
		imagePull(t, s, g.ref("v1"), nil)
		for _, ref := range []string{strings.TrimPrefix(g.ref("v1"), "127.0.0.1"), "localhost" + strings.TrimPrefix(g.ref("v1"), "127.0.0.1"), "test/image:v1", g.ref("v1") + "x"} {
			if img, err := s.Pull(t.Context(), ref, &PullOptions{Policy: PullNever}); err == nil {
				t.Errorf("%s: %+v", ref, img)
			}
		}
		if img, err := s.Pull(t.Context(), g.ref("v1"), &PullOptions{Policy: PullNever, Platform: "linux/s390x"}); err == nil {
			t.Errorf("%+v", img)
		}
	})
	// Entries of the store that are damaged or exchanged are noticed, and fetched again.
	for name, poison := range map[string]func(s *Store, layers string) error{
		"blob": func(s *Store, _ string) error {
			return os.WriteFile(s.Dir()+"/blobs/sha256/"+configDigest[7:], []byte(`{"config":{"Cmd":["evil"]}}`), 0o600)
		},
		"manifest": func(s *Store, _ string) error {
			return os.WriteFile(s.Dir()+"/blobs/sha256/"+want[7:], []byte(`{}`), 0o600)
		},
		"name": func(s *Store, _ string) error {
			return s.writeRef(&refRecord{Reference: "another", Manifest: digest(want)})
		},
		"name that leads out": func(s *Store, _ string) error {
			names, _ := filepath.Glob(s.Dir() + "/refs/*")
			return os.WriteFile(names[0], []byte(`{"reference":"`+g.ref("v1")+`","manifest":"sha256:../../x"}`), 0o600)
		},
		"image of another digest": func(s *Store, _ string) error {
			text, err := os.ReadFile(s.Dir() + "/images/" + want[7:] + ".json")
			return errors.Join(err, os.WriteFile(s.Dir()+"/images/"+want[7:]+".json", bytes.Replace(text, []byte(want), []byte(configDigest), 1), 0o600))
		},
		"image with a layer that leads out": func(s *Store, _ string) error {
			return os.WriteFile(s.Dir()+"/images/"+want[7:]+".json", []byte(`{"manifest":"`+want+`","layers":[{"diffID":"sha256:../../../x"}],"durable":true}`), 0o600)
		},
		"layer of another digest": func(s *Store, layer string) error {
			text, err := os.ReadFile(layer + "/meta.json")
			return errors.Join(err, os.WriteFile(layer+"/meta.json", bytes.Replace(text, []byte(filepath.Base(layer)), []byte(want[7:]), 1), 0o600))
		},
		"layer without a tree": func(s *Store, layer string) error { return os.RemoveAll(layer + "/fs") },
	} {
		t.Run("poisoned "+name, func(t *testing.T) {
			s := imageStore(t, nil)
			layer := filepath.Dir(imagePull(t, s, g.ref("v1"), nil).Root().Layers[0])
			if err := poison(s, layer); err != nil {
				t.Fatal(err)
			}
			for _, policy := range []PullPolicy{PullMissing, PullAlways} {
				img := imagePull(t, s, g.ref("v1"), &PullOptions{Policy: policy})
				if text, err := os.ReadFile(img.Root().Layers[0] + "/f"); string(text) != "good" || err != nil || img.Digest != want || fmt.Sprint(img.Config.Cmd) != "[good]" {
					t.Errorf("%q: %q, %v, %+v", policy, text, err, img)
				}
			}
		})
	}
}

// Other users of the machine find setuid programs of images, and directories to write to, below a store.
func TestCVEStorePermissions(t *testing.T) {
	leak.Check(t)
	suid := imageFile("bin/su", "program")
	suid.Mode = 0o6755
	open := imageDir("tmp/", 0o777)
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, suid, open)))
	for id, dir := range map[string]string{"CVE_2021_41103": "", "CVE_2024_25621": "made by somebody else, open to all"} {
		t.Run(id, func(t *testing.T) {
			path := filepath.Join(imageTempDir(t), "store")
			os.Chmod(filepath.Dir(path), 0o755)
			if dir != "" {
				if err := errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o755)); err != nil {
					t.Fatal(err)
				}
			}
			s, err := OpenStore(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			img := imagePull(t, s, g.ref("v1"), nil)
			program := img.Root().Layers[0] + "/bin/su"
			var st unix.Stat_t
			if err := unix.Lstat(program, &st); err != nil || st.Mode != unix.S_IFREG|0o6755 {
				t.Fatalf("%o, %v", st.Mode, err)
			}
			for _, sub := range []string{"layers", "images", "refs", "blobs/sha256", "ingest", "locks"} {
				if info, err := os.Stat(filepath.Join(path, sub)); err != nil || info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s: %v, %v", sub, info.Mode(), err)
				}
			}
			if os.Geteuid() != 0 {
				return // nobody to be
			}
			for _, name := range []string{program, filepath.Dir(program), img.Root().Layers[0] + "/tmp", path + "/config.json"} {
				cmd := exec.Command("/bin/ls", "-l", name)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321, Groups: []uint32{}}}
				if out, err := cmd.CombinedOutput(); err == nil && name != path+"/config.json" {
					t.Errorf("another user sees %s", out)
				}
			}
		})
	}
	t.Run("of another user", func(t *testing.T) {
		testenv.Need(t, testenv.Root)
		dir := imageTempDir(t)
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStore(dir, nil); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("error %v", err)
		}
	})
}

// attackImage pulls an image with busybox and more layers.
func attackImage(t *testing.T, config map[string]any, layers ...[]byte) (*Store, *Image) {
	t.Helper()
	testenv.Need(t, testenv.UserNS, testenv.Overlay, testenv.StaticBusybox)
	busybox, err := os.ReadFile(testenv.LookPath("busybox"))
	if err != nil {
		t.Fatal(err)
	}
	base := rawTar(rawDir("bin"), rawFile("bin/busybox", string(busybox)), rawLink("bin/sh", "busybox"), rawLink("bin/cat", "busybox"), rawLink("bin/ls", "busybox"), rawLink("bin/mount", "busybox"),
		rawLink("bin/pwd", "busybox"), rawLink("bin/grep", "busybox"), rawDir("etc"), rawDir("tmp"))
	g := newImageRegistry(t)
	g.add("v1", g.build(config, append([][]byte{base}, layers...)...))
	s := imageStore(t, &StoreOptions{Ownership: OwnershipSingle})
	return s, imagePull(t, s, g.ref("v1"), nil)
}

// runImage runs an image as it wants to be run.
func runImage(t *testing.T, img *Image, args ...string) (string, error) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Root = img.Root()
	p := img.Process(args...)
	return runIn(t, cfg, p)
}

// Labels and annotations for which some engine does things on the host.
func TestCVELabels(t *testing.T) {
	leak.Check(t)
	canary := newCanary(t)
	for id, labels := range map[string]map[string]string{
		"CVE_2026_53488": {
			"io.containerd.image.exec": "touch " + canary + "/x", "containerd.io/restart.loguri": "binary:///bin/touch?" + canary, "org.opencontainers.image.ref.name": "../../x",
			"run": "podman run --privileged -v /:/host IMAGE", "RUN": "docker run --privileged IMAGE", "INSTALL": "touch " + canary + "/x", "UNINSTALL": "rm -r " + canary, "io.podman.annotations.privileged": "TRUE",
		},
		"CVE_2022_0811": {"io.kubernetes.cri-o.LinkLogs": canary, "io.kubernetes.cri-o.Sysctl": "kernel.shm_rmid_forced=1+kernel.core_pattern=|" + canary, "org.systemd.property.ExecStop": "['touch " + canary + "/x']"},
		"CVE_2024_3154": {"org.systemd.property.SuccessAction": "'poweroff-force'", "run.oci.hooks.stderr": canary + "/file", "run.oci.systemd.subgroup": "../..", "run.oci.keep_original_groups": "1", "run.oci.handler": "krun"},
		"CVE_2024_8676": {"io.kubernetes.cri-o.annotations.checkpoint.name": canary, "org.criu.config": canary + "/file", "com.docker.stack.image": "x"},
		"CVE_2026_53492": {
			"io.kubernetes.cri-o.checkpoint": canary, "org.opencontainers.runc.exec.isolated-cpu-affinity-transition": "x", "module.wasm.image/variant": "compat", "nvidia.com/gpu.deviceplugin": "1",
			"com.nvidia.volumes.needed": "nvidia_driver", "NVIDIA_VISIBLE_DEVICES": "all",
		},
	} {
		t.Run(id, func(t *testing.T) {
			config := map[string]any{"Cmd": []string{"sh", "-c", "cat /proc/self/mountinfo /proc/self/status | grep -c . >/dev/null; ls /; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status"}, "Env": []string{"PATH=/bin"}}
			_, plain := attackImage(t, config)
			config["Labels"] = labels
			config["OnBuild"] = []string{"RUN touch " + canary + "/x"}
			_, marked := attackImage(t, config)
			if !reflect.DeepEqual(plain.Process(), marked.Process()) || plain.Root().Access != marked.Root().Access || !maps.Equal(marked.Config.Labels, labels) {
				t.Errorf("%+v\n%+v", plain.Process(), marked.Process())
			}
			specs := [2][]byte{}
			var out [2]string
			for i, img := range []*Image{plain, marked} {
				cfg := DefaultConfig()
				cfg.Root = Directory("/same")
				spec, err := ToSpec(cfg, img.Process())
				if err != nil {
					t.Fatal(err)
				}
				specs[i], _ = json.Marshal(spec)
				if out[i], err = runImage(t, img); err != nil {
					t.Errorf("%v: %s", err, out[i])
				}
			}
			if !bytes.Equal(specs[0], specs[1]) || out[0] != out[1] || !strings.Contains(out[0], "CapEff") {
				t.Errorf("labels change what is run:\n%s\n%s\n%s\n%s", specs[0], specs[1], out[0], out[1])
			}
		})
	}
}

// Volumes and files of a configuration that are directories of the host's, or links to them: engines copy their
// content into the container, or the container's to the host, before it starts.
func TestCVEVolumes(t *testing.T) {
	leak.Check(t)
	canary := newCanary(t)
	for id, v := range map[string]struct {
		volumes []string
		layer   []rawEntry
	}{
		"CVE_2022_23648": {[]string{"/../../../../../../../../.." + canary, canary, "/..", "/proc", "/../../etc"}, nil},
		"CVE_2025_47290": {[]string{"/vol"}, []rawEntry{rawLink("vol", canary), rawFile("vol/file", "changed")}},
		"CVE_2025_9566":  {[]string{"/vol"}, []rawEntry{rawLink("vol", up+canary[1:]), rawLink("etc/hosts", canary+"/file")}},
		"CVE_2025_4953":  {[]string{"/vol/dir"}, []rawEntry{rawDir("vol"), rawLink("vol/dir", canary+"/dir"), rawLink("vol/file", canary+"/private")}},
		"CVE_2024_1753":  {[]string{"/a/link"}, []rawEntry{rawDir("a"), rawLink("a/link", "/proc/self/cwd"), rawLink("b", "/proc/1/root")}},
	} {
		t.Run(id, func(t *testing.T) {
			volumes := map[string]any{}
			for _, name := range v.volumes {
				volumes[name] = map[string]any{}
			}
			script := "cat " + canary + "/private /vol/private " + up + canary[1:] + "/private; ls " + filepath.Dir(canary) + "; echo x >/vol/new; echo y >>/etc/hosts; echo z >" + canary + "/new; true"
			_, img := attackImage(t, map[string]any{"Entrypoint": []string{"sh", "-c"}, "Cmd": []string{script}, "Env": []string{"PATH=/bin"}, "Volumes": volumes}, rawTar(v.layer...))
			out, err := runImage(t, img)
			if err != nil || strings.Contains(out, "canary") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// A working directory behind a link out of the root is made, or given away, on the host.
func TestCVE_2026_55686_Image(t *testing.T) {
	leak.Check(t)
	canary := newCanary(t)
	user := "1000"
	if os.Geteuid() != 0 {
		user = "" // the only one that is mapped
	}
	for _, cwd := range []string{"/a/link/x", "/a/link", "/a/link/dir/sub", "/a/up/x", "/a/../a/link/y", "/a/magic/" + canary[1:] + "/x"} {
		_, img := attackImage(t, map[string]any{"Cmd": []string{"pwd"}, "Env": []string{"PATH=/bin"}, "WorkingDir": cwd, "User": user},
			rawTar(rawDir("a"), rawLink("a/link", canary), rawLink("a/up", up+canary[1:]), rawLink("a/magic", "/proc/1/root")))
		out, err := runImage(t, img)
		if strings.Contains(out, "unreachable") {
			t.Errorf("%s: %s, %v", cwd, out, err)
		}
		t.Logf("%s: %q, %v", cwd, out, err)
	}
}
