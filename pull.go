//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// This file brings an image into the store. Where it comes from is behind imageSource: registry.go, and
// load.go for files.
//
// Each layer is one stream:
//
//	receive, hash  ->  decompress  ->  hash, read the tar, write files
//
// in three goroutines. Nothing is believed until both digests are right, and nothing is visible before
// it is believed: the layer is committed by one rename, the image's record comes after its layers, the
// name that points to it comes last.

// imageSource is a place that has an image.
type imageSource interface {
	// root returns the document that the name stands for, manifest or index, and its media type if known.
	root(ctx context.Context) (b []byte, mediaType string, err error)
	// document returns a manifest or a configuration, not verified.
	document(ctx context.Context, d descriptor, limit int64) ([]byte, error)
	// layer opens a layer's blob, not verified. The descriptor returned is what to verify it by: as
	// asked for, or without a digest if the source cannot know that of the blob.
	layer(ctx context.Context, d descriptor) (io.ReadCloser, descriptor, error)
}

// Pull returns the image of a reference ("debian:13", "registry.example.com/app@sha256:..."), after bringing it into the store
// if the policy wants that. Layers that are in the store are not fetched again, and layers
// that are being fetched by others, also in other processes, are waited for.
//
// Errors are of type [*Error] and wrap ErrImageNotFound, ErrUnauthorized, ErrNoPlatform, ErrDigestMismatch,
// ErrInvalidImage or ErrLimit where that is the reason, and ErrLocked when ctx was done while another process fetched a layer.
// When ctx is done, Pull stops, leaves no goroutine, and the store as it was, but for layers that were complete.
func (s *Store) Pull(ctx context.Context, ref string, opt *PullOptions) (*Image, error) {
	img, err := s.pull(ctx, ref, opt)
	if err != nil {
		return nil, imageError("pull", ref, err)
	}
	return img, nil
}

func (s *Store) pull(ctx context.Context, ref string, opt *PullOptions) (*Image, error) {
	if opt == nil {
		opt = &PullOptions{}
	}
	src, err := newRegistrySource(ref, opt)
	if err != nil {
		return nil, err
	}
	p, err := s.newPull(ref, src.ref.Name(), opt)
	if err != nil {
		return nil, err
	}
	lock, err := s.lockShared(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.unlock()
	switch opt.Policy {
	case PullMissing, PullNever:
		img, err := p.stored()
		if img != nil || err != nil {
			return img, err
		}
		if opt.Policy == PullNever {
			return nil, remedy(ErrImageNotFound, "it is not in the store "+s.dir+", and the policy is never to pull; pull it first, or allow it with PullMissing")
		}
	case PullAlways:
	default:
		return nil, fieldErrorf("Policy", "%q is not one of \"\", %q, %q", opt.Policy, PullAlways, PullNever)
	}
	defer src.close()
	return p.run(ctx, src)
}

// Open returns the image of a reference, by Pull, or of one of the sources that Load knows.
func (s *Store) Open(ctx context.Context, source string, opt *PullOptions) (*Image, error) {
	if isTransport(source) {
		return s.Load(ctx, source, opt)
	}
	return s.Pull(ctx, source, opt)
}

// pullJob is one image on its way into the store.
type pullJob struct {
	store      *Store
	name       string // as the caller wrote it
	key        string // by which the store knows it
	acceptable []platform
	opt        PullOptions
	log        *slog.Logger

	progress sync.Mutex // held while the caller's function runs
}

func (s *Store) newPull(name, key string, opt *PullOptions) (*pullJob, error) {
	p := &pullJob{store: s, name: name, key: key, opt: *opt, log: opt.Logger}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if p.acceptable, err = acceptablePlatforms(opt.Platform); err != nil {
		return nil, err
	}
	if opt.Platform != "" {
		p.key += " " + opt.Platform
	}
	l := &p.opt.Limits
	setDefault(&l.Bytes, 64<<30)
	setDefault(&l.Entries, 4_000_000)
	setDefault(&l.Window, 128<<20)
	setDefault(&l.Layers, 500)
	setDefault(&p.opt.Jobs, min(runtime.NumCPU(), 4))
	return p, nil
}

func setDefault[T int | int64](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// stored returns the image if the store has it.
func (p *pullJob) stored() (*Image, error) {
	ref, err := p.store.ref(p.key)
	if ref == nil || err != nil {
		return nil, err
	}
	r, err := p.store.image(ref.Manifest)
	if r == nil || err != nil {
		return nil, err
	}
	p.store.promote(r)
	return p.store.toImage(p.name, r), nil
}

// run brings the image in.
func (p *pullJob) run(ctx context.Context, src imageSource) (*Image, error) {
	root, mediaType, err := src.root(ctx)
	if err != nil {
		return nil, err
	}
	m, raw, err := p.chooseManifest(ctx, src, root, mediaType)
	if err != nil {
		return nil, err
	}
	at("pull: manifest")
	if len(m.Layers) > p.opt.Limits.Layers {
		return nil, fmt.Errorf("%w: %d layers; at most %d", ErrLimit, len(m.Layers), p.opt.Limits.Layers)
	}
	rawConfig, err := p.document(ctx, src, m.Config, maxImageConfigSize)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	config, err := parseConfigFile(rawConfig, m)
	if err != nil {
		return nil, err
	}
	if config.Architecture != "" && !slices.ContainsFunc(p.acceptable, config.platform.fits) {
		return nil, remedy(fmt.Errorf("%w: the image is for %s, not for %s", ErrNoPlatform, config.platform, p.acceptable[0]),
			"set Platform to "+config.platform.String()+" to get it nevertheless")
	}
	r := &imageRecord{
		Manifest:   digestOf(raw),
		Config:     m.Config.Digest,
		Platform:   config.platform,
		Run:        config.Config,
		Created:    time.Now().UTC(),
		durability: untilBoot(),
	}
	metas, err := p.layers(ctx, src, m, config)
	if err != nil {
		return nil, err
	}
	at("pull: layers")
	for _, l := range metas {
		r.Layers = append(r.Layers, imageLayer{l.DiffID, l.Blob, l.BlobSize, l.Bytes, l.OpaqueRoot})
	}
	if err := p.commit(ctx, r, root, raw, rawConfig); err != nil {
		return nil, err
	}
	return p.store.toImage(p.name, r), nil
}

// fits tells whether an image for platform got may be taken where p is acceptable. Configurations often
// leave the variant out.
func (got platform) fits(p platform) bool {
	return got.OS == p.OS && got.Architecture == p.Architecture && (got.Variant == "" || got.Variant == p.Variant)
}

// chooseManifest follows indexes down to the manifest for the platform.
func (p *pullJob) chooseManifest(ctx context.Context, src imageSource, raw []byte, mediaType string) (*manifest, []byte, error) {
	const maxNested = 4
	for range maxNested {
		m, err := parseManifest(raw, mediaType)
		if err != nil {
			return nil, nil, err
		}
		if !m.isIndex() {
			return m, raw, nil
		}
		i := choosePlatform(p.acceptable, m.Manifests)
		if i < 0 {
			// An index of indexes, or of one image, need not say for which platform.
			i = onlyUnlabelled(m.Manifests)
		}
		if i < 0 {
			return nil, nil, remedy(fmt.Errorf("%w: wanted %s, offered %s", ErrNoPlatform, p.acceptable[0], listPlatforms(m.Manifests)),
				"set Platform to one that is offered")
		}
		d := m.Manifests[i]
		if raw, err = p.document(ctx, src, d, maxManifestSize); err != nil {
			return nil, nil, fmt.Errorf("manifest for %s: %w", p.acceptable[0], err)
		}
		mediaType = d.MediaType
	}
	return nil, nil, fmt.Errorf("%w: indexes nested more than %d deep", ErrInvalidImage, maxNested)
}

// onlyUnlabelled returns the only manifest without a platform, or -1.
func onlyUnlabelled(offers []descriptor) int {
	found := -1
	for i, d := range offers {
		switch {
		case d.Platform != nil:
		case found >= 0:
			return -1
		default:
			found = i
		}
	}
	return found
}

// document fetches a document, or takes it from the store, and verifies it.
func (p *pullJob) document(ctx context.Context, src imageSource, d descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("%w: a document of %d bytes; at most %d", ErrLimit, d.Size, limit)
	}
	if d.Digest == "" {
		return nil, fmt.Errorf("%w: a descriptor without a digest", ErrInvalidImage)
	}
	if b, err := p.store.readBlob(d.Digest); err == nil && d.verify(b) == nil {
		return b, nil
	}
	b, err := src.document(ctx, d, limit)
	if err != nil {
		return nil, err
	}
	return b, d.verify(b)
}

// layers brings all layers in, several at a time, the largest first.
func (p *pullJob) layers(ctx context.Context, src imageSource, m *manifest, c *configFile) ([]*layerMeta, error) {
	outer := ctx
	ctx, cancel := context.WithCancelCause(outer)
	defer cancel(nil)
	metas := make([]*layerMeta, len(m.Layers))
	first := map[digest]int{} // layers may come twice
	var order []int
	for i, id := range c.RootFS.DiffIDs {
		if id == "" {
			return nil, fmt.Errorf("%w: a layer without a diff id", ErrInvalidImage)
		}
		if _, ok := first[id]; !ok {
			first[id] = i
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(min(max(m.Layers[b].Size-m.Layers[a].Size, -1), 1)) })

	work := make(chan int, len(order))
	for _, i := range order {
		work <- i
	}
	close(work)
	var workers sync.WaitGroup
	var locked atomic.Pointer[error] // of who was called off while others had a layer
	for range min(p.opt.Jobs, len(order)) {
		workers.Go(func() {
			for i := range work {
				if ctx.Err() != nil {
					return
				}
				l := &layerJob{pullJob: p, blob: m.Layers[i], diffID: c.RootFS.DiffIDs[i], index: i, count: len(m.Layers)}
				meta, err := l.run(ctx, src)
				if err != nil {
					err = fmt.Errorf("layer %d of %d (%s): %w", i+1, len(m.Layers), l.diffID.short(), err)
					if errors.Is(err, ErrLocked) {
						locked.Store(&err)
					}
					cancel(err)
					return
				}
				metas[i] = meta
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		if busy := locked.Load(); busy != nil && outer.Err() != nil {
			return nil, *busy
		}
		return nil, context.Cause(ctx)
	}
	for i, id := range c.RootFS.DiffIDs {
		metas[i] = metas[first[id]]
	}
	return metas, nil
}

// commit writes what was read: documents, the image, and last the name.
func (p *pullJob) commit(ctx context.Context, r *imageRecord, root, raw, rawConfig []byte) error {
	s := p.store
	for _, b := range [][]byte{root, raw, rawConfig} {
		if err := s.writeBlob(b); err != nil {
			return err
		}
		at("pull: document")
	}
	if err := s.writeJSON("images/"+r.Manifest.hex()+".json", r); err != nil {
		return err
	}
	at("pull: image")
	if s.sync {
		if err := s.makeDurable(ctx, r); err != nil {
			return err
		}
	}
	ref := &refRecord{Reference: p.key, Manifest: r.Manifest, Time: r.Created}
	if index := digestOf(root); index != r.Manifest {
		ref.Index = index
	}
	return s.writeRef(ref)
}

// imageError makes the error of Pull and Load.
func imageError(op, name string, err error) error {
	e := &Error{Op: op, Path: name, Err: err}
	var r *remedyError
	switch {
	case errors.As(err, &r):
		e.Remedy = r.remedy
	case errors.Is(err, ErrLimit):
		e.Remedy = "raise Limits if you trust the image"
	case errors.Is(err, fs.ErrPermission) && errors.Is(err, ErrUnauthorized):
		e.Remedy = "give credentials with Keychain, and check the name: registries say this of images that do not exist, too"
	}
	return e
}

// remedyError carries what the user can do to the place where an *Error is made.
type remedyError struct {
	err    error
	remedy string
}

func remedy(err error, text string) error { return &remedyError{err, text} }
func (e *remedyError) Error() string      { return e.err.Error() }
func (e *remedyError) Unwrap() error      { return e.err }

// isTransport tells whether a source is one of Load's.
func isTransport(source string) bool {
	kind, _, ok := strings.Cut(source, ":")
	return ok && slices.Contains([]string{"oci", "oci-archive", "docker-archive", "dir"}, kind)
}
