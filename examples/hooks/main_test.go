//go:build linux

package main

import (
	"bufio"
	"strings"
	"testing"
	"time"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
)

func TestMain(m *testing.M) { clitest.Main(m, main) }

func TestHooks(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay)
	cmd := clitest.Command(t, "sh", "-c", "cat /dev/shm/note; read x; exit 7")
	var out strings.Builder
	cmd.Stdout = &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The command ends when it has been told that it runs.
	late := time.AfterFunc(time.Minute, func() { stdin.Close() })
	stderr := ""
	for lines := bufio.NewReader(errs); ; {
		line, err := lines.ReadString('\n')
		if stderr += line; strings.HasPrefix(line, "poststart: ") {
			stdin.Close()
		}
		if err != nil {
			break
		}
	}
	late.Stop()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 || out.String() != "made by a hook\nand one inside\n" {
		t.Errorf("exits with %d: %s%s", code, &out, stderr)
	}
	if want := "createRuntime: hooks is creating\npoststart: hooks is running\npoststop: hooks is stopped\n"; stderr != want {
		t.Errorf("tells %q, want %q", stderr, want)
	}
	if _, _, code := clitest.Run(t); code != 2 {
		t.Errorf("without a command it exits with %d", code)
	}
}
