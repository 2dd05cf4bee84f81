//go:build linux

package container

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attacks the filter of system calls through processes that do not have it yet, or never will: the launcher at the gate,
// and process 1 of Config.Init. Who may trace them can have any call made in their names.

// attackTraceVar is attackVar for the attacker of this file. Its value is the name of the process to trace.
const attackTraceVar = "CONTAINER_TEST_ATTACK_TRACE"

func init() {
	if name := os.Getenv(attackTraceVar); name != "" {
		time.AfterFunc(time.Minute, func() { os.Exit(3) })
		if err := traceNamed(name); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
}

// forbidden are calls that the default profile does not allow without CAP_SYS_ADMIN, and that work without it.
var forbidden = []struct {
	name string
	nr   uint64
	args [3]uint64
}{
	{"keyctl", unix.SYS_KEYCTL, [3]uint64{unix.KEYCTL_GET_KEYRING_ID, 1<<64 - 3, 0}},
	{"unshare", unix.SYS_UNSHARE, [3]uint64{unix.CLONE_NEWUSER}},
	{"userfaultfd", unix.SYS_USERFAULTFD, [3]uint64{1}},
	{"getppid", unix.SYS_GETPPID, [3]uint64{}}, // which is allowed
}

// traceNamed has the process make the calls when it waits, and prints what comes of it.
func traceNamed(name string) error {
	pid := 0
	for n := 1; n < 100 && pid == 0; n++ {
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", n)); strings.TrimSpace(string(text)) == name {
			pid = n
		}
	}
	if pid == 0 {
		return fmt.Errorf("there is no %s", name)
	}
	for range 10_000 { // a busy machine may have stopped it on its way there
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(text), ") S ") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	runtime.LockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return fmt.Errorf("seize: %w", err)
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return err
	}
	var before unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &before); err != nil {
		return err
	}
	for _, c := range forbidden {
		regs := before
		regs.Rip -= 2 // the instruction syscall, in which it waits
		regs.Rax, regs.Orig_rax, regs.Rdi, regs.Rsi, regs.Rdx = c.nr, ^uint64(0), c.args[0], c.args[1], c.args[2]
		if err := unix.PtraceSetRegs(pid, &regs); err != nil {
			return err
		}
		for range 2 { // in, out
			if err := unix.PtraceSyscall(pid, 0); err != nil {
				return err
			}
			if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil || !status.Stopped() {
				return fmt.Errorf("%v, status %#x", err, status)
			}
		}
		if err := unix.PtraceGetRegs(pid, &regs); err != nil {
			return err
		}
		if int64(regs.Rax) < 0 {
			fmt.Printf("%s: %v\n", c.name, unix.Errno(-regs.Rax))
		} else {
			fmt.Printf("%s: done\n", c.name)
		}
	}
	again := before
	again.Rip -= 2
	again.Rax = before.Orig_rax
	if err := unix.PtraceSetRegs(pid, &again); err != nil {
		return err
	}
	return unix.PtraceDetach(pid)
}

const (
	traceDone   = "keyctl: done\nunshare: done\nuserfaultfd: done\ngetppid: done\n"
	traceDenied = "keyctl: operation not permitted\nunshare: operation not permitted\nuserfaultfd: operation not permitted\n"
	traceNone   = "seize: operation not permitted\n"
)

// traceKinds are configurations in which a process of the container has CAP_SYS_PTRACE, and whether it can trace the
// launcher: an ordinary user's becomes dumpable, and without a user namespace the capability is the host's.
func traceKinds(t *testing.T) map[string]struct {
	cfg       Config
	traceable bool
} {
	caps := append(DefaultCapabilities(), "CAP_SYS_PTRACE")
	cfg := testConfig(t)
	attackerIn(t, cfg.Root.Dir)
	cfg.Capabilities = &Capabilities{Bounding: caps, Effective: caps, Permitted: caps}
	type kind = struct {
		cfg       Config
		traceable bool
	}
	kinds := map[string]kind{"user namespace": {cfg, os.Geteuid() != 0}}
	if os.Geteuid() == 0 {
		cfg.Namespaces.NewUser = false
		kinds["no user namespace"] = kind{cfg, true}
	}
	return kinds
}

func traceWant(traceable bool, cfg Config, allowed string) string {
	switch {
	case !traceable:
		return traceNone
	case cfg.Seccomp == nil:
		return traceDone
	}
	return traceDenied + allowed
}

// A process that was executed in a created container traces the launcher at the gate. Without a filter it gets what it
// wants, which shows that the attack is one.
func TestAttackGateTraced(t *testing.T) {
	leak.Check(t)
	for name, k := range traceKinds(t) {
		for _, profile := range []*SeccompProfile{k.cfg.Seccomp, nil} {
			t.Run(fmt.Sprintf("%s, filter %v", name, profile != nil), func(t *testing.T) {
				k.cfg.Seccomp = profile
				out, stdout := pipe(t)
				c := lifeNew(t, k.cfg)
				if err := c.Create(t.Context(), &Process{Args: []string{"grep", "Seccomp:", "/proc/self/status"}, Stdout: stdout}); err != nil {
					t.Fatal(err)
				}
				stdout.Close()
				got, err := execIn(t, c.Exec, &Process{Args: []string{"/attacker"}, Env: []string{attackTraceVar + "=" + "container:start"}})
				if want := traceWant(k.traceable, k.cfg, "getppid: done\n"); got+"\n" != want || err != nil {
					t.Errorf("got:\n%s\n%v, want:\n%s", got, err, want)
				}
				if profile == nil && k.traceable {
					return // it is in another user namespace now, and cannot go on
				}
				if err := c.Start(context.Background()); err != nil {
					t.Fatal(err)
				}
				want := "Seccomp:\t2\n"
				if profile == nil {
					want = "Seccomp:\t0\n"
				}
				wantText(t, readAll(t, out), want)
				lifeWait(t, c.Wait)
			})
		}
	}
}

// The program traces process 1, which is to pass on signals and collect orphans and no more.
func TestAttackReaperTraced(t *testing.T) {
	leak.Check(t)
	for name, k := range traceKinds(t) {
		for _, profile := range []*SeccompProfile{k.cfg.Seccomp, nil} {
			t.Run(fmt.Sprintf("%s, filter %v", name, profile != nil), func(t *testing.T) {
				cfg := k.cfg
				cfg.Seccomp, cfg.Init = profile, true
				got, err := runIn(t, cfg, &Process{Args: []string{"/attacker"}, Env: []string{attackTraceVar + "=" + reaperName}})
				if want := traceWant(k.traceable, cfg, "getppid: operation not permitted\n"); got != want || err != nil {
					t.Errorf("got:\n%s\n%v, want:\n%s", got, err, want)
				}
			})
		}
	}
}

// Without no_new_privs the launcher has CAP_SYS_ADMIN for its filter. At the gate it then cannot be traced by who would gain it.
func TestAttackGateAdmin(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.UserNS)
	k := traceKinds(t)["user namespace"]
	k.cfg.NoNewPrivileges = false
	c := lifeNew(t, k.cfg)
	if err := c.Create(t.Context(), &Process{Args: []string{"/attacker"}, Env: []string{attackTraceVar + "=none"}}); err != nil {
		t.Fatal(err)
	}
	got, err := execIn(t, c.Exec, &Process{Args: []string{"/attacker"}, Env: []string{attackTraceVar + "=container:start"}})
	if os.Geteuid() == 0 && got != strings.TrimSpace(traceNone) || os.Geteuid() != 0 && err == nil {
		t.Errorf("%s, %v", got, err)
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	lifeWait(t, c.Wait)
}
