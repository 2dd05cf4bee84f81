package container

import (
	"errors"
	"io"
	"os"
	"reflect"
)

// This file gives the caller an end of a pipe to the process, as os/exec does.

// StdinPipe returns a pipe to the process's standard input. Call it before the process is started;
// close it when there is no more input. Wait closes it after the process has ended, and so does a
// Run that fails to start it.
func (p *Process) StdinPipe() (io.WriteCloser, error) {
	r, w, err := p.pipe("stdin pipe", p.Stdin != nil)
	if err != nil {
		return nil, err
	}
	p.Stdin = r
	p.childEnds, p.parentEnds = append(p.childEnds, r), append(p.parentEnds, w)
	return w, nil
}

// StdoutPipe returns a pipe from the process's standard output. Call it before the process is
// started, and read to the end before Wait, which closes it; so does a Run that fails to start it.
func (p *Process) StdoutPipe() (io.ReadCloser, error) { return p.outputPipe("stdout pipe", &p.Stdout) }

// StderrPipe returns a pipe from the process's standard error; see StdoutPipe.
func (p *Process) StderrPipe() (io.ReadCloser, error) { return p.outputPipe("stderr pipe", &p.Stderr) }

func (p *Process) outputPipe(op string, stream *io.Writer) (io.ReadCloser, error) {
	r, w, err := p.pipe(op, *stream != nil)
	if err != nil {
		return nil, err
	}
	*stream = w
	p.childEnds, p.parentEnds = append(p.childEnds, w), append(p.parentEnds, r)
	return r, nil
}

func (p *Process) pipe(op string, set bool) (r, w *os.File, err error) {
	switch {
	case set:
		err = errors.New("the stream is set already")
	case p.live != nil:
		err = errors.New("the process has been started")
	default:
		r, w, err = os.Pipe()
	}
	if err != nil {
		return nil, nil, &Error{Op: op, Err: err}
	}
	return r, w, nil
}

// sameWriter compares what can be compared: a structure may hold a slice in an interface.
func sameWriter(a, b io.Writer) bool {
	return a != nil && b != nil && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}
