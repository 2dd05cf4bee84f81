package seccomp

import "runtime"

// This file holds what the kernel calls the ABIs, and which of them a processor has.

// AUDIT_ARCH_* of the ABIs, by which a filter tells them apart.
const (
	auditX86_64  = 0xc000003e
	auditX86     = 0x40000003
	auditAARCH64 = 0xc00000b7
	auditARM     = 0x40000028
)

const (
	x32Bit   = 0x40000000 // in the numbers of X32, and in no others but negative ones
	negative = 0x80000000 // the first such number
)

// Audit returns AUDIT_ARCH_* of the ABI, which is seccomp_data.arch at its calls, and 0 for one that is not known. X32 has that of X86_64.
func (a ABI) Audit() uint32 {
	switch a {
	case X86_64, X32:
		return auditX86_64
	case X86:
		return auditX86
	case AARCH64:
		return auditAARCH64
	case ARM:
		return auditARM
	}
	return 0
}

// bit is in all numbers of the ABI's calls.
func (a ABI) bit() uint32 {
	if a == X32 {
		return x32Bit
	}
	return 0
}

// narrow tells whether arguments have 32 bits. In seccomp_data they may have more all the same: a program of 64 bits that
// makes a call of X86 passes the whole register, of which the call then sees the lower half.
func (a ABI) narrow() bool { return a == X86 || a == ARM }

// Native returns the ABI that this program was built for, and "" if it is none of those that are known.
func Native() ABI {
	switch runtime.GOARCH {
	case "amd64":
		return X86_64
	case "386":
		return X86
	case "arm64":
		return AARCH64
	case "arm":
		return ARM
	}
	return ""
}

// Compatible returns the ABIs besides this one that a kernel for it may have, too.
func Compatible(native ABI) []ABI {
	switch native {
	case X86_64:
		return []ABI{X86, X32}
	case AARCH64:
		return []ABI{ARM}
	}
	return nil
}
