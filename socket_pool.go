//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// This file keeps sockets that were made ahead: a program that makes one costs about as much as one that makes many. It runs in the caller's
// process.

// A socketPool makes sockets in batches: few at first, and more the sooner they are used up.
type socketPool struct {
	make func(ctx context.Context, n int) ([]*os.File, error)

	mu      sync.Mutex
	free    []*os.File
	batch   int
	last    time.Time
	filling *filling // nil: nobody makes any
	closed  bool
}

// A filling is a batch being made.
type filling struct {
	done chan struct{}
	err  error
}

const (
	firstSocketBatch = 4
	maxSocketBatch   = 128
	socketBatchTime  = time.Second // a batch that is used up sooner is followed by a greater one
	socketFillTime   = 10 * time.Second
)

var errPoolClosed = errors.New("the relay has been closed")

// get returns a socket, which is the caller's then.
func (p *socketPool) get(ctx context.Context) (*os.File, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errPoolClosed
		}
		n := len(p.free)
		if n <= p.batch/2 && p.filling == nil {
			p.fill()
		}
		if n > 0 {
			f := p.free[n-1]
			p.free = p.free[:n-1]
			p.mu.Unlock()
			return f, nil
		}
		now := p.filling
		p.mu.Unlock()
		select {
		case <-now.done:
			if now.err != nil {
				return nil, now.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fill has a batch made, in a goroutine. The pool is locked.
func (p *socketPool) fill() {
	if now := time.Now(); now.Sub(p.last) < socketBatchTime {
		p.batch = min(2*p.batch, maxSocketBatch)
	} else {
		p.batch = firstSocketBatch
	}
	f := &filling{done: make(chan struct{})}
	p.filling, p.last = f, time.Now()
	n := p.batch
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), socketFillTime)
		defer cancel()
		files, err := p.make(ctx, n)
		p.mu.Lock()
		defer p.mu.Unlock()
		f.err = err
		if p.closed {
			closers(files).close()
		} else {
			p.free = append(p.free, files...)
		}
		p.filling = nil
		close(f.done)
	}()
}

// close closes those that nobody has got, and waits for who makes more.
func (p *socketPool) close() {
	p.mu.Lock()
	p.closed = true
	files, now := p.free, p.filling
	p.free = nil
	p.mu.Unlock()
	closers(files).close()
	if now != nil {
		<-now.done
	}
}
