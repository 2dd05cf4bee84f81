package container

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// This file is the way out of a container that the caller decides about: what is asked and what is answered. How connections get here
// is in egress_plan.go, what becomes of them in egress_relay.go.

// What a program in the container sees, with NetworkModeEgress:
//
//   - connect(2) of TCP takes as long as it takes outside, and fails as it does there: ECONNREFUSED, EHOSTUNREACH, ENETUNREACH. One that is denied
//     gets ECONNREFUSED at once; nothing that it would have sent has been taken. So addresses of a family that the host cannot reach are given up at once, too.
//   - Half-closed connections stay so, resets are passed on, and a slow reader slows its writer.
//   - Packets of UDP travel in flows of one socket to one address, which end after two minutes of silence. Those of a flow that is denied, or
//     where nobody is, get ECONNREFUSED on a connected socket.
//   - Whatever goes to port 53, of any address, is answered by the name server of ours, which is at 127.0.0.11: there are no names but
//     those that may be asked for, see EgressRequest.Names.
//   - All else is refused: echoes of ICMP ("Packet filtered"), SCTP. There is no device but lo, and every address that is not the container's own
//     looks local. Its own are 127.0.0.0/8, ::1, 192.0.0.2 and fd63:6f6e:7461:696e::2; what programs in the container say to each other there is
//     not asked about.
//   - Port 65535 is taken.
//
// It needs nf_tables with tproxy and reject, and packet sockets; nothing else of the host. When the caller's process is gone, new connections
// are refused, and those that were there end. A process in the container with CAP_NET_ADMIN can break its way out, and gets no other by it.

// EgressPolicy decides about one connection out of a container. It is called in a goroutine of the connection, with a ctx that ends when the container's
// program has given up, when the container ends, or after 30 seconds: then the answer is no. An error is a no as well, with a reason for the event,
// and so is a panic. The program is told at once by a refused connection.
//
// Whatever it says, addresses of the host's loopback and of links (169.254.169.254 is where clouds keep credentials), multicast
// and unspecified ones are refused, unless EgressDecision.Special is set.
type EgressPolicy func(ctx context.Context, r EgressRequest) (EgressDecision, error)

// EgressRequest is what a container's program wants.
type EgressRequest struct {
	// Network is "tcp" or "udp" for a connection or a flow of packets to Addr, "dns" for a question about a name.
	Network string
	// Addr is where to; not valid with "dns".
	Addr netip.AddrPort
	// Names are those that Addr was given out for, by our name server to this container and not longer ago than it was valid, the last first. With "dns", the name asked for. In lower
	// case, without a dot at the end. A program that knows an address otherwise has none. Who owns a name says where it leads, also to private
	// addresses: a policy that goes by names should look at Addr as well.
	Names []string
	// Source is the container's side.
	Source netip.AddrPort
	// Container is the container's id.
	Container string
	// Pid is the process in the caller's PID namespace; 0 if it is not known.
	Pid int
}

// EgressDecision is the answer. The zero value is no.
type EgressDecision struct {
	// Allow the connection.
	Allow bool
	// Conn is what the connection is joined with, and closed with it, wherever it leads: it is the policy's. If nil, Addr is dialed by the caller's process.
	Conn net.Conn
	// Addr is dialed instead of the request's; not valid means the request's.
	Addr netip.AddrPort
	// Special: addresses of loopback, links and the like may be dialed.
	Special bool
}

// EgressEvent is a decision that was made.
type EgressEvent struct {
	Time time.Time
	EgressRequest
	// Err is why the connection was refused or could not be made; nil if it was.
	Err error
}
