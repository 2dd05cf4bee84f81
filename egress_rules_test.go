//go:build linux

package container

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestEgressParse(t *testing.T) {
	for text, want := range map[string]string{
		"example.com":                  "",
		"Example.COM.":                 "example.com",
		"example.com:443":              "",
		"tcp:example.com:443":          "example.com:443",
		"*.example.com:80-90":          "",
		"example.com:80-80":            "example.com:80",
		"*":                            "",
		"*:443":                        "",
		"udp:*:53":                     "",
		"xn--bcher-kva.example":        "",
		"_dmarc.example.com":           "",
		"localhost":                    "",
		"192.0.2.1":                    "",
		"192.0.2.1/32":                 "192.0.2.1",
		"192.0.2.0/24:80-90":           "",
		"0.0.0.0/0":                    "",
		"10.0.0.0/8:5432":              "",
		"[2001:db8::1]:443":            "",
		"udp:[2001:db8::1]:53":         "",
		"2001:db8::1":                  "[2001:db8::1]",
		"2001:db8::/32":                "[2001:db8::/32]",
		"[2001:db8::/32]:443":          "",
		"::/0":                         "[::/0]",
		"fd00::/8":                     "[fd00::/8]",
		strings.Repeat("a", 63) + ".b": "",
	} {
		if want == "" {
			want = text
		}
		r, err := ParseEgressRule(text)
		if err != nil || r.String() != want {
			t.Errorf("%q: %q, %v", text, r, err)
			continue
		}
		if again, err := ParseEgressRule(r.String()); err != nil || again.String() != r.String() {
			t.Errorf("%q again: %q, %v", r, again, err)
		}
	}
}

func TestEgressParseWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                    "either a name",
		".":                   "1 to 63",
		"example..com":        "1 to 63",
		":443":                "either a name",
		"udp:":                "either a name",
		"example.com:":        "port",
		"example.com:0":       "port",
		"example.com:65536":   "port",
		"example.com:+80":     "port",
		"example.com:90-80":   "port",
		"example.com:http":    "port",
		"example.com:80-":     "port",
		"a*.example.com":      "whole first part",
		"a.*.example.com":     "whole first part",
		"*.*.example.com":     "whole first part",
		"bücher.example":      "xn--",
		"ａ.example":           "xn--",
		"exa mple.com":        "cannot be",
		"example.com\n":       "cannot be",
		"https://example.com": "port",
		"user@example.com":    "cannot be",
		"10.1":                "not an address",
		"127.1":               "not an address",
		"0x7f.1":              "not an address",
		"0x7f000001":          "not an address",
		"2130706433":          "not an address",
		"1.2.3.4.5":           "not an address",
		"1.2.3.08":            "not an address",
		"*.1":                 "not an address",
		"192.0.2.1/24":        "write 192.0.2.0/24",
		"192.0.2.0/33":        "not a network",
		"2001:db8::/32:443":   "not a network",
		"2001:db8::1:443:x":   "not an address",
		"[2001:db8::1":        "no ]",
		"[2001:db8::1]443":    "a port only",
		"[2001:db8::]/32":     "a port only",
		"[192.0.2.1]:80":      "IPv6",
		"[example.com]:80":    "IPv6",
		"fe80::1%eth0":        "links",
		"::ffff:192.0.2.1":    "IPv4 address itself",
		"sctp:example.com":    "port",
		"127.0.0.1:5432":      "Special",
		"127.0.0.0/8":         "Special",
		"169.254.169.254":     "Special",
		"169.254.0.0/16":      "Special",
		"100.100.100.200":     "Special",
		"::1":                 "Special",
		"fe80::/10":           "Special",
		"224.0.0.1":           "Special",
		"0.0.0.0":             "Special",
		"::":                  "Special",
		"64:ff9b::7f00:1":     "Special",
		"2002:7f00:1::1":      "Special",
		"255.255.255.255":     "Special",

		strings.Repeat("a", 64) + ".example":   "1 to 63",
		strings.Repeat("abcdefg.", 40) + "com": "longer than 253",
	} {
		r, err := ParseEgressRule(text)
		var field *FieldError
		if !errors.As(err, &field) || !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, r, err, want)
		}
	}
	_, err := AllowEgress("example.com", "127.0.0.1", "x:0")
	if err == nil || !strings.Contains(err.Error(), "EgressAllow[1]") || !strings.Contains(err.Error(), "EgressAllow[2]") {
		t.Error(err)
	}
}

func TestEgressMatch(t *testing.T) {
	to := func(addr string, names ...string) EgressRequest {
		network, addr, _ := strings.Cut(addr, " ")
		return EgressRequest{Network: network, Addr: netip.MustParseAddrPort(addr), Names: names}
	}
	name := func(n string) EgressRequest { return EgressRequest{Network: "dns", Names: []string{n}} }
	for _, test := range []struct {
		rule string
		q    EgressRequest
		want bool
	}{
		{"example.com", name("example.com"), true},
		{"example.com:443", name("example.com"), true},
		{"udp:example.com:443", name("example.com"), true},
		{"example.com", name("www.example.com"), false},
		{"example.com", name("notexample.com"), false},
		{"*.example.com", name("example.com"), false},
		{"*.example.com", name("a.example.com"), true},
		{"*.example.com", name("a.b.example.com"), true},
		{"*.example.com", name("aexample.com"), false},
		{"*.example.com", name(".example.com"), false},
		{"*", name("anything"), true},
		{"192.0.2.1", name("example.com"), false},
		{"0.0.0.0/0", name("example.com"), false},

		{"example.com:443", to("tcp 93.184.216.34:443", "example.com"), true},
		{"example.com:443", to("tcp 93.184.216.34:443", "other.example", "example.com"), true},
		{"example.com:443", to("tcp 93.184.216.34:80", "example.com"), false},
		{"example.com:443", to("tcp 93.184.216.34:443", "other.example"), false},
		{"example.com:443", to("tcp 93.184.216.34:443"), false},
		{"example.com:443", to("udp 93.184.216.34:443", "example.com"), false},
		{"udp:example.com:443", to("udp 93.184.216.34:443", "example.com"), true},
		{"udp:example.com:443", to("tcp 93.184.216.34:443", "example.com"), false},
		{"example.com:80-90", to("tcp 93.184.216.34:79", "example.com"), false},
		{"example.com:80-90", to("tcp 93.184.216.34:80", "example.com"), true},
		{"example.com:80-90", to("tcp 93.184.216.34:90", "example.com"), true},
		{"example.com:80-90", to("tcp 93.184.216.34:91", "example.com"), false},

		// Whatever a name resolves to, it opens nothing private.
		{"*", to("tcp 10.0.0.1:80", "example.com"), false},
		{"*", to("tcp 172.31.255.1:80", "example.com"), false},
		{"*", to("tcp 192.168.0.1:80", "example.com"), false},
		{"*", to("tcp 100.64.0.1:80", "example.com"), false},
		{"*", to("tcp [fd00::1]:80", "example.com"), false},
		{"*", to("tcp [::ffff:10.0.0.1]:80", "example.com"), false},
		{"*", to("tcp [64:ff9b::10.0.0.1]:80", "example.com"), false},
		{"*", to("tcp [64:ff9b:1::1]:80", "example.com"), false},
		{"*", to("tcp [2002:a00:1::1]:80", "example.com"), false},
		{"*", to("tcp [2001:0:1:2:3:4:f5ff:fffe]:80", "example.com"), false}, // Teredo of 10.0.0.1
		{"*", to("tcp [64:ff9b::93.184.216.34]:80", "example.com"), true},
		{"*", to("tcp [2606:2800::1]:80", "example.com"), true},

		{"10.0.0.0/8:5432", to("tcp 10.0.0.1:5432"), true},
		{"10.0.0.0/8:5432", to("tcp 10.0.0.1:5432", "db.example"), true},
		{"10.0.0.0/8:5432", to("tcp [::ffff:10.0.0.1]:5432"), true},
		{"10.0.0.0/8:5432", to("tcp 11.0.0.1:5432"), false},
		{"0.0.0.0/0", to("tcp [2606:2800::1]:80"), false},
		{"::/0", to("tcp [2606:2800::1]:80"), true},
		{"::/0", to("tcp 10.0.0.1:80"), false},
	} {
		r, err := ParseEgressRule(test.rule)
		if err != nil {
			t.Error(err)
		}
		if got := r.allows(test.q); got != test.want {
			t.Errorf("%s for %v: %v", r, test.q, got)
		}
	}
}

// FuzzEgressRule: what can be read can be written, means the same then, and opens nothing special.
func FuzzEgressRule(f *testing.F) {
	for _, s := range []string{"example.com", "*.example.com:80-90", "udp:[2001:db8::1]:53", "192.0.2.0/24", "[::/0]:1-65535", "0x7f.1", "::ffff:1.2.3.4"} {
		f.Add(s, []byte{127, 0, 0, 1})
	}
	f.Fuzz(func(t *testing.T, s string, addr []byte) {
		r, err := ParseEgressRule(s)
		if err != nil {
			if !errors.Is(err, ErrInvalidConfig) {
				t.Error(err)
			}
			return
		}
		again, err := ParseEgressRule(r.String())
		if err != nil || again.String() != r.String() {
			t.Errorf("%q is written %q, and read %q, %v", s, r, again, err)
		}
		a, ok := netip.AddrFromSlice(addr)
		if !ok {
			return
		}
		q := EgressRequest{Network: "tcp", Addr: netip.AddrPortFrom(a, 80), Names: []string{"a.example.com"}}
		if r.allows(q) != again.allows(q) && r.Network != "udp" {
			t.Errorf("%q and %q differ on %v", r, again, q)
		}
		j := newEgressJudge("x", &NetworkConfig{EgressAllow: []string{s}}, quietLog())
		if d, err := j.decide(t.Context(), q); err == nil && (!d.Allow || specialAddress(a.Unmap()) != "") {
			t.Errorf("%q opens %s: %+v", s, a, d)
		}
	})
}
