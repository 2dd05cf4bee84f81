//go:build linux

package container

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// This file holds the locks of rules and ports: flock(2) on files of the store that are never removed. The kernel drops them at death. It runs
// in the caller's process.
//
// Order: the gate, the lock of the rules, then that of ports. Collecting takes the first two, so nobody who has one of them collects.

// lockRules takes the lock of a store's rules, on an open file or on nil. Who wants it goes through a gate: else many who share it would keep out one
// who wants it alone, as long as there is always one of them.
func lockRules(s *networkStore, f *os.File, how int) (*os.File, error) {
	if f != nil { // whoever is in the gate may be waiting for it
		if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
			return nil, os.NewSyscallError("flock", err)
		}
	}
	gate, err := lockFileOf(s.ctx, s.path("nat.gate"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	if f == nil {
		return lockFileOf(s.ctx, s.path("nat.lock"), how)
	}
	return f, flockUntil(s.ctx, int(f.Fd()), f.Name(), how)
}

// lockFileOf opens a file that is never removed, and waits for a lock on it.
func lockFileOf(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flockUntil(ctx, int(f.Fd()), path, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
