//go:build linux

package container

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file tests the terminal of a process, with a terminal of the test's own as the caller's.

// ttyPair is a terminal: what a user types is written to user, and what they see is read from it;
// seat is what a program at it has as its streams.
type ttyPair struct{ user, seat *os.File }

func newTTY(t testing.TB) ttyPair {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.IoctlRetInt(int(user.Fd()), unix.TIOCGPTPEER)
	if err != nil {
		t.Fatal(err)
	}
	_ = fd
	return ttyPair{}
}

func TestConsoleTry(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := lifeNew(t, cfg)
	p := &Process{Args: []string{"sh", "-c", "tty; ls -l /dev/console /dev/pts /dev/ptmx; stty size; cat /proc/self/mountinfo | grep pts; ls -l /proc/self/fd; read x; echo got $x; ps -o pid,pgid,sid,tty,args"}, Tty: true, Stdin: strings.NewReader("hello\n"), Stdout: &out, ConsoleSize: ConsoleSize{90, 30}}
	if err := c.Run(ctx, p); err != nil {
		t.Fatal(err)
	}
	t.Log(p.Wait())
	t.Logf("%s", out.String())
}
