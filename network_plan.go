//go:build linux

package container

import (
	"context"
	"os"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file holds the steps of a container's network. It runs in the caller's process; the caller connects the namespace from outside
// while the launcher goes on with the mounts.

// networkLink is what a start has to do with the network: what the caller does from outside, and the sockets of the container's
// namespace that it gets from the launcher.
type networkLink struct {
	id      string         // the container's
	shared  *sharedNetwork // whose network it is, with NetworkModeContainer
	state   *NetworkState
	connect func(ctx context.Context, netns *os.File) error // nil: nothing to do from outside
	relay   *relay                                          // nil: nothing to relay
	sockets []*os.File                                      // for the relay, in the order of their steps
	names   *dnsServer                                      // of a container on a bridge that has asked for one; else nil
	netns   *os.File                                        // held open for as long as devices of the host's are in it; else nil
}

// connects tells whether the launcher must wait for the caller.
func (pl *plan) connects() bool { return pl.network != nil && pl.network.connect != nil }

// stepNetwork says that the namespace is there, and makes the sockets of the relay in it.
func (pl *plan) stepNetwork() error {
	if pl.connects() {
		pl.Send(tagNetwork, 0)
	}
	if pl.network != nil && pl.network.relay != nil {
		pl.stepPublish()
		return pl.stepEgress()
	}
	return nil
}

// stepConnected waits until the network is there.
func (pl *plan) stepConnected() error {
	if pl.connects() {
		pl.Wait()
	}
	return nil
}

// sendSocket sends a socket of the container's namespace to the relay.
func (pl *plan) sendSocket(fd launch.Arg) {
	pl.SendFile(tagSocket, fd)
	pl.close(fd)
}

// atNetwork does what the launcher waits for.
func (s *starting) atNetwork(ctx context.Context) error {
	s.networking = false
	netns, err := os.Open(namespacePath(s.firstPid(), NetworkNamespace))
	if err != nil {
		return &Error{Op: "network", Err: err}
	}
	defer netns.Close()
	if err := s.network.connect(ctx, netns); err != nil {
		return err
	}
	at("launcher: connected")
	return s.goOn()
}

// start lets the relay serve.
func (n *networkLink) start() error {
	if n == nil || n.relay == nil {
		return nil
	}
	sockets := n.sockets
	n.sockets = nil
	return n.relay.start(sockets)
}

// hold keeps the namespace open: the kernel removes devices with a namespace that it could have given back.
func (n *networkLink) hold(netns *os.File) error {
	fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return &Error{Op: "network", Err: os.NewSyscallError("fcntl", err)}
	}
	n.netns = os.NewFile(uintptr(fd), netns.Name())
	return nil
}

// held is the namespace that is kept open; nil for none.
func (n *networkLink) held() *os.File {
	if n == nil {
		return nil
	}
	return n.netns
}

// unbind gives the ports of the host back. It waits for nobody: a policy may be what waits for the container's end.
func (n *networkLink) unbind() {
	if n != nil && n.relay != nil {
		n.relay.ports.end()
	}
}

// stop ends what this process carries for the container.
func (n *networkLink) stop() {
	if n == nil {
		return
	}
	closers(n.sockets).close()
	n.sockets = nil
	n.names.close()
	if n.relay != nil {
		n.relay.close()
	}
}

// close ends what this process does for the network. It can be called any number of times.
func (n *networkLink) close() {
	n.stop()
	if held := n.held(); held != nil {
		held.Close()
		n.netns = nil
	}
}
