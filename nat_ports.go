//go:build linux

package container

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file keeps who has which ports of the host. It runs in the caller's process.
//
//	<dir>/ports/lock            flock on it while ports are looked for or given back
//	<dir>/ports/<proto>-<page>  lines "key address first last" of the 256 ports that begin with the page's number
//
// A line counts as long as the endpoint that it names is in the store, so that a caller that dies anywhere leaves nothing that matters; and it
// costs the same however many endpoints there are. What the host's own programs have is found by trying.

// portClaim is a line.
type portClaim struct {
	key         string
	addr        netip.Addr // not valid: all
	first, last uint16
}

// portPages is what has been read of one protocol or more, with what has become of it.
type portPages struct {
	s       *networkStore
	key     string // whose claims do not count
	pages   map[string][]portClaim
	changed map[string]bool
}

// natCheckPorts tells whether ports can be a container's, and chooses those that are zero: ErrPortInUse. Nobody is kept from taking them
// afterwards; see natClaimPorts.
func natCheckPorts(s *networkStore, ports []PortMapping) ([]PortMapping, error) {
	return natClaimPorts(s, "", ports, nil)
}

// natClaimPorts chooses and takes ports for an endpoint. It calls commit with them, to put the endpoint into the store while nobody else looks for ports; if that fails,
// they are free.
func natClaimPorts(s *networkStore, key string, ports []PortMapping, commit func(ports []PortMapping) error) ([]PortMapping, error) {
	chosen, err := tryClaimPorts(s, key, ports, commit)
	if errors.Is(err, ErrPortInUse) {
		if cerr := s.collect(); cerr == nil {
			return tryClaimPorts(s, key, ports, commit)
		}
	}
	return chosen, err
}

func tryClaimPorts(s *networkStore, key string, ports []PortMapping, commit func(ports []PortMapping) error) ([]PortMapping, error) {
	p, lock, err := openPorts(s, key)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	chosen := slices.Clone(ports)
	var had []PortMapping // who listens there has come later
	if e, err := s.endpoint(key); err == nil {
		had = e.Network.PortMappings
	}
	for i := range chosen {
		// Those with a number first come first, or a chosen one may be in their way.
		if chosen[i].HostPort != 0 {
			var err error
			if slices.Contains(had, chosen[i]) {
				_, _, err = p.holder(chosen[i]) // reads the pages, too
			} else {
				err = p.check(i, chosen[i])
			}
			if err != nil {
				return nil, err
			}
			p.claim(chosen[i])
		}
	}
	for i := range chosen {
		if chosen[i].HostPort == 0 {
			if chosen[i].HostPort, err = p.choose(i, chosen[i]); err != nil {
				return nil, err
			}
			p.claim(chosen[i])
		}
	}
	if commit == nil {
		return chosen, nil
	}
	if err := p.write(); err != nil {
		return nil, err
	}
	at("ports: claimed")
	return chosen, commit(chosen)
}

// natReleasePorts gives back ports of an endpoint. It is no longer in the store, or no longer with them.
func natReleasePorts(s *networkStore, key string, ports []PortMapping) error {
	if len(ports) == 0 {
		return nil
	}
	p, lock, err := openPorts(s, key)
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, m := range ports {
		for _, name := range p.names(m) {
			page, err := p.page(name)
			if err != nil {
				return err
			}
			kept := slices.DeleteFunc(slices.Clone(page), func(c portClaim) bool { return c == p.newClaim(m) })
			if len(kept) != len(page) {
				p.pages[name], p.changed[name] = kept, true
			}
		}
	}
	return p.write()
}

func openPorts(s *networkStore, key string) (*portPages, *os.File, error) {
	if err := os.Mkdir(s.path("ports"), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, &Error{Op: "ports", Path: s.path("ports"), Err: err}
	}
	lock, err := lockFileOf(s.ctx, s.path("ports", "lock"), unix.LOCK_EX)
	if err != nil {
		return nil, nil, lockFailed("lock ports", s.path("ports", "lock"), err)
	}
	return &portPages{s: s, key: key, pages: map[string][]portClaim{}, changed: map[string]bool{}}, lock, nil
}

// names are the pages of a mapping.
func (p *portPages) names(m PortMapping) []string {
	var names []string
	for page := int(m.HostPort) >> 8; page <= int(lastPort(m))>>8; page++ {
		names = append(names, fmt.Sprintf("%s-%02x", cmp.Or(m.Protocol, "tcp"), page))
	}
	return names
}

func lastPort(m PortMapping) uint16 { return m.HostPort + max(m.Count, 1) - 1 }

// page reads a page once. A line that is damaged is nobody's.
func (p *portPages) page(name string) ([]portClaim, error) {
	if page, ok := p.pages[name]; ok {
		return page, nil
	}
	var page []portClaim
	f, err := os.OpenFile(p.s.path("ports", name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if c, ok := parsePortClaim(lines.Text()); ok {
				page = append(page, c)
			}
		}
		err = lines.Err()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Op: "ports", Path: p.s.path("ports", name), Err: err}
	}
	p.pages[name] = page
	return page, nil
}

func parsePortClaim(line string) (c portClaim, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 4 {
		return c, false
	}
	first, err1 := strconv.ParseUint(fields[2], 10, 16)
	last, err2 := strconv.ParseUint(fields[3], 10, 16)
	c = portClaim{key: fields[0], first: uint16(first), last: uint16(last)}
	if fields[1] != "*" {
		addr, err := netip.ParseAddr(fields[1])
		if err != nil {
			return c, false
		}
		c.addr = addr
	}
	return c, err1 == nil && err2 == nil
}

func (c portClaim) String() string {
	addr := "*"
	if c.addr.IsValid() {
		addr = c.addr.String()
	}
	return fmt.Sprintf("%s %s %d %d\n", c.key, addr, c.first, c.last)
}

// newClaim is the claim of a mapping.
func (p *portPages) newClaim(m PortMapping) portClaim {
	return portClaim{p.key, m.HostIP.Unmap().WithZone(""), m.HostPort, lastPort(m)}
}

// overlaps tells whether two claims cannot be at the same time, as two listening sockets could not.
func (c portClaim) overlaps(d portClaim) bool {
	if c.first > d.last || d.first > c.last {
		return false
	}
	if !c.addr.IsValid() || !d.addr.IsValid() || c.addr == d.addr {
		return true
	}
	return c.addr.Is4() == d.addr.Is4() && (c.addr.IsUnspecified() || d.addr.IsUnspecified())
}

// holder returns the claim of somebody else's that is in the way.
func (p *portPages) holder(m PortMapping) (holder portClaim, found bool, err error) {
	c := p.newClaim(m)
	for _, name := range p.names(m) {
		page, err := p.page(name)
		if err != nil {
			return portClaim{}, false, err
		}
		for i := 0; i < len(page); i++ {
			other := page[i]
			if !other.overlaps(c) {
				continue
			}
			// Of this endpoint, those count that have been made in this call: the others are of an attempt that has failed.
			if other.key != p.key {
				if _, err := p.s.endpoint(other.key); err == nil || !errors.Is(err, fs.ErrNotExist) {
					return other, true, err
				}
			} else if p.changed[name] {
				return other, true, nil
			}
			page = slices.Delete(slices.Clone(page), i, i+1)
			p.pages[name] = page
			i--
		}
	}
	return portClaim{}, false, nil
}

// claim adds the claim of a mapping.
func (p *portPages) claim(m PortMapping) {
	for _, name := range p.names(m) {
		page := p.pages[name]
		if !p.changed[name] {
			page = slices.DeleteFunc(slices.Clone(page), func(c portClaim) bool { return c.key == p.key })
		}
		p.pages[name], p.changed[name] = append(page, p.newClaim(m)), true
	}
}

// write writes the pages that have changed.
func (p *portPages) write() error {
	for name := range p.changed {
		var b strings.Builder
		for _, c := range p.pages[name] {
			b.WriteString(c.String())
		}
		path := p.s.path("ports", name)
		var err error
		if b.Len() == 0 {
			if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		} else {
			err = writePage(path, b.String())
		}
		if err != nil {
			return &Error{Op: "ports", Path: path, Err: err}
		}
		at("ports: page")
	}
	return nil
}

// writePage writes a file that is there whole, or as before.
func writePage(path, text string) error {
	next := path + ".new" // there is one writer at a time
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		at("ports: page written")
		err = replaceFile(next, path)
	}
	return err
}

// check tells whether the i-th mapping can be.
func (p *portPages) check(i int, m PortMapping) error {
	field := index("Network.PortMappings", i)
	if int(m.HostPort)+int(max(m.Count, 1))-1 > 65535 {
		return fieldErrorf(field+".Count", "the ports from %d on end at 65535", m.HostPort)
	}
	if m.HostIP == netip.IPv6Loopback() {
		return &FieldError{Field: field + ".HostIP", Problem: "Linux does not forward what is sent to ::1; take 127.0.0.1", Err: ErrUnsupported}
	}
	holder, found, err := p.holder(m)
	if err != nil {
		return err
	}
	if found {
		whom := "another mapping of this container"
		if e, err := p.s.endpoint(holder.key); err == nil && holder.key != p.key {
			whom = "container " + e.ID
		}
		return &FieldError{Field: field, Problem: fmt.Sprintf("port %d/%s of the host is that of %s", max(holder.first, m.HostPort), cmp.Or(m.Protocol, "tcp"), whom), Err: ErrPortInUse}
	}
	for n := range max(m.Count, 1) {
		if err := probePort(cmp.Or(m.Protocol, "tcp"), m.HostIP, m.HostPort+n); err != nil {
			return portError(field, m, m.HostPort+n, err)
		}
	}
	return nil
}

// portError explains why a port cannot be bound.
func portError(field string, m PortMapping, port uint16, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return &FieldError{Field: field, Problem: fmt.Sprintf("port %d/%s is that of another program on the host", port, cmp.Or(m.Protocol, "tcp")), Err: ErrPortInUse}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return &FieldError{Field: field + ".HostIP", Problem: fmt.Sprintf("%s is not an address of the host", m.HostIP), Err: err}
	}
	return &Error{Op: "try port", Path: netip.AddrPortFrom(m.HostIP, port).String(), Err: err}
}

// choose finds a port for the i-th mapping, whose HostPort is zero.
func (p *portPages) choose(i int, m PortMapping) (uint16, error) {
	const first, last, tries = 49152, 65535, 4096 // the ports that are nobody's by name
	n := int(max(m.Count, 1))
	room := last - first + 1 - n
	if room < 0 {
		return 0, fieldErrorf(index("Network.PortMappings", i)+".Count", "of the ports that are chosen from there are %d", last-first+1)
	}
	var err error
	for range tries {
		m.HostPort = uint16(first + rand.IntN(room+1))
		if err = p.check(i, m); err == nil {
			return m.HostPort, nil
		}
		if !errors.Is(err, ErrPortInUse) {
			return 0, err
		}
	}
	return 0, err
}
