//go:build linux

package container

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// This file lets the caller work in a container's network namespace, and names namespaces. It runs in
// the caller's process.

// GetNamespacePaths returns the paths of a process's namespaces by kind, "/proc/1234/ns/net". Whose they are
// holds as long as the process lives: when its number is used again they are another's.
func GetNamespacePaths(pid int) map[NamespaceKind]string { return namespacePaths(pid) }

// NamespacePaths returns the paths of the first process's namespaces by kind, "/proc/1234/ns/net". Those that the
// container shares with the caller are among them. It returns ErrNotRunning if there is no process.
func (c *Container) NamespacePaths() (map[NamespaceKind]string, error) {
	state, err := c.state()
	if err == nil && state.Pid == 0 {
		err = ErrNotRunning
	}
	if err != nil {
		return nil, c.failed("namespaces", err)
	}
	return namespacePaths(state.Pid), nil
}

// JoinNetworkNamespace calls f on a thread that is in the network namespace of a process, and returns what f
// returns. The thread is given up afterwards, and the caller's own is never changed: a function that
// switches the calling thread and returns, as one may expect from the name, lets other goroutines find themselves in the
// container's network later. For the same reason f must not start goroutines for what is to happen in the namespace; sockets
// that f has opened stay there, wherever they are used.
//
// The caller needs CAP_SYS_ADMIN: for the container of an ordinary user use Exec, or open the socket inside.
//
// Equivalent to: nsenter --target PID --net
func JoinNetworkNamespace(pid int, f func() error) error {
	path := namespacePath(pid, NetworkNamespace)
	fail := func(err error) error {
		e := &Error{Op: "join namespace", Path: path, Err: err}
		if errors.Is(err, unix.EPERM) {
			e.Remedy = "joining needs CAP_SYS_ADMIN in the caller's user namespace and in that of the network"
		}
		return e
	}
	ns, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer ns.Close()
	err = inNetworkNamespace(ns, f)
	var failed *os.SyscallError
	if errors.As(err, &failed) && failed.Syscall == "setns" {
		return fail(err)
	}
	return err
}

// inNetworkNamespace calls f on a thread that is in a network namespace, and ends with it.
func inNetworkNamespace(ns *os.File, f func() error) error {
	err := errors.New("the function has ended its goroutine")
	onOwnThread(func() {
		if serr := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); serr != nil {
			err = os.NewSyscallError("setns", serr)
			return
		}
		err = f()
	})
	return err
}

// onOwnThread calls f on a thread that ends with it.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread does not end, and /proc/self is about it.
			defer runtime.UnlockOSThread()
			onOwnThread(f)
			return
		}
		f() // the thread stays locked, so that it ends
	}()
	<-done
}
