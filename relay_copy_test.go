//go:build linux

package container

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// This file tests the joining of connections.

// connPair is a connection with both of its ends.
func connPair(t testing.TB, network string) (near, far net.Conn) {
	t.Helper()
	if network == "pipe" {
		return net.Pipe()
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err == nil {
		far, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		c.SetDeadline(time.Now().Add(time.Minute))
	}
	return near, far
}

// Bytes go both ways between any two kinds of connections, and half an end is half an end where there is one.
func TestJoinConns(t *testing.T) {
	leak.Check(t)
	text := bytes.Repeat([]byte("text"), 1<<20)
	for _, kinds := range [][2]string{{"tcp", "tcp"}, {"tcp", "unix"}, {"unix", "tcp"}, {"tcp", "pipe"}} {
		left, a := connPair(t, kinds[0])
		right, b := connPair(t, kinds[1])
		for _, c := range []net.Conn{a, b} {
			c.SetDeadline(time.Time{})
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			joinConns(a, b)
		}()
		go func() {
			left.Write(text)
			closeWrite(left)
		}()
		if got, err := io.ReadAll(right); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%v: %d bytes instead of %d, %v", kinds, len(got), len(text), err)
		}
		if kinds[1] != "pipe" { // which has no half ends
			go func() {
				right.Write(text)
				right.Close()
			}()
			if got, err := io.ReadAll(left); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%v: %d bytes back instead of %d, %v", kinds, len(got), len(text), err)
			}
		}
		left.Close()
		right.Close()
		<-done
	}
}

// A reset is passed on while the other side is silent, and while it is being written to and does not read.
func TestJoinConnsReset(t *testing.T) {
	leak.Check(t)
	for _, full := range []bool{false, true} {
		left, a := connPair(t, "tcp")
		right, b := connPair(t, "tcp")
		for _, c := range []net.Conn{a, b} {
			c.SetDeadline(time.Time{})
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			joinConns(a, b)
		}()
		if full {
			left.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if n, err := io.Copy(left, zeroes{}); !isTimeout(err) || n > 64<<20 {
				t.Errorf("%d bytes were taken that nobody reads: %v", n, err)
			}
		}
		resetConn(right)
		if _, err := left.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%v instead of a reset", err)
		}
		left.Close()
		<-done
	}
}

// zeroes never ends.
type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { return len(b), nil }
