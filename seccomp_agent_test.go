//go:build linux

package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// This file tests seccomp agents, and callers that end, with the test binary as another process.

func init() {
	if what := os.Getenv(seccompOtherVar); what != "" {
		time.AfterFunc(time.Minute, func() { os.Exit(3) })
		if err := seccompOther(what, os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// seccompOtherVar makes the test binary another caller.
const seccompOtherVar = "CONTAINER_TEST_SECCOMP_OTHER"

// seccompOther has the arguments STATEDIR ROOT AGENT.
func seccompOther(what string, args []string) error {
	cfg := DefaultConfig()
	cfg.Root = Directory(args[1])
	ctx := context.Background()
	switch what {
	case "start":
		c, err := Load(args[0], "asked")
		if err != nil {
			return err
		}
		return c.Start(ctx)
	case "create agent", "run agent":
		cfg.Detached = true
		cfg.Seccomp = askAbout("getppid")
		cfg.Seccomp.ListenerPath, cfg.Seccomp.ListenerMetadata = args[2], "meta"
		cfg.Annotations = map[string]string{"a": "b"}
		c, err := New(args[0], "asked", cfg)
		if err != nil {
			return err
		}
		p := lifeSh("echo $PPID >/tmp/out; sleep 1000")
		if what == "run agent" {
			return c.Run(ctx, p)
		}
		return c.Create(ctx, p)
	case "run", "create":
		cfg.Seccomp, cfg.SeccompNotify = askAbout("getpriority"), func(context.Context, *SeccompCall) SeccompAnswer {
			return SeccompAnswer{}
		}
		c, err := New(args[0], "asked", cfg)
		if err != nil {
			return err
		}
		p := &Process{Args: []string{"/attacker"}, Env: []string{seccompCallerVar + "=orphan"}}
		if what == "create" {
			return c.Create(ctx, p)
		}
		if err := c.Run(ctx, p); err != nil {
			return err
		}
		for range 6000 {
			if _, err := os.Stat(args[1] + "/tmp/ready"); err == nil {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
		return errors.New("its calls are not answered")
	}
	return errors.ErrUnsupported
}

func runSeccompOther(t *testing.T, what string, args ...string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), seccompOtherVar+"="+what)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", what, err, out)
	}
}

// A seccompAgent is what an OCI runtime's user runs: it takes listeners from a socket.
type seccompAgent struct {
	path string
	mu   sync.Mutex
	told []specs.ContainerProcessState
}

func newSeccompAgent(t *testing.T, handler SeccompHandler) *seccompAgent {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	a := &seccompAgent{path: filepath.Join(dir, "socket")}
	listener, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done; os.RemoveAll(dir) })
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			a.serve(t, conn.(*net.UnixConn), handler)
		}
	}()
	return a
}

// heard is what it has been told since it was asked before.
func (a *seccompAgent) heard() []specs.ContainerProcessState {
	a.mu.Lock()
	defer a.mu.Unlock()
	told := a.told
	a.told = nil
	return told
}

func (a *seccompAgent) serve(t *testing.T, conn *net.UnixConn, handler SeccompHandler) {
	defer conn.Close()
	text, control := make([]byte, 1<<17), make([]byte, unix.CmsgSpace(4))
	n, size, _, _, err := conn.ReadMsgUnix(text, control)
	if err != nil || n == 0 {
		return // its start has failed before
	}
	var state specs.ContainerProcessState
	messages, merr := unix.ParseSocketControlMessage(control[:size])
	if err := json.Unmarshal(text[:n], &state); err != nil || merr != nil || len(messages) != 1 {
		t.Errorf("%v, %v: %s", err, merr, text[:n])
		return
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Error(fds, err)
		return
	}
	unix.CloseOnExec(fds[0])
	a.mu.Lock()
	a.told = append(a.told, state)
	a.mu.Unlock()
	if err := serveSeccomp(os.NewFile(uintptr(fds[0]), "listener"), handler, slog.Default()); err != nil {
		t.Error(err)
	}
}

// TestSeccompAgent has a detached container whose calls an agent answers, while everybody who has made or started it
// is gone; the agent is told what the runtime specification says.
func TestSeccompAgent(t *testing.T) {
	leak.Check(t)
	agent := newSeccompAgent(t, func(context.Context, *SeccompCall) SeccompAnswer { return SeccompAnswer{Value: 4711} })
	for _, what := range []string{"run agent", "create agent"} {
		root, state := busyboxRoot(t), t.TempDir()
		agent.heard()
		runSeccompOther(t, what, state, root, agent.path)
		if what == "create agent" {
			runSeccompOther(t, "start", state, root)
		}
		c, err := Load(state, "asked")
		if err != nil {
			t.Fatal(err)
		}
		awaitText(t, root+"/tmp/out", "4711\n")
		e := lifeSh("echo $PPID >/tmp/exec")
		if err := errors.Join(c.Exec(context.Background(), e), e.Wait()); err != nil {
			t.Error(err)
		}
		awaitText(t, root+"/tmp/exec", "4711\n")
		heard := agent.heard()
		if len(heard) != 2 {
			t.Fatalf("%+v", heard)
		}
		for i, told := range heard {
			status, pid := specs.StateCreating, c.Pid()
			if i == 1 {
				status, pid = specs.StateRunning, e.Pid()
			}
			if told.Version != specs.Version || len(told.Fds) != 1 || told.Fds[0] != "seccompFd" || told.Pid != pid || told.Metadata != "meta" ||
				told.State.ID != "asked" || told.State.Pid != c.Pid() || told.State.Status != status || told.State.Annotations["a"] != "b" || told.State.Bundle == "" {
				t.Errorf("process %d: %+v", pid, told)
			}
		}
		if err := c.Destroy(); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitText waits until a file has a text.
func awaitText(t *testing.T, file, want string) {
	t.Helper()
	var text []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if text, _ = os.ReadFile(file); string(text) == want {
			return
		}
	}
	t.Fatalf("%s has %q", file, text)
}

// TestSeccompAgentMissing has agents that are not there, do not listen, or go away.
func TestSeccompAgentMissing(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	dir := t.TempDir()
	cfg.Seccomp = askAbout("getppid")
	for name, reason := range map[string]error{dir + "/none": unix.ENOENT, dir: unix.ECONNREFUSED, "/" + strings.Repeat("x", 200): unix.EINVAL} {
		cfg.Seccomp.ListenerPath = name
		_, err := runIn(t, cfg, lifeSh("true"))
		if e := wantError(t, err, "seccomp agent", reason); e != nil && e.Path != name {
			t.Errorf("%v", err)
		}
	}
	cfg.Seccomp.ListenerPath = dir + "/closes"
	listener, err := net.Listen("unix", cfg.Seccomp.ListenerPath)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	closed := make(chan struct{}, 1)
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			conn.Close()
			closed <- struct{}{}
		}
	}()
	going := cfg
	// It has gone away when the launcher comes to it.
	going.Hooks = &Hooks{CreateRuntime: []Hook{{Func: func(context.Context, *ContainerState) error { <-closed; return nil }}}}
	_, err = runIn(t, going, lifeSh("true"))
	wantError(t, err, "seccomp", unix.EPIPE)

	cfg.Annotations = map[string]string{"large": strings.Repeat("x", maxAgentText)}
	_, err = runIn(t, cfg, lifeSh("true"))
	wantError(t, err, "seccomp agent", unix.E2BIG)
}

// TestSeccompCallerEnds has a caller end that answers calls: from then on they fail with ENOSYS, also if the container is only
// started afterwards.
func TestSeccompCallerEnds(t *testing.T) {
	leak.Check(t)
	for _, what := range []string{"run", "create"} {
		root, state := busyboxRoot(t), t.TempDir()
		attackerIn(t, root)
		runSeccompOther(t, what, state, root)
		if what == "create" {
			runSeccompOther(t, "start", state, root)
		}
		awaitText(t, root+"/tmp/result", unix.ENOSYS.Error())
		c, err := Load(state, "asked")
		if err == nil {
			err = c.Destroy()
		}
		if err != nil {
			t.Error(err)
		}
	}
}
