//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// Contexts of the policy in internal/guest/files/container.cil.
const (
	selinuxRun     = "system_u:system_r:container_t:s0:c1,c2"
	selinuxOther   = "system_u:system_r:container_t:s0:c3"
	selinuxNewPriv = "system_u:system_r:container_newprivs_t:s0:c1,c2"
	selinuxClosed  = "system_u:system_r:container_closed_t:s0:c1,c2"
	selinuxFile    = "system_u:object_r:container_file_t:s0:c1,c2"
)

// selinuxConfig is a container whose files have a label that selinuxRun may use, but for /etc/host and /etc/other.
func selinuxConfig(t testing.TB) Config {
	t.Helper()
	testenv.Need(t, testenv.Root, testenv.SELinux)
	cfg := testConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{"etc/one": "1\n", "etc/other": "2\n", "etc/host": "3\n"})
	err := filepath.WalkDir(cfg.Root.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Base(path) == "host" {
			return err
		}
		label := selinuxFile
		if filepath.Base(path) == "other" {
			label = strings.Replace(selinuxFile, "c1,c2", "c3", 1)
		}
		return unix.Lsetxattr(path, "security.selinux", []byte(label), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg.SelinuxLabel = selinuxRun
	return cfg
}

// tellContext tells the context of the process, and which files it may read.
const tellContext = `tr '\0' '\n' </proc/self/attr/current; cat /etc/one /etc/other /etc/host 2>/dev/null; true`

const contextTold = selinuxRun + "\n1"

// TestSELinux runs programs with a context: in a start, and in the other ways in.
func TestSELinux(t *testing.T) {
	base := selinuxConfig(t)
	for name, change := range map[string]func(*Config){
		"user namespace": func(*Config) {},
		"root":           func(cfg *Config) { cfg.Namespaces.NewUser = false },
		"privileges":     func(cfg *Config) { cfg.NoNewPrivileges = false },
		"init":           func(cfg *Config) { cfg.Init = true },
		"detached":       func(cfg *Config) { cfg.Detached = true },
		"not sorted":     func(cfg *Config) { cfg.SelinuxLabel = strings.Replace(selinuxRun, "c1,c2", "c2,c1", 1) },
		"new privileges": func(cfg *Config) { cfg.SelinuxLabel, cfg.NoNewPrivileges = selinuxNewPriv, false },
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := base
			change(&cfg)
			want := contextTold
			if cfg.SelinuxLabel == selinuxNewPriv {
				want = selinuxNewPriv + "\n1"
			}
			wantText(t, sh(t, cfg, tellContext), want)
		})
	}
	t.Run("exec", func(t *testing.T) {
		leak.Check(t)
		c := execSleeper(t, base)
		wantContext(t, c.first(t), selinuxRun)
		wantText(t, strings.TrimSuffix(execSh(t, c, Process{}, tellContext), "\n"), contextTold)
		// With another's categories it may not read the program, which the kernel finds out when it cannot go back.
		if out, err := execIn(t, c.Exec, &Process{Args: []string{"echo", "it runs"}, SelinuxLabel: selinuxOther}); err == nil || out != "" {
			t.Errorf("with other categories: %q, %v", out, err)
		}
	})
}

// first is the number of the first process.
func (c *Container) first(t testing.TB) int {
	t.Helper()
	s, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	return s.Pid
}

// wantContext looks from outside.
func wantContext(t testing.TB, pid int, want string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", pid))
	if err != nil {
		t.Fatal(err)
	}
	wantText(t, strings.TrimRight(string(text), "\n\x00"), want)
}

// TestSELinuxRefused asks for contexts that there are not, or that the policy keeps from the caller. No program runs.
func TestSELinuxRefused(t *testing.T) {
	base := selinuxConfig(t)
	leak.Check(t)
	for name, x := range map[string]struct {
		change func(*Config)
		field  string // of a FieldError; if empty, execve fails
		errno  unix.Errno
	}{
		"no type":       {func(cfg *Config) { cfg.SelinuxLabel = "system_u:system_r:container_none_t:s0" }, "SelinuxLabel", 0},
		"no user":       {func(cfg *Config) { cfg.SelinuxLabel = "nobody_u:system_r:container_t:s0" }, "SelinuxLabel", 0},
		"no category":   {func(cfg *Config) { cfg.SelinuxLabel = "system_u:system_r:container_t:s0:c5000" }, "SelinuxLabel", 0},
		"no mount type": {func(cfg *Config) { cfg.MountLabel = "system_u:object_r:container_none_t:s0" }, "MountLabel", 0},
		"closed":        {func(cfg *Config) { cfg.SelinuxLabel, cfg.NoNewPrivileges = selinuxClosed, false }, "", unix.EACCES},
		"closed, init": {func(cfg *Config) { cfg.SelinuxLabel, cfg.NoNewPrivileges, cfg.Init = selinuxClosed, false, true },
			"", unix.EACCES},
		"no_new_privs": {func(cfg *Config) { cfg.SelinuxLabel = selinuxNewPriv }, "", unix.EPERM},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := base
			x.change(&cfg)
			out, err := runIn(t, cfg, &Process{Args: []string{"echo", "it runs"}})
			if out != "" {
				t.Errorf("the program wrote %q", out)
			}
			if x.field == "" {
				if e := wantError(t, err, "execute", x.errno); !strings.Contains(e.Remedy, "SelinuxLabel") {
					t.Errorf("the remedy is %q", e.Remedy)
				}
				return
			}
			var f *FieldError
			if !errors.As(err, &f) || f.Field != x.field || !errors.Is(err, ErrInvalidConfig) {
				t.Errorf("got %v, want that %s is wrong", err, x.field)
			}
		})
	}
}

// TestSELinuxMountLabel looks at the label of what is made for the container, from inside; and without MountLabel it is another.
func TestSELinuxMountLabel(t *testing.T) {
	base := selinuxConfig(t)
	for name, change := range map[string]func(*Config){
		"user namespace": func(*Config) {},
		"root":           func(cfg *Config) { cfg.Namespaces.NewUser = false },
		"overlay":        func(cfg *Config) { cfg.Root.Access = CopyOnWrite },
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := base
			change(&cfg)
			cfg.MountLabel = selinuxFile
			cfg.Mounts = append(cfg.Mounts, Mount{Type: "tmpfs", Target: "/tmp"})
			c := execSleeper(t, cfg)
			wantText(t, execSh(t, c, Process{}, "echo x >/tmp/file && cat /tmp/file"), "x")
			wantContext(t, c.first(t), selinuxRun)
			root := fmt.Sprintf("/proc/%d/root", c.first(t))
			files := []string{"/tmp", "/tmp/file", "/dev", "/dev/pts"}
			if cfg.Root.Access == CopyOnWrite {
				files = append(files, "/", "/etc/host") // all files have the one label
			}
			for _, name := range files {
				value := make([]byte, 256)
				n, err := unix.Getxattr(root+name, "security.selinux", value)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				wantText(t, name+" "+strings.TrimRight(string(value[:n]), "\x00"), name+" "+selinuxFile)
			}
		})
	}
}

// TestSELinuxKey looks for the session keyring, by its label, and sees that a hook meets the process before it has one.
func TestSELinuxKey(t *testing.T) {
	cfg := selinuxConfig(t)
	leak.Check(t)
	own, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		t.Fatal(err)
	}
	hook := ""
	cfg.Hooks = &Hooks{CreateRuntime: []Hook{{Func: func(_ context.Context, s *ContainerState) error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", s.Pid))
		hook = string(text)
		return err
	}}}}
	cfg.Namespaces.NewUser = false // /proc/keys shows those of one's own user namespace
	before := keysOf(t, selinuxRun)
	execSleeper(t, cfg)
	if hook != string(own) {
		t.Errorf("before its program the process is %q, and this one %q", hook, own)
	}
	has := keysOf(t, selinuxRun)
	for id := range before { // which the kernel may have removed meanwhile: their containers have ended
		delete(has, id)
	}
	if len(has) != 1 {
		t.Errorf("there were the keys %v with the label, and now there are %v, too", before, has)
	}
}

// keysOf are the numbers of the keys with a label.
func keysOf(t testing.TB, label string) map[int]bool {
	t.Helper()
	keys := map[int]bool{}
	text, err := os.ReadFile("/proc/keys")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var id int
		if _, err := fmt.Sscanf(line, "%x", &id); err != nil {
			t.Fatal(line, err)
		}
		if has, err := unix.KeyctlString(unix.KEYCTL_GET_SECURITY, id); err == nil && has == label {
			keys[id] = true
		}
	}
	return keys
}
