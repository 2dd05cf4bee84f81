package container

import (
	"slices"
	"strings"
)

// This file holds the capability sets, as names and as the bits that the kernel takes; see
// capabilities(7). It is data and runs in the caller's process; the launcher's program applies it.
// The names are a table of our own: libcap's package reads and sets the capabilities of every thread
// of the process that imports it, and needs C as soon as that process is built with cgo.

// Capabilities are the five sets of a process, as names: "CAP_CHOWN". Names are accepted in any
// case and without the "CAP_". The kernel demands that the effective set lies in the permitted one,
// and the ambient set in both the permitted and the inheritable one.
type Capabilities struct {
	// Bounding limits what an execve can give: by a setuid root program, by file capabilities, and
	// to root itself. The other sets of a root process become this one at execve.
	Bounding []string
	// Effective is what the kernel looks at.
	Effective []string
	// Permitted is what the process may make effective.
	Permitted []string
	// Inheritable is what an execve of a program with inheritable file capabilities keeps. Leave it
	// empty: CVE-2022-24769 was that it was not.
	Inheritable []string
	// Ambient is what a process that is not root keeps over execve. Leave it empty, unless a
	// process with an ordinary user needs a capability.
	Ambient []string
}

// capabilityNames is indexed by the capability's number, as in linux/capability.h.
var capabilityNames = [...]string{
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_DAC_READ_SEARCH",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST",
	"CAP_NET_ADMIN",
	"CAP_NET_RAW",
	"CAP_IPC_LOCK",
	"CAP_IPC_OWNER",
	"CAP_SYS_MODULE",
	"CAP_SYS_RAWIO",
	"CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE",
	"CAP_SYS_PACCT",
	"CAP_SYS_ADMIN",
	"CAP_SYS_BOOT",
	"CAP_SYS_NICE",
	"CAP_SYS_RESOURCE",
	"CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG",
	"CAP_MKNOD",
	"CAP_LEASE",
	"CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL",
	"CAP_SETFCAP",
	"CAP_MAC_OVERRIDE",
	"CAP_MAC_ADMIN",
	"CAP_SYSLOG",
	"CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ",
	"CAP_PERFMON",
	"CAP_BPF",
	"CAP_CHECKPOINT_RESTORE", // Linux 5.9, the newest that Linux 6.18 has
}

// DefaultCapabilities returns what root in a container may do by default: install packages, change
// users, and bind low ports. That is Docker's list without three:
//
//   - CAP_NET_RAW: raw and packet sockets forge addresses on a shared network, and their code in the
//     kernel is a favourite target (CVE-2020-14386). ping works without it (ping_group_range).
//   - CAP_MKNOD: /dev is filled before the process starts, and the devices cgroup is not to be the
//     only wall before the host's disks.
//   - CAP_AUDIT_WRITE: the audit log is the host's; PAM does without.
func DefaultCapabilities() []string {
	return []string{
		"CAP_CHOWN",
		"CAP_DAC_OVERRIDE",
		"CAP_FOWNER",
		"CAP_FSETID",
		"CAP_KILL",
		"CAP_SETGID",
		"CAP_SETUID",
		"CAP_SETPCAP", // to drop capabilities from the bounding set, as careful daemons do
		"CAP_NET_BIND_SERVICE",
		"CAP_SYS_CHROOT",
		"CAP_SETFCAP", // package managers restore file capabilities
	}
}

// DefaultCapabilitiesConfig returns [DefaultCapabilities] as the bounding, effective and permitted
// sets. The inheritable and ambient sets are empty: a process with a user other than root has no
// capabilities at all.
func DefaultCapabilitiesConfig() *Capabilities {
	return &Capabilities{
		Bounding:  DefaultCapabilities(),
		Effective: DefaultCapabilities(),
		Permitted: DefaultCapabilities(),
	}
}

// AllCapabilities returns the names of all capabilities that this package knows, in the order of
// their numbers: those of Linux 5.9 to 6.18.
func AllCapabilities() []string { return slices.Clone(capabilityNames[:]) }

// capabilityNumber returns the number of a capability. The second result is false for a name that
// is unknown.
func capabilityNumber(name string) (int, bool) {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	n := slices.Index(capabilityNames[:], name)
	return n, n >= 0
}

// capSets are the five sets as the kernel takes them: bit n is capability n.
type capSets struct{ bounding, effective, permitted, inheritable, ambient uint64 }

// sets returns the sets as bits, and all complaints about them, joined. Nil stands for
// [DefaultCapabilitiesConfig].
func (c *Capabilities) sets() (capSets, error) {
	if c == nil {
		c = DefaultCapabilitiesConfig()
	}
	var errs fieldErrors
	bits := func(field string, names []string) uint64 {
		var set uint64
		for i, name := range names {
			n, ok := capabilityNumber(name)
			if !ok {
				errs.addf(index("Capabilities."+field, i), "unknown capability %q; see capabilities(7) for the names", name)
				continue
			}
			set |= 1 << n
		}
		return set
	}
	s := capSets{
		bounding:    bits("Bounding", c.Bounding),
		effective:   bits("Effective", c.Effective),
		permitted:   bits("Permitted", c.Permitted),
		inheritable: bits("Inheritable", c.Inheritable),
		ambient:     bits("Ambient", c.Ambient),
	}
	// The kernel would refuse both with a bare EPERM.
	if extra := s.effective &^ s.permitted; extra != 0 {
		errs.addf("Capabilities.Effective", "%s must be in Permitted too", capabilityList(extra))
	}
	if extra := s.ambient &^ (s.permitted & s.inheritable); extra != 0 {
		errs.addf("Capabilities.Ambient", "%s must be in both Permitted and Inheritable too", capabilityList(extra))
	}
	if err := errs.join(); err != nil {
		return capSets{}, err
	}
	return s, nil
}

// capabilityList names the capabilities of a set: "CAP_CHOWN, CAP_KILL".
func capabilityList(set uint64) string {
	var names []string
	for n, name := range capabilityNames {
		if set&(1<<n) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}
