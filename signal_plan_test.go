//go:build linux

package container

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// This file tests the signals of a process whose caller ignores or blocks some.

const ignoringVar = "CONTAINER_TEST_IGNORING"

// ignoring runs the test in a process of its own that ignores signals from its start on, as in the background of a shell.
func ignoring(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Getenv(ignoringVar) != "" {
		test(t)
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `trap '' HUP INT TSTP; exec "$0" -test.v -test.run "^$1\$"`, exe, t.Name())
	cmd.Env = append(os.Environ(), ignoringVar+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// What the caller ignores or blocks, the program does not.
func TestSignalsAreTheProgramsOwn(t *testing.T) {
	ignoring(t, func(t *testing.T) {
		const want = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000"
		look := func() *Process { return &Process{Args: []string{"grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"}} } // a shell ignores SIGQUIT by itself
		for name, change := range map[string]func(*Config){
			"plain":    func(*Config) {},
			"init":     func(cfg *Config) { cfg.Init = true },
			"detached": func(cfg *Config) { cfg.Detached = true },
		} {
			cfg := testConfig(t)
			change(&cfg)
			blockTerm(t)
			if out, err := runIn(t, cfg, look()); out != want+"\n" || err != nil {
				t.Errorf("%s: %q, %v", name, out, err)
			}
			if out, err := execIn(t, execSleeper(t, cfg).Exec, look()); out != want || err != nil {
				t.Errorf("%s: exec: %q, %v", name, out, err)
			}
		}
	})
}

// blockTerm blocks SIGTERM in this thread, until the end of the test.
func blockTerm(t *testing.T) {
	runtime.LockOSThread()
	var before unix.Sigset_t
	term := unix.Sigset_t{}
	term.Val[0] = 1 << (unix.SIGTERM - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &term, &before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
		runtime.UnlockOSThread()
	})
}

// A shell cannot trap what it was started to ignore, so that keys typed at its terminal would do nothing.
func TestSignalsInterruptKey(t *testing.T) {
	ignoring(t, func(t *testing.T) {
		s := newSeat(t)
		c := lifeStart(t, testConfig(t), s.at("trap 'exit 4' INT; echo ready; while :; do sleep 0.01; done"))
		s.await(t, "ready")
		s.typeKeys(t, "\x03")
		if exit, ok := errors.AsType[*ExitError](lifeWait(t, c.Wait)); !ok || exit.Code != 4 {
			t.Error(exit)
		}
	})
}
