//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file puts rules into the kernel for containers on bridges, and takes them out. It runs in the caller's process, in
// its network namespace.
//
// A store has two tables, of the families inet and bridge. A container changes elements of their sets in one transaction, whatever else
// is there. If the rules themselves are missing, all is made anew from the store in one transaction, as Reconcile does. Who changes elements
// of an endpoint holds the lock shared from before the endpoint is in the store until after, who makes all anew holds it alone: so that nothing
// is lost and nothing comes back.

// nat is a store's rules.
type nat struct {
	s            *networkStore
	lock         *os.File
	inet, bridge *nftables.Table
}

// openNAT waits for the lock of a store's rules.
func openNAT(s *networkStore, how int) (*nat, error) {
	f, err := lockRules(s, nil, how)
	if err != nil {
		return nil, lockFailed("lock rules", s.path("nat.lock"), err)
	}
	name := natTableName(s.dir)
	return &nat{s, f, &nftables.Table{Name: name, Family: nftables.TableFamilyINet}, &nftables.Table{Name: name, Family: nftables.TableFamilyBridge}}, nil
}

// again lets go of the lock and takes it in another way.
func (n *nat) again(how int) error {
	_, err := lockRules(n.s, n.lock, how)
	return lockFailed("lock rules", n.lock.Name(), err)
}

func (n *nat) close() { n.lock.Close() }

// natStore opens the store of a bridge or an endpoint.
func natStore(ctx context.Context, dir string) (*networkStore, error) {
	if dir == "" {
		dir = defaultNetworkStateDir
	}
	s, err := openNetworkStore(dir)
	if err != nil {
		return nil, err
	}
	return s.during(ctx), nil
}

// natBridge makes the rules for a bridge. It can be called any number of times.
func natBridge(ctx context.Context, b *Bridge) error {
	return natAdd(ctx, b.StateDir, natBridgeElements(b))
}

// natRemoveBridge removes them, and with those of the last bridge in the store all.
func natRemoveBridge(ctx context.Context, b *Bridge) error {
	s, err := natStore(ctx, b.StateDir)
	if err != nil {
		return err
	}
	n, err := openNAT(s, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer n.close()
	bridges, err := s.bridges()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(bridges, func(other *Bridge) bool { return other.Name != b.Name }) {
		return n.remove(natBridgeElements(b))
	}
	err = n.commit(func(t *natTransaction) {
		t.deleteTables()
	})
	at("nat: no tables")
	return err
}

// natConnect makes the rules for a container on a bridge. The container's device must not carry packets before. The endpoint must be in the
// store. It can be called any number of times.
func natConnect(ctx context.Context, b *Bridge, e *endpoint) error {
	for i, m := range e.Network.PortMappings {
		if len(natPortElements(m, e.Network.Addresses)) == 0 {
			return fieldErrorf(index("Network.PortMappings", i)+".HostIP", "%s is of a family of which the container has no address", m.HostIP)
		}
	}
	elements := natEndpointElements(e)
	if err := natAdd(ctx, b.StateDir, elements); err != nil {
		return err
	}
	at("nat: rules of the container")
	if mapsLoopback(e) {
		if err := routeLocalnet(b.Name, true); err != nil {
			return err
		}
		at("nat: route_localnet")
	}
	return flushFlowsBefore(e.Network.PortMappings)
}

// natDisconnect removes the rules of a container, and its endpoint from the store: what is read from the store in between would make the
// rules again. It can be called any number of times.
func natDisconnect(ctx context.Context, e *endpoint) error {
	s, err := natStore(ctx, e.Network.StateDir)
	if err != nil {
		return err
	}
	n, err := openNAT(s, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.remove(natEndpointElements(e)); err != nil {
		return err
	}
	at("nat: no rules of the container")
	if err := flushFlowsOf(e.Network.Addresses); err != nil {
		return err
	}
	if err := s.removeEndpoint(e.Key); err != nil {
		return err
	}
	return n.releasePorts(s, e)
}

// releasePorts gives the ports of an endpoint back that no rule leads to any more, and what only ports of the host's loopback need.
func (n *nat) releasePorts(s *networkStore, e *endpoint) error {
	if err := natReleasePorts(s, e.Key, e.Network.PortMappings); err != nil {
		return err
	}
	if !mapsLoopback(e) {
		return nil
	}
	if err := n.again(unix.LOCK_EX); err != nil {
		return err
	}
	return n.restoreLocalnet(e.Network.Bridge)
}

// natRemovePorts removes the rules for some ports of an endpoint, which are all that gone has, and keeps those of kept.
func natRemovePorts(s *networkStore, kept, gone *endpoint) error {
	n, err := openNAT(s, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer n.close()
	stay := map[natElement]bool{}
	for _, e := range natEndpointElements(kept) {
		stay[e] = true
	}
	elements := slices.DeleteFunc(natEndpointElements(gone), func(e natElement) bool { return stay[e] })
	if err := n.remove(elements); err != nil {
		return err
	}
	at("nat: no rules of the ports")
	if err := flushFlowsTo(gone.Network.PortMappings, gone.Network.Addresses); err != nil {
		return err
	}
	if err := s.addEndpoint(kept); err != nil {
		return err
	}
	return n.releasePorts(s, gone)
}

// natAdd adds elements, and all that is missing.
func natAdd(ctx context.Context, dir string, elements []natElement) error {
	s, err := natStore(ctx, dir)
	if err != nil {
		return err
	}
	n, err := openNAT(s, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer n.close()
	err = n.commit(func(t *natTransaction) {
		t.mustBeThere()
		t.add(elements)
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		if err := n.again(unix.LOCK_EX); err != nil {
			return err
		}
		return n.rebuild(elements)
	case err != nil && isChanged(err):
		// The ports are ours, the store says so: what is in the map is a leftover.
		return n.replace(elements)
	}
	return err
}

// replace puts elements in the place of others with the same key.
func (n *nat) replace(elements []natElement) error {
	return n.precisely(func(there map[natElement]bool) (remove, add []natElement) {
		keys := map[natElement]bool{}
		for _, e := range elements {
			if !there[e] {
				add = append(add, e)
				keys[natElement{set: e.set, key: e.key}] = true
			}
		}
		for e := range there {
			if keys[natElement{set: e.set, key: e.key}] {
				remove = append(remove, e)
			}
		}
		return remove, add
	}, elements)
}

// remove removes elements. Those of a map whose key has another value are left alone: they are somebody else's.
func (n *nat) remove(elements []natElement) error {
	if len(elements) == 0 {
		return nil
	}
	err := n.commit(func(t *natTransaction) {
		t.mustBeThere()
		t.add(elements) // removing what is not there would be an error
		t.remove(elements)
	})
	if err == nil || !isChanged(err) {
		return err
	}
	return n.precisely(func(there map[natElement]bool) (remove, add []natElement) {
		for _, e := range elements {
			if there[e] {
				remove = append(remove, e)
			}
		}
		return remove, nil
	}, elements)
}

// precisely reads the sets that the elements are of, and changes what change says, until there is nothing to change.
func (n *nat) precisely(change func(there map[natElement]bool) (remove, add []natElement), elements []natElement) error {
	const tries = 20
	for i := 0; ; i++ {
		there, err := n.read(elements)
		if err != nil {
			return err
		}
		remove, add := change(there)
		if len(remove)+len(add) == 0 {
			return nil
		}
		err = n.commit(func(t *natTransaction) {
			t.remove(remove)
			t.add(add)
		})
		if err != nil && (i == tries || !isChanged(err)) { // else another has changed the sets meanwhile
			return err
		}
	}
}

// isChanged tells whether sets have not been what they were taken for.
func isChanged(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)
}

// read returns what is in the sets of some elements.
func (n *nat) read(elements []natElement) (map[natElement]bool, error) {
	there := map[natElement]bool{}
	c, err := nftables.New()
	if err != nil {
		return nil, natError("read rules", err)
	}
	for set := range natBySet(elements) {
		const tries = 5
		for i := 0; ; i++ {
			s := n.set(set)
			if _, err := c.GetSetByName(s.Table, s.Name); errors.Is(err, unix.ENOENT) {
				break
			}
			all, err := c.GetSetElements(s) // its errors do not say which they are
			for _, e := range all {
				there[natElement{set, string(e.Key), string(e.Val)}] = true
			}
			if err == nil {
				break
			}
			if i == tries {
				return nil, natError("read rules", err)
			}
		}
	}
	return there, nil
}

// Reconcile makes the rules of all bridges and containers anew, from what is in the directory ([NetworkConfig.StateDir]), in one transaction: after
// another program has flushed the host's rules, say, which it cannot be told of. Addresses and ports of containers that are gone are freed.
// Connections that have been made while there were no rules are forgotten. When somebody has made the host a router since, or one no more, what containers need
// for packets to be forwarded is made to fit; see [Bridge].Forwarding. If stateDir is empty, it is "/run/container/networks".
// It returns ErrLocked when ctx is done while another process holds a lock of the directory.
func Reconcile(ctx context.Context, stateDir string) error {
	if err := ctx.Err(); err != nil {
		return &Error{Op: "reconcile", Path: stateDir, Err: context.Cause(ctx)}
	}
	s, err := natStore(ctx, stateDir)
	if err != nil {
		return err
	}
	if err := s.collect(); err != nil {
		return err
	}
	all, err := s.lockBridge(allBridges)
	if err != nil {
		return err
	}
	defer all.Close()
	var bridges []*Bridge
	err = withHostNetlink(func(h *netlink.Handle) (err error) {
		bridges, err = s.healForwarding(h)
		return err
	})
	if err != nil {
		return err
	}
	if err := natAnew(s); err != nil {
		return err
	}
	at("reconcile: rules")
	for _, b := range bridges { // the rule is there before the switch
		if err := b.forward(); err != nil {
			return err
		}
	}
	return nil
}

// natAnew makes all rules anew from the store.
func natAnew(s *networkStore) error {
	n, err := openNAT(s, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer n.close()
	return n.rebuild(nil)
}

// rebuild makes everything, and more. The lock is held alone.
func (n *nat) rebuild(more []natElement) error {
	bridges, err := n.s.bridges()
	if err != nil {
		return err
	}
	elements := more
	for _, b := range bridges {
		elements = append(elements, natBridgeElements(b)...)
	}
	localnet := map[string]bool{}
	for e, err := range n.s.endpoints() {
		if err != nil {
			return err
		}
		elements = append(elements, natEndpointElements(e)...)
		if mapsLoopback(e) {
			localnet[e.Network.Bridge] = true
		}
	}
	err = n.commit(func(t *natTransaction) {
		t.deleteTables()
		if len(elements) > 0 {
			t.makeTables()
			t.add(elements)
		}
	})
	if err != nil {
		return err
	}
	at("nat: rules")
	for _, b := range bridges {
		if localnet[b.Name] {
			if err := routeLocalnet(b.Name, true); err != nil {
				return err
			}
		}
	}
	return flushFlowsPast(bridges)
}
