//go:build linux

package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hookKinds are all of them, in the order of a life.
var hookKinds = []hookKind{
	hookPrestart, hookCreateRuntime, hookCreateContainer, hookStartContainer, hookPoststart, hookPoststop,
}

// hookSet sets the hooks of a kind.
func hookSet(cfg *Config, kind hookKind, list ...Hook) {
	if cfg.Hooks == nil {
		cfg.Hooks = &Hooks{}
	}
	h := cfg.Hooks
	*map[hookKind]*[]Hook{
		hookPrestart: &h.Prestart, hookCreateRuntime: &h.CreateRuntime, hookCreateContainer: &h.CreateContainer,
		hookStartContainer: &h.StartContainer, hookPoststart: &h.Poststart, hookPoststop: &h.Poststop,
	}[kind] = list
}

// hookScripts is a directory of scripts that are hooks, and of what they write: on the host it has this path, in
// the container it is /tmp. A script finds it in HOOK_DIR.
type hookScripts string

// hook returns a hook of a kind that is a script.
func (s hookScripts) hook(t testing.TB, kind hookKind, script string) Hook {
	t.Helper()
	dir, name := string(s), fmt.Sprintf("%s%d.sh", kind, time.Now().UnixNano())
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if kind == hookStartContainer {
		dir = "/tmp"
	}
	return Hook{Path: filepath.Join(dir, name), Env: []string{"PATH=/usr/bin:/bin", "HOOK_DIR=" + dir, "HOOK_KIND=" + string(kind)}}
}

// read returns what hooks have written to a file.
func (s hookScripts) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(string(s), name))
	return string(text)
}

// hookRun runs the process: in two phases, the second as another process would, where the configuration's annotation
// says so.
func hookRun(ctx context.Context, c *Container, p *Process) error {
	if c.cfg.Annotations["phases"] != "2" {
		return c.Run(ctx, p)
	}
	if err := c.Create(ctx, p); err != nil {
		return err
	}
	other, err := Load(filepath.Dir(c.record.dir), c.id)
	if err != nil {
		return err
	}
	return other.Start(ctx)
}

// hookConfigs are the kinds of containers that hooks are tested in.
func hookConfigs(t *testing.T, test func(t *testing.T, cfg Config, s hookScripts)) {
	two := map[string]string{"phases": "2"}
	for name, change := range map[string]func(*testing.T, *Config){
		"two phases": func(t *testing.T, cfg *Config) { cfg.Annotations = two },
		"detached":   func(t *testing.T, cfg *Config) { cfg.Annotations, cfg.Detached = two, true },
		"init":       func(t *testing.T, cfg *Config) { cfg.Init = true },
		"default":    func(*testing.T, *Config) {},
		"no user namespace": func(t *testing.T, cfg *Config) {
			testenv.Need(t, testenv.Root)
			cfg.Namespaces.NewUser = false
		},
		"subordinate ids": func(t *testing.T, cfg *Config) {
			testenv.Need(t, testenv.SubIDs)
			forgetUserNamespaces(t)
			var err error
			if cfg.UidMappings, cfg.GidMappings, err = SubordinateIDs(); err != nil {
				t.Fatal(err)
			}
		},
		"host PIDs": func(t *testing.T, cfg *Config) { cfg.Namespaces.NewPID = false },
		"overlay": func(t *testing.T, cfg *Config) {
			testenv.Need(t, testenv.Overlay)
			cfg.Root.Access = CopyOnWrite
		},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg, root := lifeConfig(t)
			change(t, &cfg)
			if !cfg.Namespaces.NewPID && cfg.Namespaces.NewUser {
				cfg = withoutPIDs(cfg)
				cfg.Mounts = []Mount{{Type: "bind", Source: "/proc", Target: "/proc", Flags: Recursive}}
			}
			cfg.Mounts = append(cfg.Mounts, Mount{Type: "bind", Source: root + "/tmp", Target: "/tmp"})
			test(t, cfg, hookScripts(root+"/tmp"))
		})
	}
}

// TestHookOrder runs a hook of each kind through a life, and two of some: they run in their order, once, with the
// state that the specification says, in the namespaces that it says.
func TestHookOrder(t *testing.T) {
	hookConfigs(t, func(t *testing.T, cfg Config, s hookScripts) {
		cfg.Annotations = map[string]string{"a": "b \"c\"", "phases": cfg.Annotations["phases"]}
		script := `printf '%s\t%s\t%s\t%s\n' "$HOOK_KIND" "$(cat)" \
			"$(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/pid) $(readlink /proc/self/ns/net)" \
			"$(pwd)" >>$HOOK_DIR/log`
		for _, kind := range hookKinds {
			h := s.hook(t, kind, script)
			second := h
			second.Env = append(slices.Clone(h.Env[:2]), "HOOK_KIND="+string(kind)+"2")
			hookSet(&cfg, kind, h, second)
		}
		p := lifeSh("read x; true")
		in, _ := p.StdinPipe()
		c := lifeNew(t, cfg)
		if err := hookRun(context.Background(), c, p); err != nil {
			t.Fatal(err)
		}
		pid := c.Pid()
		namespaces := func(pid any) string {
			var list []string
			for _, kind := range []string{"mnt", "pid", "net"} {
				link, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/%s", pid, kind))
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, link)
			}
			return strings.Join(list, " ")
		}
		inside, outside := namespaces(pid), namespaces("self")
		in.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		innerPid := pid
		if cfg.Namespaces.NewPID {
			innerPid = 1
		}
		want := []struct {
			status Status
			pid    int
			ns     string
		}{
			{"creating", pid, outside}, {"creating", pid, outside}, {"creating", innerPid, inside},
			{"created", innerPid, inside}, {"running", pid, outside}, {"stopped", 0, outside},
		}
		got := strings.Split(strings.TrimSpace(s.read("log")), "\n")
		if len(got) != 2*len(want) {
			t.Fatalf("%d hooks ran:\n%s", len(got), strings.Join(got, "\n"))
		}
		for i, line := range got {
			f := strings.Split(line, "\t")
			w, kind := want[i/2], string(hookKinds[i/2])
			if i%2 == 1 {
				kind += "2"
			}
			var state map[string]any
			if err := json.Unmarshal([]byte(f[1]), &state); err != nil {
				t.Errorf("%s: %v in %s", kind, err, f[1])
				continue
			}
			if w.pid == 0 {
				if state["pid"] != nil {
					t.Errorf("%s: pid %v", kind, state["pid"])
				}
				state["pid"] = 0.
			}
			annotation, _ := state["annotations"].(map[string]any)
			if f[0] != kind || state["status"] != string(w.status) || state["pid"] != float64(w.pid) || f[2] != w.ns ||
				state["ociVersion"] != specs.Version || state["id"] != "life" || state["bundle"] != c.record.dir || annotation["a"] != `b "c"` {
				t.Errorf("hook %d is %q, want %s %+v", i, f, kind, w)
			}
		}
	})
}

// TestHookProcess looks at what a program gets: its arguments and environment exactly, a session and process group of its own, no
// descriptors besides the caller's own inheritable ones and its streams, and the whole state.
func TestHookProcess(t *testing.T) {
	hookConfigs(t, func(t *testing.T, cfg Config, s hookScripts) {
		extra, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer extra.Close()
		for _, kind := range hookKinds {
			h := s.hook(t, kind, "")
			h.Path = "/bin/busybox"
			h.Args = []string{"sh", "-c", `exec >` + strings.TrimPrefix(h.Env[1], "HOOK_DIR=") + "/" + string(kind) + `
				busybox tr '\0' ' ' </proc/self/environ
				echo "$0 $# $1"
				busybox cut -d' ' -f5,6 /proc/self/stat | { read a b; [ $a = $b ] && echo own session; }
				umask
				busybox grep SigBlk /proc/self/status
				echo x 2>/dev/null >&0 || echo sealed
				busybox wc -l
				busybox ls /proc/self/fd | busybox tr '\n' ' '`, "zero", "a b", ""}
			h.Env = []string{"A=1", "B=x y", "A=2"}
			if kind == hookStartContainer {
				h.Env = append(h.Env, "PATH=/bin")
			}
			hookSet(&cfg, kind, h)
		}
		cfg.Umask = ptr(uint32(0o027))
		p := lifeSh("exit 3")
		p.ExtraFiles = []*os.File{extra, nil, extra}
		c := lifeNew(t, cfg)
		if err := hookRun(context.Background(), c, p); err != nil {
			t.Fatal(err)
		}
		c.Wait()
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		for _, kind := range hookKinds {
			env, umask := "A=1 B=x y A=2 ", "0022"
			switch {
			case kind == hookStartContainer:
				env, umask = env+"PATH=/bin ", "0027"
			case !kind.inside():
				umask = fmt.Sprintf("%04o", hookUmask(t))
			}
			want := env + "zero 2 a b\nown session\n" + umask + "\nSigBlk:\t0000000000000000\nsealed\n1\n0 1 2 3 "
			got := s.read(string(kind))
			if !kind.inside() { // as from os/exec
				for _, fd := range hookInherited(t) {
					got = strings.Replace(got, " "+fd+" ", " ", 1)
				}
			}
			if got != want {
				t.Errorf("%s got %q, want %q", kind, got, want)
			}
		}
	})
}

// hookUmask is the umask of this process.
func hookUmask(t testing.TB) (mask int) {
	t.Helper()
	text, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(text), "Umask:")
	if _, err := fmt.Sscanf(rest, "%o", &mask); err != nil {
		t.Fatal(err)
	}
	return mask
}

// hookInherited lists the descriptors that every program inherits which this process starts.
func hookInherited(t testing.TB) (list []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && fd > 3 && flags&unix.FD_CLOEXEC == 0 {
			list = append(list, e.Name())
		}
	}
	return list
}

// TestHookRoot: programs of CreateContainer find the container's root, with its mounts, at Root.Dir and as their
// working directory, and what they mount there is in the container.
func TestHookRoot(t *testing.T) {
	hookConfigs(t, func(t *testing.T, cfg Config, s hookScripts) {
		h := s.hook(t, hookCreateContainer, `[ -c dev/null ] && [ -c $ROOT/dev/null ] && [ ! -e /dev/null/x ] &&
			mount -t tmpfs hook $ROOT/etc && echo made >etc/hook && test -e $ROOT/etc/hook`)
		h.Env = append(h.Env, "ROOT="+cfg.Root.Dir)
		hookSet(&cfg, hookCreateContainer, h)
		got := sh(t, cfg, "cat /etc/hook; ls /etc; ls -a /..; cd /; pwd")
		if !strings.HasPrefix(got, "made\nhook\n") || strings.Contains(got, "home") || !strings.HasSuffix(got, "/") {
			t.Errorf("in the container: %s", got)
		}
		if text, err := os.ReadFile(cfg.Root.Dir + "/etc/hook"); err == nil {
			t.Errorf("on the host: %s", text)
		}
	})
}
