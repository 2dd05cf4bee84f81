//go:build linux

package container

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file writes the tar of one layer into a directory in the format of overlayfs. It runs in the caller's process, as the
// caller; what the caller may not do itself is left to unpack_owner.go. The directory is private to
// us until the layer has been verified, so the only enemy is the tar itself.
//
// Order is part of the format: attributes of a directory are set last, as making files in it changes its
// times, and its final mode may forbid us to. For a file the order is
// write, owner (which clears setuid and capabilities), extended attributes, mode, times.

// Names of whiteouts in a layer's tar.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// Directories that old versions of Docker's AUFS driver left at the root of a layer; they mean nothing.
var aufsMetadata = []string{".wh..wh.plnk", ".wh..wh.aufs", ".wh..wh.orph"}

// unpacker writes one layer.
type unpacker struct {
	dirs      *dirTree
	ownership Ownership
	limits    ImageLimits
	euid      int
	egid      int

	meta      layerMeta
	pending   map[string]*pendingDir // directories of the layer, by their real path
	whiteouts map[string]bool        // paths, by parent's real path, that hide what is below
	owners    map[string]layerOwner  // what the user may not set
	scanned   int
	buf       []byte
}

// pendingDir is a directory whose attributes are still to be set.
type pendingDir struct {
	attrs  fileAttrs
	opaque bool // hides the directory of lower layers
	listed bool // it has an entry of its own; otherwise it was implied by a name below it
}

// unpackLayer unpacks a plain tar into the directory rootFD, which must be empty. The result is what is worth
// knowing about the layer.
func unpackLayer(ctx context.Context, rootFD int, r io.Reader, own Ownership, limits ImageLimits) (*layerMeta, error) {
	u := &unpacker{
		ownership: own,
		limits:    limits,
		euid:      unix.Geteuid(),
		egid:      unix.Getegid(),
		pending:   map[string]*pendingDir{"": {attrs: fileAttrs{mode: 0o755, keepTime: true}}},
		whiteouts: map[string]bool{},
		owners:    map[string]layerOwner{},
		buf:       make([]byte, 128<<10),
	}
	var err error
	u.dirs, err = newDirTree(rootFD, u.impliedDir)
	if err != nil {
		return nil, err
	}
	defer u.dirs.close()

	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are checked below, more strictly
			if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
				err = fmt.Errorf("%w: %w", ErrInvalidImage, err)
			}
			return nil, fmt.Errorf("read the layer's tar: %w", err)
		}
		if err := u.entry(h, tr); err != nil {
			return nil, fmt.Errorf("entry %.300q: %w", h.Name, err)
		}
	}
	if err := u.finish(ctx); err != nil {
		return nil, err
	}
	return &u.meta, nil
}

// entry applies one entry of the tar.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // says nothing about files: git archive's commit id
	}
	u.meta.Entries++
	if u.meta.Entries > u.limits.Entries {
		return fmt.Errorf("%w: more than %d entries in a layer", ErrLimit, u.limits.Entries)
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	attrs, err := u.attributes(h)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is not a directory", ErrInvalidImage)
		}
		root := u.pending[""]
		root.attrs, root.listed = attrs, true
		return nil
	}
	parent, base := splitName(name)
	if strings.Contains(name, whiteoutPrefix) {
		if top, _, _ := strings.Cut(name, "/"); slices.Contains(aufsMetadata, top) {
			return nil
		}
		for part := range strings.SplitSeq(parent, "/") {
			if strings.HasPrefix(part, whiteoutPrefix) {
				return fmt.Errorf("%w: a directory has the name of a whiteout", ErrInvalidImage)
			}
		}
		if strings.HasPrefix(base, whiteoutPrefix) {
			return u.whiteout(h, parent, base)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(parent, base, attrs)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(h, parent, base, attrs, content)
	case tar.TypeSymlink:
		return u.symlink(h.Linkname, parent, base, attrs)
	case tar.TypeLink:
		return u.hardlink(h.Linkname, name, parent, base)
	case tar.TypeFifo:
		return u.fifo(parent, base, attrs)
	case tar.TypeChar, tar.TypeBlock:
		// A container gets its devices from its configuration, never from an image. A device 0/0
		// would be a whiteout that the tar's reader does not know of.
		u.meta.SkippedDevices++
		return nil
	}
	return fmt.Errorf("%w: entries of type %q are not known", ErrInvalidImage, h.Typeflag)
}

// openDir is dirs.open, but a whiteout of this layer does not stand in the way: an entry below it means that
// there is a new directory where the old one was hidden.
func (u *unpacker) openDir(name string) (*unpackDir, error) {
	d, err := u.dirs.open(name)
	if err == nil || !errors.Is(err, unix.ENOTDIR) {
		return d, err
	}
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		above, base := splitName(name[:i])
		parent, err := u.dirs.lookup(above)
		if err != nil {
			break
		}
		if !u.whiteouts[joinName(parent.path, base)] {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			continue
		}
		if err := unix.Unlinkat(parent.fd, base, 0); err != nil {
			return nil, fmt.Errorf("replace a whiteout: %w", err)
		}
		return u.dirs.open(name)
	}
	return nil, fmt.Errorf("%w: %w", ErrInvalidImage, err)
}

// place makes something in a directory. What is there already, from an earlier entry, is removed: the
// last entry of a name wins.
func (u *unpacker) place(parent, base string, make func(*unpackDir) error) error {
	for try := 0; ; try++ {
		d, err := u.openDir(parent)
		if err != nil {
			return err
		}
		err = make(d)
		if err != unix.EEXIST || try > 0 {
			return err
		}
		if err := u.clear(d, base); err != nil {
			return err
		}
	}
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
	delete(u.owners, joinName(d.path, base))
	if err := unix.Unlinkat(d.fd, base, 0); err != nil {
		return fmt.Errorf("remove an earlier entry: %w", err)
	}
	return nil
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
	return nil
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
			return nil
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
		const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := unix.Openat(d.fd, base, flags, 0o600)
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
		return u.setAttrs(fd, joinName(d.path, base), &attrs)
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
			return fmt.Errorf("read the layer's tar: %w", rerr)
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
			return fmt.Errorf("read the layer's tar: %w", rerr)
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
	u.whiteouts[real] = true
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

// finish sets the attributes of all directories, the deepest first.
func (u *unpacker) finish(ctx context.Context) error {
	u.dirs.forget()
	paths := make([]string, 0, len(u.pending))
	for path := range u.pending {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for i, path := range slices.Backward(paths) {
		if i%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := u.finishDir(path, u.pending[path]); err != nil {
			return fmt.Errorf("directory %.300q: %w", path, err)
		}
	}
	slices.Sort(u.meta.ImpliedDirs)
	for _, path := range slices.Sorted(maps.Keys(u.owners)) {
		u.meta.Owners = append(u.meta.Owners, u.owners[path])
	}
	return nil
}

func (u *unpacker) finishDir(path string, p *pendingDir) error {
	if !p.listed && path != "" {
		u.meta.ImpliedDirs = append(u.meta.ImpliedDirs, path)
	}
	name := path
	if name == "" {
		name = "."
		// Nothing looks at the xattr of a layer's root: what lies below it is left out of the stack.
		u.meta.OpaqueRoot, p.opaque = p.opaque, false
	}
	fd, err := openBeneath(u.dirs.root.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if p.opaque {
		if err := u.setOpaque(fd); err != nil {
			return err
		}
	}
	return u.setAttrs(fd, path, &p.attrs)
}

// joinName joins a directory's path and a name in it.
func joinName(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}
