package container

import "syscall"

// ErrPortInUse is returned when a port of the host is another container's already, or another program's. It wraps syscall.EADDRINUSE.
var ErrPortInUse error = &sentinel{"the port is in use", syscall.EADDRINUSE}
