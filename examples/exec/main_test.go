//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"example.com/container"
	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

// running starts a container with the id "demo".
func running(t *testing.T) (stateDir string) {
	t.Helper()
	testenv.Need(t, testenv.UserNS, testenv.StaticBusybox)
	busybox, err := os.ReadFile(testenv.LookPath("busybox"))
	if err != nil {
		t.Fatal(err)
	}
	root, stateDir := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "sleep", "hostname"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	cfg := container.DefaultConfig()
	cfg.Root = container.Directory(root)
	c, err := container.New(stateDir, "demo", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Run(t.Context(), &container.Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	return stateDir
}

func TestExec(t *testing.T) {
	stateDir := running(t)
	for name, row := range map[string]struct {
		args []string
		out  string
		code int
	}{
		"command":       {[]string{"demo", "hostname"}, "container\n", 0},
		"flags":         {[]string{"-e", "A=1", "-w", "/tmp/x", "demo", "sh", "-c", "echo $A$SECRET; pwd"}, "1\n/tmp/x\n", 0},
		"exit code":     {[]string{"demo", "sh", "-c", "exit 9"}, "", 9},
		"no program":    {[]string{"demo", "nope"}, "", 127},
		"no executable": {[]string{"demo", "/bin"}, "", 126},
		"no user":       {[]string{"-u", "nobody", "demo", "hostname"}, "", 125},
		"no container":  {[]string{"none", "hostname"}, "", 125},
		"no command":    {[]string{"demo"}, "", 125},
	} {
		out, errs, code := clitest.Run(t, append([]string{"-state", stateDir}, row.args...)...)
		if out != row.out || code != row.code {
			t.Errorf("%s: code %d, output %q, want %d, %q; errors: %s", name, code, out, row.code, row.out, errs)
		}
		if code >= 125 && errs == "" {
			t.Errorf("%s: the reason is not told", name)
		}
	}
}
