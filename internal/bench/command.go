//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"example.com/container/internal/testenv"
)

// This file times programs of the host, from their start to their end.

// command is a contender that runs a program of the host.
func command(name string, args ...string) (contender, error) {
	path := testenv.LookPath(name)
	if path == "" {
		return contender{}, errors.New("not installed")
	}
	return contender{once: func() (sample, error) { return timed(path, args...) }}, nil
}

// timed runs a program. Its processor time and memory include those of its children.
func timed(path string, args ...string) (sample, error) {
	var stderr strings.Builder
	cmd := exec.Command(path, args...)
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	s := sample{wall: time.Since(start)}
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	// The kernel counts what a process had before its execve: here, the memory of this one.
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && int64(usage.Maxrss)<<10 > peak() {
		s.memory = int64(usage.Maxrss) << 10
	}
	return s, nil
}

// peak returns the largest resident set of this process so far, in bytes.
func peak() int64 {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes := int64(0)
	fmt.Sscan(after, &kilobytes)
	return kilobytes << 10
}

// resetPeak makes this process small and forgets how large it was; see proc_pid_clear_refs(5).
func resetPeak() {
	debug.FreeOSMemory()
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

// podmanStore are the options for a store of its own, apart from that of the user.
func podmanStore(dir string) []string {
	return []string{"--root", dir + "/root", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp", "--storage-driver", "overlay"}
}

// removePodmanStore removes what podman made: files of other ids too, and a mount it keeps.
func removePodmanStore(dir string) {
	podman := testenv.LookPath("podman")
	if podman == "" {
		return
	}
	exec.Command(podman, append(podmanStore(dir), "rmi", "--all", "--force")...).Run()
	// This ends the process that holds the user namespace of an ordinary user.
	exec.Command(podman, append(podmanStore(dir), "system", "migrate")...).Run()
	syscall.Unmount(dir+"/root/overlay", syscall.MNT_DETACH)
	os.RemoveAll(dir)
}
