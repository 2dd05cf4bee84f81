// Package cli is what the example programs have in common: a directory for the record, signals passed
// on, exit codes as a shell expects them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"example.com/container"
)

// Run runs p in a container of its own, with the program's standard streams, and at a terminal of its own
// where standard input and output are one, and returns the exit code: the process's own; 127 and 126 if there is no such program, or none that can be executed;
// 125 for what else goes wrong.
//
// SIGINT, SIGTERM and SIGHUP are passed on. The first process of a container gets only the signals that it
// handles, so the second time the container is killed.
func Run(name string, cfg container.Config, p *container.Process) (code int) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	stateDir, err := os.MkdirTemp(RunDir(), "container-"+name+"-")
	if err != nil {
		return Fail(name, err)
	}
	defer os.RemoveAll(stateDir)
	c, err := container.New(stateDir, name, cfg)
	if err != nil {
		return Fail(name, err)
	}
	defer c.Destroy()

	p.Stdin, p.Stdout, p.Stderr = os.Stdin, os.Stdout, os.Stderr
	if container.IsTerminal(os.Stdin) && container.IsTerminal(os.Stdout) {
		p.Tty, p.Stderr = true, nil
	}
	if err := c.Run(context.Background(), p); err != nil {
		return Fail(name, err)
	}
	tellPorts(name, c, cfg.Network)
	go func() {
		seen := map[os.Signal]bool{}
		for s := range signals {
			if sig := s.(syscall.Signal); seen[s] {
				c.Signal(syscall.SIGKILL)
			} else {
				c.Signal(sig)
			}
			seen[s] = true
		}
	}()
	err = c.Wait()
	if exit, ok := errors.AsType[*container.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		return Fail(name, err)
	}
	return 0
}

// tellPorts prints the ports of the host that were chosen.
func tellPorts(name string, c *container.Container, n *container.NetworkConfig) {
	if n == nil || len(n.PortMappings) == 0 {
		return
	}
	state, err := c.State()
	if err != nil || state.Network == nil {
		return
	}
	for i, m := range state.Network.PortMappings {
		if n.PortMappings[i].HostPort == 0 && m.HostSocket == "" {
			fmt.Fprintf(os.Stderr, "%s: published %v\n", name, m)
		}
	}
}

// Fail prints an error and returns the exit code for it.
func Fail(name string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	switch {
	case errors.Is(err, container.ErrNotFound):
		return 127
	case errors.Is(err, container.ErrNotExecutable):
		return 126
	}
	return 125
}

// RunDir is a directory on a file system in memory, where there is one.
func RunDir() string {
	dirs := []string{os.Getenv("XDG_RUNTIME_DIR")}
	if os.Geteuid() == 0 {
		dirs = append(dirs, "/run")
	}
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && info.IsDir() && filepath.IsAbs(dir) {
			return dir
		}
	}
	return os.TempDir()
}

// Mounts is a flag that can be given several times: -v SRC:DST[:OPTIONS], with options as in
// fstab(5). SRC may be relative.
type Mounts []container.Mount

// Set adds a mount.
func (m *Mounts) Set(text string) error {
	src, rest, ok := strings.Cut(text, ":")
	dst, options, _ := strings.Cut(rest, ":")
	if !ok || src == "" || !strings.HasPrefix(dst, "/") {
		return errors.New("want SRC:DST[:OPTIONS], and DST absolute")
	}
	mount, err := container.ParseMountOptions(options)
	if err != nil {
		return err
	}
	if mount.Source, err = filepath.Abs(src); err != nil {
		return err
	}
	mount.Type, mount.Target = "bind", dst
	mount.Flags |= container.Recursive // what is mounted below SRC comes with it
	*m = append(*m, mount)
	return nil
}

func (m *Mounts) String() string { return "" }

// Strings is a flag that can be given several times.
type Strings []string

// Set adds a value.
func (s *Strings) Set(text string) error { *s = append(*s, text); return nil }

func (s *Strings) String() string { return strings.Join(*s, " ") }
