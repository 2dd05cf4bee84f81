//go:build linux

package container

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file has nginx serve in containers of all modes that have ports, and curl fetch from it: from another host, from the host, and from other
// containers.

// nginxConf is for a directory that is at /tmp/web in the container. What is posted stays in a file, and the answer says which.
const nginxConf = `
daemon off;
user root;
worker_processes 2;
pid /tmp/nginx.pid;
error_log /tmp/web/error.log notice;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path /tmp/web/body;
	proxy_temp_path /tmp/proxy;
	fastcgi_temp_path /tmp/fastcgi;
	uwsgi_temp_path /tmp/uwsgi;
	scgi_temp_path /tmp/scgi;
	client_max_body_size 256m;
	server {
		listen 80;
		listen [::]:80 ipv6only=on;
		root /tmp/web/files;
		location = /from { return 200 $remote_addr; }
		location = /post {
			client_body_in_file_only on;
			proxy_pass_request_body off;
			proxy_set_header Content-Length "";
			proxy_set_header X-Stored $request_body_file;
			proxy_pass http://unix:/tmp/nginx.sock;
		}
	}
	server {
		listen unix:/tmp/nginx.sock;
		location / { return 200 $http_x_stored; }
	}
}
`

// A webServer is a container with nginx.
type webServer struct {
	*Container
	dir   string // at /tmp/web in it
	files map[string][]byte
}

// realRoot gives a configuration the host's programs, and a /tmp of its own with a directory of the host's in it.
func realRoot(cfg *Config, dir string) {
	cfg.Root, cfg.StopTimeout = HostRoot, -1
	cfg.Mounts = append(slices.Clone(cfg.Mounts), Mount{Type: "tmpfs", Target: "/tmp", Flags: NoSuid | NoDev, Data: "mode=1777"},
		Mount{Type: "bind", Source: dir, Target: "/tmp/web"})
}

// startNginx waits until it serves.
func startNginx(t testing.TB, cfg Config) *webServer {
	t.Helper()
	size := 3 << 20
	if os.Getenv(longVar) != "" {
		size = 64 << 20
	}
	page := strings.Repeat("page 123", 1<<10)
	w := &webServer{dir: t.TempDir(), files: map[string][]byte{"large": make([]byte, size), "small": []byte("small\n"), "page": []byte(page)}}
	for b, r := w.files["large"], rand.New(rand.NewPCG(1, 2)); len(b) > 0; b = b[1:] {
		b[0] = byte(r.Uint32())
	}
	writeTree(t, w.dir, map[string]string{"nginx.conf": nginxConf, "files/large": string(w.files["large"]), "files/small": string(w.files["small"]), "files/page": page})
	realRoot(&cfg, w.dir)
	w.Container = lifeStart(t, cfg, &Process{Args: []string{testenv.LookPath("nginx"), "-c", "/tmp/web/nginx.conf", "-e", "/tmp/web/error.log"}})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		conn, err := w.Dial(t.Context(), "tcp", "localhost:80")
		if err == nil {
			conn.Close()
			return w
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(w.dir, "error.log"))
			t.Fatalf("nginx does not listen: %v\n%s", err, text)
		}
	}
}

// A webClient is where curl runs.
type webClient struct {
	name string
	curl func(args ...string) (string, error)
	dial func(address string) (net.Conn, error)
	dir  string // where it finds the server's directory
}

// webClient is curl in a namespace.
func (h *testHost) webClient(w *webServer) webClient {
	return webClient{
		name: h.name, dir: w.dir,
		curl: func(args ...string) (string, error) { return h.command(append([]string{"curl"}, args...)...) },
		dial: func(address string) (conn net.Conn, err error) {
			err = h.do(func() error { conn, err = net.DialTimeout("tcp", address, time.Minute); return err })
			return conn, err
		},
	}
}

// command is run for what may take long on a machine that has much to do.
func (h *testHost) command(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, testenv.LookPath(args[0]), args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := h.do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	return out.String(), err
}

// webClientIn is curl in a container that was configured with realRoot.
func webClientIn(name string, c *Container) webClient {
	return webClient{
		name: name, dir: "/tmp/web",
		curl: func(args ...string) (string, error) { return commandIn(c, append([]string{"curl"}, args...)...) },
		dial: func(address string) (net.Conn, error) { return c.Dial(context.Background(), "tcp", address) },
	}
}

// commandIn runs a program in a container.
func commandIn(c *Container, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	p := &Process{Args: args, Stdout: &out, Stderr: &out}
	err := c.Exec(ctx, p)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { p.Signal(unix.SIGKILL) })
		defer stop()
		err = p.Wait()
	}
	return out.String(), err
}

// fetches wants all that a client does with a server to work. The address that the server sees is compared if it is known.
func (c webClient) fetches(t *testing.T, w *webServer, address, from string) {
	t.Helper()
	base := "http://" + address + "/"
	got, err := c.curl("-sS", "-m", "100", base+"from")
	if seen, perr := netip.ParseAddr(got); err != nil || perr != nil || from != "" && seen.String() != from {
		t.Errorf("%s at %s is seen as %q instead of %q, %v", c.name, address, got, from, err)
		return
	}
	// One connection for two requests, and all the bytes of both.
	got, err = c.curl("-sS", "-m", "100", "-w", "%{num_connects}", base+"large", base+"large")
	if large := string(w.files["large"]); err != nil || got != large+"1"+large+"0" {
		t.Errorf("%s at %s: two requests: %d bytes, ending in %q, instead of %d, %v", c.name, address, len(got), got[max(0, len(got)-100):], 2*len(large)+2, err)
	}
	// What is sent arrives.
	got, err = c.curl("-sS", "-m", "100", "--data-binary", "@"+c.dir+"/files/large", base+"post")
	stored, rerr := os.ReadFile(filepath.Join(w.dir, "body", filepath.Base(got)))
	if err != nil || rerr != nil || !bytes.Equal(stored, w.files["large"]) {
		t.Errorf("%s at %s: post: %d bytes, %.200q, %v, %v", c.name, address, len(stored), got, err, rerr)
	}
	// Many at a time, each over a connection of its own.
	const many = 60
	got, err = c.curl("-sS", "-m", "100", "-Z", "--parallel-immediate", "--parallel-max", fmt.Sprint(many), "-H", "Connection: close", "-w", "%{http_code}/%{size_download} ", "-o", "/dev/null",
		base+"small?["+fmt.Sprintf("1-%d", many)+"]")
	if n := strings.Count(got, "200/6 "); err != nil || n != many {
		t.Errorf("%s at %s: %d of %d requests were answered, %v: %.300s", c.name, address, n, many, err, got)
	}
	c.halves(t, w, address)
}

// halves ends the connection on its side before it reads. nginx takes that for a client that has given up, unless what it has to say is said at once: so
// it is asked for no more than the smallest buffer of a socket takes.
func (c webClient) halves(t *testing.T, w *webServer, address string) {
	t.Helper()
	conn, err := c.dial(address)
	if err != nil {
		t.Errorf("%s: %v", c.name, err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(100 * time.Second))
	fmt.Fprintf(conn, "GET /page HTTP/1.0\r\n\r\n")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Errorf("%s: %v", c.name, err)
	}
	all, err := io.ReadAll(conn)
	if _, body, _ := bytes.Cut(all, []byte("\r\n\r\n")); err != nil || !bytes.Equal(body, w.files["page"]) {
		t.Errorf("%s at %s: half closed: %d bytes, %v", c.name, address, len(body), err)
	}
}

func needNginx(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Overlay, testenv.Program("nginx", "nginx-light"), testenv.Program("curl", "curl"))
}

// A server on a bridge is reached by its port from everywhere, and by its address from the same bridge.
func TestNginxBridge(t *testing.T) {
	needNginx(t)
	inNAT(t, func(t *testing.T, r *natRig) {
		leak.Check(t)
		cfg := netConfig(t)
		serving := cfg
		serving.Network = &NetworkConfig{Mode: NetworkModeBridge, StateDir: cfg.Network.StateDir, PortMappings: []PortMapping{{HostPort: 8080, ContainerPort: 80}}}
		w := startNginx(t, serving)
		outside, host := r.client.webClient(w), r.webClient(w)
		outside.fetches(t, w, "192.0.2.1:8080", "192.0.2.2")
		outside.fetches(t, w, "[2001:db8:1::1]:8080", "2001:db8:1::2")
		for _, address := range []string{"192.0.2.1:8080", "127.0.0.1:8080", "[2001:db8:1::1]:8080", "[::1]:8080"} {
			host.fetches(t, w, address, "")
		}
		realRoot(&cfg, w.dir)
		c := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
		other := webClientIn("another container", c)
		own := netState(t, c).Addresses
		for i, at := range netState(t, w.Container).Addresses {
			other.fetches(t, w, netip.AddrPortFrom(at.Addr(), 80).String(), own[i].Addr().String())
		}
		other.fetches(t, w, "192.0.2.1:8080", "")
		other.fetches(t, w, "[2001:db8:1::1]:8080", "")
	})
}

// A server behind ports that the caller's process carries is reached as one on a bridge is, also by a container whose way out is decided about.
func TestNginxRelayed(t *testing.T) {
	needNginx(t)
	inNAT(t, func(t *testing.T, r *natRig) {
		leak.Check(t)
		for i, mode := range []NetworkMode{NetworkModeEgress, NetworkModeNone} {
			port := fmt.Sprintf(":%d", 8080+i)
			cfg := testConfig(t)
			cfg.Network = &NetworkConfig{Mode: mode, PortMappings: []PortMapping{{HostPort: uint16(8080 + i), ContainerPort: 80}}}
			w := startNginx(t, cfg)
			four, six := "192.0.2.2", "2001:db8:1::2"
			if mode == NetworkModeNone {
				four, six = portClient4.String(), portClient6.String()
			}
			outside, host := r.client.webClient(w), r.webClient(w)
			outside.fetches(t, w, "192.0.2.1"+port, four)
			outside.fetches(t, w, "[2001:db8:1::1]"+port, six)
			host.fetches(t, w, "127.0.0.1"+port, portClient4.String())
			host.fetches(t, w, "[::1]"+port, portClient6.String())
			cfg = egressConfig(t)
			cfg.Network.Egress = allowEgress
			realRoot(&cfg, w.dir)
			other := webClientIn("another container", lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}}))
			other.fetches(t, w, "192.0.2.1"+port, "")
			other.fetches(t, w, "[2001:db8:1::1]"+port, "")
		}
	})
}
