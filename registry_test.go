//go:build linux

package container

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

// imageKeychain gives the same credentials to every registry.
type imageKeychain struct{ user, password string }

func (k imageKeychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: k.user, Password: k.password}), nil
}

// imageSpy is a server that notes what is sent to it.
type imageSpy struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // all headers and bodies
	http.HandlerFunc
}

func newImageSpy(t *testing.T, h http.HandlerFunc) *imageSpy {
	s := &imageSpy{HandlerFunc: h}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		s.mu.Lock()
		s.seen = append(s.seen, fmt.Sprint(r.Header, r.Form))
		s.mu.Unlock()
		if s.HandlerFunc != nil {
			s.HandlerFunc(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *imageSpy) sawSecret() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.seen, "\n")
	return strings.Contains(text, "s3cret") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("joe:s3cret"))) || strings.Contains(text, "t0ken")
}

// A registry with basic credentials, and one with tokens of its own.
func TestImageCredentials(t *testing.T) {
	for _, kind := range []string{"basic", "bearer"} {
		g := newImageRegistry(t)
		g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
		g.hook = func(w http.ResponseWriter, r *http.Request) bool {
			user, password, _ := r.BasicAuth()
			known := user == "joe" && password == "s3cret"
			switch {
			case r.URL.Path == "/token" && known:
				json.NewEncoder(w).Encode(map[string]string{"token": "t0ken"})
				return true
			case kind == "basic" && known, kind == "bearer" && r.Header.Get("Authorization") == "Bearer t0ken":
				return false
			case kind == "basic":
				w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			default:
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.URL+`/token",service="x"`)
			}
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		_, err := imageStore(t, nil).Pull(context.Background(), g.ref("v1"), nil)
		if !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "Keychain") {
			t.Errorf("%s, anonymous: %v", kind, err)
		}
		imagePull(t, imageStore(t, nil), g.ref("v1"), &PullOptions{Keychain: imageKeychain{"joe", "s3cret"}})
		_, err = imageStore(t, nil).Pull(context.Background(), g.ref("v1"), &PullOptions{Keychain: imageKeychain{"joe", "wr0ng"}})
		if !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%s, wrong: %v", kind, err)
		}
	}
}

// Whatever a registry says, credentials go to nobody else, and they are in no message.
func TestImageCredentialsStay(t *testing.T) {
	spy := newImageSpy(t, nil)
	other := strings.Replace(spy.URL, "127.0.0.1", "localhost", 1) // another host, as far as names go
	challenge := func(w http.ResponseWriter, value string) bool {
		w.Header().Set("WWW-Authenticate", value)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	authorized := func(r *http.Request) bool { user, _, _ := r.BasicAuth(); return user == "joe" }
	for name, hook := range map[string]func(g *imageRegistry, w http.ResponseWriter, r *http.Request) bool{
		"realm": func(g *imageRegistry, w http.ResponseWriter, r *http.Request) bool {
			return challenge(w, `Bearer realm="`+other+`/token",service="x"`)
		},
		"realm by address": func(g *imageRegistry, w http.ResponseWriter, r *http.Request) bool {
			return challenge(w, `Bearer realm="`+spy.URL+`/token",service="x"`)
		},
		"redirect of the ping": func(g *imageRegistry, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/v2/" {
				return false
			}
			http.Redirect(w, r, other+"/v2/", http.StatusFound)
			return true
		},
		"redirect of a blob": func(g *imageRegistry, w http.ResponseWriter, r *http.Request) bool {
			if !authorized(r) {
				return challenge(w, `Basic realm="x"`)
			}
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			http.Redirect(w, r, other+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		},
		"redirect of a manifest": func(g *imageRegistry, w http.ResponseWriter, r *http.Request) bool {
			if !authorized(r) {
				return challenge(w, `Basic realm="x"`)
			}
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			http.Redirect(w, r, spy.URL+r.URL.Path, http.StatusFound)
			return true
		},
		"redirect with a challenge": func(g *imageRegistry, w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/token" {
				json.NewEncoder(w).Encode(map[string]string{"token": "t0ken"})
				return true
			}
			if r.Header.Get("Authorization") != "Bearer t0ken" {
				return challenge(w, `Bearer realm="`+g.URL+`/token",service="x"`)
			}
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			http.Redirect(w, r, other+"/challenge", http.StatusFound)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newImageRegistry(t)
			g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
			g.hook = func(w http.ResponseWriter, r *http.Request) bool { return hook(g, w, r) }
			spy.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/challenge" {
					challenge(w, `Bearer realm="`+g.URL+`/token",service="x"`)
				}
			}
			var log strings.Builder
			opt := &PullOptions{Keychain: imageKeychain{"joe", "s3cret"}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
			_, err := imageStore(t, nil).Pull(context.Background(), g.ref("v1"), opt)
			if err == nil && name != "redirect of the ping" { // which asks for nothing, and so gets nothing
				t.Error("no error")
			}
			if spy.sawSecret() {
				t.Errorf("credentials were sent to another host: %q", spy.seen)
			}
			for _, secret := range []string{"s3cret", "t0ken"} {
				if strings.Contains(fmt.Sprint(err), secret) || strings.Contains(log.String(), secret) {
					t.Errorf("the secret is in a message: %v\n%s", err, &log)
				}
			}
		})
	}
}

// A blob may be at another host, which gets no credentials.
func TestImageRedirect(t *testing.T) {
	g := newImageRegistry(t)
	g.add("v1", g.build(nil, imageTar(t, imageFile("f", "1"))))
	cdn := newImageSpy(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(g.blobs[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]])
	})
	g.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if user, _, _ := r.BasicAuth(); user != "joe" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, cdn.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	imagePull(t, imageStore(t, nil), g.ref("v1"), &PullOptions{Keychain: imageKeychain{"joe", "s3cret"}})
	if len(cdn.seen) == 0 || cdn.sawSecret() {
		t.Errorf("the other host was sent %q", cdn.seen)
	}
}

func TestImageGuard(t *testing.T) {
	for _, tc := range []struct {
		registry, host string
		auth           []string
		want           bool
	}{
		{"index.docker.io", "auth.docker.io", nil, true},
		{"registry.example.com", "registry.example.com", nil, true},
		{"registry.example.com:5000", "registry.example.com", nil, true},
		{"registry.example.com", "example.com", nil, true},
		{"registry.example.com", "auth.registry.example.com", nil, true},
		{"registry.example.com", "auth.example.com", nil, false}, // may be another tenant of the domain
		{"registry.example.com", "auth.example.com", []string{"auth.example.com"}, true},
		{"registry.example.com", "com", nil, false},
		{"registry.example.com", "evilregistry.example.com", nil, false},
		{"registry.example.com", "example.com.evil.net", nil, false},
		{"127.0.0.1:5000", "127.0.0.1", nil, false}, // another port is another server
		{"localhost:5000", "localhost", nil, false},
	} {
		g := newRegistryGuard(tc.registry, &PullOptions{AuthHosts: tc.auth})
		if got := g.mayAuthenticate(tc.host); got != tc.want {
			t.Errorf("%s may give credentials to %s: %v", tc.registry, tc.host, got)
		}
	}
	// Plain http is for loopback, or on request.
	for _, tc := range []struct {
		url   string
		plain bool
		want  bool
	}{
		{"http://127.0.0.1:5000/v2/", false, true}, {"http://[::1]:5000/v2/", false, true}, {"http://localhost/v2/", false, true},
		{"http://10.1.2.3:5000/v2/", false, false}, {"http://host.local/v2/", false, false}, {"http://registry.example.com/v2/", true, true},
	} {
		u, _ := url.Parse(tc.url)
		g := newRegistryGuard(u.Host, &PullOptions{PlainHTTP: tc.plain})
		g.inner = imageRoundTripper{}
		_, err := g.RoundTrip((&http.Request{Method: "GET", URL: u, Header: http.Header{}}))
		if (err == nil) != tc.want {
			t.Errorf("%s, PlainHTTP %v: %v", tc.url, tc.plain, err)
		}
	}
	// A public registry must not send us into the private network; by name neither.
	g := newRegistryGuard("registry.example.com", &PullOptions{})
	for _, addr := range []string{"127.0.0.1:1", "localhost:1", "169.254.169.254:80", "10.0.0.1:1", "[::1]:1"} {
		c, err := g.dial(context.Background(), "tcp", addr)
		if c != nil {
			c.Close()
		}
		if !errors.Is(err, errBlockedAddress) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for addr, want := range map[string]bool{"8.8.8.8": false, "192.168.1.1": true, "::ffff:10.0.0.1": true, "fe80::1": true, "0.0.0.0": true, "fd00::1": true} {
		if got := isPrivate(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is private: %v", addr, got)
		}
	}
}

type imageRoundTripper struct{}

func (imageRoundTripper) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{}, nil
}
