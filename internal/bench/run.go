//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"example.com/container/internal/testenv"
)

// This file has the contenders that start a container on a directory, run one static program in
// it, wait for its end and remove the container.

// program is what runs in the containers.
const program = "/bin/true"

func runContenders(dir string) ([]contender, []string, error) {
	if os.Geteuid() != 0 {
		return nil, []string{"all: this is not root"}, nil
	}
	return startContenders(dir, false)
}

func rootlessContenders(dir string) ([]contender, []string, error) {
	return startContenders(dir, true)
}

// startContenders prepares a root directory and all who can start a container on it.
func startContenders(dir string, userns bool) (those []contender, skipped []string, err error) {
	rootfs := filepath.Join(dir, "rootfs")
	if err := makeRootfs(rootfs); err != nil {
		return nil, nil, err
	}
	if err := makeBundle(dir, rootfs, userns); err != nil {
		return nil, nil, err
	}
	for _, make := range []struct {
		name string
		make func(dir, rootfs string, userns bool) (contender, error)
	}{
		{oursName, ours}, {"C floor", floor}, {"crun", crun}, {"runc", runc}, {"bwrap", bwrap}, {"podman", podman},
	} {
		c, err := make.make(dir, rootfs, userns)
		if err != nil {
			skipped = append(skipped, make.name+": "+err.Error())
			continue
		}
		c.name = make.name
		those = append(those, c)
	}
	return those, skipped, nil
}

// makeRootfs fills a directory with a static true and the places for mounts.
func makeRootfs(rootfs string) error {
	if err := testenv.StaticBusybox.Probe(); err != nil {
		return err
	}
	for _, dir := range []string{"bin", "dev", "proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			return err
		}
	}
	busybox, err := os.ReadFile(testenv.LookPath("busybox"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin/busybox"), busybox, 0o755); err != nil {
		return err
	}
	return os.Symlink("busybox", filepath.Join(rootfs, program))
}

// crun does not touch cgroups here: neither do we, without limits.
func crun(dir, _ string, _ bool) (contender, error) {
	return command("crun", "--cgroup-manager=disabled", "--root", filepath.Join(dir, "crun"),
		"run", "--bundle", dir, "bench-crun")
}

func runc(dir, _ string, _ bool) (contender, error) {
	return command("runc", "--root", filepath.Join(dir, "runc"), "run", "--bundle", dir, "bench-runc")
}

// bwrap has no masked paths, and read-only ones only by a bind of each.
func bwrap(_, rootfs string, userns bool) (contender, error) {
	args := []string{
		"--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup",
		"--hostname", "container", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev",
		"--mqueue", "/dev/mqueue", "--ro-bind", "/sys", "/sys", "--new-session",
	}
	if userns {
		args = append(args, "--unshare-user", "--uid", "0", "--gid", "0")
	}
	return command("bwrap", append(args, program)...)
}

func podman(_, rootfs string, userns bool) (contender, error) {
	if userns && os.Geteuid() == 0 {
		return contender{}, errors.New("as root it maps other ids")
	}
	return command("podman", "run", "--rm", "--network=none", "--cgroups=disabled", "--rootfs", rootfs, program)
}

// command is a contender that is a program of the host, timed with its own start.
func command(name string, args ...string) (contender, error) {
	path := testenv.LookPath(name)
	if path == "" {
		return contender{}, errors.New("not installed")
	}
	return contender{once: func() (time.Duration, error) {
		var stderr strings.Builder
		cmd := exec.Command(path, args...)
		cmd.Stderr = &stderr
		start := time.Now()
		err := cmd.Run()
		took := time.Since(start)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
		}
		return took, err
	}}, nil
}
