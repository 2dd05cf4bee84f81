//go:build linux

package container

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
)

// hookHelperVar makes the test binary a caller that runs a container with a hook of the kind that its value names.
const hookHelperVar = "CONTAINER_TEST_HOOK_HELPER"

func init() {
	kind := hookKind(os.Getenv(hookHelperVar))
	if kind == "" {
		return
	}
	cfg := DefaultConfig()
	cfg.Root = Directory(os.Args[2])
	cfg.DieWithParent = len(os.Args) > 3
	script := "while [ -e $HOOK_DIR/hold ]; do sleep 0.02; done; >$HOOK_DIR/ended"
	if kind.inside() {
		script = "exec sleep " + hookSleep(os.Getppid())
	}
	h := Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", ">$HOOK_DIR/begun; " + script}, Env: []string{"PATH=/bin", "HOOK_DIR=" + os.Args[2] + "/tmp"}}
	if kind == hookStartContainer {
		h.Env[1] = "HOOK_DIR=/tmp"
	}
	hookSet(&cfg, kind, h)
	c, err := New(os.Args[1], "helped", cfg)
	if err == nil {
		err = c.Run(context.Background(), &Process{Args: []string{"sleep", "1000"}})
	}
	if err == nil {
		err = c.Destroy()
	}
	fmt.Println(err)
	os.Exit(0)
}

// TestHookCallerKilled kills the caller with SIGKILL while a hook of each kind runs: Destroy in another process removes
// everything, and waits for no hook; and only a hook of the host goes on to its end.
func TestHookCallerKilled(t *testing.T) {
	leak.Check(t)
	for _, kind := range hookKinds {
		for _, die := range []bool{false, true} {
			_, root := lifeConfig(t)
			state := filepath.Join(t.TempDir(), "state")
			hold, begun, ended := root+"/tmp/hold", root+"/tmp/begun", root+"/tmp/ended"
			if err := os.WriteFile(hold, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{state, root}
			if die {
				args = append(args, "die")
			}
			cmd := exec.Command("/proc/self/exe", args...)
			cmd.Env = append(os.Environ(), hookHelperVar+"="+string(kind))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if kind == hookPoststop { // Destroy runs it once the program is stopped
				hookRunning(t, state)
			}
			if !hookThere(begun) {
				cmd.Process.Kill()
				text, _ := bufio.NewReader(out).ReadString('\n')
				t.Fatalf("%s: no hook runs: %s", kind, text)
			}
			cmd.Process.Kill()
			cmd.Wait()
			c, err := Load(state, "helped")
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			os.Remove(begun)
			if kind == hookPoststop { // which Destroy runs again, and waits for
				os.Remove(hold)
			}
			if err := lifeWait(t, c.Destroy); err != nil {
				t.Errorf("%s: Destroy: %v", kind, err)
			}
			if _, err = os.Stat(begun); (err == nil) != (kind == hookPoststop) {
				t.Errorf("%s: a hook was run again by Destroy: %v", kind, err == nil)
			}
			if left, _ := os.ReadDir(state); len(left) > 0 {
				t.Errorf("%s: left %v", kind, left)
			}
			if kind.inside() {
				if left := hookSleepers(); left > 0 {
					t.Errorf("%s: %d hooks are left", kind, left)
				}
				continue
			}
			if _, err := os.Stat(ended); err == nil && kind != hookPoststop {
				t.Errorf("%s: the hook has not been held", kind)
			}
			os.Remove(hold)
			if !hookThere(ended) {
				t.Errorf("%s: the hook has not gone on to its end", kind)
			}
		}
	}
}

// hookThere waits for a file that a hook makes.
func hookThere(path string) bool {
	for begun := time.Now(); time.Since(begun) < 30*time.Second; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// hookRunning waits until the program runs, which the helper then destroys.
func hookRunning(t testing.TB, state string) {
	t.Helper()
	waitFor(t, func() bool {
		c, err := Load(state, "helped")
		if err != nil {
			return false
		}
		st, err := c.State()
		return err == nil && !st.Started.IsZero()
	})
}

// hookSleep is how long a hook inside sleeps, for ever as it were: a number that no other test, in no other process, has.
func hookSleep(test int) string { return fmt.Sprintf("1003.2%010d", test) }

// hookSleepers counts the hooks that sleep, or are about to.
func hookSleepers() (n int) {
	lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range lists {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "sleep") && strings.Contains(string(text), hookSleep(os.Getpid())) {
			n++
		}
	}
	return n
}

// TestHookValidation: each complaint names the field and what would be right.
func TestHookValidation(t *testing.T) {
	f := func(context.Context, *ContainerState) error { return nil }
	for _, row := range []struct {
		hooks Hooks
		want  string
	}{
		{Hooks{Prestart: []Hook{{}}}, "Hooks.Prestart[0]: has neither a Path nor a Func; set one"},
		{Hooks{CreateRuntime: []Hook{{Path: "/a"}, {Path: "a/b"}}}, `Hooks.CreateRuntime[1].Path: "a/b" is not an absolute path`},
		{Hooks{CreateContainer: []Hook{{Path: "/a\x00"}}}, `Hooks.CreateContainer[0].Path: "/a\x00" contains a NUL byte`},
		{Hooks{StartContainer: []Hook{{Path: "/a", Args: []string{"", "\x00"}}}}, `Hooks.StartContainer[0].Args[1]: "\x00" contains a NUL byte`},
		{Hooks{Poststart: []Hook{{Path: "/a", Env: []string{"A=1", "secret"}}}}, `Hooks.Poststart[0].Env[1]: is not of the form "KEY=value"`},
		{Hooks{Poststop: []Hook{{Path: "/a", Timeout: -1}}}, "Hooks.Poststop[0].Timeout: -1ns is negative; 0 means no bound"},
		{Hooks{Poststop: []Hook{{Path: "/a", Func: f}}}, "Hooks.Poststop[0]: has a Func as well as a Path, Args or Env; set Func, or the others"},
		{Hooks{CreateContainer: []Hook{{Path: "/a"}, {Func: f}}}, "Hooks.CreateContainer[1].Func: comes after a program; put functions first: programs of this list are run by the container's process"},
		{Hooks{StartContainer: []Hook{{Path: "/a"}, {Func: f}}}, "Hooks.StartContainer[1].Func: comes after a program; put functions first: programs of this list are run by the container's process"},
		{Hooks{CreateRuntime: []Hook{{Path: "/a"}, {Func: f}}, StartContainer: []Hook{{Func: f}, {Path: "/a"}}}, ""},
	} {
		cfg := DefaultConfig()
		cfg.Root, cfg.Hooks = HostRoot, &row.hooks
		got := ""
		if err := cfg.validate(); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}

// TestHookExplain: the listing shows each program where it is run; without hooks no call is added.
func TestHookExplain(t *testing.T) {
	cfg := testConfig(t)
	p := &Process{Args: []string{"true"}}
	plain, err := Explain(cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	// These are the caller's business.
	cfg.Hooks = &Hooks{Poststart: []Hook{{Path: "/a"}}, Poststop: []Hook{{Path: "/a"}}}
	if same, err := Explain(cfg, p); err != nil || same != plain {
		t.Errorf("%v; calls are added for hooks after the start", err)
	}
	cfg.Hooks = &Hooks{}
	if same, err := Explain(cfg, p); err != nil || same != plain {
		t.Errorf("%v; calls are added for no hooks", err)
	}
	cfg.Hooks = &Hooks{
		CreateContainer: []Hook{{Path: "/bin/host hook", Args: []string{"a"}, Env: []string{"K=v"}, Timeout: time.Second}},
		StartContainer:  []Hook{{Path: "/sbin/ldconfig"}},
	}
	list, err := Explain(cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, want := range []string{
		"hooks before the pivot\n", "read(", "hook createContainer /bin/host hook\n", "clone(", `execve("/bin/host hook"`, "ppoll(", "kill(", "wait4(",
		"pivot_root", "capset", "hook startContainer /sbin/ldconfig\n", `execve("/sbin/ldconfig"`, "wait4(", "close_range(", "execute true\n",
	} {
		i := strings.Index(list[last:], want)
		if i < 0 {
			t.Fatalf("%q does not follow in\n%s", want, list)
		}
		last += i
	}
}
