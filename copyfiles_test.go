//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// copyTar is a tar of these entries; a file's content is its Linkname's place.
func copyTar(t testing.TB, entries ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := ""
		if h.Typeflag == 0 {
			h.Typeflag, content, h.Linkname = tar.TypeReg, h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1000000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// copyList describes the entries of a tar.
func copyList(t testing.TB, r io.Reader) string {
	t.Helper()
	var lines []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			slices.Sort(lines)
			return strings.Join(lines, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		content := readAll(t, tr)
		lines = append(lines, fmt.Sprintf("%s %c %o %d:%d %d %s%s%s", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Linkname, content, h.PAXRecords[paxXattr+"user.a"]))
	}
}

var copyEntries = []tar.Header{
	{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o750},
	{Name: "d/file", Linkname: "text", Mode: 0o4751, PAXRecords: map[string]string{paxXattr + "user.a": "!"}},
	{Name: "d/hard", Typeflag: tar.TypeLink, Linkname: "d/file"},
	{Name: "d/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd", Mode: 0o777},
	{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
	{Name: "d/made/by/the/way", Linkname: "deep"},
}

// What goes in comes out, whatever the container is doing; inside it is what was said.
func TestCopyBothWays(t *testing.T) {
	leak.Check(t)
	execConfigs(t, func(t *testing.T, cfg Config) {
		if !cfg.Namespaces.NewMnt {
			return
		}
		cfg.StopTimeout = -1
		writeTree(t, cfg.Root.Dir, map[string]string{"in/": ""})
		if len(cfg.UidMappings) == 1 && os.Geteuid() == 0 {
			if err := os.Chown(cfg.Root.Dir+"/in", 100000, 200000); err != nil {
				t.Fatal(err)
			}
		}
		c := lifeNew(t, cfg)
		if err := c.CopyTo(t.Context(), "/in", copyTar(t, copyEntries...)); err != nil {
			t.Fatal("before the start:", err)
		}
		if err := c.Run(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		execSh(t, c, Process{}, "rm -rf /in/d/*; touch /in/d/hard; mkdir /in/d/made")
		if err := c.CopyTo(t.Context(), "/in", copyTar(t, copyEntries...)); err != nil {
			t.Fatal("over others:", err)
		}
		execSh(t, c, Process{}, "rm -rf /in/d")
		if err := c.CopyTo(t.Context(), "/in", copyTar(t, copyEntries...)); err != nil {
			t.Fatal("while it runs:", err)
		}
		got := execSh(t, c, Process{}, `cd /in/d; stat -c '%n %a %u:%g %Y %h' . file link; stat -c '%n %a %u:%g' made; cat hard; readlink link; [ -p fifo ] && echo fifo`)
		wantText(t, got, ". 750 0:0 1000000000 3\nfile 4751 0:0 1000000000 2\nlink 777 0:0 1000000000 1\nmade 755 0:0\ntext/etc/passwd\nfifo")
		for _, running := range []bool{true, false} {
			if !running {
				if err := c.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
				c.Wait()
			}
			var out bytes.Buffer
			if err := c.CopyFrom(t.Context(), "/in/d", &out); err != nil {
				t.Fatal(err)
			}
			list := copyList(t, &out)
			for _, want := range []string{
				"d/ 5 750 0:0 1000000000 ", "d/file 0 4751 0:0 1000000000 text!", "d/hard 1 4751 0:0 1000000000 d/file",
				"d/link 2 777 0:0 1000000000 /etc/passwd", "d/fifo 6 600 0:0 1000000000 ", "d/made/by/the/way 0 644 0:0 1000000000 deep",
			} {
				if !slices.Contains(strings.Split(list, "\n"), want) {
					t.Errorf("running=%v: no %q in\n%s", running, want, list)
				}
			}
		}
	})
}

// Owners are ids of the container.
func TestCopyOwners(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.Root)
	cfg := testConfig(t)
	cfg.UidMappings, cfg.GidMappings = []IDMap{{HostID: 100000, Size: 1000}}, []IDMap{{HostID: 200000, Size: 1000}}
	if err := os.Chown(cfg.Root.Dir, 100000, 200000); err != nil {
		t.Fatal(err)
	}
	c := execSleeper(t, cfg)
	if err := c.CopyTo(t.Context(), "/", copyTar(t, tar.Header{Name: "f", Linkname: "x", Uid: 33, Gid: 34})); err != nil {
		t.Fatal(err)
	}
	wantText(t, execSh(t, c, Process{}, "stat -c %u:%g /f"), "33:34")
	var out bytes.Buffer
	if err := c.CopyFrom(t.Context(), "f", &out); err != nil {
		t.Fatal(err)
	}
	wantText(t, copyList(t, &out), "f 0 644 33:34 1000000000 x")
	err := c.CopyTo(t.Context(), "/", copyTar(t, tar.Header{Name: "g", Linkname: "x", Uid: 1000}))
	wantError(t, err, "copy to", ErrUnsupported)
}

func TestCopyOwnersRootless(t *testing.T) {
	testenv.Need(t, testenv.User)
	c := execSleeper(t, testConfig(t))
	err := c.CopyTo(t.Context(), "/", copyTar(t, tar.Header{Name: "g", Linkname: "x", Uid: 1}))
	wantError(t, err, "copy to", ErrUnsupported)
}

// Nothing in a tar leads out of the directory, and nothing is a device.
func TestCopyHostileTar(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	execSh(t, c, Process{}, "mkdir -p /in /out; ln -s /out /in/own; ln -s ../../../../.. /in/up; ln -s /proc/sys /in/kernel; echo kept >/out/kept")
	for name, row := range map[string]struct {
		entries []tar.Header
		want    error
	}{
		"up":                    {[]tar.Header{{Name: "../x", Linkname: "x"}}, fs.ErrInvalid},
		"up inside":             {[]tar.Header{{Name: "a/../../x", Linkname: "x"}}, fs.ErrInvalid},
		"absolute":              {[]tar.Header{{Name: "/x", Linkname: "x"}}, fs.ErrInvalid},
		"through its own link":  {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/out"}, {Name: "l/x", Linkname: "x"}}, fs.ErrInvalid},
		"link as a directory":   {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/out"}, {Name: "l/", Typeflag: tar.TypeDir}, {Name: "l/x", Linkname: "x"}}, fs.ErrExist},
		"hard link out":         {[]tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "../out/kept"}}, fs.ErrInvalid},
		"hard link to nothing":  {[]tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "none"}}, fs.ErrNotExist},
		"device":                {[]tar.Header{{Name: "disk", Typeflag: tar.TypeBlock, Devmajor: 8}}, ErrUnsupported},
		"attribute":             {[]tar.Header{{Name: "f", Linkname: "x", PAXRecords: map[string]string{paxXattr + "trusted.overlay.opaque": "y"}}}, ErrUnsupported},
		"file over a directory": {[]tar.Header{{Name: "own/../d/", Typeflag: tar.TypeDir}, {Name: "d", Linkname: "x"}}, nil},
		"kernel":                {[]tar.Header{{Name: "kernel/kernel/domainname", Linkname: "x"}}, fs.ErrPermission},
	} {
		err := c.CopyTo(t.Context(), "/in", copyTar(t, row.entries...))
		var e *Error
		if !errors.As(err, &e) || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Links of the container's own are followed below its root.
	if err := c.CopyTo(t.Context(), "/in/up/in", copyTar(t, tar.Header{Name: "own/new", Linkname: "new\n"})); err != nil {
		t.Error(err)
	}
	wantText(t, execSh(t, c, Process{}, "cat /out/*; ls /out"), "kept\nnew\nkept\nnew")
	for _, src := range []string{"/proc", "/in/kernel/kernel/hostname", "/sys/kernel", "/proc/self/root/etc"} {
		if err := c.CopyFrom(t.Context(), src, io.Discard); !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.ELOOP) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", src, err)
		}
	}
	if err := c.CopyTo(t.Context(), "/none", copyTar(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// The container exchanges a directory for a link to the host's while files are copied in and out.
func TestCopyRace(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	canary := newCanary(t)
	c := execSleeper(t, cfg)
	up := strings.Repeat("../", 12) + canary[1:]
	p := &Process{Args: []string{"sh", "-c", "mkdir -p /w/d; ln -s " + up + " /w/l; echo inside >/w/d/file; echo; while :; do mv -T /w/d /w/x && mv -T /w/l /w/d && mv -T /w/d /w/l && mv -T /w/x /w/d; done"}}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := c.Exec(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	readLine(t, out)
	copied, end := 0, time.Now().Add(2*time.Second)
	for time.Now().Before(end) || copied == 0 && time.Now().Before(end.Add(time.Minute)) {
		if c.CopyTo(t.Context(), "/w/d", copyTar(t, tar.Header{Name: "file", Linkname: "inside\n"}, tar.Header{Name: "dir/file", Linkname: "inside\n"})) == nil {
			copied++
		}
		var b bytes.Buffer
		if err := c.CopyFrom(t.Context(), "/w/d/file", &b); err == nil && strings.Contains(b.String(), "canary") {
			t.Fatal("the host's file was read")
		}
	}
	t.Logf("%d were copied", copied)
	if copied == 0 {
		t.Error("nothing was copied")
	}
	p.Signal(unix.SIGKILL)
	p.Wait()
}

// A root is a file system like any other to Go's own test of them.
func TestCopyFS(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.StopTimeout = -1
	writeTree(t, cfg.Root.Dir, map[string]string{"data/a": "1", "data/dir/b": "2", "data/link": "-> /data/a", "data/out": "-> ../../../../../../etc/hostname"})
	c := lifeNew(t, cfg)
	check := func(when string) {
		t.Helper()
		root, err := c.FS()
		if err != nil {
			t.Fatal(when, err)
		}
		defer root.Close()
		sub, err := fs.Sub(root, "data")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := fs.ReadFile(root, "data/link"); err != nil || string(text) != "1" {
			t.Errorf("%s: %q, %v", when, text, err)
		}
		if text, err := fs.ReadFile(root, "data/out"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the host's file: %q, %v", when, text, err)
		}
		if target, err := fs.ReadLink(root, "data/link"); err != nil || target != "/data/a" {
			t.Errorf("%s: %q, %v", when, target, err)
		}
		if err := os.Remove(cfg.Root.Dir + "/data/out"); err == nil || errors.Is(err, fs.ErrNotExist) {
			if err := fstest.TestFS(sub, "a", "dir/b"); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		if err := os.Symlink("../../../../../../etc/hostname", cfg.Root.Dir+"/data/out"); err != nil {
			t.Error(err)
		}
	}
	check("before")
	if err := c.Run(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	check("running")
	root, err := c.FS()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"proc/version", "dev/null", "dev/zero", "proc", "sys/kernel"} {
		if f, err := root.Open(name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	if info, err := root.Stat("dev/null"); err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		t.Errorf("dev/null: %v, %v", info, err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	check("stopped")
}

// Layers without a process are merged; what was written to memory is gone, and that is said.
func TestCopyLayers(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.Overlay)
	for _, keep := range []bool{true, false} {
		cfg := testConfig(t)
		top := t.TempDir()
		writeTree(t, top, map[string]string{"data/top": "top"})
		writeTree(t, cfg.Root.Dir, map[string]string{"data/low": "low", "data/gone": ""})
		cfg.Root = Root{Layers: []string{cfg.Root.Dir, top}}
		if keep {
			cfg.Root.Upper = filepath.Join(t.TempDir(), "upper")
			t.Cleanup(func() { os.Chmod(cfg.Root.Upper+"/work/work", 0o700) }) // overlayfs takes all rights away
		}
		c := lifeNew(t, cfg)
		names := func() string {
			root, err := c.FS()
			if err != nil {
				return err.Error()
			}
			defer root.Close()
			list, err := fs.ReadDir(root, "data")
			if err != nil {
				return err.Error()
			}
			var names []string
			for _, e := range list {
				names = append(names, e.Name())
			}
			return strings.Join(names, " ")
		}
		wantText(t, names(), "gone low top")
		if err := c.CopyTo(t.Context(), "/data", copyTar(t)); !errors.Is(err, ErrNotRunning) {
			t.Errorf("into layers: %v", err)
		}
		p := &Process{Args: []string{"sh", "-c", "rm /data/gone; echo new >/data/new; read line"}}
		in, err := p.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); names() != "low new top" && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		wantText(t, names(), "low new top")
		if err := c.CopyTo(t.Context(), "/data", copyTar(t, tar.Header{Name: "copied", Linkname: "x"})); err != nil {
			t.Error(err)
		}
		in.Close()
		c.Wait()
		if keep {
			wantText(t, names(), "copied low new top")
			continue
		}
		_, err = c.FS()
		wantError(t, err, "files", fs.ErrNotExist)
	}
}

func TestCopyContext(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.CopyTo(ctx, "/", copyTar(t, copyEntries...)); !errors.Is(err, context.Canceled) {
		t.Errorf("to: %v", err)
	}
	if err := c.CopyFrom(ctx, "/bin", io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("from: %v", err)
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.FS(); !errors.Is(err, ErrNotExist) {
		t.Errorf("destroyed: %v", err)
	}
}
