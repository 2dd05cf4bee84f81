//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"example.com/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file runs further processes in a container: exec.

// execFlags are the flags of exec.
type execFlags struct {
	startFlags
	cwd, user, process   string
	env, groups, caps    stringList
	tty, detach, noPrivs bool
	label, apparmor      string
	cgroup               string
}

func (e *execFlags) define(f *flag.FlagSet) {
	f.StringVar(&e.console, "console-socket", "", "`path` of an AF_UNIX socket that receives the console's master")
	f.StringVar(&e.pidfdSocket, "pidfd-socket", "", "`path` of an AF_UNIX socket that receives a pidfd of the process")
	f.StringVar(&e.pidFile, "pid-file", "", "`file` to write the process id to")
	f.IntVar(&e.preserve, "preserve-fds", 0, "pass `N` additional descriptors to the container")
	f.StringVar(&e.cwd, "cwd", "", "current working `directory` in the container")
	f.BoolVar(&e.noPrivs, "no-new-privs", false, "set no_new_privs")
	f.StringVar(&e.label, "process-label", "", "the SELinux `label` of the process")
	f.StringVar(&e.apparmor, "apparmor", "", "the AppArmor `profile` of the process")
	f.StringVar(&e.cgroup, "cgroup", "", "`path` of a cgroup below the container's; made if it is missing")
	f.Bool("ignore-paused", false, "taken and ignored: no process can start in a paused container")
	for _, name := range []string{"env", "e"} {
		f.Var(&e.env, name, "set an environment variable `KEY=VALUE`")
	}
	for _, name := range []string{"tty", "t"} {
		f.BoolVar(&e.tty, name, false, "allocate a pseudo-TTY")
	}
	for _, name := range []string{"user", "u"} {
		f.StringVar(&e.user, name, "", "`uid[:gid]`")
	}
	for _, name := range []string{"additional-gids", "g"} {
		f.Var(&e.groups, name, "additional `gid`")
	}
	for _, name := range []string{"process", "p"} {
		f.StringVar(&e.process, name, "", "`path` of a process.json")
	}
	for _, name := range []string{"detach", "d"} {
		f.BoolVar(&e.detach, name, false, "detach from the container's process")
	}
	for _, name := range []string{"cap", "c"} {
		f.Var(&e.caps, name, "add a `capability`")
	}
}

func execCommand(a *app, f *flag.FlagSet) func([]string) (int, error) {
	var e execFlags
	e.define(f)
	return func(args []string) (int, error) {
		code, err := e.exec(a, args)
		if err != nil {
			return 255, fmt.Errorf("exec failed: %w", err)
		}
		return code, nil
	}
}

func (e *execFlags) exec(a *app, args []string) (int, error) {
	c, err := container.Load(a.root, args[0])
	if err != nil {
		return 255, err
	}
	switch status, err := c.Status(); {
	case err != nil:
		return 255, err
	case status == container.StatusStopped:
		return 255, errors.New("cannot exec in a stopped container")
	}
	p, err := e.describe(c, args[1:])
	if err != nil {
		return 255, err
	}
	p.Cgroup = strings.Trim(e.cgroup, "/")
	if p.ExtraFiles, err = extraFiles(e.preserve, p); err != nil {
		return 255, err
	}
	if err := e.streams(p, e.detach); err != nil {
		return 255, err
	}
	p.LeaveZombie = e.detach
	fg, stop, err := newForeground(p)
	if err != nil {
		return 255, err
	}
	defer stop()
	err = c.Exec(context.Background(), p)
	close(fg.started)
	if err != nil {
		return 255, err
	}
	if err := e.started(p); err != nil {
		p.Signal(9)
		return 255, err
	}
	if e.detach {
		return 0, nil
	}
	return fg.wait()
}

// describe is the process that the flags ask for: that of --process, or the container's own with changes.
func (e *execFlags) describe(c *container.Container, args []string) (*container.Process, error) {
	if strings.Contains(e.cgroup, ":") {
		return nil, errors.New("--cgroup: cgroup v2 has no places for single controllers")
	}
	if e.process != "" {
		text, err := os.ReadFile(e.process)
		if err != nil {
			return nil, err
		}
		p := new(specs.Process)
		if err := json.Unmarshal(text, p); err != nil {
			return nil, err
		}
		return container.ProcessFromSpec(p)
	}
	if len(args) == 0 {
		return nil, errors.New("process args cannot be empty")
	}
	spec, err := container.ReadSpec(c.Config().Bundle)
	if err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, errors.New("process property must not be empty")
	}
	if err := e.change(spec.Process, args); err != nil {
		return nil, err
	}
	return container.ProcessFromSpec(spec.Process)
}

// change applies the flags to the container's own process.
func (e *execFlags) change(p *specs.Process, args []string) error {
	p.Args, p.Terminal, p.ConsoleSize = args, e.tty, nil
	p.Env = append(p.Env, e.env...)
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if e.noPrivs {
		p.NoNewPrivileges = true
	}
	for _, text := range e.groups {
		gid, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("parsing %s as a number for gid failed: %w", text, err)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	if e.user != "" {
		uid, gid, both := strings.Cut(e.user, ":")
		for _, id := range []struct {
			text string
			to   *uint32
			set  bool
		}{{uid, &p.User.UID, true}, {gid, &p.User.GID, both}} {
			if !id.set {
				continue
			}
			n, err := strconv.ParseUint(id.text, 10, 31)
			if err != nil {
				return fmt.Errorf("parsing %s as a number for uid or gid failed: %w", id.text, err)
			}
			*id.to = uint32(n)
		}
	}
	if len(e.caps) > 0 {
		if p.Capabilities == nil {
			p.Capabilities = &specs.LinuxCapabilities{}
		}
		for _, set := range []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted} {
			*set = append(*set, e.caps...)
		}
	}
	return nil
}
