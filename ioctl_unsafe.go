//go:build linux

package container

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file holds the calls of ioctl(2) that golang.org/x/sys has no function for.

// ioctlGetUint64 reads a 64-bit number.
func ioctlGetUint64(fd int, request uint) (n uint64, err error) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}
