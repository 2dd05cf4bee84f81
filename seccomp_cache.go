//go:build linux

package container

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"example.com/container/internal/launch"
	"example.com/container/internal/seccomp"
	"golang.org/x/sys/unix"
)

// This file compiles profiles for the host, once per process and content. It runs in the caller's process.

// filterKey tells filters apart: what the profile says, for which capabilities, and for which calls besides.
type filterKey [sha256.Size]byte

// filterCache keeps what has been compiled. Configurations are copied for each container, so the content is the key.
var filterCache = struct {
	sync.Mutex
	filters map[filterKey]*seccompFilter
}{filters: make(map[filterKey]*seccompFilter)}

// filterCacheSize bounds the cache. A process has few profiles; one that makes them up goes without.
const filterCacheSize = 64

// compile returns the filter for processes with a bounding set.
func (p *SeccompProfile) compile(bounding uint64) (*seccompFilter, error) {
	return p.compileFor(bounding, nil)
}

// compileFor is compile for a launcher that has the calls to make as well.
func (p *SeccompProfile) compileFor(bounding uint64, calls []launch.CallPattern) (*seccompFilter, error) {
	key := p.key(bounding, calls)
	filterCache.Lock()
	f := filterCache.filters[key]
	filterCache.Unlock()
	if f != nil {
		return f, nil
	}
	facts, err := hostFacts(bounding)
	if err != nil {
		return nil, err
	}
	filter := p.filter(facts)
	if !canExecute(filter) {
		return nil, &Error{Op: "seccomp", Err: fieldErrorf("Seccomp.Syscalls", "no rule lets execve through, so that no program can be started; allow it")}
	}
	allowCalls(&filter.Tables[0], calls)
	insns, err := filter.Compile()
	if err != nil {
		return nil, &Error{Op: "seccomp", Err: err, Remedy: "make the profile shorter"}
	}
	f = &seccompFilter{insns: insns, flags: p.flags(), notify: p.notifies()}
	filterCache.Lock()
	if len(filterCache.filters) >= filterCacheSize {
		clear(filterCache.filters)
	}
	filterCache.filters[key] = f
	filterCache.Unlock()
	return f, nil
}

// hostFacts are those of this host.
func hostFacts(bounding uint64) (*seccompFacts, error) {
	facts := &seccompFacts{native: seccomp.Native(), goarch: runtime.GOARCH, caps: bounding}
	if facts.native == "" {
		return nil, &Error{Op: "seccomp", Err: ErrUnsupported, Remedy: "the system calls of this architecture are not known here; leave Config.Seccomp nil"}
	}
	var err error
	facts.kernel, err = hostKernel()
	return facts, err
}

var hostKernel = sync.OnceValues(func() (v kernelVersion, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return v, &Error{Op: "seccomp", Err: err}
	}
	release := unix.ByteSliceToString(u.Release[:])
	if n, _ := fmt.Sscanf(release, "%d.%d", &v.major, &v.minor); n != 2 {
		return v, &Error{Op: "seccomp", Err: fmt.Errorf("the kernel's version %q is no number", release)}
	}
	return v, nil
})

// canExecute tells whether the first table lets some execve through.
func canExecute(f *seccomp.Filter) bool {
	t := &f.Tables[0]
	nr, _ := seccomp.Number(t.ABI, "execve")
	for _, r := range t.Rules[nr] {
		if letsThrough(r.Action) {
			return true
		}
		if len(r.Cmps) == 0 {
			return false
		}
	}
	return letsThrough(t.Default)
}

// letsThrough tells whether a call may be carried out after an action.
func letsThrough(a seccomp.Action) bool {
	const data = 0xffff
	return a == seccomp.Allow || a == seccomp.Log || a == seccomp.Notify || a&^data == seccomp.Trace(0)
}

// allowCalls puts rules in front that let the calls through, with the arguments that are known.
func allowCalls(t *seccomp.Table, calls []launch.CallPattern) {
	added := make(map[uint32][]seccomp.Rule)
	for _, c := range calls {
		if list := t.Rules[c.Nr]; len(list) > 0 && len(list[0].Cmps) == 0 && list[0].Action == seccomp.Allow {
			continue
		}
		r := seccomp.Rule{Action: seccomp.Allow}
		for i, a := range c.Args {
			if c.Known&(1<<i) != 0 {
				r.Cmps = append(r.Cmps, seccomp.Cmp{Arg: uint8(i), Op: seccomp.EQ, Mask: ^uint64(0), Value: uint64(a)})
			}
		}
		added[c.Nr] = append(added[c.Nr], r)
	}
	for nr, list := range added {
		t.Rules[nr] = append(list, t.Rules[nr]...)
	}
}

// onlyCalls is a filter that lets these calls through and nothing else.
func onlyCalls(calls []launch.CallPattern) (*seccompFilter, error) {
	t := seccomp.Table{ABI: seccomp.Native(), Rules: make(map[uint32][]seccomp.Rule), Default: seccomp.Errno(eperm), Unknown: seccomp.Errno(eperm)}
	allowCalls(&t, calls)
	f := &seccomp.Filter{Tables: []seccomp.Table{t}, Foreign: seccomp.KillProcess, NoX32: seccomp.Errno(enosys)}
	insns, err := f.Compile()
	if err != nil {
		return nil, &Error{Op: "seccomp", Err: err}
	}
	return &seccompFilter{insns: insns}, nil
}

// seccompFlags are those of seccomp(2). The launcher has one thread, so there is nothing to synchronise.
var seccompFlags = map[string]uintptr{
	"SECCOMP_FILTER_FLAG_TSYNC":              0,
	"SECCOMP_FILTER_FLAG_LOG":                unix.SECCOMP_FILTER_FLAG_LOG,
	"SECCOMP_FILTER_FLAG_SPEC_ALLOW":         unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
	"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, // Linux 5.19
}

func (p *SeccompProfile) flags() (flags uintptr) {
	for _, name := range p.Flags {
		flags |= seccompFlags[name]
	}
	return flags
}

// key hashes all that the filter depends on. Each list and each text has its length before it.
func (p *SeccompProfile) key(bounding uint64, calls []launch.CallPattern) filterKey {
	k := keyText{make([]byte, 0, 16<<10)}
	k.text(string(p.DefaultAction))
	k.pointer(p.DefaultErrno)
	k.list(p.Architectures)
	k.number(uint64(len(p.ArchMap)))
	for _, m := range p.ArchMap {
		k.text(m.Architecture)
		k.list(m.SubArchitectures)
	}
	k.list(p.Flags)
	k.number(uint64(len(p.Syscalls)))
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		k.list(r.Names)
		k.text(string(r.Action))
		k.pointer(r.Errno)
		k.number(uint64(len(r.Args)))
		for _, a := range r.Args {
			k.number(uint64(a.Index))
			k.number(a.Value)
			k.number(a.ValueTwo)
			k.text(string(a.Op))
		}
		k.condition(r.Includes)
		k.condition(r.Excludes)
	}
	k.number(bounding)
	for _, c := range calls {
		k.number(uint64(c.Nr))
		k.number(uint64(c.Known))
		for _, a := range c.Args {
			k.number(uint64(a))
		}
	}
	return sha256.Sum256(k.b)
}

// keyText is what is hashed.
type keyText struct{ b []byte }

func (k *keyText) number(n uint64) { k.b = binary.AppendUvarint(k.b, n) }

func (k *keyText) text(s string) {
	k.number(uint64(len(s)))
	k.b = append(k.b, s...)
}

func (k *keyText) list(list []string) {
	k.number(uint64(len(list)))
	for _, s := range list {
		k.text(s)
	}
}

func (k *keyText) pointer(n *uint) {
	if n == nil {
		k.number(0)
		return
	}
	k.number(1)
	k.number(uint64(*n))
}

func (k *keyText) condition(c *SeccompCondition) {
	if c == nil {
		c = &SeccompCondition{}
	}
	k.list(c.Caps)
	k.list(c.Arches)
	k.text(c.MinKernel)
}
