//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"syscall"

	"example.com/container"
)

// This file ends containers: kill, delete.

func killCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var all bool
	f.BoolVar(&all, "all", false, "send the signal to all processes inside the container")
	f.BoolVar(&all, "a", false, "send the signal to all processes inside the container")
	return func(args []string) (int, error) {
		c, err := container.Load(a.root, args[0])
		if err != nil {
			return 1, err
		}
		sig := syscall.SIGTERM
		if len(args) > 1 {
			if sig, err = parseSignal(args[1]); err != nil {
				return 1, err
			}
		}
		send := c.Signal
		if all {
			send = c.SignalAll
		}
		err = send(sig)
		if errors.Is(err, container.ErrNotRunning) {
			if all {
				return 0, nil // runc too says nothing: there are none
			}
			return 1, errors.New("container not running")
		}
		if err != nil {
			return 1, err
		}
		return 0, nil
	}
}

func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		return syscall.Signal(n), nil
	}
	sig, err := container.ParseSignal(text)
	if err != nil {
		return 0, fmt.Errorf("unknown signal %q", text)
	}
	return sig, nil
}

func deleteCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var force bool
	f.BoolVar(&force, "force", false, "delete the container even if it is running, with SIGKILL")
	f.BoolVar(&force, "f", false, "delete the container even if it is running, with SIGKILL")
	return func(args []string) (int, error) {
		c, err := container.Load(a.root, args[0])
		if errors.Is(err, container.ErrNotExist) && force {
			return 0, nil
		}
		if err != nil {
			return 1, err
		}
		state, err := c.State()
		if err != nil && !force {
			return 1, err
		}
		if err == nil && !force && (state.Status == container.StatusRunning || state.Status == container.StatusPaused) {
			return 1, fmt.Errorf("cannot delete container %s that is not stopped: %s", args[0], state.Status)
		}
		if err := c.Stop(stopAtOnce()); err != nil && !force {
			return 1, err
		}
		if err := c.Destroy(); err != nil {
			return 1, err
		}
		return 0, nil
	}
}

// stopAtOnce is a context that is done.
func stopAtOnce() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
