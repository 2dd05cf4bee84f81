//go:build linux

// Package leak finds what a test leaves behind: descriptors, mounts, processes, cgroups, network
// interfaces, files, and changed state of the test's own process.
//
// It compares the state of the machine before and after, as far as this process can see it. What
// another process makes and removes meanwhile is seen as well, so a thing that is new counts only if the
// same thing stays for some seconds; that also gives dying processes their time.
package leak

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// grace is how long a thing must stay to count. A kernel thread takes namespaces apart after
// their last process has gone, network namespaces as much as a second later, and more on a machine that has much to do.
const grace = 10 * time.Second

// Check compares the state now with the state at the end of the test, after the clean-ups that
// the test registers later than this call, and fails the test if something new is there. Files
// are looked for below dirs. The test cannot be parallel: others would be blamed on it.
func Check(t testing.TB, dirs ...string) {
	t.Helper()
	check(t, dirs, grace)
}

func check(t testing.TB, dirs []string, grace time.Duration) {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")) // changes nothing, but panics in a parallel test
	restore := func() {}
	if _, benchmark := t.(*testing.B); !benchmark {
		restore = withoutCollector()
	}
	before := take(dirs)
	t.Cleanup(func() {
		t.Helper()
		defer restore()
		if found := before.wait(dirs, grace); len(found) > 0 {
			t.Errorf("the test left behind:\n%s", list(found))
		}
	})
}

// Main runs the tests of a package between two snapshots and returns the exit code for TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }
//
// TMPDIR is a directory of its own during the run, which must be empty at the end.
func Main(m interface{ Run() int }) int { return run(m, os.Stderr, grace) }

func run(m interface{ Run() int }, stderr io.Writer, grace time.Duration) int {
	// The name is short: paths of Unix sockets have 107 bytes. Tests run programs as other users
	// with files in it.
	tmp, err := os.MkdirTemp("", "ct")
	if err == nil {
		err = os.Chmod(tmp, 0o755)
	}
	if err != nil {
		fmt.Fprintln(stderr, "leak:", err)
		return 1
	}
	defer os.RemoveAll(tmp)
	outer, wasSet := os.LookupEnv("TMPDIR")
	os.Setenv("TMPDIR", tmp)
	defer func() {
		if os.Setenv("TMPDIR", outer); !wasSet {
			os.Unsetenv("TMPDIR")
		}
	}()

	before := take([]string{tmp})
	code := m.Run()
	defer withoutCollector()()
	if fuzzing() { // its workers are killed, with what they have
		return code
	}
	if found := before.wait([]string{tmp}, grace); len(found) > 0 {
		fmt.Fprintf(stderr, "FAIL: the tests of this package left behind:\n%s", list(found))
		code = max(code, 1)
	}
	return code
}

func fuzzing() bool {
	f := flag.Lookup("test.fuzz")
	return f != nil && f.Value.String() != ""
}

// A snapshot holds a line for each thing that is there.
type snapshot map[string]bool

// take makes a snapshot.
func take(dirs []string) snapshot {
	warmUp()
	s := snapshot{}
	for _, k := range kinds {
		for _, item := range k.items(dirs) {
			s[k.name+" "+item] = true
		}
	}
	return s
}

// wait returns what is new since the snapshot and stays for the grace. It does not wait for ever where nothing stays, and there is always
// something new: that is returned then. Time is what it has slept, so that a machine that stood still was not waited for.
func (before snapshot) wait(dirs []string, grace time.Duration) []string {
	since := map[string]time.Duration{} // when what is new was seen first
	var slept time.Duration
	for pause := time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		still := map[string]time.Duration{}
		var found, stay []string
		for item := range take(dirs) {
			if before[item] {
				continue
			}
			first, seen := since[item]
			if !seen {
				first = slept
			}
			still[item] = first
			if found = append(found, item); slept-first >= grace {
				stay = append(stay, item)
			}
		}
		switch {
		case len(found) == 0 || len(stay) > 0:
			return stay
		case slept >= 4*grace:
			return found
		}
		since = still
		time.Sleep(pause)
		slept += pause
	}
}

// withoutCollector stops the garbage collector, which closes forgotten files and so hides them, as
// long as memory is not scarce. It returns the function that starts it again.
func withoutCollector() (restore func()) {
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(1<<30)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// warmUp makes the Go runtime open what it opens once and keeps: the descriptors of its poller.
func warmUp() {
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
}

// list prints one item a line.
func list(items []string) string {
	return "\t" + strings.Join(items, "\n\t") + "\n"
}
