//go:build linux

package container

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"time"
)

// This file tells what happens to a container. It runs in the caller's process, while the caller listens.

// NotifyOOM is [Cgroup.NotifyOOM] for the container's cgroup.
func (c *Container) NotifyOOM(ctx context.Context) (<-chan struct{}, error) {
	g, err := c.Cgroup()
	if err != nil {
		return nil, err
	}
	defer g.Close()
	oom, err := g.NotifyOOM(ctx)
	return oom, c.failed("notify", err)
}

// NotifyMemoryPressure is [Cgroup.NotifyMemoryPressure] for the container's cgroup.
func (c *Container) NotifyMemoryPressure(ctx context.Context, trigger PressureTrigger) (<-chan struct{}, error) {
	g, err := c.Cgroup()
	if err != nil {
		return nil, err
	}
	defer g.Close()
	pressure, err := g.NotifyMemoryPressure(ctx, trigger)
	return pressure, c.failed("notify", err)
}

// Events returns what happens to the container from when the loop begins, as it happens. If it is paused then, an EventPaused
// comes first. The sequence ends with the EventExit, which comes at once if the first process has ended; when ctx has ended,
// without an error; and after an error. A container that is paused and goes on while the loop is busy may show neither.
//
// It returns ErrNoCgroup if the container has no cgroup of its own, or none yet. Events of controllers that are not enabled do
// not come.
func (c *Container) Events(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		g, err := c.Cgroup()
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer g.Close()
		names := []string{"cgroup.events"}
		for _, name := range []string{"memory.events", "pids.events"} {
			if g.has(name) {
				names = append(names, name)
			}
		}
		f, err := g.follow(ctx, names...)
		if err != nil {
			yield(Event{}, c.failed("events", err))
			return
		}
		defer f.stop()
		exit := make(chan error, 1)
		exited := make(chan struct{})
		defer func() {
			cancel()
			<-exited
		}()
		go func() {
			defer close(exited)
			exit <- c.waitContext(ctx)
		}()
		e := events{yield: yield}
		if ctx.Err() != nil {
			return
		}
		for range names { // the files as they were when the loop began
			if change := <-f.changes; !e.changed(change.file, change.text) {
				return
			}
		}
		for {
			select {
			case <-ctx.Done():
				return
			case change := <-f.changes:
				switch {
				case errors.Is(change.err, fs.ErrNotExist): // destroyed; what is left to come is the exit
				case change.err != nil:
					yield(Event{}, c.failed("events", change.err))
					return
				case !e.changed(change.file, change.text):
					return
				}
			case err := <-exit:
				if ctx.Err() != nil {
					return
				}
				// What led to the end comes before it.
				for _, name := range names {
					if text, err := g.readFile(name); err == nil && !e.changed(name, []byte(text)) {
						return
					}
				}
				var ended *ExitError
				if err != nil && !errors.As(err, &ended) && !errors.Is(err, errUnknownExit) {
					yield(Event{}, c.failed("events", err))
					return
				}
				yield(Event{Time: time.Now(), Type: EventExit, Count: 1, Err: err}, nil)
				return
			}
		}
	}
}

// events turns changes of files into events.
type events struct {
	yield             func(Event, error) bool
	kills, failedFork counter
	paused            bool
}

// changed returns false if nobody listens any more.
func (e *events) changed(file string, text []byte) bool {
	send := func(t EventType, count uint64) bool {
		return count == 0 || e.yield(Event{Time: time.Now(), Type: t, Count: count}, nil)
	}
	switch file {
	case "memory.events":
		return send(EventOOM, e.kills.more(text, "oom_kill"))
	case "pids.events":
		return send(EventPidsMax, e.failedFork.more(text, "max"))
	}
	frozen, ok := flatNumber(text, "frozen")
	if paused := frozen != 0; ok && paused != e.paused {
		e.paused = paused
		if paused {
			return send(EventPaused, 1)
		}
		return send(EventResumed, 1)
	}
	return true
}
