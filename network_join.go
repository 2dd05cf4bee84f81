//go:build linux

package container

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// This file gives a container the network of another one, with NetworkModeContainer. It runs in the caller's process, before anything is
// started.

// sharedNetwork is the other container, as it is while its first process lives.
type sharedNetwork struct {
	process   *os.File // pidfd
	network   *NetworkConfig
	addresses []netip.Prefix
}

// joinNetwork returns the configuration with the namespaces of the other container to join, and who that is; its own and nil in any other mode. Paths in
// /proc are the other's if stillThere says so when they have been opened.
func (c *Container) joinNetwork() (*Config, *sharedNetwork, error) {
	if c.cfg.networkMode() != NetworkModeContainer {
		return &c.cfg, nil, nil
	}
	id := c.cfg.Network.Container
	fail := func(err error) (*Config, *sharedNetwork, error) {
		e := &Error{Op: "network of container", Path: id, Err: err}
		if errors.Is(err, ErrNotRunning) || errors.Is(err, ErrNotExist) {
			e.Remedy = "it must have been created, and be alive, in the same state directory"
		}
		return nil, nil, e
	}
	if id == c.id {
		return fail(fieldErrorf("Network.Container", "is the container itself"))
	}
	other, err := Load(filepath.Dir(c.record.dir), id)
	if err != nil {
		return fail(err)
	}
	process, err := other.openProcess()
	if err != nil {
		return fail(err)
	}
	shared := &sharedNetwork{process: process, network: other.cfg.Network}
	joined, err := c.cfg.joining(other, shared)
	if err == nil {
		err = shared.stillThere()
	}
	if err != nil {
		process.Close()
		return fail(err)
	}
	return joined, shared, nil
}

// joining is the configuration with the namespaces of the other's first process.
func (c *Config) joining(other *Container, shared *sharedNetwork) (*Config, error) {
	state, err := other.state()
	if err != nil {
		return nil, err
	}
	if state.Pid == 0 {
		return nil, ErrNotRunning
	}
	flags, err := otherNamespaces(state.Pid)
	if err != nil {
		return nil, err
	}
	if state.Network != nil {
		shared.addresses = state.Network.Addresses
	}
	cfg := *c
	cfg.Namespaces.Join = maps.Clone(c.Namespaces.Join)
	if cfg.Namespaces.Join == nil {
		cfg.Namespaces.Join = make(map[NamespaceKind]string)
	}
	if flags&unix.CLONE_NEWNET == 0 { // it is in the caller's network, and so is the new one
		return &cfg, nil
	}
	cfg.Namespaces.Join[NetworkNamespace] = namespacePath(state.Pid, NetworkNamespace)
	if !cfg.Namespaces.NewUser {
		return &cfg, nil
	}
	// A network belongs to a user namespace: in another one its /sys cannot be mounted, and only the host's root could enter it at all.
	if flags&unix.CLONE_NEWUSER == 0 {
		return nil, fieldErrorf("Namespaces.NewUser", "contradicts the network of a container without a user namespace of its own; clear it")
	}
	cfg.Namespaces.NewUser = false
	cfg.Namespaces.Join[UserNamespace] = namespacePath(state.Pid, UserNamespace)
	return &cfg, nil
}

// stillThere returns ErrNotRunning if the process has ended: its number may be another's.
func (s *sharedNetwork) stillThere() error {
	if s == nil {
		return nil
	}
	if err := sendTo(s.process, 0); err != nil {
		return err
	}
	if waitPidfdNow(s.process) {
		return ErrNotRunning
	}
	return nil
}

// close is for when it has been joined, or will not be.
func (s *sharedNetwork) close() {
	if s != nil {
		s.process.Close()
	}
}
