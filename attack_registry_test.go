//go:build linux

package container

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"github.com/google/go-containerregistry/pkg/authn"
	"golang.org/x/sys/unix"
)

// This file has registries that steer their clients: to others, who would like the credentials, and into the client's
// own network. It runs in a network namespace with addresses of the Internet and a name server, so that names, addresses and
// connections are real.

// The addresses of the loopback interface there, and the names that lead to them.
const (
	registryAddr = "203.0.113.5"
	evilAddr     = "203.0.113.6"
)

var attackNames = map[string]string{
	"registry.example": registryAddr, "sub.registry.example": evilAddr, "example": evilAddr, "evil.example": evilAddr, "xregistry.example": evilAddr,
	"registry.example.evil.example": evilAddr, "metadata.example": "169.254.169.254", "intranet.example": "10.0.0.1", "self.example": "127.0.0.1",
	"zero.example": "0.0.0.0", "cloud.example": "100.100.100.200", "six.example": "fd00:ec2::254", "translated.example": "64:ff9b::a00:1", "private.example": "10.0.0.2",
}

// victims are what a registry with an address of the Internet has no business with.
var victims = []string{"169.254.169.254", "10.0.0.1", "127.0.0.1", "100.100.100.200", "fd00:ec2::254", "64:ff9b::a00:1", "192.168.7.7", "172.16.0.9", "fe80::9", "2002:a00:1::"}

// inInternet runs f where all of these addresses are this machine's.
func inInternet(t *testing.T, f func(t *testing.T)) {
	testenv.Need(t, testenv.Program("ip", "iproute2"))
	inNamespaces(t, func(t *testing.T) {
		t.Setenv("HTTP_PROXY", "")
		script := "link set lo up\n"
		for _, a := range append(victims, registryAddr, evilAddr, "10.0.0.2") {
			if a != "127.0.0.1" {
				script += "addr add " + a + " dev lo nodad\n"
			}
		}
		cmd := exec.Command(testenv.LookPath("ip"), "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(script, " nodad", ""))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		nameServer(t)
		f(t)
	}, "-n")
}

// nameServer answers with attackNames, to this process.
func nameServer(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(nameAnswer(buf[:n]), from)
		}
	})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		conn.Close()
		done.Wait()
	})
}

// nameAnswer answers a query of RFC 1035 for an address.
func nameAnswer(q []byte) []byte {
	var labels []string
	at := 12
	for at < len(q) && q[at] != 0 {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
		at += 1 + int(q[at])
	}
	end := at + 5
	answer := append(bytes.Clone(q[:2]), 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	answer = append(answer, q[12:end]...)
	addr, err := netip.ParseAddr(attackNames[strings.ToLower(strings.Join(labels, "."))])
	if kind := binary.BigEndian.Uint16(q[at+1:]); err == nil && (kind == 1) == addr.Is4() {
		raw := addr.AsSlice()
		answer[7] = 1
		answer = append(answer, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(len(raw)))
		answer = append(answer, raw...)
	}
	return answer
}

// serveOn starts a server at an address and port.
func serveOn(t *testing.T, addr string, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	lc := net.ListenConfig{}
	l, err := lc.Listen(t.Context(), "tcp", addr)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EINVAL) {
		t.Logf("no server at %s: %v", addr, err) // a link-local address without its interface
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// eavesdropper notes everything that is sent to it.
type eavesdropper struct {
	mu     sync.Mutex
	seen   []string
	answer http.HandlerFunc
}

func (e *eavesdropper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	e.mu.Lock()
	e.seen = append(e.seen, fmt.Sprintf("%s %s %s %v %s", r.Method, r.Host, r.URL, r.Header, body))
	e.mu.Unlock()
	if e.answer != nil {
		e.answer(w, r)
	}
}

// secrets are the credentials of these tests, in all forms in which they travel.
var secrets = []string{"s3cret", base64.StdEncoding.EncodeToString([]byte("joe:s3cret")), "t0ken", "1dentity", "r3fresh", "k3y"}

func secretIn(text string) string {
	for _, s := range secrets {
		if strings.Contains(text, s) {
			return s
		}
	}
	return ""
}

// attackKeychains are the kinds of credentials.
var attackKeychains = map[string]authn.AuthConfig{
	"password": {Username: "joe", Password: "s3cret"},
	"identity": {Username: "<token>", IdentityToken: "1dentity"},
	"token":    {RegistryToken: "k3y"},
}

type fixedKeychain struct{ authn.AuthConfig }

func (k fixedKeychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(k.AuthConfig), nil
}

// A steering is what the registry does. It returns false for what it answers as usual.
type steering struct {
	id   string
	how  string
	to   []string // hosts that the credentials would go to
	hook func(to string, w http.ResponseWriter, r *http.Request) bool
	evil func(to string, w http.ResponseWriter, r *http.Request) // what the other host answers
}

func challengeWith(w http.ResponseWriter, value string) bool {
	w.Header().Set("WWW-Authenticate", value)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

func redirect(w http.ResponseWriter, r *http.Request, to string, code int) bool {
	http.Redirect(w, r, to, code)
	return true
}

// withToken is a registry that gives out tokens of its own, before next.
func withToken(next func(to string, w http.ResponseWriter, r *http.Request) bool) func(string, http.ResponseWriter, *http.Request) bool {
	return func(to string, w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			json.NewEncoder(w).Encode(map[string]string{"token": "t0ken", "refresh_token": "r3fresh"})
			return true
		case !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "):
			return challengeWith(w, `Bearer realm="http://`+r.Host+`/token",service="x",scope="repository:test/image:pull"`)
		}
		return next(to, w, r)
	}
}

// withBasic is a registry that wants credentials with each request.
func withBasic(next func(to string, w http.ResponseWriter, r *http.Request) bool) func(string, http.ResponseWriter, *http.Request) bool {
	return func(to string, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			return challengeWith(w, `Basic realm="x"`)
		}
		return next(to, w, r)
	}
}

// redirectOf redirects requests whose path contains part.
func redirectOf(part string, code int) func(to string, w http.ResponseWriter, r *http.Request) bool {
	return func(to string, w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, part) && redirect(w, r, "http://"+to+r.URL.Path, code)
	}
}

var others = []string{"evil.example", "xregistry.example", "registry.example.evil.example", evilAddr}

// steerings are the ways to have credentials sent elsewhere, each under the number of a client that did so.
var steerings = []steering{
	{"CVE_2019_10214", "the realm is another host", others, func(to string, w http.ResponseWriter, r *http.Request) bool {
		return challengeWith(w, `Bearer realm="http://`+to+`/token",service="registry.example"`)
	}, nil},
	{"CVE_2020_15157", "a layer is at an url, where credentials are wanted", others, withBasic(func(to string, w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Header.Get("X-Config") != "" {
			return false
		}
		w.WriteHeader(http.StatusNotFound)
		return true
	}), func(to string, w http.ResponseWriter, r *http.Request) {
		challengeWith(w, `Bearer realm="http://`+to+`/token",service="x"`)
	}},
	{"ggcr_2193", "the token server sends the request on", others, func(to string, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			return redirect(w, r, "http://"+to+"/token?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		}
		return challengeWith(w, `Bearer realm="http://`+r.Host+`/token",service="x"`)
	}, nil},
	{"GHSA_9m43_p3cx_w8j5", "a blob is elsewhere, where a token is wanted from the first", others, withToken(redirectOf("/blobs/", http.StatusFound)),
		func(to string, w http.ResponseWriter, r *http.Request) {
			challengeWith(w, `Bearer realm="http://registry.example/token",service="x"`)
		}},
	{"CVE_2026_33540", "the realm is the own one first, and another later", others, withToken(func(to string, w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/manifests/") && challengeWith(w, `Bearer realm="http://`+to+`/token",service="x",scope="repository:test/image:push"`)
	}), nil},
	{"CVE_2026_48978", "redirect of a blob", append(others, "sub.registry.example"), withBasic(redirectOf("/blobs/", http.StatusTemporaryRedirect)), nil},
	{"CVE_2026_50151", "redirect of a manifest", append(others, "sub.registry.example"), withToken(redirectOf("/manifests/", http.StatusMovedPermanently)), nil},
	{"GHSA_vh4v", "the next page is elsewhere", others, withBasic(func(to string, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Link", `<http://`+to+`/v2/test/image/tags/list?last=x>; rel="next"`)
		w.Header().Set("Location", "http://"+to+"/v2/")
		w.Header().Set("Refresh", "0; url=http://"+to+"/")
		return false
	}), nil},
	{"CVE_2026_49349", "the same host at another port", []string{"registry.example:81", registryAddr + ":81"}, withBasic(redirectOf("/manifests/", http.StatusFound)), nil},
	{"CVE_2023_45289", "redirect to a name below", []string{"sub.registry.example"}, withToken(redirectOf("/blobs/", http.StatusFound)),
		func(to string, w http.ResponseWriter, r *http.Request) {
			redirect(w, r, "http://"+to+"/again", http.StatusFound)
		}},
	{"CVE_2022_23538", "the ping is answered by somebody else", others, redirectOf("/v2/", http.StatusPermanentRedirect),
		func(to string, w http.ResponseWriter, r *http.Request) {
			challengeWith(w, `Bearer realm="http://`+to+`/token",service="x"`)
		}},
	{"with a user in the url", "the url has a user of its own", others, withBasic(func(to string, w http.ResponseWriter, r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/blobs/") && redirect(w, r, "http://registry.example@"+to+r.URL.Path, http.StatusFound)
	}), nil},
}

// Whatever a registry says, another host sees none of the credentials, and neither does the log.
func TestCVETokenLeaks(t *testing.T) {
	leak.Check(t)
	inInternet(t, func(t *testing.T) {
		for _, s := range steerings {
			t.Run(s.id, func(t *testing.T) {
				for _, to := range s.to {
					for kind, config := range attackKeychains {
						s.run(t, to, kind, config)
					}
				}
			})
		}
	})
}

func (s *steering) run(t *testing.T, to, kind string, config authn.AuthConfig) {
	t.Helper()
	g := &imageRegistry{blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}}
	p := g.build(nil, imageTar(t, imageFile("f", "1")))
	for _, l := range p.manifest["layers"].([]any) {
		l.(map[string]any)["urls"] = []string{"http://" + to + "/layer"}
	}
	g.add("v1", p)
	sawOwn := false
	g.hook = func(w http.ResponseWriter, r *http.Request) bool {
		g.mu.Lock()
		body, _ := io.ReadAll(r.Body)
		sawOwn = sawOwn || secretIn(fmt.Sprint(r.Header, string(body))) != ""
		g.mu.Unlock()
		if b := g.blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]; len(b) > 0 && b[0] == '{' {
			r.Header.Set("X-Config", "1")
		}
		return s.hook(to, w, r)
	}
	own := serveOn(t, registryAddr+":80", g.serve)
	evil := &eavesdropper{}
	if s.evil != nil {
		evil.answer = func(w http.ResponseWriter, r *http.Request) { s.evil(to, w, r) }
	}
	var closers []*httptest.Server
	for _, addr := range []string{evilAddr + ":80", registryAddr + ":81"} {
		closers = append(closers, serveOn(t, addr, evil.ServeHTTP))
	}
	defer func() {
		for _, c := range append(closers, own) {
			c.Close()
		}
	}()
	var log strings.Builder
	opt := &PullOptions{Keychain: fixedKeychain{config}, PlainHTTP: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	store := imageStore(t, nil)
	_, err := store.Pull(t.Context(), "registry.example/test/image:v1", opt)
	if err != nil {
		imageStoreEmpty(t, store)
	}
	if secret := secretIn(strings.Join(evil.seen, "\n")); secret != "" {
		t.Errorf("%s, %s, %s: %s was sent %q:\n%s", s.how, kind, to, secret, to, strings.Join(evil.seen, "\n"))
	}
	if secret := secretIn(fmt.Sprint(err, log.String())); secret != "" {
		t.Errorf("%s, %s, %s: %s is in a message: %v\n%s", s.how, kind, to, secret, err, &log)
	}
	if s.id == "CVE_2020_15157" && len(evil.seen) > 0 {
		t.Errorf("the layer's url was used: %q", evil.seen)
	}
	if !sawOwn && s.id == "CVE_2026_48978" && kind == "password" {
		t.Errorf("%s: not even the registry was sent anything: the test shows nothing", kind)
	}
}

// What a token server says does not come into a message, where others may read it.
func TestTokenServerAnswers(t *testing.T) {
	leak.Check(t)
	for _, answer := range []string{`{"refresh_token":"t0ken"}`, `{"token":"","access_token":"","x":"t0ken"}`, `t0ken`, `{"token":t0ken}`, `{"errors":[{"code":"DENIED","message":"t0ken"}]}`} {
		for _, status := range []int{200, 400, 401, 503} {
			g := newImageRegistry(t)
			g.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/token" {
					return challengeWith(w, `Bearer realm="`+g.URL+`/token",service="x"`)
				}
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(status)
				io.WriteString(w, answer)
				return true
			}
			var log strings.Builder
			_, err := imageStore(t, nil).Pull(t.Context(), g.ref("v1"), &PullOptions{Keychain: imageKeychain{"joe", "s3cret"}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err == nil || secretIn(err.Error()+log.String()) != "" {
				t.Errorf("%d %s: %v\n%s", status, answer, err, &log)
			}
		}
	}
}

// A registry with an address of the Internet leads nobody into the private network: not by a realm, a redirect, or a name
// that has an address there.
func TestSSRF(t *testing.T) {
	leak.Check(t)
	inInternet(t, func(t *testing.T) {
		inside := &eavesdropper{}
		for _, addr := range victims {
			serveOn(t, net.JoinHostPort(addr, "80"), inside.ServeHTTP)
		}
		hosts := []string{"metadata.example", "intranet.example", "self.example", "zero.example", "cloud.example", "six.example", "translated.example", "localhost",
			"[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]", "0x7f.1", "2130706433", "0", "127.1", "[::1]", "[::]", "[fe80::9%25lo]"}
		for _, addr := range victims {
			hosts = append(hosts, strings.TrimSuffix(net.JoinHostPort(addr, "80"), ":80"))
		}
		ways := map[string]func(to string, w http.ResponseWriter, r *http.Request) bool{
			"ggcr_2243 realm": func(to string, w http.ResponseWriter, r *http.Request) bool {
				return challengeWith(w, `Bearer realm="http://`+to+`/latest/meta-data",service="x"`)
			},
			"ggcr_2293 redirect of the token": func(to string, w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					return redirect(w, r, "http://"+to+"/latest/meta-data", http.StatusFound)
				}
				return challengeWith(w, `Bearer realm="http://`+r.Host+`/token",service="x"`)
			},
			"ggcr_2295 redirect of a blob":     redirectOf("/blobs/", http.StatusFound),
			"ggcr_2332 redirect of a manifest": redirectOf("/manifests/", http.StatusTemporaryRedirect),
			"redirect of the ping":             redirectOf("/v2/", http.StatusFound),
		}
		g := &imageRegistry{blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}}
		g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
		serveOn(t, registryAddr+":80", g.serve)
		pull := func(host, way string) error {
			g.hook = func(w http.ResponseWriter, r *http.Request) bool { return ways[way](host, w, r) }
			_, err := imageStore(t, nil).Pull(t.Context(), "registry.example/test/image:v1", &PullOptions{PlainHTTP: true, Policy: PullAlways})
			return err
		}
		for way := range ways {
			for _, host := range hosts {
				if err := pull(host, way); err == nil && !strings.Contains(way, "ping") {
					t.Errorf("%s to %s: no error", way, host)
				} else if strings.HasSuffix(host, ".example") && strings.Contains(way, "redirect of a") && !errors.Is(err, errBlockedAddress) {
					t.Errorf("%s to %s: %v", way, host, err)
				}
			}
		}
		if len(inside.seen) > 0 {
			t.Errorf("the registry has had us ask: %q", inside.seen)
		}
		// The other way round the test shows something: a registry that is in the private network itself may send to
		// neighbours there, but never to where a cloud keeps its credentials.
		serveOn(t, "10.0.0.2:80", g.serve)
		for host, want := range map[string]bool{"intranet.example": true, "metadata.example": false, "cloud.example": false, "six.example": false} {
			inside.seen = nil
			g.hook = func(w http.ResponseWriter, r *http.Request) bool { return redirectOf("/blobs/", 302)(host, w, r) }
			_, err := imageStore(t, nil).Pull(t.Context(), "private.example/test/image:v1", &PullOptions{PlainHTTP: true})
			if got := len(inside.seen) > 0; got != want {
				t.Errorf("a private registry sends to %s: %v, %v", host, got, err)
			}
		}
	})
}
