//go:build linux

package container

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"
)

// This file brings one layer into the store: one stream from the source to the files.

// layerJob is one layer on its way into the store.
type layerJob struct {
	*pullJob
	blob         descriptor
	diffID       digest
	index, count int

	received  int64
	lastEvent time.Time
}

func (l *layerJob) run(ctx context.Context, src imageSource) (*layerMeta, error) {
	meta, err := l.store.haveLayer(l.diffID)
	if meta != nil || err != nil {
		l.event(PhaseExists)
		return meta, err
	}
	lock, err := l.store.lockLayer(ctx, l.diffID, func() { l.event(PhaseWaiting) })
	if err != nil {
		return nil, err
	}
	defer lock.unlock()
	at("layer: locked")
	// Somebody else may have brought it in while we waited.
	meta, err = l.store.haveLayer(l.diffID)
	if meta != nil || err != nil {
		l.event(PhaseExists)
		return meta, err
	}
	// A mismatch may be a proxy's or a wire's mistake: once more, from the start, and no oftener.
	for try := 0; ; try++ {
		meta, err = l.fetch(ctx, src)
		if err == nil || try > 0 || !errors.Is(err, ErrDigestMismatch) || ctx.Err() != nil {
			break
		}
		l.log.Warn("layer is fetched again", "image", l.name, "layer", l.diffID, "error", err)
	}
	if err == nil {
		l.event(PhaseDone)
	}
	return meta, err
}

// fetch receives, verifies and commits the layer.
func (l *layerJob) fetch(ctx context.Context, src imageSource) (meta *layerMeta, err error) {
	st, err := l.store.newStage()
	if err != nil {
		return nil, err
	}
	defer func() {
		if derr := st.discard(); err == nil && derr != nil {
			err = derr
		}
	}()
	root, err := st.openRoot()
	if err != nil {
		return nil, err
	}
	defer closeFD(root)
	meta, err = l.unpack(ctx, src, root)
	if err != nil {
		return nil, err
	}
	at("layer: unpacked")
	if meta.SkippedDevices+meta.SkippedXattrs > 0 {
		l.log.Info("left out of a layer", "image", l.name, "layer", l.diffID, "devices", meta.SkippedDevices, "xattrs", meta.SkippedXattrs)
	}
	meta.DiffID, meta.Unpacker = l.diffID, unpackerVersion
	meta.durability = untilBoot()
	if err := st.setOwners(ctx, meta); err != nil {
		return nil, err
	}
	at("layer: owned")
	return meta, st.commit(meta)
}

// unpack writes the layer's files below root, and verifies everything.
func (l *layerJob) unpack(ctx context.Context, src imageSource, root int) (*layerMeta, error) {
	ctx, cancel := context.WithCancel(ctx)
	body, want, err := src.layer(ctx, l.blob)
	if err != nil {
		cancel()
		return nil, err
	}
	// Deferred calls run in reverse: first reads are called off, then the stages end, then the body is closed.
	defer body.Close()

	blob := &verifiedReader{r: body, want: want, hash: sha256.New()}
	l.received = 0
	l.event(PhaseDownload)
	received := readAhead(blob, func(b []byte) {
		l.received += int64(len(b))
		if time.Since(l.lastEvent) > 100*time.Millisecond {
			l.event(PhaseDownload)
		}
	})
	defer received.Close()
	defer cancel()

	meta, err := l.unpackStream(ctx, received, root)
	if meta != nil {
		meta.Blob, meta.BlobSize = want.Digest, want.Size
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		// What cannot be unpacked may not be what was promised: say so then, if finding out is cheap.
		const cheap = 64 << 20
		if errors.Is(err, ErrLimit) || errors.Is(err, ErrUnsupported) || l.blob.Size > cheap {
			return nil, err
		}
		if _, rerr := io.Copy(io.Discard, received); rerr != nil && errors.Is(rerr, ErrDigestMismatch) {
			return nil, fmt.Errorf("%w (%w)", rerr, err)
		}
		return nil, err
	}
	// The decompressor stops at the end of its data, the digest is that of the whole.
	if _, err := io.Copy(io.Discard, received); err != nil {
		return nil, err
	}
	return meta, nil
}

// unpackStream decompresses and unpacks what has been received, and verifies the diff id.
func (l *layerJob) unpackStream(ctx context.Context, received io.Reader, root int) (*layerMeta, error) {
	limits := l.opt.Limits
	z, err := decompress(received, limits.Window)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	// Headers and padding come on top of the files' bytes.
	bound := &boundedReader{r: z, limit: limits.Bytes + limits.Entries*1024, what: "the unpacked layer"}
	if limits.Ratio > 0 {
		bound.limit = min(bound.limit, 64<<20+limits.Ratio*max(l.blob.Size, 0))
	}
	ahead := readAhead(bound, nil)
	defer ahead.Close()
	plain := &hashedReader{r: ahead, hash: sha256.New()}
	meta, err := unpackLayer(ctx, root, plain, l.store.config.Ownership, limits)
	if err != nil {
		return nil, err
	}
	// Padding after the end of the tar is part of the diff id, and never looked at.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, err
	}
	if got := sumDigest(plain.hash.Sum(nil)); got != l.diffID {
		return nil, fmt.Errorf("%w: the unpacked layer has diff id %s, the configuration promises %s", ErrDigestMismatch, got, l.diffID)
	}
	return meta, nil
}

// event tells the caller how far the layer is.
func (l *layerJob) event(phase PullPhase) {
	if l.opt.Progress == nil {
		return
	}
	l.progress.Lock()
	defer l.progress.Unlock()
	l.lastEvent = time.Now()
	l.opt.Progress(PullProgress{
		Reference: l.name, Layer: string(l.diffID), Phase: phase,
		Bytes: l.received, Total: l.blob.Size, Index: l.index, Count: l.count,
	})
}
