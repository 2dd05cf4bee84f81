package container

import (
	"sync"

	"golang.org/x/sys/unix"
)

// lastCap returns the highest capability that the running kernel knows: all of them up to this one
// must be dropped from the bounding set, also those that this package has no name for. It asks the
// kernel and not /proc/sys/kernel/cap_last_cap, which a masked /proc may hide.
var lastCap = sync.OnceValue(func() int {
	n := 0
	for n < 63 && unix.Prctl(unix.PR_CAPBSET_READ, uintptr(n+1), 0, 0, 0) == nil {
		n++
	}
	return n
})
