package container

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates profiles of system calls. The specification has no conditions, and what runtimes over libseccomp make of rules for the same
// call is another thing than the first that fits: so each is written for one process, in a way in which the order does not matter.

func seccompFromSpec(in *specs.LinuxSeccomp) *SeccompProfile {
	p := &SeccompProfile{
		DefaultAction: SeccompAction(in.DefaultAction), DefaultErrno: copyPointer(in.DefaultErrnoRet),
		ListenerPath: in.ListenerPath, ListenerMetadata: in.ListenerMetadata,
	}
	for _, a := range in.Architectures {
		p.Architectures = append(p.Architectures, string(a))
	}
	for _, f := range in.Flags {
		p.Flags = append(p.Flags, string(f))
	}
	for _, r := range in.Syscalls {
		out := SeccompRule{Names: slices.Clone(r.Names), Action: SeccompAction(r.Action), Errno: copyPointer(r.ErrnoRet)}
		for _, a := range r.Args {
			out.Args = append(out.Args, SeccompArg{Index: a.Index, Value: a.Value, ValueTwo: a.ValueTwo, Op: SeccompOp(a.Op)})
		}
		p.Syscalls = append(p.Syscalls, out)
	}
	return p
}

// seccomp writes the profile for the process, or without one for those of the Config.
func (t *toSpec) seccomp(p *Process) {
	in := t.cfg.Seccomp
	if in == nil {
		return
	}
	errs := checkSeccompProfile(t.cfg)
	caps, err := t.cfg.Capabilities.sets()
	if p != nil && p.Capabilities != nil {
		caps, err = p.Capabilities.sets()
	}
	if err != nil || len(errs) > 0 {
		t.errs = append(t.errs, errs...)
		return // the capabilities are refused elsewhere
	}
	facts, err := hostFacts(caps.bounding)
	if err != nil {
		t.errs.addf("Seccomp", "%v", err)
		return
	}
	out := &specs.LinuxSeccomp{
		DefaultAction: specs.LinuxSeccompAction(in.DefaultAction), DefaultErrnoRet: copyPointer(in.DefaultErrno),
		ListenerPath: in.ListenerPath, ListenerMetadata: in.ListenerMetadata,
	}
	for _, abi := range in.abis(facts.native) {
		out.Architectures = append(out.Architectures, specs.Arch(archPrefix+string(abi)))
	}
	for _, f := range in.Flags {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	for _, r := range t.unordered(in, facts) {
		rule := specs.LinuxSyscall{Names: r.Names, Action: specs.LinuxSeccompAction(r.Action), ErrnoRet: copyPointer(r.Errno)}
		for _, a := range r.Args {
			rule.Args = append(rule.Args, specs.LinuxSeccompArg{Index: a.Index, Value: a.Value, ValueTwo: a.ValueTwo, Op: specs.LinuxSeccompOperator(a.Op)})
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	t.spec.Linux.Seccomp = out
}

// unordered are the rules of a profile such that all those of a call have the same action.
func (t *toSpec) unordered(p *SeccompProfile, facts *seccompFacts) []SeccompRule {
	var list []SeccompRule
	before := make(map[string][]int) // the rules in list that are for a name
	decided := make(map[string]bool) // one of them always holds
	for i := range p.Syscalls {
		r := p.Syscalls[i]
		if !r.applies(facts.native, facts) {
			continue
		}
		r.Includes, r.Excludes, r.Comment = nil, nil, ""
		var names, mixed []string
		for _, name := range r.Names {
			if decided[name] {
				continue
			}
			decided[name] = len(r.Args) == 0
			if slices.ContainsFunc(before[name], func(j int) bool { return !r.sameAction(&list[j]) }) {
				mixed = append(mixed, name)
			} else {
				names = append(names, name)
			}
		}
		for _, name := range mixed {
			rules, ok := r.butFor(name, p, list, before[name])
			if !ok {
				t.errs.addf(index("Seccomp.Syscalls", i), "is about %s, as is a rule before it of another action: the specification does not say which of them counts", name)
			}
			for _, j := range before[name] {
				list[j].Names = slices.DeleteFunc(slices.Clone(list[j].Names), func(n string) bool { return n == name })
			}
			list = append(list, rules...)
		}
		if len(names) > 0 {
			r.Names = names
			list = append(list, r)
			for _, name := range names {
				before[name] = append(before[name], len(list)-1)
			}
		}
	}
	return slices.DeleteFunc(list, func(r SeccompRule) bool { return len(r.Names) == 0 })
}

func (r *SeccompRule) sameAction(o *SeccompRule) bool {
	return r.Action.value(r.Errno) == o.Action.value(o.Errno)
}

// butFor are rules that hold wherever r does, which has no conditions, but for where those before do, if these do what no rule
// does and compare one and the same int.
func (r *SeccompRule) butFor(name string, p *SeccompProfile, list []SeccompRule, before []int) ([]SeccompRule, bool) {
	var values []uint32
	arg := uint(0)
	for n, j := range before {
		o := &list[j]
		if o.Action.value(o.Errno) != p.DefaultAction.value(p.DefaultErrno) || len(r.Args) > 0 {
			return nil, false
		}
		for i, a := range o.Args {
			if n+i > 0 && a.Index != arg || a.Op != SeccompMaskedEqual || a.Value != 1<<32-1 {
				return nil, false
			}
			arg, values = a.Index, append(values, uint32(a.ValueTwo))
		}
	}
	var rules []SeccompRule
	eachPrefixWithout(values, 0, 0, func(prefix uint32, bits int) {
		mask := uint64(^uint32(0) << (32 - bits))
		if bits == 0 {
			mask = 0
		}
		rules = append(rules, SeccompRule{Names: []string{name}, Action: r.Action, Errno: r.Errno,
			Args: []SeccompArg{{Index: arg, Value: mask, ValueTwo: uint64(prefix), Op: SeccompMaskedEqual}}})
	})
	return rules, true
}

// eachPrefixWithout calls f for the shortest prefixes, in bits, with which none of the values begins, and which all other
// numbers begin with that begin with prefix.
func eachPrefixWithout(values []uint32, prefix uint32, bits int, f func(prefix uint32, bits int)) {
	within := slices.ContainsFunc(values, func(v uint32) bool { return bits == 0 || (v^prefix)>>(32-bits) == 0 })
	switch {
	case !within:
		f(prefix, bits)
	case bits < 32:
		eachPrefixWithout(values, prefix, bits+1, f)
		eachPrefixWithout(values, prefix|1<<(31-bits), bits+1, f)
	}
}
