package container

import (
	"errors"
	"net/netip"
	"testing"
)

// This file allocates addresses out of subnets of all sizes.

func TestAllocateIP(t *testing.T) {
	used := func(list ...string) (all []netip.Addr) {
		for _, a := range list {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	for _, c := range []struct {
		subnet string
		used   []netip.Addr
		want   string
	}{
		{"10.1.0.0/24", nil, "10.1.0.1"},
		{"10.1.0.0/24", used("10.1.0.1", "10.1.0.3"), "10.1.0.2"},
		{"10.1.0.1/24", nil, "10.1.0.2"},
		{"10.1.0.254/24", used("10.1.0.1"), "10.1.0.2"},
		{"10.1.0.0/30", used("10.1.0.1"), "10.1.0.2"},
		{"10.1.0.0/30", used("10.1.0.1", "10.1.0.2"), ""},
		{"10.1.0.0/30", used("::ffff:10.1.0.1"), "10.1.0.2"},
		{"10.1.0.0/31", nil, "10.1.0.0"},
		{"10.1.0.0/31", used("10.1.0.0"), "10.1.0.1"},
		{"10.1.0.0/31", used("10.1.0.0", "10.1.0.1"), ""},
		{"10.1.0.7/32", nil, "10.1.0.7"},
		{"10.1.0.7/32", used("10.1.0.7"), ""},
		{"0.0.0.0/0", nil, "0.0.0.1"},
		{"255.255.255.0/24", used("255.255.255.1"), "255.255.255.2"},
		{"255.255.255.254/31", used("255.255.255.254"), "255.255.255.255"},
		{"fd00:1::/64", nil, "fd00:1::1"},
		{"fd00:1::1/64", used("fd00:1::2"), "fd00:1::3"},
		{"::/0", nil, "::1"},
		{"fd00::/8", used("fd00::1"), "fd00::2"},
		{"fd00:1::/127", nil, "fd00:1::"},
		{"fd00:1::/127", used("fd00:1::"), "fd00:1::1"},
		{"fd00:1::/126", used("fd00:1::1", "fd00:1::2"), "fd00:1::3"},
		{"fd00:1::/126", used("fd00:1::1", "fd00:1::2", "fd00:1::3"), ""},
		{"fd00:1::5/128", nil, "fd00:1::5"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", nil, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	} {
		got, err := AllocateIP(netip.MustParsePrefix(c.subnet), c.used)
		if c.want == "" {
			if !errors.Is(err, ErrPoolExhausted) {
				t.Errorf("%s without %v: %v, %v", c.subnet, c.used, got, err)
			}
		} else if err != nil || got != netip.MustParseAddr(c.want) {
			t.Errorf("%s without %v: %v, %v; want %s", c.subnet, c.used, got, err, c.want)
		}
	}
	for _, bad := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)} {
		if got, err := AllocateIP(bad, nil); !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%v: %v, %v", bad, got, err)
		}
	}
}

// TestAllocateIPAll takes all of a subnet, one by one.
func TestAllocateIPAll(t *testing.T) {
	for subnet, want := range map[string]int{"10.0.0.0/22": 1022, "10.0.0.0/29": 6, "fd00::/120": 255, "fd00::/127": 2, "10.0.0.0/32": 1} {
		p := netip.MustParsePrefix(subnet)
		var used []netip.Addr
		for {
			a, err := AllocateIP(p, used)
			if err != nil {
				if !errors.Is(err, ErrPoolExhausted) {
					t.Fatal(err)
				}
				break
			}
			if !p.Contains(a) {
				t.Fatalf("%v is not in %v", a, p)
			}
			used = append(used, a)
		}
		if len(used) != want {
			t.Errorf("%s has %d addresses, want %d", subnet, len(used), want)
		}
	}
}
