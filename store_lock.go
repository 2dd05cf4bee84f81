//go:build linux

package container

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// This file holds the locks of a store: flock(2) on files that are never removed. The kernel drops them
// at death; between two opens of one process they work as between processes.
//
// Order: lock (shared), then locks/<diff id>. Nothing is locked while either is waited for, except
// that the store's own lock is held all along.

// lockFile is a held lock.
type lockFile struct{ f *os.File }

func (l *lockFile) unlock() { l.f.Close() }

// lockShared is held while the store is used. Collecting garbage takes it alone.
func (s *Store) lockShared(ctx context.Context) (*lockFile, error) {
	return s.flock(ctx, "lock", unix.LOCK_SH, nil)
}

// lockLayer is held while a layer is being fetched and unpacked: another pull of the same layer
// waits, and finds it done. waiting is called if it is busy.
func (s *Store) lockLayer(ctx context.Context, id digest, waiting func()) (*lockFile, error) {
	return s.flock(ctx, "locks/"+id.hex(), unix.LOCK_EX, waiting)
}

// flock waits for a lock until ctx is done. It asks again and again: flockUntil would leave a thread behind, and Pull promises to leave nothing. Nobody
// wants one of these locks twice in a row, so that whoever waits has his turn.
func (s *Store) flock(ctx context.Context, name string, how int, waiting func()) (*lockFile, error) {
	path := filepath.Join(s.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	const longest = 50 * time.Millisecond
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		err := flockNow(int(f.Fd()), how)
		if err == nil {
			return &lockFile{f}, nil
		}
		if err != unix.EWOULDBLOCK {
			f.Close()
			return nil, &Error{Op: "lock", Path: path, Err: err, Remedy: "the store must be on a file system with flock(2)"}
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			err := lockedError(int(f.Fd()), path, calledOff(ctx))
			f.Close()
			return nil, err
		case <-time.After(pause):
		}
	}
}
