//go:build linux

package container

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file waits for changes of a cgroup's files, in the caller's process. The kernel wakes who polls
// "cgroup.events", "memory.events", "pids.events" and their like, so such a file is a descriptor in the poller of the Go
// runtime: waiting costs neither a thread nor one of the few inotify instances of a user, and nothing is asked in between.

// A cgroupWatch is one of a cgroup's files, open. It is for one goroutine; stop may come from another.
type cgroupWatch struct {
	file *os.File
	conn syscall.RawConn
	name string
	fail func(error) error
	text []byte
}

// watch opens a file of which the kernel tells that it has changed.
func (c *Cgroup) watch(name string) (*cgroupWatch, error) {
	fail := func(err error) error { return c.fileError(name, err) }
	// With O_NONBLOCK the runtime takes it into its poller.
	fd, err := openBelowCgroup(int(c.dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fail(err)
	}
	w := &cgroupWatch{file: os.NewFile(uintptr(fd), name), name: name, fail: fail, text: make([]byte, 0, 1024)}
	w.conn, err = w.file.SyscallConn()
	if err == nil {
		err = w.file.SetReadDeadline(time.Time{}) // an error if it is not in the poller
	}
	if err != nil {
		w.file.Close()
		return nil, fail(err)
	}
	return w, nil
}

// until reads the file, and again after each change, until done is true of its text. It returns the context's error
// if that ends before, and ErrNotExist if the cgroup is removed and the file is "cgroup.events". The text is valid
// during the call.
func (w *cgroupWatch) until(ctx context.Context, done func(text []byte) bool) error {
	var err error
	seen := false
	ctlErr := w.conn.Control(func(fd uintptr) { // also if ctx has ended
		if err = w.read(int(fd)); err == nil {
			seen = done(w.text)
		}
	})
	if err = cmp.Or(err, ctlErr); err != nil {
		return w.fail(err)
	}
	if seen {
		return nil
	}
	stop := context.AfterFunc(ctx, w.stop)
	defer stop()
	quiet := false // all that the kernel held back when the file was read has been told
	for {
		waitErr := w.conn.Read(func(fd uintptr) bool {
			if !quiet || told(fd) {
				quiet = false
				if err = w.read(int(fd)); err != nil || done(w.text) {
					return true
				}
			}
			w.expectRemoval(ctx, quiet)
			return false // to the poller, until the kernel says that the file has changed
		})
		switch {
		case err != nil:
			return w.fail(err)
		case waitErr == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(waitErr, os.ErrDeadlineExceeded):
			return w.fail(waitErr)
		}
		w.file.SetReadDeadline(time.Time{}) // only to see whether it is still there
		quiet = true
	}
}

// heldBack is longer than the kernel holds back that a file has changed: 10 ms after it has told so the last time, and a tick or two.
const heldBack = 100 * time.Millisecond

// told tells whether the kernel has said that the file has changed since it was read, or that it is gone. Unlike a look at the text it leaves
// that to be said again.
func told(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, 0)
	return n != 0 || err != nil
}

// expectRemoval sees to it that a removed cgroup is noticed. The kernel tells that a cgroup is empty, which comes before, and of
// the removal itself nobody who has the cgroup open; so an empty one is looked at each second. And what the kernel holds back it
// never tells if the cgroup is removed meanwhile; so after each change one more look is taken, when nothing can be held back any more.
func (w *cgroupWatch) expectRemoval(ctx context.Context, quiet bool) {
	if w.name != "cgroup.events" {
		return
	}
	next := time.Time{}
	switch {
	case !quiet:
		next = time.Now().Add(heldBack)
	case bytes.Contains(w.text, []byte("populated 0\n")):
		next = time.Now().Add(time.Second)
	}
	w.file.SetReadDeadline(next)
	if ctx.Err() != nil {
		w.stop() // it may have been before
	}
}

// stop makes until return.
func (w *cgroupWatch) stop() { w.file.SetReadDeadline(time.Unix(1, 0)) }

// read reads the file from its beginning, which also tells the kernel that this state has been seen.
func (w *cgroupWatch) read(fd int) error {
	w.text = w.text[:0]
	for {
		n, err := unix.Pread(fd, w.text[len(w.text):cap(w.text)], int64(len(w.text)))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0 && len(w.text) < cap(w.text):
			return nil
		default:
			w.text = w.text[:len(w.text)+n]
			if len(w.text) == cap(w.text) {
				if len(w.text) >= maxCgroupFile {
					return unix.EFBIG
				}
				w.text = append(w.text, 0)[:len(w.text)]
			}
		}
	}
}

func (w *cgroupWatch) close() { w.file.Close() }

// await returns when done is true of the text of a file like "cgroup.events", as soon as the kernel says that it has changed. It
// returns ctx's error if that ends before, and fs.ErrNotExist if the cgroup is gone.
func (c *Cgroup) await(ctx context.Context, file string, done func(text string) bool) error {
	w, err := c.watch(file)
	if err != nil {
		return err
	}
	defer w.close()
	return w.until(ctx, func(text []byte) bool { return done(string(text)) })
}
