//go:build linux

package container

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file tests many connections out of a container at one time.

// Connections that are silent cost two descriptors each, and nothing when they have ended; with CONTAINER_TEST_LONG there are ten thousand.
func TestEgressIdle(t *testing.T) {
	withServers(t, func(t *testing.T, servers int) {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		count := 1000
		if os.Getenv(longVar) != "" {
			count = min(10000, int(limit.Cur-200)/2)
		}
		cfg := egressConfig(t)
		cfg.Network.EgressAllow, cfg.Network.MaxConnections = []string{server4 + "/32"}, count+10
		cfg.Rlimits = []Rlimit{{Type: "RLIMIT_NOFILE", Soft: limit.Max, Hard: limit.Max}}
		elsewhereServes(t, servers, server4+":80")
		in := startInside(t, cfg)
		if got := in.do("dial a tcp %s:80", server4); !strings.HasPrefix(got, "ok") {
			t.Fatal(got)
		}
		in.want("ok hello", "say a hello") // our side has it, too
		descriptors := func() int {
			list, _ := os.ReadDir("/proc/self/fd")
			return len(list)
		}
		fds, routines := descriptors(), runtime.NumGoroutine()
		begin := time.Now()
		in.want("ok "+strconv.Itoa(count), "many %d %s:80", count, server4)
		used := descriptors() - fds
		t.Logf("%d connections in %v, %d descriptors, %d goroutines", count, time.Since(begin).Round(time.Millisecond), used, runtime.NumGoroutine()-routines)
		if used > 2*count+50 {
			t.Errorf("%d connections have taken %d descriptors", count, used)
		}
		in.want("ok hello", "say a hello") // the one before them
		in.want("ok hello", "say many%d hello", count-1)
		in.want("ok", "closemany")
		in.want("ok", "close a")
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if descriptors() <= fds-2 && runtime.NumGoroutine() <= routines {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d descriptors instead of %d, %d goroutines instead of %d", descriptors(), fds, runtime.NumGoroutine(), routines)
			}
		}
	})
}

// serveElsewhere has another process echo, at an address of the servers. A connection that begins with 's' is sent zeroes, one that begins with 't' is read
// from without an answer.
func elsewhereServes(t testing.TB, servers int, address string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(servers), "-n", exe)
	cmd.Env = append(os.Environ(), egressServerVar+"="+address)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
}
