//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// lifeConfig is the default configuration with a root of busybox, which the container may write.
func lifeConfig(t testing.TB) (cfg Config, root string) {
	t.Helper()
	testenv.Need(t, testenv.UserNS)
	root = busyboxRoot(t)
	cfg = DefaultConfig()
	cfg.Root = Directory(root)
	return cfg, root
}

// lifeNew makes a container that is destroyed at the end of the test.
func lifeNew(t testing.TB, cfg Config) *Container {
	t.Helper()
	c, err := New(filepath.Join(t.TempDir(), "state"), "life", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Destroy(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// lifeStart runs a process in a new container.
func lifeStart(t testing.TB, cfg Config, p *Process) *Container {
	t.Helper()
	c := lifeNew(t, cfg)
	if err := c.Run(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	return c
}

// lifeWait waits, but not for ever.
func lifeWait(t testing.TB, wait func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("Wait does not return")
		return nil
	}
}

// lifeSh is a shell that runs a script.
func lifeSh(script string) *Process { return &Process{Args: []string{"sh", "-c", script}} }

// withoutPIDs shares the caller's PID namespace, so that processes outlive the first one, signals
// have their default action, and numbers are those of the host.
func withoutPIDs(cfg Config) Config {
	cfg.Namespaces.NewPID = false
	cfg.Mounts, cfg.MaskPaths, cfg.ReadonlyPaths = nil, nil, nil
	return cfg
}

// lifeForgetUserNamespaces closes what this process keeps open on purpose.
func lifeForgetUserNamespaces() {
	k := &keptUserNamespaces
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.open {
		f.Close()
	}
	k.open = nil
}

func TestStdioNil(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	p := lifeSh(`for i in 0 1 2; do all="$all $(stat -L -c %t:%T /proc/$$/fd/$i)"; done; echo $all >/out`)
	p.Stderr = (*os.File)(nil) // is nil too
	c := lifeStart(t, cfg, p)
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(root + "/out"); string(got) != "1:3 1:3 1:3\n" {
		t.Errorf("devices of the streams are %q, not those of /dev/null", got)
	}
}

func TestStdioFiles(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	var files [3]*os.File
	var want strings.Builder
	for i := range files {
		f, err := os.Create(filepath.Join(t.TempDir(), fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, _ := f.Stat()
		fmt.Fprintln(&want, info.Sys().(*syscall.Stat_t).Ino)
		files[i] = f
	}
	c := lifeStart(t, cfg, &Process{
		Args:  []string{"sh", "-c", `for i in 0 1 2; do stat -L -c %i /proc/self/fd/$i; done; echo error >&2`},
		Stdin: files[0], Stdout: files[1], Stderr: files[2],
	})
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(files[1].Name()); string(got) != want.String() {
		t.Errorf("inodes %q, want %q", got, want.String())
	}
	if got, _ := os.ReadFile(files[2].Name()); string(got) != "error\n" {
		t.Errorf("standard error is %q", got)
	}
}

func TestStdioSameWriter(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	var out bytes.Buffer // the race detector sees two goroutines in it
	p := lifeSh(`i=0; while [ $i -lt 500 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done`)
	p.Stdout, p.Stderr = &out, &out
	if err := lifeStart(t, cfg, p).Wait(); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 500 {
		fmt.Fprintf(&want, "o%d\ne%d\n", i, i)
	}
	if out.String() != want.String() {
		t.Error("output and errors lost their order")
	}
}

// uncomparable is of a comparable type, and comparing it panics.
type uncomparable struct{ v any }

func (uncomparable) Write(b []byte) (int, error) { return len(b), nil }

func TestSameWriter(t *testing.T) {
	var a, b bytes.Buffer
	u := uncomparable{[]byte{}}
	for _, row := range []struct {
		a, b io.Writer
		want bool
	}{
		{&a, &a, true}, {&a, &b, false}, {nil, nil, false}, {&a, nil, false}, {nil, &a, false},
		{u, u, false}, {uncomparable{1}, uncomparable{1}, true}, {&a, u, false},
	} {
		if got := sameWriter(row.a, row.b); got != row.want {
			t.Errorf("sameWriter(%T, %T) = %v", row.a, row.b, got)
		}
	}
}

func TestStdinLarge(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	in := bytes.Repeat([]byte("0123456789abcde\n"), 10<<20/16)
	var out bytes.Buffer
	c := lifeStart(t, cfg, &Process{Args: []string{"cat"}, Stdin: bytes.NewReader(in), Stdout: &out})
	if err := lifeWait(t, c.Wait); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), in) {
		t.Errorf("of %d bytes %d came back, or others", len(in), out.Len())
	}
}

func TestStdinNotRead(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeStart(t, cfg, &Process{Args: []string{"true"}, Stdin: bytes.NewReader(make([]byte, 1<<20))})
	if err := lifeWait(t, c.Wait); err != nil {
		t.Errorf("a process need not read its input: %v", err)
	}
}

func TestStdinEndless(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	r, w := io.Pipe() // nobody writes: Read never returns
	defer w.Close()
	c := lifeStart(t, cfg, &Process{Args: []string{"true"}, Stdin: r, WaitDelay: 50 * time.Millisecond})
	if err := lifeWait(t, c.Wait); !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("Wait returned %v, want exec.ErrWaitDelay", err)
	}
}

func TestWaitDelay(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	cfg = withoutPIDs(cfg)
	var out bytes.Buffer
	p := lifeSh(`sleep 1000 & echo $! >/pid; echo parent`)
	const delay = 2 * time.Second // enough for what is in the pipe already
	p.Stdout, p.WaitDelay = &out, delay
	start := time.Now()
	c := lifeStart(t, cfg, p)
	err := lifeWait(t, c.Wait)
	var pid int
	text, _ := os.ReadFile(root + "/pid")
	if fmt.Sscan(string(text), &pid); pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if !errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("Wait returned %v, want exec.ErrWaitDelay", err)
	}
	if took := time.Since(start); took < delay {
		t.Errorf("Wait returned after %v", took)
	}
	if out.String() != "parent\n" {
		t.Errorf("output %q", out.String())
	}
}

// Without a WaitDelay, Wait waits for what grandchildren write.
func TestGrandchildWrites(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	var out bytes.Buffer
	p := lifeSh(`(sleep 0.2; echo late) & echo early`)
	p.Stdout = &out
	if err := lifeWait(t, lifeStart(t, withoutPIDs(cfg), p).Wait); err != nil {
		t.Fatal(err)
	}
	if out.String() != "early\nlate\n" {
		t.Errorf("output %q", out.String())
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write(b []byte) (int, error) { return 0, w.err }

func TestWriterFails(t *testing.T) {
	leak.Check(t)
	cfg, root := lifeConfig(t)
	want := errors.New("full")
	// Not the first process of the namespace: signals do not reach that one by default.
	p := lifeSh(`cat /dev/zero; echo $? >/status`)
	p.Stdout = failingWriter{want}
	if err := lifeWait(t, lifeStart(t, cfg, p).Wait); !errors.Is(err, want) {
		t.Errorf("Wait returned %v, want the error of the writer", err)
	}
	if got, _ := os.ReadFile(root + "/status"); string(got) != "141\n" {
		t.Errorf("the process that wrote ended with %q, want 128+SIGPIPE", got)
	}
}

func TestPipes(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	p := lifeSh(`while read line; do echo out $line; echo err $line >&2; done`)
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	for name, pipe := range map[string]func() (any, error){
		"StdinPipe":  func() (any, error) { return p.StdinPipe() },
		"StdoutPipe": func() (any, error) { return p.StdoutPipe() },
		"StderrPipe": func() (any, error) { return p.StderrPipe() },
	} {
		if _, err := pipe(); err == nil {
			t.Errorf("%s can be called twice", name)
		}
	}
	c := lifeStart(t, cfg, p)
	fmt.Fprintln(in, "one")
	fmt.Fprintln(in, "two")
	in.Close()
	for _, row := range []struct {
		r    io.Reader
		want string
	}{{out, "out one\nout two\n"}, {errs, "err one\nerr two\n"}} {
		if got, err := io.ReadAll(row.r); err != nil || string(got) != row.want {
			t.Errorf("read %q, %v, want %q", got, err, row.want)
		}
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// What is in the pipe stays readable until Wait is called, and Wait closes all ends.
func TestPipesAndWait(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	p := &Process{Args: []string{"echo", "hello"}}
	in, _ := p.StdinPipe()
	out, _ := p.StdoutPipe()
	c := lifeStart(t, cfg, p)
	for status := StatusRunning; status == StatusRunning; {
		status, _ = c.Status()
	}
	var buf [6]byte
	if _, err := io.ReadFull(out, buf[:]); err != nil || string(buf[:]) != "hello\n" {
		t.Errorf("read %q, %v", buf, err)
	}
	if err := lifeWait(t, c.Wait); err != nil { // although nobody has closed in
		t.Error(err)
	}
	if _, err := in.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("writing after Wait: %v", err)
	}
	if _, err := out.Read(buf[:]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("reading after Wait: %v", err)
	}
}

func TestPipesOfFailedRun(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	c := lifeNew(t, cfg)
	p := &Process{Args: []string{"no-such-program"}}
	p.StdinPipe()
	out, _ := p.StdoutPipe()
	if err := c.Run(context.Background(), p); !errors.Is(err, ErrNotFound) {
		t.Fatalf("Run returned %v", err)
	}
	if _, err := io.ReadAll(out); err == nil {
		t.Error("the pipe is open")
	}
}

func TestExtraFiles(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	var files []*os.File
	for _, text := range []string{"three", "", "five"} {
		if text == "" {
			files = append(files, nil)
			continue
		}
		f, err := os.Create(filepath.Join(t.TempDir(), text))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.WriteString(text + "\n")
		f.Seek(0, 0)
		files = append(files, f)
	}
	var out bytes.Buffer
	p := lifeSh(`for i in 0 1 2 3 4 5 6 7 8 9 10 11 12; do [ -e /proc/$$/fd/$i ] && echo $i; done; cat <&3 <&5; cat <&3`)
	p.Stdout, p.ExtraFiles = &out, files
	if err := lifeStart(t, cfg, p).Wait(); err != nil {
		t.Fatal(err)
	}
	if want := "0\n1\n2\n3\n5\nfive\nthree\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestClosedFiles(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	closed, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	c := lifeNew(t, cfg)
	for _, p := range []*Process{
		{Args: []string{"true"}, Stdin: closed},
		{Args: []string{"true"}, Stdout: closed},
		{Args: []string{"true"}, ExtraFiles: []*os.File{closed}},
	} {
		if err := c.Run(context.Background(), p); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Run returned %v, want os.ErrClosed", err)
		}
	}
}

// Programs open /dev/stdout by its name, whoever they run as.
func TestReopenStreams(t *testing.T) {
	leak.Check(t)
	cfg, _ := lifeConfig(t)
	user := "www"
	if os.Geteuid() == 0 {
		cfg.Namespaces.NewUser = false
	} else {
		testenv.Need(t, testenv.SubIDs)
		var err error
		if cfg.UidMappings, cfg.GidMappings, err = SubordinateIDs(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(lifeForgetUserNamespaces)
	}
	var out, errs bytes.Buffer
	p := lifeSh(`id -u; echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin`)
	p.User, p.Stdin, p.Stdout, p.Stderr = user, strings.NewReader("in"), &out, &errs
	if err := lifeStart(t, cfg, p).Wait(); err != nil {
		t.Errorf("%v: %s", err, errs.String())
	}
	if out.String() != "33\nout\nin" || errs.String() != "err\n" {
		t.Errorf("output %q, errors %q", out.String(), errs.String())
	}
}
