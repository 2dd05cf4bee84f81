//go:build linux

package container

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// This file connects a process's standard streams, as os/exec does: files are passed on, for
// anything else there is a pipe and a goroutine that copies. It runs in the caller's process.

// stdioFiles are the process's ends.
type stdioFiles [3]*os.File

// streams are the standard streams of one process.
type streams struct {
	term   *terminal  // with Tty; then there are no files, and nothing is copied here
	files  stdioFiles // the process's ends
	null   *os.File   // of files, where nothing was asked for
	ours   closers    // of files, those to close once the process has them
	parent closers    // our ends of the pipes
	pipes  closers    // what StdinPipe, StdoutPipe and StderrPipe have returned
	copies []copier
	wg     sync.WaitGroup // of the outputs
	in     chan struct{}  // closed when the input has been copied; nil if there is none
	mu     sync.Mutex
	err    error
}

// A copier copies between a pipe and what the caller has given.
type copier struct {
	copy  func() error
	input bool
}

// openStreams makes the pipes. On error nothing is left open.
func openStreams(p *Process) (*streams, error) {
	s := &streams{ours: slices.Clone(p.childEnds), pipes: p.parentEnds}
	if p.Tty {
		s.term = newTerminal(p)
		p.term = s.term
		return s, nil
	}
	err := func() error {
		if err := s.input(p.Stdin); err != nil {
			return err
		}
		if err := s.output(1, p.Stdout); err != nil {
			return err
		}
		if p.Stderr != nil && sameWriter(p.Stdout, p.Stderr) {
			s.files[2] = s.files[1] // one pipe, so that one goroutine writes
			return nil
		}
		return s.output(2, p.Stderr)
	}()
	if err != nil {
		s.abandon()
		return nil, &Error{Op: "standard streams", Err: err}
	}
	return s, nil
}

func (s *streams) input(r io.Reader) error {
	if f, ok := r.(*os.File); r == nil || ok && (f == nil || isNull(f)) {
		return s.devNull(0)
	} else if ok {
		s.files[0] = f
		return nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	s.files[0] = pr
	s.ours = append(s.ours, pr)
	s.parent = append(s.parent, pw)
	s.copies = append(s.copies, copier{input: true, copy: func() error {
		_, err := io.Copy(pw, r)
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) {
			err = nil // the process need not read all of it
		}
		return errors.Join(err, ignoreClosed(pw.Close()))
	}})
	return nil
}

func (s *streams) output(i int, w io.Writer) error {
	if f, ok := w.(*os.File); w == nil || ok && (f == nil || isNull(f)) {
		return s.devNull(i)
	} else if ok {
		s.files[i] = f
		return nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	s.files[i] = pw
	s.ours = append(s.ours, pw)
	s.parent = append(s.parent, pr)
	s.copies = append(s.copies, copier{copy: func() error {
		_, err := io.Copy(w, pr)
		pr.Close() // a process that goes on writing gets SIGPIPE
		return err
	}})
	return nil
}

// devNull opens /dev/null, once for all streams.
func (s *streams) devNull(i int) error {
	if s.null == nil {
		f, err := openNull()
		if err != nil {
			return err
		}
		s.null = f
		s.ours = append(s.ours, f)
	}
	s.files[i] = s.null
	return nil
}

// start closes the process's ends, which it has by now, and starts to copy.
func (s *streams) start() {
	if s.term != nil {
		s.term.start()
		return
	}
	s.ours.close()
	for _, c := range s.copies {
		run := func() {
			if err := c.copy(); err != nil {
				s.fail(err)
			}
		}
		if !c.input {
			s.wg.Go(run)
			continue
		}
		s.in = make(chan struct{})
		go func() {
			defer close(s.in)
			run()
		}()
	}
}

// fail keeps the first error.
func (s *streams) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// processEnded tells that the process has ended; wait comes later.
func (s *streams) processEnded() {
	if s.term != nil {
		s.term.processEnded()
	}
}

// abandon closes everything: the process was not started.
func (s *streams) abandon() {
	if s.term != nil {
		s.term.abandon()
	}
	s.ours.close()
	s.parent.close()
	s.pipes.close()
}

// wait waits until all has been copied: until the last process that holds a pipe has closed it. If
// delay is positive it waits no longer than that, then closes the pipes and returns
// exec.ErrWaitDelay. An input that blocks in the caller's Read is then left to itself: nothing
// could end it.
func (s *streams) wait(delay time.Duration) error {
	if s.term != nil {
		defer s.ours.close() // of StdinPipe and StdoutPipe
		return s.term.wait(delay)
	}
	if len(s.copies) == 0 {
		return nil
	}
	late := make(chan struct{})
	if delay > 0 {
		timer := time.AfterFunc(delay, func() {
			s.fail(exec.ErrWaitDelay)
			s.parent.close()
			close(late)
		})
		defer timer.Stop()
	}
	s.wg.Wait()
	if s.in != nil {
		select {
		case <-s.in:
		case <-late:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
