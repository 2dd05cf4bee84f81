//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// This file gives a container its network, and takes it away. It runs in the caller's process. The record of what is about to be made is
// on disk before anything is.

// reserveNetwork decides what the network will be, and writes that to the record: addresses are leased, ports are the container's from
// here on. It is called before the launcher is started. After an error nothing is left.
func (c *Container) reserveNetwork(ctx context.Context, st *stored) (a *connection, err error) {
	n := c.cfg.Network
	if n == nil {
		return nil, nil
	}
	st.Network = &NetworkState{Mode: n.mode(), NetDevices: n.NetDevices}
	save := func() error { return c.record.write("state.json", st) }
	defer func() {
		if err != nil {
			err = errors.Join(err, c.releaseNetwork(takingBack(err), st, nil))
			_ = save()
		}
	}()
	if len(n.NetDevices) > 0 {
		if st.MovedDevices, err = lookAtNetDevices(n.NetDevices); err != nil {
			return nil, err
		}
		if err := save(); err != nil {
			return nil, err
		}
		at("network: devices recorded")
	}
	if !n.attaches() {
		return nil, nil
	}
	names := append([]string{c.id}, n.Aliases...)
	if c.cfg.Hostname != "" {
		names = append(names, c.cfg.Hostname)
	}
	e := &endpoint{StateDir: filepath.Dir(c.record.dir), ID: c.id, Created: st.Created, Names: names}
	if a, err = newConnection(n, e); err != nil {
		return nil, err
	}
	e.Network.NetDevices = n.NetDevices
	st.Network, st.EndpointKey, a.save = &e.Network, e.Key, save
	return a, a.reserve(ctx)
}

// prepareNetwork reserves the network, and returns what a start has to do for it; nil for nothing.
func (c *Container) prepareNetwork(ctx context.Context, st *stored) (*networkLink, error) {
	a, err := c.reserveNetwork(ctx, st)
	if err != nil {
		return nil, err
	}
	if st.Network == nil {
		return nil, nil
	}
	n := &networkLink{id: c.id, state: st.Network}
	if st.Network.connects() {
		n.connect = func(ctx context.Context, netns *os.File) error { return c.connectNetwork(ctx, st, a, n, netns) }
	}
	if c.cfg.Network.relays() {
		n.relay = newRelay(c)
	}
	if err := c.publishPorts(st, n); err != nil {
		c.takeBackNetwork(st, n, err)
		return nil, err
	}
	return n, nil
}

// explainedNetwork is the link of a plan that is not carried out.
func explainedNetwork(cfg *Config) *networkLink {
	if cfg.Network == nil {
		return nil
	}
	n := &networkLink{state: &NetworkState{Mode: cfg.networkMode(), NetDevices: cfg.Network.NetDevices}}
	if n.state.connects() {
		n.connect = func(context.Context, *os.File) error { return nil }
	}
	if cfg.Network.relays() {
		n.relay = &relay{}
	}
	return n
}

// connects tells whether the caller has something to do in the container's network namespace.
func (s *NetworkState) connects() bool {
	return s.Mode == NetworkModeBridge || s.Mode == NetworkModeMacvlan || len(s.NetDevices) > 0
}

// relays tells whether the caller's process carries connections of the container.
func (n *NetworkConfig) relays() bool {
	return n.mode() == NetworkModeEgress || n.mode() == NetworkModeNone && len(n.PortMappings) > 0
}

// takeBackNetwork undoes prepareNetwork for a start that has failed.
func (c *Container) takeBackNetwork(st *stored, n *networkLink, why error) {
	n.unbind()
	if err := c.releaseNetwork(takingBack(why), st, n.held()); err != nil {
		c.cfg.logger().Warn("the network could not be taken back, which Destroy will", "id", c.id, "err", err)
	}
	n.close()
}

// connectNetwork connects the network namespace of the launcher, while that sets up the rest.
func (c *Container) connectNetwork(ctx context.Context, st *stored, a *connection, n *networkLink, netns *os.File) error {
	if a != nil {
		if err := a.connect(ctx, netns); err != nil {
			return err
		}
		if c.cfg.Network.NameServer {
			var err error
			if n.names, err = startNameServer(netns, a.store.during(patiently), a.bridge, c.cfg.Network); err != nil {
				return err
			}
		}
	}
	if len(st.MovedDevices) == 0 {
		return nil
	}
	if err := n.hold(netns); err != nil {
		return err
	}
	return moveNetDevices(ctx, st.MovedDevices, c.cfg.Network.Routes, netns)
}

// releaseNetwork takes back whatever of the container's network there is. It can be called any number of times, and after a
// crash at any point of reserveNetwork and connectNetwork. Netns is the container's namespace, if it is held open; else nil.
func (c *Container) releaseNetwork(ctx context.Context, st *stored, netns *os.File) error {
	if st.Network == nil {
		return nil
	}
	err := returnNetDevices(st.MovedDevices, netns)
	err = errors.Join(err, releaseSockets(ctx, st.Sockets), releaseEndpoint(ctx, st.Network, st.EndpointKey))
	if err == nil {
		st.Network, st.EndpointKey, st.MovedDevices, st.Sockets = nil, "", nil, nil
	}
	return err
}
