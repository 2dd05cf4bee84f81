//go:build linux

package container

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file runs hooks: functions, and programs where the caller is. It runs in the caller's process.

// hookState is the state as programs of a kind read it.
func (c *Container) hookState(status Status, pid int) []byte {
	state := ContainerState{ID: c.id, Status: status, Pid: pid, Bundle: cmp.Or(c.cfg.Bundle, c.record.dir), Annotations: c.cfg.Annotations}
	text, _ := json.Marshal(state.OCI()) // of strings: cannot fail
	return append(text, '\n')
}

// hookGone returns ErrHookFunc if a hook of these kinds is a function that this process does not have.
func (c *Container) hookGone(kinds ...hookKind) error {
	for _, kind := range kinds {
		for i, h := range c.cfg.Hooks.list(kind) {
			if h.lost {
				return &Error{Op: hookStep(kind), Path: index("", i), Err: ErrHookFunc,
					Remedy: "call it in the process that has called New, or use a program"}
			}
		}
	}
	return nil
}

// runHooks runs the hooks of a kind up to the first that fails; of the kinds that are run inside, the
// functions only.
func (c *Container) runHooks(ctx context.Context, kind hookKind, state *ContainerState) error {
	for i := range c.cfg.Hooks.list(kind) {
		if err := c.runHook(ctx, kind, i, state); err != nil {
			return err
		}
	}
	return nil
}

// startHooks calls the functions of StartContainer. Until the last has returned, nothing of the container's runs.
func (c *Container) startHooks(ctx context.Context, state *stored) error {
	returned := false
	defer func() {
		if !returned {
			c.kill(state)
		}
	}()
	err := c.runHooks(ctx, hookStartContainer, &state.ContainerState)
	returned = err == nil
	return err
}

// poststart runs the hooks that come when the program runs. The record is not locked.
func (c *Container) poststart(ctx context.Context) error {
	if len(c.cfg.Hooks.list(hookPoststart)) == 0 {
		return nil
	}
	state, err := c.state()
	if err != nil {
		return err
	}
	returned := false
	defer func() {
		if !returned {
			c.kill(state)
		}
	}()
	err = c.runHooks(ctx, hookPoststart, &state.ContainerState)
	returned = err == nil
	return err
}

// kill ends a container whose start has failed.
func (c *Container) kill(state *stored) {
	if err := errors.Join(c.endOwn(), c.killAll(context.Background(), state)); err != nil {
		c.cfg.logger().Warn("the container could not be stopped after its start had failed", "id", c.id, "err", err)
	}
}

// poststop runs all hooks of the end, whatever becomes of them.
func (c *Container) poststop(state *stored) {
	if len(c.cfg.Hooks.list(hookPoststop)) == 0 {
		return
	}
	if state == nil { // damaged
		state = &stored{}
	}
	if p, err := c.process(); err == nil && state.Stopped.IsZero() {
		state.ended(p.live)
	}
	state.Status, state.Pid = StatusStopped, 0
	for i := range c.cfg.Hooks.Poststop {
		if err := c.runHook(context.Background(), hookPoststop, i, &state.ContainerState); err != nil {
			c.cfg.logger().Warn("a hook has failed", "id", c.id, "err", err)
		}
	}
}

// runHook runs one hook, unless it is one of those that are run inside.
func (c *Container) runHook(ctx context.Context, kind hookKind, i int, state *ContainerState) (err error) {
	h := &c.cfg.Hooks.list(kind)[i]
	object := h.Path
	switch {
	case h.isFunc():
		object = index("Func ", i)
		err = ErrHookFunc
		if h.Func != nil {
			c.inFunc.Add(1)
			defer c.inFunc.Add(-1)
			err = h.call(ctx, state)
		}
	case kind.inside():
		return nil
	default:
		err = h.run(ctx, c.hookState(state.Status, state.Pid))
	}
	if err != nil {
		return &Error{Op: hookStep(kind), Path: object, Err: err}
	}
	return nil
}

// call calls a function.
func (h *Hook) call(ctx context.Context, state *ContainerState) error {
	if h.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, h.Timeout)
		defer cancel()
	}
	own := deepCopy(*state)
	return h.Func(ctx, &own)
}

// run runs a program until its end, until its time is over or until ctx is done. Then it is killed, with what it
// has started and not sent away into another process group.
func (h *Hook) run(ctx context.Context, state []byte) error {
	stdin, err := memoryFile()
	if err == nil {
		defer stdin.Close()
		err = fillMemoryFile(stdin, state)
	}
	if err != nil {
		return err
	}
	r, w, err := hookPipe()
	if err != nil {
		return err
	}
	output := newTail(r)
	defer func() { r.Close(); <-output.done }()
	// Not os/exec, which waits for those who hold the output, and has its own opinion about double
	// entries of the environment.
	env := h.Env
	if env == nil {
		env = []string{} // nil would be ours
	}
	process, err := os.StartProcess(h.Path, h.argv(), &os.ProcAttr{
		Env: env, Files: []*os.File{stdin, w, w}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		var e *fs.PathError
		if errors.As(err, &e) {
			err = os.NewSyscallError("execve", e.Err)
		}
		return err
	}
	if err := h.await(ctx, process.Pid); err != nil {
		process.Wait()
		return err
	}
	end, err := process.Wait()
	if err == nil {
		err = exitError(end.Sys().(syscall.WaitStatus))
	}
	return output.explain(err)
}

// await waits for the end of a program, and leaves it to be waited for: until then nobody else can get
// its number, which is that of its process group too.
func (h *Hook) await(ctx context.Context, pid int) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	var late <-chan time.Time
	if h.Timeout > 0 {
		timer := time.NewTimer(h.Timeout)
		defer timer.Stop()
		late = timer.C
	}
	err := errHookTimeout
	select {
	case <-ended:
		return nil
	case <-late:
	case <-ctx.Done():
		err = ctx.Err()
	}
	unix.Kill(-pid, unix.SIGKILL)
	<-ended
	return err
}

// memoryFile returns an empty file in memory.
func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), "state"), nil
}

// fillMemoryFile writes text, to be read from the start, which nobody can change.
func fillMemoryFile(f *os.File, text []byte) error {
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
	return os.NewSyscallError("fcntl", err)
}

// hookPipe returns a pipe of which only our end is in the runtime's poller.
func hookPipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "hook"), os.NewFile(uintptr(fds[1]), "hook"), nil
}

// tailSize is how much of a program's output becomes part of an error.
const tailSize = 4096

// A tail reads a pipe to its end and keeps the last part of it.
type tail struct {
	r    *os.File
	done chan struct{}
	text []byte // once done is closed
}

// newTail reads r, until that is closed.
func newTail(r *os.File) *tail {
	t := &tail{r: r, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			t.keep(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	return t
}

// explain adds to the failure of a program, which has ended, what it has said. It does not wait for those who hold the pipe longer than
// the program lived: what that has written is in the pipe.
func (t *tail) explain(err error) error {
	if err == nil {
		return nil
	}
	t.r.SetReadDeadline(time.Unix(1, 0))
	<-t.done
	if conn, cerr := t.r.SyscallConn(); cerr == nil {
		conn.Control(func(fd uintptr) {
			buf := make([]byte, 32<<10)
			for range 32 { // a pipe has a megabyte at most, unless somebody goes on to fill it
				n, rerr := unix.Read(int(fd), buf)
				if n <= 0 && rerr != unix.EINTR {
					return
				}
				t.keep(buf[:max(n, 0)])
			}
		})
	}
	if text := bytes.TrimSpace(bytes.ToValidUTF8(t.text, []byte("?"))); len(text) > 0 {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// keep keeps the end of what has been read.
func (t *tail) keep(b []byte) {
	if t.text = append(t.text, b...); len(t.text) > tailSize {
		t.text = append(t.text[:0], t.text[len(t.text)-tailSize:]...)
	}
}

// innerPid is the number of a process in its own PID namespace; see NSpid in proc_pid_status(5).
func innerPid(pid int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			if list := strings.Fields(numbers); len(list) > 0 {
				return strconv.Atoi(list[len(list)-1])
			}
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no NSpid", pid)
}
