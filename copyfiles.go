//go:build linux

package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// This file copies files into a container and writes them there. It runs in the caller's process, see
// rootdir.go for how paths are resolved; copyfrom.go is the other direction.

// CopyTo unpacks a tar into the directory dst of the container, which must be there. It keeps modes, times,
// hard links, user.* attributes, and owners: an owner in the tar is one of the container's. What is there under the same name
// is replaced, but for directories, which keep their attributes. It works while the container runs, is
// paused or created, and without a process where the root is a Directory.
//
// A name that is absolute or leads up is an error, and so is one that leads through a symbolic link of the same
// tar; links that the container has are followed below its root. Devices, attributes other than user.*, and places on the
// kernel's own file systems, such as /proc, are refused. Without root the caller can only make files of the
// container's user that the caller is; ErrUnsupported says so. What was unpacked before an error stays.
func (c *Container) CopyTo(ctx context.Context, dst string, archive io.Reader) error {
	return c.failed("copy to", c.copyTo(ctx, dst, archive))
}

func (c *Container) copyTo(ctx context.Context, dst string, archive io.Reader) error {
	r, err := c.openRoot()
	if err != nil {
		return err
	}
	defer r.Close()
	if r.readOnly != nil {
		return r.readOnly
	}
	u := &filer{root: r, dst: rootPath(dst), links: make(map[string]bool), times: make(map[string]unix.Timespec)}
	fd, err := u.directory(u.dst)
	if err != nil {
		return &Error{Op: "copy to", Path: dst, Err: err}
	}
	unix.Close(fd)
	for tr := tar.NewReader(archive); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return u.finish()
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return &Error{Op: "copy to", Path: dst, Err: fmt.Errorf("read the tar: %w", err)}
		}
		if err := u.entry(h, contextReader{ctx, tr}); err != nil {
			return &Error{Op: "copy to", Path: path.Join("/", u.dst, h.Name), Err: err}
		}
	}
}

// rootPath is a path of the container as RootFS takes it: relative to the root, "." for the root itself.
func rootPath(p string) string { return cmpDot(strings.Trim(path.Clean("/"+p), "/")) }

func cmpDot(p string) string {
	if p == "" {
		return "."
	}
	return p
}

// A filer makes files in a root.
type filer struct {
	root  *RootFS
	dst   string
	links map[string]bool          // symbolic links that it has made
	times map[string]unix.Timespec // of directories that it has made, to be set at the end
}

// directory opens a directory that may be written to.
func (u *filer) directory(name string) (int, error) {
	fd, err := u.root.view.open(name, true)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err == nil {
		err = checkFileSystem(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// place returns where a name of the tar is: its parent, which is made if it is missing, and its last part.
func (u *filer) place(name string) (parent int, base string, err error) {
	clean := path.Clean(name)
	if !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return -1, "", fmt.Errorf("the name leads out of the directory: %w", fs.ErrInvalid)
	}
	for i, c := range clean {
		if c == '/' && u.links[clean[:i]] {
			return -1, "", fmt.Errorf("the name leads through %q, a symbolic link of the same tar: %w", clean[:i], fs.ErrInvalid)
		}
	}
	dir := path.Join(u.dst, path.Dir(clean))
	parent, err = u.directory(dir)
	if errors.Is(err, unix.ENOENT) && path.Dir(clean) != "." {
		if err = u.entry(&tar.Header{Typeflag: tar.TypeDir, Name: path.Dir(clean), Mode: 0o755}, nil); err == nil {
			parent, err = u.directory(dir)
		}
	}
	return parent, path.Base(clean), err
}

// entry makes one file.
func (u *filer) entry(h *tar.Header, content io.Reader) error {
	if path.Clean(h.Name) == "." && h.Typeflag == tar.TypeDir {
		return nil // the directory itself, which keeps what it has
	}
	uid, gid, ok := u.root.hostIDs(h.Uid, h.Gid)
	if !ok {
		return fmt.Errorf("%w: the container has no user %d:%d", ErrUnsupported, h.Uid, h.Gid)
	}
	if os.Geteuid() != 0 && (int(uid) != os.Geteuid() || int(gid) != os.Getegid()) {
		return fmt.Errorf("%w: only root can make a file of the container's user %d:%d; as an ordinary user, run tar in the container with Exec", ErrUnsupported, h.Uid, h.Gid)
	}
	parent, base, err := u.place(h.Name)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	a := fileAttrs{mode: uint32(h.Mode) & 0o7777, uid: uid, gid: gid, mtime: timespec(h.ModTime)}
	if h.ModTime.IsZero() {
		a.mtime = unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	if a.xattrs, err = userXattrs(h); err != nil {
		return err
	}
	clean := path.Clean(h.Name)
	if h.Typeflag != tar.TypeDir {
		if err := unix.Unlinkat(parent, base, 0); err != nil && err != unix.ENOENT {
			return err
		}
		delete(u.links, clean)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.mkdir(parent, base, clean, a)
	case tar.TypeReg, tar.TypeGNUSparse:
		err = u.file(parent, base, a, content)
	case tar.TypeSymlink:
		u.links[clean] = true
		if err = unix.Symlinkat(h.Linkname, parent, base); err == nil {
			err = ownMade(parent, base, unix.S_IFLNK, a)
		}
	case tar.TypeLink:
		err = u.link(parent, base, h.Linkname)
	case tar.TypeFifo:
		err = u.fifo(parent, base, a)
	case tar.TypeXGlobalHeader:
	default:
		err = fmt.Errorf("%w: an entry of the type %q: neither file, directory, link nor FIFO", ErrUnsupported, h.Typeflag)
	}
	if errors.Is(err, unix.EOVERFLOW) {
		err = fmt.Errorf("%w: the file system belongs to the container's user namespace, in which the caller has no id: %w", ErrUnsupported, err)
	}
	return err
}

// userXattrs are the attributes of an entry, all of which must be the user's.
func userXattrs(h *tar.Header) (map[string]string, error) {
	attrs := make(map[string]string)
	for record, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(record, paxXattr)
		if !ok {
			continue
		}
		if !strings.HasPrefix(name, xattrUser) || strings.HasPrefix(name, xattrUserOvl) || strings.ContainsRune(name, 0) {
			return nil, fmt.Errorf("%w: the attribute %.100q", ErrUnsupported, name)
		}
		attrs[name] = value
	}
	return attrs, nil
}

func (u *filer) mkdir(parent int, base, name string, a fileAttrs) error {
	err := unix.Mkdirat(parent, base, 0o700)
	if err == unix.EEXIST {
		fd, err := u.directory(path.Join(u.dst, name)) // a link to a directory will do, if it is the container's
		if err == nil {
			unix.Close(fd)
		}
		if u.links[name] {
			return unix.EEXIST
		}
		return err
	}
	if err != nil {
		return err
	}
	fd, err := openMade(parent, base, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	u.times[name] = a.mtime
	return setAttrs(fd, a)
}

func (u *filer) file(parent int, base string, a fileAttrs, content io.Reader) error {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	_, err = io.Copy(f, content)
	if err == nil {
		err = setAttrs(fd, a)
	}
	return errors.Join(err, f.Close())
}

func (u *filer) fifo(parent int, base string, a fileAttrs) error {
	if err := unix.Mknodat(parent, base, unix.S_IFIFO|0o600, 0); err != nil {
		return err
	}
	return ownMade(parent, base, unix.S_IFIFO, a)
}

// openMade opens what we have just made. The container may have mounted something of the host's over it
// meanwhile, which only the caller has the right to give away.
func openMade(parent int, base string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV}
	return openRetry(func() (int, error) { return unix.Openat2(parent, base, &how) })
}

// ownMade gives a link or FIFO that we have just made its owner, mode and times.
func ownMade(parent int, base string, kind uint32, a fileAttrs) error {
	fd, err := openMade(parent, base, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != kind {
		return errors.Join(err, unix.ESTALE)
	}
	err = unix.Fchownat(fd, "", int(a.uid), int(a.gid), unix.AT_EMPTY_PATH)
	if err == nil && kind != unix.S_IFLNK {
		err = unix.Chmod(fdPath(fd), a.mode)
	}
	if err == nil {
		err = unix.UtimesNanoAt(fd, "", a.times(), unix.AT_EMPTY_PATH)
	}
	return err
}

// link makes a hard link to a regular file below dst.
func (u *filer) link(parent int, base, target string) error {
	dir, name, err := u.place(target)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errNotRegular
	}
	return unix.Linkat(unix.AT_FDCWD, fdPath(fd), parent, base, unix.AT_SYMLINK_FOLLOW)
}

// finish sets the times of directories, which all that was made in them has changed.
func (u *filer) finish() error {
	for name, mtime := range u.times {
		fd, err := u.directory(path.Join(u.dst, name))
		if err != nil {
			continue // the container has moved it
		}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), []unix.Timespec{mtime, mtime}, 0)
		unix.Close(fd)
		if err != nil {
			return &Error{Op: "copy to", Path: path.Join("/", u.dst, name), Err: err}
		}
	}
	return nil
}

// setAttrs gives an open file that we have made its owner, mode, attributes and times; in that order, since a
// new owner takes bits of the mode away.
func setAttrs(fd int, a fileAttrs) error {
	if err := unix.Fchown(fd, int(a.uid), int(a.gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return err
	}
	for name, value := range a.xattrs {
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), a.times(), 0)
}

// contextReader ends when the context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
