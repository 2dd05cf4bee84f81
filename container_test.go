//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
)

// This file holds what the tests of running containers share.

// busyboxRoot makes a root file system of busybox in a directory.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	testenv.Need(t, testenv.StaticBusybox)
	program := testenv.LookPath("busybox")
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeTree(t, dir, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\n",
		"etc/group":  "root:x:0:\nwww:x:33:\nextra:x:44:www\n",
	})
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeTree makes files below dir: a name that ends in a slash is a directory, a content that begins
// with "-> " is the target of a symbolic link.
func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch to, link := strings.CutPrefix(content, "-> "); {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case link:
			os.RemoveAll(path)
			err = os.Symlink(to, path)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// testConfig is the default configuration with a root of busybox that may be written to.
func testConfig(t testing.TB) Config {
	t.Helper()
	testenv.Need(t, testenv.UserNS)
	cfg := DefaultConfig()
	cfg.Root = Directory(busyboxRoot(t))
	return cfg
}

// runIn runs a process in a new container until its end, destroys the container, and returns what
// the process wrote.
func runIn(t testing.TB, cfg Config, p *Process) (output string, err error) {
	t.Helper()
	c, err := New(t.TempDir(), "test", cfg)
	if err != nil {
		return "", err
	}
	return runOnce(t, c, p)
}

// runOnce is runIn for a container that is there.
func runOnce(t testing.TB, c *Container, p *Process) (output string, err error) {
	t.Helper()
	defer func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	}()
	var out bytes.Buffer
	if p.Stdout == nil {
		p.Stdout = &out
	}
	if p.Stderr == nil {
		p.Stderr = &out
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Run(ctx, p); err != nil {
		return out.String(), err
	}
	err = c.Wait()
	return out.String(), err
}

// sh runs a shell script, which must succeed, and returns its output without the last newline.
func sh(t testing.TB, cfg Config, script string) string {
	t.Helper()
	return shAs(t, cfg, &Process{}, script)
}

func shAs(t testing.TB, cfg Config, p *Process, script string) string {
	t.Helper()
	p.Args = []string{"sh", "-c", script}
	out, err := runIn(t, cfg, p)
	if err != nil {
		t.Fatalf("%v; output:\n%s", err, out)
	}
	return strings.TrimSuffix(out, "\n")
}

// wantText compares the output of a script line by line with what it should be.
func wantText(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// wantError returns the Error of a start that must have failed in a step, with a reason.
func wantError(t testing.TB, err error, op string, reason error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Op != op || reason != nil && !errors.Is(err, reason) {
		t.Errorf("got the error %v, want one of the step %q with the reason %v", err, op, reason)
		return &Error{Err: err}
	}
	return e
}

func BenchmarkRun(b *testing.B) {
	testenv.Need(b, testenv.Root)
	cfg := DefaultConfig()
	cfg.Root = Directory(busyboxRoot(b))
	cfg.Namespaces.NewUser = false
	benchmarkRun(b, cfg)
}

func BenchmarkRunRootless(b *testing.B) {
	benchmarkRun(b, testConfig(b))
}

func benchmarkRun(b *testing.B, cfg Config) {
	dir := b.TempDir()
	for b.Loop() {
		c, err := New(dir, "bench", cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Run(context.Background(), &Process{Args: []string{"/bin/true"}}); err != nil {
			b.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			b.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}

// pipe returns a pipe that is closed at the end of the test.
func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// readLine reads up to the end of a line, byte by byte, so that the rest stays in the pipe.
func readLine(t testing.TB, r io.Reader) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil {
			t.Fatalf("%v after %q", err, line)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// planOf is the plan that Run would make, its files closed: calls of the program have the same numbers.
func planOf(t testing.TB, cfg Config, p *Process) *plan { return planFor(t, cfg, p, false) }

// planFor is planOf, with hold of Create.
func planFor(t testing.TB, cfg Config, p *Process, hold bool) *plan {
	t.Helper()
	r := record{t.TempDir()}
	lock, err := r.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	files, err := r.beginStart(lock, hold, cfg.Detached)
	if err != nil {
		t.Fatal(err)
	}
	files.network = explainedNetwork(&cfg)
	pl, err := newPlan(&cfg, p, stdioFiles{}, files)
	if err != nil {
		t.Fatal(err)
	}
	pl.closeAll()
	return pl
}
