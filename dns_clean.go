package container

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// This file takes from the answer of a name server what belongs to the question, and which addresses it gives out. It runs in the caller's process; it
// is pure.

// maxChain is the number of aliases that are followed.
const maxChain = 16

// A givenAddr is an address in an answer.
type givenAddr struct {
	addr  netip.Addr
	valid time.Duration
}

// cleanReply keeps the records of the name that was asked for and of what it is an alias of, and of the rest what says why there are none.
func cleanReply(q *dnsQuery, msg *dnsmessage.Message) dnsReply {
	r := dnsReply{rcode: msg.RCode, genuine: msg.AuthenticData}
	if !q.extendedOK(msg) {
		return dnsReply{rcode: dnsmessage.RCodeServerFailure}
	}
	chain, valid := aliasChain(q.name, msg.Answers)
	for _, res := range msg.Answers {
		owner := normalName(res.Header.Name.String())
		on := slices.Contains(chain, owner)
		switch {
		case res.Header.Class != dnsmessage.ClassINET, res.Header.Type == dnsmessage.TypeOPT:
			continue
		case res.Header.Type == typeDNAME, res.Header.Type == typeRRSIG:
			// Owned by what is above a name of the chain.
			on = on || slices.ContainsFunc(chain, func(name string) bool { return owner == "." || strings.HasSuffix(name, "."+owner) })
		}
		if !on {
			continue
		}
		res.Header.TTL = min(res.Header.TTL, uint32(maxNameTime/time.Second))
		r.answers = append(r.answers, res)
		for _, a := range addressesIn(res.Body) {
			r.given = append(r.given, givenAddr{a, time.Duration(min(valid, res.Header.TTL)) * time.Second})
		}
	}
	for _, res := range msg.Authorities {
		switch res.Header.Type {
		case dnsmessage.TypeSOA, typeNSEC, typeNSEC3, typeRRSIG:
			if res.Header.Class == dnsmessage.ClassINET {
				res.Header.TTL = min(res.Header.TTL, uint32(maxNameTime/time.Second))
				r.authorities = append(r.authorities, res)
			}
		}
	}
	return r
}

// extendedOK tells whether the answer's code is all in its header.
func (q *dnsQuery) extendedOK(msg *dnsmessage.Message) bool {
	return !slices.ContainsFunc(msg.Additionals, func(res dnsmessage.Resource) bool {
		return res.Header.Type == dnsmessage.TypeOPT && res.Header.ExtendedRCode(msg.RCode) > 0xf
	})
}

// aliasChain returns the name, what it is an alias of, and so on, and how long all of that is valid in seconds.
func aliasChain(name string, answers []dnsmessage.Resource) (chain []string, valid uint32) {
	chain, valid = []string{name}, math.MaxUint32
	for len(chain) < maxChain {
		i := slices.IndexFunc(answers, func(res dnsmessage.Resource) bool {
			return res.Header.Type == dnsmessage.TypeCNAME && res.Header.Class == dnsmessage.ClassINET && normalName(res.Header.Name.String()) == name
		})
		if i < 0 {
			break
		}
		alias, ok := answers[i].Body.(*dnsmessage.CNAMEResource)
		if !ok {
			break
		}
		name = normalName(alias.CNAME.String())
		if slices.Contains(chain, name) {
			break
		}
		chain, valid = append(chain, name), min(valid, answers[i].Header.TTL)
	}
	return chain, valid
}

// addressesIn returns the addresses that a program may connect to because of a record: those of hosts, and the hints of services (RFC 9460).
func addressesIn(body dnsmessage.ResourceBody) (addrs []netip.Addr) {
	hints := func(params []dnsmessage.SVCParam) {
		for _, p := range params {
			size := map[dnsmessage.SVCParamKey]int{dnsmessage.SVCParamIPv4Hint: 4, dnsmessage.SVCParamIPv6Hint: 16}[p.Key]
			if size == 0 {
				continue
			}
			for b := range slices.Chunk(p.Value, size) {
				if a, ok := netip.AddrFromSlice(b); ok && len(b) == size {
					addrs = append(addrs, a)
				}
			}
		}
	}
	switch b := body.(type) {
	case *dnsmessage.AResource:
		addrs = append(addrs, netip.AddrFrom4(b.A))
	case *dnsmessage.AAAAResource:
		addrs = append(addrs, netip.AddrFrom16(b.AAAA))
	case *dnsmessage.SVCBResource:
		hints(b.Params)
	case *dnsmessage.HTTPSResource:
		hints(b.Params)
	}
	return addrs
}

// as returns the reply with the name in the case in which it was asked for: the server was asked in another, and some programs compare.
func (r dnsReply) as(q *dnsQuery) dnsReply {
	r.answers = slices.Clone(r.answers)
	for i := range r.answers {
		if h := &r.answers[i].Header; normalName(h.Name.String()) == q.name {
			h.Name = q.question.Name
		}
	}
	return r
}
