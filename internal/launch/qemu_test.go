//go:build linux && amd64

package launch

import (
	"bytes"
	debugelf "debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.com/container/internal/testenv"
)

// This file proves the arm64 launcher on an amd64 machine. It runs the tests of this package, Start and all,
// as an arm64 program: in a user namespace of its own, in which the kernel starts arm64 files under
// qemu. Nothing is registered with the host.

// notUnderQemu are the tests that qemu-user cannot run, and why.
var notUnderQemu = map[string]string{
	"TestExecutableIsSealed":                "/proc/self/exe is opened by the emulator, as another file",
	"TestWhereMemoryFilesMustNotBeExecuted": "the emulator's clone does not know CLONE_NEWUSER with CLONE_VFORK",
	"TestPidFDIsGivenOnce":                  "the emulator's clone does not know CLONE_PIDFD",
	"TestNewUserNamespaceJoin":              "the emulator has threads, so the kernel refuses to unshare",
	"TestLastMessageBeforeTheEnd":           "goroutines that spin take minutes in the emulator; no launcher is in it",
	"TestForgedFiles":                       "the emulator receives more descriptors than it has room for, and leaves them open",
}

func TestArm64UnderQemu(t *testing.T) {
	qemu := lookQemu(t)
	test := arm64Test(t)
	p := New(0)
	p.Step("mount", "binfmt_misc")
	dir, tmp := t.TempDir(), t.TempDir()
	p.Call(unix.SYS_MOUNT, p.Str("none"), p.Str(dir), p.Str("binfmt_misc"))
	p.Step("register", qemu)
	rule := binfmtRule(qemu)
	fd := p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str(filepath.Join(dir, "register")), unix.O_WRONLY|unix.O_CLOEXEC).Result()
	p.Call(unix.SYS_WRITE, fd, p.Str(rule), Arg(len(rule)))
	p.Step("execute", test)
	var skip []string
	for name := range notUnderQemu {
		skip = append(skip, name)
	}
	args := []string{test, "-test.v", "-test.timeout=2m", "-test.skip=^(" + strings.Join(skip, "|") + ")$"}
	p.Call(unix.SYS_EXECVE, p.Str(test), p.Strs(args), p.Strs([]string{"GOMAXPROCS=1", "TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}))

	// The emulator's fork can deadlock in a program with threads, before it comes to our code: hence
	// one processor, an end of those that say nothing, and other tries.
	var out []byte
	const tries = 4
	for try := range tries {
		var ended bool
		if out, ended = runOutside(t, p); ended {
			break
		}
		if t.Logf("try %d hangs:\n%s", try+1, out); try == tries-1 {
			t.FailNow()
		}
	}
	t.Logf("%s", out)
	// The whole list, so that no test is left out by chance.
	for _, name := range testNames(t) {
		if notUnderQemu[name] == "" && !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
}

// runOutside runs p in a user namespace and returns its output, and whether it came to an end.
func runOutside(t *testing.T, p *Program) (out []byte, ended bool) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c, err := p.Start(&Attr{Stdio: [3]*os.File{nil, w, w}, Sys: &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Setpgid:     true,
	}})
	w.Close()
	if err != nil {
		needQemu(t, "a user namespace: %v", err)
	}
	defer c.Release()
	// What hangs is a child of the tests. It is found by its process group, when it has said nothing for long: each test says something.
	const long = 30 * time.Second
	timer := time.AfterFunc(long, func() { unix.Kill(-c.Process().Pid, unix.SIGKILL) })
	_, failure := c.Next()
	hangs := false
	for buf := make([]byte, 1<<16); ; {
		n, err := r.Read(buf)
		out = append(out, buf[:n]...)
		hangs = !timer.Stop() || hangs
		if err != nil {
			break
		}
		timer.Reset(long)
	}
	s, err := c.Process().Wait()
	var e *Error
	switch {
	case errors.As(failure, &e) && e.Step.Name == "mount":
		needQemu(t, "binfmt_misc in a user namespace (Linux 6.7): %v", e)
	case hangs:
		return out, false
	case failure != io.EOF || err != nil || !s.Success():
		t.Fatalf("%v, %v, %v\n%s", failure, err, s, out)
	}
	return out, true
}

// binfmtRule is what tells binfmt_misc to start static arm64 programs with qemu. F opens qemu at
// once, so that it need not be there by name later.
func binfmtRule(qemu string) string {
	magic := `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00` // ET_EXEC, EM_AARCH64
	return ":arm64:M:0:" + magic + "::" + qemu + ":F"
}

// testNames are the tests that are built for arm64 too, and need nothing of this architecture.
func testNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(src), "//go:build linux && amd64\n") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(src), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// lookQemu finds the emulator under the names that distributions give it.
func lookQemu(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"qemu-aarch64-static", "qemu-aarch64"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	needQemu(t, "qemu-aarch64-static (package qemu-user-static)")
	return ""
}

// needQemu skips the test for want of something, or fails it where CI says that it must run.
func needQemu(t *testing.T, format string, args ...any) {
	t.Helper()
	testenv.Need(t, testenv.Requirement{Name: "qemu", Probe: func() error { return fmt.Errorf("missing: "+format, args...) }})
}

// arm64Test builds the tests of this package for arm64.
func arm64Test(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "launch.test")
	cmd := exec.Command("go", "test", "-c", "-o", file, ".")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		needQemu(t, "the go command")
	}
	if err != nil {
		t.Fatalf("build for arm64: %v\n%s", err, out)
	}
	return file
}

// The same check as TestCode, for the other architecture; it needs no emulator.
func TestCodeOfArm64(t *testing.T) {
	f, err := debugelf.Open(arm64Test(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		if !strings.HasSuffix(strings.TrimSuffix(s.Name, ".abi0"), "/launch.launcher") {
			continue
		}
		section := f.Sections[s.Section]
		code := make([]byte, s.Size)
		if _, err := section.ReadAt(code, int64(s.Value-section.Addr)); err != nil {
			t.Fatal(err)
		}
		n := bytes.Index(code, []byte(codeEnd))
		if n < 0 {
			t.Fatalf("no end in %x", code)
		}
		checkCodeOf(t, "arm64", decodeArm64(t, code[:n]), n)
		return
	}
	t.Error("no launcher among the symbols")
}
