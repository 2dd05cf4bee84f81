//go:build linux

package container

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// This file watches what a pull sends, and to whom. A registry steers its clients: it names the
// server that gives out tokens, redirects to where blobs are, and so could collect credentials
// (CVE-2019-10214, CVE-2020-15157) or have the client ask around in its own network. The guard stands
// below everything else, at the last place before the network, and sees every request.

var (
	errPlainHTTP      = errors.New("refusing to use http without encryption")
	errBlockedAddress = errors.New("refusing to be sent to a private address by a registry that has a public one")
)

// registryGuard is the http.RoundTripper of one pull.
type registryGuard struct {
	host      string   // of the registry, with its port if it has one
	authHosts []string // that may see credentials besides it
	plainHTTP bool
	inner     http.RoundTripper

	mu      sync.Mutex
	private bool            // the registry itself has a private address
	proxies map[string]bool // host:port of proxies; the user has chosen them
}

func newRegistryGuard(host string, opt *PullOptions) *registryGuard {
	return &registryGuard{host: host, authHosts: opt.AuthHosts, plainHTTP: opt.PlainHTTP, proxies: map[string]bool{}}
}

// transport returns a new transport whose connections the guard watches.
func (g *registryGuard) transport() *http.Transport {
	return &http.Transport{
		Proxy:                 g.proxy,
		DialContext:           g.dial,
		ForceAttemptHTTP2:     true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		ReadBufferSize:        64 << 10,
		DisableCompression:    true,
	}
}

// RoundTrip lets a request pass if it may.
func (g *registryGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.plainHTTP && !isLoopback(req.URL.Hostname()) {
		return nil, fmt.Errorf("%w to %s", errPlainHTTP, req.URL.Host)
	}
	if req.URL.Host != g.host {
		auth := req.Header.Get("Authorization")
		switch {
		case auth == "" && req.Method == http.MethodGet:
		case g.mayAuthenticate(req.URL.Hostname()):
		case strings.HasPrefix(auth, "Bearer ") && req.Method == http.MethodGet:
			// A token that another host has given out for itself; or ours, on its way to a wrong place. Do without.
			req = req.Clone(req.Context())
			req.Header.Del("Authorization")
		default:
			return nil, remedy(fmt.Errorf("%w: %s wants the credentials to be sent to %s", ErrUnauthorized, g.host, req.URL.Host),
				"if that host is the registry's token server, name it in AuthHosts")
		}
	}
	return g.inner.RoundTrip(req)
}

// mayAuthenticate tells whether a host may see the credentials: the registry's own, one below or above it in the
// name system, one that the caller named, or Docker's.
func (g *registryGuard) mayAuthenticate(host string) bool {
	own := g.host
	if h, _, err := net.SplitHostPort(own); err == nil {
		own = h
	}
	if slices.Contains(g.authHosts, host) {
		return true
	}
	if own == "index.docker.io" && host == "auth.docker.io" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return false // an address, or a name like "localhost": only the very same host and port
	}
	return host == own || strings.HasSuffix(host, "."+own) || strings.HasSuffix(own, "."+host)
}

// proxy finds the proxy as http.ProxyFromEnvironment does, and remembers it.
func (g *registryGuard) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if u != nil {
		g.mu.Lock()
		g.proxies[u.Hostname()] = true
		g.mu.Unlock()
	}
	return u, err
}

// dial connects. Where the registry has sent us, rather than the user, must not be in the
// private network, unless the registry is there itself. The address is looked at after names have been
// resolved.
func (g *registryGuard) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	registry := g.host
	if h, _, err := net.SplitHostPort(registry); err == nil {
		registry = h
	}
	g.mu.Lock()
	chosen := host == strings.Trim(registry, "[]") || g.proxies[host]
	private := g.private
	g.mu.Unlock()
	d := net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !isPrivate(ap.Addr()) {
			return nil
		}
		if chosen {
			g.mu.Lock()
			g.private = true
			g.mu.Unlock()
			return nil
		}
		if !private || isMetadata(ap.Addr()) {
			return fmt.Errorf("%w: %s is %s", errBlockedAddress, host, ap.Addr())
		}
		return nil
	}
	return d.DialContext(ctx, network, addr)
}

// patientTransport repeats requests without a body that failed for reasons that pass.
type patientTransport struct {
	inner http.RoundTripper
	log   *slog.Logger
}

func (t *patientTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	const attempts = 4
	pause := 100 * time.Millisecond
	for try := 1; ; try++ {
		resp, err := t.inner.RoundTrip(req)
		if try == attempts || (req.Body != nil && req.Body != http.NoBody) || req.Context().Err() != nil {
			return resp, err
		}
		wait := pause
		switch {
		case err != nil:
			if !passes(err) {
				return resp, err
			}
		case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable:
			after, ok := retryAfter(resp)
			if after > maxRetryAfter {
				return resp, nil
			}
			if ok {
				wait = after
			}
		case resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusInternalServerError,
			resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusGatewayTimeout:
		default:
			return resp, nil
		}
		if resp != nil {
			t.log.Warn("registry is asked again", "host", req.URL.Host, "status", resp.StatusCode, "pause", wait)
			io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
			resp.Body.Close()
		} else {
			t.log.Warn("registry is asked again", "host", req.URL.Host, "error", err, "pause", wait)
		}
		select {
		case <-req.Context().Done():
			return nil, context.Cause(req.Context())
		case <-time.After(wait):
		}
		pause *= 3
	}
}

// passes tells whether an error of the network may be gone the next time.
func passes(err error) bool {
	var timeout net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		(errors.As(err, &timeout) && timeout.Timeout()) ||
		strings.Contains(err.Error(), "http2: server sent GOAWAY") // has no type that could be asked for
}

// retryAfter reads the header of that name, in seconds or as a date.
func retryAfter(resp *http.Response) (time.Duration, bool) {
	v := resp.Header.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s >= 0 {
		return time.Duration(s) * time.Second, true
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(time.Until(t), 0), true
	}
	return 0, false
}
