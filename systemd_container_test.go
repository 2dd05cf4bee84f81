//go:build linux

package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// A whole container in a scope, with a limit that kills, also for an ordinary user in a login session.
func TestSystemdContainer(t *testing.T) {
	needSystemd(t)
	tree, err := findCgroupTree()
	if err != nil {
		t.Fatal(err)
	}
	for name, detached := range map[string]bool{"attached": false, "detached": true} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg, _ := lifeConfig(t)
			cfg.Detached = detached
			cfg.Cgroup = &CgroupConfig{Manager: CgroupSystemd}
			cfg.Resources = &Resources{Memory: &MemoryResources{Max: new(int64(32 << 20)), SwapMax: new(int64(0))}, Pids: &PidsResources{Max: new(int64(50))}}
			p := lifeSh("cat /proc/self/cgroup; sleep 1000")
			out, err := p.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			c := lifeStart(t, cfg, p)
			t.Logf("started in %v", time.Since(began))
			buf := make([]byte, 4096)
			n, _ := out.Read(buf)
			if string(buf[:n]) != "0::/\n" {
				t.Errorf("inside the cgroup is %q", buf[:n])
			}
			st, err := c.state()
			if err != nil || st.Cgroup == nil {
				t.Fatal(err)
			}
			place := st.Cgroup.Place
			if own := cgroupOf(c.Pid()); !within(own, place.path()) {
				t.Errorf("the process is in %s, not in %s", own, place.path())
			}
			if got := execSh(t, c, Process{}, "cat /proc/self/cgroup"); got != "0::/" {
				t.Errorf("exec: inside the cgroup is %q", got)
			}
			ctl := strings.Fields(place.systemctl())
			if out, err := exec.Command(ctl[0], append(ctl[1:], "daemon-reload")...).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if got := cgroupText(t, c, "memory.max") + cgroupText(t, c, "pids.max"); got != "33554432\n50\n" {
				t.Errorf("limits after daemon-reload: %q", got)
			}
			hungry := lifeSh(eatMemory)
			if err := c.Exec(context.Background(), hungry); err != nil {
				t.Fatal(err)
			}
			var exit *ExitError
			if err := hungry.Wait(); !errors.As(err, &exit) || !exit.OOMKilled {
				t.Errorf("it ended with %v", err)
			}
			// The numbers are there after the end; they would be gone with a scope that has lost its last process.
			if err := c.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			lifeWait(t, c.Wait)
			if got := cgroupText(t, c, "memory.events"); !strings.Contains(got, "oom_kill 1\n") {
				t.Errorf("memory.events: %q", got)
			}
			began = time.Now()
			if err := c.Destroy(); err != nil {
				t.Fatal(err)
			}
			t.Logf("destroyed in %v", time.Since(began))
			if _, err := os.Stat(tree.dir(place.Parent)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the scope's cgroup: %v", err)
			}
			if !gone(t, place) {
				t.Error("the unit is still there")
			}
		})
	}
}

// Systemd stops the scope of a container; another process destroys what is left.
func TestSystemdContainerStopped(t *testing.T) {
	needSystemd(t)
	testenv.Need(t, testenv.Program("systemctl", "systemd"))
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	cfg.Detached = true
	cfg.StopTimeout = time.Second
	cfg.Cgroup = &CgroupConfig{Manager: CgroupSystemd}
	c := lifeStart(t, cfg, lifeSh("trap '' TERM; while :; do sleep 1; done"))
	st, err := c.state()
	if err != nil || st.Cgroup == nil {
		t.Fatal(err)
	}
	place := st.Cgroup.Place
	ctl := strings.Fields(place.systemctl())
	if out, err := exec.Command(ctl[0], append(ctl[1:], "stop", place.Unit)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lifeWait(t, c.Wait)
	other, err := Load(filepath.Dir(c.record.dir), c.id)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := other.State(); err != nil || st.Status != StatusStopped {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := other.Cgroup(); !errors.Is(err, ErrNoCgroup) {
		t.Errorf("its cgroup: %v", err)
	}
	if err := other.Destroy(); err != nil {
		t.Error(err)
	}
}
