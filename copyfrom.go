//go:build linux

package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// This file copies files out of a container. It runs in the caller's process, see rootdir.go for how
// paths are resolved.

// CopyFrom writes the file or directory src of the container as a tar: names begin with the last part of src, or
// are those in the root if src is "/". Owners are ids of the container, 65534 for those that it has not. Modes, times, links,
// hard links, devices and user.* attributes are kept; sockets are left out. A link is copied as a link. Directories of
// the kernel's own file systems, such as /proc, are empty in the tar. It works in every status but StatusCreating with
// the limits of [Container.FS].
//
// A file that shrinks while it is read is an error that wraps io.ErrUnexpectedEOF; of one that grows the rest is
// left out.
func (c *Container) CopyFrom(ctx context.Context, src string, archive io.Writer) error {
	return c.failed("copy from", c.copyFrom(ctx, src, archive))
}

func (c *Container) copyFrom(ctx context.Context, src string, archive io.Writer) error {
	r, err := c.openRoot()
	if err != nil {
		return err
	}
	defer r.Close()
	src = rootPath(src)
	a := &archiver{ctx: ctx, root: r, src: src, tar: tar.NewWriter(archive), seen: make(map[fileID]string)}
	if err := a.add(src, path.Base(src)); err != nil {
		return err
	}
	return a.tar.Close()
}

// An archiver writes files of a root to a tar.
type archiver struct {
	ctx  context.Context
	root *RootFS
	src  string
	tar  *tar.Writer
	seen map[fileID]string // files with several names, and the first of them
}

// fileID is what a file is known by, whatever its name.
type fileID struct{ dev, ino uint64 }

// add writes the file at a path under a name of the tar, with all that is below it.
func (a *archiver) add(from, name string) error {
	fail := func(err error) error {
		return &Error{Op: "copy from", Path: path.Join("/", from), Err: err}
	}
	if err := a.ctx.Err(); err != nil {
		return err
	}
	fd, err := a.root.view.open(from, false)
	if err != nil {
		return fail(err)
	}
	closed := false
	done := func() {
		if !closed {
			unix.Close(fd)
			closed = true
		}
	}
	defer done()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	h, err := a.header(fd, &st, name)
	if err != nil {
		return fail(err)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		kernels := checkFileSystem(fd)
		done() // however deep the tree is, one descriptor
		if from == a.src && kernels != nil {
			return fail(kernels)
		}
		if err := a.tar.WriteHeader(h); err != nil || kernels != nil {
			return err
		}
		names, err := a.root.view.list(from)
		if err != nil {
			return fail(unwrapPath(err))
		}
		for _, base := range names {
			err := a.add(path.Join(from, base), path.Join(name, base))
			if errors.Is(err, fs.ErrNotExist) { // a whiteout, or gone meanwhile
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	case tar.TypeReg:
		if err := a.file(fd, h); err != nil {
			return fail(err)
		}
		return nil
	case 0: // a socket
		return nil
	}
	return a.tar.WriteHeader(h)
}

// header describes a file. Without a type it has no place in a tar.
func (a *archiver) header(fd int, st *unix.Stat_t, name string) (h *tar.Header, err error) {
	h = &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), ModTime: statTime(st), Format: tar.FormatPAX}
	h.Uid, h.Gid = a.root.containerIDs(st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		id := fileID{uint64(st.Dev), st.Ino}
		if first, ok := a.seen[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else if st.Nlink > 1 {
			a.seen[id] = name
		}
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = readLink(fd)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	}
	if err == nil && (h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeDir) && checkFileSystem(fd) == nil {
		h.PAXRecords, err = readXattrs(fd)
	}
	return h, err
}

// file writes a regular file.
func (a *archiver) file(fd int, h *tar.Header) error {
	f, err := reopen(fd, h.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(a.tar, contextReader{a.ctx, f}, h.Size)
	if err == io.EOF {
		err = fmt.Errorf("it has shrunk from %d to %d bytes: %w", h.Size, n, io.ErrUnexpectedEOF)
	}
	return err
}

// readXattrs returns the user's attributes of a file as records of a tar.
func readXattrs(fd int) (map[string]string, error) {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Listxattr(fdPath(fd), names)
	if err == unix.EOPNOTSUPP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records map[string]string
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if !strings.HasPrefix(name, xattrUser) || strings.HasPrefix(name, xattrUserOvl) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Getxattr(fdPath(fd), name, value)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		if records == nil {
			records = make(map[string]string)
		}
		records[paxXattr+name] = string(value[:n])
	}
	return records, nil
}
