//go:build linux

package main

import (
	"context"
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"example.com/container"
	"example.com/container/internal/testenv"
)

// This file has the contenders that start another process in a container that runs, and wait for its
// end. Each has a container of its own.

//go:embed testdata/join.c
var joinSource []byte

func prepareExec(dir string) (field, error) {
	if os.Geteuid() != 0 {
		return field{skipped: []string{"all: this is not root"}}, nil
	}
	return prepareJoin(dir, false)
}

func prepareExecRootless(dir string) (field, error) { return prepareJoin(dir, true) }

func prepareJoin(dir string, userns bool) (f field, err error) {
	s, err := newStart(&f, dir, userns, "/bin/busybox", "sleep", "100000")
	if err != nil {
		return f, err
	}
	c, err := s.running(&f)
	if err != nil {
		return f, err
	}
	f.add(oursName, func() (contender, error) {
		return contender{once: func() (sample, error) {
			began := time.Now()
			p := &container.Process{Args: []string{program}}
			err := c.Exec(context.Background(), p)
			if err == nil {
				err = p.Wait()
			}
			return sample{wall: time.Since(began)}, err
		}}, nil
	})
	f.add("C floor", func() (contender, error) {
		return s.floor(&f, joinSource, strconv.Itoa(c.Pid()), program)
	})
	f.add("crun", func() (contender, error) { return s.peer(&f, "crun", "--cgroup-manager=disabled") })
	f.add("runc", func() (contender, error) { return s.peer(&f, "runc") })
	f.add("nsenter", func() (contender, error) { return s.nsenter(c.Pid()) })
	return f, nil
}

// running is a container of ours; the field ends it.
func (s start) running(f *field) (*container.Container, error) {
	c, err := container.New(s.state, "bench-exec", s.config())
	if err != nil {
		return nil, err
	}
	f.end = append(f.end, func() { c.Destroy() })
	return c, c.Run(context.Background(), &container.Process{Args: s.args})
}

// peer runs a container of an OCI runtime; the field ends it.
func (s start) peer(f *field, name string, options ...string) (contender, error) {
	options = append(options, "--root", filepath.Join(s.state, name))
	id := "bench-exec-" + name
	path := testenv.LookPath(name)
	if path == "" {
		return contender{}, errors.New("not installed")
	}
	// Without pipes: the container would hold them.
	do := func(args ...string) error {
		return exec.Command(path, append(slices.Clone(options), args...)...).Run()
	}
	f.end = append(f.end, func() { do("delete", "--force", id) })
	if err := do("run", "--detach", "--bundle", s.dir, id); err != nil {
		return contender{}, err
	}
	return command(name, append(options, "exec", id, program)...)
}

// nsenter sets neither capabilities nor no_new_privs.
func (s start) nsenter(pid int) (contender, error) {
	if pid == 0 {
		return contender{}, errors.New("no process")
	}
	args := []string{"--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"}
	if s.userns {
		args = append(args, "--user", "--preserve-credentials")
	}
	return command("nsenter", append(args, program)...)
}
