//go:build linux

package container

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"example.com/container/internal/launch"
)

// This file is the life of a container: New, Load, Run, Wait, State. Its end is in stop.go.

// A Container is a place for processes to run in, and its record on disk. It is safe for concurrent
// use. Any method may return ErrNotExist, since another process may destroy the container.
type Container struct {
	id      string
	cfg     Config
	record  record
	created time.Time // tells it from another of the same id; zero if its record could not be read
	damage  error     // what is wrong with its record

	mu   sync.Mutex
	proc *Process // the first process, if this Container has started it

	fault *launch.Fault // for tests: a call of the launcher that fails
}

// New validates cfg and records a new container in the directory stateDir/id, which it makes with
// mode 0700. It starts nothing. The container keeps a copy of cfg.
//
// It returns ErrInvalidID, ErrExist if there is a container with this id, and all complaints about
// cfg at once, each a *FieldError that wraps ErrInvalidConfig. After an error nothing is left on disk.
//
// A good stateDir is on a file system in memory: a directory of /run, or of $XDG_RUNTIME_DIR.
func New(stateDir, id string, cfg Config) (*Container, error) {
	fail := func(err error) (*Container, error) { return nil, &Error{Op: "new", ID: id, Err: err} }
	if err := validateID(id); err != nil {
		return nil, &Error{Op: "new", Err: err}
	}
	if err := cfg.validate(); err != nil {
		return fail(err)
	}
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return fail(err)
	}
	text, err := json.Marshal(&cfg)
	if err != nil {
		return fail(err)
	}
	if bytes.Contains(text, []byte(`\ufffd`)) { // JSON's for what is not UTF-8, if it is not the caller's own text
		kept := Config{}
		err := json.Unmarshal(text, &kept)
		if kept.Logger = cfg.Logger; err != nil || !reflect.DeepEqual(kept, cfg) {
			return fail(fieldErrorf("Config", "holds a string that is not UTF-8, which its record in JSON cannot keep"))
		}
	}
	c := &Container{id: id, cfg: deepCopy(cfg), record: record{filepath.Join(stateDir, id)}}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fail(err)
	}
	if err := os.Mkdir(c.record.dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = ErrExist
		}
		return fail(err)
	}
	c.created = time.Now()
	state := &ContainerState{Version: stateVersion, ID: id, Status: StatusCreated, Created: c.created, Bundle: cfg.Bundle, Annotations: cfg.Annotations}
	if err := errors.Join(os.WriteFile(c.record.path("config.json"), text, 0o600), c.record.write("state.json", state)); err != nil {
		os.RemoveAll(c.record.dir)
		return fail(err)
	}
	return c, nil
}

// Load returns the container id of stateDir, which this or another process has made. It returns
// ErrNotExist if there is none, and fs.ErrPermission if it is another user's. One with a damaged record can be destroyed, and its Run says what is
// wrong.
func Load(stateDir, id string) (*Container, error) {
	if err := validateID(id); err != nil {
		return nil, &Error{Op: "load", Err: err}
	}
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, &Error{Op: "load", ID: id, Err: err}
	}
	c := &Container{id: id, record: record{filepath.Join(stateDir, id)}}
	if err := c.record.checkOwner(); err != nil {
		return nil, &Error{Op: "load", ID: id, Err: err}
	}
	if c.damage = c.record.read("config.json", &c.cfg); c.damage == nil {
		c.damage = c.cfg.validate() // a file that has lost its contents must not mean a container without walls
	}
	if errors.Is(c.damage, fs.ErrPermission) {
		return nil, &Error{Op: "load", ID: id, Err: c.damage}
	}
	if state, err := c.record.state(); err == nil {
		c.created = state.Created
	}
	return c, nil
}

// ID is the container's name.
func (c *Container) ID() string { return c.id }

// Config returns a copy of the configuration.
func (c *Container) Config() Config { return deepCopy(c.cfg) }

// Run starts p as the first process of the container. When it returns nil, the program is running. A container can
// be run once; it returns ErrRunning if it has been.
//
// An error says which step failed; then nothing of the container is left but its record, and Run can
// be tried again. ErrNotFound and ErrNotExecutable tell that there is no such program in the container.
//
// When ctx is done, the process gets Config.StopSignal, and SIGKILL after Config.StopTimeout.
func (c *Container) Run(ctx context.Context, p *Process) error {
	fail := func(err error) error {
		var e *Error
		if errors.As(err, &e) {
			e.ID = c.id
			return err
		}
		return &Error{Op: "run", ID: c.id, Err: err}
	}
	if err := p.validate(); err != nil {
		return fail(err)
	}
	if p.live != nil {
		return fail(errors.New("the Process has been used; make another"))
	}
	if err := cmp.Or(ctx.Err(), c.damage); err != nil {
		return fail(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	unlock, err := c.lockRecord()
	if err != nil {
		return fail(err)
	}
	defer unlock()
	state, err := c.state()
	if err != nil {
		return fail(err)
	}
	if state.Status != StatusCreated {
		return fail(ErrRunning)
	}
	streams, err := openStreams(p)
	if err != nil {
		return fail(err)
	}
	intent, err := c.record.beginStart()
	if err != nil {
		streams.abandon()
		return fail(err)
	}
	s, err := c.start(ctx, p, streams, intent)
	if err != nil {
		streams.abandon()
		c.record.endStart()
		return fail(err)
	}
	state.Status, state.Started = StatusRunning, time.Now()
	state.Pid, state.StartTime, state.BootID = s.pid, startTime(s.pid), bootID()
	if err := c.record.write("state.json", state); err != nil { // a process without a record is worse than none
		s.discard()
		streams.abandon()
		c.record.endStart()
		return fail(err)
	}
	streams.start()
	p.live, c.proc = s.liveProcess, p
	go c.attend(ctx, p, s, streams, state)
	return nil
}

// start plans and starts. The intent is closed in any case.
func (c *Container) start(ctx context.Context, p *Process, streams *streams, intent *os.File) (*started, error) {
	pl, err := newPlan(&c.cfg, p, streams.files, intent)
	if err != nil {
		return nil, err
	}
	return pl.start(ctx, c.record.dir, c.fault)
}

// attend stays with a running process: it waits for its end and records it.
func (c *Container) attend(ctx context.Context, p *Process, s *started, streams *streams, state *ContainerState) {
	live := s.liveProcess
	go live.watch(ctx, c.stopSignal(), c.stopTimeout())
	err := live.reap()
	close(live.ended)
	s.release()

	if err == nil {
		err = exitError(live.status)
	}
	state.Status, state.Stopped, state.Pid = StatusStopped, live.end, 0
	var exit *ExitError
	switch {
	case errors.As(err, &exit):
		state.ExitCode = exit.Code
	case err != nil:
		state.ExitCode = -1
	}
	c.recordEnd(state)
	close(live.kept)

	copyErr := streams.wait(p.WaitDelay)
	if err == nil {
		err = copyErr
	}
	live.err = err
	live.pidfd.Close()
	close(live.done)
}

// recordEnd writes how the process ended, unless the container has been destroyed meanwhile.
func (c *Container) recordEnd(state *ContainerState) {
	unlock, err := c.lockRecord()
	if err != nil {
		return
	}
	defer unlock()
	if _, err := c.state(); err != nil {
		return // destroyed by another process, and the id is somebody else's by now
	}
	if err := c.record.write("state.json", state); err != nil {
		c.cfg.logger().Warn("the end of the process could not be recorded", "id", c.id, "err", err)
	}
}

// lockRecord locks the record, which may be gone.
func (c *Container) lockRecord() (unlock func(), err error) {
	unlock, err = c.record.lock()
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotExist
	}
	return unlock, err
}

// process is the first process, or ErrNotRunning.
func (c *Container) process() (*Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return nil, ErrNotRunning
	}
	return c.proc, nil
}

// Pid is the first process's number in the caller's PID namespace, or 0 if it is not running.
func (c *Container) Pid() int {
	state, err := c.State()
	if err != nil {
		return 0
	}
	return state.Pid
}

// Status says whether the first process has been started and is alive.
func (c *Container) Status() (Status, error) {
	state, err := c.State()
	if err != nil {
		return "", err
	}
	return state.Status, nil
}

// State returns what is known about the container. The status is asked of the kernel.
func (c *Container) State() (*ContainerState, error) {
	state, err := c.state()
	if err == nil && state.Status == StatusStopped && state.Stopped.IsZero() {
		if p, perr := c.process(); perr == nil && startTime(p.live.pid) == 0 {
			<-p.live.kept // it has ended this moment, and how is being recorded
			state, err = c.state()
		}
	}
	if err != nil {
		return nil, &Error{Op: "state", ID: c.id, Err: err}
	}
	return state, nil
}

// state reads the record, and sees that it is the record of this container: another process may
// have destroyed it and used its id again.
func (c *Container) state() (*ContainerState, error) {
	state, err := c.record.state()
	if err == nil && !c.created.IsZero() && !state.Created.Equal(c.created) {
		return nil, ErrNotExist
	}
	return state, err
}

// Wait waits for the first process; see [Process.Wait]. It returns ErrNotRunning if this Container
// has not started one.
func (c *Container) Wait() error {
	p, err := c.process()
	if err != nil {
		return &Error{Op: "wait", ID: c.id, Err: err}
	}
	return p.Wait()
}
