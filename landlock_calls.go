//go:build linux

package container

import (
	"slices"

	"golang.org/x/sys/unix"
)

// This file closes the ways to TCP that Landlock does not see, by rules for system calls. It runs in the caller's process.
//
// Landlock asks at bind(2) and connect(2) of a TCP socket. It is not asked about the protocols that become TCP when the other end speaks nothing else, MPTCP
// (since Linux 6.14) and SMC, nor about data that is sent with the first packet (MSG_FASTOPEN), which connects as well. What io_uring
// does no filter sees, and socketcall(2), which i386 had before it had socket(2), has its arguments in memory.

// ipprotoSMC is IPPROTO_SMC, Linux 6.11.
const ipprotoSMC = 256

// tcpDetours are the rules.
var tcpDetours = func() (rules []SeccompRule) {
	deny := func(errno unix.Errno, name string, args ...SeccompArg) {
		n := uint(errno)
		rules = append(rules, SeccompRule{Names: []string{name}, Action: SeccompErrno, Errno: &n, Args: args})
	}
	is := func(i uint, value uint64) SeccompArg { return SeccompArg{Index: i, Value: value, Op: SeccompEqual} }
	has := func(i uint, flag uint64) SeccompArg {
		return SeccompArg{Index: i, Value: flag, ValueTwo: flag, Op: SeccompMaskedEqual}
	}
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, protocol := range []uint64{unix.IPPROTO_MPTCP, ipprotoSMC} {
			deny(unix.EPROTONOSUPPORT, "socket", is(0, family), is(2, protocol))
		}
	}
	deny(unix.EAFNOSUPPORT, "socket", is(0, unix.AF_SMC))
	// As where net.ipv4.tcp_fastopen is off.
	deny(unix.EOPNOTSUPP, "sendto", has(3, unix.MSG_FASTOPEN))
	deny(unix.EOPNOTSUPP, "sendmsg", has(2, unix.MSG_FASTOPEN))
	deny(unix.EOPNOTSUPP, "sendmmsg", has(3, unix.MSG_FASTOPEN))
	deny(unix.ENOSYS, "io_uring_setup")
	deny(unix.ENOSYS, "socketcall")
	return rules
}()

// resolveProfile is what the filter is made from: the profile that was asked for, behind the rules that Landlock needs. Nil: there is no filter.
func (c *Config) resolveProfile() (*SeccompProfile, error) {
	restricts, err := c.restrictsTCP()
	if err != nil || !restricts {
		return c.Seccomp, err
	}
	if c.Seccomp == nil {
		return &SeccompProfile{DefaultAction: SeccompAllow, Architectures: everyArchitecture, Syscalls: tcpDetours}, nil
	}
	p := *c.Seccomp
	p.Syscalls = slices.Concat(tcpDetours, p.Syscalls)
	return &p, nil
}

// everyArchitecture has the ABIs that a kernel may have beside its own.
var everyArchitecture = []string{archPrefix + "X86", archPrefix + "X32", archPrefix + "ARM"}

// restrictsTCP tells whether ports of TCP will be restricted: the kernel may not know that, and it may be asked for as far as it does.
func (c *Config) restrictsTCP() (bool, error) {
	if c.Landlock == nil || !c.Landlock.RestrictTCP {
		return false, nil
	}
	abi, err := landlockABI()
	if err != nil {
		return false, &Error{Op: "landlock", Err: err}
	}
	r, err := c.Landlock.rules(abi)
	return r.tcp != 0, err
}
