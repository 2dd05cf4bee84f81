//go:build linux

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
)

// Podman's limits, statistics and pauses, with both of its managers of cgroups.
func TestLimitsPodman(t *testing.T) {
	testenv.Need(t, testenv.Cgroup)
	for _, name := range []string{"cpu", "memory", "pids"} {
		testenv.Need(t, testenv.CgroupController(name))
	}
	for _, manager := range []string{"cgroupfs", "systemd"} {
		t.Run(manager, func(t *testing.T) {
			if manager == "systemd" && os.Geteuid() == 0 {
				testenv.Need(t, testenv.SystemdRoot)
			} else if manager == "systemd" {
				testenv.Need(t, testenv.SystemdUser)
			}
			podmanLimits(t, newPodmanCgroups(t, manager, "enabled"))
		})
	}
}

func podmanLimits(t *testing.T, p *podman) {
	before := podmanCgroups(t)
	options := with("none", "--security-opt", "apparmor=unconfined") // podman's own profile is not loaded there
	limits := []string{"--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--pids-limit", "50"}
	run := append(append([]string{"run", "--detach", "--name", "c"}, append(options, limits...)...), testImage, "sh", "-c", "while :; do sleep 0.2; done")
	p.must(run...)
	inside := strings.TrimSpace(p.must("inspect", "--format", "{{.State.Pid}}", "c"))
	text, err := os.ReadFile("/proc/" + inside + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	// The limits hold at any level above the process.
	group := strings.TrimSpace(strings.TrimPrefix(string(text), "0::"))
	for name, want := range map[string]string{"memory.max": "67108864", "memory.swap.max": "0", "cpu.max": "50000 100000", "pids.max": "50"} {
		if got := lowestLimit(group, name); got != want {
			t.Errorf("%s of %s is %q, want %q", name, group, got, want)
		}
	}
	p.want("0::/", "exec", "c", "cat", "/proc/self/cgroup")

	// Podman finds the cgroup with the numbers.
	stats := strings.Fields(p.must("stats", "--no-stream", "--no-reset", "--format", "{{.MemUsage}} {{.PIDs}}", "c"))
	if len(stats) != 4 || strings.HasPrefix(stats[0], "0") || stats[2] != "67.11MB" || stats[3] == "0" || stats[3] == "--" {
		t.Errorf("stats: %q", stats)
	}
	p.must("pause", "c")
	p.want("paused", "inspect", "--format", "{{.State.Status}}", "c")
	frozen, err := os.ReadFile("/sys/fs/cgroup" + group + "/cgroup.events")
	if err != nil || !strings.Contains(string(frozen), "frozen 1") {
		t.Errorf("paused: %q, %v", frozen, err)
	}
	p.must("unpause", "c")
	p.want("running", "inspect", "--format", "{{.State.Status}}", "c")
	p.want("c", "ps", "--format", "{{.Names}}")
	p.must("rm", "--force", "--time", "0", "c")

	// More than the memory that there is: the container's process is killed.
	oom := append(append([]string{"run", "--rm"}, append(options, limits...)...), testImage, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
	if out, errs, code := p.run(oom...); code != 137 {
		t.Errorf("too much memory: code %d, %s %s", code, out, errs)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		after := podmanCgroups(t)
		if len(after) <= len(before) {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("cgroups are left: %v", after)
			break
		}
	}
}

// lowestLimit is the file of a cgroup, or of the lowest one above that has it.
func lowestLimit(group, name string) string {
	for dir := group; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if text, err := os.ReadFile("/sys/fs/cgroup" + dir + "/" + name); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	return ""
}

// podmanCgroups are the cgroups of podman's containers.
func podmanCgroups(t *testing.T) (all []string) {
	t.Helper()
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "libpod-") {
			all = append(all, path)
		}
		return nil
	})
	return all
}
