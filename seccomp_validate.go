package container

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// This file checks profiles of system calls; see validate.go.

// seccompFlagNames are the flags of seccomp(2) that a profile may have.
var seccompFlagNames = []string{
	"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", flagWaitKillable,
}

const flagWaitKillable = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"

var seccompActions = []SeccompAction{
	SeccompAllow, SeccompErrno, SeccompKill, SeccompKillThread, SeccompKillProcess, SeccompTrap, SeccompTrace, SeccompLog, SeccompNotify,
}

// checkSeccompProfile: a profile that means something, and somebody who answers where it asks.
func checkSeccompProfile(c *Config) []error {
	var errs fieldErrors
	p := c.Seccomp
	if p == nil {
		if c.SeccompNotify != nil {
			errs.addf("SeccompNotify", "nobody asks it without Seccomp; set that, or leave it nil")
		}
		return errs
	}
	errs.seccompAction("Seccomp.DefaultAction", p.DefaultAction, "Seccomp.DefaultErrno", p.DefaultErrno)
	errs.seccompArchs(p)
	for i, name := range p.Flags {
		field := index("Seccomp.Flags", i)
		switch {
		case !slices.Contains(seccompFlagNames, name):
			errs.addf(field, "unknown flag %q; one of %s", name, strings.Join(seccompFlagNames, ", "))
		case name == flagWaitKillable && !p.notifies():
			errs.addf(field, "is about calls of action %s, and there are none; leave it out", SeccompNotify)
		}
	}
	errs.seccompListener(c)
	if len(p.Syscalls) == 0 && !p.DefaultAction.passes() {
		errs.addf("Seccomp.Syscalls", "is empty, and DefaultAction lets nothing through: not even execve; start from DefaultSeccompProfile")
	}
	for i := range p.Syscalls {
		errs.seccompRule(index("Seccomp.Syscalls", i), &p.Syscalls[i])
	}
	return errs
}

// passes tells whether a call may be carried out after an action.
func (a SeccompAction) passes() bool {
	return a == SeccompAllow || a == SeccompLog || a == SeccompTrace || a == SeccompNotify
}

// seccompAction complains about an action, and a number that it does not have.
func (e *fieldErrors) seccompAction(field string, a SeccompAction, dataField string, data *uint) {
	if !slices.Contains(seccompActions, a) {
		e.addf(field, "unknown action %q; one of %s", a, joinNames(seccompActions))
		return
	}
	const maxErrno, maxMessage = 4095, 65535
	switch {
	case data == nil:
	case a == SeccompErrno && *data > maxErrno:
		e.addf(dataField, "%d is no error number; they end at %d", *data, maxErrno)
	case a == SeccompTrace && *data > maxMessage:
		e.addf(dataField, "%d does not fit the message to a tracer, which has 16 bits", *data)
	case a != SeccompErrno && a != SeccompTrace:
		e.addf(dataField, "%s has no number; leave it nil", a)
	}
}

// seccompArchs complains about architectures that nobody has.
func (e *fieldErrors) seccompArchs(p *SeccompProfile) {
	known := func(field, name string) {
		if short, ok := strings.CutPrefix(name, archPrefix); !ok || !slices.Contains(seccompArchs, short) {
			e.addf(field, "unknown architecture %q; such as SCMP_ARCH_X86_64", name)
		}
	}
	for i, name := range p.Architectures {
		known(index("Seccomp.Architectures", i), name)
	}
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		e.addf("Seccomp.ArchMap", "says the same as Architectures another way; leave one of them empty")
	}
	for i, m := range p.ArchMap {
		field := index("Seccomp.ArchMap", i)
		known(field+".Architecture", m.Architecture)
		for j, name := range m.SubArchitectures {
			known(index(field+".SubArchitectures", j), name)
		}
	}
}

// seccompListener complains about calls that nobody answers, and about answers that nobody asks for.
func (e *fieldErrors) seccompListener(c *Config) {
	p := c.Seccomp
	if p.ListenerPath != "" {
		e.absolute("Seccomp.ListenerPath", p.ListenerPath)
	} else if p.ListenerMetadata != "" {
		e.addf("Seccomp.ListenerMetadata", "is for the program behind ListenerPath; set that, or leave it empty")
	}
	switch {
	case !p.notifies() && p.ListenerPath != "":
		e.addf("Seccomp.ListenerPath", "nobody asks it: no rule has the action %s; add one, or leave it empty", SeccompNotify)
	case !p.notifies() && c.SeccompNotify != nil:
		e.addf("SeccompNotify", "nobody asks it: no rule has the action %s; add one, or leave it nil", SeccompNotify)
	case p.ListenerPath != "" && c.SeccompNotify != nil:
		e.addf("SeccompNotify", "the program behind Seccomp.ListenerPath answers; leave one of them out")
	case p.notifies() && p.ListenerPath == "" && c.Detached:
		e.addf("Seccomp.ListenerPath", "is needed with Detached: SeccompNotify ends with the caller's process")
	}
}

// seccompRule complains about a rule.
func (e *fieldErrors) seccompRule(field string, r *SeccompRule) {
	if len(r.Names) == 0 {
		e.addf(field+".Names", "is empty; name the system calls that the rule is for")
	}
	for i, name := range r.Names {
		if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') }) {
			e.addf(index(field+".Names", i), "%.100q is no name of a system call; they are like \"openat2\"", name)
		}
	}
	e.seccompAction(field+".Action", r.Action, field+".Errno", r.Errno)
	for i, a := range r.Args {
		field := index(field+".Args", i)
		if a.Index > 5 {
			e.addf(field+".Index", "%d is no argument; they are 0 to 5", a.Index)
		}
		switch _, known := seccompOps[a.Op]; {
		case !known:
			e.addf(field+".Op", "unknown comparison %q; one of %s", a.Op, joinNames(slices.Sorted(maps.Keys(seccompOps))))
		case a.Op != SeccompMaskedEqual && a.ValueTwo != 0:
			e.addf(field+".ValueTwo", "is for %s only; leave it 0", SeccompMaskedEqual)
		case a.Op == SeccompMaskedEqual && a.ValueTwo&^a.Value != 0:
			e.addf(field+".ValueTwo", "%#x has bits that the mask %#x in Value has not: no argument is equal to that", a.ValueTwo, a.Value)
		}
	}
	e.seccompCondition(field+".Includes", r.Includes)
	e.seccompCondition(field+".Excludes", r.Excludes)
}

func (e *fieldErrors) seccompCondition(field string, c *SeccompCondition) {
	if c == nil {
		return
	}
	for i, name := range c.Caps {
		if _, ok := capabilityNumber(name); !ok {
			e.addf(index(field+".Caps", i), "unknown capability %q; see capabilities(7) for the names", name)
		}
	}
	for i, name := range c.Arches {
		if !slices.Contains(archNames, name) {
			e.addf(index(field+".Arches", i), "unknown architecture %q; such as amd64, arm64, x86", name)
		}
	}
	if _, ok := parseKernelVersion(c.MinKernel); !ok && c.MinKernel != "" {
		e.addf(field+".MinKernel", "%q is no version of a kernel; such as \"4.8\"", c.MinKernel)
	}
}

// checkSeccompHandler: somebody must be there to answer for this process.
func (p *Process) checkSeccompHandler(c *Config) error {
	asks := c.Seccomp != nil && c.Seccomp.notifies() && c.Seccomp.ListenerPath == ""
	switch {
	case !asks && p.SeccompNotify != nil:
		return fieldErrorf("SeccompNotify", "nobody asks it: Config.Seccomp has no rule of action %s, or a ListenerPath; leave it nil", SeccompNotify)
	case asks && p.SeccompNotify == nil && c.SeccompNotify == nil:
		return fieldErrorf("SeccompNotify", "Config.Seccomp has rules of action %s: set this, or Config.SeccompNotify", SeccompNotify)
	}
	return nil
}

// joinNames lists names for people.
func joinNames[T ~string](list []T) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, s)
	}
	return b.String()
}
