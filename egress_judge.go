package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// This file decides about what a container wants to reach: first the list, then the caller's policy, then what holds whatever these say. It runs
// in the caller's process, in the goroutine of each connection.

// ErrEgressDenied is wrapped by EgressEvent.Err where the answer was no; the policy's own error is wrapped as well.
var ErrEgressDenied = errors.New("connection out of the container denied")

// judgeTime is how long a policy may think about one connection.
const judgeTime = 30 * time.Second

// maxDenialLines is how many denied connections a second are logged: a container can make any number.
const maxDenialLines = 10

// An egressJudge decides for one container. It is safe for concurrent use.
type egressJudge struct {
	id      string
	rules   []EgressRule
	policy  EgressPolicy
	onEvent func(EgressEvent)
	log     *slog.Logger
	book    *nameBook
	limit   time.Duration

	deciding chan struct{} // filled by policies at work, also by those that nobody waits for any more
	telling  chan struct{} // filled by OnEgress at work

	mu       sync.Mutex
	second   time.Time // in which lines of denials are counted
	lines    int
	untold   int // events that OnEgress had no room for
	unlogged int // lines that were left out
}

// newEgressJudge is the judge of a container. The configuration has been checked.
func newEgressJudge(id string, n *NetworkConfig, log *slog.Logger) *egressJudge {
	limit := n.MaxConnections
	if limit == 0 {
		limit = defaultMaxConnections
	}
	rules, err := parseEgressRules("Network.EgressAllow", n.EgressAllow)
	if err != nil {
		log.Warn("rules that cannot be read allow nothing", "id", id, "err", err)
	}
	return &egressJudge{
		id: id, rules: rules, policy: n.Egress, onEvent: n.OnEgress, log: log, book: new(nameBook), limit: judgeTime,
		deciding: make(chan struct{}, limit), telling: make(chan struct{}, limit),
	}
}

// decide answers a request, whose Container and Names it fills in. Without an error the connection is allowed, and either Conn or Addr of the
// decision is set. The error wraps ErrEgressDenied.
func (j *egressJudge) decide(ctx context.Context, r EgressRequest) (EgressDecision, error) {
	r = j.complete(r)
	if slices.ContainsFunc(j.rules, func(rule EgressRule) bool { return rule.allows(r) }) {
		return j.guard(r, EgressDecision{Allow: true, Addr: r.Addr})
	}
	if j.policy == nil {
		return EgressDecision{}, j.denied(r, j.whyNoRule(r))
	}
	d, err := j.ask(ctx, r)
	if err == nil && !d.Allow {
		err = errNotAllowed
	}
	if err != nil {
		d.discard()
		return EgressDecision{}, j.denied(r, err)
	}
	return j.guard(r, d)
}

// whyNoRule says why no rule allows a request, if that is not plain.
func (j *egressJudge) whyNoRule(r EgressRequest) error {
	for _, rule := range j.rules {
		if what := privateAddress(r.Addr.Addr()); what != "" && rule.Name != "" && rule.meets(r) {
			return fmt.Errorf("%s is %s, which the rule %q does not open: that needs a rule with the address", r.Addr.Addr(), what, rule)
		}
	}
	return errors.New("no rule allows it")
}

var errNotAllowed = errors.New("the policy does not allow it")

// complete fills in what the judge knows about a request.
func (j *egressJudge) complete(r EgressRequest) EgressRequest {
	r.Container = j.id
	if r.Addr.IsValid() {
		r.Addr = netip.AddrPortFrom(r.Addr.Addr().Unmap(), r.Addr.Port())
	}
	if r.Source.IsValid() {
		r.Source = netip.AddrPortFrom(r.Source.Addr().Unmap(), r.Source.Port())
	}
	if r.Network != "dns" {
		r.Names = j.book.names(r.Addr.Addr())
	}
	return r
}

// guard refuses what no policy means when it allows something.
func (j *egressJudge) guard(r EgressRequest, d EgressDecision) (EgressDecision, error) {
	if r.Network == "dns" {
		d.discard()
		return EgressDecision{Allow: true}, nil
	}
	if !d.Addr.IsValid() {
		d.Addr = r.Addr
	}
	if d.Conn != nil { // nothing is dialed
		return d, nil
	}
	to := d.Addr.Addr().Unmap()
	if what := specialAddress(to); what != "" && !d.Special {
		return EgressDecision{}, j.denied(r, fmt.Errorf("%s is %s", to, what))
	}
	d.Addr = netip.AddrPortFrom(to, d.Addr.Port())
	return d, nil
}

// denied is the error for a request whose answer is no.
func (j *egressJudge) denied(r EgressRequest, why error) error {
	return &Error{Op: "egress", ID: j.id, Path: r.target(), Err: fmt.Errorf("%w: %w", ErrEgressDenied, why)}
}

// target is what is wanted, as text: "tcp 192.0.2.1:443", "dns example.com".
func (r EgressRequest) target() string {
	if r.Network == "dns" {
		return fmt.Sprintf("dns %s", append(slices.Clip(r.Names), "?")[0])
	}
	return r.Network + " " + r.Addr.String()
}

// discard closes what a decision brought, where it is not followed.
func (d EgressDecision) discard() {
	if d.Conn != nil {
		d.Conn.Close()
	}
}

// ask calls the policy. It does not wait for one that does not mind its ctx; what that answers later is thrown away.
func (j *egressJudge) ask(ctx context.Context, r EgressRequest) (EgressDecision, error) {
	select {
	case j.deciding <- struct{}{}:
	default:
		return EgressDecision{}, fmt.Errorf("%d calls of the policy have not returned", cap(j.deciding))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.limit, fmt.Errorf("the policy has not answered within %v: %w", j.limit, context.DeadlineExceeded))
	defer cancel()
	type answer struct {
		d   EgressDecision
		err error
	}
	answers := make(chan answer)
	go func() {
		defer func() { <-j.deciding }()
		a := answer{err: errors.New("the policy has ended its goroutine")}
		defer func() {
			if p := recover(); p != nil {
				a = answer{err: fmt.Errorf("the policy has panicked: %v", p)}
				j.log.Error("the egress policy has panicked", "id", j.id, "panic", p, "stack", string(debug.Stack()))
			}
			select {
			case answers <- a:
			case <-ctx.Done():
				a.d.discard()
			}
		}()
		a.d, a.err = j.policy(ctx, r)
	}()
	select {
	case a := <-answers:
		return a.d, a.err
	case <-ctx.Done():
		return EgressDecision{}, context.Cause(ctx)
	}
}

// allowName is decide for a name, with an event: what a name server asks.
func (j *egressJudge) allowName(ctx context.Context, name string, source netip.AddrPort) error {
	r := EgressRequest{Network: "dns", Names: []string{name}, Source: source}
	_, err := j.decide(ctx, r)
	j.report(r, err)
	return err
}

// nameServer is a name server that answers what the judge allows, and whose answers its rules by name hold for. It has no socket yet.
func (j *egressJudge) nameServer(n *NetworkConfig) *dnsServer {
	return newDNSServer(dnsOptions{allow: j.allowName, upstreams: upstreamsOf(n), book: j.book})
}

// report tells of a decision, whose error is nil for a connection that was made. It does not wait for anybody.
func (j *egressJudge) report(r EgressRequest, err error) {
	r = j.complete(r)
	j.logEvent(r, err)
	if j.onEvent == nil {
		return
	}
	select {
	case j.telling <- struct{}{}:
	default:
		j.mu.Lock()
		j.untold++
		first := j.untold == 1
		j.mu.Unlock()
		if first {
			j.log.Warn("OnEgress does not return, and is not told of each connection any more", "id", j.id, "calls", cap(j.telling))
		}
		return
	}
	event := EgressEvent{Time: time.Now(), EgressRequest: r, Err: err}
	go func() {
		defer func() {
			if p := recover(); p != nil {
				j.log.Error("OnEgress has panicked", "id", j.id, "panic", p, "stack", string(debug.Stack()))
			}
			<-j.telling
		}()
		j.onEvent(event)
	}()
}

// logEvent writes a line about a decision.
func (j *egressJudge) logEvent(r EgressRequest, err error) {
	level := slog.LevelDebug
	if err != nil {
		level = slog.LevelInfo
	}
	if !j.log.Enabled(context.Background(), level) {
		return
	}
	args := []any{"id", j.id, "what", r.target(), "names", r.Names, "pid", r.Pid, "source", r.Source}
	if err == nil {
		j.log.Debug("egress", args...)
		return
	}
	j.mu.Lock()
	if now := time.Now(); now.Sub(j.second) >= time.Second {
		j.second, j.lines = now, 0
	}
	j.lines++
	left := 0
	if j.lines > maxDenialLines {
		j.unlogged++
	} else {
		left, j.unlogged = j.unlogged, 0
	}
	over := j.lines > maxDenialLines
	j.mu.Unlock()
	if over {
		return
	}
	if left > 0 {
		args = append(args, "lines left out before", left)
	}
	j.log.Info("egress", append(args, "err", err)...)
}
