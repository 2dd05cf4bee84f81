//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"example.com/container/internal/launch"
	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// Calls as the listing has them.
var (
	setNoNewPrivs = fmt.Sprintf("prctl(%d, 1)", unix.PR_SET_NO_NEW_PRIVS)
	dropBounding  = fmt.Sprintf("prctl(%d, ", unix.PR_CAPBSET_DROP)
)

// TestVerifyTells compares a running process with what it is, and with everything that it is not.
func TestVerifyTells(t *testing.T) {
	leak.Check(t)
	execConfigs(t, func(t *testing.T, cfg Config) {
		if testenv.Cgroup.Probe() == nil {
			cfg.Cgroup = &CgroupConfig{}
		}
		c := execSleeper(t, cfg)
		pid := c.proc.Pid()
		own := planOf(t, cfg, c.proc)
		if own.caps.bounding == 0 {
			t.Fatal("no capabilities to compare")
		}
		if dir, err := otherCgroup(pid); err != nil {
			t.Fatal(err)
		} else if dir != nil {
			defer dir.Close()
			own.cgroup = dir
		}
		checks := append(placeChecks[:len(placeChecks):len(placeChecks)], finalChecks...)
		if _, err := own.verify(pid, checks); err != nil {
			t.Fatal(err)
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		for want, change := range map[string]func(*plan){
			"UidMappings":     func(pl *plan) { pl.uidMaps = []IDMap{{ContainerID: 7, HostID: 8, Size: 9}} },
			"GidMappings":     func(pl *plan) { pl.gidMaps = []IDMap{{ContainerID: 7, HostID: 8, Size: 9}} },
			"User":            func(pl *plan) { pl.user.uid = 12345; pl.userns = usernsNone },
			"Capabilities":    func(pl *plan) { pl.caps.bounding ^= 1 },
			"Cgroup":          func(pl *plan) { pl.cgroup = null },
			"Namespaces.Join": func(pl *plan) { pl.joined = map[NamespaceKind]uint64{NetworkNamespace: 1} },
			"Root":            func(pl *plan) { pl.cfg.Root.Dir = "/bin"; pl.rootDir = fileID{1, 1} },
		} {
			if strings.HasSuffix(want, "Mappings") && own.userns == usernsNone || want == "Root" && !cfg.Namespaces.NewMnt {
				continue
			}
			pl := *own
			its := cfg
			pl.cfg = &its
			change(&pl)
			_, err := pl.verify(pid, checks)
			var e *Error
			if !errors.Is(err, ErrVerify) || !errors.As(err, &e) || e.Path != want {
				t.Errorf("%s: %v", want, err)
			}
		}
		// This process is in the caller's namespaces, has its root and may do more.
		strange := []func(*plan, *seenProcess) error{(*plan).checkSeenNamespaces}
		if cfg.Namespaces.NewPID {
			strange = append(strange, (*plan).checkSeenPIDNamespace)
		}
		if cfg.Namespaces.NewMnt {
			strange = append(strange, (*plan).checkSeenRoot)
		}
		for _, check := range strange {
			if _, err := own.verify(os.Getpid(), []func(*plan, *seenProcess) error{check}); !errors.Is(err, ErrVerify) {
				t.Errorf("of the caller: %v", err)
			}
		}
		running := runningCheck{NoNewPrivileges: true, Filters: 1000}
		if err := running.verify(pid, func() bool { return true }); !errors.Is(err, ErrVerify) {
			t.Errorf("filters: %v", err)
		}
		if err := running.verify(pid, func() bool { return false }); err != nil {
			t.Errorf("of one that is gone: %v", err)
		}
		if inherited, _ := ownFilters(); inherited > 1000 {
			t.Error("this process has them itself")
		}
	})
}

// TestVerifySkipped lets the launcher leave out a call and say nothing: the start fails, by what is seen from outside.
func TestVerifySkipped(t *testing.T) {
	root := testConfig(t)
	for _, x := range []struct{ call, path string }{
		{setNoNewPrivs, "NoNewPrivileges"},
		{dropBounding, "Capabilities"},
		{"capset(", "Capabilities"},
		{"setresuid(33", "User"},
	} {
		for _, way := range []string{"run", "detached", "init", "create"} {
			t.Run(way+" "+x.path, func(t *testing.T) {
				leak.Check(t)
				if x.path == "User" {
					testenv.Need(t, testenv.Root) // an ordinary user has one id
				}
				cfg := root
				cfg.Detached, cfg.Init = way == "detached", way == "init"
				skipIn(t, cfg, x.call, x.path, way == "create")
			})
		}
	}
	t.Run("namespaces", func(t *testing.T) {
		leak.Check(t)
		cfg := DefaultConfig()
		cfg.Mounts, cfg.MaskPaths, cfg.ReadonlyPaths, cfg.Hostname = nil, nil, nil, ""
		cfg.Namespaces = Namespaces{NewUser: true, NewPID: true}
		skipIn(t, cfg, fmt.Sprintf("unshare(%#x)", unix.CLONE_NEWPID), "Namespaces.NewPID", false)
	})
}

// skipIn starts a process without one call.
func skipIn(t *testing.T, cfg Config, call, path string, hold bool) {
	t.Helper()
	state := t.TempDir()
	process := &Process{Args: []string{"true"}}
	if path == "User" {
		process.User = "33"
	}
	if cfg.Root.Dir == "" {
		process.Args = []string{"true"}
	}
	op := callIn(t, planFor(t, cfg, process, hold), call)
	c, err := New(state, "skip", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	c.fault = &launch.Fault{Op: op, Skip: true}
	start := c.Run
	if hold {
		start = c.Create
	}
	err = start(context.Background(), process)
	// At the gate an ordinary user's launcher goes on while it is looked at, and its own filter needs no_new_privs.
	if !hold || !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "wall") {
		wantUnverified(t, err, path)
	}
	if status, err := c.Status(); status != StatusCreating || err != nil {
		t.Errorf("the container is %s, %v", status, err)
	}
	c.fault = nil
	if err := start(context.Background(), &Process{Args: process.Args}); err != nil {
		t.Errorf("without the fault: %v", err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(state); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// callIn is the number of the first call that begins like that.
func callIn(t *testing.T, pl *plan, call string) int {
	t.Helper()
	list := lines(pl.String())
	for op := range pl.Len() {
		line := list[op]
		if _, made, ok := strings.Cut(line, " = "); ok && line[0] == '%' {
			line = made
		}
		if strings.HasPrefix(line, call) {
			return op
		}
	}
	t.Fatalf("there is no %q in\n%s", call, pl)
	return 0
}

func wantUnverified(t *testing.T, err error, path string) {
	t.Helper()
	var e *Error
	if !errors.Is(err, ErrVerify) || !errors.As(err, &e) || e.Path != path && !strings.HasSuffix(path, e.Path) {
		t.Errorf("got %v, want that %s is not as asked for", err, path)
	}
}

// TestVerifyExecSkipped is the same for another process.
func TestVerifyExecSkipped(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	p := &Process{Args: []string{"true"}}
	target, err := c.target()
	if err != nil {
		t.Fatal(err)
	}
	defer target.close()
	pl, err := newJoinPlan(&c.cfg, p, stdioFiles{}, target)
	if err != nil {
		t.Fatal(err)
	}
	pl.closeAll()
	for call, path := range map[string]string{
		setNoNewPrivs: "NoNewPrivileges",
		dropBounding:  "Capabilities",
	} {
		c.fault = &launch.Fault{Op: callIn(t, pl, call), Skip: true}
		wantUnverified(t, c.Exec(context.Background(), p), path)
	}
	c.fault = nil
	if err := c.Exec(context.Background(), p); err != nil {
		t.Error(err)
	}
	p.Wait()
}

// TestVerifyHidden starts containers as an ordinary user whose procfs shows nobody else's processes: to whom the launcher, which is not
// dumpable, does not exist.
func TestVerifyHidden(t *testing.T) {
	const stage = "CONTAINER_PURE_STAGE"
	switch os.Getenv(stage) {
	case "hidden":
		if _, err := os.ReadFile("/proc/1/status"); err == nil {
			t.Fatal("process 1 can be seen")
		}
		cfg := DefaultConfig()
		cfg.Root = Directory(busyboxRoot(t))
		for _, init := range []bool{false, true} {
			cfg.Init = init
			c, err := New(t.TempDir(), "hidden", cfg)
			if err != nil {
				t.Fatal(err)
			}
			p := &Process{Args: []string{"sleep", "1000"}}
			if err := c.Run(t.Context(), p); err != nil {
				t.Fatalf("init %v: %v", init, err)
			}
			q := &Process{Args: []string{"true"}}
			if err := c.Exec(t.Context(), q); err != nil {
				t.Errorf("init %v: exec: %v", init, err)
			} else if err := q.Wait(); err != nil {
				t.Error(err)
			}
			if err := c.Destroy(); err != nil {
				t.Error(err)
			}
		}
	case "mount":
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("proc", "/proc", "proc", 0, "hidepid="+os.Getenv("CONTAINER_HIDEPID")); err != nil {
			t.Fatal(err)
		}
		testAgain(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: pureUser, Gid: pureUser, Groups: []uint32{}}}, stage+"=hidden")
	default:
		testenv.Need(t, testenv.Root, testenv.UserNS)
		leak.Check(t)
		for _, hide := range []string{"1", "2"} { // may not be looked at; are not there
			testAgain(t, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}, stage+"=mount", "CONTAINER_HIDEPID="+hide, "CONTAINER_PURE_DIR=/")
		}
	}
}

// testAgain runs the test again, alone.
func testAgain(t *testing.T, attr *syscall.SysProcAttr, env ...string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = append(append(os.Environ(), "TMPDIR=/tmp"), env...), "/", attr
	out, err := cmd.CombinedOutput()
	testenv.Again(t, out, err)
}
