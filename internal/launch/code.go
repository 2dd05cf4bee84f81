//go:build linux && (amd64 || arm64)

package launch

import (
	"bytes"
	"sync"
	"unsafe"
)

// This file finds the launcher's machine code in the text of this very binary.

// launcherAddr returns the address of the launcher. It is never called: only its bytes are used.
func launcherAddr() uintptr

// codeEnd follows the last instruction of the launcher.
const codeEnd = "lnch-end"

// code returns the launcher's machine code.
var code = sync.OnceValue(func() []byte {
	const limit = 1024
	text := unsafe.Slice((*byte)(addrToPointer(launcherAddr())), limit)
	n := bytes.Index(text, []byte(codeEnd))
	if n < 0 {
		panic("launch: the launcher has no end")
	}
	return text[:n:n]
})

// addrToPointer is for addresses of machine code, which does not move.
func addrToPointer(addr uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr))
}
