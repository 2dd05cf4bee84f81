//go:build linux

package container

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"example.com/container/internal/leak"
)

// privateKiB is the memory that a process shares with no other.
func privateKiB(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(text)) {
		var n int
		if name, rest, _ := strings.Cut(line, ":"); name == "Private_Clean" || name == "Private_Dirty" {
			fmt.Sscan(rest, &n)
			sum += n
		}
	}
	return sum
}

// What stays with each container is a launcher, not a copy of the caller.
func TestSupervisorMemory(t *testing.T) {
	leak.Check(t)
	const most = 64 // KiB
	c := lifeStart(t, createKinds(t)["detached init"], &Process{Args: []string{"sleep", "1000"}})
	state, err := c.record.state()
	if err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"supervisor": state.Supervisor.Pid, "reaper": state.Pid} {
		if n := privateKiB(t, pid); n == 0 || n > most {
			t.Errorf("the %s has %d KiB of its own, want at most %d", name, n, most)
		} else {
			t.Logf("the %s has %d KiB of its own", name, n)
		}
	}
}
