//go:build linux

// Package clitest runs an example program in its own test: the test binary is the program.
package clitest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"

	"example.com/container/internal/leak"
)

const isProgram = "CONTAINER_TEST_PROGRAM"

// Main is for TestMain: it runs the tests, or in a process that Command has made, the program.
func Main(m *testing.M, program func()) {
	if os.Getenv(isProgram) != "" {
		program()
		os.Exit(0)
	}
	os.Exit(leak.Main(m))
}

// Command is the program with these arguments. Its record lies in a directory that must be empty in
// the end, and it sees a secret in its environment.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	run := t.TempDir()
	t.Cleanup(func() {
		if left, _ := os.ReadDir(run); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), isProgram+"=1", "XDG_RUNTIME_DIR="+run, "SECRET=hidden", "TERM=vt100")
	return cmd
}

// Run runs the program to its end.
func Run(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return Output(t, Command(t, args...))
}

// Output runs a Command to its end.
func Output(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

// Executable writes a script that is the program, for others to call; args stand before theirs.
func Executable(t testing.TB, path string, args ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := "#!/bin/sh\n" + isProgram + "=1 exec '" + self + "'"
	for _, arg := range args {
		text += " '" + arg + "'"
	}
	if err := os.WriteFile(path, []byte(text+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}
