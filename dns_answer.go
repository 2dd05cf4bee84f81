package container

import (
	"context"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// This file makes answers to questions about names. It runs in the caller's process. Each message is taken apart and put together anew: nothing
// that this package does not understand gets from a program to a name server or back.

// Numbers of the protocol that dnsmessage has no names for.
const (
	typeDNAME = dnsmessage.Type(39)
	typeRRSIG = dnsmessage.Type(46)
	typeNSEC  = dnsmessage.Type(47)
	typeNSEC3 = dnsmessage.Type(50)
	typeIXFR  = dnsmessage.Type(251)

	rcodeBadVersion = dnsmessage.RCode(16) // RFC 6891

	optionExtendedError = 15 // RFC 8914
	extendedProhibited  = 18
)

// A dnsQuery is a question as it came.
type dnsQuery struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	name     string // in normal form
	source   netip.AddrPort
	stream   bool // it came by TCP

	edns     bool
	version  uint8
	size     int // of the largest packet that is taken
	dnssecOK bool
}

// answer returns the answer to a message, or nil if there is none to be given.
func (s *dnsServer) answer(msg []byte, source netip.AddrPort, stream bool) []byte {
	q := &dnsQuery{source: source, stream: stream, size: 512}
	rcode, ok := q.parse(msg)
	if !ok {
		return nil
	}
	var r dnsReply
	if rcode == dnsmessage.RCodeSuccess {
		r = s.reply(q)
	} else {
		r = dnsReply{rcode: rcode}
	}
	packed, err := q.pack(r)
	if err != nil {
		packed, _ = q.pack(dnsReply{rcode: dnsmessage.RCodeServerFailure})
	}
	return packed
}

// parse takes a message apart. It returns what is wrong with it, and false if it is not to be answered at all.
func (q *dnsQuery) parse(msg []byte) (dnsmessage.RCode, bool) {
	var p dnsmessage.Parser
	var err error
	if q.header, err = p.Start(msg); err != nil || q.header.Response {
		return 0, false
	}
	if q.header.OpCode != 0 {
		return dnsmessage.RCodeNotImplemented, true
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return dnsmessage.RCodeFormatError, true
	}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return dnsmessage.RCodeFormatError, true
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			break
		}
		if err != nil || p.SkipAdditional() != nil || h.Type == dnsmessage.TypeOPT && q.edns {
			return dnsmessage.RCodeFormatError, true
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns, q.version, q.dnssecOK = true, uint8(h.TTL>>16), h.DNSSECAllowed()
			q.size = max(512, int(h.Class))
		}
	}
	q.question = questions[0]
	q.name = normalName(q.question.Name.String())
	switch {
	case q.version != 0:
		return rcodeBadVersion, true
	case q.question.Class != dnsmessage.ClassINET, q.question.Type == dnsmessage.TypeAXFR, q.question.Type == typeIXFR, !plainName(q.name):
		return dnsmessage.RCodeRefused, true
	}
	return dnsmessage.RCodeSuccess, true
}

// plainName tells whether a name is text. Others exist, but not for what containers look up, and policies and logs are to be spared them.
func plainName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' || r == '"' })
}

// A dnsReply is what a question is answered with.
type dnsReply struct {
	rcode       dnsmessage.RCode
	refused     bool // by a policy
	genuine     bool // the upstream has verified it
	answers     []dnsmessage.Resource
	authorities []dnsmessage.Resource
	given       []givenAddr
}

// reply finds the answer.
func (s *dnsServer) reply(q *dnsQuery) dnsReply {
	if r, ok := s.localReply(q); ok {
		return r
	}
	if s.allow != nil && s.allow(s.ctx, q.name, q.source) != nil {
		return dnsReply{rcode: dnsmessage.RCodeRefused, refused: true}
	}
	ctx, cancel := context.WithTimeout(s.ctx, dnsTime)
	defer cancel()
	r := s.forward(ctx, q)
	if s.book != nil {
		for _, g := range r.given {
			s.book.note(q.name, g.addr, g.valid)
		}
	}
	return r
}

// localReply answers what needs nobody else.
func (s *dnsServer) localReply(q *dnsQuery) (dnsReply, bool) {
	if q.name == "localhost" || strings.HasSuffix(q.name, ".localhost") { // RFC 6761, 6.3
		return q.addresses([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}), true
	}
	if s.local != nil {
		if addrs, ok := s.local(q.name); ok {
			return q.addresses(addrs), true
		}
	}
	if addr, ok := reverseAddr(q.name); ok && s.reverse != nil {
		if name, ok := s.reverse(addr); ok {
			target, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
			if err == nil && (q.question.Type == dnsmessage.TypePTR || q.question.Type == dnsmessage.TypeALL) {
				return dnsReply{answers: []dnsmessage.Resource{q.resource(&dnsmessage.PTRResource{PTR: target})}}, true
			}
			return dnsReply{}, true
		}
	}
	return dnsReply{}, false
}

// addresses is the answer of a name that has these.
func (q *dnsQuery) addresses(addrs []netip.Addr) (r dnsReply) {
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case a.Is4() && (q.question.Type == dnsmessage.TypeA || q.question.Type == dnsmessage.TypeALL):
			r.answers = append(r.answers, q.resource(&dnsmessage.AResource{A: a.As4()}))
		case a.Is6() && (q.question.Type == dnsmessage.TypeAAAA || q.question.Type == dnsmessage.TypeALL):
			r.answers = append(r.answers, q.resource(&dnsmessage.AAAAResource{AAAA: a.As16()}))
		}
	}
	return r
}

// resource is a record of the name that was asked for. It holds for a moment only: containers come and go.
func (q *dnsQuery) resource(body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: 1}, Body: body}
}

// reverseAddr is the address whose name is asked for by the name of a PTR record.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var hex strings.Builder
	for i := 62; i >= 0; i -= 2 {
		if i < 62 && rest[i+1] != '.' {
			return netip.Addr{}, false
		}
		hex.WriteByte(rest[i])
		if i%8 == 0 && i > 0 {
			hex.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(hex.String())
	return a, err == nil && a.Is6()
}

// pack puts an answer together.
func (q *dnsQuery) pack(r dnsReply) ([]byte, error) {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RCode: r.rcode & 0xf,
			RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, CheckingDisabled: q.header.CheckingDisabled,
			AuthenticData: r.genuine && (q.dnssecOK || q.header.AuthenticData),
		},
		Answers: r.answers, Authorities: r.authorities,
	}
	if q.question.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{q.question}
	}
	if q.edns {
		var opt dnsmessage.Resource
		if err := opt.Header.SetEDNS0(maxUDPAnswer, r.rcode, q.dnssecOK); err != nil {
			return nil, err
		}
		body := &dnsmessage.OPTResource{}
		if r.refused {
			body.Options = []dnsmessage.Option{{Code: optionExtendedError, Data: []byte{0, extendedProhibited}}}
		}
		opt.Body = body
		m.Additionals = []dnsmessage.Resource{opt}
	}
	packed, err := m.Pack()
	limit := 1<<16 - 1
	if !q.stream {
		limit = min(q.size, maxUDPAnswer)
	}
	if err != nil || len(packed) <= limit {
		return packed, err
	}
	if q.stream {
		m.RCode = dnsmessage.RCodeServerFailure
	}
	m.Truncated, m.Answers, m.Authorities = !q.stream, nil, nil
	return m.Pack()
}
