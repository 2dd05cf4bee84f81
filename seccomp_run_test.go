//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file runs processes under filters.

const lookSeccomp = `grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status`

// Each process of a container has the filter, on whatever way it is started, and fails where the profile says so.
func TestSeccompEverywhere(t *testing.T) {
	leak.Check(t)
	for name, cfg := range createKinds(t) {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, held %v", name, held), func(t *testing.T) {
				cfg := cfg
				cfg.Root = Directory(busyboxRoot(t))
				cfg.Hooks = &Hooks{StartContainer: []Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", lookSeccomp + ">/hook; unshare -n true 2>>/hook || true"}}}}
				script := lookSeccomp + "; unshare -n true; sleep 1000"
				if !cfg.Namespaces.NewPID {
					cfg.Hooks = nil
					script = "unshare -n true; sleep 1000"
				}
				out, stdout := pipe(t)
				c := lifeNew(t, cfg)
				p := &Process{Args: []string{"sh", "-c", script}, Stdout: stdout, Stderr: stdout}
				start := c.Run
				if held {
					start = c.Create
				}
				if err := start(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				stdout.Close()
				if held {
					if err := c.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				const refused = "unshare: unshare(0x40000000): Operation not permitted"
				if cfg.Namespaces.NewPID {
					wantText(t, readLine(t, out)+"\n"+readLine(t, out), "NoNewPrivs:\t1\nSeccomp:\t2")
				}
				wantText(t, readLine(t, out), refused)
				if cfg.Hooks != nil {
					text, err := os.ReadFile(cfg.Root.Dir + "/hook")
					if err != nil {
						t.Fatal(err)
					}
					wantText(t, string(text), "NoNewPrivs:\t1\nSeccomp:\t2\n"+refused+"\n")
					wantText(t, execSh(t, c, Process{}, lookSeccomp+"; unshare -n true || true"), "NoNewPrivs:\t1\nSeccomp:\t2\n"+refused)
				}
				if err := lifeWait(t, c.Destroy); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// The capabilities of a process are the same with a filter as without, also where the launcher needs one more for the filter.
func TestSeccompCapabilities(t *testing.T) {
	leak.Check(t)
	ambient := []string{"CAP_NET_BIND_SERVICE"}
	sets := map[string]*Capabilities{
		"default": nil,
		"none":    {},
		"ambient": {Bounding: ambient, Effective: ambient, Permitted: ambient, Inheritable: ambient, Ambient: ambient},
		"less":    {Bounding: DefaultCapabilities(), Effective: ambient, Permitted: ambient},
	}
	users := []string{"0"}
	base := testConfig(t)
	if os.Geteuid() == 0 {
		users = append(users, "1000:1000")
	}
	look := `grep -E '^(Uid|Cap|NoNewPrivs)' /proc/self/status`
	for _, userns := range []bool{true, false} {
		if !userns && os.Geteuid() != 0 {
			continue
		}
		for name, caps := range sets {
			for _, user := range users {
				for _, held := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, user %s, user namespace %v, init %v", name, user, userns, held), func(t *testing.T) {
						var got [2]string
						for i, profile := range []*SeccompProfile{nil, DefaultSeccompProfile()} {
							cfg := base
							cfg.Root = Directory(busyboxRoot(t))
							cfg.Namespaces.NewUser, cfg.NoNewPrivileges = userns, false
							cfg.Capabilities, cfg.Seccomp, cfg.Init = caps, profile, held
							script := look
							if held {
								script += "; grep -E '^(Uid|Cap)' /proc/1/status"
							}
							out, stdout := pipe(t)
							c := lifeStart(t, cfg, &Process{Args: []string{"sh", "-c", script + "; echo; exec sleep 1000"}, User: user, Stdout: stdout})
							stdout.Close()
							for line := "x"; line != ""; got[i] += line + "\n" {
								line = readLine(t, out)
							}
							got[i] += execSh(t, c, Process{User: user}, look)
							if profile != nil && !strings.Contains(execSh(t, c, Process{User: user}, lookSeccomp), "Seccomp:\t2") {
								t.Error("there is no filter")
							}
							if err := c.Destroy(); err != nil {
								t.Fatal(err)
							}
						}
						wantText(t, got[1], got[0])
						if strings.Contains(got[1], "NoNewPrivs:\t1") {
							t.Error("no_new_privs is set")
						}
					})
				}
			}
		}
	}
}

// A profile under which nothing can be started is refused before anything is.
func TestSeccompNoExecve(t *testing.T) {
	leak.Check(t)
	for name, change := range map[string]func(*SeccompProfile){
		"denied": func(p *SeccompProfile) { p.Deny("execve") },
		"not in": func(p *SeccompProfile) {
			*p = SeccompProfile{DefaultAction: SeccompErrno, Syscalls: []SeccompRule{{Names: []string{"read"}, Action: SeccompAllow}}}
		},
		"killing": func(p *SeccompProfile) { p.DefaultAction, p.Syscalls = SeccompKillProcess, p.Syscalls[:2] },
	} {
		cfg := testConfig(t)
		change(cfg.Seccomp)
		_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
		var f *FieldError
		if !errors.As(err, &f) || f.Field != "Seccomp.Syscalls" || !strings.Contains(err.Error(), "execve") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the filter does: errno values, by argument, death.
func TestSeccompActions(t *testing.T) {
	leak.Check(t)
	rofs := uint(unix.EROFS)
	cfg := testConfig(t)
	cfg.Seccomp.Syscalls = append([]SeccompRule{
		{Names: []string{"mkdir", "mkdirat"}, Action: SeccompErrno, Errno: &rofs},
		{Names: []string{"kill"}, Action: SeccompErrno, Args: []SeccompArg{{Index: 1, Value: uint64(unix.SIGUSR1), Op: SeccompEqual}}},
		{Names: []string{"sync"}, Action: SeccompKillProcess},
	}, cfg.Seccomp.Syscalls...)
	got := sh(t, cfg, `mkdir /x; kill -USR1 $$; trap 'echo trapped' USR2; kill -USR2 $$; sync; echo $?`)
	wantText(t, got, "mkdir: can't create directory '/x': Read-only file system\nsh: can't kill pid 1: Operation not permitted\ntrapped\nBad system call\n159")
}

// The launcher keeps CAP_SYS_ADMIN only where it needs it.
func TestSeccompKeepsAdmin(t *testing.T) {
	cfg := DefaultConfig()
	cfg.NoNewPrivileges = false
	pl := &plan{cfg: &cfg, proc: &Process{}, filter: &seccompFilter{}}
	if !pl.keepsAdmin() {
		t.Error("the capability is not kept")
	}
	cfg.NoNewPrivileges = true
	if pl.keepsAdmin() {
		t.Error("the capability is kept without need")
	}
}
