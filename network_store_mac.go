//go:build linux

package container

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
)

// This file leases hardware addresses, as network_store_lease.go does others: two containers on one bridge that have the same one would take
// each other's frames. It runs in the caller's process.

// leaseMAC gives a hardware address on a bridge or a wire to the endpoint with the key, which must be there. It returns ErrMACInUse; what belongs to
// nobody is collected before it does. An address that the endpoint has is leased to it again.
func (s *networkStore) leaseMAC(pool string, mac net.HardwareAddr, key string) error {
	err := s.tryLeaseMAC(pool, mac.String(), key)
	if errors.Is(err, ErrMACInUse) {
		if cerr := s.collect(); cerr != nil {
			return errors.Join(err, cerr)
		}
		err = s.tryLeaseMAC(pool, mac.String(), key)
	}
	return err
}

func (s *networkStore) tryLeaseMAC(pool, mac, key string) error {
	fail := func(err error) error { return lockFailed("lease hardware address", mac, err) }
	if _, err := s.endpoint(key); err != nil {
		return fail(err) // collect would take the lease for nobody's
	}
	lock, err := lockPool(s.ctx, s.poolPath(pool), netip.IPv4Unspecified())
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	switch holder, err := leaseHolder(s.poolPath(pool) + "/" + mac); {
	case err != nil:
		return fail(err)
	case holder == key:
		return nil
	case holder != "":
		remedy := "leave NetworkConfig.MAC empty for one that is free"
		if e, err := s.endpoint(holder); err == nil && e.ID != "" {
			remedy = "the container " + e.ID + " has it; " + remedy
		}
		return &Error{Op: "lease hardware address", Path: mac, Err: ErrMACInUse, Remedy: remedy}
	}
	if err := s.take(pool, mac, key); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = ErrMACInUse
		}
		return fail(err)
	}
	return nil
}

// leaseFamily is the name of the lock that a lease is made and freed under; empty if a file is no lease.
func leaseFamily(name string) string {
	if a, err := netip.ParseAddr(name); err == nil {
		if a.Is4() {
			return "4"
		}
		return "6"
	}
	if _, err := net.ParseMAC(name); err == nil {
		return "4"
	}
	return ""
}
