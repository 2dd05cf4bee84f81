//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file attacks what engines around runtimes got wrong, and a library can get wrong as well: copies, groups, directories, streams.

// attackCopy lets a container exchange places without end while copy is called; it must not read or change the canary, and must do its
// work at least once.
func attackCopy(t *testing.T, prepare string, exchange [2]string, copy func(c *Container) (string, error)) {
	t.Helper()
	leak.Check(t)
	cfg, canary := attackConfig(t), newCanary(t)
	c := execSleeper(t, cfg)
	execSh(t, c, Process{}, "set -e; C="+up+canary+"; A="+canary+"; mkdir -p /w/d/dir /w/e; echo inside >/w/d/file; echo inside >/w/d/dir/file; "+prepare)
	racer(t, cfg.Root.Dir+exchange[0], cfg.Root.Dir+exchange[1])
	good, end := 0, time.Now().Add(time.Duration(rounds(700, 30000))*time.Millisecond)
	for time.Now().Before(end) || good == 0 && time.Now().Before(end.Add(time.Minute)) {
		out, err := copy(c)
		notOurs(t, "copy", out, err, "canary")
		if err == nil {
			good++
		} else {
			typed(t, "copy", err)
		}
		if t.Failed() {
			return
		}
	}
	if good == 0 {
		t.Error("nothing was copied")
	}
	t.Logf("%d were copied", good)
}

func copyFrom(t *testing.T, path string) func(c *Container) (string, error) {
	return func(c *Container) (string, error) {
		var b bytes.Buffer
		err := c.CopyFrom(t.Context(), path, &b)
		return b.String(), err
	}
}

func copyTo(t *testing.T, path string, entries ...tar.Header) func(c *Container) (string, error) {
	return func(c *Container) (string, error) { return "", c.CopyTo(t.Context(), path, copyTar(t, entries...)) }
}

// A component in the middle of the path, after it was resolved.
func TestCVE_2018_15664(t *testing.T) {
	for _, to := range []string{"$A", "$C"} { // an absolute link, and one that goes up
		attackCopy(t, "ln -s "+to+" /w/l", [2]string{"/w/d", "/w/l"}, copyFrom(t, "/w/d/file"))
	}
}

// The last one, an absolute link.
func TestCVE_2019_10152(t *testing.T) {
	attackCopy(t, "ln -s $A/file /w/l", [2]string{"/w/d/file", "/w/l"}, copyFrom(t, "/w/d/file"))
}

// The directory that is exported, while it is walked.
func TestCVE_2023_0778(t *testing.T) {
	attackCopy(t, "ln -s $C/dir /w/l; for i in $(seq 200); do echo inside >/w/d/$i; done", [2]string{"/w/d/dir", "/w/l"}, copyFrom(t, "/w/d"))
}

// The place where files are made, whose modes and owners were then changed.
func TestCVE_2021_41089(t *testing.T) {
	attackCopy(t, "ln -s $A /w/l", [2]string{"/w/d", "/w/l"},
		copyTo(t, "/w/d", tar.Header{Name: "file", Linkname: "x", Mode: 0o777}, tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o777}, tar.Header{Name: "private", Linkname: "x", Mode: 0o666}))
}

// A directory of the archive's, once it is there.
func TestCVE_2026_41568(t *testing.T) {
	attackCopy(t, "ln -s $C/dir /w/e/l; mkdir /w/e/dir", [2]string{"/w/e/dir", "/w/e/l"},
		copyTo(t, "/w/e", tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o777}, tar.Header{Name: "dir/file", Linkname: "x", Mode: 0o777}, tar.Header{Name: "dir/sub/made", Linkname: "x"}))
}

// What a hard link of the archive's is made of, and what is written over.
func TestCVE_2026_42306(t *testing.T) {
	attackCopy(t, "ln -s $A /w/l; mkdir /w/d/out", [2]string{"/w/d", "/w/l"},
		copyTo(t, "/w/d", tar.Header{Name: "file", Linkname: "x"}, tar.Header{Name: "out/hard", Typeflag: tar.TypeLink, Linkname: "file"}, tar.Header{Name: "out/link", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, tar.Header{Name: "file", Linkname: "y"}))
}

// poison puts programs and libraries into a root that tell if anybody executes or loads them.
func poison(t *testing.T, root string, programs ...string) {
	t.Helper()
	attackerIn(t, root)
	files := map[string]string{
		"etc/ld.so.preload": "/poison.so\n", "etc/nsswitch.conf": "passwd: poison\ngroup: poison\n", "etc/ld.so.conf": "/poison\n", "etc/profile": "touch /poisoned\n",
	}
	for _, lib := range []string{"poison.so", "libnss_poison.so.2", "lib/libnss_poison.so.2", "lib/x86_64-linux-gnu/libnss_files.so.2", "lib64/ld-linux-x86-64.so.2", "usr/lib/libnss_dns.so.2"} {
		files[lib] = "no library"
	}
	for _, p := range programs {
		for _, dir := range []string{"bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/local/bin/"} {
			os.Remove(root + "/" + dir + p)
			files[dir+p] = "#!/bin/busybox sh\necho " + p + " >>/poisoned\n"
		}
	}
	writeTree(t, root, files)
	for name := range files {
		if err := os.Chmod(root+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if text, err := os.ReadFile(root + "/poisoned"); err == nil {
			t.Errorf("executed: %s", text)
		}
		if maps, err := os.ReadFile("/proc/self/maps"); err != nil || strings.Contains(string(maps), root) {
			t.Errorf("loaded: %s, %v", maps, err)
		}
	})
}

// Looking up a name loaded the container's libraries into the engine.
func TestCVE_2019_14271(t *testing.T) {
	cfg := attackConfig(t)
	poison(t, cfg.Root.Dir, "tar", "getent", "id", "docker-tar")
	c := execSleeper(t, cfg)
	for range 3 {
		if err := c.CopyTo(t.Context(), "/tmp", copyTar(t, tar.Header{Name: "file", Linkname: "x", Uname: "www", Gname: "www"})); err != nil {
			t.Fatal(err)
		}
		if err := c.CopyFrom(t.Context(), "/tmp", io.Discard); err != nil {
			t.Fatal(err)
		}
		if _, err := execIn(t, c.Exec, &Process{Args: []string{"true"}, User: "www"}); err != nil && os.Geteuid() == 0 {
			t.Fatal(err)
		}
	}
}

// An archive was unpacked by a program of the container's, as it was compressed.
func TestCVE_2026_41567(t *testing.T) {
	programs := []string{"gzip", "gunzip", "unpigz", "pigz", "xz", "unxz", "bzip2", "zstd", "unzstd", "zcat"}
	cfg := attackConfig(t)
	poison(t, cfg.Root.Dir, programs...)
	c := execSleeper(t, cfg)
	for name, magic := range map[string]string{"xz": "\xfd7zXZ\x00", "bzip2": "BZh91AY", "zstd": "\x28\xb5\x2f\xfd"} {
		err := c.CopyTo(t.Context(), "/tmp", io.MultiReader(strings.NewReader(magic), bytes.NewReader(make([]byte, 1024))))
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		typed(t, name, err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.Copy(z, copyTar(t, tar.Header{Name: "file", Linkname: "x"})); err != nil {
		t.Fatal(err)
	}
	z.Close()
	if err := c.CopyTo(t.Context(), "/tmp", &b); err != nil {
		typed(t, "gzip", err)
	}
}

// What was to tell about a container's processes ran programs of its image with rights of the host's.
func TestCVE_2022_1227(t *testing.T) {
	cfg := attackConfig(t)
	cfg.StopTimeout = -1
	poison(t, cfg.Root.Dir, "ps", "nsenter", "newuidmap", "newgidmap", "setpriv", "prlimit", "mount", "runc", "ip")
	c := lifeStart(t, cfg, &Process{Args: []string{"/bin/busybox", "sleep", "1000"}, Env: []string{"PATH=/bin:/poison", "LD_PRELOAD=/poison.so", "LD_LIBRARY_PATH=/"}})
	if list, err := c.Processes(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := c.Stats(); err != nil && !errors.Is(err, ErrNoCgroup) {
		t.Error(err)
	}
	if _, err := c.State(); err != nil {
		t.Error(err)
	}
	execIn(t, c.Exec, &Process{Args: []string{"/bin/busybox", "true"}, User: "root"})
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// asNobody runs an attacker as an ordinary user of the host's.
func asNobody(t *testing.T, what string, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{attackVar + "=" + what}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// Other users of the host execute setuid programs of images, in directories of the engine's that they can enter.
func TestCVE_2021_41103(t *testing.T) {
	testenv.Need(t, testenv.Root)
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := filepath.Join(t.TempDir(), "store")
	s, err := OpenStore(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	program := imageFile("setuid", "#!/bin/sh\n")
	program.Mode = 0o4755
	imageLayout(t, dir+"-layout", imageTar(t, imageDir("dir/", 0o777), program))
	img, err := s.Load(t.Context(), "oci:"+dir+"-layout:v1", nil)
	if err != nil {
		t.Fatal(err)
	}
	top := img.Root().Layers[0]
	if st, err := os.Stat(top + "/setuid"); err != nil || st.Mode()&os.ModeSetuid == 0 {
		t.Fatalf("%v, %v", st, err)
	}
	if out := asNobody(t, "read", top+"/setuid", dir+"/VERSION", top); strings.Contains(out, "read ") {
		t.Errorf("it can: %s", out)
	}
}

// The same with the directories of containers that run.
func TestCVE_2024_25621(t *testing.T) {
	testenv.Need(t, testenv.Root)
	leak.Check(t)
	old := unix.Umask(0)
	defer unix.Umask(old)
	cfg := attackConfig(t)
	cfg.Detached = true
	stateDir := filepath.Join(t.TempDir(), "state")
	cfg.Root = Root{Dir: cfg.Root.Dir, Access: CopyOnWrite, Upper: filepath.Join(filepath.Dir(stateDir), "upper")}
	defer removeOverlayWork(t, cfg.Root.Upper)
	c, err := New(stateDir, "seen", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Destroy()
	if err := c.Run(t.Context(), &Process{Args: []string{"sh", "-c", "cp /bin/busybox /setuid; chmod 4755 /setuid; echo; sleep 1000"}}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		st, err := os.Stat(cfg.Root.Upper + "/upper/setuid")
		return err == nil && st.Mode()&os.ModeSetuid != 0
	})
	if out := asNobody(t, "read", cfg.Root.Upper+"/upper/setuid", stateDir+"/seen/config.json", stateDir+"/seen/state.json", stateDir); strings.Contains(out, "read ") {
		t.Errorf("it can: %s", out)
	}
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
}

// attackFlood lets a process write without end to somebody who does not read, and returns what this has cost the caller.
func attackFlood(t *testing.T, start func(c *Container, p *Process) error) {
	t.Helper()
	leak.Check(t)
	c := execSleeper(t, attackConfig(t))
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before, goroutines := memory(), runtime.NumGoroutine()
	stalled := make(chan struct{})
	w := &stalledWriter{until: stalled}
	p := &Process{Args: []string{"sh", "-c", "exec cat /dev/zero"}, Stdout: w, Stderr: io.Discard}
	if err := start(c, p); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(rounds(300, 30000)) * time.Millisecond)
	if now := memory(); now > before+4<<20 {
		t.Errorf("it was %d bytes, and is %d", before, now)
	}
	if n := runtime.NumGoroutine(); n > goroutines+8 {
		t.Errorf("%d goroutines were %d", n, goroutines)
	}
	p.Signal(unix.SIGKILL)
	close(stalled)
	lifeWait(t, p.Wait)
	wantGoroutines(t, goroutines)
}

// wantGoroutines waits until there are no more goroutines than there were.
func wantGoroutines(t *testing.T, were int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > were; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%d goroutines were %d", runtime.NumGoroutine(), were)
			return
		}
	}
}

// stalledWriter takes nothing until the channel is closed.
type stalledWriter struct{ until chan struct{} }

func (w *stalledWriter) Write(b []byte) (int, error) {
	<-w.until
	return len(b), nil
}

// The output of what is executed was collected in memory.
func TestCVE_2022_31030(t *testing.T) {
	attackFlood(t, func(c *Container, p *Process) error { return c.Exec(t.Context(), p) })
}

// The same in another engine, here with a terminal.
func TestCVE_2022_1708(t *testing.T) {
	attackFlood(t, func(c *Container, p *Process) error {
		p.Tty, p.Stderr = true, nil
		return c.Exec(t.Context(), p)
	})
}

// attackGoroutines does something very often, after which there must be as many goroutines as before.
func attackGoroutines(t *testing.T, do func(c *Container)) {
	t.Helper()
	leak.Check(t)
	c := execSleeper(t, attackConfig(t))
	do(c)
	before := runtime.NumGoroutine()
	for range rounds(30, 1000) {
		do(c)
	}
	wantGoroutines(t, before)
}

// For each process with a terminal that could not be started, or whose size was changed, a goroutine was left.
func TestCVE_2022_23471(t *testing.T) {
	attackGoroutines(t, func(c *Container) {
		p := &Process{Args: []string{"/none"}, Tty: true}
		if err := c.Exec(t.Context(), p); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if err := p.Resize(ConsoleSize{Width: 80, Height: 24}); err == nil {
			t.Error("a process that does not run has a terminal")
		}
		p = &Process{Args: []string{"true"}, Tty: true}
		if err := c.Exec(t.Context(), p); err != nil {
			t.Error(err)
		}
		for range 5 {
			p.Resize(ConsoleSize{Width: 80, Height: 24})
		}
		p.Wait()
		p.Resize(ConsoleSize{Width: 81, Height: 24})
	})
}

// The same for each that somebody was attached to, and who went away.
func TestCVE_2025_64329(t *testing.T) {
	attackGoroutines(t, func(c *Container) {
		p := &Process{Args: []string{"sleep", "1000"}, Tty: true}
		if err := c.Exec(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
			r, w := io.Pipe() // nothing ever comes
			if err := p.Attach(ctx, r, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
			w.Close()
		}
		p.Signal(unix.SIGKILL)
		p.Wait()
	})
}

// attackDenied: a file denies something to a group, whose member a process is by its primary group. A program that is setgid takes
// that group away, and if it is not among the others the file is open.
func attackDenied(t *testing.T, start func(c *Container, p *Process) (string, error), p Process, want string) {
	t.Helper()
	leak.Check(t)
	cfg := rangeConfig(t)
	cfg.Seccomp, cfg.NoNewPrivileges = nil, false
	attackerIn(t, cfg.Root.Dir)
	if err := os.Chmod(cfg.Root.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, cfg, "cp /attacker /setgid; chgrp 55 /setgid; chmod 2755 /setgid; echo denied >/file; chgrp 44 /file; chmod 604 /file; echo open >/open; chmod 604 /open")
	c := execSleeper(t, cfg)
	probeOf := p
	probeOf.Args, probeOf.Env = []string{"/attacker"}, attack("probe").Env
	out, err := start(c, &probeOf)
	parseProbe(t, out, err).wantStatus(t, "Groups", want)
	p.Args, p.Env = []string{"/setgid", "/file", "/open"}, attack("read").Env
	if out, err := start(c, &p); err != nil || out != "not /file\nread /open: open\n" && out != "not /file\nread /open: open\n\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func runBeside(t *testing.T) func(c *Container, p *Process) (string, error) {
	return func(c *Container, p *Process) (string, error) {
		out, err := runIn(t, c.cfg, p)
		return strings.TrimSuffix(out, "\n"), err
	}
}

func execInto(t *testing.T) func(c *Container, p *Process) (string, error) {
	return func(c *Container, p *Process) (string, error) { return execIn(t, c.Exec, p) }
}

// Of a user by number with a group.
func TestCVE_2022_36109(t *testing.T) {
	attackDenied(t, runBeside(t), Process{User: "1000:44"}, "44")
}

// Of a user by name, who is in other groups.
func TestCVE_2022_2995(t *testing.T) {
	attackDenied(t, runBeside(t), Process{User: "www:44", AdditionalGroups: []string{"7"}}, "7 44")
}

// Of what is executed.
func TestCVE_2023_25173(t *testing.T) {
	attackDenied(t, execInto(t), Process{User: "1000:44", AdditionalGroups: []string{"7", "8"}}, "7 8 44")
}

// attackIDs: a number that overflows is not root.
func attackIDs(t *testing.T, start func(c *Container, p *Process) (string, error)) {
	t.Helper()
	leak.Check(t)
	cfg := rangeConfig(t)
	writeTree(t, cfg.Root.Dir, map[string]string{
		"etc/passwd": "root:x:0:0::/:\nover:x:4294967296:0::/:\nneg:x:-4294967296:0::/:\nlong:x:18446744073709551616:0::/:\nnone:x:4294967295:1::/:\nfloat:x:1e-9:0::/:\nhex:x:0x0:0::/:\n",
		"etc/group":  "root:x:0:\nover:x:4294967296:\n",
	})
	c := execSleeper(t, cfg)
	for _, user := range []string{"4294967296", "4294967296:4294967296", "8589934592", "18446744073709551616", "4294967295", "over", "neg", "long", "none", "float", "hex", "1:over", "1:4294967296", "340282366920938463463374607431768211456"} {
		out, err := start(c, &Process{Args: []string{"id", "-u"}, User: user})
		var f *FieldError
		if !errors.As(err, &f) || f.Field != "User" {
			t.Errorf("%s: %q, %v", user, out, err)
		}
	}
	// Those that the kernel has no id for in this user namespace are an error as well, and not root.
	for _, user := range []string{"2147483648", "2147483647", "4294967294"} {
		if out, err := start(c, &Process{Args: []string{"id", "-u"}, User: user}); err == nil && strings.TrimSpace(out) != user {
			t.Errorf("%s: %q", user, out)
		}
	}
}

func TestCVE_2024_40635(t *testing.T) { attackIDs(t, runBeside(t)) }

// The same for what is executed.
func TestCVE_2026_46680(t *testing.T) { attackIDs(t, execInto(t)) }

// A passwd of the container's, changed while it runs, filled the memory of who enters it.
func TestCVE_2025_4437(t *testing.T) {
	leak.Check(t)
	cfg := rangeConfig(t)
	c := execSleeper(t, cfg)
	for _, size := range []int64{2 << 20, 8 << 30} {
		for _, file := range []string{"passwd", "group"} {
			if err := os.Truncate(cfg.Root.Dir+"/etc/"+file, size); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			read := bytesRead(t)
			_, err := execIn(t, c.Exec, &Process{Args: []string{"true"}, User: "www:www", AdditionalGroups: []string{"x"}})
			read = bytesRead(t) - read
			runtime.ReadMemStats(&after)
			var f *FieldError
			if !errors.As(err, &f) || after.TotalAlloc-before.TotalAlloc > 4<<20 || read > 16<<20 {
				t.Errorf("%s of %d: %d bytes, %d were read, %v", file, size, after.TotalAlloc-before.TotalAlloc, read, err)
			}
		}
	}
}

// bytesRead is how much this process has read so far, by whatever call; see proc_pid_io(5).
func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err == nil {
		_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// With a user namespace, the processes were in another cgroup than the one with the limits.
func TestCVE_2025_47291(t *testing.T) {
	leak.Check(t)
	for name, change := range map[string]func(*Config){
		"one id": func(*Config) {}, "ranges": func(cfg *Config) {
			cfg.UidMappings, cfg.GidMappings = rangeConfig(t).UidMappings, rangeConfig(t).GidMappings
		},
		"detached": func(cfg *Config) { cfg.Detached = true }, "init": func(cfg *Config) { cfg.Init = true },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cgroupConfig(t)
			change(&cfg)
			c := lifeNew(t, cfg)
			// Before any program of the container's runs.
			if err := c.Create(t.Context(), &Process{Args: []string{"sleep", "1000"}}); err != nil {
				t.Fatal(err)
			}
			inside := insideOf(t, c)
			check := func(when string) {
				t.Helper()
				list, err := c.Processes()
				if err != nil || len(list) == 0 {
					t.Fatalf("%s: %v, %v", when, list, err)
				}
				for _, pid := range list {
					if in := cgroupOf(pid); !within(in, inside.path) {
						t.Errorf("%s: %d is in %q, not %q", when, pid, in, inside.path)
					}
				}
			}
			check("created")
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			check("started")
			p := lifeSh("read x")
			in, err := p.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Exec(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			check("exec")
			in.Close()
			p.Wait()
		})
	}
}

// Meters of power tell what other programs compute: what is masked, as of moby's list, is.
func TestGO_2023_2412(t *testing.T) {
	for _, want := range []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	} {
		if !slices.Contains(DefaultMaskPaths(), want) {
			t.Errorf("%s is not masked", want)
		}
	}
	for _, want := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"} {
		if !slices.Contains(DefaultReadonlyPaths(), want) {
			t.Errorf("%s is not read-only", want)
		}
	}
	devModes(t, func(t *testing.T, cfg Config) {
		cfg.Seccomp = nil
		got := sh(t, cfg, `for p in `+strings.Join(DefaultMaskPaths(), " ")+`; do
				if [ -d $p ]; then ls -A $p; else cat $p; fi
			done 2>&1 | grep -v 'No such file'; find /sys -name energy_uj -o -name 'thermal_throttle' -type d ! -empty 2>/dev/null | while read f; do ls -A $f; done; true`)
		wantText(t, got, "")
	})
}

// attackWorkDir: a working directory is made where a link leads, and given to the user.
func attackWorkDir(t *testing.T, start func(c *Container, p *Process) (string, error)) {
	t.Helper()
	leak.Check(t)
	canary := newCanary(t)
	cfg := rangeConfig(t)
	cfg.Seccomp = nil
	c := execSleeper(t, cfg)
	for _, to := range linksTo(canary) {
		execSh(t, c, Process{}, "rm -rf /a; mkdir -p /a/own; chmod 700 /a/own; ln -sfn "+to+" /a/link; ln -sfn /a/own /a/inside")
		for _, dir := range []string{"/a/link", "/a/link/new", "/a/link/dir/new/deep", "/a/inside/../link/x"} {
			out, err := start(c, &Process{Args: []string{"sh", "-c", "pwd; ls -l; echo attack >file; echo attack >here"}, Cwd: dir, User: "1000:1000"})
			notOurs(t, dir, out, err, "canary", "private")
			if err != nil {
				typed(t, dir, err)
			}
		}
		// What is there already keeps its owner and mode.
		start(c, &Process{Args: []string{"true"}, Cwd: "/a/inside/made", User: "1000:1000"})
		wantText(t, execSh(t, c, Process{}, "stat -c '%u:%g %a' /a/own"), "0:0 700")
		if _, err := os.Lstat(filepath.Join(cfg.Root.Dir, canary)); err == nil {
			execSh(t, c, Process{}, "rm -rf "+canary)
		}
	}
}

func TestCVE_2026_55686(t *testing.T) { attackWorkDir(t, runBeside(t)) }

// The same for what is executed.
func TestCVE_2026_44517(t *testing.T) { attackWorkDir(t, execInto(t)) }
