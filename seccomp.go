package container

import "context"

// This file holds the profile of a seccomp filter as plain data, in the terms of the OCI runtime specification and of
// Docker's profiles. Nothing here acts.

// SeccompProfile says which system calls the container's processes may make. It is carried out by a filter that is
// compiled for the process's capabilities; see seccomp(2). Its JSON is that of "linux.seccomp" in the OCI
// runtime specification, and of Docker's profiles, which have conditions; both are read and written
// without loss, and what is neither is refused. See [DefaultSeccompProfile].
//
// The first rule that names a call, and whose conditions hold, counts. Calls of other architectures than those listed end the
// process.
type SeccompProfile struct {
	// DefaultAction is for the calls that no rule is for. Required. If it is SeccompErrno, a call that did not
	// exist when this package was written gets ENOSYS, as from a kernel that does not have it.
	DefaultAction SeccompAction `json:"defaultAction"`

	// DefaultErrno is the error number of a DefaultAction that has one, as in SeccompRule.Errno. Nil: EPERM.
	DefaultErrno *uint `json:"defaultErrnoRet,omitempty"`

	// Architectures are the ABIs that may be used, besides the native one, which always may: "SCMP_ARCH_X86".
	Architectures []string `json:"architectures,omitempty"`

	// ArchMap is Docker's way to list them: those of the entry of the native architecture may be used.
	ArchMap []SeccompArchMap `json:"archMap,omitempty"`

	// Flags are those of seccomp(2): SECCOMP_FILTER_FLAG_LOG, _SPEC_ALLOW, _WAIT_KILLABLE_RECV.
	Flags []string `json:"flags,omitempty"`

	// ListenerPath is the socket of a seccomp agent: a program that answers calls of action SeccompNotify. It gets the
	// descriptor as the runtime specification has it. If empty, Config.SeccompNotify answers.
	ListenerPath string `json:"listenerPath,omitempty"`
	// ListenerMetadata is passed to that program as it is.
	ListenerMetadata string `json:"listenerMetadata,omitempty"`

	// Syscalls are the rules.
	Syscalls []SeccompRule `json:"syscalls,omitempty"`
}

// SeccompArchMap lists the ABIs that go with a native one.
type SeccompArchMap struct {
	Architecture     string   `json:"architecture"`
	SubArchitectures []string `json:"subArchitectures"`
}

// SeccompRule says what happens at some calls.
type SeccompRule struct {
	// Names are of system calls. Those that an architecture does not have are passed over.
	Names []string `json:"names"`
	// Action is what happens. Required.
	Action SeccompAction `json:"action"`
	// Errno is the error number of SeccompErrno, 0 to 4095, or the message of SeccompTrace to the tracer, 16 bits. Nil: EPERM, 1, for both, as in
	// the specification. With 0 the call does nothing and succeeds.
	Errno *uint `json:"errnoRet,omitempty"`
	// Args are conditions that must all hold; but if any argument is in several of them, one of all must hold, as in
	// runc.
	Args []SeccompArg `json:"args,omitempty"`
	// Comment is for people.
	Comment string `json:"comment,omitempty"`
	// Includes are conditions for the rule to be there at all, of which all must hold; of Excludes none may hold. Nil: none.
	Includes *SeccompCondition `json:"includes,omitempty"`
	Excludes *SeccompCondition `json:"excludes,omitempty"`
}

// SeccompCondition is about the container and the host.
type SeccompCondition struct {
	// Caps must be in the bounding set of the process: "CAP_SYS_ADMIN".
	Caps []string `json:"caps,omitempty"`
	// Arches has the native architecture, by Go's name: "amd64". "x32" and "x86" are those of amd64, "arm" is of arm64.
	Arches []string `json:"arches,omitempty"`
	// MinKernel is the least version of the kernel: "4.8".
	MinKernel string `json:"minKernel,omitempty"`
}

// SeccompArg compares an argument, as an unsigned number of 64 bits, or of 32 where the architecture has no more. Where the kernel
// takes an int, as ioctl(2) its command and socket(2) its family, the upper half does not count; with other calls a
// SeccompMaskedEqual with a mask of 32 bits does that.
type SeccompArg struct {
	// Index is the argument's, from 0 to 5.
	Index uint `json:"index"`
	// Value is what it is compared with; for SeccompMaskedEqual the mask.
	Value uint64 `json:"value"`
	// ValueTwo is what the masked argument is compared with.
	ValueTwo uint64 `json:"valueTwo,omitempty"`
	// Op is the comparison. Required.
	Op SeccompOp `json:"op"`
}

// SeccompAction is what happens at a system call; see SECCOMP_RET_* in seccomp(2).
type SeccompAction string

// The actions.
const (
	SeccompAllow       SeccompAction = "SCMP_ACT_ALLOW"
	SeccompErrno       SeccompAction = "SCMP_ACT_ERRNO"        // fails with Errno
	SeccompKill        SeccompAction = "SCMP_ACT_KILL"         // as SeccompKillThread
	SeccompKillThread  SeccompAction = "SCMP_ACT_KILL_THREAD"  // the thread ends, which leaves most programs in an unusable state
	SeccompKillProcess SeccompAction = "SCMP_ACT_KILL_PROCESS" // the process ends with SIGSYS
	SeccompTrap        SeccompAction = "SCMP_ACT_TRAP"         // the process gets SIGSYS, which it can handle
	SeccompTrace       SeccompAction = "SCMP_ACT_TRACE"        // a tracer decides; ENOSYS without one
	SeccompLog         SeccompAction = "SCMP_ACT_LOG"          // allowed, and written to the host's audit log
	SeccompNotify      SeccompAction = "SCMP_ACT_NOTIFY"       // Config.SeccompNotify decides
)

// SeccompOp is a comparison.
type SeccompOp string

// The comparisons.
const (
	SeccompEqual          SeccompOp = "SCMP_CMP_EQ"
	SeccompNotEqual       SeccompOp = "SCMP_CMP_NE"
	SeccompLess           SeccompOp = "SCMP_CMP_LT"
	SeccompLessOrEqual    SeccompOp = "SCMP_CMP_LE"
	SeccompGreater        SeccompOp = "SCMP_CMP_GT"
	SeccompGreaterOrEqual SeccompOp = "SCMP_CMP_GE"
	SeccompMaskedEqual    SeccompOp = "SCMP_CMP_MASKED_EQ" // argument & Value == ValueTwo
)

// SeccompHandler decides about a system call of action SeccompNotify, while the thread that makes it waits. It runs in the
// caller's process, several at a time.
type SeccompHandler func(ctx context.Context, call *SeccompCall) SeccompAnswer
