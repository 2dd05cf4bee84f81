//go:build linux

package launch

import (
	"strconv"

	"example.com/container/internal/seccomp"
)

// This file names the system calls that programs are made of, for listings and errors.

func syscallName(nr uint32) string {
	switch nr {
	case opSub:
		return "sub"
	case opCrash:
		return "crash"
	}
	if name, ok := seccomp.Name(seccomp.Native(), nr); ok {
		return name
	}
	return "syscall_" + strconv.Itoa(int(nr))
}
