//go:build !linux

package container

// SubordinateIDs returns ErrUnsupported: only Linux has subordinate ids.
func SubordinateIDs() (uid, gid []IDMap, err error) { return nil, nil, ErrUnsupported }
