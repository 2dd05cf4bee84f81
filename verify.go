//go:build linux

package container

import (
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/sys/unix"
)

// This file holds readers that count and hash.

// verifiedReader reads a blob and ends with io.EOF only if size and digest are those of the descriptor.
// A descriptor without a digest, of an archive that has none, is compared by size.
type verifiedReader struct {
	r    io.Reader
	want descriptor
	hash hash.Hash
	n    int64
	err  error
}

func (v *verifiedReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	if v.n > v.want.Size {
		v.err = fmt.Errorf("%w: the blob %s is longer than the %d bytes promised", ErrDigestMismatch, v.want.Digest, v.want.Size)
		return 0, v.err
	}
	v.hash.Write(p[:n])
	if err == io.EOF {
		if v.n != v.want.Size {
			err = fmt.Errorf("%w: the blob %s has %d bytes, %d were promised", ErrDigestMismatch, v.want.Digest, v.n, v.want.Size)
		} else if got := sumDigest(v.hash.Sum(nil)); v.want.Digest != "" && got != v.want.Digest {
			err = fmt.Errorf("%w: received %s instead of %s", ErrDigestMismatch, got, v.want.Digest)
		}
	}
	v.err = err
	return n, err
}

// hashedReader hashes what is read.
type hashedReader struct {
	r    io.Reader
	hash hash.Hash
}

func (h *hashedReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.hash.Write(p[:n])
	return n, err
}

// failingReader remembers how reading has failed.
type failingReader struct {
	r   io.Reader
	err error
}

func (f *failingReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// tarError is the error of a tar that is read from f: what could not be read says so itself, all else is the tar's fault. The
// package archive/tar has errors for that without a type.
func (f *failingReader) tarError(err error) error {
	if f.err == nil && !errors.Is(err, ErrInvalidImage) {
		err = fmt.Errorf("%w: %w", ErrInvalidImage, err)
	}
	return fmt.Errorf("read the layer's tar: %w", err)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// boundedReader fails with ErrLimit beyond the limit.
type boundedReader struct {
	r     io.Reader
	n     int64
	limit int64
	what  string
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.n += int64(n); b.n > b.limit {
		return 0, fmt.Errorf("%w: %s is larger than %d bytes", ErrLimit, b.what, b.limit)
	}
	return n, err
}

// readBounded reads all of r, at most limit bytes.
func readBounded(r io.Reader, limit int64, what string) ([]byte, error) {
	return io.ReadAll(&boundedReader{r: r, limit: limit, what: what})
}

func closeFD(fd int) { unix.Close(fd) }
