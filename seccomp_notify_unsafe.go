//go:build linux

package container

import (
	"sync"
	"unsafe"

	"example.com/container/internal/seccomp"
	"golang.org/x/sys/unix"
)

// This file holds the ioctls of a seccomp listener; see seccomp_unotify(2).

// Of asm-generic, which amd64 and arm64 have. Where a launcher is missing there are no listeners.
const (
	seccompIDValid = 0x40082102
	seccompAddFd   = 0x40182103
)

// seccompNotif is struct seccomp_notif.
type seccompNotif struct {
	id    uint64
	pid   uint32
	flags uint32
	data  seccomp.Data
}

// seccompResponse is struct seccomp_notif_resp.
type seccompResponse struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// seccompAddFD is struct seccomp_notif_addfd.
type seccompAddFD struct {
	id        uint64
	flags     uint32
	file      uint32
	number    uint32
	fileFlags uint32
}

// notifSizes are how large the kernel's structures are, which may grow. It reads and writes that much, whatever we know of it.
var notifSizes = sync.OnceValue(func() (sizes struct{ notif, response, data uint16 }) {
	unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	sizes.notif = max(sizes.notif, uint16(unsafe.Sizeof(seccompNotif{})))
	sizes.response = max(sizes.response, uint16(unsafe.Sizeof(seccompResponse{})))
	return sizes
})

// receive takes a call. It waits if there is none.
func (n *seccompNotif) receive(fd int) error {
	buf := make([]uint64, (notifSizes().notif+7)/8)
	if err := ioctlPointer(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&buf[0])); err != nil {
		return err
	}
	*n = *(*seccompNotif)(unsafe.Pointer(&buf[0]))
	return nil
}

// send answers a call.
func (r *seccompResponse) send(fd int) error {
	buf := make([]uint64, (notifSizes().response+7)/8)
	*(*seccompResponse)(unsafe.Pointer(&buf[0])) = *r
	for {
		if err := ioctlPointer(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&buf[0])); err != unix.EINTR {
			return err
		}
	}
}

// seccompValid tells whether a call still waits.
func seccompValid(fd int, id uint64) error {
	return ioctlPointer(fd, seccompIDValid, unsafe.Pointer(&id))
}

// add returns the number of the descriptor.
func (a *seccompAddFD) add(fd int) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), seccompAddFd, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func ioctlPointer(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
