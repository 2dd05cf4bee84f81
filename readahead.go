//go:build linux

package container

import (
	"io"
	"sync"
)

// This file joins the stages of unpacking a layer: receive, decompress, write. Each stage runs in a goroutine
// of its own and hands full buffers to the next.

// Buffers per stage, and their size. Two stages and four layers at a time make 8 MiB.
const (
	aheadBuffers    = 4
	aheadBufferSize = 256 << 10
)

var aheadPool = sync.Pool{New: func() any { return new([aheadBufferSize]byte) }}

type aheadBlock struct {
	buf *[aheadBufferSize]byte
	n   int
	err error // after the data; io.EOF at the end
}

// aheadReader reads from a source in another goroutine, ahead of its user.
type aheadReader struct {
	full chan aheadBlock
	stop chan struct{}
	done sync.WaitGroup

	cur  aheadBlock
	rest []byte
}

// readAhead starts to read r. If see is not nil, it is given all data, in the reading goroutine. Close must
// be called; whoever calls it makes sure that a pending Read of r returns.
func readAhead(r io.Reader, see func([]byte)) *aheadReader {
	a := &aheadReader{full: make(chan aheadBlock, aheadBuffers-2), stop: make(chan struct{})}
	a.done.Go(func() {
		defer close(a.full)
		for {
			b := aheadBlock{buf: aheadPool.Get().(*[aheadBufferSize]byte)}
			for b.n < len(b.buf) && b.err == nil {
				var n int
				n, b.err = r.Read(b.buf[b.n:])
				b.n += n
			}
			if see != nil && b.n > 0 {
				see(b.buf[:b.n])
			}
			select {
			case a.full <- b:
			case <-a.stop:
				aheadPool.Put(b.buf)
				return
			}
			if b.err != nil {
				return
			}
		}
	})
	return a
}

func (a *aheadReader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		a.release()
		b, ok := <-a.full
		if !ok {
			return 0, io.ErrClosedPipe
		}
		a.cur, a.rest = b, b.buf[:b.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *aheadReader) release() {
	if a.cur.buf != nil {
		aheadPool.Put(a.cur.buf)
	}
	a.cur, a.rest = aheadBlock{}, nil
}

// Close stops the reading goroutine, waits for it, and gives the buffers back.
func (a *aheadReader) Close() error {
	close(a.stop)
	for b := range a.full {
		aheadPool.Put(b.buf)
	}
	a.done.Wait()
	a.release()
	return nil
}
