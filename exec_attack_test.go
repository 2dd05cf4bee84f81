//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attacks Exec from inside a running container.

// Root in the container traces what comes in, or takes its descriptors of the host's.
func TestExecCVE_2016_9962(t *testing.T) {
	attackExecs(t, rounds(200, 2000), func() *Process { return &Process{Args: []string{"true"}} })
}

// attackExecs enters a container whose first process tries everything on who enters.
func attackExecs(t *testing.T, n int, p func() *Process) {
	t.Helper()
	leak.Check(t)
	cfg := withAllCaps(attackConfig(t))
	attackerIn(t, cfg.Root.Dir)
	ready, stdout := pipe(t)
	c := lifeStart(t, cfg, &Process{Args: []string{"/attacker"}, Env: []string{attackVar + "=lookers"}, Stdout: stdout, Stderr: stdout})
	stdout.Close()
	readLine(t, ready)
	said := hunter{out: ready}
	for i := 0; i < n || i < 50*n && !said.one(); i++ {
		p := p()
		if err := c.Exec(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		p.Wait()
	}
	c.Signal(unix.SIGTERM)
	out := said.rest(t)
	if strings.Contains(out, "worked") || !strings.Contains(out, "tried") || strings.Contains(out, "tried 0") {
		t.Errorf("%s", out)
	}
	t.Log(strings.TrimSpace(out))
}

// A hunter is the output of an attacker that says so when it has found the first it can attack. On a busy machine it may not be there in
// time for any.
type hunter struct {
	out  *os.File
	text string
}

func (f *hunter) one() bool {
	f.out.SetReadDeadline(time.Now().Add(time.Millisecond))
	buf := make([]byte, 100)
	n, _ := f.out.Read(buf)
	f.text += string(buf[:n])
	return strings.Contains(f.text, "found one")
}

// rest is all of it, up to its end.
func (f *hunter) rest(t *testing.T) string {
	t.Helper()
	f.out.SetReadDeadline(time.Time{})
	return f.text + readAll(t, f.out)
}

// A working directory that is a descriptor of the runtime's leads to the host.
func TestExecCVE_2024_21626(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, attackConfig(t))
	outside := t.TempDir()
	for range 20 { // not close-on-exec, as those of a careless caller
		fd, err := unix.Open(outside, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	for n := 3; n <= 64; n++ {
		name := fmt.Sprintf("/proc/self/fd/%d", n)
		execSh(t, c, Process{}, "ln -sfn "+name+" /dir")
		for _, cwd := range []string{name, "/dir", "/dir/sub", "/proc/1/cwd", "/proc/1/root", "/proc/self/cwd"} {
			out, err := execIn(t, c.Exec, &Process{Args: []string{"pwd"}, Cwd: cwd})
			var e *Error
			if !errors.As(err, &e) || e.Op != "working directory" {
				t.Errorf("Cwd %s: %q, %v", cwd, out, err)
			}
			if n > 3 {
				break
			}
		}
		if _, err := execIn(t, c.Exec, &Process{Args: []string{name + "/bin/true"}}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The container changes its own passwd while the caller reads it: a link out of the root, a FIFO that
// blocks, a device without end, a file that is too large.
func TestExecHostilePasswd(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, attackConfig(t))
	for script, want := range map[string]string{
		"rm -f /etc/passwd; mkfifo /etc/passwd":                    "not a regular file",
		"rm -f /etc/passwd; ln -s /dev/zero /etc/passwd":           "not a regular file",
		"rm -f /etc/passwd; ln -s /proc/1/root/etc /etc/passwd":    "symbolic links",
		"rm -f /etc/passwd; ln -s ../../../etc/secret /etc/passwd": "",
		"rm -f /etc/passwd; yes | head -c 2000000 >/etc/passwd":    "too large",
	} {
		execSh(t, c, Process{User: "0"}, "mkdir -p /etc; "+script+" &&  :")
		_, err := execIn(t, c.Exec, &Process{Args: []string{"true"}, User: "web"})
		var field *FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", script, err)
		}
		_, err = execIn(t, c.Exec, &Process{Args: []string{"true"}})
		if want == "" && err != nil {
			t.Errorf("%s: as root %v", script, err)
		}
		if err := os.Remove(c.cfg.Root.Dir + "/etc/passwd"); err != nil {
			t.Fatal(err)
		}
	}
}

// execCgroup makes a cgroup of the test's own and moves a process there.
func execCgroup(t *testing.T, pid int) string {
	t.Helper()
	testenv.Need(t, testenv.Cgroup)
	own, err := testenv.CgroupDir()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(own) // the test may take the mount away
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("container-exec-%d", os.Getpid())
	if err := root.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer root.Close()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if err = root.Remove(name); err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
		}
	})
	if err := root.WriteFile(name+"/cgroup.procs", []byte(fmt.Sprint(pid)), 0); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(own, name)
}

// The process is born in the container's cgroup, and refused while that is frozen.
func TestExecCgroup(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.Cgroup)
	cfg := attackConfig(t)
	cfg.Namespaces.NewCgroup = false
	c := lifeNew(t, cfg)
	if err := c.Run(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	dir := execCgroup(t, c.Pid())
	t.Cleanup(func() { c.Destroy() })
	got := execSh(t, c, Process{}, "grep ^0:: /proc/self/cgroup")
	if !strings.HasSuffix(got, "/"+filepath.Base(dir)) {
		t.Errorf("born in %q, want %q", got, dir)
	}

	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(dir+"/cgroup.freeze", []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); frozen(c.Pid()) != (text == "1"); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("frozen is not %s", text)
			}
		}
	}
	if frozen(c.Pid()) || frozen(os.Getpid()) {
		t.Error("frozen")
	}
	write("1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Exec(ctx, &Process{Args: []string{"true"}}); !errors.Is(err, ErrPaused) {
		t.Errorf("paused: %v", err)
	}
	createStatus(t, c, StatusPaused)
	if err := c.Start(ctx); !errors.Is(err, ErrRunning) {
		t.Errorf("Start of a paused container: %v", err)
	}
	write("0")
	createStatus(t, c, StatusRunning)
	execSh(t, c, Process{}, "true")
}

// Without a way into the container's cgroup nothing is started: it would escape its limits.
func TestExecWithoutCgroupMount(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Cgroup)
	inMountNamespace(t, func(t *testing.T) {
		c := execSleeper(t, attackConfig(t))
		execCgroup(t, c.Pid())
		t.Cleanup(func() { c.Destroy() })
		unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
		if err := unix.Mount("none", "/sys/fs/cgroup", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH)
		info, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(info), " - cgroup2 ") {
			t.Skipf("cgroup v2 is mounted elsewhere, too: %v", err)
		}
		err = c.Exec(t.Context(), &Process{Args: []string{"true"}})
		wantError(t, err, "cgroup", ErrUnsupported)
	})
}
