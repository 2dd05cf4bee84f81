//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"sync"
)

// This file follows files of a cgroup for those who want to hear of changes. It runs in the caller's process: one goroutine for
// each file, which sleeps in the runtime's poller.

// A fileChange is the new text of a file, or why there will be no more.
type fileChange struct {
	file string
	text []byte
	err  error // fs.ErrNotExist: the cgroup has been removed
}

// A follower follows files.
type follower struct {
	changes <-chan fileChange // first the files as they are now
	stop    func()            // ends all goroutines and closes all files
}

// follow follows files, and the cgroup's removal if "cgroup.events" is among them. Who reads slowly misses what was between
// two changes.
func (c *Cgroup) follow(ctx context.Context, names ...string) (*follower, error) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	changes := make(chan fileChange, len(names))
	stop := func() {
		cancel()
		all.Wait()
	}
	watches := make([]*cgroupWatch, 0, len(names))
	for _, name := range names {
		w, err := c.watch(name)
		if err == nil {
			watches = append(watches, w)
			err = w.until(context.Background(), func([]byte) bool { return true })
		}
		if err != nil {
			for _, w := range watches {
				w.close()
			}
			cancel()
			return nil, err
		}
		changes <- fileChange{file: name, text: bytes.Clone(w.text)} // there is room
	}
	for _, w := range watches {
		last := bytes.Clone(w.text)
		send := func(change fileChange) bool {
			select {
			case changes <- change:
				return true
			case <-ctx.Done():
				return false
			}
		}
		all.Go(func() {
			defer w.close()
			err := w.until(ctx, func(text []byte) bool {
				if bytes.Equal(text, last) {
					return false
				}
				last = bytes.Clone(text)
				return !send(fileChange{file: w.name, text: last})
			})
			if err != nil && ctx.Err() == nil {
				send(fileChange{file: w.name, err: err})
			}
		})
	}
	return &follower{changes, stop}, nil
}

// NotifyOOM sends a value when the kernel has killed a process of the cgroup, or of one below it, for want of memory. Several
// kills become one value if the receiver is slow. The channel is closed when ctx has ended, or within
// a second after the cgroup has been removed. It does not need the Cgroup to stay open.
//
// It returns ErrUnsupported if the memory controller is not enabled for the cgroup.
func (c *Cgroup) NotifyOOM(ctx context.Context) (<-chan struct{}, error) {
	f, err := c.follow(ctx, "memory.events", "cgroup.events")
	if errors.Is(err, fs.ErrNotExist) {
		if err = c.exists(); err == nil {
			err = &Error{Op: "cgroup", Path: c.path + "/memory.events", Err: ErrUnsupported,
				Remedy: "enable the memory controller: write +memory to cgroup.subtree_control of the cgroup above"}
		}
	}
	if err != nil {
		return nil, err
	}
	oom := make(chan struct{}, 1)
	go func() {
		defer close(oom)
		defer f.stop()
		var kills counter
		for {
			select {
			case <-ctx.Done():
				return
			case change := <-f.changes:
				if change.err != nil {
					return
				}
				if change.file == "memory.events" && kills.more(change.text, "oom_kill") > 0 {
					notify(oom)
				}
			}
		}
	}()
	return oom, nil
}

// notify sends a value unless there is one that has not been received.
func notify(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// A counter is a number in a file that only grows.
type counter struct {
	known bool
	n     uint64
}

// more is by how much it has grown since the last call.
func (c *counter) more(text []byte, name string) (grown uint64) {
	n, ok := flatNumber(text, name)
	if !ok {
		return 0
	}
	if c.known && n > c.n {
		grown = n - c.n
	}
	c.known, c.n = true, n
	return grown
}

// flatNumber is one number of a file with lines of a name and a number.
func flatNumber(text []byte, name string) (value uint64, found bool) {
	parseFlat(text, func(key []byte, n uint64) {
		if string(key) == name {
			value, found = n, true
		}
	})
	return value, found
}
