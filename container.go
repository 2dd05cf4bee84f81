//go:build linux

package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file is the life of a container: New, Run, Wait, Signal, Stop, Destroy.

// A Container is a place for processes to run in, and its record on disk. It is safe for concurrent
// use. Any method may return ErrNotExist, since another process may destroy the container.
type Container struct {
	id     string
	cfg    Config
	record record

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
	state := &ContainerState{Version: stateVersion, ID: id, Status: StatusCreated, Created: time.Now(), Annotations: cfg.Annotations}
	if err := errors.Join(os.WriteFile(c.record.path("config.json"), text, 0o600), c.record.write("state.json", state)); err != nil {
		os.RemoveAll(c.record.dir)
		return fail(err)
	}
	return c, nil
}

// Load returns the container id of stateDir, which this or another process has made.
func Load(stateDir, id string) (*Container, error) {
	if err := validateID(id); err != nil {
		return nil, &Error{Op: "load", Err: err}
	}
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, &Error{Op: "load", ID: id, Err: err}
	}
	c := &Container{id: id, record: record{filepath.Join(stateDir, id)}}
	if err := c.record.read("config.json", &c.cfg); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotExist
		}
		return nil, &Error{Op: "load", ID: id, Err: err}
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
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	unlock, err := c.lockRecord()
	if err != nil {
		return fail(err)
	}
	defer unlock()
	state, err := c.record.state()
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
	pl, err := newPlan(&c.cfg, p, streams.files)
	if err != nil {
		streams.abandon()
		return fail(err)
	}
	s, err := pl.start(ctx, c.record.dir, c.fault)
	if err != nil {
		streams.abandon()
		return fail(err)
	}
	streams.start()
	p.live, c.proc = s.liveProcess, p
	state.Status, state.Started = StatusRunning, time.Now()
	state.Pid, state.StartTime, state.BootID = s.pid, startTime(s.pid), bootID()
	err = c.record.write("state.json", state)
	go c.attend(ctx, p, s, streams, state)
	if err != nil { // a process without a record is worse than none
		s.stop(ctx, unix.SIGKILL, 0)
		<-s.done
		return fail(err)
	}
	return nil
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
	now, err := c.record.state()
	if err != nil || !now.Created.Equal(state.Created) {
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
	state, err := c.record.state()
	if err != nil {
		return nil, &Error{Op: "state", ID: c.id, Err: err}
	}
	return state, nil
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

// Signal sends a signal to the first process. In a PID namespace of the container's own, SIGKILL ends
// all of its processes; other signals reach the first process only if it handles them, see
// pid_namespaces(7). It returns ErrNotRunning if there is no process.
func (c *Container) Signal(sig syscall.Signal) error {
	if p, err := c.process(); err == nil {
		if err := p.live.signal(sig); err != nil {
			return &Error{Op: "signal", ID: c.id, Path: signalName(sig), Err: err}
		}
		return nil
	}
	fd, err := c.openProcess()
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
		unix.Close(fd)
	}
	if err != nil {
		return &Error{Op: "signal", ID: c.id, Path: signalName(sig), Err: err}
	}
	return nil
}

// openProcess opens the first process by its record. Once it is open the number cannot come to mean
// another one, so that is when its identity is verified.
func (c *Container) openProcess() (pidfd int, err error) {
	state, err := c.record.state()
	if err != nil {
		return -1, err
	}
	if state.Pid == 0 {
		return -1, ErrNotRunning
	}
	fd, err := unix.PidfdOpen(state.Pid, 0)
	if err != nil {
		return -1, ErrNotRunning
	}
	if startTime(state.Pid) != state.StartTime {
		unix.Close(fd)
		return -1, ErrNotRunning
	}
	return fd, nil
}

// Stop asks the first process to end with Config.StopSignal, and kills it when Config.StopTimeout
// is over or ctx is done. It returns when the process has ended; if there is none, at once.
func (c *Container) Stop(ctx context.Context) error {
	return c.stop(ctx, c.stopTimeout())
}

func (c *Container) stop(ctx context.Context, grace time.Duration) error {
	var err error
	if p, perr := c.process(); perr == nil {
		err = p.live.stop(ctx, c.stopSignal(), grace)
	} else {
		err = c.stopOther(ctx, grace)
	}
	if err != nil {
		return &Error{Op: "stop", ID: c.id, Err: err}
	}
	return nil
}

// stopOther stops a process that another process has started.
func (c *Container) stopOther(ctx context.Context, grace time.Duration) error {
	fd, err := c.openProcess()
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ended := func(ctx context.Context, d time.Duration) bool {
		for deadline := time.Now().Add(d); ; {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, _ := unix.Poll(fds, 20); n > 0 {
				return true
			}
			if ctx.Err() != nil || time.Now().After(deadline) {
				return false
			}
		}
	}
	if grace > 0 {
		if err := unix.PidfdSendSignal(fd, c.stopSignal(), nil, 0); err == unix.ESRCH || err == nil && ended(ctx, grace) {
			return nil
		}
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err == unix.ESRCH {
		return nil
	} else if err != nil {
		return err
	}
	const patience = 10 * time.Second
	if !ended(context.Background(), patience) {
		return errors.New("the process does not end, although it was killed")
	}
	return nil
}

// Destroy kills the container's processes, if it is running, and removes everything of it. It can be
// called any number of times, after a crash, and from any process; once the container is gone it returns nil.
func (c *Container) Destroy() error {
	if err := c.stop(context.Background(), 0); err != nil && !errors.Is(err, ErrNotExist) {
		var parse *fs.PathError
		if !errors.As(err, &parse) { // a record that cannot be read tells of no process
			return err
		}
	}
	if p, err := c.process(); err == nil {
		<-p.live.kept // else it would be recorded for the next container of this id
	}
	unlock, err := c.lockRecord()
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return &Error{Op: "destroy", ID: c.id, Err: err}
	}
	defer unlock()
	if err := os.RemoveAll(c.record.dir); err != nil {
		return &Error{Op: "destroy", ID: c.id, Err: err}
	}
	return nil
}

func (c *Container) stopSignal() syscall.Signal {
	if c.cfg.StopSignal == 0 {
		return unix.SIGTERM
	}
	return c.cfg.StopSignal
}

func (c *Container) stopTimeout() time.Duration {
	if c.cfg.StopTimeout == 0 {
		return 10 * time.Second
	}
	return c.cfg.StopTimeout
}
