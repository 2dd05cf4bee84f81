//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// This file speaks with systemd. It runs in the caller's process; a connection lives as long as one request.

const (
	systemdName    = "org.freedesktop.systemd1"
	systemdPath    = dbus.ObjectPath("/org/freedesktop/systemd1")
	systemdManager = systemdName + ".Manager"
)

// systemdPatience bounds what is asked of systemd, besides the caller's context.
const systemdPatience = 30 * time.Second

// A systemdConn is a connection with a manager of units.
type systemdConn struct {
	conn *dbus.Conn
	user bool
	jobs chan *dbus.Signal // JobRemoved, once subscribed
}

// A busAddress is where a manager of units is reached: by a bus, or at a socket of its own.
type busAddress struct {
	path   string // of the socket; an abstract one begins with "@"
	direct bool
}

// dialSystemd connects with the system's manager or with the user's. The connection ends with ctx.
func dialSystemd(ctx context.Context, user bool) (*systemdConn, error) {
	var errs []error
	absent := true
	for _, a := range busAddresses(user, os.Getenv, os.Geteuid()) {
		conn, err := a.dial(ctx)
		if err == nil {
			return &systemdConn{conn: conn, user: user}, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", a.path, err))
		absent = absent && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED))
	}
	if absent {
		errs = append(errs, errNoManager)
	}
	which, remedy := "the system's systemd", "start the service dbus"
	if user {
		which, remedy = "the user's systemd", "log in by ssh or at a terminal rather than by su or sudo, and install dbus-user-session; without a login, "+remedyLinger
	}
	return nil, &Error{Op: "systemd", Err: fmt.Errorf("%w: %s cannot be reached: %w", ErrUnsupported, which, errors.Join(errs...)), Remedy: remedy}
}

// errNoManager tells that nobody listens: there is no manager, and so nothing that it has made.
var errNoManager = errors.New("nobody listens")

// busAddresses lists where a manager may be reached, the likeliest first.
func busAddresses(user bool, env func(string) string, uid int) []busAddress {
	if !user {
		return []busAddress{{"/run/dbus/system_bus_socket", false}, {"/run/systemd/private", true}}
	}
	var list []busAddress
	for address := range strings.SplitSeq(env("DBUS_SESSION_BUS_ADDRESS"), ";") {
		if path := unixSocket(address); path != "" {
			list = append(list, busAddress{path, false})
		}
	}
	dirs := []string{"/run/user/" + strconv.Itoa(uid)}
	if own := env("XDG_RUNTIME_DIR"); own != "" && own != dirs[0] {
		dirs = []string{own, dirs[0]}
	}
	for _, dir := range dirs {
		if bus := (busAddress{filepath.Join(dir, "bus"), false}); len(list) == 0 || list[0] != bus {
			list = append(list, bus)
		}
	}
	for _, dir := range dirs {
		list = append(list, busAddress{filepath.Join(dir, "systemd/private"), true})
	}
	return list
}

// unixSocket is the path in an address of the D-Bus specification, "unix:path=/run/user/1000/bus,guid=..."; empty for
// an address of another kind: what is not on this host does not know its processes.
func unixSocket(address string) string {
	rest, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return ""
	}
	for pair := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		switch {
		case err != nil || value == "":
		case key == "path":
			return value
		case key == "abstract":
			return "@" + value
		}
	}
	return ""
}

func (a busAddress) dial(ctx context.Context) (_ *dbus.Conn, err error) {
	socket, err := (&net.Dialer{}).DialContext(ctx, "unix", a.path)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, err
	}
	// One handler for all signals, in their order: the usual one drops what comes while nobody listens.
	conn, err := dbus.NewConn(socket, dbus.WithContext(ctx), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		socket.Close()
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if err := conn.Auth(nil); err != nil {
		return nil, err
	}
	if a.direct {
		return conn, sameProcesses(peerPid(socket))
	}
	if err := conn.Hello(); err != nil {
		return nil, err
	}
	var owned bool
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, systemdName).Store(&owned); err != nil {
		return nil, err
	}
	if !owned {
		return nil, errors.New("systemd is not on this bus")
	}
	var pid uint32
	err = conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, conn.Names()[0]).Store(&pid)
	if err == nil && int(pid) != os.Getpid() {
		err = errOtherPids
	}
	return conn, err
}

// errOtherPids: systemd would move another process than the one that is meant.
var errOtherPids = errors.New("it is outside of the caller's PID namespace")

func sameProcesses(peer int32) error {
	if peer == 0 {
		return errOtherPids
	}
	return nil
}

// peerPid is who listens at the other end, as a number of the caller's PID namespace; 0 if it is not in there.
func peerPid(socket net.Conn) (pid int32) {
	raw, err := socket.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	return pid
}

func (s *systemdConn) close() { s.conn.Close() }

// call calls a method of the manager.
func (s *systemdConn) call(ctx context.Context, method string, args ...any) *dbus.Call {
	return s.conn.Object(systemdName, systemdPath).CallWithContext(ctx, systemdManager+"."+method, 0, args...)
}

// subscribe asks for the ends of jobs, which must be done before a job begins.
func (s *systemdConn) subscribe(ctx context.Context) error {
	s.jobs = make(chan *dbus.Signal, 16)
	s.conn.Signal(s.jobs)
	if len(s.conn.Names()) > 0 { // on a bus; the manager's own socket brings all
		err := s.conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(systemdName), dbus.WithMatchObjectPath(systemdPath),
			dbus.WithMatchInterface(systemdManager), dbus.WithMatchMember("JobRemoved"))
		if err != nil {
			return err
		}
	}
	return s.call(ctx, "Subscribe").Err
}

// job calls a method that begins a job, and waits for its end.
func (s *systemdConn) job(ctx context.Context, method string, args ...any) error {
	if err := s.subscribe(ctx); err != nil {
		return err
	}
	var job dbus.ObjectPath
	if err := s.call(ctx, method, args...).Store(&job); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case signal, ok := <-s.jobs:
			if !ok {
				if err := ctx.Err(); err != nil {
					return err
				}
				return errors.New("systemd has closed the connection")
			}
			var number uint32
			var ended dbus.ObjectPath
			var unit, result string
			if signal.Name != systemdManager+".JobRemoved" || dbus.Store(signal.Body, &number, &ended, &unit, &result) != nil || ended != job {
				continue
			}
			if result != "done" {
				return fmt.Errorf("the job of systemd ended with %q", result)
			}
			return nil
		}
	}
}

// isBusError tells whether systemd has answered with an error of this name.
func isBusError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == systemdName+"."+name
}

// controlGroup is the cgroup that the manager has divided.
func (s *systemdConn) controlGroup() (string, error) {
	value, err := s.conn.Object(systemdName, systemdPath).GetProperty(systemdManager + ".ControlGroup")
	if err != nil {
		return "", err
	}
	group, _ := value.Value().(string)
	if group == "" { // of the system's manager that is the root of the tree
		group = "/"
	}
	return group, nil
}
