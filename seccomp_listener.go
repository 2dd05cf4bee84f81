//go:build linux

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"example.com/container/internal/launch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// This file is the way of a filter's listener from the launcher to who answers: over a socket of its own, since Start may
// come from another process than Create, and since the launcher's is for its caller. It runs in the caller's process.

// A listenerLink is that socket.
type listenerLink struct {
	handler SeccompHandler
	ours    *os.File // with a handler
	theirs  *os.File // the launcher's
	agent   string   // without: the path that theirs is connected to

	// In the launcher: theirs, once it has a number, and what is sent with the listener.
	fd, text, size launch.Arg
}

// maxAgentText bounds what an agent is told: that must fit into the buffer of a socket whose other end nobody reads yet.
const maxAgentText = 64 << 10

// resolveListener makes the socket, if some call is to be asked about. Nobody is connected yet.
func (pl *plan) resolveListener() error {
	profile := pl.profile
	if profile == nil || !profile.notifies() {
		return nil
	}
	l := &listenerLink{agent: profile.ListenerPath, handler: pl.proc.SeccompNotify}
	if l.handler == nil {
		l.handler = pl.cfg.SeccompNotify
	}
	var err error
	switch {
	case l.agent != "":
		l.handler = nil
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err == nil {
			l.theirs = os.NewFile(uintptr(fd), "seccomp agent")
		}
		err = os.NewSyscallError("socket", err)
	case l.handler == nil:
		err = fieldErrorf("SeccompNotify", "is not set, and the profile has rules of action %s", SeccompNotify)
	default:
		l.ours, l.theirs, err = launch.SocketPair()
	}
	if err != nil {
		return &Error{Op: "seccomp", Err: err}
	}
	pl.listener = l
	return nil
}

// listenerFD is the socket's number in the launcher; 0 without one.
func (pl *plan) listenerFD() launch.Arg {
	l := pl.listener
	if l == nil {
		return 0
	}
	if l.fd == 0 {
		l.fd = pl.File(l.theirs)
	}
	if l.text == 0 {
		l.text, l.size = pl.Str("."), 1
	}
	return l.fd
}

// fileListener passes the socket on, and returns how many files that is. Its number is the last so far.
func (pl *plan) fileListener() launch.Arg {
	if pl.listenerFD() == 0 {
		return 0
	}
	return 1
}

// stepAgent asks the caller what the agent is to be told.
func (pl *plan) stepAgent() error {
	l := pl.listener
	if l == nil || l.agent == "" {
		return nil
	}
	pl.Step("seccomp agent", l.agent)
	pl.Send(tagAgent, 0)
	l.text = pl.Zero(maxAgentText)
	l.size = pl.WaitFor(l.text, maxAgentText).Result()
	return nil
}

// tellAgent answers stepAgent, once it has asked and is known.
func (s *starting) tellAgent() error {
	if !s.asking || s.firstPid() == 0 {
		return nil
	}
	s.asking = false
	fail := func(err error) error { return &Error{Op: "seccomp agent", Path: s.listener.agent, Err: err} }
	pid := s.firstPid()
	state := specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: s.cfg.Seccomp.ListenerMetadata}
	if err := json.Unmarshal(s.describe(pid), &state.State); err != nil {
		return fail(err)
	}
	text, err := json.Marshal(&state)
	if err != nil {
		return fail(err)
	}
	if len(text) > maxAgentText {
		return fail(fmt.Errorf("the state with its annotations has %d bytes, the limit is %d: %w", len(text), maxAgentText, unix.E2BIG))
	}
	if err := s.child.Send(text); err != nil && !errors.Is(err, unix.EPIPE) {
		return fail(err)
	} // with EPIPE it is gone, and why is the next message
	return nil
}

// describeTo is what an agent is told of a container that a process enters.
func (c *Container) describeTo(t *target) func(int) []byte {
	return func(int) []byte { return c.hookState(StatusRunning, t.pid) }
}

// agentPatience is how long an agent may take to accept a connection.
const agentPatience = 10 * time.Second

// connect connects an agent. It does nothing on a link that is nil.
func (l *listenerLink) connect(ctx context.Context) error {
	if l == nil || l.agent == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	conn, err := l.theirs.SyscallConn()
	for pause := time.Millisecond; err == nil; pause *= 2 {
		var failed error
		err = conn.Control(func(fd uintptr) { failed = unix.Connect(int(fd), &unix.SockaddrUnix{Name: l.agent}) })
		if failed == nil && err == nil {
			return nil
		}
		if failed != unix.EAGAIN && failed != unix.EINTR { // it has more connections waiting than it asked for
			err = os.NewSyscallError("connect", failed)
		} else {
			err = sleep(ctx, pause)
		}
	}
	return &Error{Op: "seccomp agent", Path: l.agent, Err: err}
}

// receive serves the listeners that come, until their filters have no process any more. Nobody has to end it: the launcher's
// end of the socket is closed by its execve or its death.
func (l *listenerLink) receive(log *slog.Logger) {
	if l == nil || l.ours == nil {
		return
	}
	socket, handler := l.ours, l.handler
	l.ours = nil
	go func() {
		defer socket.Close()
		for {
			f, err := launch.ReceiveFile(socket)
			if err == nil && f != nil {
				err = serveSeccomp(f, handler, log)
			}
			switch {
			case err == io.EOF:
				return
			case err != nil:
				log.Warn("a seccomp listener could not be received: its calls fail with ENOSYS", "err", err)
				if f == nil {
					return
				}
			}
		}
	}()
}

// close closes what is left to close.
func (l *listenerLink) close() {
	if l == nil {
		return
	}
	for _, f := range []*os.File{l.ours, l.theirs} {
		if f != nil {
			f.Close()
		}
	}
}
