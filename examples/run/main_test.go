//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// imageDir is a plain directory with busybox as its shell.
func imageDir(t *testing.T) string {
	t.Helper()
	testenv.Need(t, testenv.UserNS, testenv.StaticBusybox)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"bin/busybox": string(busybox), "etc/passwd": "root:x:0:0::/root:/bin/sh\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "cat", "touch"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRun(t *testing.T) {
	dir := imageDir(t)
	image := "dir:" + dir
	for name, row := range map[string]struct {
		args []string
		out  string
		code int
	}{
		"command":           {[]string{image, "sh", "-c", "echo hello"}, "hello\n", 0},
		"exit code":         {[]string{image, "sh", "-c", "exit 9"}, "", 9},
		"no program":        {[]string{image, "nope"}, "", 127},
		"no executable":     {[]string{image, "/etc"}, "", 126},
		"environment":       {[]string{"-e", "A=1", "-e", "B=2", "-e", "A=3", image, "sh", "-c", "echo $A $B $SECRET"}, "3 2\n", 0},
		"working directory": {[]string{"-w", "/etc", image, "sh", "-c", "pwd"}, "/etc\n", 0},
		"mount":             {[]string{"-v", dir + "/etc:/mnt:ro", image, "sh", "-c", "[ -e /mnt/passwd ] && ! touch /mnt/x 2>/dev/null && echo yes"}, "yes\n", 0},
		"read-only":         {[]string{"-read-only", image, "sh", "-c", "touch /x 2>/dev/null || echo no"}, "no\n", 0},
		"no image":          {[]string{}, "", 125},
		"missing directory": {[]string{"dir:/nonexistent", "true"}, "", 125},
		"missing layout":    {[]string{"oci:/nonexistent", "true"}, "", 125},
		"missing archive":   {[]string{"docker-archive:/nonexistent", "true"}, "", 125},
		"never pulled":      {[]string{"-pull", "never", "127.0.0.1:1/x", "true"}, "", 125},
		"no registry":       {[]string{"127.0.0.1:1/x", "true"}, "", 125},
		"wrong policy":      {[]string{"-pull", "maybe", "127.0.0.1:1/x", "true"}, "", 125},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"-store", filepath.Join(t.TempDir(), "store")}, row.args...)
			out, errs, code := clitest.Run(t, args...)
			if out != row.out || code != row.code {
				t.Errorf("code %d, output %q, want %d, %q; errors: %s", code, out, row.code, row.out, errs)
			}
			if code >= 125 && errs == "" {
				t.Error("the reason is not told")
			}
		})
	}
}

func TestExplain(t *testing.T) {
	dir := imageDir(t)
	out, errs, code := clitest.Run(t, "-store", filepath.Join(t.TempDir(), "store"), "-explain", "dir:"+dir, "touch", "/made")
	if code != 0 || !strings.Contains(out, "pivot_root") || !strings.Contains(out, "execve") {
		t.Errorf("code %d, output %.200q, errors %q", code, out, errs)
	}
	if _, err := os.Stat(dir + "/made"); err == nil {
		t.Error("it was started")
	}
}
