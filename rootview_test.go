//go:build linux

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/container/internal/testenv"
)

// pureTree makes a tree of files from lines: "path = content", "path/", "path -> target", "path ! whiteout",
// "path ! opaque", "path ! fifo", "path ! sparse". Directories on the way are made.
func pureTree(t testing.TB, dir string, lines ...string) string {
	t.Helper()
	for _, line := range lines {
		path, what, _ := strings.Cut(line, " ")
		full := filepath.Join(dir, path)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		if err == nil {
			switch kind, arg, _ := strings.Cut(what, " "); {
			case kind == "->":
				err = os.Symlink(arg, full)
			case kind == "=":
				err = os.WriteFile(full, []byte(arg), 0o644)
			case arg == "whiteout":
				err = unix.Mknod(full, unix.S_IFCHR, 0)
			case arg == "fifo":
				err = unix.Mkfifo(full, 0o644)
			case arg == "sparse":
				err = errors.Join(os.WriteFile(full, nil, 0o644), os.Truncate(full, 2<<30))
			case arg == "opaque":
				err = os.MkdirAll(full, 0o755)
				// One of the two marks is enough, and an ordinary user can make only the second.
				if e1 := unix.Setxattr(full, "trusted.overlay.opaque", []byte("y"), 0); err == nil {
					if e2 := unix.Setxattr(full, "user.overlay.opaque", []byte("y"), 0); e1 != nil && e2 != nil {
						t.Skip("needs extended attributes on", dir, e2)
					}
				}
			default:
				err = os.MkdirAll(full, 0o755)
			}
		}
		if err != nil {
			t.Fatal(line, err)
		}
	}
	return dir
}

// pureView opens a view and closes it with the test.
func pureView(t testing.TB, r Root) *rootView {
	t.Helper()
	v, err := openRootView(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.close)
	return v
}

func TestRootViewLookup(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layers [][]string // the lowest first
		want   map[string]string
	}{
		{"one directory", [][]string{{"etc/passwd = p", "a -> etc", "b -> /etc/passwd", "c -> ../../../etc/passwd", "d -> /proc/self/root/etc/hostname"}},
			map[string]string{
				"/etc/passwd": "p", "etc/passwd": "p", "//etc/./passwd": "p", "/a/passwd": "p", "/b": "p", "/c": "p",
				"/../../etc/passwd": "p", "/etc/../a/../etc/passwd": "p", "/d": "error", "/etc": "error", "/": "error", "/x": "error",
			}},
		{"the highest wins", [][]string{{"f = 1", "d/a = 1", "d/b = 1"}, {"f = 2", "d/b = 2"}, {"d/c = 3"}},
			map[string]string{"/f": "2", "/d/a": "1", "/d/b": "2", "/d/c": "3"}},
		{"whiteouts", [][]string{{"f = 1", "d/a = 1", "e/a = 1"}, {"f ! whiteout", "d ! whiteout", "e/a ! whiteout"}, {"e/b = 3"}},
			map[string]string{"/f": "error", "/d/a": "error", "/e/a": "error", "/e/b": "3"}},
		{"back after a whiteout", [][]string{{"d/a = 1"}, {"d ! whiteout"}, {"d/b = 3"}},
			map[string]string{"/d/a": "error", "/d/b": "3"}},
		{"opaque", [][]string{{"d/a = 1"}, {"d ! opaque", "d/b = 2"}, {"d/c = 3"}},
			map[string]string{"/d/a": "error", "/d/b": "2", "/d/c": "3"}},
		{"file over directory", [][]string{{"d/a = 1"}, {"d = 2"}, {"d/c = 3"}},
			map[string]string{"/d/a": "error", "/d/c": "3"}},
		{"file hides directory", [][]string{{"d/a = 1"}, {"d = 2"}}, map[string]string{"/d": "2", "/d/a": "error"}},
		{"directory hides file", [][]string{{"d = 1"}, {"d/a = 2"}}, map[string]string{"/d": "error", "/d/a": "2"}},
		{"links go through all layers", [][]string{{"usr/lib/x = 1", "lib -> usr/lib"}, {"usr/lib/y = 2", "abs -> /lib/y"}, {"l -> lib/../../usr/lib/x"}},
			map[string]string{"/lib/x": "1", "/lib/y": "2", "/abs": "2", "/l": "1"}}, // lib/.. is usr
		{"link over directory", [][]string{{"etc/passwd = 1", "other/passwd = o"}, {"etc -> other"}},
			map[string]string{"/etc/passwd": "o"}},
		{"loops", [][]string{{"a -> b", "b -> a", "self -> self", "deep -> deep/deep"}, {}},
			map[string]string{"/a": "error", "/self": "error", "/deep": "error", "/deep/x": "error"}},
		{"out of the root", [][]string{{"etc/passwd = p"}, {"up -> ../../../../../../../../etc/hostname", "proc -> /proc", "p -> ../../etc/passwd"}},
			map[string]string{"/up": "error", "/proc/self/status": "error", "/p": "p"}},
		{"not a directory", [][]string{{"f = 1"}, {"g = 2"}}, map[string]string{"/f/x": "error", "/f/..": "error", "/g/../f": "error"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := Root{}
			for _, lines := range tt.layers {
				root.Layers = append(root.Layers, pureTree(t, t.TempDir(), lines...))
			}
			views := map[string]*rootView{"layers": pureView(t, root)}
			if len(tt.layers) == 1 {
				views["directory"] = pureView(t, Root{Dir: root.Layers[0]})
			}
			if len(tt.layers) > 1 { // the highest as what an earlier start has written
				upper, top := t.TempDir(), len(root.Layers)-1
				if err := os.Rename(root.Layers[top], filepath.Join(upper, "upper")); err != nil {
					t.Fatal(err)
				}
				views["upper"] = pureView(t, Root{Layers: root.Layers[:top], Access: CopyOnWrite, Upper: upper})
			}
			for kind, v := range views {
				for path, want := range tt.want {
					b, err := v.readFile(path, 100)
					if got := string(b); got != want && !(want == "error" && err != nil) {
						t.Errorf("%s: %s is %q, %v; want %q", kind, path, got, err, want)
					}
				}
			}
		})
	}
}

// Hostile files are an error at once, and harmless.
func TestCVE_2024_9676(t *testing.T) {
	lines := []string{
		"fifo ! fifo", "sparse ! sparse", "dir/", "big = 12345678901", "ok = 1234567890", "empty = ",
		"out -> /etc/hostname", "dev0 -> /dev/zero", "tty0 -> ../../../../dev/tty", "proc0 -> /proc/self/environ",
	}
	lower := pureTree(t, t.TempDir(), lines...)
	if os.Getuid() == 0 {
		if err := unix.Mknod(lower+"/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
			t.Log("no device node:", err)
		}
	}
	for kind, v := range map[string]*rootView{
		"directory": pureView(t, Root{Dir: lower}),
		"layers":    pureView(t, Root{Layers: []string{lower, pureTree(t, t.TempDir(), "x = 1")}}),
	} {
		for path, want := range map[string]error{
			"fifo": errNotRegular, "sparse": errTooLarge, "dir": errNotRegular, "big": errTooLarge, "zero": errNotRegular,
			"out": fs.ErrNotExist, "dev0": fs.ErrNotExist, "tty0": fs.ErrNotExist, "proc0": fs.ErrNotExist, "none": fs.ErrNotExist,
			"ok": nil, "empty": nil, strings.Repeat("x", 300): unix.ENAMETOOLONG,
		} {
			start := time.Now()
			b, err := v.readFile(path, 10)
			if path == "zero" && errors.Is(err, fs.ErrNotExist) {
				continue // no right to make the node
			}
			var e *Error
			if !errors.Is(err, want) || err != nil && !errors.As(err, &e) {
				t.Errorf("%s: %s: %q, %v; want %v", kind, path, b, err, want)
			}
			if d := time.Since(start); d > 30*time.Second { // it would hang, or read gigabytes
				t.Errorf("%s: %s took %v", kind, path, d)
			}
		}
	}
}

// A chain of links costs bounded time and no descriptors.
func TestRootViewHostileLinks(t *testing.T) {
	lower := t.TempDir()
	deep := strings.Repeat("d/", 300)
	pureTree(t, lower, deep)
	for i := range 39 {
		pureTree(t, lower, fmt.Sprintf("l%d -> %s%sl%d", i, deep, strings.Repeat("../", 300), i+1))
	}
	v := pureView(t, Root{Layers: []string{lower, pureTree(t, t.TempDir(), deep)}})
	before := pureOpenFiles(t)
	start := time.Now()
	_, err := v.readFile("l0", 10)
	if !errors.Is(err, unix.ELOOP) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 30*time.Second { // it would hang, or read gigabytes
		t.Errorf("took %v", d)
	}
	pureNoMoreFiles(t, before)
}

func pureOpenFiles(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// pureNoMoreFiles demands that there are no more than before. There may be less: tests before this one may have left some to a
// goroutine, or to the garbage collector.
func pureNoMoreFiles(t testing.TB, before int) {
	t.Helper()
	after := pureOpenFiles(t)
	for deadline := time.Now().Add(10 * time.Second); after > before && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		after = pureOpenFiles(t)
	}
	if after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestRootViewLstat(t *testing.T) {
	v := pureView(t, Root{Layers: []string{
		pureTree(t, t.TempDir(), "d/f = 123", "l -> d"), pureTree(t, t.TempDir(), "d/g = 1"),
	}})
	for path, want := range map[string]uint32{
		"/": unix.S_IFDIR, "/d": unix.S_IFDIR, "/l": unix.S_IFLNK, "/l/f": unix.S_IFREG, "/d/..": unix.S_IFDIR,
	} {
		if st, err := v.lstat(path); err != nil || st.Mode&unix.S_IFMT != want {
			t.Errorf("%s: %o, %v", path, st.Mode, err)
		}
	}
	if _, err := v.lstat("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestOpenRootViewErrors(t *testing.T) {
	before := pureOpenFiles(t)
	dir := t.TempDir()
	for _, r := range []Root{
		{Dir: dir + "/none"},
		{Layers: []string{dir, dir + "/none"}},
		{Layers: []string{dir + "/none", dir}},
		{Dir: pureTree(t, dir, "file = x") + "/file"},
	} {
		if v, err := openRootView(r); err == nil {
			t.Errorf("%+v could be opened", r)
			v.close()
		}
	}
	pureNoMoreFiles(t, before)
}

// The kernel's overlayfs is the oracle: random layers, every path, same answer. The mount is
// detached: no namespace ever shows it.
func TestRootViewAgainstOverlayfs(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.Overlay)
	names := []string{"a", "b", "c"}
	for seed := range uint64(25) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var layers []string
		for range 2 + rnd.IntN(3) {
			dir := t.TempDir()
			pureRandomTree(t, rnd, dir, names, 3)
			layers = append(layers, dir)
		}
		overlay, err := pureOverlay(layers)
		if err != nil {
			t.Fatal(err)
		}
		v := pureView(t, Root{Layers: layers})
		for range 300 {
			var parts []string
			for range 1 + rnd.IntN(4) {
				parts = append(parts, append(names, "..")[rnd.IntN(4)])
			}
			path := strings.Join(parts, "/")
			for _, follow := range []bool{false, true} {
				want := pureDescribe(openRetry(func() (int, error) {
					how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
					if !follow {
						how.Flags |= unix.O_NOFOLLOW
					}
					return unix.Openat2(overlay, path, &how)
				}))
				got := pureDescribe(v.open(path, follow))
				if got != want {
					t.Errorf("seed %d: %s, follow %v: got %s, overlayfs says %s", seed, path, follow, got, want)
				}
			}
		}
		unix.Close(overlay)
		v.close()
		if t.Failed() {
			break
		}
	}
}

func pureRandomTree(t *testing.T, rnd *rand.Rand, dir string, names []string, depth int) {
	for _, name := range names {
		switch n := rnd.IntN(12); {
		case n < 5 && depth > 0:
			if n == 0 {
				pureTree(t, dir, name+" ! opaque")
			} else {
				pureTree(t, dir, name+"/")
			}
			pureRandomTree(t, rnd, filepath.Join(dir, name), names, depth-1)
		case n < 7:
			pureTree(t, dir, name+" = "+strconv.Itoa(rnd.Int()))
		case n == 7:
			pureTree(t, dir, name+" ! whiteout")
		case n == 8:
			targets := []string{"a", "../b", "/c/a", "../../c", "b/../c", "/", "..", "c/b/a", "/a/../b"}
			pureTree(t, dir, name+" -> "+targets[rnd.IntN(len(targets))])
		}
	}
}

// pureOverlay mounts layers, the lowest first, and returns the detached mount.
func pureOverlay(layers []string) (int, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	var lower []string
	for _, dir := range layers {
		lower = append([]string{dir}, lower...)
	}
	if err := unix.FsconfigSetString(fd, "lowerdir", strings.Join(lower, ":")); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return -1, err
	}
	return unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
}

// pureDescribe says what is open, and closes it: for a file its content, for a directory the type only,
// since the inode is overlayfs's own.
func pureDescribe(fd int, err error) string {
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err.Error()
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		link, _ := readLink(fd)
		return "link to " + link
	}
	b, err := os.ReadFile(fdPath(fd))
	return fmt.Sprintf("file %s %v", b, err)
}
