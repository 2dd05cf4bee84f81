//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"

	"example.com/container/internal/testenv"
)

// This file has the contenders that start a container on a directory, run one static program in
// it, wait for its end and remove the container.

// program is what runs in the containers.
const program = "/bin/true"

func prepareRun(dir string) (field, error) {
	if os.Geteuid() != 0 {
		return field{skipped: []string{"all: this is not root"}}, nil
	}
	return prepareStart(dir, false)
}

func prepareRootless(dir string) (field, error) { return prepareStart(dir, true) }

// A start is what all these contenders are to do.
type start struct {
	dir    string // for files of the contenders; it is an OCI bundle as well
	rootfs string
	state  string // for the records of containers: in memory, as /run is
	userns bool
	args   []string // of the first process
	limits []string // controllers to limit; nil: no cgroup
}

// prepareStart makes a root directory, and all who can start a container on it.
func prepareStart(dir string, userns bool) (f field, err error) {
	s, err := newStart(&f, dir, userns, program)
	if err != nil {
		return f, err
	}
	f.add(oursName, s.ours)
	f.add("C floor", func() (contender, error) { return s.floor(&f, floorSource, s.rootfs, program) })
	f.add("crun", s.crun)
	f.add("runc", s.runc)
	f.add("bwrap", s.bwrap)
	f.add("podman", func() (contender, error) { return s.podman(&f) })
	return f, nil
}

// newStart makes the root directory and a bundle for it.
func newStart(f *field, dir string, userns bool, args ...string) (s start, err error) {
	state, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		return s, err
	}
	f.end = append(f.end, func() { os.RemoveAll(state) })
	s = start{dir: dir, rootfs: filepath.Join(dir, "rootfs"), state: state, userns: userns, args: args}
	if err := s.makeRootfs(); err != nil {
		return s, err
	}
	return s, s.makeBundle()
}

// makeRootfs fills a directory with a static true and the places for mounts.
func (s start) makeRootfs() error {
	if err := testenv.StaticBusybox.Probe(); err != nil {
		return err
	}
	for _, dir := range []string{"bin", "dev", "proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(s.rootfs, dir), 0o755); err != nil {
			return err
		}
	}
	busybox, err := os.ReadFile(testenv.LookPath("busybox"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.rootfs, "bin/busybox"), busybox, 0o755); err != nil {
		return err
	}
	return os.Symlink("busybox", filepath.Join(s.rootfs, program))
}

// crun does not touch cgroups here: neither do we, without limits.
func (s start) crun() (contender, error) {
	return command("crun", "--cgroup-manager=disabled", "--root", filepath.Join(s.state, "crun"),
		"run", "--bundle", s.dir, "bench-crun")
}

func (s start) runc() (contender, error) {
	return command("runc", "--root", filepath.Join(s.state, "runc"), "run", "--bundle", s.dir, "bench-runc")
}

// bwrap has no masked paths, and read-only ones only by a bind of each.
func (s start) bwrap() (contender, error) {
	args := []string{
		"--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup",
		"--hostname", "container", "--bind", s.rootfs, "/", "--proc", "/proc", "--dev", "/dev",
		"--mqueue", "/dev/mqueue", "--ro-bind", "/sys", "/sys", "--new-session",
	}
	if s.userns {
		args = append(args, "--unshare-user", "--uid", "0", "--gid", "0")
	}
	return command("bwrap", append(args, program)...)
}

func (s start) podman(f *field) (contender, error) {
	if s.userns && os.Geteuid() == 0 {
		return contender{}, errors.New("as root it maps other ids")
	}
	store := filepath.Join(s.dir, "podman")
	// Its own limits are higher than what the hard limits of a machine may be.
	f.end = append(f.end, func() { removePodmanStore(store) })
	return command("podman", append(podmanStore(store), "run", "--rm", "--network=none",
		"--cgroups=disabled", "--log-driver=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
		"--rootfs", s.rootfs, program)...)
}
