//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// upperEcho answers each connection with what it says until it has said all, in upper case.
func upperEcho(t testing.TB, l net.Listener) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				conn.Write(bytes.ToUpper(text))
			}()
		}
	}()
}

// greet sends who connects a word, and closes; until the listener is closed.
func greet(l net.Listener, word string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(conn, word)
		conn.Close()
	}
}

// answers tells whether a server that can be reached so is one of upperEcho; it may be somebody else's.
func answers(network, address string) bool {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	io.WriteString(conn, "hello")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	answer, _ := io.ReadAll(conn)
	return string(answer) == "HELLO"
}

// say sends text, ends its half, and returns the answer.
func say(t testing.TB, conn net.Conn, text string) string {
	t.Helper()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestDialNetworks(t *testing.T) {
	leak.Check(t)
	execConfigs(t, func(t *testing.T, cfg Config) {
		if !cfg.Namespaces.NewNet {
			return
		}
		c := execSleeper(t, cfg)
		for _, row := range [][3]string{
			{"tcp", "127.0.0.1:80", "127.0.0.1:80"},
			{"tcp", "[::1]:80", "[::1]:80"},
			{"tcp", ":81", "127.0.0.1:81"},
			{"tcp", ":81", ""},
			{"tcp", "[::1]:82", "localhost:82"},
			{"tcp4", ":0", "localhost"},
			{"tcp6", ":0", "localhost"},
			{"unix", "/socket", "/socket"},
			{"unix", "/" + strings.Repeat("d/", 200) + "socket", "/" + strings.Repeat("d/", 200) + "socket"},
			{"unix", "@abstract", "@abstract"},
		} {
			if dir := filepath.Dir(row[1]); row[0] == "unix" && len(row[1]) > 100 {
				execSh(t, c, Process{}, "mkdir -p "+dir)
			}
			l, err := c.Listen(row[0], row[1])
			if err != nil {
				t.Fatal(row, err)
			}
			upperEcho(t, l)
			if !strings.Contains(row[2], ":") && row[0] != "unix" {
				_, port, _ := net.SplitHostPort(l.Addr().String())
				row[2] += ":" + port
			}
			conn, err := c.Dial(t.Context(), row[0], row[2])
			if err != nil {
				t.Fatal(row, err)
			}
			if got := say(t, conn, "hello"); got != "HELLO" {
				t.Errorf("%v: %q", row, got)
			}
			if answers(row[0], l.Addr().String()) {
				t.Errorf("%v can be reached from the host", row)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if _, err := c.Dial(t.Context(), row[0], row[2]); !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
				t.Errorf("%v: after the end: %v", row, err)
			}
		}
		wantText(t, execSh(t, c, Process{}, "ls -d /socket 2>/dev/null || echo none"), "none")
	})
}

func TestDialPackets(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	for _, row := range [][2]string{{"udp", "127.0.0.1:53"}, {"udp", "[::1]:53"}, {"udp", ":54"}, {"udp6", ":55"}, {"unixgram", "/gram"}, {"unixgram", "@gram"}} {
		p, err := c.ListenPacket(row[0], row[1])
		if err != nil {
			t.Fatal(row, err)
		}
		conn, err := c.Dial(t.Context(), row[0], row[1])
		if err != nil {
			t.Fatal(row, err)
		}
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		p.SetDeadline(time.Now().Add(30 * time.Second))
		buf := make([]byte, 100)
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		n, from, err := p.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "hello" {
			t.Errorf("%v: %q, %v", row, buf[:n], err)
		}
		if from != nil && strings.HasPrefix(row[0], "udp") {
			if _, err := p.WriteTo([]byte("answer"), from); err != nil {
				t.Error(err)
			}
			if n, err = conn.Read(buf); err != nil || string(buf[:n]) != "answer" {
				t.Errorf("%v: %q, %v", row, buf[:n], err)
			}
		}
		conn.Close()
		p.Close()
	}
	wantText(t, execSh(t, c, Process{}, "ls -d /gram 2>/dev/null || echo none"), "none")
	l, err := c.Listen("unixpacket", "/packet")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := c.Dial(t.Context(), "unixpacket", "/packet")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Programs of the container are who is spoken with, and who speaks; and other processes than the one that has started it can.
func TestDialPrograms(t *testing.T) {
	leak.Check(t)
	execConfigs(t, func(t *testing.T, cfg Config) {
		if !cfg.Namespaces.NewNet {
			return
		}
		cfg.Detached = true
		writeTree(t, cfg.Root.Dir, map[string]string{"www/file": "from inside\n"})
		c := execSleeper(t, cfg)
		if err := c.Exec(t.Context(), &Process{Args: []string{"httpd", "-p", "127.0.0.1:8099", "-h", "/www"}}); err != nil {
			t.Fatal(err)
		}
		other, err := Load(filepath.Dir(c.record.dir), c.ID())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Container{c, other} {
			transport := &http.Transport{DialContext: c.Dial}
			client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
			var text []byte
			for range 3000 { // httpd goes to the background before it listens
				var resp *http.Response
				if resp, err = client.Get("http://localhost:8099/file"); err == nil {
					text, err = io.ReadAll(resp.Body)
					resp.Body.Close()
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			transport.CloseIdleConnections()
			if err != nil || string(text) != "from inside\n" {
				t.Fatalf("%q, %v", text, err)
			}
			l, err := c.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "from outside") })}
			go server.Serve(l)
			wantText(t, execSh(t, c, Process{}, "wget -q -O - http://"+l.Addr().String()), "from outside")
			server.Close()
		}
	})
}

// What the caller is asked for while there is nothing to reach.
func TestDialStates(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.StopTimeout = -1
	c := lifeNew(t, cfg)
	dial := func() error {
		conn, err := c.Dial(t.Context(), "tcp", "localhost:80")
		if err == nil {
			conn.Close()
		}
		return err
	}
	_, err := c.Listen("tcp", "localhost:80")
	wantError(t, err, "listen", ErrNotRunning)
	wantError(t, dial(), "dial", ErrNotRunning)
	p := &Process{Args: []string{"sleep", "1000"}}
	if err := c.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	l, err := c.Listen("tcp", "localhost:80")
	if err != nil {
		t.Fatal("created:", err)
	}
	defer l.Close()
	if err := dial(); err != nil {
		t.Error("created:", err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Error("running:", err)
	}
	_, err = c.Listen("tcp", "localhost:80")
	e := wantError(t, err, "listen", syscall.EADDRINUSE)
	if e.ID != "life" || !strings.Contains(e.Path, "localhost:80") {
		t.Errorf("%v", e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Dial(ctx, "tcp", "localhost:80"); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	wantError(t, dial(), "dial", ErrNotRunning)
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	wantError(t, dial(), "dial", ErrNotExist)
}

func TestDialPaused(t *testing.T) {
	leak.Check(t)
	testenv.Need(t, testenv.Cgroup)
	cfg := testConfig(t)
	cfg.Resources = &Resources{}
	c := execSleeper(t, cfg)
	if err := c.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Dial(t.Context(), "tcp", "localhost:80")
	wantError(t, err, "dial", ErrPaused)
	_, err = c.Listen("tcp", "localhost:80")
	wantError(t, err, "listen", ErrPaused)
	if err := c.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = c.Dial(t.Context(), "tcp", "localhost:80")
	wantError(t, err, "dial", unix.ECONNREFUSED)
}

// Where nobody answers, ctx ends it, and nothing is left.
func TestDialContext(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	for _, row := range [][2]string{{"tcp", "127.0.0.1:80"}, {"unix", "/full"}, {"unix", "@full"}} {
		l, err := c.Listen(row[0], row[1])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := l.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		conn.Control(func(fd uintptr) { unix.Listen(int(fd), 0) })
		for i := 0; ; i++ {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			conn, err := c.Dial(ctx, row[0], row[1])
			cancel()
			if err == nil && i < 10 {
				defer conn.Close()
				continue
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: %v", row, err)
			}
			break
		}
	}
}

func TestDialRefuses(t *testing.T) {
	leak.Check(t)
	c := execSleeper(t, testConfig(t))
	for _, row := range [][2]string{
		{"tcp", "example.com:80"}, {"tcp", "127.0.0.1"}, {"tcp", "127.0.0.1:no-such-service"}, {"tcp", "127.0.0.1:65536"}, {"tcp4", "[::1]:80"}, {"tcp6", "127.0.0.1:80"}, {"tcp", "[fe80::1%eth0]:80"},
		{"tcp5", ":80"}, {"tcp44", ":80"}, {"ip:icmp", "127.0.0.1"}, {"", ":80"}, {"unix4", "/socket"}, {"unix", "socket"}, {"unix", "@"}, {"unix", "/"}, {"unix", "/dir/"}, {"unix", ""},
		{"unix", "/a\x00b"}, {"unix", "/" + strings.Repeat("x", 200)}, {"unix", "@" + strings.Repeat("x", 200)},
	} {
		_, err := c.Dial(t.Context(), row[0], row[1])
		wantError(t, err, "dial", nil)
		_, err = c.Listen(row[0], row[1])
		wantError(t, err, "listen", nil)
		if _, err = c.ListenPacket(row[0], row[1]); err == nil {
			t.Errorf("%q is listened on", row)
		}
	}
	_, err := c.Listen("udp", ":80")
	wantError(t, err, "listen", nil)
	_, err = c.ListenPacket("tcp", ":80")
	wantError(t, err, "listen", nil)
	_, err = c.Dial(t.Context(), "unix", "/no/such/file")
	wantError(t, err, "dial", unix.ENOENT)
}

// The container leads to sockets of the host's, by links, by its own /proc, and by exchanging what is looked up.
func TestDialHostileLinks(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	if os.Geteuid() == 0 { // the worst case: the host's processes are in its /proc, and nothing but the path is in the way
		cfg.Namespaces.NewPID, cfg.Namespaces.NewUser = false, false
	}
	host := filepath.Join(t.TempDir(), "host.sock")
	hl, err := net.Listen("unix", host)
	if err != nil {
		t.Fatal(err)
	}
	defer hl.Close()
	go greet(hl, "host")
	canary := filepath.Join(newCanary(t), "file")
	c := execSleeper(t, cfg)
	pid := os.Getpid()
	execSh(t, c, Process{}, fmt.Sprintf("ln -s %s /link; ln -s ../../../../../..%s /up; ln -s /proc/%d/root%s /magic; ln -s /proc/%d/root%s /dir; ln -s /proc/self/cwd /cwd", host, host, pid, host, pid, filepath.Dir(canary)))
	for _, name := range []string{"/link", "/up", "/magic", host, "/../../../" + host, fmt.Sprintf("/proc/%d/root%s", pid, host), "/cwd" + host} {
		conn, err := c.Dial(t.Context(), "unix", name)
		if err == nil {
			t.Errorf("%s leads to %q", name, say(t, conn, ""))
		}
	}
	for _, name := range []string{"/dir/made", "/magic/made", fmt.Sprintf("/proc/%d/root/%s/made", pid, filepath.Dir(canary))} {
		if l, err := c.Listen("unix", name); err == nil {
			t.Errorf("%s was made", name)
			l.Close()
		}
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(canary), "made")); err == nil {
		t.Error("a socket was made on the host")
	}
	// What is removed is below the root as well, whatever the directory has become.
	execSh(t, c, Process{}, "mkdir /real")
	l, err := c.Listen("unix", "/real/"+filepath.Base(canary))
	if err != nil {
		t.Fatal(err)
	}
	execSh(t, c, Process{}, "mv /real /moved; mv /dir /real")
	l.Close()
	if _, err := os.Stat(canary); err != nil {
		t.Error(err)
	}
}

func BenchmarkDial(b *testing.B) {
	c := execSleeper(b, testConfig(b))
	l, err := c.Listen("tcp", "127.0.0.1:80")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go greet(l, "")
	for b.Loop() {
		conn, err := c.Dial(b.Context(), "tcp", "127.0.0.1:80")
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
}
