//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// busyboxTree makes a root directory with busybox in it.
func busyboxTree(t testing.TB, dir string) {
	t.Helper()
	testenv.Need(t, testenv.StaticBusybox)
	busybox, err := os.ReadFile(testenv.LookPath("busybox"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"bin/busybox": string(busybox),
		"etc/passwd":  "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
		"etc/group":   "root:x:0:\napp:x:1000:\n",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range strings.Fields("sh cat ls echo sleep id env true false ps mount hostname touch stat head grep kill tty stty mknod dd wc readlink") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"proc", "sys", "dev", "tmp", "run", "root"} { // other runtimes want some of them
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// newBundle makes a bundle whose process is a shell with a script, by the spec command.
func newBundle(t testing.TB, script string, change func(*specs.Spec)) (dir string) {
	t.Helper()
	testenv.Need(t, testenv.UserNS)
	dir = t.TempDir()
	busyboxTree(t, filepath.Join(dir, "rootfs"))
	args := []string{"spec", "--bundle", dir}
	if os.Geteuid() != 0 {
		args = append(args, "--rootless")
	}
	if _, errs, code := clitest.Run(t, args...); code != 0 {
		t.Fatal(errs)
	}
	editSpec(t, dir, func(s *specs.Spec) {
		s.Version = "1.0.2" // older peers know nothing newer
		s.Process.Args = []string{"sh", "-c", script}
		if change != nil {
			change(s)
		}
	})
	return dir
}

func editSpec(t testing.TB, dir string, change func(*specs.Spec)) {
	t.Helper()
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(text, spec); err != nil {
		t.Fatal(err)
	}
	change(spec)
	if text, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A runtime is ours, or a peer to compare it with.
type runtime struct {
	t    testing.TB
	name string
	args []string // the program, and what always stands before the command
}

// ocirun is ours, with a directory for its containers that is empty in the end.
func ocirun(t testing.TB) runtime {
	root := t.TempDir()
	t.Cleanup(func() {
		if left, _ := os.ReadDir(root); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	program := filepath.Join(t.TempDir(), "ocirun")
	clitest.Executable(t, program)
	return runtime{t, "ocirun", []string{program, "--root", root}}
}

// peer is another runtime.
func peer(t testing.TB, name string) runtime {
	testenv.Need(t, testenv.Program(name, name))
	if name == "crun" { // it refuses a host with both versions of cgroups, so it sees one only
		script := `mount -t cgroup2 none /sys/fs/cgroup && exec crun --cgroup-manager disabled "$@"`
		return runtime{t, name, []string{"unshare", "--mount", "sh", "-c", script, "crun", "--root", t.TempDir()}}
	}
	return runtime{t, name, []string{testenv.LookPath(name), "--root", t.TempDir()}}
}

// run runs one command. Of a detached container the streams are files: nobody waits for their end.
func (r runtime) run(args ...string) (out string, code int) {
	r.t.Helper()
	all := append(r.args[1:len(r.args):len(r.args)], args...)
	file, err := os.CreateTemp(r.t.TempDir(), "out")
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("timeout", append([]string{"-k", "5", "60", r.args[0]}, all...)...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+r.t.TempDir())
	err = cmd.Run()
	text, _ := os.ReadFile(file.Name())
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(text), exit.ExitCode()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text), 0
}

// must is run for what has to work.
func (r runtime) must(args ...string) string {
	r.t.Helper()
	out, code := r.run(args...)
	if code != 0 {
		r.t.Fatalf("%s %v: code %d: %s", r.name, args, code, out)
	}
	return out
}

// await waits until a container has a status.
func (r runtime) await(id, status string) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var state struct{ Status string }
		out, _ := r.run("state", id)
		if json.Unmarshal([]byte(out), &state) == nil && state.Status == status {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %s does not become %s: %s", r.name, id, status, out)
		}
	}
}

// jsonKeys are the keys of an object, in order.
func jsonKeys(t testing.TB, text string) (keys []string) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		t.Fatal(err)
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		keys = append(keys, key.(string))
	}
	return keys
}
