//go:build linux

package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// stateStart is startTime.
func stateStart(t testing.TB, pid int) uint64 {
	t.Helper()
	start, err := startTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	return start
}

// stateBoot is bootID.
func stateBoot(t testing.TB) string {
	t.Helper()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	return boot
}

// lifeForge replaces the record of a container's state.
func lifeForge(t testing.TB, c *Container, change func(*ContainerState)) {
	t.Helper()
	state, err := c.record.state()
	if err != nil {
		t.Fatal(err)
	}
	change(&state.ContainerState)
	if err := c.record.write("state.json", state); err != nil {
		t.Fatal(err)
	}
}

func TestStateOfLife(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	cfg.Annotations = map[string]string{"key": "value"}
	c := lifeNew(t, cfg)
	other, err := Load(filepath.Dir(c.record.dir), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	expect := func(status Status, pid bool, code int) {
		t.Helper()
		for who, c := range map[string]*Container{"": c, "loaded": other} {
			state, err := c.State()
			if err != nil {
				t.Fatal(who, err)
			}
			if state.Status != status || (state.Pid != 0) != pid || state.ExitCode != code || state.ID != "life" || state.Annotations["key"] != "value" {
				t.Errorf("%s state is %+v, want %s", who, state, status)
			}
			if got, err := c.Status(); got != status || err != nil {
				t.Errorf("%s status is %s, %v", who, got, err)
			}
			if got := c.Pid(); got != state.Pid {
				t.Errorf("%s pid is %d, not %d", who, got, state.Pid)
			}
		}
	}
	expect(StatusCreating, false, 0)
	p := lifeSh("read line; exit 4")
	in, _ := p.StdinPipe()
	if err := c.Run(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	expect(StatusRunning, true, 0)
	in.Close()
	c.Wait()
	expect(StatusStopped, false, 4)
	if state, _ := c.State(); state.Created.IsZero() || state.Started.Before(state.Created) || state.Stopped.Before(state.Started) {
		t.Errorf("times are out of order: %+v", state)
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Container{c, other} {
		if _, err := c.State(); !errors.Is(err, ErrNotExist) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("State after Destroy: %v", err)
		}
	}
}

// Who sees a process end through State sees how it ended.
func TestStateKnowsTheEnd(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeStart(t, cfg, lifeSh("exit 4"))
	for {
		state, err := c.State()
		if err != nil {
			t.Fatal(err)
		}
		if state.Status == StatusStopped {
			if state.ExitCode != 4 || state.Stopped.IsZero() {
				t.Errorf("state is %+v", state)
			}
			return
		}
	}
}

func TestStateModes(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	dir := filepath.Join(t.TempDir(), "a", "state")
	c, err := New(dir, "x", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	for path, want := range map[string]fs.FileMode{
		dir: 0o700 | fs.ModeDir, dir + "/x": 0o700 | fs.ModeDir, dir + "/x/config.json": 0o600, dir + "/x/state.json": 0o600,
	} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestDerive(t *testing.T) {
	self := os.Getpid()
	for name, row := range map[string]struct {
		pid   int
		start uint64
		boot  string
		want  Status
	}{
		"alive":             {self, stateStart(t, self), stateBoot(t), StatusRunning},
		"number used again": {self, stateStart(t, self) + 1, stateBoot(t), StatusStopped},
		"another boot":      {self, stateStart(t, self), "another", StatusStopped},
		"no such process":   {1 << 30, 5, stateBoot(t), StatusStopped},
		"died at once":      {1 << 30, 0, stateBoot(t), StatusStopped},
		"no number":         {0, 0, stateBoot(t), StatusStopped},
		"negative":          {-1, stateStart(t, self), stateBoot(t), StatusStopped},
	} {
		s := stored{ContainerState: ContainerState{Status: StatusRunning, Pid: row.pid, StartTime: row.start, BootID: row.boot}}
		if err := (record{t.TempDir()}).derive(&s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s.Status != row.want || (s.Pid != 0) != (row.want == StatusRunning) {
			t.Errorf("%s: %+v, want %s", name, s, row.want)
		}
		if row.want == StatusStopped && s.ExitCode != -1 {
			t.Errorf("%s: exit code %d of an end that nobody saw", name, s.ExitCode)
		}
	}
}

func TestStartTimeOfZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	pid := cmd.Process.Pid
	for text := ""; !strings.Contains(text, ") Z "); {
		b, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if n := stateStart(t, pid); n != 0 {
		t.Errorf("start time %d", n)
	}
}

// A record that tells of a process which it is not: nothing is killed but the container's own.
func TestDestroySparesOthers(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for name, change := range map[string]func(*ContainerState){
		"number used again": func(s *ContainerState) { s.StartTime++ },
		"another boot":      func(s *ContainerState) { s.BootID = "another" },
		"no start time":     func(s *ContainerState) { s.StartTime = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			impostor := exec.Command("sleep", "1000")
			if err := impostor.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { impostor.Process.Kill(); impostor.Wait() }()
			pid := impostor.Process.Pid
			c := lifeNew(t, cfg)
			lifeForge(t, c, func(s *ContainerState) {
				s.Status, s.Pid, s.StartTime, s.BootID = StatusRunning, pid, stateStart(t, pid), stateBoot(t)
				change(s)
			})
			other, err := Load(filepath.Dir(c.record.dir), c.ID())
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Signal(unix.SIGKILL); !errors.Is(err, ErrNotRunning) {
				t.Errorf("Signal: %v", err)
			}
			if err := other.Stop(context.Background()); err != nil {
				t.Errorf("Stop: %v", err)
			}
			if err := other.Destroy(); err != nil {
				t.Errorf("Destroy: %v", err)
			}
			if stateStart(t, pid) == 0 {
				t.Error("an innocent process was killed")
			}
		})
	}
}

// lifeDamages are what may become of a file.
func lifeDamages(t testing.TB, path string) map[string]func() error {
	return map[string]func() error{
		"removed":   func() error { return nil },
		"symlink":   func() error { return os.Symlink("/etc/passwd", path) },
		"dangling":  func() error { return os.Symlink("/nonexistent", path) },
		"loop":      func() error { return os.Symlink(path, path) },
		"directory": func() error { return os.MkdirAll(path+"/below", 0o700) },
		"FIFO":      func() error { return unix.Mkfifo(path, 0o600) },
		"garbage":   func() error { return os.WriteFile(path, []byte("\x00\xff{}"), 0o600) },
		"other":     func() error { return os.WriteFile(path, []byte(`[1, "x"]`), 0o600) },
		"types":     func() error { return os.WriteFile(path, []byte(`{"pid": "1", "Root": 7}`), 0o600) },
		"null":      func() error { return os.WriteFile(path, []byte(`null`), 0o600) },
		"huge": func() error {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(path, maxRecord+1)
		},
	}
}

func TestDestroyDamaged(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for _, file := range []string{"state.json", "config.json"} {
		for name := range lifeDamages(t, "") {
			t.Run(file+" "+name, func(t *testing.T) {
				c := lifeNew(t, cfg)
				path := c.record.path(file)
				if err := errors.Join(os.Remove(path), lifeDamages(t, path)[name]()); err != nil {
					t.Fatal(err)
				}
				lifeDestroyDamaged(t, c)
			})
		}
	}
}

func lifeDestroyDamaged(t testing.TB, c *Container) {
	t.Helper()
	other, err := Load(filepath.Dir(c.record.dir), c.ID())
	if _, gone := os.Lstat(c.record.path("state.json")); gone != nil {
		// What a New or a Destroy leaves that is killed in between: there is no container, and no trace of it.
		if _, err := os.Lstat(c.record.dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the record is still there: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	other.Status() // must not panic, nor block
	other.Signal(0)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := other.Run(ctx, &Process{Args: []string{"true"}}); err == nil {
		text, _ := os.ReadFile(other.record.path("config.json"))
		t.Errorf("Run starts a container with a damaged record: %s", text)
		other.Wait()
	}
	if err := other.Destroy(); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if _, err := os.Lstat(c.record.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the record is still there: %v", err)
	}
}

func TestDestroyTruncated(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	dir := t.TempDir()
	chosen := sampled(t)
	for _, file := range []string{"state.json", "config.json"} {
		for n := 0; ; n++ {
			if n > 0 && !chosen(n) {
				continue
			}
			c, err := New(dir, "x", cfg)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(c.record.path(file))
			if err != nil {
				t.Fatal(err)
			}
			if n >= len(text) { // the time in it is of any length
				c.Destroy()
				break
			}
			if err := os.Truncate(c.record.path(file), int64(n)); err != nil {
				t.Fatal(err)
			}
			lifeDestroyDamaged(t, c)
		}
	}
}

// The one who has started the process needs no record to find it.
func TestDestroyRunningWithoutRecord(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for name := range lifeDamages(t, "") {
		t.Run(name, func(t *testing.T) {
			c := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
			path := c.record.path("state.json")
			if err := errors.Join(os.Remove(path), lifeDamages(t, path)[name]()); err != nil {
				t.Fatal(err)
			}
			if err := c.Destroy(); err != nil {
				t.Error(err)
			}
			var exit *ExitError
			if err := lifeWait(t, c.Wait); !errors.As(err, &exit) || exit.Signal != unix.SIGKILL {
				t.Errorf("Wait returned %v", err)
			}
		})
	}
}

// A New or a Destroy that was killed half-way leaves a directory without state.json: there is no such
// container, and the id is not lost.
func TestHalfMade(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	dir := t.TempDir()
	for _, half := range [][]string{nil, {"config.json"}, {"config.json", ".state.json"}, {"start", "go", "report", "exit"}} {
		make := func() {
			if err := os.Mkdir(dir+"/x", 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range half {
				if err := os.WriteFile(dir+"/x/"+name, []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		make()
		if _, err := Load(dir, "x"); !errors.Is(err, ErrNotExist) {
			t.Errorf("%q: Load: %v", half, err)
		}
		if _, err := os.Lstat(dir + "/x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: Load leaves it: %v", half, err)
		}
		make()
		c, err := New(dir, "x", cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.Destroy()
	}
}

func TestLoadNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"missing", "file", "link"} {
		if _, err := Load(dir, id); !errors.Is(err, ErrNotExist) {
			t.Errorf("Load of %s: %v", id, err)
		}
	}
	if _, err := Load(dir+"/missing", "x"); !errors.Is(err, ErrNotExist) {
		t.Errorf("Load of a missing directory: %v", err)
	}
}

func TestStateOfNewerVersion(t *testing.T) {
	var s ContainerState
	text := `{"version": 2, "id": "x", "status": "created", "future": {"a": [1]}, "exitCode": 0}`
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.ID != "x" {
		t.Errorf("%+v, %v", s, err)
	}
}

// A state directory that others may change is refused: they could exchange a record for a link to a directory
// of the caller's, whose files Destroy would then remove.
func TestStateDirOfOthers(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	for mode, ok := range map[os.FileMode]bool{0o700: true, 0o755: true, 0o777 | os.ModeSticky: true, 0o777: false, 0o770: false, 0o702: false} {
		dir := t.TempDir()
		c, err := New(dir, "x", cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, newErr := New(dir, "y", cfg)
		_, loadErr := Load(dir, "x")
		_, listErr := List(dir)
		for what, err := range map[string]error{"New": newErr, "Load": loadErr, "List": listErr} {
			if ok && err != nil || !ok && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("mode %v: %s: %v", mode, what, err)
			}
		}
		os.Chmod(dir, 0o700)
		if y, err := Load(dir, "y"); err == nil {
			y.Destroy()
		}
		c.Destroy()
	}
	if os.Geteuid() == 0 {
		dir := t.TempDir()
		if err := os.Chown(dir, 1234, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := New(dir, "x", cfg); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("another user's: %v", err)
		}
	}
}
