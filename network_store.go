//go:build linux

package container

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file keeps what the host's side of networks is made of, below NetworkConfig.StateDir. It runs in the caller's process.
//
//	<dir>/                          0700, the caller's
//	    bridges/<name>.json         a Bridge
//	    bridges/<name>.lock         flock on it while something of the bridge changes
//	    endpoints/<key>.json        an endpoint
//	    endpoints/<key>.d/<address> a link to the pool that the address is leased from; made before the lease
//	    pools/<pool>/<address>      a lease: a link to the endpoint's key
//	    pools/<pool>/4, 6           where to look for the next free address; flock on it while one is leased or freed
//	    names/<bridge>/<name>/<key> who has the name
//
// Links lead nowhere: one is made with its text in a single step, so none is ever half written. Adding and removing an endpoint
// costs the same however many there are. A caller may die anywhere: what then belongs to nobody is found by collect. Nothing is
// synced: what has been written before a reboot belongs to nobody.

// networkStore is that directory, shared by all callers that share a bridge. It holds nothing open, and is safe for concurrent use.
type networkStore struct {
	dir string
	ctx context.Context // of the call that it is opened for: whoever waits for a lock waits until it is done
}

// during is the store for a call with another context.
func (s *networkStore) during(ctx context.Context) *networkStore { return &networkStore{s.dir, ctx} }

// An endpoint is a container on a bridge or a device: what its rules, names and leases are made from. It is on disk before any of these.
type endpoint struct {
	// Key names it, and is the name of its device on the host.
	Key string `json:"key"`
	// The container, and its record.
	StateDir string    `json:"stateDir"`
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	// Process is whose network it is, where there is no container.
	Process processID `json:"process,omitzero"`
	// Boot is the host's life that it is of; addEndpoint sets it.
	Boot string `json:"boot"`
	// Names are what it can be found by: id, host name, aliases.
	Names   []string     `json:"names,omitempty"`
	Network NetworkState `json:"network"`
}

// networkStoreDirs are all directories of a store, the last to be made last.
var networkStoreDirs = []string{"bridges", "endpoints", "pools", "names"}

// openNetworkStore opens the store in a directory, which is made if it is missing. Its locks are waited for patiently; see during.
func openNetworkStore(dir string) (*networkStore, error) {
	fail := func(err error) (*networkStore, error) {
		var e *Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, &Error{Op: "network state", Path: dir, Err: err}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	s := &networkStore{dir, patiently}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err == unix.ENOENT {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fail(err)
		}
		at("network store: directory")
		err = unix.Lstat(dir, &st)
		if err != nil {
			return fail(err)
		}
	} else if err != nil {
		return fail(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fail(&Error{Op: "network state", Path: dir, Err: unix.EPERM, Remedy: "it must be a directory of the caller's that nobody else can write to; set NetworkConfig.StateDir"})
	}
	if err := checkStateDir(filepath.Dir(dir)); err != nil {
		return fail(err)
	}
	// However it is written, it is one store: the names of tables are made from it.
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return fail(err)
	}
	s.dir = filepath.Join(parent, filepath.Base(dir))
	if unix.Lstat(s.path(networkStoreDirs[len(networkStoreDirs)-1]), &st) == nil {
		return s, nil
	}
	for _, sub := range networkStoreDirs {
		if err := os.Mkdir(s.path(sub), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fail(err)
		}
		at("network store: part")
	}
	return s, nil
}

func (s *networkStore) path(names ...string) string {
	return filepath.Join(s.dir, filepath.Join(names...))
}

// write replaces a file, or makes it.
func (s *networkStore) write(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// Only one writes a file at a time, and what one has left that was killed is found by its name.
	temp := temporaryPath(path)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	at("network store: temporary file")
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		at("network store: temporary file written")
		err = replaceFile(f.Name(), path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	at("network store: file")
	return nil
}

// replaceFile gives a file the name of another, which need not be there, in one step. Exchanging the two spares the wait
// for the disk that ext4 has in store for who renames a file over another.
func replaceFile(temp, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if err == nil {
		return os.Remove(temp)
	}
	return os.Rename(temp, path)
}

// temporaryPrefix begins the names of files that are being written.
const temporaryPrefix = ".tmp-"

// temporaryPath is where a file is written before it is renamed.
func temporaryPath(path string) string {
	return filepath.Join(filepath.Dir(path), temporaryPrefix+filepath.Base(path))
}

// read reads a file. One that is damaged is fs.ErrNotExist as well: it is of a host that has crashed.
func (s *networkStore) read(path string, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return &fs.PathError{Op: "parse", Path: path, Err: errors.Join(err, fs.ErrNotExist)}
	}
	return nil
}

// lockPath takes a lock that can be removed by who holds it: it is the one that has the name when it is taken.
func lockPath(ctx context.Context, path string) (*os.File, error) {
	for {
		fd, err := openRetry(func() (int, error) {
			return unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		var locked, named unix.Stat_t
		if err = flockUntil(ctx, fd, path, unix.LOCK_EX); err == nil {
			err = unix.Fstat(fd, &locked)
		}
		if err != nil {
			unix.Close(fd)
			return nil, lockFailed("lock", path, err)
		}
		if unix.Lstat(path, &named) == nil && locked.Ino == named.Ino && locked.Dev == named.Dev {
			return os.NewFile(uintptr(fd), path), nil
		}
		unix.Close(fd)
	}
}

// lockBridge takes the lock of a bridge, until the file is closed. It need not exist.
func (s *networkStore) lockBridge(name string) (*os.File, error) {
	f, err := lockPath(s.ctx, s.path("bridges", escapeRef(name)+".lock"))
	return f, lockFailed("lock bridge", name, err)
}

func (s *networkStore) bridgePath(name string) string {
	return s.path("bridges", escapeRef(name)+".json")
}

// writeBridge keeps a bridge. The caller holds its lock.
func (s *networkStore) writeBridge(b *Bridge) error {
	if err := s.write(s.bridgePath(b.Name), b); err != nil {
		return &Error{Op: "write bridge", Path: b.Name, Err: err}
	}
	return nil
}

// readBridge returns ErrNotExist if there is no such bridge.
func (s *networkStore) readBridge(name string) (*Bridge, error) {
	b := new(Bridge)
	err := s.read(s.bridgePath(name), b)
	if err == nil && b.Name != name {
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Op: "bridge", Path: name, Err: ErrNotExist, Remedy: "EnsureBridge makes it"}
	}
	if err != nil {
		return nil, &Error{Op: "read bridge", Path: name, Err: err}
	}
	b.StateDir = s.dir // whoever has made it may have written that in another way
	return b, nil
}

// removeBridge forgets a bridge, which has no endpoints any more, and its lock. The caller holds that.
func (s *networkStore) removeBridge(name string) error {
	err := s.removePool(name)
	if errors.Is(err, ErrAddressInUse) {
		if err = s.collect(); err == nil {
			err = s.removePool(name)
		}
	}
	if err == nil {
		at("network store: without pool")
		err = removeIfThere(s.bridgePath(name))
	}
	if err == nil {
		at("network store: bridge removed")
		err = errors.Join(removeIfThere(temporaryPath(s.bridgePath(name))), removeIfThere(s.path("bridges", escapeRef(name)+".lock")))
	}
	return lockFailed("remove bridge", name, err)
}

// bridges returns all of them.
func (s *networkStore) bridges() ([]*Bridge, error) {
	entries, err := os.ReadDir(s.path("bridges"))
	if err != nil {
		return nil, &Error{Op: "read bridges", Path: s.dir, Err: err}
	}
	var all []*Bridge
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		b := new(Bridge)
		switch err := s.read(s.path("bridges", e.Name()), b); {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			return nil, &Error{Op: "read bridge", Path: e.Name(), Err: err}
		case escapeRef(b.Name)+".json" == e.Name():
			b.StateDir = s.dir
			all = append(all, b)
		}
	}
	return all, nil
}

// checkKey: a key becomes the name of a file and of a device.
func checkKey(key string) error {
	ok := key != "" && len(key) < unix.IFNAMSIZ
	for _, c := range []byte(key) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
	}
	if !ok {
		return fmt.Errorf("%q is not the key of an endpoint: %w", key, fs.ErrInvalid)
	}
	return nil
}

func (s *networkStore) endpointPath(key string) string { return s.path("endpoints", key+".json") }

// addEndpoint keeps an endpoint, which may be there already, and makes its names known.
func (s *networkStore) addEndpoint(e *endpoint) error {
	err := func() error {
		if err := checkKey(e.Key); err != nil {
			return err
		}
		boot, err := bootID()
		if err != nil {
			return err
		}
		e.Boot = cmp.Or(e.Boot, boot)
		old, err := s.endpoint(e.Key)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.write(s.endpointPath(e.Key), e); err != nil {
			return err
		}
		return s.changeNames(old, e)
	}()
	if err != nil {
		return &Error{Op: "write endpoint", ID: e.ID, Path: e.Key, Err: err}
	}
	return nil
}

// endpoint returns ErrNotExist if there is none.
func (s *networkStore) endpoint(key string) (*endpoint, error) {
	e := new(endpoint)
	err := checkKey(key)
	if err == nil {
		err = s.read(s.endpointPath(key), e)
	}
	switch {
	case err == nil && e.Key != key, errors.Is(err, fs.ErrNotExist):
		return nil, &Error{Op: "endpoint", Path: key, Err: ErrNotExist}
	case err != nil:
		return nil, &Error{Op: "read endpoint", Path: key, Err: err}
	}
	return e, nil
}

// removeEndpoint forgets an endpoint with its names and leases. It can be called any number of times.
func (s *networkStore) removeEndpoint(key string) error {
	e, err := s.endpoint(key)
	if err == nil {
		err = s.changeNames(e, nil)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		at("network store: without names")
		err = s.releaseAll(key)
	}
	if err == nil {
		err = removeIfThere(temporaryPath(s.endpointPath(key)))
	}
	if err == nil {
		err = removeIfThere(s.endpointPath(key)) // last: until then it can be removed again
	}
	if err != nil {
		return lockFailed("remove endpoint", key, err)
	}
	at("network store: endpoint removed")
	return nil
}

// endpoints are all of them, in no order. One that is added or removed meanwhile may be among them or not.
func (s *networkStore) endpoints() iter.Seq2[*endpoint, error] {
	return func(yield func(*endpoint, error) bool) {
		entries, err := os.ReadDir(s.path("endpoints"))
		if err != nil {
			yield(nil, &Error{Op: "read endpoints", Path: s.dir, Err: err})
			return
		}
		for _, entry := range entries {
			key, is := strings.CutSuffix(entry.Name(), ".json")
			if !is || checkKey(key) != nil {
				continue
			}
			e, err := s.endpoint(key)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// alive tells whether the container of an endpoint, or its process, is still there.
func (e *endpoint) alive() (bool, error) {
	boot, err := bootID()
	if err != nil || e.Boot != boot {
		return err != nil, err
	}
	if e.ID == "" {
		start, err := startTime(e.Process.Pid)
		return err != nil || start != 0 && start == e.Process.StartTime, err
	}
	if validateID(e.ID) != nil {
		return false, nil
	}
	created, err := record{filepath.Join(e.StateDir, e.ID)}.created()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err != nil:
		return true, err
	}
	return created.IsZero() || created.Equal(e.Created), nil // one that cannot be read can be destroyed
}

// answers tells whether there is somebody to be found: a container whose end nobody has seen keeps its addresses, and not its names.
func (e *endpoint) answers() (bool, error) {
	alive, err := e.alive()
	if err != nil || !alive || e.ID == "" {
		return alive, err
	}
	st, err := record{filepath.Join(e.StateDir, e.ID)}.state()
	return err == nil && st.Status != StatusStopped, nil // it is being destroyed, if there is an error
}

// removeIfThere removes a file or an empty directory.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
