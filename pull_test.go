//go:build linux

package container

import (
	"context"
	"errors"
	"math/rand"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
)

func unixTime(sec int64) time.Time { return time.Unix(sec, 0) }

// imagePull pulls and fails the test if that fails.
func imagePull(t testing.TB, s *Store, ref string, opt *PullOptions) *Image {
	t.Helper()
	img, err := s.Pull(context.Background(), ref, opt)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImagePull(t *testing.T) {
	g := newImageRegistry(t)
	config := map[string]any{
		"Entrypoint": []string{"/bin/sh", "-c"}, "Cmd": []string{"true"}, "Env": []string{"A=b"},
		"User": "nobody", "WorkingDir": "/srv", "StopSignal": "SIGINT", "Labels": map[string]string{"k": "v", "K": "w"},
	}
	lower := imageTar(t, imageDir("etc/", 0o755), imageFile("etc/passwd", "root\n"), imageFile("etc/old", ""))
	upper := imageTar(t, imageDir("etc/", 0o755), imageFile("etc/.wh.old", ""), imageFile("etc/new", "new"))
	want := g.add("v1", g.build(config, lower, upper, lower))
	s := imageStore(t, nil)

	var phases []PullPhase
	img := imagePull(t, s, g.ref("v1"), &PullOptions{Progress: func(p PullProgress) { phases = append(phases, p.Phase) }})
	if img.Digest != want {
		t.Errorf("digest %s, want %s", img.Digest, want)
	}
	if len(img.Root().Layers) != 2 || img.Root().Access != CopyOnWrite {
		t.Errorf("root %+v", img.Root())
	}
	// The lowest layer is the highest one again, and left out.
	if b, err := os.ReadFile(img.Root().Layers[0] + "/etc/new"); string(b) != "new" {
		t.Errorf("etc/new: %q, %v", b, err)
	}
	if p := img.Process(); strings.Join(p.Args, " ") != "/bin/sh -c true" || p.User != "nobody" || p.Cwd != "/srv" || p.Env[0] != "A=b" {
		t.Errorf("process %+v", p)
	}
	if p := img.Process("id"); strings.Join(p.Args, " ") != "/bin/sh -c id" {
		t.Errorf("args %q", p.Args)
	}
	if n := g.blobRequests(); n != 3 { // a configuration, two different layers
		t.Errorf("%d requests for blobs, want 3", n)
	}
	if len(phases) < 4 || phases[len(phases)-1] != PhaseDone {
		t.Errorf("phases %q", phases)
	}

	// A second pull asks nobody, and neither does a store that is opened again.
	before := len(g.requests)
	imagePull(t, s, g.ref("v1"), nil)
	again, err := OpenStore(s.Dir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	imagePull(t, again, g.ref("v1"), &PullOptions{Policy: PullNever})
	if n := len(g.requests) - before; n != 0 {
		t.Errorf("%d requests of pulls that had nothing to ask for", n)
	}
	// Always: the manifest is asked for, the layers are not.
	blobs := g.blobRequests()
	imagePull(t, s, g.ref("v1"), &PullOptions{Policy: PullAlways})
	if len(g.requests) == before || g.blobRequests() != blobs {
		t.Errorf("PullAlways: requests %q", g.requests[before:])
	}
	imagePull(t, s, strings.TrimSuffix(g.ref(""), ":")+"@"+want, nil)
}

func TestImagePullErrors(t *testing.T) {
	g := newImageRegistry(t)
	layer := imageTar(t, imageFile("f", strings.Repeat("content ", 1000)))
	g.add("good", g.build(nil, layer))
	breakImage := func(tag string, f func(p *imageParts)) {
		p := g.build(nil, layer)
		f(p)
		g.add(tag, p)
	}
	layerOf := func(p *imageParts) map[string]any { return p.manifest["layers"].([]any)[0].(map[string]any) }
	breakImage("size", func(p *imageParts) { layerOf(p)["size"] = 10 })
	breakImage("long", func(p *imageParts) { layerOf(p)["size"] = 1 << 20 })
	breakImage("content", func(p *imageParts) {
		d := "sha256:" + strings.Repeat("ab", 32)
		g.blobs[d] = g.blobs[layerOf(p)["digest"].(string)]
		layerOf(p)["digest"] = d
	})
	breakImage("diffid", func(p *imageParts) {
		p.config["rootfs"] = map[string]any{"diff_ids": []string{"sha256:" + strings.Repeat("ab", 32)}}
	})
	breakImage("count", func(p *imageParts) { p.config["rootfs"] = map[string]any{"diff_ids": []string{}} })
	breakImage("traversal", func(p *imageParts) { layerOf(p)["digest"] = "sha256:../../x" })
	breakImage("upper", func(p *imageParts) { layerOf(p)["digest"] = "sha256:" + strings.Repeat("AB", 32) })
	breakImage("sha512", func(p *imageParts) { layerOf(p)["digest"] = "sha512:" + strings.Repeat("ab", 64) })
	breakImage("both", func(p *imageParts) { p.manifest["manifests"] = []any{} })
	breakImage("called", func(p *imageParts) { p.manifest["mediaType"] = mediaOCIIndex })
	breakImage("arch", func(p *imageParts) { p.config["architecture"] = "s390x" })
	g.addManifest("schema1", mediaDockerSchema1+"+prettyjws", []byte(`{"schemaVersion":1,"fsLayers":[]}`))
	g.addManifest("twice", mediaOCIManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[],"Layers":[]}`))
	g.addManifest("rest", mediaOCIManifest, []byte(`{"schemaVersion":2,"layers":[]} {}`))
	g.addManifest("huge", mediaOCIManifest, []byte(strings.Repeat(" ", maxManifestSize+1)))
	g.addManifest("other", mediaOCIIndex, map[string]any{"schemaVersion": 2, "manifests": []any{
		map[string]any{"digest": "sha256:" + strings.Repeat("ab", 32), "size": 3, "platform": map[string]string{"os": "linux", "architecture": "s390x"}},
		map[string]any{"digest": "sha256:" + strings.Repeat("cd", 32), "size": 3, "platform": map[string]string{"os": "unknown", "architecture": "unknown"}},
	}})
	breakImage("noblob", func(p *imageParts) { layerOf(p)["digest"] = "sha256:" + strings.Repeat("01", 32) })
	closed := newImageRegistry(t)
	closedRef := closed.ref("v1")
	closed.Close()

	for _, tc := range []struct {
		name, ref string
		opt       *PullOptions
		is        error
		say       []string
	}{
		{name: "missing", ref: g.ref("missing"), is: ErrImageNotFound, say: []string{"check the name"}},
		{name: "never", ref: g.ref("good"), opt: &PullOptions{Policy: PullNever}, is: ErrImageNotFound, say: []string{"PullMissing"}},
		{name: "unreachable", ref: closedRef, say: []string{"cannot reach", "check the address"}},
		{name: "bad name", ref: "UPPER CASE", is: ErrInvalidImage, say: []string{"oci-archive:"}},
		{name: "bad policy", ref: g.ref("good"), opt: &PullOptions{Policy: "maybe"}, is: ErrInvalidConfig},
		{name: "bad platform", ref: g.ref("good"), opt: &PullOptions{Platform: "linux"}, say: []string{"os/architecture"}},
		{name: "size", ref: g.ref("size"), is: ErrDigestMismatch},
		{name: "long", ref: g.ref("long"), is: ErrDigestMismatch, say: []string{"layer 1 of 1"}},
		{name: "content", ref: g.ref("content"), is: ErrDigestMismatch, say: []string{"layer 1 of 1"}},
		{name: "diffid", ref: g.ref("diffid"), is: ErrDigestMismatch, say: []string{"diff id"}},
		{name: "count", ref: g.ref("count"), is: ErrInvalidImage},
		{name: "traversal", ref: g.ref("traversal"), is: ErrInvalidImage},
		{name: "upper", ref: g.ref("upper"), is: ErrInvalidImage},
		{name: "sha512", ref: g.ref("sha512"), is: ErrInvalidImage},
		{name: "both", ref: g.ref("both"), is: ErrInvalidImage},
		{name: "called", ref: g.ref("called"), is: ErrInvalidImage},
		{name: "arch", ref: g.ref("arch"), is: ErrNoPlatform, say: []string{"set Platform to linux/s390x"}},
		{name: "schema1", ref: g.ref("schema1"), is: ErrInvalidImage, say: []string{"schema 1"}},
		{name: "twice", ref: g.ref("twice"), is: ErrInvalidImage, say: []string{"twice"}},
		{name: "rest", ref: g.ref("rest"), is: ErrInvalidImage},
		{name: "huge", ref: g.ref("huge"), is: ErrLimit},
		{name: "other", ref: g.ref("other"), is: ErrNoPlatform, say: []string{"offered linux/s390x ("}},
		{name: "layers", ref: g.ref("good"), opt: &PullOptions{Limits: ImageLimits{Bytes: 10}}, is: ErrLimit, say: []string{"raise Limits"}},
		{name: "noblob", ref: g.ref("noblob"), is: ErrImageNotFound, say: []string{"push it again"}},
		{name: "pinned", ref: strings.TrimSuffix(g.ref(""), ":") + "@sha256:" + strings.Repeat("ef", 32), is: ErrImageNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := imageStore(t, nil)
			start := time.Now()
			img, err := s.Pull(context.Background(), tc.ref, tc.opt)
			if err == nil {
				t.Fatalf("no error; image %+v", img)
			}
			var e *Error
			if !errors.As(err, &e) || e.Path != tc.ref {
				t.Errorf("error %v does not name the image", err)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v is not %v", err, tc.is)
			}
			for _, text := range tc.say {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q does not say %q", err, text)
				}
			}
			if time.Since(start) > 30*time.Second {
				t.Errorf("took %v", time.Since(start))
			}
			imageStoreEmpty(t, s)
		})
	}
}

// imageStoreEmpty checks that a failed pull has left nothing.
func imageStoreEmpty(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{"ingest", "layers", "images", "refs"} {
		entries, err := os.ReadDir(s.Dir() + "/" + dir)
		if err != nil || len(entries) > 0 {
			t.Errorf("%s has %d entries, %v", dir, len(entries), err)
		}
	}
}

// A pull by digest must get what it asked for, whatever the registry sends.
func TestImagePinned(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
	pin := "sha256:" + strings.Repeat("ab", 32)
	g.manifests[pin], g.types[pin] = g.manifests["v1"], mediaOCIManifest
	_, err := imageStore(t, nil).Pull(context.Background(), strings.TrimSuffix(g.ref(""), ":")+"@"+pin, nil)
	if !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("error %v", err)
	}
}

// A body that breaks off is continued, from a registry that knows ranges and from one that does not.
func TestImageResume(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		g := newImageRegistry(t)
		content := make([]byte, 1<<20)
		rand.New(rand.NewSource(1)).Read(content)
		g.add("v1", g.build(nil, imageTar(t, imageFile("f", string(content)))))
		var asked []string // ranges
		g.hook = func(w http.ResponseWriter, r *http.Request) bool {
			b := g.blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
			if len(b) < 4096 {
				return false
			}
			asked = append(asked, r.Header.Get("Range"))
			if !ranges {
				r.Header.Del("Range")
			}
			if len(asked) > 1 {
				return false
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			w.Write(b[:len(b)/2])
			panic(http.ErrAbortHandler)
		}
		img := imagePull(t, imageStore(t, nil), g.ref("v1"), nil)
		if b, err := os.ReadFile(img.Root().Layers[0] + "/f"); err != nil || string(b) != string(content) {
			t.Errorf("content differs, %v", err)
		}
		if len(asked) != 2 || asked[0] != "" || !strings.HasPrefix(asked[1], "bytes=") {
			t.Errorf("ranges %v: asked for %q", ranges, asked)
		}
	}
}

// A registry whose bodies always break off is given up after a bounded number of attempts.
func TestImageTruncated(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", strings.Repeat("x", 1<<16)))))
	asked := 0
	g.hook = func(w http.ResponseWriter, r *http.Request) bool {
		b := g.blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		if len(b) == 0 || b[0] == '{' {
			return false
		}
		asked++
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Write(b[:10])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	s := imageStore(t, nil)
	_, err := s.Pull(context.Background(), g.ref("v1"), nil)
	if err == nil || !strings.Contains(err.Error(), "broke off at byte 10") {
		t.Errorf("error %v", err)
	}
	if asked > 10 {
		t.Errorf("asked %d times", asked)
	}
	imageStoreEmpty(t, s)
}

// A registry that asks for patience gets it.
func TestImageRetryAfter(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
	refused := 0
	g.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if refused++; refused%2 == 0 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	imagePull(t, imageStore(t, nil), g.ref("v1"), nil)
}

func TestImageCancel(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", strings.Repeat("x", 1<<16)))))
	ctx, cancel := context.WithCancel(context.Background())
	block := make(chan struct{})
	defer close(block)
	g.hook = func(w http.ResponseWriter, r *http.Request) bool {
		b := g.blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		if !strings.Contains(r.URL.Path, "/blobs/") || strings.HasPrefix(string(b), "{") {
			return false
		}
		w.Write(b[:10])
		w.(http.Flusher).Flush()
		time.AfterFunc(50*time.Millisecond, cancel)
		select {
		case <-block:
		case <-r.Context().Done():
		}
		return true
	}
	s := imageStore(t, nil)
	_, err := s.Pull(ctx, g.ref("v1"), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	imageStoreEmpty(t, s)
}

// Who waits for another process that fetches a layer, and is stopped, is called off by the context, told who it is, and leaves nothing.
func TestImageLocked(t *testing.T) {
	leak.Check(t)
	g := newImageRegistry(t)
	layer := imageTar(t, imageFile("f", "1"))
	g.add("v1", g.build(nil, layer))
	s := imageStore(t, nil)
	lock := filepath.Join(s.Dir(), "locks", strings.TrimPrefix(imageDigest(layer), "sha256:"))
	pid, end := holdLock(t, lock)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Pull(ctx, g.ref("v1"), &PullOptions{Progress: func(p PullProgress) {
		if p.Phase == PhaseWaiting {
			cancel()
		}
	}})
	wantLocked(t, err, lock, pid)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	imageStoreEmpty(t, s)
	end()
	if _, err := s.Pull(t.Context(), g.ref("v1"), nil); err != nil {
		t.Error(err)
	}
}

// Two pulls of the same image at the same time fetch each layer once.
func TestImageSingleFlight(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", strings.Repeat("x", 1<<20))), imageTar(t, imageFile("g", "2"))))
	a := imageStore(t, nil)
	b, err := OpenStore(a.Dir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	errs := make(chan error, 4)
	for i := range 4 {
		go func() {
			_, err := []*Store{a, b}[i%2].Pull(context.Background(), g.ref("v1"), nil)
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	layers := 0
	for _, r := range g.requests {
		if b := g.blobs[r[strings.LastIndexByte(r, '/')+1:]]; len(b) > 0 && b[0] != '{' {
			layers++
		}
	}
	if layers != 2 {
		t.Errorf("%d layers were fetched, want 2", layers)
	}
}

// What was not synced is valid in one boot only.
func TestImageDurability(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
	for _, sync := range []bool{false, true} {
		s := imageStore(t, &StoreOptions{Sync: sync})
		imagePull(t, s, g.ref("v1"), nil)
		real := bootID
		bootID = func() (string, error) { return "another boot", nil }
		blobs := g.blobRequests()
		imagePull(t, s, g.ref("v1"), nil)
		if pulled := g.blobRequests() > blobs; pulled == sync {
			t.Errorf("sync %v: after a reboot, pulled again: %v", sync, pulled)
		}
		bootID = real
	}
}
