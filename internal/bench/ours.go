//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"example.com/container"
)

// This file has our own contender.

// oursName is our row in the tables.
const oursName = "container"

// ours runs a container through the public API, from New to Destroy.
func (s start) ours() (contender, error) {
	cfg := container.DefaultConfig()
	cfg.Root = container.Directory(s.rootfs)
	cfg.Namespaces.NewUser = s.userns
	once := func() error {
		c, err := container.New(s.state, "bench", cfg)
		if err != nil {
			return err
		}
		err = c.Run(context.Background(), &container.Process{Args: []string{program}})
		if err == nil {
			err = c.Wait()
		}
		return errors.Join(err, c.Destroy())
	}
	return contender{once: func() (sample, error) {
		began := time.Now()
		err := once()
		return sample{wall: time.Since(began)}, err
	}}, nil
}

// ours pulls an image into an empty store through the public API.
func (p pull) ours() (contender, error) {
	return contender{}, errors.New("the API is not there yet")
}
