//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// A podman is one installation of it: images and containers of its own, and our runtime. It sees nothing
// of the machine's or the user's own.
type podman struct {
	t       testing.TB
	dir     string
	env     []string
	options []string // before each command
}

// testImage is the image that all tests run, made of busybox.
const testImage = "localhost/busybox:test"

// podmanConf says what makes cgroups, and whether containers get any. The limits are below those of any user that
// runs tests.
const podmanConf = `
[engine]
cgroup_manager = %q
events_logger = "file"
runtime = "ocirun"
runtime_supports_nocgroup = ["ocirun", "crun"]
runtime_supports_json = ["ocirun"]
[engine.runtimes]
ocirun = [%q]
[containers]
cgroups = %q
log_driver = "k8s-file"
default_ulimits = ["nofile=512:512", "nproc=1000:1000"]
`

// newPodman makes an installation without cgroups, which works everywhere. At the end of the test nothing of it is left, and
// nothing that it has started.
func newPodman(t testing.TB) *podman { return newPodmanCgroups(t, "cgroupfs", "disabled") }

// newPodmanCgroups is newPodman with a manager of cgroups, and a mode: which containers get any.
func newPodmanCgroups(t testing.TB, manager, mode string) *podman {
	t.Helper()
	if testing.Short() {
		t.Skip("podman takes its time")
	}
	testenv.Need(t, testenv.UserNS, testenv.Podman)
	if os.Geteuid() != 0 {
		testenv.Need(t, testenv.SubIDs)
	}
	leak.Check(t)
	dir, err := os.MkdirTemp("", "p") // short: the paths of its sockets have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	p := &podman{t: t, dir: dir}
	t.Cleanup(p.remove)
	for _, name := range []string{"home", "run", "state"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	clitest.Executable(t, dir+"/ocirun", "--root", dir+"/state")
	if err := os.WriteFile(dir+"/containers.conf", fmt.Appendf(nil, podmanConf, manager, dir+"/ocirun", mode), 0o644); err != nil {
		t.Fatal(err)
	}
	p.env = []string{
		"HOME=" + dir + "/home", "XDG_RUNTIME_DIR=" + dir + "/run", "CONTAINERS_CONF=" + dir + "/containers.conf",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=" + dir, "TERM=vt100",
	}
	if mode != "disabled" && os.Geteuid() != 0 { // podman and the runtime call the user's own systemd
		bus := fmt.Sprintf("/run/user/%d/bus", os.Geteuid())
		if err := os.Symlink(bus, dir+"/run/bus"); err != nil {
			t.Fatal(err)
		}
		p.env = append(p.env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+bus)
	}
	busyboxTree(t, dir+"/tree")
	if err := writeTar(dir+"/image.tar", dir+"/tree"); err != nil {
		t.Fatal(err)
	}
	p.must("import", "--quiet", dir+"/image.tar", testImage)
	return p
}

// writeTar packs a tree that belongs to root, whoever has made it.
func writeTar(file, tree string) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link, _ := os.Readlink(path)
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name, h.Uid, h.Gid, h.Uname, h.Gname = strings.TrimPrefix(path, tree+"/"), 0, 0, "", ""
		if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// command is podman with a command line of a user's, bounded in time.
func (p *podman) command(args ...string) *exec.Cmd {
	all := []string{"-k", "5", "120", "podman", "--root", p.dir + "/storage", "--runroot", p.dir + "/runroot", "--tmpdir", p.dir + "/tmp", "--storage-driver", "vfs"}
	cmd := exec.Command("timeout", slices.Concat(all, p.options, args)...)
	cmd.Env = p.env
	return cmd
}

// run runs podman to its end. What it writes goes to files, since what it starts may outlive it.
func (p *podman) run(args ...string) (out, errs string, code int) {
	p.t.Helper()
	cmd := p.command(args...)
	for i, f := range []**os.File{new(*os.File), new(*os.File)} {
		file, err := os.CreateTemp(p.dir, "out")
		if err != nil {
			p.t.Fatal(err)
		}
		defer os.Remove(file.Name())
		defer file.Close()
		if *f = file; i == 0 {
			cmd.Stdout = file
		} else {
			cmd.Stderr = file
		}
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	text := func(w any) string {
		b, _ := os.ReadFile(w.(*os.File).Name())
		return string(b)
	}
	return text(cmd.Stdout), text(cmd.Stderr), code
}

// must is run for what has to work; it returns the output.
func (p *podman) must(args ...string) string {
	p.t.Helper()
	out, errs, code := p.run(args...)
	if code != 0 {
		p.t.Fatalf("podman %q: code %d, output %s, errors %s", args, code, out, errs)
	}
	return out
}

// want checks the output of a command.
func (p *podman) want(out string, args ...string) {
	p.t.Helper()
	if got := p.must(args...); strings.TrimSpace(got) != out {
		p.t.Errorf("podman %q: %q, want %q", args, got, out)
	}
}

// remove removes all containers and images, ends the process that keeps an ordinary user's namespace open, and
// removes what belongs to that user's subordinate ids.
func (p *podman) remove() {
	for _, args := range [][]string{
		{"pod", "rm", "--all", "--force", "--time", "0"}, {"rm", "--all", "--force", "--time", "0"},
		{"volume", "rm", "--all", "--force"}, {"rmi", "--all", "--force"},
	} {
		if _, errs, code := p.run(args...); code != 0 {
			p.t.Errorf("podman %q: code %d: %s", args, code, errs)
		}
	}
	if os.Geteuid() != 0 {
		p.run("unshare", "rm", "-rf", p.dir+"/storage", p.dir+"/runroot")
		if text, err := os.ReadFile(p.dir + "/tmp/pause.pid"); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	left, err := os.ReadDir(p.dir + "/state")
	if len(left) > 0 || err != nil {
		p.t.Errorf("the runtime's containers are left: %v, %v", left, err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := os.RemoveAll(p.dir) // podman's clean-up of a container may still be at work
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Error(err)
			return
		}
	}
}

// with are the options of a container of the tests. Podman adds its own profile of system calls.
func with(network string, args ...string) []string {
	return append([]string{"--network", network}, args...)
}

// once is the command line of a container that is gone when it ends.
func once(args ...string) []string {
	return append([]string{"run", "--rm"}, with("none", args...)...)
}

// sh is the command line of a container that runs a script, with options before the image.
func sh(script string, options ...string) []string {
	return once(append(options, testImage, "sh", "-c", script)...)
}
