//go:build linux && (amd64 || arm64)

package launch

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// This file tests that files come through the socket, one by one, and that nothing else does.

// received is what a program sends until its end, which must be a good one.
func received(t *testing.T, p *Program) []Message {
	t.Helper()
	msgs, s, err := run(t, p, &Attr{})
	if err != nil || s.ExitCode() != 0 {
		t.Fatalf("%v, %v", s, err)
	}
	return msgs
}

func TestSendFile(t *testing.T) {
	before := openFiles(t)
	path := filepath.Join(t.TempDir(), "file")
	p := New(0)
	for tag, text := range map[uint32]string{7: "one", 8: "two"} {
		fd := p.Call(unix.SYS_OPENAT, unix.AT_FDCWD, p.Str(path+text), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600).Result()
		p.Call(unix.SYS_WRITE, fd, p.Str(text), 3)
		p.SendFile(tag, fd)
		p.Call(unix.SYS_CLOSE, fd)
	}
	p.Send(9, 10)
	p.Exit(0)
	msgs := received(t, p)
	if len(msgs) != 3 || msgs[2] != (Message{Tag: 9, Value: 10}) {
		t.Fatalf("%v", msgs)
	}
	for _, m := range msgs[:2] {
		want := map[uint32]string{7: "one", 8: "two"}[m.Tag]
		got := make([]byte, 8)
		n, err := m.File.ReadAt(got, 0)
		if string(got[:n]) != want || err != io.EOF {
			t.Errorf("message %d brings the file of %q, %v", m.Tag, got[:n], err)
		}
		if flags, err := unix.FcntlInt(m.File.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 || err != nil {
			t.Errorf("flags %#x, %v: a program that we start would have it", flags, err)
		}
		m.File.Close()
	}
	if after := openFiles(t); after != before {
		t.Errorf("open before:\n%safter:\n%s", before, after)
	}
}

func TestSendFileOfNothing(t *testing.T) {
	p := New(0)
	p.Step("send", "nothing")
	p.SendFile(7, 99)
	p.Exit(0)
	_, _, err := run(t, p, &Attr{})
	if e, ok := err.(*Error); !ok || e.Step.Name != "send" || e.Syscall != "sendmsg" || e.Errno != unix.EBADF {
		t.Error(err)
	}
}

// Whoever has the other end may send any number of files with any message. None of them stays open.
func TestForgedFiles(t *testing.T) {
	before := openFiles(t)
	for name, row := range map[string]struct {
		files, size Arg
		tag         Arg
		want        string // in the error; empty: a message
	}{
		"one":             {1, messageSize, 7, ""},
		"two":             {2, messageSize, 7, "more than one file"},
		"three":           {3, messageSize, 7, "more than one file"},
		"many":            {200, messageSize, 7, "more than one file"},
		"short message":   {1, 3, 7, "message of 3 bytes"},
		"long message":    {1, messageSize + 1, 7, "message of"},
		"empty message":   {1, 0, 7, "message of 0 bytes"},
		"with no failure": {1, messageSize, opsBase + 1, "none"},
		"with a failure":  {1, messageSize, opsBase + opSize*opFirst, "close_range"},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(0)
			words := []Arg{16 + 4*row.files, unix.SCM_RIGHTS<<32 | unix.SOL_SOCKET}
			for range (row.files + 1) / 2 {
				words = append(words, 1<<32|1) // standard output, twice
			}
			control := p.Words(words...)
			message := p.Words(row.tag, -5, 0)
			msg := p.Words(0, 0, p.Words(message, row.size), 1, control, Arg(8*len(words)), 0)
			p.Call(unix.SYS_SENDMSG, p.SocketFD(), msg, 0)
			p.Exit(0)
			msgs, _, err := run(t, p, &Attr{})
			switch {
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("%v, %v; want %q", msgs, err, row.want)
			case row.want == "" && (err != nil || len(msgs) != 1 || msgs[0].Value != -5 || msgs[0].File == nil):
				t.Errorf("%v, %v", msgs, err)
			}
			for _, m := range msgs {
				m.File.Close()
			}
			if after := openFiles(t); after != before {
				t.Errorf("open before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// A table of files that is full says so; the message without its file must not pass for one without.
func TestSendFileToAFullTable(t *testing.T) {
	p := New(0)
	p.Wait()
	p.SendFile(7, 0)
	p.Wait()
	p.Exit(0)
	c, err := p.Start(&Attr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.process.Wait()
	defer c.Release()
	var was unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}, nil); err != nil {
		t.Fatal(err)
	}
	err = c.Go()
	m, next := c.Next()
	if e := unix.Prlimit(0, unix.RLIMIT_NOFILE, &was, nil); e != nil || err != nil {
		t.Fatal(e, err)
	}
	if next == nil || !strings.Contains(next.Error(), unix.EMFILE.Error()) {
		t.Errorf("%v, %v", m, next)
	}
}

// The file lives on when the process is gone.
func TestSendFileOutlivesTheProcess(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := New(0)
	p.SendFile(1, 1)
	p.Exit(0)
	msgs, _, failure := run(t, p, &Attr{Stdio: [3]*os.File{nil, w, nil}})
	w.Close()
	if failure != nil || len(msgs) != 1 {
		t.Fatal(msgs, failure)
	}
	if _, err := msgs[0].File.WriteString("alive"); err != nil {
		t.Error(err)
	}
	msgs[0].File.Close()
	if got, _ := io.ReadAll(r); string(got) != "alive" {
		t.Errorf("%q", got)
	}
}
