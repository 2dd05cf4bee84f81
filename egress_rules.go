package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// This file is the language of NetworkConfig.EgressAllow: it reads rules from text, and matches them. It runs in the caller's process.

// EgressRule allows connections to a name or to addresses. Its text is read by [ParseEgressRule].
type EgressRule struct {
	// Network is "tcp" or "udp". If empty, "tcp".
	Network string
	// Name is a host's name, "example.com", or "*.example.com" for all names below that one, at any depth, but not example.com itself, or
	// "*" for any name. Exactly one of Name and Prefix is set.
	//
	// It is a rule about the addresses that our name server has given out for the name, as long as they are valid. It does not open private
	// addresses (RFC 1918, fc00::/7, 100.64.0.0/10, 198.18.0.0/15) nor those of this host, whatever the name resolves to: who owns the name
	// could point it anywhere. For these write a rule with a Prefix. If the name is an alias, it is the name that was asked for that counts.
	Name string
	// Prefix are the addresses. 0.0.0.0/0 is all of IPv4, private ones as well.
	Prefix netip.Prefix
	// FirstPort and LastPort are the ports. If LastPort is zero, it is FirstPort; if both are, all ports.
	FirstPort, LastPort uint16
}

// ParseEgressRule reads a rule as it stands in NetworkConfig.EgressAllow:
//
//	example.com               a name, any TCP port
//	example.com:443           one port
//	*.example.com:80-90       the names below, a range of ports
//	*:443                     any name
//	192.0.2.1:22              an address
//	192.0.2.0/24              a network
//	[2001:db8::1]:443         IPv6 with a port, also [2001:db8::/32]:443
//	2001:db8::/32             and without
//	udp:192.0.2.53:53         UDP instead of TCP
//
// Names are compared without regard to case and to a dot at the end. Names with other letters than those of ASCII are written as they are on
// the wire, "xn--bcher-kva.example". The error is a *[FieldError].
//
// Addresses that no rule opens are refused here: loopback, link-local, multicast, and those where clouds keep credentials. For these there is
// EgressDecision.Special.
func ParseEgressRule(s string) (EgressRule, error) {
	bad := func(format string, args ...any) (EgressRule, error) {
		return EgressRule{}, fieldErrorf("EgressRule", "%.300q: %s", s, fmt.Sprintf(format, args...))
	}
	var r EgressRule
	rest := s
	for _, network := range []string{"tcp", "udp"} {
		if after, ok := strings.CutPrefix(s, network+":"); ok {
			r.Network, rest = network, after
		}
	}
	host, ports, hasPorts := rest, "", false
	inside, bracket := strings.CutPrefix(rest, "[")
	switch {
	case bracket:
		var after string
		var closed bool
		if host, after, closed = strings.Cut(inside, "]"); !closed {
			return bad("there is no ] after [")
		}
		if ports, hasPorts = strings.CutPrefix(after, ":"); !hasPorts && after != "" {
			return bad("after ] there can be a port only: [2001:db8::/32]:443")
		}
		if !strings.Contains(host, ":") {
			return bad("in brackets there must be an IPv6 address")
		}
	case strings.Count(rest, ":") < 2:
		host, ports, hasPorts = strings.Cut(rest, ":")
	}
	if hasPorts {
		var ok bool
		if r.FirstPort, r.LastPort, ok = parseRulePorts(ports); !ok {
			return bad("%q is not a port from 1 to 65535, or a range of them, 80-90", ports)
		}
	}
	switch {
	case strings.Contains(host, "/"):
		p, err := netip.ParsePrefix(host)
		if err != nil {
			return bad("%q is not a network; write 192.0.2.0/24, or [2001:db8::/32]:443", host)
		}
		r.Prefix = p
	case strings.Contains(host, ":") || isDottedNumber(host):
		a, err := netip.ParseAddr(host)
		if err != nil {
			return bad("%q is not an address; write 192.0.2.1, or [2001:db8::1]:443", host)
		}
		r.Prefix = netip.PrefixFrom(a, a.BitLen())
		if a.Zone() != "" {
			return bad("addresses of links cannot be allowed")
		}
	default:
		r.Name = normalName(host)
	}
	if problem := r.problem(); problem != "" {
		return bad("%s", problem)
	}
	return r, nil
}

// isDottedNumber tells whether text looks like an IPv4 address in any of the forms that programs have taken for one: its last part is a number.
func isDottedNumber(s string) bool {
	last := strings.TrimSuffix(s, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil || last != "" && strings.Trim(last, "0123456789") == ""
}

// parseRulePorts reads a port or a range of ports.
func parseRulePorts(s string) (first, last uint16, ok bool) {
	from, to, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil || a == 0 {
		return 0, 0, false
	}
	if !isRange {
		return uint16(a), 0, true
	}
	b, err := strconv.ParseUint(to, 10, 16)
	return uint16(a), uint16(b), err == nil && b >= a
}

// problem says what is wrong with a rule; "" if nothing is.
func (r EgressRule) problem() string {
	switch r.Network {
	case "", "tcp", "udp":
	default:
		return fmt.Sprintf("the network %q is neither tcp nor udp", r.Network)
	}
	switch {
	case r.LastPort != 0 && r.LastPort < r.FirstPort, r.FirstPort == 0 && r.LastPort != 0:
		return fmt.Sprintf("%d-%d is not a range of ports", r.FirstPort, r.LastPort)
	case r.Name == "" && !r.Prefix.IsValid(), r.Name != "" && r.Prefix.IsValid():
		return "there must be either a name or a network"
	case r.Name != "":
		return nameProblem(r.Name)
	case r.Prefix != r.Prefix.Masked():
		return fmt.Sprintf("%s has bits that its length does not cover; write %s", r.Prefix, r.Prefix.Masked())
	case r.Prefix.Addr().Is4In6():
		return "write the IPv4 address itself"
	}
	for _, special := range specialRanges {
		if special.prefix.Bits() <= r.Prefix.Bits() && special.prefix.Contains(r.Prefix.Addr()) {
			return fmt.Sprintf("%s is %s, which no rule opens; use an EgressPolicy that sets Special", r.Prefix, special.what)
		}
	}
	if r.Prefix.IsSingleIP() {
		if what := specialAddress(r.Prefix.Addr()); what != "" {
			return fmt.Sprintf("%s is %s, which no rule opens; use an EgressPolicy that sets Special", r.Prefix.Addr(), what)
		}
	}
	return ""
}

// nameProblem says what is wrong with the name of a rule, which is in normal form.
func nameProblem(name string) string {
	if name == "*" {
		return ""
	}
	base := strings.TrimPrefix(name, "*.")
	if len(base) > 253 {
		return "the name is longer than 253 bytes"
	}
	for label := range strings.SplitSeq(base, ".") {
		if label == "" || len(label) > 63 {
			return "between dots there must be 1 to 63 letters"
		}
		for _, c := range []byte(label) {
			switch {
			case c == '*':
				return "a * can only be the whole first part of a name: *.example.com"
			case c >= 0x80:
				return "write the name in ASCII, as it is on the wire: xn--bcher-kva.example"
			case c != '-' && c != '_' && !('a' <= c && c <= 'z') && !('0' <= c && c <= '9'):
				return fmt.Sprintf("%q cannot be in a host's name", c)
			}
		}
	}
	if isDottedNumber(base) {
		return "a name does not end with a number"
	}
	return ""
}

// normalName is the form in which names are compared.
func normalName(name string) string {
	lower := []byte(name)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A' // ASCII only, as in DNS
		}
	}
	if len(lower) > 1 {
		return strings.TrimSuffix(string(lower), ".")
	}
	return string(lower)
}

// String returns the rule as ParseEgressRule reads it.
func (r EgressRule) String() string {
	var b strings.Builder
	if r.Network == "udp" {
		b.WriteString("udp:")
	}
	host := r.Name
	if r.Prefix.IsValid() {
		host = r.Prefix.String()
		if r.Prefix.IsSingleIP() {
			host = r.Prefix.Addr().String()
		}
		if r.Prefix.Addr().Is6() {
			host = "[" + host + "]"
		}
	}
	b.WriteString(host)
	if r.FirstPort != 0 {
		fmt.Fprintf(&b, ":%d", r.FirstPort)
		if r.LastPort > r.FirstPort {
			fmt.Fprintf(&b, "-%d", r.LastPort)
		}
	}
	return b.String()
}

// allows tells whether the rule allows what is asked.
func (r EgressRule) allows(q EgressRequest) bool {
	return r.meets(q) && (q.Network == "dns" || r.Name == "" || privateAddress(q.Addr.Addr().Unmap()) == "")
}

// meets tells whether what is asked is what the rule is about.
func (r EgressRule) meets(q EgressRequest) bool {
	if q.Network == "dns" {
		return slices.ContainsFunc(q.Names, r.matches)
	}
	if cmp.Or(r.Network, "tcp") != q.Network || !r.allowsPort(q.Addr.Port()) {
		return false
	}
	if r.Prefix.IsValid() {
		return r.Prefix.Contains(q.Addr.Addr().Unmap())
	}
	return slices.ContainsFunc(q.Names, r.matches)
}

func (r EgressRule) allowsPort(port uint16) bool {
	last := max(r.FirstPort, r.LastPort)
	return last == 0 || r.FirstPort <= port && port <= last
}

// matches tells whether the rule is about a name.
func (r EgressRule) matches(name string) bool {
	suffix, wild := strings.CutPrefix(r.Name, "*")
	switch {
	case r.Name == "": // the rule is about addresses
		return false
	case wild:
		return len(name) > len(suffix) && strings.HasSuffix(name, suffix)
	}
	return name == r.Name
}

// AllowEgress returns a policy that allows what any of the rules does, and nothing else; see [ParseEgressRule]. It is for policies that are put
// together from others: a list alone is better in NetworkConfig.EgressAllow, which is stored. The error names each rule that is wrong.
func AllowEgress(rules ...string) (EgressPolicy, error) {
	parsed, err := parseEgressRules("EgressAllow", rules)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, r EgressRequest) (EgressDecision, error) {
		return EgressDecision{Allow: slices.ContainsFunc(parsed, func(rule EgressRule) bool { return rule.allows(r) })}, nil
	}, nil
}

// parseEgressRules reads a list of rules, the field of that name.
func parseEgressRules(field string, rules []string) ([]EgressRule, error) {
	var parsed []EgressRule
	var bad fieldErrors
	for i, text := range rules {
		r, err := ParseEgressRule(text)
		if err != nil {
			var wrong *FieldError
			if errors.As(err, &wrong) {
				err = &FieldError{Field: index(field, i), Problem: wrong.Problem}
			}
			bad.add(err)
			continue
		}
		parsed = append(parsed, r)
	}
	return parsed, bad.join()
}

// DenyEgress is a policy that allows nothing, as if there were none.
func DenyEgress(context.Context, EgressRequest) (EgressDecision, error) {
	return EgressDecision{}, nil
}

// AllowAllEgress is a policy that allows everything: any name, and any address that the caller's process can reach, those of private networks
// and of this host's devices among them. Loopback, link-local and metadata addresses stay refused.
func AllowAllEgress(context.Context, EgressRequest) (EgressDecision, error) {
	return EgressDecision{Allow: true}, nil
}
