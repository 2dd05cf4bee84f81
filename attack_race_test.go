//go:build linux

package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// This file attacks by races: something changes without end while containers start. The attacks are those of
// a container that shares a directory with the one that starts.

// race repeats what the attacker does until the end of the test, and tells how often it was done.
func race(t testing.TB, attack func() error) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := attack(); err != nil {
				t.Errorf("the attacker: %v", err)
				return
			}
			if n.Add(1)%64 == 0 {
				runtime.Gosched()
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return &n
}

// exchange swaps a directory and a link.
func exchange(a, b string) func() error {
	return func() error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) }
}

// raceStarts starts containers while a race goes on, and more of them until one is lucky. Each must end well or fail with an Error;
// after each of them clean puts things back.
func raceStarts(t *testing.T, starts int, cfg Config, p Process, want string, clean func()) {
	t.Helper()
	stateDir := t.TempDir()
	good, tries := 0, 0
	reasons := map[string]int{}
	for ; tries < starts || good == 0 && tries < 20*starts; tries++ {
		c, err := New(stateDir, "raced", cfg)
		if err != nil {
			t.Fatal(err)
		}
		run := p
		out, err := runOnce(t, c, &run)
		var e *Error
		switch {
		case err == nil && out == want:
			good++
		case errors.As(err, &e) && !errors.Is(err, unix.EAGAIN):
			reasons[e.Op+": "+e.Err.Error()]++
		default:
			t.Fatalf("%q, %v", out, err)
		}
		clean()
	}
	t.Logf("%d of %d started; %v", good, tries, reasons)
	if good == 0 {
		t.Error("none started")
	}
}

// raced is a volume with a directory "a" that is exchanged against a link to the canary, without end, at the
// same time in the volume and in the root.
func raced(t *testing.T) (cfg Config, volume, canary string) {
	cfg, canary, volume = attackConfig(t), newCanary(t), t.TempDir()
	for _, dir := range []string{volume, cfg.Root.Dir} {
		writeTree(t, dir, map[string]string{"a/": "", "link": "-> " + up + canary})
		n := race(t, exchange(dir+"/a", dir+"/link"))
		t.Cleanup(func() { t.Logf("exchanged %d times", n.Load()) })
	}
	return cfg, volume, canary
}

// A runtime that checks a target and then mounts on its name mounts, and makes directories, where the link leads.
func TestCVE_2021_30465(t *testing.T) {
	cfg, volume, _ := raced(t)
	source := t.TempDir()
	writeTree(t, source, map[string]string{"file": "ours"})
	cfg = with(cfg,
		Mount{Type: "bind", Source: volume, Target: "/vol"},
		Mount{Type: "bind", Source: source, Target: "/vol/a/made/deep"},
		Mount{Type: "bind", Source: source + "/file", Target: "/a/file"},
		Mount{Type: "tmpfs", Target: "/a/tmpfs"},
	)
	// Nothing is mounted that is not inside.
	script := `while read id parent dev root point rest; do case $point in
			/a/* | /link/* | /vol/a/* | /vol/link/*) ;;
			*/made/deep | */file | */tmpfs) echo "mounted on $point" ;;
		esac; done </proc/self/mountinfo; ls -d /..` + source + ` 2>/dev/null; echo end`
	raceStarts(t, 100, cfg, Process{Args: []string{"sh", "-c", script}}, "end\n", func() {
		for _, dir := range []string{volume, cfg.Root.Dir} {
			for _, name := range []string{"/a", "/link"} { // one of them is the directory
				os.RemoveAll(dir + name + "/made")
			}
		}
	})
}

// Directories and files for mounts, and the working directory, are made where the link leads.
func TestCVE_2024_45310(t *testing.T) {
	cfg, _, canary := raced(t)
	cfg = with(cfg, Mount{Type: "bind", Source: canary + "/file", Target: "/a/b/c/d/e/f/file", Flags: MountReadOnly})
	raceStarts(t, 60, cfg, Process{Args: []string{"echo", "end"}, Cwd: "/a/work/dir"}, "end\n", func() {
		for _, name := range []string{"/a", "/link"} {
			if st, err := os.Lstat(cfg.Root.Dir + name); err == nil && st.IsDir() {
				os.RemoveAll(filepath.Join(cfg.Root.Dir, name, "b"))
				os.RemoveAll(filepath.Join(cfg.Root.Dir, name, "work"))
			}
		}
	})
}

// Somebody who can mount into the root's tree puts fakes over /proc while parameters are written: they go to the
// fake, or to the file that the fake is a bind of.
func TestCVE_2025_52881(t *testing.T) {
	inMountNamespace(t, func(t *testing.T) {
		cfg := attackConfig(t)
		root, fake := cfg.Root.Dir, newCanary(t)
		mount(t, root, root, "", unix.MS_BIND)
		mount(t, "", root, "", unix.MS_SHARED)
		writeTree(t, root, map[string]string{"proc/sys/kernel/msgmax": "image's", "proc/sys/kernel/sem": ""})
		cfg.Root.Propagation = RSlave
		cfg.Sysctl = map[string]string{"kernel.msgmax": "4321", "net.ipv4.ip_forward": "1"}
		fakes := []string{root + "/proc", root + "/proc/sys/kernel"}
		var still sync.RWMutex // while a program looks
		n := race(t, func() error {
			still.RLock()
			defer still.RUnlock()
			for _, place := range fakes {
				if err := unix.Mount(fake, place, "", unix.MS_BIND, ""); err != nil {
					return err
				}
				if err := unix.Unmount(place, unix.MNT_DETACH); err != nil {
					return err
				}
			}
			return nil
		})
		seen, refused, tries := 0, map[string]int{}, 0
		for ; tries < 60 || seen < 30 && tries < 1000; tries++ { // how many have one is a matter of who is faster
			p := &Process{Args: []string{"sh", "-c", "read x; stat -f -c %T /proc; cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward; stat -f -c %T /proc/sys; cat /proc/timer_list"}}
			in, err := p.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			p.Stdout, p.Stderr = &out, &out
			c := lifeNew(t, cfg)
			if err := c.Run(t.Context(), p); err != nil {
				// What was opened to mount on is of a fake that the host has taken off since, or is a /proc that was lost
				// as below: the kernel mounts nothing on what is not mounted itself, and the container does not start.
				var e *Error
				if !errors.As(err, &e) || !slices.Contains([]string{"mount", "mask", "read-only path"}, e.Op) || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
					t.Fatal(err)
				}
				refused[e.Error()]++
				in.Close()
				c.Destroy()
				continue
			}
			still.Lock()
			fmt.Fprintln(in)
			err = lifeWait(t, c.Wait)
			still.Unlock()
			c.Destroy()
			// A slave of the host's mounts loses what the host takes off its place: then there is no /proc to look into.
			if strings.HasPrefix(out.String(), "proc\n") {
				seen++
				if out.String() != "proc\n4321\n1\nproc\n" || err != nil {
					t.Errorf("%q, %v", out.String(), err)
				}
			}
		}
		if seen < 30 {
			t.Errorf("only %d of %d programs had a /proc; not started: %v", seen, tries, refused)
		}
		if text, err := os.ReadFile(root + "/proc/sys/kernel/msgmax"); err == nil && !strings.HasPrefix(string(text), "image") {
			t.Errorf("written: %q", text)
		}
		t.Logf("mounted %d times; %d of %d had a /proc; not started: %v", n.Load(), seen, tries, refused)
	})
}

// openat2 says EAGAIN if anything at all was renamed meanwhile: another container must not be able to keep this
// one from starting with that.
func TestRenamesDoNotStopStarts(t *testing.T) {
	cfg, dir := attackConfig(t), t.TempDir()
	writeTree(t, dir, map[string]string{"a/": "", "b/": ""})
	race(t, exchange(dir+"/a", dir+"/b"))
	race(t, exchange(dir+"/a", dir+"/b"))
	chain := strings.Repeat("../etc/", 30)
	writeTree(t, cfg.Root.Dir, map[string]string{"etc/up": "-> " + chain + "x", "etc/x/": ""})
	cfg = with(cfg, Mount{Type: "tmpfs", Target: "/etc/up"})
	for range 50 {
		if out, err := runIn(t, cfg, &Process{Args: []string{"true"}}); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
	}
}
