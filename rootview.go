//go:build linux

package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file reads files of a container's root before the container is there, to learn who its users
// are. It runs in the caller's process and mounts nothing. What it reads is hostile: symbolic links
// lead nowhere but into the root, only regular files are opened, and sizes are bounded.
//
// The naive way, os.ReadFile(filepath.Join(root, "etc/passwd")), follows a link to the host's own
// file, hangs on a FIFO, and reads /dev/zero until the memory is full (CVE-2024-9676, CVE-2026-47262).

// The reasons why a file is not read.
var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("the file is too large")
)

// The bounds of a lookup: links followed as by the kernel, and directories searched. The latter
// bounds the time that a hostile chain of links can take.
const (
	maxLinks   = 40
	maxLookups = 1000
)

// rootView is a read-only view of a root: of a directory, or of layers merged as overlayfs merges
// them. It holds descriptors: close it. It is safe for concurrent use.
type rootView struct {
	layers []int // O_PATH, the highest first
	merged bool  // whiteouts and opaque directories have a meaning
}

// openRootView opens what the container will see as its root. With an Upper from an earlier start,
// what was written there is on top.
func openRootView(r Root) (*rootView, error) {
	v := &rootView{merged: len(r.Layers) > 0}
	open := func(path string) error {
		fd, err := openRetry(func() (int, error) {
			return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			return rootError(path, err)
		}
		v.layers = append(v.layers, fd)
		return nil
	}
	if r.Upper != "" {
		switch err := open(r.Upper + "/upper"); {
		case err == nil:
			v.merged = true
		case !errors.Is(err, unix.ENOENT): // it is made by the first start
			return nil, err
		}
	}
	dirs := []string{r.Dir}
	if r.Dir == "" {
		dirs = r.Layers
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := open(dirs[i]); err != nil {
			v.close()
			return nil, err
		}
	}
	return v, nil
}

// close closes the view. It must not be used afterwards.
func (v *rootView) close() {
	for _, fd := range v.layers {
		unix.Close(fd)
	}
	v.layers = nil
}

// readFile returns the content of a regular file of at most max bytes. Links are followed inside the
// root. The error is an *Error; it wraps fs.ErrNotExist if there is no such file.
func (v *rootView) readFile(path string, max int64) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, &Error{Op: "read from the container's root", Path: path, Err: err}
	}
	fd, err := v.open(path, true)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fail(errNotRegular)
	case st.Size > max:
		return fail(fmt.Errorf("%w: %d bytes, at most %d are read", errTooLarge, st.Size, max))
	}
	// The very file that has been looked at is opened, and not its name again.
	f, err := os.OpenFile(fdPath(fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return fail(unwrapPath(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1)) // it may grow while we read
	if err != nil {
		return fail(unwrapPath(err))
	}
	if int64(len(b)) > max {
		return fail(fmt.Errorf("%w: at most %d bytes are read", errTooLarge, max))
	}
	return b, nil
}

// lstat returns the status of a file. Links on the way are followed inside the root, a link at the
// end is not. Device and inode are those of the layer.
func (v *rootView) lstat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := v.open(path, false)
	if err == nil {
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
	}
	if err != nil {
		return st, &Error{Op: "look into the container's root", Path: path, Err: err}
	}
	return st, nil
}

// open returns an O_PATH descriptor of a file, which the caller closes.
func (v *rootView) open(path string, follow bool) (int, error) {
	if v.merged {
		return v.openMerged(path, follow)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	return openRetry(func() (int, error) { return unix.Openat2(v.layers[0], path, &how) })
}

// openRetry repeats an open that a signal or, for openat2, a rename somewhere has disturbed.
func openRetry(open func() (int, error)) (fd int, err error) {
	for range 128 {
		fd, err = open()
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}

// mergedDir is one directory in all layers that show it: O_PATH descriptors, the highest first.
type mergedDir []int

func (d mergedDir) close() {
	for _, fd := range d {
		unix.Close(fd)
	}
}

// openMerged walks through the merged layers, one component at a time. Only the directory it stands
// in is open: going up means to walk from the root again, so that depth costs time and not
// descriptors.
func (v *rootView) openMerged(path string, follow bool) (int, error) {
	dir, file, err := v.walkMerged(path, follow)
	if err != nil || dir == nil {
		return file, err
	}
	for _, fd := range dir[1:] {
		unix.Close(fd)
	}
	return dir[0], nil
}

// openDirs opens a directory in all layers that show it.
func (v *rootView) openDirs(path string) (mergedDir, error) {
	if !v.merged {
		fd, err := v.open(path, true)
		if err != nil {
			return nil, err
		}
		return mergedDir{fd}, nil
	}
	dir, file, err := v.walkMerged(path, true)
	if err == nil && dir == nil {
		unix.Close(file)
		err = unix.ENOTDIR
	}
	return dir, err
}

// walkMerged returns a directory, or the descriptor of another file.
func (v *rootView) walkMerged(path string, follow bool) (mergedDir, int, error) {
	var (
		cur     = mergedDir(nil) // nil stands for the root, which is v.layers
		where   []string         // the names from the root to cur, without links and ".."
		rest    = components(path)
		links   = 0
		lookups = 0
	)
	defer func() { cur.close() }()
	restart := func(more []string) { // goes back to the root
		cur.close()
		cur, where, rest = nil, nil, append(more, rest...)
	}
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			restart(where[:max(0, len(where)-1)])
			continue
		}
		if lookups++; lookups > maxLookups {
			return nil, -1, unix.ELOOP
		}
		dir := cur
		if dir == nil {
			dir = v.layers
		}
		found, err := lookup(dir, name)
		if err != nil {
			return nil, -1, err
		}
		switch {
		case found.dir != nil:
			cur.close()
			cur, where = found.dir, append(where, name)
			continue
		case found.link == "" || len(rest) == 0 && !follow:
			if len(rest) == 0 {
				return nil, found.file, nil
			}
			unix.Close(found.file)
			return nil, -1, unix.ENOTDIR
		}
		unix.Close(found.file)
		if links++; links > maxLinks {
			return nil, -1, unix.ELOOP
		}
		if strings.HasPrefix(found.link, "/") {
			restart(components(found.link))
		} else {
			rest = append(components(found.link), rest...)
		}
	}
	if cur != nil {
		dir := cur
		cur = nil // the caller's now
		return dir, -1, nil
	}
	var dir mergedDir
	for _, layer := range v.layers {
		fd, err := unix.FcntlInt(uintptr(layer), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			dir.close()
			return nil, -1, err
		}
		dir = append(dir, fd)
	}
	return dir, -1, nil
}

// entry is what a merged directory has under a name: a directory, or another file, which may be a
// link. The descriptors are the caller's to close.
type entry struct {
	dir  mergedDir
	file int // -1 for a directory
	link string
}

// lookup finds a name in a merged directory by the rules of overlayfs: the highest layer that has
// it counts; directories are merged down to the first one that is opaque, or to a file; a whiteout hides
// what is below.
func lookup(dir mergedDir, name string) (entry, error) {
	var found mergedDir
	for i, layer := range dir {
		fd, err := openRetry(func() (int, error) {
			return unix.Openat(layer, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		})
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			found.close()
			return entry{}, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			found.close()
			return entry{}, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			found = append(found, fd)
			if i == len(dir)-1 {
				break // nothing below that it could hide
			}
			hides, err := opaque(fd)
			if err != nil {
				found.close()
				return entry{}, err
			}
			if hides {
				break
			}
			continue
		}
		whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
		if whiteout || len(found) > 0 {
			unix.Close(fd)
			break
		}
		e := entry{file: fd}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			if e.link, err = readLink(fd); err != nil {
				unix.Close(fd)
				return entry{}, err
			}
		}
		return e, nil
	}
	if len(found) == 0 {
		return entry{}, unix.ENOENT
	}
	return entry{dir: found, file: -1}, nil
}

// opaque tells whether a directory of a layer hides those below it. Which of the two marks counts
// depends on how the layers are mounted; a layer of ours has both or the one that counts.
func opaque(fd int) (bool, error) {
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		var value [2]byte
		n, err := unix.Getxattr(fdPath(fd), name, value[:])
		switch err {
		case nil:
			if n == 1 && value[0] == 'y' {
				return true, nil
			}
		case unix.ENODATA, unix.EOPNOTSUPP, unix.ERANGE: // ERANGE: longer than any mark
		default:
			return false, err
		}
	}
	return false, nil
}

// readLink returns the target of the link that an O_PATH descriptor stands for.
func readLink(fd int) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// components splits a path and leaves out what does not lead anywhere.
func components(path string) []string {
	var parts []string
	for part := range strings.SplitSeq(path, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	return parts
}

// fdPath is a name for an open file. An O_PATH descriptor can be opened for reading by it.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// unwrapPath takes the error number out of an os.PathError, whose path would be one of /proc.
func unwrapPath(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
