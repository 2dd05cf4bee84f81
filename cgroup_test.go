//go:build linux

package container

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// cgroupConfig is a container with a cgroup of its own.
func cgroupConfig(t testing.TB) Config {
	t.Helper()
	testenv.Need(t, testenv.Cgroup)
	cfg, _ := lifeConfig(t)
	cfg.Cgroup = &CgroupConfig{}
	return cfg
}

// cgroupText is a file of a container's cgroup.
func cgroupText(t testing.TB, c *Container, name string) string {
	t.Helper()
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	text, err := g.readFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The process is born in the cgroup, which is the root of its cgroup namespace; Destroy leaves nothing of it.
func TestCgroupContainer(t *testing.T) {
	for _, kind := range []struct {
		name string
		set  func(*Config)
	}{
		{"plain", func(c *Config) {}},
		{"detached", func(c *Config) { c.Detached = true }},
		{"host user", func(c *Config) { c.Namespaces.NewUser = os.Geteuid() != 0 }},
		{"no pid namespace", func(c *Config) { c.Namespaces.NewPID = false }},
		{"init", func(c *Config) { c.Init = true }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			leak.Check(t)
			cfg := cgroupConfig(t)
			kind.set(&cfg)
			p := lifeSh(`cat /proc/self/cgroup; read x`)
			in, err := p.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := p.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			c := lifeStart(t, cfg, p)
			buf := make([]byte, 4096)
			n, _ := out.Read(buf)
			text := string(buf[:n])
			if !strings.Contains(text, "0::/\n") {
				t.Errorf("inside the cgroup is %q", text)
			}
			st, err := c.State()
			if err != nil {
				t.Fatal(err)
			}
			g, err := c.Cgroup()
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if !strings.HasPrefix(st.CgroupPath, g.Path()) {
				t.Errorf("the process is in %s, not in %s", st.CgroupPath, g.Path())
			}
			pids, err := g.Processes()
			if err != nil || len(pids) == 0 || cfg.Detached && pids[0] < st.Pid {
				t.Errorf("processes %v of %d, %v", pids, st.Pid, err)
			}
			exec := lifeSh("cat /proc/self/cgroup")
			exec.Cgroup = "jobs/1"
			exec.Stdout = &strings.Builder{}
			if err := c.Exec(context.Background(), exec); err != nil {
				t.Fatal(err)
			}
			exec.Wait()
			if got := exec.Stdout.(*strings.Builder).String(); !strings.Contains(got, "0::/jobs/1\n") {
				t.Errorf("a sub-cgroup shows %q", got)
			}
			in.Close()
			io.Copy(io.Discard, out)
			c.Wait()
			if err := c.Destroy(); err != nil {
				t.Fatal(err)
			}
			if _, err := openCgroup(g.Path()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after Destroy: %v", err)
			}
			if _, err := g.readFile("cgroup.events"); !errors.Is(err, ErrNotExist) {
				t.Errorf("after Destroy: %v", err)
			}
		})
	}
}

func TestPause(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	cfg.StopTimeout = time.Minute
	p := lifeSh(`trap "exit 7" TERM; echo ready; i=0; while :; do i=$((i+1)); echo $i > /tmp/n; done`)
	cfg.Mounts = append(cfg.Mounts, Mount{Type: "tmpfs", Source: "tmpfs", Target: "/tmp"})
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := lifeStart(t, cfg, p)
	lifeReady(t, out)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(); status != StatusPaused {
		t.Errorf("status %s, %v", status, err)
	}
	if err := c.Exec(ctx, lifeSh("true")); !errors.Is(err, ErrPaused) {
		t.Errorf("Exec returned %v", err)
	}
	for try := 1; ; try++ { // the last steps into the freezer may be counted late; who goes on is counted each time
		usage := cgroupText(t, c, "cpu.stat")
		time.Sleep(100 * time.Millisecond)
		now := cgroupText(t, c, "cpu.stat")
		if now == usage {
			break
		}
		if try == 5 {
			t.Fatalf("it went on: %s, %s", usage, now)
		}
	}
	if err := c.Pause(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Status(); status != StatusRunning {
		t.Errorf("status %s, %v", status, err)
	}
	if err := c.Exec(ctx, lifeSh("true")); err != nil {
		t.Errorf("Exec returned %v", err)
	}
	if err := c.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
	lifeExpectExit(t, c.Wait(), lifeExit7)
}

// A container to which its cgroup has been delegated makes cgroups of its own, moves there, and limits them; what limits the container
// it does not see.
func TestCgroupDelegate(t *testing.T) {
	leak.Check(t)
	cfg := cgroupConfig(t)
	cfg.Cgroup.Delegate = true
	controllers := testenv.CgroupController("pids").Probe() == nil
	script := `cd /sys/fs/cgroup && mkdir -p a/b init && echo $$ > init/cgroup.procs && grep ^0:: /proc/self/cgroup && cat cgroup.procs`
	if controllers {
		cfg.Resources = &Resources{Pids: &PidsResources{Max: new(int64(100))}}
		script += ` && echo +pids > cgroup.subtree_control && echo 5 > a/pids.max && cat a/pids.max`
	}
	p := lifeSh(script + "; echo $?; sleep 1000")
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = os.Stderr
	c := lifeStart(t, cfg, p)
	want := "0::/init\n0\n"
	if controllers {
		want = "0::/init\n5\n0\n"
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
		t.Errorf("inside: %q, %v", got, err)
	}
	// Its root has controllers and no processes: Exec goes where the first process is.
	var text strings.Builder
	other := lifeSh("grep ^0:: /proc/self/cgroup")
	other.Stdout = &text
	if err := c.Exec(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	if err := other.Wait(); err != nil || text.String() != "0::/init\n" {
		t.Errorf("another process is in %q, %v", &text, err)
	}
	if controllers && cgroupText(t, c, "pids.max") != "100\n" {
		t.Error("the container's limit has changed")
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	c.Wait()
}
