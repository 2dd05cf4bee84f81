//go:build linux

package container

import (
	"errors"
	"path/filepath"
	"testing"

	"example.com/container/internal/leak"
)

// After a reboot numbers of cgroups begin anew: one of the recorded name and number is another's, and Destroy leaves it alone.
func TestCgroupOfAnotherBoot(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	c := lifeStart(t, cfg, lifeSh("sleep 1000"))
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	state, err := c.state()
	if err != nil {
		t.Fatal(err)
	}
	pid := state.Pid
	state.BootID, state.Cgroup.Boot = "an earlier one", "an earlier one"
	if err := c.record.write("state.json", state); err != nil {
		t.Fatal(err)
	}
	other, err := Load(filepath.Dir(c.record.dir), c.id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Cgroup(); !errors.Is(err, ErrNoCgroup) {
		t.Errorf("the cgroup: %v", err)
	}
	if err := state.killCgroup(t.Context()); err != nil {
		t.Error(err)
	}
	if start, err := startTime(pid); start == 0 || err != nil {
		t.Errorf("the process is gone: %v", err)
	}
	if err := g.Delete(); err != nil {
		t.Error(err)
	}
	c.Wait()
}
