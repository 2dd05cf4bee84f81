//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"example.com/container"
)

// This file has our own contender.

// oursName is our row in the tables.
const oursName = "container"

func (s start) config() container.Config {
	cfg := container.DefaultConfig()
	cfg.Root = container.Directory(s.rootfs)
	cfg.Namespaces.NewUser = s.userns
	if s.limits != nil {
		cfg.Resources = s.resources()
	}
	return cfg
}

// runOurs runs a container through the public API, from New to Destroy.
func (s start) runOurs(id string) error {
	c, err := container.New(s.state, id, s.config())
	if err != nil {
		return err
	}
	err = c.Run(context.Background(), &container.Process{Args: s.args})
	if err == nil {
		err = c.Wait()
	}
	return errors.Join(err, c.Destroy())
}

func (s start) ours() (contender, error) {
	return contender{once: func() (sample, error) {
		began := time.Now()
		err := s.runOurs("bench")
		return sample{wall: time.Since(began)}, err
	}}, nil
}

// pullFlag is the first argument of this program when it does nothing but pull: so that its
// processor time and memory are measured as those of the others are.
const pullFlag = "-pull-only"

// ours pulls an image into an empty store through the public API, in a process of its own.
func (p pull) ours() (contender, error) {
	self, err := os.Executable()
	if err != nil {
		return contender{}, err
	}
	return contender{once: func() (sample, error) {
		dir, err := os.MkdirTemp(p.dir, "store")
		if err != nil {
			return sample{}, err
		}
		defer os.RemoveAll(dir)
		return timed(self, pullFlag, filepath.Join(dir, "store"), p.ref+":latest")
	}}, nil
}

// pullOnly is what the process does.
func pullOnly(dir, ref string) error {
	store, err := container.OpenStore(dir, nil)
	if err != nil {
		return err
	}
	_, err = store.Pull(context.Background(), ref, nil)
	return errors.Join(err, store.Close())
}
