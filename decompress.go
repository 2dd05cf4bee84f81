//go:build linux

package container

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// This file decompresses layers. The format is told by the first bytes, not by the media type:
// registries hold zstd called gzip and gzip called plain tar.

// decompress returns the plain content of r. Close releases what the decompressor holds; it does not
// close r.
func decompress(r io.Reader, window int64) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrInvalidImage, err)
		}
		z.Multistream(false)
		return &gzipReader{z: z, br: br}, nil
	case isZstd(magic):
		z, err := zstd.NewReader(br,
			zstd.WithDecoderConcurrency(1), // layers are the unit of parallel work
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(window)),
			zstd.WithDecoderMaxMemory(uint64(window)))
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrInvalidImage, err)
		}
		return &zstdReader{z}, nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		return nil, fmt.Errorf("%w: the layer is compressed with xz; gzip, zstd and none are supported", ErrUnsupported)
	case bytes.HasPrefix(magic, []byte("BZh")):
		return nil, fmt.Errorf("%w: the layer is compressed with bzip2; gzip, zstd and none are supported", ErrUnsupported)
	}
	return io.NopCloser(br), nil
}

// isZstd knows a frame of RFC 8878, and the frames to skip that may stand in front of it.
func isZstd(magic []byte) bool {
	if len(magic) < 4 {
		return false
	}
	return bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		(magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18}))
}

// gzipReader reads the members of a gzip file one after the other. Some tools pad the last one
// with zeros; the package gzip takes them for a broken member.
type gzipReader struct {
	z    *gzip.Reader
	br   *bufio.Reader
	done bool
}

func (g *gzipReader) Read(p []byte) (int, error) {
	for !g.done {
		n, err := g.z.Read(p)
		switch {
		case err != nil && err != io.EOF:
			return n, fmt.Errorf("%w: gzip: %w", ErrInvalidImage, err)
		case n > 0 || err == nil:
			return n, nil // io.EOF will be found again by the next call
		}
		if err := g.nextMember(); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}

func (g *gzipReader) nextMember() error {
	magic, err := g.br.Peek(2)
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		if err := g.z.Reset(g.br); err != nil {
			return fmt.Errorf("%w: gzip: %w", ErrInvalidImage, err)
		}
		g.z.Multistream(false)
		return nil
	}
	if err != nil && err != io.EOF {
		return err
	}
	for {
		b, err := g.br.ReadByte()
		if err == io.EOF {
			g.done = true
			return nil
		}
		if err != nil {
			return err
		}
		if b != 0 {
			return fmt.Errorf("%w: something follows the gzip data", ErrInvalidImage)
		}
	}
}

func (g *gzipReader) Close() error { return g.z.Close() }

type zstdReader struct{ z *zstd.Decoder }

func (z *zstdReader) Read(p []byte) (int, error) {
	n, err := z.z.Read(p)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = fmt.Errorf("%w: the window of a zstd frame is too large: %w", ErrLimit, err)
	default:
		err = fmt.Errorf("%w: zstd: %w", ErrInvalidImage, err)
	}
	return n, err
}

func (z *zstdReader) Close() error { z.z.Close(); return nil }
