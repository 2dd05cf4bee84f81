//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// This file leases addresses: each to one endpoint, of all callers that share the store. It runs in the caller's process.

// poolPath is the directory of a pool.
func (s *networkStore) poolPath(pool string) string { return s.path("pools", escapeRef(pool)) }

// lockPool takes the lock of one family in a pool's directory, which is made if it is missing.
func lockPool(ctx context.Context, dir string, a netip.Addr) (*os.File, error) {
	return lockFamily(ctx, dir, leaseFamily(a.String()))
}

func lockFamily(ctx context.Context, dir, name string) (*os.File, error) {
	for {
		lock, err := lockPath(ctx, dir+"/"+name)
		if !errors.Is(err, fs.ErrNotExist) {
			return lock, err
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
}

// lease gives an address of a subnet to the endpoint with the key, which must be there: want, or the next free one if that is not
// valid. Taken are those that nobody gets. It returns ErrPoolExhausted and ErrAddressInUse; what belongs to nobody is collected
// before it does. An address that the endpoint has is leased to it again.
func (s *networkStore) lease(pool string, subnet netip.Prefix, taken []netip.Addr, want netip.Addr, key string) (netip.Addr, error) {
	a, err := s.tryLease(pool, subnet, taken, want, key)
	if errors.Is(err, ErrPoolExhausted) || errors.Is(err, ErrAddressInUse) && !slices.Contains(taken, want) {
		if cerr := s.collect(); cerr != nil {
			return netip.Addr{}, errors.Join(err, cerr)
		}
		a, err = s.tryLease(pool, subnet, taken, want, key)
	}
	return a, err
}

func (s *networkStore) tryLease(pool string, subnet netip.Prefix, taken []netip.Addr, want netip.Addr, key string) (netip.Addr, error) {
	fail := func(path string, err error, remedy string) (netip.Addr, error) {
		return netip.Addr{}, &Error{Op: "lease address", Path: path, Err: err, Remedy: remedy}
	}
	p, err := newAddressPool(subnet)
	if err != nil {
		return netip.Addr{}, err
	}
	switch {
	case !want.IsValid():
	case !p.contains(want):
		return fail(want.String(), fmt.Errorf("%w: not a host's address of %v", ErrInvalidConfig, subnet.Masked()), "")
	case slices.Contains(taken, want):
		return fail(want.String(), ErrAddressInUse, "it is the gateway's")
	}
	if _, err := s.endpoint(key); err != nil {
		return fail(key, err, "") // collect would take the lease for nobody's
	}
	lock, err := lockPool(s.ctx, s.poolPath(pool), p.first)
	if err != nil {
		return netip.Addr{}, lockFailed("lease address", pool, err)
	}
	defer lock.Close()
	at("lease: locked")
	if want.IsValid() {
		switch holder, err := s.leasedTo(pool, want); {
		case err != nil:
			return fail(want.String(), err, "")
		case holder == key:
			return want, nil
		case holder != "":
			return fail(want.String(), ErrAddressInUse, "leave NetworkConfig.IPAddresses empty for one that is free")
		}
	} else if want, err = s.nextFree(pool, p, taken, lock); err != nil {
		return fail(subnet.Masked().String(), err, "use a bridge with a larger subnet")
	}
	if err := s.take(pool, want.String(), key); err != nil {
		return fail(want.String(), err, "")
	}
	lock.WriteAt(fmt.Appendf(nil, "%-*v\n", len("0000:0000:0000:0000:0000:0000:0000:0000"), want), 0) // if that fails, the search takes longer
	at("lease: hint")
	return want, nil
}

// leasedTo returns the key of who has an address; empty if nobody.
func (s *networkStore) leasedTo(pool string, a netip.Addr) (string, error) {
	return leaseHolder(s.poolPath(pool) + "/" + a.String())
}

func leaseHolder(path string) (string, error) {
	key, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return key, err
}

// nextFree finds an address after the one that was leased last: those freed a moment ago may still be known to others. It looks at each by name, and
// at the list of all when many are in the way.
func (s *networkStore) nextFree(pool string, p addressPool, taken []netip.Addr, hint *os.File) (netip.Addr, error) {
	const many = 32
	a := p.next(readHint(hint))
	start := a
	var leased map[netip.Addr]bool
	for n := 0; ; n++ {
		free := !slices.Contains(taken, a) && !leased[a]
		if free && leased == nil {
			switch holder, err := s.leasedTo(pool, a); {
			case err != nil:
				return netip.Addr{}, err
			case holder != "":
				free = false
			}
		}
		if free {
			return a, nil
		}
		if n == many {
			entries, err := os.ReadDir(s.poolPath(pool))
			if err != nil {
				return netip.Addr{}, err
			}
			leased = make(map[netip.Addr]bool, len(entries))
			for _, e := range entries {
				if l, err := netip.ParseAddr(e.Name()); err == nil {
					leased[l] = true
				}
			}
		}
		if a = p.next(a); a == start {
			return netip.Addr{}, ErrPoolExhausted
		}
	}
}

// readHint returns the address leased last, or none.
func readHint(f *os.File) netip.Addr {
	text := make([]byte, 64)
	n, _ := f.ReadAt(text, 0)
	for i, c := range text[:n] {
		if c == ' ' || c == '\n' {
			n = i
			break
		}
	}
	a, _ := netip.ParseAddr(string(text[:n]))
	return a
}

// claimPath is the directory of what an endpoint may have leased.
func (s *networkStore) claimPath(key string) string { return s.path("endpoints", key+".d") }

// take writes down that the endpoint has the address, first with the endpoint. An address may be one of hardware.
func (s *networkStore) take(pool, address, key string) error {
	claim := s.claimPath(key) + "/" + address
	if err := os.Mkdir(s.claimPath(key), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := os.Symlink(pool, claim)
	if errors.Is(err, fs.ErrExist) { // of a caller that died here
		if err = os.Remove(claim); err == nil {
			err = os.Symlink(pool, claim)
		}
	}
	if err != nil {
		return err
	}
	at("lease: intent")
	if err := os.Symlink(key, s.poolPath(pool)+"/"+address); err != nil {
		return errors.Join(err, os.Remove(claim))
	}
	at("lease: made")
	return nil
}

// release frees an address, if it is the endpoint's. It can be called any number of times.
func (s *networkStore) release(pool, address, key string) error {
	err := checkKey(key)
	if err == nil {
		err = freeLeaseIn(s.ctx, s.poolPath(pool), address, key)
	}
	if err == nil {
		at("lease: freed")
		err = removeIfThere(s.claimPath(key) + "/" + address)
	}
	return lockFailed("release address", address, err)
}

// freeLeaseIn frees an address in a pool's directory, if it is the endpoint's.
func freeLeaseIn(ctx context.Context, dir, address, key string) error {
	path := dir + "/" + address
	if holder, err := leaseHolder(path); err != nil || holder != key {
		return err
	}
	family := leaseFamily(address)
	if family == "" {
		return &Error{Op: "release address", Path: path, Err: fs.ErrInvalid}
	}
	lock, err := lockFamily(ctx, dir, family)
	if err != nil {
		return err
	}
	defer lock.Close()
	// Who frees it at the same time may be done, and it may be another's by now.
	if holder, err := leaseHolder(path); err != nil || holder != key {
		return err
	}
	return removeIfThere(path)
}

// releaseAll frees what an endpoint has.
func (s *networkStore) releaseAll(key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.claimPath(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		claim := s.claimPath(key) + "/" + e.Name()
		pool, err := os.Readlink(claim)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := s.release(pool, e.Name(), key); err != nil {
			return err
		}
	}
	return removeIfThere(s.claimPath(key))
}

// removePool removes a pool that nothing is leased from. Its locks go with it; who waits for one finds that out.
func (s *networkStore) removePool(pool string) error {
	dir := s.poolPath(pool)
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		lock, err := lockPool(s.ctx, dir, a)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 2 {
		return &Error{Op: "remove pool", Path: pool, Err: ErrAddressInUse, Remedy: "remove the containers first"}
	}
	for _, e := range entries {
		if err := removeIfThere(dir + "/" + e.Name()); err != nil {
			return err
		}
	}
	if err := removeIfThere(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) { // somebody leases from it anew
		return err
	}
	return nil
}

// holder returns the endpoint that has an address; ErrNotExist if nobody has.
func (s *networkStore) holder(pool string, a netip.Addr) (*endpoint, error) {
	key, err := s.leasedTo(pool, a)
	if err == nil && key == "" {
		err = ErrNotExist
	}
	if err != nil {
		return nil, &Error{Op: "endpoint of", Path: a.String(), Err: err}
	}
	return s.endpoint(key)
}
