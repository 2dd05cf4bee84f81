//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// This file fetches documents and blobs from a registry, as the OCI distribution specification says. The
// handshake for credentials is go-containerregistry's; what goes over the wire is watched
// by registry_guard.go. Blobs are fetched here rather than by its package remote, for three things
// that it does not do: a body that breaks off is continued with a range request, a body that stalls is given up, and a
// registry that asks for patience (Retry-After) gets it.

// registrySource is one repository of a registry.
type registrySource struct {
	ref      name.Reference
	keychain authn.Keychain
	base     *http.Transport
	guard    *registryGuard
	log      *slog.Logger

	connect sync.Mutex
	client  *http.Client
}

// Patience of a download.
const (
	stallTimeout   = 60 * time.Second // without one byte
	resumeAttempts = 5                // without progress
	maxRetryAfter  = 30 * time.Second
)

// newRegistrySource reads a reference. It does not use the network.
func newRegistrySource(ref string, opt *PullOptions) (*registrySource, error) {
	var nameOptions []name.Option
	if opt.PlainHTTP {
		nameOptions = append(nameOptions, name.Insecure)
	}
	r, err := name.ParseReference(ref, nameOptions...)
	if err != nil {
		return nil, remedy(fmt.Errorf("%w: %v", ErrInvalidImage, err),
			"write it as [registry[:port]/]name[:tag] or [registry[:port]/]name@sha256:digest, or as oci:DIR, oci-archive:FILE, docker-archive:FILE or dir:DIR")
	}
	if d, ok := r.(name.Digest); ok {
		if _, err := parseDigest(d.DigestStr()); err != nil {
			return nil, err
		}
	}
	for part := range strings.SplitSeq(r.Context().RepositoryStr()+"/"+r.Identifier(), "/") {
		if part == "" || part == "." || part == ".." { // it would be another place of the registry that gets the credentials
			return nil, fmt.Errorf("%w: %q has a component or a tag %q", ErrInvalidImage, ref, part)
		}
	}
	s := &registrySource{ref: r, keychain: opt.Keychain, log: opt.Logger}
	if s.keychain == nil {
		s.keychain = authn.NewMultiKeychain() // anonymous
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	registry := r.Context().Registry
	s.guard = newRegistryGuard(registry.RegistryStr(), opt)
	s.base = s.guard.transport()
	s.guard.inner = s.base
	return s, nil
}

// close gives the connections up.
func (s *registrySource) close() { s.base.CloseIdleConnections() }

// dial makes the handshake with the registry, once.
func (s *registrySource) dial(ctx context.Context) (*http.Client, error) {
	s.connect.Lock()
	defer s.connect.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	repo := s.ref.Context()
	auth, err := authn.Resolve(ctx, s.keychain, repo)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", repo.RegistryStr(), err)
	}
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, &patientTransport{s.guard, s.log}, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, s.explain(err)
	}
	s.client = &http.Client{Transport: t} // which follows up to 10 redirects; the guard sees each
	return s.client, nil
}

// get asks for something of the repository, from an offset on.
func (s *registrySource) get(ctx context.Context, kind, id string, offset int64, accept ...string) (*http.Response, error) {
	client, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	repo := s.ref.Context()
	// The scheme is replaced by that of the handshake.
	u := url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: "/v2/" + repo.RepositoryStr() + "/" + kind + "/" + id}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if len(accept) > 0 {
		req.Header.Set("Accept", strings.Join(accept, ", "))
	}
	// No compression on the way: the bytes are those that the digest is about.
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, s.explain(err)
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		resp.Body.Close()
		if kind == "blobs" && resp.StatusCode == http.StatusNotFound {
			return nil, remedy(fmt.Errorf("%w: %s does not have the blob %s, which the manifest names", ErrImageNotFound, repo.RegistryStr(), id),
				"the image is incomplete, or its layers are at another place by their urls, which are never used; push it again")
		}
		return nil, s.explain(err)
	}
	return resp, nil
}

// root fetches what the reference stands for.
func (s *registrySource) root(ctx context.Context) ([]byte, string, error) {
	resp, err := s.get(ctx, "manifests", s.ref.Identifier(), 0,
		mediaOCIIndex, mediaOCIManifest, mediaDockerIndex, mediaDockerManifest)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := readBounded(resp.Body, maxManifestSize, "the manifest")
	if err != nil {
		return nil, "", s.explain(err)
	}
	if d, ok := s.ref.(name.Digest); ok {
		want := descriptor{Digest: digest(d.DigestStr()), Size: -1}
		if err := want.verify(b); err != nil {
			return nil, "", err
		}
	}
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return b, strings.TrimSpace(mediaType), nil
}

func (s *registrySource) document(ctx context.Context, d descriptor, limit int64) ([]byte, error) {
	kind := "blobs"
	switch d.MediaType {
	case mediaOCIIndex, mediaOCIManifest, mediaDockerIndex, mediaDockerManifest:
		kind = "manifests"
	}
	if kind == "blobs" {
		body, _, err := s.layer(ctx, d)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		return readBounded(body, limit, "the document")
	}
	resp, err := s.get(ctx, kind, string(d.Digest), 0, d.MediaType)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readBounded(resp.Body, limit, "the document")
}

func (s *registrySource) layer(ctx context.Context, d descriptor) (io.ReadCloser, descriptor, error) {
	b := &registryBlob{ctx: ctx, source: s, want: d}
	if err := b.open(); err != nil {
		return nil, d, err
	}
	return b, d, nil
}

// registryBlob is the body of a blob. It goes on after interruptions.
type registryBlob struct {
	ctx    context.Context
	source *registrySource
	want   descriptor

	body   io.ReadCloser
	cancel context.CancelFunc
	stall  *time.Timer
	offset int64 // of the next byte to deliver
	failed int   // attempts since the last byte
}

// open asks for the blob from offset on.
func (b *registryBlob) open() error {
	ctx, cancel := context.WithCancel(b.ctx)
	stall := time.AfterFunc(stallTimeout, cancel)
	resp, err := b.source.get(ctx, "blobs", string(b.want.Digest), b.offset)
	if err != nil {
		stall.Stop()
		cancel()
		return err
	}
	b.body, b.cancel, b.stall = resp.Body, cancel, stall
	if resp.StatusCode == http.StatusPartialContent {
		if b.offset > 0 && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", b.offset)) {
			return nil
		}
		b.Close()
		return fmt.Errorf("the registry sent bytes %q instead of those from %d on", resp.Header.Get("Content-Range"), b.offset)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.want.Size {
		b.Close()
		return fmt.Errorf("%w: the registry sends %d bytes of the blob %s, %d were promised", ErrDigestMismatch, resp.ContentLength, b.want.Digest, b.want.Size)
	}
	// The whole: pass over what has been delivered. If it is not the same, the digest will tell.
	if _, err := io.CopyN(io.Discard, resp.Body, b.offset); err != nil {
		b.Close()
		return err
	}
	return nil
}

func (b *registryBlob) Read(p []byte) (int, error) {
	for {
		if b.body == nil {
			if err := b.resume(); err != nil {
				return 0, err
			}
		}
		n, err := b.body.Read(p)
		b.offset += int64(n)
		if n > 0 {
			b.failed = 0
			b.stall.Reset(stallTimeout)
			if err != io.EOF {
				err = nil // if it is one, the next call will find it again
			}
		}
		short := err == io.EOF && b.offset < b.want.Size
		if err == nil || (err == io.EOF && !short) {
			return n, err
		}
		if short {
			err = io.ErrUnexpectedEOF
		}
		b.Close()
		if cerr := b.failure(err); cerr != nil {
			return n, cerr
		}
		if n > 0 {
			return n, nil
		}
	}
}

// resume opens the blob again, with growing pauses.
func (b *registryBlob) resume() error {
	for {
		select {
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		case <-time.After(100 * time.Millisecond << b.failed):
		}
		err := b.open()
		if err == nil {
			return nil
		}
		if err := b.failure(err); err != nil {
			return err
		}
	}
}

// failure counts one, and returns the error that ends the download, or nil to go on.
func (b *registryBlob) failure(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrImageNotFound) || errors.Is(err, ErrDigestMismatch) {
		return err
	}
	b.failed++
	if b.failed >= resumeAttempts {
		return fmt.Errorf("download broke off at byte %d of %d, after %d attempts: %w", b.offset, b.want.Size, b.failed, err)
	}
	b.source.log.Warn("download is continued", "image", b.source.ref.Name(), "blob", b.want.Digest, "offset", b.offset, "error", err)
	return nil
}

func (b *registryBlob) Close() error {
	if b.body == nil {
		return nil
	}
	b.stall.Stop()
	b.cancel()
	err := b.body.Close()
	b.body = nil
	return err
}

// explain turns an error of the registry or of the network into one that says what to do. URLs, which may
// contain signatures, and the registry's prose are left out.
func (s *registrySource) explain(err error) error {
	host := s.ref.Context().RegistryStr()
	var status *transport.Error
	if errors.As(err, &status) {
		switch status.StatusCode {
		case http.StatusNotFound:
			return remedy(fmt.Errorf("%w on %s", ErrImageNotFound, host), "check the name and the tag")
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("%w %s (HTTP status %d)", ErrUnauthorized, host, status.StatusCode)
		case http.StatusTooManyRequests:
			return remedy(fmt.Errorf("the registry %s takes no more requests for now (HTTP status 429)", host), "wait, or give credentials with Keychain")
		}
		return fmt.Errorf("the registry %s answered with HTTP status %d", host, status.StatusCode)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if strings.Contains(err.Error(), "no token in bearer response") { // and then the response, with whatever tokens it has
		err = errors.New("its token server has answered without a token")
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrUnauthorized):
		return err
	case errors.Is(err, errPlainHTTP):
		return remedy(err, "set PlainHTTP if this registry is meant to be used without encryption")
	case errors.Is(err, syscall.ECONNREFUSED):
		return remedy(fmt.Errorf("cannot reach the registry %s: %w", host, err), "check the address, and that the registry runs")
	}
	return remedy(fmt.Errorf("cannot talk to the registry %s: %w", host, err), "check the name of the registry, the network and the proxy settings")
}
