//go:build linux

package container

import (
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file joins connections whose ends do what most do not.

// tcpPair is a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// Urgent data, as telnet and ftp send, does not stop a connection.
func TestEgressAttackUrgent(t *testing.T) {
	program, near := tcpPair(t)
	far, server := tcpPair(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		joinConns(near, far)
	}()
	raw, err := program.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", "!", "b"} {
		flags := 0
		if text == "!" {
			flags = unix.MSG_OOB
		}
		raw.Write(func(fd uintptr) bool {
			err = unix.Sendto(int(fd), []byte(text), flags, nil)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	program.CloseWrite()
	server.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := io.ReadAll(server)
	if err != nil || !strings.HasPrefix(string(got), "a") || !strings.HasSuffix(string(got), "b") {
		t.Errorf("the server has got %q, %v", got, err)
	}
	server.Close()
	program.Close()
	<-ended
}

// A connection has a pipe for each direction in which nobody reads, and none afterwards.
func TestJoinedDescriptors(t *testing.T) {
	waitFor(t, func() bool { // what others leave to the next would not be counted
		pipes.mu.Lock()
		defer pipes.mu.Unlock()
		return pipes.users == 0
	})
	pipes := func() map[string]bool {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, f := range list {
			if link, _ := os.Readlink("/proc/self/fd/" + f.Name()); strings.HasPrefix(link, "pipe:") {
				found[link] = true
			}
		}
		return found
	}
	before := pipes()
	count := func() int {
		now := pipes()
		maps.DeleteFunc(now, func(link string, _ bool) bool { return before[link] })
		return len(now)
	}
	program, near := tcpPair(t)
	far, server := tcpPair(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		joinConns(near, far)
	}()
	n := 0
	for deadline := time.Now().Add(time.Minute); n != 2 && time.Now().Before(deadline); n = count() {
		for _, c := range []*net.TCPConn{program, server} {
			c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			for {
				if _, err := c.Write(make([]byte, 1<<16)); err != nil {
					break
				}
			}
		}
	}
	if n != 2 {
		t.Errorf("%d pipes", n)
	}
	program.Close()
	server.Close()
	<-ended
	if n := count(); n > 0 {
		t.Errorf("%d pipes when it has ended", n)
	}
}
