//go:build linux

package container

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
)

// This file forwards ports to addresses on a bridge, without a container. It runs in the caller's process.

// A PortForwarder forwards ports of the host to an address on a bridge of ours ([EnsureBridge]), by the same rules as NetworkConfig.PortMappings with
// NetworkModeBridge: for what has been connected to the bridge by other means. Its mappings count as the caller's process lives: they stay in the kernel
// afterwards until Reconcile, or until somebody else wants the ports.
//
// Its methods return ErrLocked when another process has held a lock of the state directory for ten seconds. A PortForwarder is safe for concurrent use.
type PortForwarder struct {
	mu sync.Mutex
	s  *networkStore
	b  *Bridge
	e  *endpoint // nil: closed
}

// NewPortForwarder returns a PortForwarder for a bridge and addresses on it, one a family at most. Bridge and stateDir are those of NetworkConfig: if empty,
// DefaultBridgeName and "/run/container/networks". It returns ErrNotExist if there is no such bridge.
func NewPortForwarder(stateDir, bridge string, addresses ...netip.Addr) (*PortForwarder, error) {
	if bridge == "" {
		bridge = DefaultBridgeName
	}
	s, err := natStore(patiently, stateDir)
	if err != nil {
		return nil, err
	}
	b, err := s.readBridge(bridge)
	if err != nil {
		return nil, err
	}
	if b.Internal {
		return nil, &Error{Op: "forward ports", Path: bridge, Err: ErrInvalidConfig, Remedy: "no ports are published of what is on an internal bridge"}
	}
	e := &endpoint{Key: "pf" + newPortForwarderKey(), Network: NetworkState{Mode: NetworkModeBridge, Bridge: bridge, StateDir: s.dir}}
	if e.Process.StartTime, err = startTime(os.Getpid()); err != nil {
		return nil, &Error{Op: "forward ports", Err: err}
	}
	e.Process.Pid = os.Getpid()
	for i, a := range addresses {
		a = a.Unmap()
		on := slices.IndexFunc(b.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
		if on < 0 || a.Zone() != "" {
			return nil, fieldErrorf(index("addresses", i), "%s is not an address of the bridge %s (%v)", a, bridge, b.Subnets)
		}
		if slices.ContainsFunc(e.Network.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() }) {
			return nil, fieldErrorf(index("addresses", i), "%s is the second of its family", a)
		}
		e.Network.Addresses = append(e.Network.Addresses, netip.PrefixFrom(a, b.Subnets[on].Bits()))
	}
	if len(addresses) == 0 {
		return nil, fieldErrorf("addresses", "there is none")
	}
	return &PortForwarder{s: s, b: b, e: e}, nil
}

func newPortForwarderKey() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])[:11]
}

// AddMapping adds a mapping, and returns it with the port that was chosen if HostPort was zero. It returns ErrPortInUse if a port is another's.
func (f *PortForwarder) AddMapping(m PortMapping) (PortMapping, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.e == nil {
		return m, &Error{Op: "forward port", Err: os.ErrClosed}
	}
	if err := f.checkMapping(m); err != nil {
		return m, err
	}
	lock, err := f.s.lockBridge(f.b.Name) // it is not removed meanwhile
	if err != nil {
		return m, err
	}
	defer lock.Close()
	if _, err := f.s.readBridge(f.b.Name); err != nil {
		return m, err
	}
	e := *f.e
	chosen, err := natClaimPorts(f.s, e.Key, append(slices.Clone(e.Network.PortMappings), m), func(ports []PortMapping) error {
		e.Network.PortMappings = ports
		return f.s.addEndpoint(&e)
	})
	if err != nil {
		return m, err
	}
	m = chosen[len(chosen)-1]
	before := f.e
	f.e = &e // what is on disk
	if err := natConnect(f.s.ctx, f.b, &e); err != nil {
		f.drop(m, before.Network.PortMappings)
		return m, err
	}
	return m, nil
}

// checkMapping tells whether a mapping can be carried out.
func (f *PortForwarder) checkMapping(m PortMapping) error {
	if _, ok := natProtocols[m.Protocol]; !ok && m.Protocol != "" {
		return fieldErrorf("Protocol", `%q is not "tcp", "udp" or "sctp"`, m.Protocol)
	}
	if m.ContainerPort == 0 || int(m.ContainerPort)+int(max(m.Count, 1))-1 > 65535 {
		return fieldErrorf("ContainerPort", "the ports are 1 to 65535")
	}
	if m.HostSocket != "" || m.ContainerSocket != "" {
		return fieldErrorf("HostSocket", "sockets are for relayed ports")
	}
	if len(natPortElements(m, f.e.Network.Addresses)) == 0 {
		return fieldErrorf("HostIP", "%s is of a family of which there is no address to forward to", m.HostIP)
	}
	return nil
}

// RemoveMapping removes a mapping that AddMapping has returned, and ends its connections. It returns ErrNotExist if there is none.
func (f *PortForwarder) RemoveMapping(m PortMapping) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.e == nil {
		return &Error{Op: "remove port", Err: os.ErrClosed}
	}
	i := slices.Index(f.e.Network.PortMappings, m)
	if i < 0 {
		return &Error{Op: "remove port", Path: fmt.Sprint(m.HostPort), Err: ErrNotExist}
	}
	return f.drop(m, slices.Delete(slices.Clone(f.e.Network.PortMappings), i, i+1))
}

// drop removes a mapping and keeps the others.
func (f *PortForwarder) drop(m PortMapping, rest []PortMapping) error {
	gone := *f.e
	gone.Network.PortMappings = []PortMapping{m}
	kept := *f.e
	kept.Network.PortMappings = rest
	if err := natRemovePorts(f.s, &kept, &gone); err != nil {
		return err
	}
	f.e = &kept
	return nil
}

// Cleanup removes all mappings. The PortForwarder cannot be used afterwards; Cleanup can be called again.
func (f *PortForwarder) Cleanup() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.e == nil {
		return nil
	}
	if err := natDisconnect(f.s.ctx, f.e); err != nil {
		return err
	}
	f.e = nil
	return nil
}
