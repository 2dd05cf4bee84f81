package container

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// This file reads port mappings as people write them, and as nobody should.

func TestParsePortMapping(t *testing.T) {
	ip := netip.MustParseAddr
	for text, want := range map[string]PortMapping{
		"80":                            {ContainerPort: 80, Protocol: "tcp"},
		"80/UDP":                        {ContainerPort: 80, Protocol: "udp"},
		"8080:80":                       {HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
		":80":                           {ContainerPort: 80, Protocol: "tcp"},
		"127.0.0.1:8080:80":             {HostIP: ip("127.0.0.1"), HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
		"0.0.0.0:8080:80":               {HostIP: ip("0.0.0.0"), HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
		"192.0.2.1::53/udp":             {HostIP: ip("192.0.2.1"), ContainerPort: 53, Protocol: "udp"},
		"[::1]:8080:80/sctp":            {HostIP: ip("::1"), HostPort: 8080, ContainerPort: 80, Protocol: "sctp"},
		"[::ffff:192.0.2.1]:1:2":        {HostIP: ip("192.0.2.1"), HostPort: 1, ContainerPort: 2, Protocol: "tcp"},
		"[2001:db8::1]::80":             {HostIP: ip("2001:db8::1"), ContainerPort: 80, Protocol: "tcp"},
		"8000-8010:9000-9010":           {HostPort: 8000, ContainerPort: 9000, Count: 11, Protocol: "tcp"},
		"[::]:1-65535:1-65535/udp":      {HostIP: ip("::"), HostPort: 1, ContainerPort: 1, Count: 65535, Protocol: "udp"},
		"80-90":                         {ContainerPort: 80, Count: 11, Protocol: "tcp"},
		"1.2.3.4::80-90":                {HostIP: ip("1.2.3.4"), ContainerPort: 80, Count: 11, Protocol: "tcp"},
		"80-80:81-81":                   {HostPort: 80, ContainerPort: 81, Protocol: "tcp"},
		"/run/web.sock:80":              {HostSocket: "/run/web.sock", ContainerPort: 80, Protocol: "tcp"},
		"/run/a:b:80":                   {HostSocket: "/run/a:b", ContainerPort: 80, Protocol: "tcp"},
		"8080:/run/web.sock":            {HostPort: 8080, ContainerSocket: "/run/web.sock"},
		"[::1]:8080:/run/web.sock":      {HostIP: ip("::1"), HostPort: 8080, ContainerSocket: "/run/web.sock"},
		"127.0.0.1::/run/web.sock":      {HostIP: ip("127.0.0.1"), ContainerSocket: "/run/web.sock"},
		"/run/web.sock:/run/inner.sock": {HostSocket: "/run/web.sock", ContainerSocket: "/run/inner.sock"},
	} {
		got, err := ParsePortMapping(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{
		"", ":", "0", "80:", "0:80", "80:0", "65536", "-1", "+80", " 80", "80 ", "8e1", "80/", "80/icmp", "80/tcp/udp", "a:80", "localhost:80:80", "256.0.0.1:80:80", "::1:80:80", "[127.0.0.1]:80:80",
		"[::1:80:80", "::1]:80:80", "[::1]80:80", "[fe80::1%eth0]:80:80", "80:80-90", "80-90:80", "90-80:90-80", "65530-65535:65535-65540", "0-10:0-10", "1-65536:1-65536",
		"224.0.0.1:80:80", "[ff02::1]:80:80", "255.255.255.255:80:80", "/run/x", "/run/../x:80", "/:", "//x:80", "80:/run/x/../y", "/run/x:80-90", "80-90:/run/x", "/run/x:80/udp", "/" + strings.Repeat("x", 107) + ":80", "/run/\x00:80", "/run/\n:80", "1:2:3:4", "\xff",
	} {
		got, err := ParsePortMapping(bad)
		var f *FieldError
		if !errors.As(err, &f) || !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func TestPortMappingsFromStrings(t *testing.T) {
	for list, wrong := range map[string]string{
		"8080:80 8081:80":                           "",
		"80 80 80":                                  "",
		"8080:80 8080:80/udp":                       "",
		"8080:80 8080:81":                           "PortMappings[1]",
		"127.0.0.1:8080:80 127.0.0.2:8080:80":       "",
		"127.0.0.1:8080:80 [::1]:8080:80":           "",
		"127.0.0.1:8080:80 8080:80":                 "PortMappings[1]",
		"0.0.0.0:8080:80 127.0.0.1:8080:80":         "PortMappings[1]",
		"0.0.0.0:8080:80 [::]:8080:80":              "",
		"[::]:8080:80 [::1]:8080:80":                "PortMappings[1]",
		"8000-8010:80-90 8010:1":                    "PortMappings[1]",
		"8000-8010:80-90 8011:1 7999:1":             "",
		"8005:1 9000:1 8000-8010:80-90":             "PortMappings[2]",
		"/run/a:80 /run/a:81":                       "PortMappings[1]",
		"/run/a:80 /run/b:80":                       "",
		"x 8080:80 y":                               "PortMappings[2]",
		"1-65535:1-65535 1-65535:1-65535/udp 500:5": "PortMappings[2]",
	} {
		words := strings.Fields(list)
		all, err := PortMappingsFromStrings(words)
		if wrong == "" && (err != nil || len(all) != len(words)) || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%s: %v, %v", list, all, err)
		}
	}
	if all, err := PortMappingsFromStrings(nil); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	many := make([]string, 10000)
	for i := range many {
		many[i] = fmt.Sprintf("%d:80", 1000+i)
	}
	if _, err := PortMappingsFromStrings(many); err != nil {
		t.Error(err)
	}
}

// FuzzParsePortMapping: what can be read is valid, and is read again from what it prints.
func FuzzParsePortMapping(f *testing.F) {
	for _, s := range []string{"80", "127.0.0.1:8080:80/tcp", "[::1]::80", "8000-8010:80-90/udp", "/run/x:80", "80:/run/x", "/a:/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParsePortMapping(s)
		if err != nil {
			return
		}
		if err := m.check(); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		again, err := ParsePortMapping(m.String())
		again.Protocol, m.Protocol = again.protocol(), m.protocol()
		if err != nil || again != m {
			t.Fatalf("%q: %+v, then by %q %+v, %v", s, m, m.String(), again, err)
		}
		if !m.overlaps(m) && m.HostPort != 0 {
			t.Fatalf("%q does not overlap itself", s)
		}
	})
}
