//go:build linux

package main

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

func need(t *testing.T) { testenv.Need(t, testenv.UserNS, testenv.Overlay) }

func TestSandbox(t *testing.T) {
	need(t)
	hidden, err := os.CreateTemp("/tmp", "sandbox-test-")
	if err != nil {
		t.Fatal(err)
	}
	hidden.Close()
	defer os.Remove(hidden.Name())
	for name, row := range map[string]struct {
		args []string
		out  string
		code int
	}{
		"as root inside":    {[]string{"--", "id", "-u"}, "0\n", 0},
		"host name":         {[]string{"hostname"}, "sandbox\n", 0},
		"first process":     {[]string{"sh", "-c", "echo $$"}, "1\n", 0},
		"host's files":      {[]string{"sh", "-c", "touch /etc/sandbox-test && ls /etc/sandbox-test"}, "/etc/sandbox-test\n", 0},
		"own /tmp":          {[]string{"sh", "-c", "ls " + hidden.Name() + " 2>/dev/null; touch /tmp/x && echo writable"}, "writable\n", 0},
		"no network":        {[]string{"sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '"}, "lo\n", 0},
		"environment":       {[]string{"sh", "-c", "echo $TERM $SECRET; [ -n \"$PATH$HOME\" ] && echo set"}, "vt100\nset\n", 0},
		"exit code":         {[]string{"sh", "-c", "exit 42"}, "", 42},
		"no program":        {[]string{"no-such-program"}, "", 127},
		"no executable":     {[]string{"/etc/passwd"}, "", 126},
		"killed":            {[]string{"sh", "-c", "sh -c 'kill -9 $$'; exit $?"}, "", 137},
		"working directory": {[]string{"-w", "/usr", "pwd"}, "/usr\n", 0},
		"mount":             {[]string{"-v", "/usr:/tmp/there:ro", "sh", "-c", "cd /tmp/there && ls -d bin; touch x 2>/dev/null || echo read-only"}, "bin\nread-only\n", 0},
		"no mount":          {[]string{"-v", "/usr", "true"}, "", 2},
		"bad configuration": {[]string{"-v", "/usr:/proc/x", "true"}, "", 125},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, code := clitest.Run(t, row.args...)
			if out != row.out || code != row.code {
				t.Errorf("code %d, output %q, want %d, %q; errors: %s", code, out, row.code, row.out, errs)
			}
			if code >= 125 && code != 137 && !strings.HasPrefix(errs, "sandbox: ") {
				t.Errorf("the reason is not told: %q", errs)
			}
		})
	}
	if _, err := os.Lstat("/etc/sandbox-test"); err == nil {
		t.Error("a file was made on the host")
	}
}

// The current directory is there, and written to with -rw only; also below /tmp.
func TestCurrentDirectory(t *testing.T) {
	need(t)
	for _, parent := range []string{"/var/tmp", "/tmp"} {
		for _, rw := range []bool{false, true} {
			dir, err := os.MkdirTemp(parent, "sandbox-test-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := os.WriteFile(filepath.Join(dir, "old"), []byte("old\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			args := []string{"sh", "-c", "pwd; cat old; echo new >new"}
			if rw {
				args = append([]string{"-rw"}, args...)
			}
			cmd := clitest.Command(t, args...)
			cmd.Dir = dir
			out, errs, code := clitest.Output(t, cmd)
			if want := dir + "\nold\n"; out != want {
				t.Errorf("output %q, want %q; errors: %s", out, want, errs)
			}
			if rw && code != 0 {
				t.Errorf("code %d: %s", code, errs)
			}
			if _, err := os.Stat(filepath.Join(dir, "new")); (err == nil) != rw {
				t.Errorf("in %s with -rw=%v: %v", dir, rw, err)
			}
		}
	}
}

func TestDefaultShell(t *testing.T) {
	need(t)
	cmd := clitest.Command(t)
	cmd.Env = append(cmd.Env, "SHELL=")
	cmd.Stdin = strings.NewReader("echo $((6*7)); exit 3\n")
	if out, errs, code := clitest.Output(t, cmd); out != "42\n" || code != 3 {
		t.Errorf("code %d, output %q, errors %q", code, out, errs)
	}
}

// A signal is passed on; the second one kills. The record is removed in both cases.
func TestSignals(t *testing.T) {
	need(t)
	for name, row := range map[string]struct {
		script  string
		signals []os.Signal
		code    int
	}{
		"SIGTERM handled": {"trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done", []os.Signal{syscall.SIGTERM}, 7},
		"SIGINT handled":  {"trap 'exit 8' INT; echo ready; while :; do sleep 0.02; done", []os.Signal{os.Interrupt}, 8},
		"ignored":         {"trap 'echo ready' TERM; echo ready; while :; do sleep 0.02; done", []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, 137},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := clitest.Command(t, "sh", "-c", row.script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			for _, sig := range row.signals {
				if line, err := lines.ReadString('\n'); line != "ready\n" {
					t.Fatalf("%q, %v", line, err)
				}
				cmd.Process.Signal(sig)
			}
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != row.code {
				t.Errorf("code %d, want %d", code, row.code)
			}
		})
	}
}
