//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"example.com/container"
	"golang.org/x/sys/unix"
)

// This file is about descriptors and files between this program, its caller and the container.

// extraFiles are the descriptors from 3 on that the caller passes to the process: those of systemd's
// socket activation, which LISTEN_FDS counts, and n more.
func extraFiles(n int, p *container.Process) ([]*os.File, error) {
	listen := 0
	if text := os.Getenv("LISTEN_FDS"); text != "" {
		var err error
		if listen, err = strconv.Atoi(text); err != nil || listen < 0 {
			return nil, fmt.Errorf("LISTEN_FDS=%s is not a number of descriptors", text)
		}
		if pid := os.Getenv("LISTEN_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
			listen = 0 // for somebody else
		}
	}
	if listen > 0 {
		p.Env = slices.DeleteFunc(p.Env, func(e string) bool {
			return strings.HasPrefix(e, "LISTEN_FDS=") || strings.HasPrefix(e, "LISTEN_PID=")
		})
		p.Env = append(p.Env, "LISTEN_FDS="+strconv.Itoa(listen), "LISTEN_PID=1")
	}
	if n < 0 {
		return nil, fmt.Errorf("--preserve-fds %d is not a number of descriptors", n)
	}
	var files []*os.File
	for fd := 3; fd < 3+listen+n; fd++ {
		f := os.NewFile(uintptr(fd), fmt.Sprintf("descriptor %d", fd))
		if _, err := f.Stat(); err != nil {
			return nil, fmt.Errorf("please check that the preserved-fd %d (of %d) is present: %w", fd-3, listen+n, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// streams connects the process with this program's streams, or its terminal with the socket that the
// flags name.
func (s *startFlags) streams(p *container.Process, detached bool) error {
	switch {
	case p.Tty && s.console != "":
		conn, err := net.Dial("unix", s.console)
		if err != nil {
			return err
		}
		defer conn.Close()
		p.ConsoleSocket, err = conn.(*net.UnixConn).File()
		return err
	case p.Tty && detached:
		return errors.New("cannot allocate tty if ocirun will detach without setting console socket")
	case s.console != "":
		return errors.New("cannot use console socket if ocirun will not detach or allocate tty")
	}
	p.Stdin, p.Stdout = os.Stdin, os.Stdout
	if !p.Tty {
		p.Stderr = os.Stderr
	}
	return nil
}

// writePidFile writes a number into a file that nobody finds half-written.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_SYNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
	}
	return err
}

// sendFile sends a descriptor over a unix socket, with a name for it, as runc does.
func sendFile(socket, name string, fd int) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte(name), syscall.UnixRights(fd), nil)
	return err
}

// sendPidfd sends a pidfd of a process of ours.
func sendPidfd(socket string, pid int) error {
	if socket == "" {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	return sendFile(socket, "pidfd", fd)
}
