package container

import (
	"errors"
	"fmt"
	"net/netip"
)

// This file says which addresses of a subnet can be given out, and in which order. It is pure; the leases are in network_store_lease.go.

var (
	// ErrPoolExhausted is returned when all addresses of a subnet are taken.
	ErrPoolExhausted = errors.New("no address of the subnet is free")

	// ErrAddressInUse is returned when an address is asked for that another container has, or the bridge.
	ErrAddressInUse = errors.New("the address is in use")

	// ErrMACInUse is returned when a hardware address is asked for that another container on the same bridge or Parent has, or these themselves.
	ErrMACInUse = errors.New("the hardware address is in use")
)

// AllocateIP returns the lowest address of a subnet that can be a host's and is not among those in use. Never given out are
// the addresses of the network and of broadcasts, for IPv6 that of all routers, and the one that the prefix is written with if that is
// not the network's: 10.1.0.1 of "10.1.0.1/24". In a /31 and a /127 both addresses are hosts', as RFC 3021 and 6164
// have it. It returns ErrPoolExhausted if there is none. Nothing is remembered: containers on a bridge get leases, which are.
func AllocateIP(subnet netip.Prefix, used []netip.Addr) (netip.Addr, error) {
	pool, err := newAddressPool(subnet)
	if err != nil {
		return netip.Addr{}, err
	}
	taken := make(map[netip.Addr]bool, len(used)+1)
	for _, a := range used {
		taken[a.Unmap().WithZone("")] = true
	}
	if own := subnet.Addr(); pool.contains(own) && own != subnet.Masked().Addr() {
		taken[own] = true
	}
	a := pool.first
	for range len(taken) + 1 { // more cannot be in the way
		if !taken[a] {
			return a, nil
		}
		if a = pool.next(a); a == pool.first {
			break
		}
	}
	return netip.Addr{}, &Error{Op: "allocate address", Path: subnet.String(), Err: ErrPoolExhausted, Remedy: "use a larger subnet"}
}

// addressPool is what can be given out of a subnet: all from first to last.
type addressPool struct{ first, last netip.Addr }

func newAddressPool(subnet netip.Prefix) (addressPool, error) {
	if !subnet.IsValid() || subnet.Addr().Is4In6() {
		return addressPool{}, &Error{Op: "allocate address", Path: subnet.String(), Err: fmt.Errorf("%w: not a subnet", ErrInvalidConfig), Remedy: `write it as "10.1.0.0/16" or "fd00:1::/64"`}
	}
	p := addressPool{subnet.Masked().Addr(), lastAddr(subnet)}
	if subnet.Addr().BitLen()-subnet.Bits() >= 2 {
		p.first = p.first.Next()
		if p.last.Is4() {
			p.last = p.last.Prev()
		}
	}
	return p, nil
}

// lastAddr is the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// contains tells whether the address can be given out.
func (p addressPool) contains(a netip.Addr) bool {
	return a.BitLen() == p.first.BitLen() && a.Zone() == "" && p.first.Compare(a) <= 0 && a.Compare(p.last) <= 0
}

// next is the address after another; after the last comes the first.
func (p addressPool) next(a netip.Addr) netip.Addr {
	if !p.contains(a) || a == p.last {
		return p.first
	}
	return a.Next()
}
