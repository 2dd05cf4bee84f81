//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"example.com/container"
)

// This file makes containers: create, run, start.

// startFlags are the flags that create and run have in common.
type startFlags struct {
	bundle      string
	pidFile     string
	noPivot     bool
	keepKeyring bool
	preserve    int
	console     string
	pidfdSocket string
}

func (s *startFlags) define(f *flag.FlagSet) {
	f.StringVar(&s.bundle, "bundle", "", "path of the bundle `directory` (default: the current one)")
	f.StringVar(&s.bundle, "b", "", "path of the bundle `directory`")
	f.StringVar(&s.console, "console-socket", "", "`path` of an AF_UNIX socket that receives the console's master")
	f.StringVar(&s.pidfdSocket, "pidfd-socket", "", "`path` of an AF_UNIX socket that receives a pidfd of the process")
	f.StringVar(&s.pidFile, "pid-file", "", "`file` to write the process id to")
	f.BoolVar(&s.noPivot, "no-pivot", false, "refused: chroot can be left")
	f.BoolVar(&s.keepKeyring, "no-new-keyring", false, "inherit the caller's session keyring")
	f.IntVar(&s.preserve, "preserve-fds", 0, "pass `N` additional descriptors to the container")
}

// make records the container and describes its process; detached tells that nobody stays with it.
func (s *startFlags) make(a *app, id string, detached bool) (*container.Container, *container.Process, error) {
	if s.noPivot {
		return nil, nil, errors.New("--no-pivot is refused: without pivot_root the container can reach the host's files; put the bundle on another file system than the initial ramdisk")
	}
	bundle, err := filepath.Abs(s.bundle)
	if err != nil {
		return nil, nil, err
	}
	spec, err := container.ReadSpec(bundle)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("JSON specification file %s not found", filepath.Join(bundle, "config.json"))
	}
	if err != nil {
		return nil, nil, err
	}
	cfg, p, err := container.FromSpec(spec, bundle)
	if err != nil {
		return nil, nil, err
	}
	if p == nil {
		return nil, nil, errors.New("process property must not be empty")
	}
	if a.cgroupManager == "disabled" || container.CanLimitDevices() != nil { // no cgroup, or rootless
		if err := cfg.LimitDevicesByMounts(); err != nil {
			return nil, nil, err
		}
	}
	if cfg.Umask == nil {
		cfg.Umask = callersUmask()
	}
	if err := a.placeCgroup(&cfg); err != nil {
		return nil, nil, err
	}
	cfg.HostKeyring = s.keepKeyring
	cfg.Logger = a.logger
	if p.ExtraFiles, err = extraFiles(s.preserve, p); err != nil {
		return nil, nil, err
	}
	if err := s.streams(p, detached); err != nil {
		return nil, nil, err
	}
	c, err := container.New(a.root, id, cfg)
	return c, p, err
}

// placeCgroup carries out the flags about cgroups.
func (a *app) placeCgroup(cfg *container.Config) error {
	systemd := a.systemdCgroup || a.cgroupManager == "systemd"
	switch {
	case a.cgroupManager == "disabled":
		if cfg.Resources != nil {
			return errors.New("cgroups are disabled, but linux.resources asks for limits")
		}
		cfg.Cgroup = nil
	case systemd && cfg.Cgroup != nil && cfg.Cgroup.Manager == container.CgroupFS:
		return errors.New("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups")
	case systemd:
		if cfg.Cgroup == nil {
			cfg.Cgroup = &container.CgroupConfig{}
		}
		cfg.Cgroup.Manager = container.CgroupSystemd
	}
	return nil
}

// callersUmask is the umask of this process, which the specification makes the default.
func callersUmask() *uint32 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32)
			if umask := uint32(n); err == nil {
				return &umask
			}
		}
	}
	return nil
}

// started writes what tells the caller which process it is.
func (s *startFlags) started(p *container.Process) error {
	if err := sendPidfd(s.pidfdSocket, p.Pid()); err != nil {
		return err
	}
	return writePidFile(s.pidFile, p.Pid())
}

func createCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var s startFlags
	s.define(f)
	return func(args []string) (int, error) {
		c, p, err := s.make(a, args[0], true)
		if err != nil {
			return 1, fmt.Errorf("ocirun create failed: %w", err)
		}
		p.LeaveZombie = true
		if err = c.Create(context.Background(), p); err == nil {
			err = s.started(p)
		}
		if err != nil {
			c.Destroy()
			return 1, fmt.Errorf("ocirun create failed: %w", err)
		}
		return 0, nil
	}
}

func startCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		c, err := container.Load(a.root, args[0])
		if err != nil {
			return 1, err
		}
		switch err := c.Start(context.Background()); {
		case errors.Is(err, container.ErrRunning):
			return 1, errors.New("cannot start an already running container")
		case errors.Is(err, container.ErrNotRunning):
			return 1, errors.New("cannot start a container that has stopped")
		case err != nil:
			return 1, err
		}
		return 0, nil
	}
}

func runCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var s startFlags
	s.define(f)
	var detach, keep bool
	f.BoolVar(&detach, "detach", false, "detach from the container's process")
	f.BoolVar(&detach, "d", false, "detach from the container's process")
	f.BoolVar(&keep, "keep", false, "do not delete the container after it exits")
	f.Bool("no-subreaper", false, "taken and ignored: this program never is one")
	return func(args []string) (int, error) {
		fail := func(err error) (int, error) { return 1, fmt.Errorf("ocirun run failed: %w", err) }
		c, p, err := s.make(a, args[0], detach)
		if err != nil {
			return fail(err)
		}
		p.LeaveZombie = detach
		fg, stop, err := newForeground(p)
		if err != nil {
			return fail(err)
		}
		defer stop()
		err = c.Run(context.Background(), p)
		close(fg.started)
		if err == nil {
			err = s.started(p)
		}
		if err != nil {
			c.Destroy()
			return fail(err)
		}
		if detach {
			return 0, nil
		}
		code, err := fg.wait()
		if !keep {
			err = errors.Join(err, c.Destroy())
		}
		if err != nil {
			return fail(err)
		}
		return code, nil
	}
}

// A foreground is a process that this program stays with. A signal that comes before there is a process
// waits for it.
type foreground struct {
	p       *container.Process
	started chan struct{}
}

// newForeground begins to take signals.
func newForeground(p *container.Process) (f *foreground, stop func(), err error) {
	f = &foreground{p, make(chan struct{})}
	stop, err = container.ForwardSignals(f)
	return f, stop, err
}

// Signal passes a signal on.
func (f *foreground) Signal(sig syscall.Signal) error {
	<-f.started
	return f.p.Signal(sig)
}

// wait waits for the end of the process, and returns the exit code.
func (f *foreground) wait() (int, error) {
	err := f.p.Wait()
	if exit, ok := errors.AsType[*container.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}
