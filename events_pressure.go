//go:build linux

package container

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file waits for pressure (PSI). It runs in the caller's process. A trigger is written to a file, which the kernel then
// reports as ready with POLLPRI. The poller of the Go runtime does not ask for that; but an epoll descriptor that does is itself
// one that the runtime can wait for. So no thread waits.

// defaultPressureWindow is also the shortest one that every user may ask for.
const defaultPressureWindow = 2 * time.Second

// text is the trigger as the kernel reads it: "some 200000 2000000".
func (t PressureTrigger) text() (string, error) {
	var errs fieldErrors
	if t.Window == 0 {
		t.Window = defaultPressureWindow
	}
	if t.Window < time.Microsecond || t.Window > 10*time.Second {
		errs.addf("PressureTrigger.Window", "%v: must be from 1 us to 10 s", t.Window)
	}
	if t.Stall == 0 {
		t.Stall = max(t.Window/10, time.Microsecond)
	}
	if t.Stall < time.Microsecond || t.Stall > t.Window {
		errs.addf("PressureTrigger.Stall", "%v: must be from 1 us to the window, %v", t.Stall, t.Window)
	}
	kind := "some"
	if t.Full {
		kind = "full"
	}
	return fmt.Sprintf("%s %d %d", kind, t.Stall.Microseconds(), t.Window.Microseconds()), errs.join()
}

// NotifyMemoryPressure is NotifyPressure for PressureMemory. It needs no memory controller.
func (c *Cgroup) NotifyMemoryPressure(ctx context.Context, trigger PressureTrigger) (<-chan struct{}, error) {
	return c.NotifyPressure(ctx, PressureMemory, trigger)
}

// NotifyPressure sends a value when the processes of the cgroup have waited for a resource for as long as the trigger says. Several
// values become one if the receiver is slow. The channel is closed when ctx has ended or the cgroup has been
// removed. It does not need the Cgroup to stay open.
//
// It returns ErrUnsupported if the kernel does not measure pressure.
func (c *Cgroup) NotifyPressure(ctx context.Context, resource PressureResource, trigger PressureTrigger) (<-chan struct{}, error) {
	text, err := trigger.text()
	if err != nil {
		return nil, err
	}
	switch resource {
	case PressureCPU, PressureMemory, PressureIO:
	default:
		return nil, fieldErrorf("PressureResource", "%q: must be cpu, memory or io", resource)
	}
	file, err := c.trigger(string(resource)+".pressure", text)
	if err != nil {
		return nil, err
	}
	w, err := newPriorityWait(file)
	if err != nil {
		return nil, c.fileError(file.Name(), err)
	}
	pressure := make(chan struct{}, 1)
	go func() {
		defer close(pressure)
		defer w.close()
		w.each(ctx, func() { notify(pressure) })
	}()
	return pressure, nil
}

// trigger opens a file of PSI and writes a trigger, which is there until the file is closed.
func (c *Cgroup) trigger(name, text string) (*os.File, error) {
	fail := func(err error, remedy string) (*os.File, error) {
		return nil, &Error{Op: "cgroup", Path: c.path + "/" + name, Err: err, Remedy: remedy}
	}
	const off = "the kernel does not measure pressure: boot it with psi=1, or write 1 to cgroup.pressure"
	fd, err := openBelowCgroup(int(c.dir.Fd()), name, unix.O_RDWR|unix.O_NONBLOCK)
	switch err {
	case nil:
	case unix.ENOENT:
		if err := c.exists(); err != nil {
			return nil, err
		}
		return fail(ErrUnsupported, off)
	case unix.EACCES, unix.EPERM:
		return fail(err, "the file must be writable for the caller, who without CAP_SYS_RESOURCE also needs Linux 6.7")
	default:
		return nil, c.fileError(name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	switch _, err := unix.Write(fd, []byte(text)); err {
	case nil:
		return file, nil
	case unix.EOPNOTSUPP:
		file.Close()
		return fail(ErrUnsupported, off)
	case unix.EINVAL, unix.EPERM:
		file.Close()
		return fail(err, fmt.Sprintf("the trigger %q: without CAP_SYS_RESOURCE the window must be a multiple of 2 s; "+
			"older kernels want one of 500 ms at least, and have no full pressure for the cpu", text))
	default:
		file.Close()
		return nil, c.fileError(name, err)
	}
}

// A priorityWait waits for POLLPRI.
type priorityWait struct {
	file  *os.File // what is waited for
	epoll *os.File
	conn  syscall.RawConn
}

// newPriorityWait takes ownership of file.
func newPriorityWait(file *os.File) (*priorityWait, error) {
	w := &priorityWait{file: file}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		file.Close()
		return nil, err
	}
	fd := int(file.Fd())
	err = unix.SetNonblock(ep, true)
	w.epoll = os.NewFile(uintptr(ep), "epoll")
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLPRI, Fd: int32(fd)})
	}
	if err == nil {
		err = w.epoll.SetReadDeadline(time.Time{}) // an error if it is not in the runtime's poller
	}
	if err == nil {
		w.conn, err = w.epoll.SyscallConn()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// each calls f at each event. It returns when ctx has ended or the cgroup has been removed.
func (w *priorityWait) each(ctx context.Context, f func()) {
	stop := context.AfterFunc(ctx, func() { w.epoll.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	woken := false
	_ = w.conn.Read(func(fd uintptr) bool {
		if !woken { // it has not been waited yet
			woken = true
			return false
		}
		// That the epoll descriptor is ready is the event: the kernel has told of it once, when the runtime asked.
		// What there is to see here is the end: a removed cgroup stays ready, with an error.
		var event [1]unix.EpollEvent
		n, err := unix.EpollWait(int(fd), event[:], 0)
		if err != nil && err != unix.EINTR || n > 0 && event[0].Events&unix.EPOLLERR != 0 {
			return true
		}
		f()
		return false
	})
}

func (w *priorityWait) close() {
	w.epoll.Close()
	w.file.Close()
}
