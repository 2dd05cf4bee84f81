//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// This file connects processes that are in no container of ours. It runs in the caller's process.

// A Network is the connection of a process's network namespace. It is safe for concurrent use.
type Network struct {
	mu      sync.Mutex
	state   NetworkState
	key     string
	devices []movedDevice
	netns   *os.File // held open for the devices
}

// SetupContainerNetwork connects the network namespace of a process, which must be another one than the caller's, as Config.Network does it for a container: the
// modes are NetworkModeBridge, NetworkModeMacvlan, and NetworkModeNone, which sets up lo and NetDevices. No files are mounted and nothing is relayed. The
// connection lasts until Cleanup; when the process has ended, Reconcile takes it back as well. It returns ErrLocked when ctx is done while another process holds a lock of the
// state directory.
func SetupContainerNetwork(ctx context.Context, pid int, cfg NetworkConfig) (_ *Network, err error) {
	fail := func(err error) (*Network, error) {
		var e *Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, &Error{Op: "set up network", Path: namespacePath(pid, NetworkNamespace), Err: err}
	}
	switch cfg.mode() {
	case NetworkModeNone, NetworkModeBridge, NetworkModeMacvlan:
	default:
		return fail(fieldErrorf("Mode", "%q is for containers; a process can have %q, %q and %q", cfg.Mode, NetworkModeBridge, NetworkModeMacvlan, NetworkModeNone))
	}
	if err := cfg.checkForProcess(); err != nil {
		return fail(err)
	}
	start, err := startTime(pid)
	if err == nil && start == 0 {
		err = ErrNotRunning
	}
	if err != nil {
		return fail(err)
	}
	netns, err := os.Open(namespacePath(pid, NetworkNamespace))
	if err != nil {
		return fail(err)
	}
	if now, err := startTime(pid); err != nil || now != start {
		netns.Close()
		return fail(ErrNotRunning)
	}
	n := &Network{state: NetworkState{Mode: cfg.mode(), NetDevices: cfg.NetDevices}, netns: netns}
	defer func() {
		if err != nil {
			cerr := n.cleanup(takingBack(err))
			if cerr != nil {
				cerr = errors.Join(cerr, n.abandon())
			}
			err = errors.Join(err, cerr)
		}
	}()
	if shared, err := isOwnNetwork(netns); err != nil || shared {
		if shared {
			err = &Error{Op: "set up network", Path: netns.Name(), Err: unix.EINVAL, Remedy: "the process is in the caller's network namespace; it needs one of its own"}
		}
		return fail(err)
	}
	err = withNetlinkIn(netns, func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err == nil {
			err = h.LinkSetUp(lo)
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	if n.devices, err = lookAtNetDevices(cfg.NetDevices); err != nil {
		return fail(err)
	}
	if cfg.attaches() {
		e := &endpoint{Process: processID{pid, start}, Names: cfg.Aliases}
		a, err := newConnection(&cfg, e)
		if err != nil {
			return fail(err)
		}
		a.save = func() error { n.state, n.key = e.Network, e.Key; return nil }
		if err := a.reserve(ctx); err != nil {
			return fail(err)
		}
		if err := a.connect(ctx, netns); err != nil {
			return fail(err)
		}
		n.state.NetDevices = cfg.NetDevices
	}
	if err := moveNetDevices(ctx, n.devices, cfg.Routes, netns); err != nil {
		return fail(err)
	}
	return n, nil
}

// checkForProcess complains about what is not as it would have to be for a container, and what only containers have.
func (n *NetworkConfig) checkForProcess() error {
	errs := fieldErrors(checkNetwork(&Config{Network: n, Namespaces: Namespaces{NewNet: true, NewMnt: true}}))
	if n.NameServer {
		errs.addf("Network.NameServer", "is for containers")
	}
	if n.mode() == NetworkModeNone && len(n.PortMappings) > 0 {
		errs.addf("Network.PortMappings", "are relayed in the mode none, which is for containers; NetworkModeBridge needs no relay")
	}
	return errs.join()
}

// State returns what has been set up.
func (n *Network) State() NetworkState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

// Cleanup takes the connection back: the devices, the rules, the addresses. It can be called any number of times, and again after an error.
// It returns ErrLocked when somebody holds a lock for long.
func (n *Network) Cleanup() error { return n.cleanup(patiently) }

func (n *Network) cleanup(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.netns == nil {
		return nil
	}
	err := errors.Join(returnNetDevices(n.devices, n.netns), n.removeMacvlan())
	if err == nil {
		err = releaseEndpoint(ctx, &n.state, n.key)
	}
	if err == nil {
		n.netns.Close()
		n.netns = nil
	}
	return err
}

// abandon leaves what could not be taken back to whoever collects, Reconcile say: the process may live on, and nobody has the Network.
func (n *Network) abandon() error {
	n.netns.Close()
	n.netns = nil
	if n.key == "" {
		return nil
	}
	s, err := natStore(hastily, n.state.StateDir)
	if err != nil {
		return err
	}
	e, err := s.endpoint(n.key)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e.Process = processID{}
	return s.addEndpoint(e)
}

// removeMacvlan removes the device that a container's namespace would take with it, before its address is another's.
func (n *Network) removeMacvlan() error {
	if n.state.Mode != NetworkModeMacvlan || n.key == "" {
		return nil
	}
	return withNetlinkIn(n.netns, func(h *netlink.Handle) error {
		link, err := linkNamed(h, n.state.Interface)
		if err == nil && link != nil && link.Type() == "macvlan" && (link.Attrs().HardwareAddr.String() == n.state.MAC || link.(*netlink.Macvlan).Mode == netlink.MACVLAN_MODE_PASSTHRU) {
			err = removeLink(h, n.state.Interface)
		}
		return errors.Join(err, removeLink(h, n.key)) // which it is called at first
	})
}

// isOwnNetwork tells whether a network namespace is the caller's.
func isOwnNetwork(netns *os.File) (bool, error) {
	var own, other unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return false, err
	}
	err := unix.Fstat(int(netns.Fd()), &other)
	return own.Ino == other.Ino && own.Dev == other.Dev, err
}
