//go:build linux

package container

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// This file deletes trees that came from an image. os.RemoveAll fails on directories whose mode
// forbids their owner to write; images have many.

// removeTree removes a file, or a directory with everything in it, and follows no link. It is
// no error if there is nothing.
func removeTree(dirFD int, name string) error {
	err := unix.Unlinkat(dirFD, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM && err != unix.ENOTEMPTY {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	fd, err := openForRemoval(dirFD, name)
	if err != nil {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, n := range names {
			if err := removeTree(fd, n); err != nil {
				return fmt.Errorf("in %q: %w", name, err)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("remove %q: %w", name, err)
		}
	}
	if err := unix.Unlinkat(dirFD, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove %q: %w", name, err)
	}
	return nil
}

// openForRemoval opens a directory and gives its owner all rights to it.
func openForRemoval(dirFD int, name string) (int, error) {
	path, err := unix.Openat(dirFD, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return -1, err
	}
	if st.Mode&0o700 != 0o700 && int(st.Uid) == unix.Geteuid() {
		if err := unix.Chmod(fdPath(path), 0o700); err != nil {
			return -1, err
		}
	}
	return openRetry(func() (int, error) { return unix.Openat(path, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
}
