package container

import (
	"slices"
	"strconv"
	"strings"

	"example.com/container/internal/seccomp"
)

// This file turns a profile into the rules of a filter: names become numbers, conditions are decided. It is
// pure: what it must know of the host and of the process is in seccompFacts.

// seccompFacts are what the conditions of a profile are about.
type seccompFacts struct {
	native seccomp.ABI
	goarch string // the same, by Go's name
	kernel kernelVersion
	caps   uint64 // the bounding set
}

// kernelVersion is the first two numbers of a kernel's version, which are those that profiles name.
type kernelVersion struct{ major, minor int }

func (v kernelVersion) less(w kernelVersion) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

// parseKernelVersion reads "4.8".
func parseKernelVersion(s string) (v kernelVersion, ok bool) {
	major, minor, ok := strings.Cut(s, ".")
	a, err1 := strconv.ParseUint(major, 10, 16)
	b, err2 := strconv.ParseUint(minor, 10, 16)
	return kernelVersion{int(a), int(b)}, ok && err1 == nil && err2 == nil
}

const archPrefix = "SCMP_ARCH_"

// seccompArchs are the names of architectures that profiles may use; libseccomp has them.
var seccompArchs = []string{
	"X86", "X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32",
	"PARISC", "PARISC64", "PPC", "PPC64", "PPC64LE", "RISCV64", "S390", "S390X", "SHEB", "SH",
}

// goArches are Go's names of the native architectures, and Docker's names of the others.
var goArches = map[seccomp.ABI]string{
	seccomp.X86_64: "amd64", seccomp.X86: "x86", seccomp.X32: "x32", seccomp.AARCH64: "arm64", seccomp.ARM: "arm",
}

// archNames are all that a condition can name.
var archNames = []string{
	"386", "amd64", "arm", "arm64", "loong64", "loongarch64", "mips", "mips64", "mips64le", "mips64n32", "mipsel", "mipsel64", "mipsle", "ppc",
	"ppc64", "ppc64le", "riscv64", "s390", "s390x", "x32", "x86",
}

// filter is what the profile says for a process.
func (p *SeccompProfile) filter(facts *seccompFacts) *seccomp.Filter {
	other := p.DefaultAction.value(p.DefaultErrno)
	unknown := other
	if p.DefaultAction == SeccompErrno {
		unknown = seccomp.Errno(enosys)
	}
	f := &seccomp.Filter{Foreign: seccomp.KillProcess, NoX32: seccomp.Errno(enosys)}
	for _, abi := range p.abis(facts.native) {
		f.Tables = append(f.Tables, seccomp.Table{ABI: abi, Rules: p.rules(abi, facts), Default: other, Unknown: unknown})
	}
	return f
}

// abis are the ABIs that may be used: the native one, and those asked for that the kernel has beside it.
func (p *SeccompProfile) abis(native seccomp.ABI) []seccomp.ABI {
	asked := p.Architectures
	for _, m := range p.ArchMap {
		if m.Architecture == archPrefix+string(native) {
			asked = slices.Concat(asked, m.SubArchitectures)
		}
	}
	list := []seccomp.ABI{native}
	for _, abi := range seccomp.Compatible(native) {
		if slices.Contains(asked, archPrefix+string(abi)) {
			list = append(list, abi)
		}
	}
	return list
}

// rules are those of the profile that are for an ABI.
func (p *SeccompProfile) rules(abi seccomp.ABI, facts *seccompFacts) map[uint32][]seccomp.Rule {
	rules := make(map[uint32][]seccomp.Rule, 400)
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		if !r.applies(abi, facts) {
			continue
		}
		action := r.Action.value(r.Errno)
		for _, name := range r.Names {
			nr, ok := seccomp.Number(abi, name)
			if !ok {
				continue
			}
			list := rules[nr]
			if n := len(list); n > 0 && len(list[n-1].Cmps) == 0 {
				continue // the one before it always holds
			}
			for _, cmps := range r.alternatives(intArgs[name]) {
				list = append(list, seccomp.Rule{Cmps: cmps, Action: action})
			}
			rules[nr] = list
		}
	}
	return rules
}

// applies tells whether the rule is there.
func (r *SeccompRule) applies(abi seccomp.ABI, facts *seccompFacts) bool {
	if c := r.Excludes; c != nil && (c.hasArch(abi, facts) || c.countCaps(facts.caps) > 0 || c.MinKernel != "" && c.newKernel(facts)) {
		return false
	}
	c := r.Includes
	return c == nil || (len(c.Arches) == 0 || c.hasArch(abi, facts)) && c.countCaps(facts.caps) == len(c.Caps) && c.newKernel(facts)
}

// hasArch tells whether the condition names the native architecture, as in Docker, or the ABI that the rule would be for.
func (c *SeccompCondition) hasArch(abi seccomp.ABI, facts *seccompFacts) bool {
	return slices.Contains(c.Arches, facts.goarch) || slices.Contains(c.Arches, goArches[abi])
}

func (c *SeccompCondition) countCaps(set uint64) (n int) {
	for _, name := range c.Caps {
		if bit, ok := capabilityNumber(name); ok && set&(1<<bit) != 0 {
			n++
		}
	}
	return n
}

func (c *SeccompCondition) newKernel(facts *seccompFacts) bool {
	least, ok := parseKernelVersion(c.MinKernel)
	return c.MinKernel == "" || ok && !facts.kernel.less(least)
}

// alternatives are lists of conditions, of which one must hold wholly.
func (r *SeccompRule) alternatives(ints uint8) [][]seccomp.Cmp {
	var all []seccomp.Cmp
	var seen [6]bool
	twice := false
	for _, a := range r.Args {
		all = append(all, a.cmp(ints&(1<<a.Index) != 0))
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return [][]seccomp.Cmp{all}
	}
	var list [][]seccomp.Cmp
	for _, c := range all {
		list = append(list, []seccomp.Cmp{c})
	}
	return list
}

var seccompOps = map[SeccompOp]seccomp.Op{
	SeccompEqual: seccomp.EQ, SeccompNotEqual: seccomp.NE, SeccompLess: seccomp.LT, SeccompLessOrEqual: seccomp.LE,
	SeccompGreater: seccomp.GT, SeccompGreaterOrEqual: seccomp.GE, SeccompMaskedEqual: seccomp.EQ,
}

// cmp is the comparison. A mask of 32 bits, too, makes it one of an int.
func (a *SeccompArg) cmp(isInt bool) seccomp.Cmp {
	c := seccomp.Cmp{Arg: uint8(a.Index), Op: seccompOps[a.Op], Mask: ^uint64(0), Value: a.Value}
	if a.Op == SeccompMaskedEqual {
		c.Mask, c.Value = a.Value, a.ValueTwo
		isInt = isInt || c.Mask>>32 == 0
	}
	const negative = 1<<33 - 1 // the upper bits of a negative int that has become 64 bits
	c.Low = isInt && (c.Value>>32 == 0 || c.Value>>31 == negative)
	if c.Low {
		c.Mask &= 1<<32 - 1
		c.Value &= 1<<32 - 1
	}
	return c
}

// Error numbers are the same wherever there are filters.
const (
	eperm  = 1
	enosys = 38
)

// value is the action as the filter returns it.
func (a SeccompAction) value(errno *uint) seccomp.Action {
	data := uint(eperm)
	if errno != nil {
		data = *errno
	}
	switch a {
	case SeccompAllow:
		return seccomp.Allow
	case SeccompErrno:
		return seccomp.Errno(uint16(data))
	case SeccompTrace:
		return seccomp.Trace(uint16(data))
	case SeccompTrap:
		return seccomp.Trap
	case SeccompLog:
		return seccomp.Log
	case SeccompNotify:
		return seccomp.Notify
	case SeccompKill, SeccompKillThread:
		return seccomp.KillThread
	}
	return seccomp.KillProcess
}

// notifies tells whether some rule may ask a handler.
func (p *SeccompProfile) notifies() bool {
	return p.DefaultAction == SeccompNotify || slices.ContainsFunc(p.Syscalls, func(r SeccompRule) bool { return r.Action == SeccompNotify })
}

// otherCalls begin the names of system calls that only architectures have whose numbers are not known here.
var otherCalls = []string{
	"s390_", "riscv_", "spu_", "pciconfig_", "osf_", "old_", "alpha_", "sparc_", "atomic_", "usr26", "usr32", "rtas", "subpage_prot", "swapcontext", "switch_endian",
	"multiplexer", "cachectl", "sysmips", "sync_file_range2", "get_tls", "getpagesize", "sys_debug_setcontext", "execv", "perfctr", "memory_ordering",
}

// Unknown returns the names in the rules that this package knows no system call by. They are passed over: what a profile names for
// other architectures is no mistake, and neither is a call that is newer than this package. But a name that is
// misspelled allows or denies nothing.
func (p *SeccompProfile) Unknown() []string {
	var list []string
	for i := range p.Syscalls {
		for _, name := range p.Syscalls[i].Names {
			if !knownCall(name) && !slices.Contains(list, name) {
				list = append(list, name)
			}
		}
	}
	return list
}

func knownCall(name string) bool {
	for abi := range goArches {
		if _, ok := seccomp.Number(abi, name); ok {
			return true
		}
	}
	return slices.ContainsFunc(otherCalls, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
