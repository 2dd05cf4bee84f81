//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file waits for locks that other processes hold: flock(2). It runs in the caller's process. Who holds one may be stopped, so that every
// wait for which there is a context has an end. The kernel's own wait cannot be called off but by the end of its thread, and asking again and again would let everybody
// pass who happens to ask in time. So a thread waits in the kernel, and whoever gives up leaves it there, at most one for each file.

// A patience is the context of who has been given none: each lock is waited for that long.
type patience struct {
	context.Context
	each time.Duration
}

var (
	patiently context.Context = patience{context.Background(), 10 * time.Second}
	// hastily is for taking back what a start has made that has just waited in vain.
	hastily context.Context = patience{context.Background(), 200 * time.Millisecond}
)

// atLocked is called while a lock is waited for. Tests call waiting off by it.
var atLocked = func(path string) {}

// takingBack is the context for taking back what there is after an error.
func takingBack(err error) context.Context {
	if errors.Is(err, ErrLocked) {
		return hastily
	}
	return patiently
}

// flockUntil waits for a lock on an open file until ctx is done. After an error the file is to be closed: the lock may come later.
func flockUntil(ctx context.Context, fd int, path string, how int) error {
	p, patient := ctx.(patience)
	if ctx.Done() == nil && !patient {
		return flockWaiting(fd, how)
	}
	var late <-chan time.Time // never
	gaveUp := func() error { return calledOff(ctx) }
	if patient {
		timer := time.NewTimer(p.each)
		defer timer.Stop()
		late = timer.C
		gaveUp = func() error { return fmt.Errorf("%w, for %v", ErrLocked, p.each) }
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	file := fileID{st.Dev, st.Ino} // its path may be another's by now
	turn := flockTurns.join(file)
	select {
	case turn <- struct{}{}:
	default:
		atLocked(path)
		select {
		case turn <- struct{}{}:
		case <-late:
			flockTurns.leave(file)
			return lockedError(fd, path, gaveUp())
		case <-ctx.Done():
			flockTurns.leave(file)
			return lockedError(fd, path, gaveUp())
		}
	}
	passOn := func() {
		<-turn
		flockTurns.leave(file)
	}
	if err := flockNow(fd, how); err != unix.EWOULDBLOCK {
		passOn()
		return os.NewSyscallError("flock", err)
	}
	// The lock is that of the open file, whichever descriptor has taken it, and goes with the last of them.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		passOn()
		return os.NewSyscallError("fcntl", err)
	}
	locked := make(chan error, 1)
	go func() {
		err := flockWaiting(own, how)
		unix.Close(own)
		passOn()
		locked <- err
	}()
	atLocked(path)
	select {
	case err := <-locked:
		return err
	case <-late:
	case <-ctx.Done():
	}
	return lockedError(fd, path, gaveUp())
}

// flockNow does not wait: the error is EWOULDBLOCK while another has the lock.
func flockNow(fd, how int) error {
	for {
		if err := unix.Flock(fd, how|unix.LOCK_NB); err != unix.EINTR {
			return err
		}
	}
}

// flockWaiting has the kernel wait.
func flockWaiting(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// turns are the queues of those that want locks.
type turns struct {
	mu     sync.Mutex
	queues map[fileID]*turnQueue
}

// A turnQueue has room for one; those who wait to send come in their order.
type turnQueue struct {
	turn  chan struct{}
	users int
}

var flockTurns = turns{queues: map[fileID]*turnQueue{}}

// join returns the queue of a file. Leave is to be called afterwards.
func (t *turns) join(file fileID) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.queues[file]
	if q == nil {
		q = &turnQueue{turn: make(chan struct{}, 1)}
		t.queues[file] = q
	}
	q.users++
	return q.turn
}

func (t *turns) leave(file fileID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q := t.queues[file]; q.users > 1 {
		q.users--
	} else {
		delete(t.queues, file)
	}
}

// calledOff is ErrLocked of who was called off by ctx.
func calledOff(ctx context.Context) error { return fmt.Errorf("%w: %w", ErrLocked, ctxError(ctx)) }

// ctxError is ctx.Err(), and why it is done if somebody has said so.
func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// lockedError says who holds a lock.
func lockedError(fd int, path string, err error) error {
	e := &Error{Op: "lock", Path: path, Err: err, Remedy: "who holds it is not known: it may be in another PID namespace"}
	if pid := lockHolder(fd); pid != 0 {
		e.Remedy = fmt.Sprintf("process %d holds it", pid)
		switch name, state := processName(pid); state {
		case 'T', 't':
			e.Remedy += fmt.Sprintf(" (%s), and is stopped: let it go on, or end it", name)
		case 0:
			e.Remedy = fmt.Sprintf("process %d has taken it, and is gone: one that it has started holds it", pid)
		default:
			e.Remedy += fmt.Sprintf(" (%s): wait for it, or end it", name)
		}
	}
	return e
}

// lockHolder returns a process that holds an open file's lock; 0 if that is not known.
func lockHolder(fd int) int {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != file {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(fields[4], &pid); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// processName is the name of a process's program, and its state as proc_pid_stat(5) has it; 0 if there is none.
func processName(pid int) (name string, state byte) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	first, last := strings.IndexByte(string(text), '('), strings.LastIndex(string(text), ") ")
	if err != nil || first < 0 || last < first || last+2 >= len(text) {
		return "", 0
	}
	return fmt.Sprintf("%q", text[first+1:last]), text[last+2]
}

// lockFailed is the error of who has waited for a lock: one that says who holds it is left as it is.
func lockFailed(op, path string, err error) error {
	if err == nil || errors.Is(err, ErrLocked) {
		return err
	}
	return &Error{Op: op, Path: path, Err: err}
}
