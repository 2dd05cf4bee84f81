package container_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"example.com/container"
)

// A build may fetch modules, and nothing else.
func ExampleNetworkConfig_egress() {
	cfg := container.DefaultConfig()
	cfg.Network = &container.NetworkConfig{
		Mode:        container.NetworkModeEgress,
		EgressAllow: []string{"example.com:443", "*.example.org:443", "git.example.net:22"},
		OnEgress: func(e container.EgressEvent) {
			if e.Err != nil {
				fmt.Printf("%s %s %v: %v\n", e.Network, e.Addr, e.Names, e.Err)
			}
		},
	}
	_ = cfg
}

func ExampleParseEgressRule() {
	for _, text := range []string{"Example.com.:443", "*.example.com", "udp:[2001:db8::53]:53", "10.0.0.0/8:80-90", "127.0.0.1:5432"} {
		rule, err := container.ParseEgressRule(text)
		if err != nil {
			var wrong *container.FieldError
			fmt.Println("wrong:", errors.As(err, &wrong))
			continue
		}
		fmt.Println(rule)
	}
	// Output:
	// example.com:443
	// *.example.com
	// udp:[2001:db8::53]:53
	// 10.0.0.0/8:80-90
	// wrong: true
}

func ExampleAllowEgress() {
	policy, err := container.AllowEgress("example.com:443", "192.0.2.0/24")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range []container.EgressRequest{
		{Network: "dns", Names: []string{"example.com"}},
		{Network: "dns", Names: []string{"example.org"}},
		{Network: "tcp", Addr: netip.MustParseAddrPort("192.0.2.7:22")},
		{Network: "udp", Addr: netip.MustParseAddrPort("192.0.2.7:53")},
	} {
		d, err := policy(context.Background(), r)
		fmt.Println(r.Network, r.Names, d.Allow, err)
	}
	// Output:
	// dns [example.com] true <nil>
	// dns [example.org] false <nil>
	// tcp [] true <nil>
	// udp [] false <nil>
}

// A policy of one's own, around a list: what the list does not allow is asked about, and reasons are given.
func ExampleEgressPolicy() {
	list, err := container.AllowEgress("*.example.com:443")
	if err != nil {
		fmt.Println(err)
		return
	}
	policy := func(ctx context.Context, r container.EgressRequest) (container.EgressDecision, error) {
		if d, err := list(ctx, r); d.Allow || err != nil {
			return d, err
		}
		if r.Network == "udp" {
			return container.EgressDecision{}, errors.New("no UDP here")
		}
		// The database of the test stands in for that of production. Who looks at names must look at the address as well: a name can
		// lead anywhere, also to private addresses.
		if r.Network == "tcp" && r.Addr.Port() == 5432 {
			return container.EgressDecision{Allow: true, Addr: netip.MustParseAddrPort("10.20.0.5:5432")}, nil
		}
		// Names can be asked for; that opens no address.
		internal := r.Network == "dns" && strings.HasSuffix(r.Names[0], ".corp.example")
		return container.EgressDecision{Allow: internal}, nil
	}
	cfg := container.DefaultConfig()
	cfg.Network = &container.NetworkConfig{Mode: container.NetworkModeEgress, Egress: policy}

	d, err := policy(context.Background(), container.EgressRequest{Network: "tcp", Addr: netip.MustParseAddrPort("192.0.2.1:5432")})
	fmt.Println(d.Allow, d.Addr, err)
	// Output:
	// true 10.20.0.5:5432 <nil>
}
