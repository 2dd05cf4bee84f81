//go:build linux

package container

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// This file attacks the making of a terminal, which ended in /dev/console by way of names in the image.

// consoleScript uses what would be the host's files, and tells whether a mask is in its place.
const consoleScript = `tty; echo attack >/dev/console; chmod 600 /dev/console; cat /proc/timer_list | wc -c; stat -f -c %T /dev /dev/pts`

const consoleWant = "/dev/pts/0\r\nattack\r\n0\r\ntmpfs\r\n"

// An image has links where the terminal is made: what is bound to /dev/console, or written to, is a file of
// the host's, and masks that come after that lie on something else.
func TestCVE_2025_52565(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"console": {"dev/console": "file"},
		"pts":     {"dev/pts": ""},
		"ptmx":    {"dev/ptmx": "file", "dev/pts/ptmx": "file"},
		"pts/0":   {"dev/pts/0": "file", "dev/pts/1": "file"},
		"dev":     {"dev": ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, canary := attackConfig(t), newCanary(t)
			os.RemoveAll(cfg.Root.Dir + "/dev")
			links := map[string]string{}
			for place, to := range files {
				links[place] = "-> " + up + canary + "/" + to
			}
			writeTree(t, cfg.Root.Dir, links)
			var out bytes.Buffer
			_, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", consoleScript}, Tty: true, Stdout: &out, Stderr: &out})
			if links["dev"] != "" {
				wantError(t, err, "mount", unix.ELOOP)
			} else if err != nil || !strings.HasPrefix(out.String(), consoleWant) {
				t.Errorf("%v, %q", err, out.String())
			}
		})
	}
}

// The same, and CVE-2026-88264, with a directory that changes while the container starts.
func TestCVE_2026_88264(t *testing.T) {
	cfg, canary := attackConfig(t), newCanary(t)
	root := cfg.Root.Dir
	os.RemoveAll(root + "/dev")
	writeTree(t, root, map[string]string{"dev/console": "-> " + up + canary + "/file", "dev/pts": "-> " + up + canary, "link": "-> " + up + canary})
	// The names in the container change too, so it looks at what it has open.
	const script = `stat -L -c %t:%T /proc/self/fd/0; cat /proc/timer_list | wc -c; echo attack >/dev/console; echo attack >/dev/pts/0; echo end`
	n := race(t, exchange(root+"/dev", root+"/link"))
	good, tries := 0, 0
	for ; tries < 60 || good == 0 && tries < 1200; tries++ {
		var out bytes.Buffer
		_, err := runIn(t, cfg, &Process{Args: []string{"sh", "-c", script}, Tty: true, Stdout: &out, Stderr: &out})
		switch {
		case err == nil && strings.HasPrefix(out.String(), "88:0\r\n0\r\n"):
			good++
		case !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR):
			t.Fatalf("%v, %q", err, out.String())
		}
	}
	if t.Logf("%d of %d started, exchanged %d times", good, tries, n.Load()); good == 0 {
		t.Error("none started")
	}
}
