//go:build linux

package testenv

import (
	"os"
	"sync"
	"syscall"
)

// SCTP is a kernel with the protocol, built in or in a module, which the kernel loads when somebody asks for a socket. Many hosts' kernels
// have none; Debian's have.
var SCTP = Requirement{Name: "sctp", Probe: sync.OnceValue(func() error {
	const protocol = 132
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, protocol)
	if err != nil {
		return missing("modprobe sctp; see TestGuest, which has it", "no socket of SCTP: %v", os.NewSyscallError("socket", err))
	}
	return syscall.Close(fd)
})}
