package container

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// This file asks the name servers of the host. It runs in the caller's process, in the caller's network.

const (
	dnsPort = 53
	// dnsTry is how long one server has for its answer to a packet, dnsTryTCP for one on a connection.
	dnsTry, dnsTryTCP = 2 * time.Second, 4 * time.Second
	// dnsSize is the largest packet that servers are asked for; a larger one could come in fragments, which are easier to forge.
	dnsSize = 1232
	// maxForged is the number of wrong answers to a packet after which it is asked again by TCP: somebody is guessing.
	maxForged = 8
)

// dnsKey is what makes a question the same as another.
type dnsKey struct {
	name                               string
	typ                                dnsmessage.Type
	dnssecOK, checkingDisabled, wantAD bool
}

// A dnsFlight is a question that a server is being asked, with those that wait for its answer. So a container cannot have the same question
// asked many times at once, which is what makes forging an answer easy.
type dnsFlight struct {
	done  chan struct{}
	reply dnsReply
}

// forward asks the upstreams, or waits for who does already.
func (s *dnsServer) forward(ctx context.Context, q *dnsQuery) dnsReply {
	key := dnsKey{q.name, q.question.Type, q.dnssecOK, q.header.CheckingDisabled, q.header.AuthenticData}
	s.mu.Lock()
	f, flying := s.flights[key]
	if !flying {
		f = &dnsFlight{done: make(chan struct{}), reply: dnsReply{rcode: dnsmessage.RCodeServerFailure}}
		s.flights[key] = f
	}
	s.mu.Unlock()
	if !flying {
		defer func() {
			s.mu.Lock()
			delete(s.flights, key)
			s.mu.Unlock()
			close(f.done)
		}()
		if msg, err := askUpstreams(ctx, s.upstreams(), key); err == nil {
			f.reply = cleanReply(q, msg)
		}
	} else {
		select {
		case <-f.done:
		case <-ctx.Done():
			return dnsReply{rcode: dnsmessage.RCodeServerFailure}
		}
	}
	return f.reply.as(q)
}

// askUpstreams asks each server in turn, twice. An answer that says that the server could not answer counts if there is no other.
func askUpstreams(ctx context.Context, servers []netip.AddrPort, key dnsKey) (*dnsmessage.Message, error) {
	var failed *dnsmessage.Message
	err := errors.New("no name server")
	for range 2 {
		for _, server := range servers {
			var msg *dnsmessage.Message
			if msg, err = askUpstream(ctx, server, key); err == nil {
				if msg.RCode == dnsmessage.RCodeSuccess || msg.RCode == dnsmessage.RCodeNameError {
					return msg, nil
				}
				failed = msg
			}
			if ctx.Err() != nil {
				return failed, cmp.Or(err, ctx.Err())
			}
		}
		if failed != nil {
			return failed, nil
		}
	}
	return nil, err
}

// askUpstream asks one server: by UDP, and by TCP if the answer did not fit, or if it is not certain whose it is. A server that does not know EDNS is asked
// without, and one that neither keeps the case of letters nor knows TCP with small ones.
func askUpstream(ctx context.Context, server netip.AddrPort, key dnsKey) (*dnsmessage.Message, error) {
	how := upstreamWay{edns: true, mixed: true}
	for range 3 {
		msg, err := askByUDP(ctx, server, key, how)
		if err == errAskByTCP || err == errOtherCase {
			otherCase := err == errOtherCase
			if msg, err = askByTCP(ctx, server, key, how); err != nil && otherCase {
				how.mixed = false
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		if how.edns && (msg.RCode == dnsmessage.RCodeFormatError || msg.RCode == dnsmessage.RCodeNotImplemented) {
			how.edns = false
			continue
		}
		return msg, nil
	}
	return nil, errors.New("the server does not understand")
}

// An upstreamWay is how a server is asked.
type upstreamWay struct{ edns, mixed bool }

// errAskByTCP is returned for an answer that is not complete, or not certain; errOtherCase for one that is not certain because of its letters.
var (
	errAskByTCP  = errors.New("to be asked by TCP")
	errOtherCase = errors.New("the letters have another case")
)

// upstreamQuery makes a question with a random number, and with random case of its letters, which a server repeats: who wants to forge an answer must
// guess both, and the port.
func upstreamQuery(key dnsKey, how upstreamWay) (packed []byte, id uint16, question dnsmessage.Question, err error) {
	var random [34]byte
	rand.Read(random[:])
	id = binary.BigEndian.Uint16(random[:])
	text := []byte(strings.TrimSuffix(key.name, ".") + ".")
	for i, c := range text {
		if how.mixed && 'a' <= c && c <= 'z' && random[2+i/8%32]>>(i%8)&1 == 1 {
			text[i] = c - 'a' + 'A'
		}
	}
	name, err := dnsmessage.NewName(string(text))
	if err != nil {
		return nil, 0, question, err
	}
	question = dnsmessage.Question{Name: name, Type: key.typ, Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true, CheckingDisabled: key.checkingDisabled, AuthenticData: key.wantAD},
		Questions: []dnsmessage.Question{question},
	}
	if how.edns {
		opt := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
		if err := opt.Header.SetEDNS0(dnsSize, 0, key.dnssecOK); err != nil {
			return nil, 0, question, err
		}
		m.Additionals = []dnsmessage.Resource{opt}
	}
	packed, err = m.Pack()
	return packed, id, question, err
}

// askByUDP sends a packet from a port that the kernel has chosen for it alone, and waits for the answer.
func askByUDP(ctx context.Context, server netip.AddrPort, key dnsKey, how upstreamWay) (*dnsmessage.Message, error) {
	packed, id, question, err := upstreamQuery(key, how)
	if err != nil {
		return nil, err
	}
	c, stop, err := dialUpstream(ctx, "udp", server, dnsTry)
	if err != nil {
		return nil, err
	}
	defer stop()
	if _, err := c.Write(packed); err != nil {
		return nil, err
	}
	buf := make([]byte, maxUDPAnswer)
	for range maxForged {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		msg, ok := parseUpstream(buf[:n], id, question)
		switch {
		case !ok: // somebody else's
		case msg == nil, msg.Truncated:
			return nil, errAskByTCP
		case msg.Questions[0].Name != question.Name:
			return nil, errOtherCase
		default:
			return msg, nil
		}
	}
	return nil, errAskByTCP
}

// askByTCP asks on a connection of its own.
func askByTCP(ctx context.Context, server netip.AddrPort, key dnsKey, how upstreamWay) (*dnsmessage.Message, error) {
	packed, id, question, err := upstreamQuery(key, how)
	if err != nil {
		return nil, err
	}
	c, stop, err := dialUpstream(ctx, "tcp", server, dnsTryTCP)
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := writeDNSMessage(c, packed); err != nil {
		return nil, err
	}
	answer, err := readDNSMessage(c)
	if err != nil {
		return nil, err
	}
	msg, ok := parseUpstream(answer, id, question)
	if !ok || msg == nil || msg.Truncated {
		return nil, fmt.Errorf("%s has sent something else than an answer", server)
	}
	return msg, nil
}

// dialUpstream connects to a server. The connection ends after a time, with ctx, and with stop.
func dialUpstream(ctx context.Context, network string, server netip.AddrPort, limit time.Duration) (c net.Conn, stop func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	d := net.Dialer{}
	if c, err = d.DialContext(ctx, network, server.String()); err != nil {
		cancel()
		return nil, nil, err
	}
	ended := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	return c, func() { ended(); cancel(); c.Close() }, nil
}

// parseUpstream reads an answer. It returns false for what is not an answer to the question, whoever sent it, and no message for an answer that cannot be read.
func parseUpstream(packed []byte, id uint16, question dnsmessage.Question) (*dnsmessage.Message, bool) {
	var p dnsmessage.Parser
	h, err := p.Start(packed)
	if err != nil || h.ID != id || !h.Response || h.OpCode != 0 {
		return nil, false
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) > 1 {
		return nil, false
	}
	if len(questions) == 0 {
		// Some servers leave it out of errors.
		return &dnsmessage.Message{Header: h, Questions: []dnsmessage.Question{question}}, h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError
	}
	q := questions[0]
	if q.Type != question.Type || q.Class != question.Class || !sameName(q.Name, question.Name) {
		return nil, false
	}
	if h.Truncated {
		return &dnsmessage.Message{Header: h, Questions: questions}, true
	}
	msg := new(dnsmessage.Message)
	if msg.Unpack(packed) != nil {
		return nil, true
	}
	return msg, true
}

// sameName tells whether two names are the same but for their case.
func sameName(a, b dnsmessage.Name) bool { return normalName(a.String()) == normalName(b.String()) }

// resolvConfPath is where the host says which name servers it uses; see resolv.conf(5).
const resolvConfPath = "/etc/resolv.conf"

// hostUpstreams are the name servers of the host.
func hostUpstreams() []netip.AddrPort {
	f, err := os.Open(resolvConfPath)
	if err != nil {
		return resolvConfServers("")
	}
	defer f.Close()
	var text strings.Builder
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		text.WriteString(lines.Text() + "\n")
	}
	return resolvConfServers(text.String())
}

// resolvConfServers are the name servers in the text of a resolv.conf(5); without one it is the host itself, as for the C library. Of more than three the
// rest is left out, as there.
func resolvConfServers(text string) (servers []netip.AddrPort) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(servers) == 3 {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, dnsPort))
		}
	}
	if len(servers) == 0 {
		servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	return servers
}

// upstreamsOf are the servers that a container's questions are forwarded to.
func upstreamsOf(n *NetworkConfig) func() []netip.AddrPort {
	if len(n.DNS) == 0 {
		return hostUpstreams
	}
	var servers []netip.AddrPort
	for _, a := range n.DNS {
		servers = append(servers, netip.AddrPortFrom(a, dnsPort))
	}
	return func() []netip.AddrPort { return servers }
}
