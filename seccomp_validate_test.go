package container

import (
	"context"
	"errors"
	"strings"
	"testing"

	"example.com/container/internal/seccomp"
)

// Each complaint names its field.
func TestSeccompValidate(t *testing.T) {
	rule := func(change func(*SeccompRule)) func(*Config) {
		return func(c *Config) {
			c.Seccomp.Syscalls = []SeccompRule{{Names: []string{"a"}, Action: SeccompAllow}, {Names: []string{"b"}, Action: SeccompErrno}}
			change(&c.Seccomp.Syscalls[1])
		}
	}
	arg := func(a SeccompArg) func(*Config) { return rule(func(r *SeccompRule) { r.Args = []SeccompArg{a} }) }
	handler := func(context.Context, *SeccompCall) SeccompAnswer { return SeccompAnswer{} }
	notify := rule(func(r *SeccompRule) { r.Action = SeccompNotify })
	for field, change := range map[string]func(*Config){
		"Seccomp.DefaultAction":    func(c *Config) { c.Seccomp.DefaultAction = "ALLOW" },
		"Seccomp.DefaultErrno":     func(c *Config) { c.Seccomp.DefaultErrno = new(uint(4096)) },
		"Seccomp.Architectures[0]": func(c *Config) { c.Seccomp.Architectures = []string{"X86"} },
		"Seccomp.ArchMap": func(c *Config) {
			c.Seccomp.Architectures, c.Seccomp.ArchMap = []string{"SCMP_ARCH_X86"}, []SeccompArchMap{{Architecture: "SCMP_ARCH_X86"}}
		},
		"Seccomp.ArchMap[0].Architecture": func(c *Config) { c.Seccomp.ArchMap = []SeccompArchMap{{}} },
		"Seccomp.ArchMap[0].SubArchitectures[1]": func(c *Config) {
			c.Seccomp.ArchMap = []SeccompArchMap{{Architecture: "SCMP_ARCH_ARM", SubArchitectures: []string{"SCMP_ARCH_S390", "s390"}}}
		},
		"Seccomp.Flags[0]":                       func(c *Config) { c.Seccomp.Flags = []string{"LOG"} },
		"Seccomp.Flags[1]":                       func(c *Config) { c.Seccomp.Flags = []string{"SECCOMP_FILTER_FLAG_LOG", flagWaitKillable} },
		"Seccomp.ListenerPath":                   func(c *Config) { notify(c); c.Seccomp.ListenerPath = "agent" },
		"Seccomp.ListenerMetadata":               func(c *Config) { c.Seccomp.ListenerMetadata = "m" },
		"Seccomp.Syscalls":                       func(c *Config) { c.Seccomp.Syscalls = nil },
		"Seccomp.Syscalls[1].Names":              rule(func(r *SeccompRule) { r.Names = nil }),
		"Seccomp.Syscalls[1].Names[1]":           rule(func(r *SeccompRule) { r.Names = []string{"a", "open at"} }),
		"Seccomp.Syscalls[1].Action":             rule(func(r *SeccompRule) { r.Action = "" }),
		"Seccomp.Syscalls[1].Errno":              rule(func(r *SeccompRule) { r.Action, r.Errno = SeccompAllow, new(uint(1)) }),
		"Seccomp.Syscalls[1].Args[0].Index":      arg(SeccompArg{Index: 6, Op: SeccompEqual}),
		"Seccomp.Syscalls[1].Args[0].Op":         arg(SeccompArg{Op: "EQ"}),
		"Seccomp.Syscalls[1].Args[0].ValueTwo":   arg(SeccompArg{Value: 6, ValueTwo: 1, Op: SeccompMaskedEqual}),
		"Seccomp.Syscalls[1].Includes.Caps[0]":   rule(func(r *SeccompRule) { r.Includes = &SeccompCondition{Caps: []string{"CAP_X"}} }),
		"Seccomp.Syscalls[1].Excludes.Arches[0]": rule(func(r *SeccompRule) { r.Excludes = &SeccompCondition{Arches: []string{"SCMP_ARCH_X86"}} }),
		"Seccomp.Syscalls[1].Includes.MinKernel": rule(func(r *SeccompRule) { r.Includes = &SeccompCondition{MinKernel: "5"} }),
		"SeccompNotify":                          func(c *Config) { c.SeccompNotify = handler },
	} {
		cfg := DefaultConfig()
		cfg.Root = HostRoot
		change(&cfg)
		err := cfg.validate()
		var f *FieldError
		if !errors.As(err, &f) || f.Field != field || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", field, err)
		}
	}
	for what, change := range map[string]func(*Config){
		"without a filter":          func(c *Config) { c.Seccomp, c.SeccompNotify = nil, handler },
		"with an agent":             func(c *Config) { notify(c); c.Seccomp.ListenerPath, c.SeccompNotify = "/run/agent", handler },
		"detached":                  func(c *Config) { notify(c); c.SeccompNotify, c.Detached = handler, true },
		"an agent that nobody asks": func(c *Config) { c.Seccomp.ListenerPath = "/run/agent" },
	} {
		cfg := DefaultConfig()
		cfg.Root = HostRoot
		change(&cfg)
		if err := cfg.validate(); err == nil {
			t.Errorf("%s: no complaint", what)
		}
	}
	// A handler may come with the process, so that it is looked for then.
	cfg := DefaultConfig()
	cfg.Root = HostRoot
	notify(&cfg)
	for p, ok := range map[*Process]bool{{Args: []string{"a"}}: false, {Args: []string{"a"}, SeccompNotify: handler}: true} {
		if err := errors.Join(cfg.validate(), p.validateFor(&cfg, true)); (err == nil) != ok {
			t.Errorf("handler %v: %v", p.SeccompNotify != nil, err)
		}
	}
	cfg.Seccomp = nil
	if err := (&Process{Args: []string{"a"}, SeccompNotify: handler}).validateFor(&cfg, true); err == nil {
		t.Error("a handler that nobody asks")
	}
	if err := (&Config{Root: HostRoot, Namespaces: Namespaces{NewMnt: true}, Seccomp: mobyProfile(t)}).validate(); err != nil {
		t.Errorf("Docker's profile: %v", err)
	}
}

// What conditions mean: each table is one rule for getpid, on a host, with the answer.
func TestSeccompConditions(t *testing.T) {
	caps := func(list ...string) *SeccompCondition { return &SeccompCondition{Caps: list} }
	arches := func(list ...string) *SeccompCondition { return &SeccompCondition{Arches: list} }
	kernel := func(v string) *SeccompCondition { return &SeccompCondition{MinKernel: v} }
	for _, test := range []struct {
		includes, excludes *SeccompCondition
		abi                seccomp.ABI
		want               bool
	}{
		{nil, nil, seccomp.X86_64, true},
		{&SeccompCondition{}, &SeccompCondition{}, seccomp.X86_64, true},
		{caps("CAP_CHOWN"), nil, seccomp.X86_64, true},
		{caps("chown", "CAP_KILL"), nil, seccomp.X86_64, true},
		{caps("CAP_CHOWN", "CAP_BPF"), nil, seccomp.X86_64, false}, // all must be there
		{nil, caps("CAP_BPF"), seccomp.X86_64, true},
		{nil, caps("CAP_BPF", "CAP_KILL"), seccomp.X86_64, false}, // none may be there
		{arches("amd64"), nil, seccomp.X86_64, true},
		{arches("amd64"), nil, seccomp.X86, true}, // the host's, as in Docker
		{arches("x86"), nil, seccomp.X86, true},
		{arches("x86", "x32"), nil, seccomp.X86_64, false},
		{arches("s390x"), nil, seccomp.X86_64, false},
		{nil, arches("s390", "s390x"), seccomp.X86_64, true},
		{nil, arches("amd64"), seccomp.X86_64, false},
		{nil, arches("x86"), seccomp.X86_64, true},
		{nil, arches("x86"), seccomp.X86, false},
		{kernel("4.8"), nil, seccomp.X86_64, true},
		{kernel("6.1"), nil, seccomp.X86_64, true},
		{kernel("6.2"), nil, seccomp.X86_64, false},
		{kernel("10.0"), nil, seccomp.X86_64, false},
		{nil, kernel("6.1"), seccomp.X86_64, false},
		{nil, kernel("6.10"), seccomp.X86_64, true},
		{&SeccompCondition{Caps: []string{"CAP_KILL"}, Arches: []string{"amd64"}, MinKernel: "9.0"}, nil, seccomp.X86_64, false},
	} {
		p := &SeccompProfile{DefaultAction: SeccompErrno, Architectures: []string{"SCMP_ARCH_X86"},
			Syscalls: []SeccompRule{{Names: []string{"getpid"}, Action: SeccompAllow, Includes: test.includes, Excludes: test.excludes}}}
		insns := compileFilter(t, p, factsOf(seccomp.X86_64, "CAP_CHOWN", "CAP_KILL"))
		nr, _ := seccomp.Number(test.abi, "getpid")
		if got := simulate(t, insns, test.abi, nr, [6]uint64{}) == seccomp.Allow; got != test.want {
			t.Errorf("%+v, %+v, %s: %v", test.includes, test.excludes, test.abi, got)
		}
	}
}

// What conditions on arguments mean.
func TestSeccompArgs(t *testing.T) {
	type args = [6]uint64
	for _, test := range []struct {
		name string
		args []SeccompArg
		yes  []args
		no   []args
	}{
		{"read", []SeccompArg{{0, 5, 0, SeccompEqual}, {1, 7, 0, SeccompGreater}}, []args{{5, 8}, {5, 1 << 40}}, []args{{5, 7}, {4, 8}, {1<<32 | 5, 8}}},
		{"read", []SeccompArg{{0, 5, 0, SeccompEqual}, {0, 7, 0, SeccompEqual}, {1, 9, 0, SeccompEqual}}, []args{{5, 0}, {7, 0}, {0, 9}}, []args{{6, 8}}},
		{"read", []SeccompArg{{5, 0xf0, 0x50, SeccompMaskedEqual}}, []args{{5: 0x5f}, {5: 1<<40 | 0x50}}, []args{{5: 0x4f}}},
		{"read", []SeccompArg{{0, 0xf0000000f0, 0x1000000050, SeccompMaskedEqual}}, []args{{0x1000000050}}, []args{{0x50}}},
		{"read", []SeccompArg{{0, 5, 0, SeccompNotEqual}, {1, 5, 0, SeccompLess}, {2, 5, 0, SeccompLessOrEqual}, {3, 5, 0, SeccompGreaterOrEqual}}, []args{{4, 4, 5, 5}}, []args{{5, 4, 5, 5}, {4, 5, 5, 5}, {4, 4, 6, 5}, {4, 4, 5, 4}}},
		// ints to the kernel
		{"socket", []SeccompArg{{0, 40, 0, SeccompGreater}}, []args{{41}, {1<<32 | 41}}, []args{{40}, {1<<32 | 40}}},
		{"ioctl", []SeccompArg{{1, 0x5412, 0, SeccompNotEqual}}, []args{{0, 1}}, []args{{0, 0x5412}, {0, 1<<63 | 0x5412}}},
	} {
		p := &SeccompProfile{DefaultAction: SeccompErrno, Syscalls: []SeccompRule{{Names: []string{test.name}, Action: SeccompAllow, Args: test.args}}}
		insns := compileFilter(t, p, factsOf(seccomp.X86_64))
		nr, _ := seccomp.Number(seccomp.X86_64, test.name)
		for _, a := range test.yes {
			if got := simulate(t, insns, seccomp.X86_64, nr, a); got != seccomp.Allow {
				t.Errorf("%s %+v: %#x: %v", test.name, test.args, a, got)
			}
		}
		for _, a := range test.no {
			if got := simulate(t, insns, seccomp.X86_64, nr, a); got == seccomp.Allow {
				t.Errorf("%s %+v: %#x: %v", test.name, test.args, a, got)
			}
		}
	}
}
