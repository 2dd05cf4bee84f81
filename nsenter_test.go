//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// A container of DefaultConfig is refused for what the documentation says, and for nothing else; each error says what to do.
func TestExecWithNsenterDefaultConfig(t *testing.T) {
	leak.Check(t)
	cfg := nsenterConfig(t)
	def := DefaultConfig()
	cfg.Capabilities, cfg.Seccomp = def.Capabilities, def.Seccomp
	c := execSleeper(t, cfg)
	err := c.ExecWithNsenter(t.Context(), &Process{Args: []string{"true"}})
	var fields []string
	var walk func(error)
	walk = func(err error) {
		if f, ok := err.(*FieldError); ok {
			if !errors.Is(f, ErrUnsupported) || !strings.Contains(f.Problem, "use Exec") {
				t.Errorf("%#v", f)
			}
			fields = append(fields, f.Field)
			return
		}
		switch err := err.(type) {
		case interface{ Unwrap() []error }:
			for _, e := range err.Unwrap() {
				walk(e)
			}
		case interface{ Unwrap() error }:
			walk(err.Unwrap())
		}
	}
	walk(err)
	if !slices.Equal(fields, []string{"Capabilities", "Seccomp"}) {
		t.Errorf("refused for %q: %v", fields, err)
	}
}

// nsenterConfig is a configuration that nsenter can apply.
func nsenterConfig(t *testing.T) Config {
	testenv.Need(t, testenv.Program("nsenter", "util-linux"), testenv.Program("setpriv", "util-linux"), testenv.Program("prlimit", "util-linux"))
	cfg := testConfig(t)
	cfg.Seccomp = nil // util-linux sets no filters
	all := AllCapabilities()
	cfg.Capabilities = &Capabilities{Bounding: all, Effective: all, Permitted: all}
	own, err := ownUmask()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Umask = &own
	return cfg
}

// What both start finds itself in the same place with the same rights.
func TestExecWithNsenterIsLikeExec(t *testing.T) {
	leak.Check(t)
	for name, change := range map[string]func(*Config){
		"own id":            func(*Config) {},
		"no user namespace": func(cfg *Config) { cfg.Namespaces.NewUser = false },
		"new privileges":    func(cfg *Config) { cfg.NoNewPrivileges = false },
		"time":              func(cfg *Config) { cfg.Namespaces.NewTime = true },
		"host's processes":  func(cfg *Config) { cfg.Namespaces.NewPID = false; withoutOwnMounts(cfg) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := nsenterConfig(t)
			if name == "no user namespace" {
				testenv.Need(t, testenv.Root)
			}
			change(&cfg)
			if !cfg.Namespaces.NewUser {
				cfg.Capabilities = ownBoundingSet(t)
			}
			cfg.Rlimits = []Rlimit{{Type: "RLIMIT_NOFILE", Soft: 300, Hard: 400}, {Type: "core", Soft: 0, Hard: RlimInfinity}}
			if os.Geteuid() != 0 {
				cfg.Rlimits = cfg.Rlimits[:1]
			}
			c := execSleeper(t, cfg)
			if cfg.Namespaces.NewMnt {
				execSh(t, c, Process{}, "mkdir -p /some/where")
			}
			script := `pwd; ` + execStatus + `; env | sort; ulimit -Hn; ulimit -Hc; ls /proc/self/fd; [ -e /proc/keys ] && head -n 1 /proc/keys | cut -d' ' -f2-3 | wc -l`
			var got [2]string
			for i, start := range []func(context.Context, *Process) error{c.Exec, c.ExecWithNsenter} {
				p := &Process{Args: []string{"sh", "-c", script}, Env: []string{"A=1", "HOME=/x"}}
				if cfg.Namespaces.NewMnt {
					p.Cwd = "/some/where"
				}
				if os.Geteuid() == 0 {
					p.AdditionalGroups = []string{"7", "8"}
				}
				var err error
				if got[i], err = execIn(t, start, p); err != nil {
					t.Fatalf("%v\n%s", err, got[i])
				}
			}
			wantText(t, got[1], got[0])
		})
	}
}

// The handle is that of the program: its number, its signals, its end.
func TestExecWithNsenterHandle(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, nsenterConfig(t))
	p := &Process{Args: []string{"sh", "-c", "exit 9"}}
	if err := c.ExecWithNsenter(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	lifeExpectExit(t, lifeWait(t, p.Wait), ExitError{Code: 9})
	p = &Process{Args: []string{"sleep", "1000"}}
	if err := c.ExecWithNsenter(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if list, err := c.Processes(); err != nil || !slices.Contains(list, p.Pid()) {
		t.Errorf("%d is not among %v, %v", p.Pid(), list, err)
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lifeExpectExit(t, lifeWait(t, p.Wait), lifeKilled)
}

// Where nsenter has no child, it has opened what it needs when the caller goes on: each of many gets in.
func TestExecWithNsenterOpensAll(t *testing.T) {
	leak.Check(t)
	cfg := nsenterConfig(t)
	cfg.Namespaces.NewPID = false
	withoutOwnMounts(&cfg)
	c := execSleeper(t, cfg)
	for range 8 {
		if out, err := execIn(t, c.ExecWithNsenter, &Process{Args: []string{"echo", "in"}}); err != nil || out != "in" {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// A program of the container can be one of the programs that enter it: the caller goes on when it is executed, and not at its end.
func TestExecWithNsenterOfNsenter(t *testing.T) {
	testenv.Need(t, testenv.Root)
	leak.Check(t)
	cfg := nsenterConfig(t)
	cfg.Namespaces.NewPID, cfg.Namespaces.NewUser, cfg.Capabilities = false, false, ownBoundingSet(t)
	withoutOwnMounts(&cfg)
	c := execSleeper(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// It stays as long as its child, which ends with its input.
	p := &Process{Args: []string{"nsenter", "--pid=/proc/self/ns/pid", "cat"}, Stdin: r}
	err = c.ExecWithNsenter(ctx, p)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// ownBoundingSet is all that a container without a user namespace can have.
func ownBoundingSet(t *testing.T) *Capabilities {
	t.Helper()
	var have uint64
	if _, err := fmt.Sscanf(ownStatus("CapBnd"), "%x", &have); err != nil {
		t.Fatal(err)
	}
	list := strings.Split(capabilityList(have), ", ")
	return &Capabilities{Bounding: list, Effective: list, Permitted: list}
}

// What nsenter cannot apply is refused, each by its name, and nothing is run.
func TestExecWithNsenterRefuses(t *testing.T) {
	leak.Check(t)
	cfg := nsenterConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{"etc/passwd": "web:x:0:0::/:/bin/sh\nother:x:5:5::/:/bin/sh\n"})
	c := execSleeper(t, cfg)
	for field, p := range map[string]Process{
		"Capabilities": {Capabilities: DefaultCapabilitiesConfig()},
		"Scheduler":    {Scheduler: &Scheduler{Policy: "SCHED_BATCH"}},
		"IOPriority":   {IOPriority: &IOPriority{Class: "IOPRIO_CLASS_IDLE"}},
		"OomScoreAdj":  {OomScoreAdj: ptr(500)},
		"Umask":        {Umask: ptr(uint32(0o707))},
		"CPUAffinity":  {CPUAffinity: "0"},
		"Personality":  {Personality: &Personality{Domain: "LINUX32"}},
		"Env":          {Env: []string{"LD_PRELOAD=/evil.so"}},
		"User":         {User: "other"},
	} {
		if field == "User" && os.Geteuid() != 0 {
			continue // it is not mapped
		}
		p.Args = []string{"sh", "-c", "echo ran >>/ran"}
		err := c.ExecWithNsenter(t.Context(), &p)
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for name, want := range map[string]error{"none": ErrNotFound, "/etc/passwd": ErrNotExecutable} {
		if err := c.ExecWithNsenter(t.Context(), &Process{Args: []string{name}}); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := c.ExecWithNsenter(t.Context(), &Process{Args: []string{"true"}, Cwd: "/proc/self/fd/3"})
	wantError(t, err, "working directory", nil)
	if _, err := os.Stat(cfg.Root.Dir + "/ran"); err == nil {
		t.Error("it was run all the same")
	}
}
