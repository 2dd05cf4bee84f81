//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"example.com/container"
	"example.com/container/internal/testenv"
)

// This file has the contenders that run a container on a bridge with a published port. All of them do so in a network namespace that
// stands for the host, and in a process of their own: one that is there already would have a network of its own already.

// bridgeFlag is the first argument of this program when it does nothing but run such a container.
const bridgeFlag = "-bridge-only"

func prepareBridge(dir string) (f field, err error) {
	if os.Geteuid() != 0 {
		return field{skipped: []string{"all: this is not root"}}, nil
	}
	s, err := newStart(&f, dir, false, program)
	if err != nil {
		return f, err
	}
	enter, err := otherHost(&f)
	if err != nil {
		return f, err
	}
	f.add(oursName, func() (contender, error) {
		self, err := os.Executable()
		if err != nil {
			return contender{}, err
		}
		return command("nsenter", append(enter, self, bridgeFlag, s.state, s.rootfs)...)
	})
	f.add("podman", func() (contender, error) {
		podman, store := testenv.LookPath("podman"), filepath.Join(dir, "podman")
		if podman == "" {
			return contender{}, errors.New("not installed")
		}
		f.end = append(f.end, func() { removePodmanStore(store) })
		args := append(append(enter, podman), podmanStore(store)...)
		return command("nsenter", append(args, "run", "--rm", "--network=bridge", "--publish=8080:80", "--cgroups=disabled", "--log-driver=none",
			"--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--rootfs", s.rootfs, program)...)
	})
	return f, nil
}

// otherHost makes namespaces, and returns the options with which nsenter(1) enters them. What podman keeps about networks is in a file
// system that goes with them.
func otherHost(f *field) ([]string, error) {
	for _, name := range []string{"unshare", "nsenter", "ip", "cat"} {
		if testenv.LookPath(name) == "" {
			return nil, errors.New(name + " is not installed")
		}
	}
	cmd := exec.Command(testenv.LookPath("unshare"), "--net", "--mount", "sh", "-c",
		"mkdir -p /var/lib/cni && mount -t tmpfs tmpfs /var/lib/cni && mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	f.end = append(f.end, func() {
		in.Close() // cat ends
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return nil, fmt.Errorf("namespaces: %q, %w", line, errors.Join(err, io.ErrUnexpectedEOF))
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	return []string{"--target", pid, "--net", "--mount", "--"}, nil
}

// bridgeOnly is what the process does.
func bridgeOnly(state, rootfs string) error {
	s := start{state: state, rootfs: rootfs}
	cfg := s.config()
	cfg.Network = &container.NetworkConfig{
		Mode:         container.NetworkModeBridge,
		StateDir:     filepath.Join(state, "networks"),
		PortMappings: []container.PortMapping{{HostPort: 8080, ContainerPort: 80}},
	}
	c, err := container.New(state, "bench", cfg)
	if err != nil {
		return err
	}
	err = c.Run(context.Background(), &container.Process{Args: []string{program}})
	if err == nil {
		err = c.Wait()
	}
	return errors.Join(err, c.Destroy())
}
