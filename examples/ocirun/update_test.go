//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Sizes are written as for other runtimes.
func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "5": 5, "64m": 64 << 20, "1G": 1 << 30, "2KiB": 2048, "3kb": 3072, "7b": 7, "-1": -1} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "m", "-2", "x", "1x", "9223372036854775807k", "1.5g", "99999999999999999999"} {
		if n, err := parseSize(text); err == nil {
			t.Errorf("%q: %d", text, n)
		}
	}
}

// Limits at the start and later, statistics and pauses of a container in a cgroup of its own.
func TestLimitsOcirun(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Cgroup)
	for _, name := range []string{"cpu", "memory", "pids"} {
		testenv.Need(t, testenv.CgroupController(name))
	}
	r := ocirun(t)
	bundle := newBundle(t, "while :; do sleep 0.1; done", func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(128 << 20))}, Pids: &specs.LinuxPids{Limit: new(int64(50))}}
		s.Linux.CgroupsPath = "/ocirun-limits-test"
	})
	r.must("run", "--detach", "--bundle", bundle, "c")
	defer r.must("delete", "--force", "c")
	stats := func() (e struct {
		Type, ID string
		Data     eventStats
	}) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.must("events", "--stats", "c")), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if s := stats(); s.Type != "stats" || s.ID != "c" || s.Data.Memory.Usage.Limit != 128<<20 || s.Data.Pids.Limit != 50 || s.Data.CPU.Usage.Total == 0 {
		t.Errorf("%+v", s)
	}
	r.must("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "20", "--cpus", "0.5", "--cpu-share", "1024", "c")
	if s := stats(); s.Data.Memory.Usage.Limit != 64<<20 || s.Data.Pids.Limit != 20 {
		t.Errorf("%+v", s)
	}
	r.must("update", "--cpu-period", "50000", "c")
	for _, args := range [][]string{{"--cpu-rt-period", "5"}, {"--memory", "x"}, {"--cpu-quota", "1"}, {"--pids-limit", "30", "--memory-swap", "5"}} {
		if out, code := r.run(append(append([]string{"update"}, args...), "c")...); code == 0 {
			t.Errorf("update %v: %s", args, out)
		}
	}
	if s := stats(); s.Data.Pids.Limit != 20 {
		t.Errorf("a part of an update is left: %+v", s)
	}
	r.must("pause", "c")
	r.await("c", "paused")
	if out, code := r.run("exec", "c", "true"); code == 0 || !strings.Contains(out, "paused") {
		t.Errorf("exec: %d: %s", code, out)
	}
	r.must("resume", "c")
	r.await("c", "running")
	if out := r.must("exec", "--cgroup", "/jobs/1", "c", "cat", "/proc/self/cgroup"); !strings.Contains(out, "0::/jobs/1\n") {
		t.Errorf("exec --cgroup: %s", out)
	}
	if out, code := r.run("exec", "--cgroup", "cpu:/x", "c", "true"); code == 0 || !strings.Contains(out, "--cgroup") {
		t.Errorf("exec --cgroup: %d: %s", code, out)
	}
	if out, code := r.run("resume", "c"); code == 0 || !strings.Contains(out, "not paused") {
		t.Errorf("resume twice: %d: %s", code, out)
	}
	var pids []int
	if err := json.Unmarshal([]byte(r.must("ps", "--format", "json", "c")), &pids); err != nil || len(pids) == 0 || slices.Contains(pids, 0) {
		t.Errorf("%v, %v", pids, err)
	}
}

// Pauses, updates and numbers are as with runc: exit codes, states, and the form of the events.
func TestLimitsAsRunc(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Cgroup)
	for _, name := range []string{"cpu", "memory", "pids"} {
		testenv.Need(t, testenv.CgroupController(name))
	}
	theirs, ours := limitsTranscript(t, peer(t, "runc"), "runc"), limitsTranscript(t, ocirun(t), "ocirun")
	if got, want := strings.Join(ours, "\n"), strings.Join(theirs, "\n"); got != want {
		t.Errorf("ours:\n%s\nrunc's:\n%s", got, want)
	}
}

// limitsTranscript notes exit codes and numbers of one container's life.
func limitsTranscript(t *testing.T, r runtime, name string) (lines []string) {
	bundle := newBundle(t, "while :; do sleep 0.1; done", func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: new(int64(128 << 20)), Swap: new(int64(128 << 20))}, Pids: &specs.LinuxPids{Limit: new(int64(50))},
			Devices: s.Linux.Resources.Devices,
		}
		s.Linux.CgroupsPath = "/" + name + "-limits-test"
	})
	r.must("run", "--detach", "--bundle", bundle, "c")
	defer r.must("delete", "--force", "c")
	step := func(args ...string) {
		_, code := r.run(args...)
		lines = append(lines, fmt.Sprint(strings.Join(args, " "), ": ", code))
	}
	numbers := func() {
		var e struct {
			Type, ID string
			Data     struct {
				CPU    struct{ Usage struct{ Total uint64 } }
				Memory struct {
					Usage, Swap eventLimit
					Raw         map[string]uint64
				}
				Pids struct{ Current, Limit uint64 }
			}
		}
		if err := json.Unmarshal([]byte(r.must("events", "--stats", "c")), &e); err != nil {
			t.Fatal(err)
		}
		d := e.Data
		lines = append(lines, fmt.Sprint(e.Type, " ", e.ID, " ", d.Memory.Usage.Limit, " ", d.Memory.Swap.Limit, " ", d.Pids.Limit, " ",
			d.CPU.Usage.Total > 0, d.Memory.Usage.Usage > 0, d.Memory.Raw["anon"] > 0, d.Pids.Current > 0))
	}
	status := func() {
		var s struct{ Status string }
		if err := json.Unmarshal([]byte(r.must("state", "c")), &s); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, s.Status)
	}
	numbers()
	step("resume", "c")
	step("pause", "c")
	status()
	step("pause", "c")
	step("exec", "c", "true")
	step("resume", "c")
	status()
	step("exec", "c", "true")
	step("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "20", "c")
	numbers()
	step("update", "--memory", "x", "c")
	step("update", "--pids-limit", "-1", "c")
	numbers()
	step("events", "--interval", "0s", "c")
	step("pause", "nosuch")
	step("update", "--pids-limit", "5", "nosuch")
	return lines
}
