//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// This file carries connections between a container and where they may go. It runs in the caller's process, and ends with the container.

// A relay serves a container from the caller's process: connections out, names, published ports.
type relay struct {
	cfg   *NetworkConfig
	judge *egressJudge
	names *dnsServer // nil for none
	ports *portRelay // nil for none

	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	slots  chan struct{} // filled by connections and flows
	pids   *pidFinder
	tap    *os.File // sees the first packets of connections

	processes func() ([]int, error) // the container's

	nameConns *nameListener

	mu      sync.Mutex
	closed  bool
	open    map[io.Closer]struct{}
	pending map[flowKey]*pendingTCP
	flows   map[flowKey]*udpFlow
	waiting int // bytes in the queues of flows
}

// newRelay is the relay of a container. Nothing is opened before start.
func newRelay(c *Container) *relay {
	n := c.cfg.Network
	limit := n.MaxConnections
	if limit == 0 {
		limit = defaultMaxConnections
	}
	r := &relay{
		cfg: n, slots: make(chan struct{}, limit), nameConns: newNameListener(),
		open: map[io.Closer]struct{}{}, pending: map[flowKey]*pendingTCP{}, flows: map[flowKey]*udpFlow{},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if n.mode() == NetworkModeEgress {
		r.judge = newEgressJudge(c.id, n, c.cfg.logger())
		r.names = r.judge.nameServer(n)
	}
	r.processes = c.Processes
	return r
}

// start serves. It takes ownership of the sockets, which are in the order of their steps.
func (r *relay) start(files []*os.File) error {
	r.ports.serve()
	if r.judge == nil {
		closers(files).close()
		return nil
	}
	err := r.startEgress(files)
	if err != nil {
		r.close()
		return &Error{Op: "egress", Err: err}
	}
	return nil
}

// startEgress serves the sockets of egressSockets, the tap, and the one that knows whose a socket is.
func (r *relay) startEgress(files []*os.File) error {
	if len(files) != 5 && len(files) != 8 {
		closers(files).close()
		return fmt.Errorf("the launcher has sent %d sockets", len(files))
	}
	last := len(files) - 2
	r.pids = newPidFinder(files[last+1], r.processes)
	r.tap = files[last]
	r.track(r.pids)
	var families []*relaySockets
	for i := 0; i < last; i += 3 {
		s, err := openRelaySockets(files[i : i+3])
		if err != nil {
			closers(files[i+3 : last]).close()
			return err
		}
		families = append(families, s)
		r.track(s)
	}
	r.names.serveListener(r.nameConns)
	for _, s := range families {
		r.work.Go(func() { r.acceptTCP(s) })
		r.work.Go(func() { r.readUDP(s) })
	}
	r.work.Go(func() { r.readTap(families) })
	r.work.Go(r.endFlows)
	return nil
}

// track has close close c; it is closed at once, and the answer is false, if that has been called.
func (r *relay) track(c io.Closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		c.Close()
		return false
	}
	r.open[c] = struct{}{}
	return true
}

// close ends all of it, and waits until nothing of it is left.
func (r *relay) close() {
	if r.cancel == nil { // one that was only explained
		return
	}
	r.cancel()
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		if conn, ok := c.(net.Conn); ok {
			resetConn(conn)
			continue
		}
		c.Close()
	}
	clear(r.open)
	for _, p := range r.pending {
		if p.timer != nil {
			p.timer.Stop()
		}
	}
	r.mu.Unlock()
	r.nameConns.Close()
	if r.tap != nil {
		r.tap.SetReadDeadline(time.Now()) // who reads stops
	}
	r.names.close()
	r.ports.close()
	r.work.Wait()
	if r.tap != nil {
		// In close(2) the kernel waits until nobody is at work with the socket: some ten milliseconds, for nothing that anybody here waits for.
		go r.tap.Close()
	}
}

// errTooMany is why connections beyond MaxConnections are refused.
var errTooMany = errors.New("too many connections at one time; see NetworkConfig.MaxConnections")

// take takes a place among the connections.
func (r *relay) take() bool {
	select {
	case r.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *relay) give() { <-r.slots }

// dialTime is how long a connection may take to come about; the kernel of the host gives up after two minutes.
const dialTime = 2 * time.Minute

// reach asks the judge, and connects to where it says. It tells of the outcome.
func (r *relay) reach(ctx context.Context, q EgressRequest) (net.Conn, error) {
	if r.cfg.Egress != nil {
		q.Pid = r.pids.find(q)
	}
	d, err := r.judge.decide(ctx, q)
	conn := d.Conn
	if err == nil && conn == nil {
		dialer := net.Dialer{Timeout: dialTime}
		conn, err = dialer.DialContext(ctx, q.Network, d.Addr.String())
	}
	if err != nil && q.Pid == 0 {
		q.Pid = r.pids.find(q)
	}
	r.judge.report(q, err)
	return conn, err
}

// ownAddress tells whether an address is the container's own, where the relay has nothing to say.
func ownAddress(a netip.Addr) bool {
	return a.IsLoopback() || a == egressAddr4 || a == egressAddr6
}
