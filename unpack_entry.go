//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"strings"

	"golang.org/x/sys/unix"
)

// This file makes what the entries of a layer say, one function for each kind.

// place makes something in a directory. What is there already, from an earlier entry, is removed: the
// last entry of a name wins. Where a name leads is decided once, as it may lead through the link that is removed.
func (u *unpacker) place(parent, base string, make func(*unpackDir) error) error {
	d, err := u.openDir(parent)
	if err != nil {
		return err
	}
	if err := make(d); err != unix.EEXIST {
		return err
	}
	real := d.path
	if err := u.clear(d, base); err != nil {
		return err
	}
	if d, err = u.openDir(real); err != nil {
		return err
	}
	return make(d)
}

// clear removes what an earlier entry has made. The directory d is not valid thereafter.
func (u *unpacker) clear(d *unpackDir, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		real := joinName(d.path, base)
		if err := u.forgetTree(real); err != nil {
			return err
		}
		err := removeTree(d.fd, base)
		u.dirs.forget()
		return err
	case unix.S_IFLNK:
		defer u.dirs.forget()
	}
	// It has hidden what lower layers have of that name. A directory that follows does not bring that back.
	if err := u.hide(joinName(d.path, base)); err != nil {
		return err
	}
	delete(u.owners, joinName(d.path, base))
	if err := unix.Unlinkat(d.fd, base, 0); err != nil {
		return fmt.Errorf("remove an earlier entry: %w", err)
	}
	return nil
}

// hide notes that a new directory of that path is not merged with those of lower layers.
func (u *unpacker) hide(real string) error {
	if u.whiteouts[real] {
		return nil
	}
	u.whiteouts[real] = true
	return u.keep(real, nil)
}

// forgetTree forgets what was noted about a directory that a later entry replaces, and about what is in it.
func (u *unpacker) forgetTree(real string) error {
	u.scanned += len(u.pending) + len(u.owners)
	if u.scanned > maxScanned {
		return fmt.Errorf("%w: a layer that replaces its own directories over and over", ErrLimit)
	}
	within := func(path string) bool { return path == real || strings.HasPrefix(path, real+"/") }
	maps.DeleteFunc(u.pending, func(path string, _ *pendingDir) bool { return within(path) })
	maps.DeleteFunc(u.owners, func(path string, _ layerOwner) bool { return within(path) })
	return nil
}

// How many notes forgetTree may look at for one layer; a second's work or so.
const maxScanned = 100e6

// impliedDir makes a directory that has no entry, for one that is below it. Its attributes are
// the usual ones, unless an entry for it follows.
func (u *unpacker) impliedDir(parent *unpackDir, base string) error {
	return u.mkdir(parent, base, &pendingDir{attrs: fileAttrs{mode: 0o755, keepTime: true}})
}

func (u *unpacker) mkdir(parent *unpackDir, base string, p *pendingDir) error {
	if err := unix.Mkdirat(parent.fd, base, 0o700); err != nil {
		return err
	}
	real := joinName(parent.path, base)
	p.opaque = u.whiteouts[real] // new, where the old one was hidden
	u.pending[real] = p
	u.meta.Inodes++
	return u.keep(real, &p.attrs)
}

func (u *unpacker) directory(parent, base string, attrs fileAttrs) error {
	return u.place(parent, base, func(d *unpackDir) error {
		err := u.mkdir(d, base, &pendingDir{attrs: attrs, listed: true})
		if err != unix.EEXIST {
			return err
		}
		// Its entry follows entries below it, or it has two.
		if p := u.pending[joinName(d.path, base)]; p != nil {
			p.attrs, p.listed = attrs, true
			return u.keep("", &attrs)
		}
		return err
	})
}

func (u *unpacker) file(h *tar.Header, parent, base string, attrs fileAttrs, content io.Reader) error {
	u.meta.Bytes += h.Size
	if h.Size < 0 || u.meta.Bytes > u.limits.Bytes || u.meta.Bytes < 0 {
		return fmt.Errorf("%w: more than %d bytes in a layer", ErrLimit, u.limits.Bytes)
	}
	return u.place(parent, base, func(d *unpackDir) error {
		fd, err := openRetry(func() (int, error) {
			return unix.Openat(d.fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		})
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		u.meta.Inodes++
		if isSparse(h) {
			err = u.writeSparse(fd, content)
		} else {
			err = u.write(fd, content)
		}
		if err != nil {
			return err
		}
		return u.setAttrs(fd, joinName(d.path, base), &attrs, unix.S_IFREG)
	})
}

// write copies content to a file.
func (u *unpacker) write(fd int, content io.Reader) error {
	for {
		n, rerr := content.Read(u.buf)
		for b := u.buf[:n]; len(b) > 0; {
			m, err := unix.Write(fd, b)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			b = b[m:]
		}
		if rerr == io.EOF {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}

// writeSparse copies content and leaves holes where there are only zeros.
func (u *unpacker) writeSparse(fd int, content io.Reader) error {
	const block = 4096
	var zeros [block]byte
	var size int64
	for {
		n, rerr := io.ReadFull(content, u.buf)
		for b := u.buf[:n]; len(b) > 0; {
			part := b[:min(block, len(b))]
			for at := size; !bytes.Equal(part, zeros[:len(part)]) && len(part) > 0; {
				m, err := unix.Pwrite(fd, part, at)
				if err != nil && err != unix.EINTR {
					return fmt.Errorf("write: %w", err)
				}
				part, at = part[max(m, 0):], at+int64(max(m, 0))
			}
			size += int64(min(block, len(b)))
			b = b[min(block, len(b)):]
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF && n < len(u.buf) {
			break
		}
		if rerr != nil {
			return rerr
		}
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	return nil
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	_, v0 := h.PAXRecords["GNU.sparse.map"]
	_, v1 := h.PAXRecords["GNU.sparse.major"]
	return v0 || v1
}

func (u *unpacker) symlink(target, parent, base string, attrs fileAttrs) error {
	if target == "" || len(target) > maxNameLength {
		return fmt.Errorf("%w: a symbolic link with a target of %d bytes", ErrInvalidImage, len(target))
	}
	return u.place(parent, base, func(d *unpackDir) error {
		if err := unix.Symlinkat(target, d.fd, base); err != nil {
			return err
		}
		u.meta.Inodes++
		return u.setAttrsAt(d, base, &attrs)
	})
}

// hardlink makes another name for a file of this layer. The target is found by the same walk as
// everything else; that it cannot be linked is an error, and never a reason to copy it.
func (u *unpacker) hardlink(target, name, parent, base string) error {
	target, err := cleanName(target)
	if err != nil {
		return fmt.Errorf("target of a hard link: %w", err)
	}
	if target == "" || target == name {
		return fmt.Errorf("%w: a hard link to itself or to the root", ErrInvalidImage)
	}
	targetParent, targetBase := splitName(target)
	return u.place(parent, base, func(d *unpackDir) error {
		td, err := u.dirs.lookup(targetParent)
		if err != nil {
			return fmt.Errorf("%w: hard link to %.300q: %w", ErrInvalidImage, target, err)
		}
		if td.path == d.path && targetBase == base {
			return fmt.Errorf("%w: a hard link to itself", ErrInvalidImage)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(td.fd, targetBase, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("%w: hard link to %.300q, which is not in this layer: %w", ErrInvalidImage, target, err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG, unix.S_IFLNK, unix.S_IFIFO:
		default:
			return fmt.Errorf("%w: hard link to %.300q, which is a directory or a whiteout", ErrInvalidImage, target)
		}
		return unix.Linkat(td.fd, targetBase, d.fd, base, 0) // without following a symbolic link
	})
}

func (u *unpacker) fifo(parent, base string, attrs fileAttrs) error {
	return u.place(parent, base, func(d *unpackDir) error {
		if err := unix.Mknodat(d.fd, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		u.meta.Inodes++
		return u.setAttrsAt(d, base, &attrs)
	})
}

// whiteout applies an entry that hides something in lower layers. It never touches this layer's own
// entries, whichever comes first.
func (u *unpacker) whiteout(h *tar.Header, parent, base string) error {
	if h.Typeflag != tar.TypeReg || h.Size != 0 {
		return fmt.Errorf("%w: a whiteout that is not an empty file", ErrInvalidImage)
	}
	if base == whiteoutOpaque {
		d, err := u.openDir(parent)
		if err != nil {
			return err
		}
		if p := u.pending[d.path]; p != nil {
			p.opaque = true
		}
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." || strings.HasPrefix(hidden, whiteoutPrefix) {
		return fmt.Errorf("%w: a whiteout of an impossible name", ErrInvalidImage)
	}
	d, err := u.openDir(parent)
	if err != nil {
		return err
	}
	real := joinName(d.path, hidden)
	if err := u.hide(real); err != nil {
		return err
	}
	switch err := unix.Mknodat(d.fd, hidden, unix.S_IFCHR, 0); err {
	case nil:
		u.meta.Inodes++
	case unix.EEXIST:
		if p := u.pending[real]; p != nil {
			p.opaque = true
		}
	default:
		return fmt.Errorf("make a whiteout: %w", err)
	}
	return nil
}
