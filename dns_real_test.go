//go:build linux

package container

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// This file asks the name server with the programs that people use, and has it ask a real one.

// output runs a program of the host, and returns what it writes.
func programOutput(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, testenv.LookPath(name), args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s: %v\n", name, err) + string(out)
	}
	return string(out)
}

// loUp brings the loopback device of a new network namespace up.
func loUp(t *testing.T) {
	t.Helper()
	if out := programOutput(t, "ip", "link", "set", "lo", "up"); out != "" {
		t.Fatal(out)
	}
}

// startDNSMasq runs dnsmasq on a port of 127.0.0.1 until the end of the test.
func startDNSMasq(t *testing.T, port string, args ...string) netip.AddrPort {
	t.Helper()
	cmd := exec.Command(testenv.LookPath("dnsmasq"), append([]string{"--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts", "--bind-interfaces",
		"--listen-address=127.0.0.1", "--port=" + port, "--local-ttl=300", "--local=/example.test/"}, args...)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "dnsmasq.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("dnsmasq:\n%s", text)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			return netip.MustParseAddrPort("127.0.0.1:" + port)
		}
		if time.Now().After(deadline) {
			t.Fatal("dnsmasq does not answer")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// testRecords are the names of the real server.
func testRecords() []string {
	return []string{
		"--host-record=www.example.test,192.0.2.10,2001:db8::10",
		"--cname=alias.example.test,www.example.test",
		"--txt-record=big.example.test," + strings.Join(slices.Repeat([]string{strings.Repeat("x", 250)}, 30), ","),
		"--txt-record=small.example.test,hello",
		"--mx-host=www.example.test,mail.example.test,10",
		"--srv-host=_http._tcp.example.test,www.example.test,80",
		"--dns-rr=svc.example.test,65,00010000040004c000020b",
		"--host-record=inside.example.test,10.0.0.1",
		"--host-record=rebind.example.test,127.0.0.1",
		"--host-record=meta.example.test,169.254.169.254",
		"--address=/wild.example.test/192.0.2.77",
		"--ptr-record=10.2.0.192.in-addr.arpa,www.example.test",
		"--host-record=other.test,192.0.2.99",
	}
}

func TestDNSReal(t *testing.T) {
	testenv.Need(t, testenv.Program("dnsmasq", "dnsmasq-base"), testenv.Program("dig", "bind9-dnsutils"), testenv.Program("ip", "iproute2"), testenv.Program("getent", "libc-bin"))
	inNamespaces(t, func(t *testing.T) {
		loUp(t)
		up := startDNSMasq(t, "5353", testRecords()...)
		j := judgeOf(nil, "*.example.test")
		s := newDNSServer(dnsOptions{allow: j.allowName, upstreams: func() []netip.AddrPort { return []netip.AddrPort{up} }, book: j.book})
		t.Cleanup(s.close)
		pc, err := net.ListenPacket("udp", "127.0.0.1:53")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:53")
		if err != nil {
			t.Fatal(err)
		}
		s.servePacket(pc)
		s.serveListener(l)

		dig := func(args ...string) string {
			return programOutput(t, "dig", append([]string{"@127.0.0.1", "+tries=1", "+time=30"}, args...)...)
		}
		for args, want := range map[string]string{
			"+short www.example.test A":                           "192.0.2.10\n",
			"+short WWW.Example.TEST. AAAA":                       "2001:db8::10\n",
			"+short +tcp www.example.test":                        "192.0.2.10\n",
			"+short +noedns www.example.test":                     "192.0.2.10\n",
			"+short +dnssec www.example.test":                     "192.0.2.10\n",
			"+short +norecurse www.example.test":                  "192.0.2.10\n",
			"+short alias.example.test A":                         "www.example.test.\n192.0.2.10\n",
			"+short www.example.test MX":                          "10 mail.example.test.\n",
			"+short _http._tcp.example.test SRV":                  "0 0 80 www.example.test.\n",
			"+short small.example.test TXT":                       "\"hello\"\n",
			"+short svc.example.test HTTPS":                       "1 . ipv4hint=192.0.2.11\n",
			"+short a.b.wild.example.test":                        "192.0.2.77\n",
			"+short rebind.example.test":                          "127.0.0.1\n",
			"+short inside.example.test":                          "10.0.0.1\n",
			"+short meta.example.test":                            "169.254.169.254\n",
			"+short localhost":                                    "127.0.0.1\n",
			"none.example.test":                                   "status: NXDOMAIN",
			"example.test":                                        "status: REFUSED", // *.example.test is what is below
			"other.test":                                          "EDE: 18 (Prohibited)",
			"-x 192.0.2.10":                                       "status: REFUSED",
			"version.bind CH TXT":                                 "status: REFUSED",
			"example.test AXFR +tcp":                              "Transfer failed",
			"www.example.test +opcode=notify":                     "status: NOTIMP",
			"www.example.test +edns=7 +noednsneg":                 "status: BADVERS",
			"+ignore big.example.test TXT":                        "flags: qr tc rd ra;",
			"+noedns +ignore big.example.test TXT":                "flags: qr tc rd ra;",
			"+tcp big.example.test TXT":                           strings.Repeat("\""+strings.Repeat("x", 250)+"\" ", 29),
			"big.example.test TXT":                                "Truncated, retrying in TCP mode",
			"+keepopen +tcp www.example.test a.wild.example.test": "192.0.2.77",
		} {
			if got := dig(strings.Fields(args)...); strings.HasSuffix(want, "\n") && got != want || !strings.Contains(got, want) {
				t.Errorf("dig %s: want %q, got:\n%s", args, want, got)
			}
		}
		for addr, want := range map[string]string{"192.0.2.10": "alias.example.test", "192.0.2.11": "svc.example.test", "192.0.2.77": "wild.example.test", "127.0.0.1": "rebind.example.test", "192.0.2.99": ""} {
			if got := strings.Join(j.book.names(netip.MustParseAddr(addr)), " "); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("names of %s: %s", addr, got)
			}
		}
		for addr, allowed := range map[string]bool{"192.0.2.10": true, "127.0.0.1": false, "10.0.0.1": false, "169.254.169.254": false, "192.0.2.99": false} {
			_, err := j.decide(t.Context(), EgressRequest{Network: "tcp", Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 443)})
			if (err == nil) != allowed {
				t.Errorf("%s: %v", addr, err)
			}
		}

		// The C library.
		conf := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\noptions timeout:30\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		mount(t, conf, "/etc/resolv.conf", "", unix.MS_BIND)
		if got := programOutput(t, "getent", "ahosts", "alias.example.test"); !strings.Contains(got, "192.0.2.10") || !strings.Contains(got, "2001:db8::10") {
			t.Errorf("getent: %s", got)
		}
		begin := time.Now()
		if got := programOutput(t, "getent", "ahosts", "other.test"); !strings.Contains(got, "exit status 2") || time.Since(begin) > 25*time.Second {
			t.Errorf("getent of a refused name, after %v: %s", time.Since(begin), got)
		}
		if got := hostUpstreams(); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}) {
			t.Errorf("upstreams of the host: %v", got)
		}
	}, "-n", "-m")
}

// The name server of a bridge, in a container, which may have a name server on all its addresses itself.
func TestDNSBridge(t *testing.T) {
	testenv.Need(t, testenv.Program("dnsmasq", "dnsmasq-base"), testenv.Program("dig", "bind9-dnsutils"), testenv.Program("ip", "iproute2"))
	inNamespaces(t, func(t *testing.T) {
		loUp(t)
		startDNSMasq(t, "53", testRecords()...)
		store := testNetworkStore(t)
		add := func(n int, bridge string, addrs []string, names ...string) *endpoint {
			e := ownEndpoint(n)
			e.Names, e.Network.Bridge = names, bridge
			if err := store.addEndpoint(e); err != nil { // before its leases
				t.Fatal(err)
			}
			for _, a := range addrs {
				p := netip.MustParsePrefix(a)
				if _, err := store.lease(bridge, p.Masked(), nil, p.Addr(), e.Key); err != nil {
					t.Fatal(err)
				}
				e.Network.Addresses = append(e.Network.Addresses, p)
			}
			if err := store.addEndpoint(e); err != nil {
				t.Fatal(err)
			}
			return e
		}
		web := add(1, "br", []string{"10.88.0.5/24", "fd00::5/64"}, "web1", "Web")
		add(2, "br", []string{"10.88.0.6/24"}, "web2", "web")
		add(3, "elsewhere", []string{"10.89.0.5/24"}, "secret")
		gone := add(4, "br", []string{"10.88.0.7/24"}, "gone")
		gone.Process.StartTime++
		if err := store.addEndpoint(gone); err != nil {
			t.Fatal(err)
		}

		cfg := DefaultConfig()
		cfg.Root = HostRoot
		c, err := New(t.TempDir(), "client", cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Destroy()
		script := `ask() { echo "$*: $(dig @127.0.0.11 +short +tries=1 +time=30 "$@" | sort | tr '\n' ' ')"; }
			ask web; ask WEB. AAAA; ask +tcp web2; ask -x 10.88.0.6; ask -x fd00::5; ask -x 10.88.0.7; ask gone; ask secret; ask www.example.test; ask alias.example.test; ask -x 192.0.2.10; ask other.test
			dnsmasq --no-daemon --conf-file=/dev/null --pid-file= --no-resolv --no-hosts --address=/own/192.0.2.1 2>/dev/null & own=$!
			for i in $(seq 300); do dig @127.0.0.1 +short +tries=1 +time=5 own | grep '^[0-9]' && break; sleep 0.1; done
			ask web1; kill $own`
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		out, stdout := pipe(t)
		p := &Process{Args: []string{"sh", "-c", script}, Stdout: stdout, Stderr: os.Stderr, Timeout: 2 * time.Minute}
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
		stdout.Close()
		netns, err := os.Open(namespacePath(c.Pid(), NetworkNamespace))
		if err != nil {
			t.Fatal(err)
		}
		defer netns.Close()
		s, err := startNameServer(netns, store, &Bridge{BridgeConfig: BridgeConfig{Name: "br"}}, &NetworkConfig{DNS: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		got := readAll(t, out)
		if err := c.Wait(); err != nil {
			t.Log(err) // of kill
		}
		wantText(t, got, `web: 10.88.0.5 10.88.0.6 
WEB. AAAA: fd00::5 
+tcp web2: 10.88.0.6 
-x 10.88.0.6: web2. 
-x fd00::5: web1. 
-x 10.88.0.7: 
gone: 
secret: 
www.example.test: 192.0.2.10 
alias.example.test: 192.0.2.10 www.example.test. 
-x 192.0.2.10: www.example.test. 
other.test: 192.0.2.99 
192.0.2.1
web1: 10.88.0.5 
`)
		if err := store.removeEndpoint(web.Key); err != nil {
			t.Fatal(err)
		}
	}, "-n", "-m")
}
