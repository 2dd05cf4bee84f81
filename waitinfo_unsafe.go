//go:build linux

package container

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file reads the siginfo of waitid(2), whose union golang.org/x/sys leaves opaque.

type waitInfo struct{ raw unix.Siginfo }

func (w *waitInfo) siginfo() *unix.Siginfo { return &w.raw }

// word is a 4-byte field of the union, which begins at 16 on 64-bit and at 12 on 32-bit systems.
func (w *waitInfo) word(i int) int32 {
	base := 12
	if unsafe.Sizeof(uintptr(0)) == 8 {
		base = 16
	}
	b := (*[unsafe.Sizeof(w.raw)]byte)(unsafe.Pointer(&w.raw))
	return int32(binary.NativeEndian.Uint32(b[base+4*i:]))
}

func (w *waitInfo) pid() int { return int(w.word(0)) }

// status is the same as wait4(2) would give.
func (w *waitInfo) status() syscall.WaitStatus {
	const cldExited, cldDumped = 1, 3
	value := syscall.WaitStatus(w.word(2))
	switch w.raw.Code {
	case cldExited:
		return value << 8
	case cldDumped:
		return value | 0x80
	}
	return value
}
