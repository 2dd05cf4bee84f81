//go:build linux && amd64

package container

import (
	"errors"
	"math"
	"os"
	"testing"

	"example.com/container/internal/seccomp"
	"golang.org/x/sys/unix"
)

// TestSeccompInts: what the kernel takes for an int is compared as one, whatever the upper half of the register holds.
func TestSeccompInts(t *testing.T) {
	deny := func(name string, index uint, op SeccompOp, value uint64) SeccompRule {
		return SeccompRule{Names: []string{name}, Action: SeccompErrno, Args: []SeccompArg{{Index: index, Value: value, Op: op}}}
	}
	const minus1 = math.MaxUint64
	p := &SeccompProfile{DefaultAction: SeccompAllow, Syscalls: []SeccompRule{
		deny("kill", 0, SeccompEqual, minus1), deny("setuid", 0, SeccompEqual, 0), deny("umount2", 1, SeccompEqual, 2),
		deny("lseek", 1, SeccompEqual, 0), deny("setpriority", 2, SeccompGreaterOrEqual, 1<<64-20),
	}}
	f, err := p.compile(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name  string
		index int
		arg   uint64
		want  seccomp.Action
	}{
		{"kill", 0, minus1, seccomp.Errno(eperm)},
		{"kill", 0, math.MaxUint32, seccomp.Errno(eperm)}, // as C does it
		{"kill", 0, 1, seccomp.Allow},
		{"setuid", 0, 1 << 32, seccomp.Errno(eperm)},
		{"setuid", 0, 1, seccomp.Allow},
		{"umount2", 1, 7<<40 | 2, seccomp.Errno(eperm)},
		{"lseek", 1, 1 << 32, seccomp.Allow}, // an off_t
		{"setpriority", 2, 0xffffffff, seccomp.Errno(eperm)},
		{"setpriority", 2, 0xffffff00, seccomp.Allow},
		{"setpriority", 2, 5, seccomp.Allow},
	} {
		nr, ok := seccomp.Number(seccomp.X86_64, x.name)
		d := seccomp.Data{Nr: int32(nr), Arch: seccomp.X86_64.Audit()}
		d.Args[x.index] = x.arg
		if got, err := seccomp.Simulate(f.insns, d); !ok || err != nil || got != x.want {
			t.Errorf("%s, argument %d = %#x: %v, %v", x.name, x.index, x.arg, got, err)
		}
	}
	for name := range intArgs {
		if !knownCall(name) {
			t.Errorf("%s is no system call", name)
		}
	}
}

// A bound that is no bound is none that overflows.
func TestSeccompReadStringUnbounded(t *testing.T) {
	_, err := (&SeccompCall{Pid: os.Getpid()}).ReadString(1<<12, math.MaxInt)
	if !errors.Is(err, ErrCallEnded) && !errors.Is(err, unix.EFAULT) {
		t.Error(err)
	}
}
