//go:build linux

package container

import (
	"context"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// The container's root gives a cgroup to another user of the container, who makes more of them, as a systemd in there does. On
// the host these belong to nobody that the caller is; Destroy removes them all the same.
func TestCgroupOfSubordinateIDs(t *testing.T) {
	testenv.Need(t, testenv.User, testenv.SubIDs, testenv.Cgroup)
	leak.Check(t)
	forgetUserNamespaces(t)
	uid, gid, err := SubordinateIDs()
	if err != nil {
		t.Fatal(err)
	}
	cfg := cgroupConfig(t)
	cfg.Cgroup.Delegate = true
	cfg.UidMappings, cfg.GidMappings = uid, gid
	cfg.Capabilities = nil
	c := lifeStart(t, cfg, lifeSh("sleep 1000"))
	run := func(user, script string) {
		t.Helper()
		p := lifeSh(script)
		p.User = user
		if err := c.Exec(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	run("0", "mkdir /sys/fs/cgroup/a && chown 33:33 /sys/fs/cgroup/a")
	run("33:33", "mkdir /sys/fs/cgroup/a/b /sys/fs/cgroup/a/b/c; umask 077; mkdir -p /sys/fs/cgroup/a/d/e/f; umask 777; mkdir /sys/fs/cgroup/a/g")
	run("0", "mkdir -p /sys/fs/cgroup/closed/below; chmod 0 /sys/fs/cgroup/closed /sys/fs/cgroup/closed/below")
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
}
