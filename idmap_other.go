//go:build !linux

package container

// IDMap maps Size ids, from ContainerID on, to the host's, from HostID on.
type IDMap struct{ ContainerID, HostID, Size int }

func defaultMaps() (uid, gid []IDMap) { return selfMap() }
