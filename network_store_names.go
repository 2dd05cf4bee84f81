//go:build linux

package container

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// This file finds endpoints by their names. It runs in the caller's process.

// namePath is the directory of those that have a name on a bridge. Names are the same in upper and lower case, with and
// without a dot at the end.
func (s *networkStore) namePath(bridge, name string) string {
	return s.path("names", escapeRef(bridge), escapeRef(strings.ToLower(strings.TrimSuffix(name, "."))))
}

// changeNames makes the names of an endpoint known in place of those that it had; either may be nil.
func (s *networkStore) changeNames(old, now *endpoint) error {
	var before, after []string
	key := ""
	if old != nil {
		key, before = old.Key, s.namePaths(old)
	}
	if now != nil {
		key, after = now.Key, s.namePaths(now)
	}
	for _, dir := range before {
		if slices.Contains(after, dir) {
			continue
		}
		if err := removeIfThere(dir + "/" + key); err != nil {
			return err
		}
		os.Remove(dir) // if nobody else has it
		at("network store: name removed")
	}
	for _, dir := range after {
		if err := addName(dir, key); err != nil {
			return err
		}
		at("network store: name")
	}
	return nil
}

func (s *networkStore) namePaths(e *endpoint) []string {
	if e.Network.Bridge == "" {
		return nil
	}
	var dirs []string
	for _, name := range e.Names {
		if strings.Trim(name, ".") == "" {
			continue
		}
		if dir := s.namePath(e.Network.Bridge, name); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// addName links a key below a name, whose directory may go at any moment when another gives the name up.
func addName(dir, key string) error {
	for {
		err := os.Symlink(key, dir+"/"+key)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
}

// lookup returns the addresses of the endpoints on a bridge that have a name and are alive. None is no error.
func (s *networkStore) lookup(bridge, name string) ([]netip.Addr, error) {
	entries, err := os.ReadDir(s.namePath(bridge, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Op: "look up", Path: name, Err: err}
	}
	var found []netip.Addr
	for _, entry := range entries {
		e, err := s.endpoint(entry.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		alive, err := e.answers()
		if err != nil {
			return nil, &Error{Op: "look up", Path: name, Err: err}
		}
		if !alive || e.Network.Bridge != bridge {
			continue
		}
		for _, p := range e.Network.Addresses {
			found = append(found, p.Addr())
		}
	}
	return found, nil
}
