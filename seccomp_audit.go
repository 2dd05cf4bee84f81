package container

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// This file finds out what a program would need that a profile denies, by a handler that notes such calls and lets them through.

// Audit returns a copy of the profile that asks where this one denies, and the recorder to ask: use [SeccompRecorder.Handle] as
// Config.SeccompNotify. A rule with the error ENOSYS stays as it is, since programs do without such a call. It works for an ordinary user.
//
// It is for programs that are trusted: under audit they may do what the profile denies. And what a program did not do in this
// run is not recorded.
func (p *SeccompProfile) Audit() (*SeccompProfile, *SeccompRecorder) {
	r := &SeccompRecorder{profile: deepCopy(*p), calls: make(map[string]*SeccompRecord)}
	asking := deepCopy(*p)
	asking.ListenerPath, asking.ListenerMetadata = "", ""
	if denies(asking.DefaultAction) {
		asking.DefaultAction, asking.DefaultErrno = SeccompNotify, nil
	}
	for i := range asking.Syscalls {
		rule := &asking.Syscalls[i]
		if denies(rule.Action) && (rule.Errno == nil || *rule.Errno != uint(syscall.ENOSYS)) {
			rule.Action, rule.Errno = SeccompNotify, nil
		}
	}
	return &asking, r
}

// denies tells whether an action does not let a call through.
func denies(a SeccompAction) bool { return a != SeccompAllow && a != SeccompLog && a != SeccompNotify }

// A SeccompRecorder notes calls that a profile denies. It is safe for concurrent use; see [SeccompProfile.Audit].
type SeccompRecorder struct {
	profile SeccompProfile
	mu      sync.Mutex
	calls   map[string]*SeccompRecord
}

// A SeccompRecord is a call that was made and is denied.
type SeccompRecord struct {
	// Name and Architecture are as in SeccompCall.
	Name         string
	Architecture string
	// Args are the values of the arguments that rules of the profile look at for this call, by their index. Calls with
	// other values are other records. Nil: no rule looks at any.
	Args map[uint]uint64
	// Programs are the names of the threads that have made it, as in /proc/PID/comm, sorted.
	Programs []string
	// Count is how often it was made.
	Count int
}

func (r SeccompRecord) String() string {
	var args []string
	for _, i := range slices.Sorted(maps.Keys(r.Args)) {
		args = append(args, fmt.Sprintf("arg%d=%#x", i, r.Args[i]))
	}
	return fmt.Sprintf("%s(%s)", r.Name, strings.Join(args, ", "))
}

// Handle notes a call and lets the kernel carry it out. A call that this package does not know by name fails with ENOSYS, as with
// the profile itself.
func (r *SeccompRecorder) Handle(_ context.Context, call *SeccompCall) SeccompAnswer {
	if call.Name == "" {
		return SeccompAnswer{Errno: uint(syscall.ENOSYS)}
	}
	program := "?" // of a thread that is gone
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", call.Pid)); err == nil && call.Valid() == nil {
		program = strings.TrimSuffix(string(comm), "\n")
	}
	seen := SeccompRecord{Name: call.Name, Architecture: call.Architecture, Args: r.looksAt(call)}
	key := seen.Architecture + " " + seen.String()
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.calls[key]
	if known == nil {
		known = &seen
		r.calls[key] = known
	}
	known.Count++
	if i, found := slices.BinarySearch(known.Programs, program); !found {
		known.Programs = slices.Insert(known.Programs, i, program)
	}
	return SeccompAnswer{Continue: true}
}

// looksAt returns the arguments that some rule looks at.
func (r *SeccompRecorder) looksAt(call *SeccompCall) (args map[uint]uint64) {
	for _, rule := range r.profile.Syscalls {
		if !slices.Contains(rule.Names, call.Name) {
			continue
		}
		for _, a := range rule.Args {
			if args == nil {
				args = make(map[uint]uint64)
			}
			args[a.Index] = call.Args[a.Index]
		}
	}
	return args
}

// Calls returns what was recorded, sorted by name.
func (r *SeccompRecorder) Calls() []SeccompRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]SeccompRecord, 0, len(r.calls))
	for _, c := range r.calls {
		list = append(list, deepCopy(*c))
	}
	slices.SortFunc(list, func(a, b SeccompRecord) int {
		return cmp.Or(cmp.Compare(a.String(), b.String()), cmp.Compare(a.Architecture, b.Architecture))
	})
	return list
}

// Profile returns the profile with rules in front that allow what was recorded: with the same values where rules look at
// arguments, and else with any. Read them before you use it.
func (r *SeccompRecorder) Profile() *SeccompProfile {
	p := deepCopy(r.profile)
	var names []string
	var rules []SeccompRule
	for _, c := range r.Calls() {
		if c.Args == nil {
			names = append(names, c.Name)
			continue
		}
		rule := SeccompRule{Names: []string{c.Name}, Action: SeccompAllow, Comment: "recorded"}
		for _, i := range slices.Sorted(maps.Keys(c.Args)) {
			rule.Args = append(rule.Args, SeccompArg{Index: i, Value: c.Args[i], Op: SeccompEqual})
		}
		rules = append(rules, rule)
	}
	if len(names) > 0 {
		rules = append([]SeccompRule{{Names: slices.Compact(names), Action: SeccompAllow, Comment: "recorded"}}, rules...)
	}
	p.Syscalls = append(rules, p.Syscalls...)
	return &p
}
