package container

import "syscall"

// IDMap maps Size ids, from ContainerID on, to the host's, from HostID on.
type IDMap = syscall.SysProcIDMap
