//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file kills callers that publish unix sockets, and puts other files in the place of those that they leave.

// socketConfig publishes two sockets; the path of one has no room for anything beside it.
func socketConfig(t testing.TB) (cfg Config, dirs []string) {
	t.Helper()
	short := t.TempDir()
	long := filepath.Join(short, strings.Repeat("x", 100-len(short)))
	if err := os.Mkdir(long, 0o755); err != nil {
		t.Fatal(err)
	}
	last := long + "/" + strings.Repeat("s", maxSocketPath-len(long)-1)
	return publishConfig(t, NetworkModeNone, PortMapping{HostSocket: short + "/web.sock", ContainerPort: 80}, PortMapping{HostSocket: last, ContainerPort: 80}), []string{short, long}
}

// socketsGone demands that no file is left in the directories but directories.
func socketsGone(t testing.TB, dirs []string) {
	t.Helper()
	for _, dir := range dirs {
		left, err := os.ReadDir(dir)
		if left = slices.DeleteFunc(left, fs.DirEntry.IsDir); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// Wherever a caller is killed, Destroy of another process removes its sockets, and they can be published again.
func TestPublishSocketCrashPoints(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	cfg, dirs := socketConfig(t)
	all := make(map[string]bool)
	for _, life := range []string{"create", "run"} {
		o := crashOrder{Life: life, Dir: t.TempDir(), Cfg: cfg}
		points := o.points(t)
		maps.DeleteFunc(points, func(p string, _ int) bool {
			return !strings.Contains(p, "publish: ") && p != "create: state" && p != "destroy: network released"
		})
		for p := range points {
			all[p] = true
			if strings.HasPrefix(p, "unpublish") {
				points[p] = 2 // at least: Destroy and the caller's own end may both be at it
			}
		}
		socketsGone(t, dirs)
		crashAt(t, o, points, func(t *testing.T, o crashOrder) time.Duration {
			took := crashRecover(t, o.Dir, cfg)
			socketsGone(t, dirs)
			return took
		})
	}
	if len(all) != 9 {
		t.Errorf("%d points: %q", len(all), slices.Sorted(maps.Keys(all)))
	}
}

// killedSocket is a container whose creator was killed when its socket was there.
func killedSocket(t *testing.T, point string) (c *Container, socket string) {
	t.Helper()
	cfg := publishConfig(t, NetworkModeNone)
	socket = filepath.Join(t.TempDir(), "web.sock")
	cfg.Network.PortMappings = []PortMapping{{HostSocket: socket, ContainerPort: 80}}
	o := crashOrder{Life: "create", Dir: t.TempDir(), Cfg: cfg, Point: point, Nth: 1}
	cmd, out := o.command(t)
	if err := cmd.Run(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("%v: %s", err, out)
	}
	c, err := Load(o.Dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { crashNoProcess(t) })
	return c, socket
}

// What a Create that was killed has left is not in the way of the next.
func TestPublishSocketCreateAgain(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	for _, point := range []string{"publish: socket bound", "publish: socket linked", "publish: socket published"} {
		c, socket := killedSocket(t, point)
		if err := c.Create(t.Context(), lifeSh("true")); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		if got, err := os.ReadDir(filepath.Dir(socket)); len(got) != 1 || got[0].Type() != fs.ModeSocket || err != nil {
			t.Errorf("%s: %v, %v", point, got, err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		socketsGone(t, []string{filepath.Dir(socket)})
	}
}

// socketThings are what somebody may put where the socket was. Each function makes it, at a name that is free.
func socketThings(t *testing.T) map[string]func(name string) error {
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/live")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	listen := func(network string, live bool) func(string) error {
		return func(name string) error {
			l, err := (&net.ListenConfig{}).Listen(t.Context(), network, name)
			if err != nil {
				return err
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			if !live {
				return l.Close()
			}
			t.Cleanup(func() { l.Close() })
			return nil
		}
	}
	return map[string]func(name string) error{
		"a program's socket":            listen("unix", true),
		"a dead program's socket":       listen("unix", false),
		"a socket of packets":           listen("unixpacket", true),
		"a link to a program's socket":  func(name string) error { return os.Symlink(dir+"/live", name) },
		"another name of such a socket": func(name string) error { return os.Link(dir+"/live", name) },
		"a link to nowhere":             func(name string) error { return os.Symlink("none", name) },
		"a link to itself":              func(name string) error { return os.Symlink(name, name) },
		"a file":                        func(name string) error { return os.WriteFile(name, []byte("text"), 0o600) },
		"a pipe":                        func(name string) error { return unix.Mkfifo(name, 0o600) },
		"a directory":                   func(name string) error { return os.Mkdir(name, 0o700) },
		"nothing":                       func(string) error { return nil },
	}
}

// numberOf is which file has a name; zero for none.
func numberOf(name string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil {
		return 0
	}
	return st.Ino
}

// Only the file of the record is removed: not what somebody has put in its place, long ago or at the last moment.
func TestPublishSocketReplaced(t *testing.T) {
	inNamespaces(t, func(t *testing.T) { // in a process of its own, for at
		leak.Check(t)
		crashAdopt(t)
		for what, put := range socketThings(t) {
			for _, when := range []string{"long ago", "unpublish: socket found", "unpublish: socket aside"} {
				t.Run(what+" "+strings.TrimPrefix(when, "unpublish: "), func(t *testing.T) {
					c, socket := killedSocket(t, "publish: socket published")
					var want uint64
					replace := func() {
						os.Rename(socket, socket+".was") // so that its number is not used again
						if err := put(socket); err != nil {
							t.Error(err)
						}
						want = numberOf(socket)
					}
					at = func(point string) {
						if point == when {
							replace()
						}
					}
					if when == "long ago" {
						replace()
					}
					if err := c.Destroy(); err != nil {
						t.Error(err)
					}
					at = func(string) {}
					if got := numberOf(socket); got != want {
						t.Errorf("the file is %d, not %d", got, want)
					}
					left, err := os.ReadDir(filepath.Dir(socket))
					names := map[string]bool{"web.sock": want != 0, "web.sock.was": true}
					for _, e := range left {
						if !names[e.Name()] {
							t.Errorf("left: %v", e)
						}
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
		}
	}, "-m")
}

// With a third file in the place of the second, which has taken that of ours, the second keeps the name that it has got, and that is told.
func TestPublishSocketReplacedTwice(t *testing.T) {
	inNamespaces(t, func(t *testing.T) {
		leak.Check(t)
		crashAdopt(t)
		c, socket := killedSocket(t, "publish: socket published")
		at = func(point string) {
			if strings.HasPrefix(point, "unpublish: ") {
				os.Rename(socket, socket+".was")
				if err := os.WriteFile(socket, []byte(point), 0o600); err != nil {
					t.Error(err)
				}
			}
		}
		err := c.Destroy()
		at = func(string) {}
		wantError(t, err, "destroy", unix.EEXIST)
		all, _ := filepath.Glob(filepath.Dir(socket) + "/.web.sock.*")
		if len(all) != 1 || !strings.Contains(err.Error(), filepath.Base(all[0])) {
			t.Fatalf("%v: %v", all, err)
		}
		for name, want := range map[string]string{all[0]: "unpublish: socket found", socket: "unpublish: socket aside"} {
			if got, err := os.ReadFile(name); string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(all[0]); err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}, "-m")
}

// A record that names another's file does not get it removed.
func TestPublishSocketForgedRecord(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	defer func(before time.Duration) { socketPatience = before }(socketPatience)
	socketPatience = 50 * time.Millisecond
	for what, put := range socketThings(t) {
		if what == "nothing" || what == "a dead program's socket" { // which a record that says so owns
			continue
		}
		for _, known := range []bool{true, false} {
			c, socket := killedSocket(t, "publish: socket published")
			dir := filepath.Dir(socket)
			theirs := dir + "/theirs"
			if !known {
				theirs = dir + "/.theirs.x"
			}
			if err := put(theirs); err != nil {
				t.Fatal(err)
			}
			forged := &socketFile{Path: dir + "/theirs", Temp: ".theirs.x"}
			if known {
				d, err := forged.dir()
				if err != nil {
					t.Fatal(err)
				}
				file, err := openSocketFile(d, "theirs")
				if err == nil {
					err = forged.identify(file)
				}
				if err != nil {
					t.Fatal(err)
				}
				file.Close()
				d.Close()
			}
			st := socketRecord(t, c)
			st.Sockets = append(st.Sockets, nil, forged, &socketFile{}, &socketFile{Path: "theirs", Temp: ".theirs.x"},
				&socketFile{Path: dir + "/x", Temp: ".x./../theirs"}, &socketFile{Path: dir + "/x", Temp: "theirs"}, &socketFile{Path: dir + "/none/x", Temp: ".x."},
				&socketFile{Path: theirs + "/x", Temp: ".x."})
			if err := c.record.write("state.json", st); err != nil {
				t.Fatal(err)
			}
			before := numberOf(theirs)
			if err := c.Destroy(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if left, err := os.ReadDir(dir); len(left) != 1 || numberOf(theirs) != before || err != nil {
				t.Errorf("%s, %v: %v, %v", what, known, left, err)
			}
		}
	}
}

func socketRecord(t *testing.T, c *Container) *stored {
	t.Helper()
	text, err := c.record.text("state.json")
	st := new(stored)
	if err = errors.Join(err, json.Unmarshal(text, st)); err != nil {
		t.Fatal(err)
	}
	if len(st.Sockets) != 1 || st.Sockets[0].Ino == 0 {
		t.Fatalf("%s", text)
	}
	return st
}

// A file that has the number of ours, which is gone, is another if it was born later.
func TestPublishSocketNumberUsedAgain(t *testing.T) {
	leak.Check(t)
	crashAdopt(t)
	for _, born := range []int64{1, 0} { // 0: unknown
		c, socket := killedSocket(t, "publish: socket published")
		st := socketRecord(t, c)
		if st.Sockets[0].Born == 0 {
			t.Skip("the file system does not tell when a file was made")
		}
		st.Sockets[0].Born -= born
		if err := c.record.write("state.json", st); err != nil {
			t.Fatal(err)
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(socket); (err == nil) != (born > 0) {
			t.Errorf("%d: %v", born, err)
		}
	}
}

// As root: a socket of another user's under the first name is none of ours.
func TestPublishSocketOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	leak.Check(t)
	crashAdopt(t)
	c, socket := killedSocket(t, "publish: socket bound")
	all, _ := filepath.Glob(filepath.Dir(socket) + "/.web.sock.*")
	if len(all) != 1 {
		t.Fatal(all)
	}
	if err := os.Chown(all[0], 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := c.Destroy(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(all[0]); err != nil {
		t.Error(err)
	}
}

// The caller may change its socket, and its own end removes no file but that.
func TestPublishSocketOwnEnd(t *testing.T) {
	leak.Check(t)
	for what, put := range socketThings(t) {
		socket := filepath.Join(t.TempDir(), "web.sock")
		c := execSleeper(t, publishConfig(t, NetworkModeNone, PortMapping{HostSocket: socket, ContainerPort: 80}))
		if what == "nothing" {
			if err := os.Chmod(socket, 0); err != nil {
				t.Error(err)
			}
		} else if err := errors.Join(os.Remove(socket), put(socket)); err != nil {
			t.Error(err)
		}
		want := numberOf(socket)
		if what == "nothing" {
			want = 0
		}
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
		if got := numberOf(socket); got != want {
			t.Errorf("%s: the file is %d, not %d", what, got, want)
		}
	}
}
