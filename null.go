//go:build linux

package container

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// This file opens /dev/null for processes of containers. It runs in the caller's process.

// openNull opens the host's /dev/null, not the container's, which may be anything (CVE-2026-88265): by a read-only mount that
// is attached nowhere and ends with the last descriptor. Reading and writing a device works there; changing its mode, owner and times, which
// whoever has a descriptor can try with fchmod(2), does not. Root in a container may be the owner of the host's node.
//
// Who may not make mounts does not own the node either, but for a superuser without CAP_SYS_ADMIN.
func openNull() (*os.File, error) {
	mount, err := unix.OpenTree(unix.AT_FDCWD, os.DevNull, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	defer unix.Close(mount)
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return nil, &os.PathError{Op: "mount_setattr", Path: os.DevNull, Err: err}
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", mount), os.O_RDWR, 0)
}

// isNull tells whether a file is a /dev/null, such as that which a service has for its standard input.
func isNull(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var st unix.Stat_t
	_ = conn.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}
