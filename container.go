//go:build linux

package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"example.com/container/internal/launch"
)

// This file is a container as a record: New, Load, List, State. What starts its first process is in
// create.go, its end in stop.go. It runs in the caller's process.

// A Container is a place for processes to run in, and its record on disk. It is safe for concurrent
// use. Any method may return ErrNotExist, since another process may destroy the container.
type Container struct {
	id      string
	cfg     Config
	record  record
	created time.Time // tells it from another of the same id; zero if its record could not be read
	damage  error     // what is wrong with its record

	mu   sync.Mutex // of proc and network; what changes the container on disk takes the record's lock
	proc *Process   // the first process, if this Container has created it
	// What this process does for the container's network as long as it lives; nil if it has not created it.
	network *networkLink

	inFunc atomic.Int32 // functions that are being called as hooks: then the record's lock is held

	fault *launch.Fault // for tests: a call of the launcher that fails
}

// New validates cfg and records a new container in the directory stateDir/id, which it makes with
// mode 0700. It starts nothing. The container keeps a copy of cfg.
//
// It returns ErrInvalidID, ErrExist if there is a container with this id, and all complaints about
// cfg at once, each a *FieldError that wraps ErrInvalidConfig. After an error nothing is left on disk.
//
// A stateDir in which other users can rename things is refused with fs.ErrPermission. A good one is on a file
// system in memory: a directory of /run, or of $XDG_RUNTIME_DIR.
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
		kept, mine := Config{}, cfg
		err := json.Unmarshal(text, &kept)
		mine.Logger, mine.SeccompNotify = nil, nil // not kept
		if cfg.Network != nil {
			network := *cfg.Network
			network.Egress, network.OnEgress = nil, nil
			mine.Network = &network
		}
		if err != nil || !reflect.DeepEqual(kept, mine) {
			return fail(fieldErrorf("Config", "holds a string that is not UTF-8, which its record in JSON cannot keep"))
		}
	}
	c := &Container{id: id, cfg: deepCopy(cfg), record: record{filepath.Join(stateDir, id)}}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return fail(err)
	}
	if err := checkStateDir(stateDir); err != nil {
		return fail(err)
	}
	lock, err := c.record.claim()
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	c.created = time.Now()
	state := &stored{ContainerState: ContainerState{
		Version: stateVersion, ID: id, Status: StatusCreating, Created: c.created,
		Bundle: cfg.Bundle, Rootless: os.Geteuid() != 0, Annotations: cfg.Annotations,
	}}
	err = os.WriteFile(c.record.path("config.json"), text, 0o600)
	at("new: config")
	if err == nil {
		err = c.record.write("state.json", state)
	}
	if err != nil {
		os.RemoveAll(c.record.dir)
		return fail(err)
	}
	at("new: state")
	return c, nil
}

// Load returns the container id of stateDir, which this or another process has made. It returns
// ErrNotExist if there is none, and fs.ErrPermission if it is another user's. One with a damaged record
// can be destroyed, and its Create says what is wrong.
func Load(stateDir, id string) (*Container, error) {
	if err := validateID(id); err != nil {
		return nil, &Error{Op: "load", Err: err}
	}
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, &Error{Op: "load", ID: id, Err: err}
	}
	c := &Container{id: id, record: record{filepath.Join(stateDir, id)}}
	if err := c.load(); err != nil {
		return nil, &Error{Op: "load", ID: id, Err: err}
	}
	return c, nil
}

// load reads the record, of one container: while it reads, that may be destroyed and the id used again. What
// looks damaged may be just that, so it is looked at again with the record's lock.
func (c *Container) load() error {
	if err := checkStateDir(filepath.Dir(c.record.dir)); err != nil {
		return err
	}
	if err := c.record.checkOwner(); err != nil {
		return err
	}
	for {
		if err := c.record.checkMade(); err != nil {
			return err
		}
		before, err := c.record.created()
		if err == nil {
			err = c.read()
		}
		switch {
		case errors.Is(err, ErrNotExist):
			continue // it has been destroyed this moment, and who does so may not be done
		case err != nil:
			return err
		case c.damage == nil && c.created.Equal(before):
			return nil
		}
		lock, err := c.lockRecord()
		if err == nil {
			err = c.read()
			lock.Close()
		}
		if !errors.Is(err, ErrNotExist) {
			return err
		}
	}
}

// read reads the configuration, and when it was made. It returns ErrNotExist if there is no such container.
func (c *Container) read() (err error) {
	c.cfg = Config{}
	if c.damage = c.record.read("config.json", &c.cfg); c.damage == nil {
		c.damage = c.cfg.validate() // a file that has lost its contents must not mean a container without walls
	}
	if errors.Is(c.damage, fs.ErrPermission) || scarce(c.damage) {
		return c.damage
	}
	c.created, err = c.record.created()
	return err
}

// List returns the containers of stateDir, ordered by id: none if there is no such directory. Those of
// other users are left out, and so are those that are destroyed meanwhile.
func List(stateDir string) ([]*Container, error) {
	err := checkStateDir(stateDir)
	if errors.Is(err, ErrNotExist) {
		return nil, nil
	}
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(stateDir)
	}
	if err != nil {
		return nil, &Error{Op: "list", Path: stateDir, Err: err}
	}
	var list []*Container
	for _, e := range entries {
		c, err := Load(stateDir, e.Name())
		switch {
		case err == nil:
			list = append(list, c)
		case errors.Is(err, ErrNotExist), errors.Is(err, ErrInvalidID), errors.Is(err, fs.ErrPermission):
		default:
			return nil, err
		}
	}
	return list, nil
}

// ID is the container's name.
func (c *Container) ID() string { return c.id }

// Config returns a copy of the configuration.
func (c *Container) Config() Config { return deepCopy(c.cfg) }

// lockRecord locks the record, which may be gone.
func (c *Container) lockRecord() (lock *os.File, err error) {
	return c.lockRecordUntil(context.Background())
}

// lockRecordUntil waits for it until ctx is done.
func (c *Container) lockRecordUntil(ctx context.Context) (lock *os.File, err error) {
	lock, err = c.record.lockUntil(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotExist
	}
	return lock, err
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

// Status says where in its life the container is.
func (c *Container) Status() (Status, error) {
	state, err := c.lastState()
	if err != nil {
		return "", &Error{Op: "state", ID: c.id, Err: err}
	}
	return state.Status, nil
}

// State returns what is known about the container. The status is asked of the kernel.
func (c *Container) State() (*ContainerState, error) {
	state, err := c.lastState()
	if err != nil {
		return nil, &Error{Op: "state", ID: c.id, Err: err}
	}
	if state.Pid != 0 {
		state.NamespacePaths = namespacePaths(state.Pid)
	}
	return &state.ContainerState, nil
}

// lastState is state, which knows how the process has ended if it has.
func (c *Container) lastState() (*stored, error) {
	state, err := c.state()
	if err == nil && state.Status == StatusStopped && state.Stopped.IsZero() && c.inFunc.Load() == 0 {
		if p, perr := c.process(); perr == nil {
			if start, serr := startTime(p.live.pid); start == 0 && serr == nil {
				<-p.live.ended // this moment; it is being recorded
				state.ended(p.live)
			}
		}
	}
	if err == nil && state.Status == StatusRunning && state.paused() {
		state.Status = StatusPaused
	}
	return state, err
}

// ended notes the end of the process.
func (st *stored) ended(live *liveProcess) {
	st.Status, st.Pid, st.Stopped = StatusStopped, 0, live.end
	st.ExitCode, st.ExitSignal = exitCode(live.exit)
	var exit *ExitError
	if errors.As(live.exit, &exit) {
		st.OOMKilled, st.TimedOut, st.CPUTimeUsedUp = exit.OOMKilled, exit.TimedOut, exit.CPUTimeUsedUp
	}
}

// state reads the record, and sees that it is the record of this container: another process may
// have destroyed it and used its id again.
func (c *Container) state() (*stored, error) {
	state, err := c.record.state()
	if err == nil && !c.created.IsZero() && !state.Created.Equal(c.created) {
		return nil, ErrNotExist
	}
	return state, err
}

// annotate keeps the annotations of a state, if it is this container's.
func (c *Container) annotate(from *ContainerState) error {
	lock, err := c.lockRecord()
	if err != nil {
		return c.failed("save state", err)
	}
	defer lock.Close()
	state, err := c.state()
	if err == nil && !state.Created.Equal(from.Created) {
		err = ErrNotExist
	}
	if err == nil {
		state.Annotations = from.Annotations
		err = c.record.write("state.json", state)
	}
	return c.failed("save state", err)
}
