//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/container/internal/testenv"
)

// pureUser is who the helpers are tested with: a user that exists only in the test's own mount namespace.
const pureUser = 31337

// pureAsUserWithSubIDs runs the test again, alone, as an ordinary user with subordinate ids, and returns true
// in that run. The user is made in a mount namespace that is gone afterwards: nothing of it reaches the host.
func pureAsUserWithSubIDs(t *testing.T) bool {
	t.Helper()
	const stage = "CONTAINER_PURE_STAGE"
	switch os.Getenv(stage) {
	case "user":
		return true
	case "mounts":
		dir := os.Getenv("CONTAINER_PURE_DIR")
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"passwd", "subuid", "subgid"} {
			if err := unix.Mount(filepath.Join(dir, name), "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
		}
	default:
		testenv.Need(t, testenv.Root, testenv.Program("newuidmap", "uidmap"), testenv.Program("newgidmap", "uidmap"))
	}
	dir := os.Getenv("CONTAINER_PURE_DIR")
	next, attr := "user", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: pureUser, Gid: pureUser}}
	if os.Getenv(stage) == "" {
		dir = t.TempDir()
		for name, text := range map[string]string{
			"passwd": "root:x:0:0::/:/bin/sh\npure:x:31337:31337::/:/bin/sh\n",
			"subuid": "pure:3000000:65536\n",
			"subgid": "pure:4000000:1000\n31337:4100000:1000\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		next, attr = "mounts", &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), stage+"="+next, "CONTAINER_PURE_DIR="+dir, "TMPDIR=/tmp")
	cmd.Dir = "/"
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	testenv.Again(t, out, err)
	return false
}

// pureUserNamespace starts a process that waits in a new user namespace without maps, and returns its pid.
func pureUserNamespace(t *testing.T) int {
	t.Helper()
	testenv.Need(t, testenv.UserNS)
	cmd := exec.Command("/bin/cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWUSER}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process.Pid
}

func TestWriteWithHelpers(t *testing.T) {
	if !pureAsUserWithSubIDs(t) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	uid, gid, err := SubordinateIDs()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(idMapText(uid)), "0 31337 1\n1 3000000 65536\n"; got != want {
		t.Errorf("uid map is %q, want %q", got, want)
	}
	if got, want := string(idMapText(gid)), "0 31337 1\n1 4000000 1000\n1001 4100000 1000\n"; got != want {
		t.Errorf("gid map is %q, want %q", got, want)
	}
	if err := writeWithHelpers(ctx, pureUserNamespace(t), uid, gid); err != nil {
		t.Errorf("the caller's own ranges: %v", err)
	}
	// A second time the map is there already, and the kernel refuses.
	pid := pureUserNamespace(t)
	if err := writeWithHelpers(ctx, pid, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := writeWithHelpers(ctx, pid, uid, gid); err == nil {
		t.Error("maps were written twice")
	}
	// Ranges of others: newuidmap's own words reach the caller.
	err = writeWithHelpers(ctx, pureUserNamespace(t), []IDMap{pureMap(0, 0, 10)}, gid)
	var e *Error
	var exit *exec.ExitError
	if !errors.As(err, &e) || !errors.As(err, &exit) || !strings.Contains(err.Error(), "not allowed") || e.Remedy == "" {
		t.Errorf("the range of others: %v", err)
	}
	// A context that is done.
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := writeWithHelpers(done, pureUserNamespace(t), uid, gid); !errors.Is(err, context.Canceled) {
		t.Errorf("context done: %v", err)
	}
}

func TestWriteWithHelpersMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := writeWithHelpers(context.Background(), os.Getpid(), nil, nil)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "package uidmap") {
		t.Errorf("got %v", err)
	}
	// A helper of the current directory is none.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "newuidmap"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("PATH", ".")
	if err := writeWithHelpers(context.Background(), os.Getpid(), nil, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

// A helper that lies about success is found out.
func TestWriteWithHelpersReadBack(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"newuidmap", "newgidmap"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	err := writeWithHelpers(context.Background(), pureUserNamespace(t), []IDMap{pureMap(0, 5, 1)}, []IDMap{pureMap(0, 5, 1)})
	if err == nil || !strings.Contains(err.Error(), "instead of") {
		t.Errorf("got %v", err)
	}
}

func TestSameIDMap(t *testing.T) {
	maps := []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 65536)}
	for text, want := range map[string]bool{
		"         0       1000          1\n         1     100000      65536\n": true,
		"1 100000 65536\n0 1000 1\n": true,
		"0 1000 1\n":                 false,
		"0 1000 1\n1 100000 65535\n": false,
		"":                           false,
	} {
		if got := sameIDMap(text, maps); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}
