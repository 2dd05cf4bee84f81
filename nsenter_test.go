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

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// nsenterConfig is a configuration that nsenter can apply.
func nsenterConfig(t *testing.T) Config {
	testenv.Need(t, testenv.Program("nsenter", "util-linux"), testenv.Program("setpriv", "util-linux"), testenv.Program("prlimit", "util-linux"))
	cfg := testConfig(t)
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
				var have uint64
				if _, err := fmt.Sscanf(ownStatus("CapBnd"), "%x", &have); err != nil {
					t.Fatal(err)
				}
				list := strings.Split(capabilityList(have), ", ")
				cfg.Capabilities = &Capabilities{Bounding: list, Effective: list, Permitted: list}
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
