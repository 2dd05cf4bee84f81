//go:build linux

package container

import (
	"archive/tar"
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
	whiteouts map[string]bool        // paths, by parent's real path, at which a directory hides those of lower layers
	owners    map[string]layerOwner  // what the user may not set
	scanned   int
	kept      int64 // bytes of names and attributes in the maps above
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

	src := &failingReader{r: r}
	tr := tar.NewReader(src)
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are checked below, more strictly
			return nil, src.tarError(err)
		}
		content := func(b []byte) (int, error) {
			n, err := tr.Read(b)
			if err != nil && err != io.EOF {
				err = src.tarError(err)
			}
			return n, err
		}
		if err := u.entry(h, readerFunc(content)); err != nil {
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
	u.meta.Entries++
	if u.meta.Entries > u.limits.Entries {
		return fmt.Errorf("%w: more than %d entries in a layer", ErrLimit, u.limits.Entries)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // says nothing about files: git archive's commit id
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
		return u.keep("", &attrs)
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

// keep counts what is remembered until the end of the layer. Compressed, the same name or attribute over and over is
// next to nothing; here it would be memory.
func (u *unpacker) keep(path string, a *fileAttrs) error {
	u.kept += int64(len(path))
	if a != nil {
		u.kept += int64(len(a.capability))
		for name, value := range a.xattrs {
			u.kept += int64(len(name) + len(value))
		}
	}
	if most := keptBytes + keptPerEntry*u.limits.Entries; u.kept > most {
		return fmt.Errorf("%w: more than %d bytes of names and attributes of directories", ErrLimit, most)
	}
	return nil
}

// How much keep allows; see ImageLimits.Entries.
const (
	keptBytes    = 16 << 20
	keptPerEntry = 64
)

// openDir is dirs.open, but a whiteout of this layer does not stand in the way: an entry below it means that
// there is a new directory where the old one was hidden.
func (u *unpacker) openDir(name string) (*unpackDir, error) {
	d, err := u.dirs.open(name)
	if err == nil || !errors.Is(err, unix.ENOTDIR) {
		return d, err
	}
	// The whiteout may be where a link of this layer leads to.
	for path, links := name, 0; links < maxSymlinks; links++ {
		switch removed, rerr := u.removeWhiteout(path); {
		case rerr != nil:
			return nil, rerr
		case removed:
			return u.openDir(name)
		}
		var lerr error
		if path, lerr = u.dirs.readLink(path); lerr != nil {
			break
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrInvalidImage, err)
}

// removeWhiteout removes a whiteout of this layer that stands in a path without links.
func (u *unpacker) removeWhiteout(path string) (bool, error) {
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		above, base := splitName(path[:i])
		parent, err := u.dirs.lookup(above)
		if err != nil {
			return false, nil
		}
		if !u.whiteouts[joinName(parent.path, base)] {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(parent.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			continue
		}
		if err := unix.Unlinkat(parent.fd, base, 0); err != nil {
			return false, fmt.Errorf("replace a whiteout: %w", err)
		}
		return true, nil
	}
	return false, nil
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
	name := path
	if name == "" {
		name = "."
		// Nothing looks at the xattr of a layer's root: what lies below it is left out of the stack.
		u.meta.OpaqueRoot, p.opaque = p.opaque, false
	}
	if !p.listed {
		u.meta.ImpliedDirs = append(u.meta.ImpliedDirs, name)
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
	return u.setAttrs(fd, path, &p.attrs, unix.S_IFDIR)
}

// joinName joins a directory's path and a name in it.
func joinName(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}
