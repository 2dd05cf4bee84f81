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
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/testenv"
)

// testCgroup makes a cgroup beside the test's own, and removes it at the end.
func testCgroup(t testing.TB) (*Cgroup, string) {
	t.Helper()
	testenv.Need(t, testenv.Cgroup)
	own, err := testenv.CgroupDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(own, "container-test-stats-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cgroup{dir: f, path: "/" + filepath.Base(dir)}
	t.Cleanup(func() { c.Close() })
	return c, dir
}

func hasLine(line string) func(string) bool {
	return func(text string) bool { return strings.Contains(text, line+"\n") }
}

// A look at the file at the beginning, two more before the poller waits, one for what has been changed, and two for what the kernel has held
// back of earlier changes.
const mostLooks = 6

// TestCgroupAwait waits for changes that come before the wait and after it has begun, for none, and in a cgroup that goes away.
func TestCgroupAwait(t *testing.T) {
	c, dir := testCgroup(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.await(ctx, "cgroup.events", hasLine("frozen 0")); err != nil {
		t.Fatal(err)
	}

	for i := range 20 {
		want := "frozen 1"
		if i%2 == 1 {
			want = "frozen 0"
		}
		calls := 0
		result := make(chan error, 1)
		go func() {
			result <- c.await(ctx, "cgroup.events", func(text string) bool { calls++; return hasLine(want)(text) })
		}()
		pause := time.Duration(i) * time.Millisecond // also none, before the file has been opened
		if i == 19 {
			pause = 300 * time.Millisecond // whoever polls looks often in that time
		}
		time.Sleep(pause)
		if err := c.writeFile("cgroup.freeze", want[len("frozen "):]); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if calls > mostLooks {
			t.Errorf("the file has been read %d times: that is polling", calls)
		}
	}

	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	calls := 0
	err := c.await(short, "cgroup.events", func(string) bool { calls++; return false })
	if !errors.Is(err, context.DeadlineExceeded) || calls > mostLooks {
		t.Errorf("%v after %d looks", err, calls)
	}
	if err := c.await(short, "cgroup.events", hasLine("frozen 0")); err != nil {
		t.Errorf("what is true already, with a context that has ended: %v", err)
	}

	if err := c.await(ctx, "no.such.file", hasLine("")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.await(ctx, "cgroup.events", hasLine("frozen 1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a cgroup that is gone: %v", err)
	}
}

// The kernel holds back a notice that comes within 10 ms of another, and drops it if the cgroup is removed meanwhile: then nothing
// tells that its last process has ended, and yet the wait ends.
func TestCgroupAwaitRemoval(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 5 {
		c, dir := testCgroup(t)
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(c.dir.Fd())}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		go func() {
			result <- c.await(ctx, "cgroup.events", func(string) bool { return false })
		}()
		time.Sleep(50 * time.Millisecond) // most likely it waits by now
		err := c.writeFile("cgroup.freeze", "1")
		time.Sleep(time.Duration(i) * time.Millisecond)
		if err := errors.Join(err, c.Kill()); err != nil {
			t.Error(err)
		}
		cmd.Wait()
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := <-result; !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("round %d: %v after %v", i, err, time.Since(start))
		}
	}
}
