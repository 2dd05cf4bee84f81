//go:build linux

package container

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"
)

// This file finds what callers that have died have left in a store. It runs in the caller's process, when a pool is exhausted and in Reconcile.

// collect frees endpoints whose container, or whose boot, is no more, with their leases and names, and whatever else belongs to nobody. It can be
// called at any time, by any number of callers.
func (s *networkStore) collect() error {
	lock, err := lockPath(s.ctx, s.path("collect"))
	if err == nil {
		defer lock.Close()
		// Each of these is there before what the next looks at. So what seems to belong to nobody does: its endpoint would be seen.
		err = errors.Join(s.collectEndpoints(), s.collectPools(), s.collectNames())
		s.collectTemporary("bridges")
		s.collectTemporary("endpoints")
	}
	return lockFailed("collect", s.dir, err)
}

func (s *networkStore) collectEndpoints() error {
	entries, err := os.ReadDir(s.path("endpoints"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		key, isClaim := strings.CutSuffix(strings.TrimSuffix(name, ".json"), ".d")
		if checkKey(key) != nil {
			continue
		}
		e, rerr := s.endpoint(key)
		switch {
		case rerr == nil && isClaim: // comes by its own name
		case rerr == nil:
			alive, aerr := e.alive()
			if aerr == nil && !alive {
				if aerr = forgetEndpoint(s.ctx, e); aerr == nil {
					at("collect: forgotten")
					aerr = s.removeEndpoint(key)
				}
			}
			err = errors.Join(err, aerr)
		case errors.Is(rerr, fs.ErrNotExist): // being removed, or damaged
			err = errors.Join(err, s.removeEndpoint(key))
		default:
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// collectTemporary removes files that were being written. Who is alive renames his within a moment.
func (s *networkStore) collectTemporary(dir string) {
	entries, _ := os.ReadDir(s.path(dir))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), temporaryPrefix) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()).Abs() > writingTime {
			os.Remove(s.path(dir, e.Name()))
		}
	}
}

// writingTime is longer than anybody writes a file.
var writingTime = time.Minute

// collectPools frees leases of endpoints that are not there.
func (s *networkStore) collectPools() error {
	pools, err := os.ReadDir(s.path("pools"))
	for _, pool := range pools {
		dir := s.path("pools", pool.Name())
		leases, rerr := os.ReadDir(dir)
		if rerr != nil {
			continue // removed meanwhile
		}
		for _, lease := range leases {
			if leaseFamily(lease.Name()) == "" {
				continue
			}
			key, rerr := os.Readlink(dir + "/" + lease.Name())
			if rerr != nil || s.known(key) {
				continue
			}
			err = errors.Join(err, freeLeaseIn(s.ctx, dir, lease.Name(), key))
		}
	}
	return err
}

// collectNames removes names of endpoints that are not there.
func (s *networkStore) collectNames() error {
	bridges, err := os.ReadDir(s.path("names"))
	for _, bridge := range bridges {
		names, _ := os.ReadDir(s.path("names", bridge.Name()))
		for _, name := range names {
			dir := s.path("names", bridge.Name(), name.Name())
			keys, _ := os.ReadDir(dir)
			for _, key := range keys {
				if !s.known(key.Name()) {
					err = errors.Join(err, removeIfThere(dir+"/"+key.Name()))
				}
			}
			os.Remove(dir) // if nobody has it
		}
		os.Remove(s.path("names", bridge.Name()))
	}
	return err
}

// known tells whether there is, or may be, an endpoint with a key.
func (s *networkStore) known(key string) bool {
	_, err := s.endpoint(key)
	return err == nil || checkKey(key) == nil && !errors.Is(err, fs.ErrNotExist)
}
