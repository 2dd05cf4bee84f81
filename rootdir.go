//go:build linux

package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// This file shows the files of a container's root to the caller. It runs in the caller's process; no program of
// the container runs. While the container runs, its processes may change anything at any moment: each path
// is resolved once, below the root, and what counts is the descriptor that came of it.
//
// The naive way, os.DirFS("/proc/PID/root"), follows the container's links to the caller's own files, waits for
// FIFOs, reads devices, and may look at another process.

// RootFS is the root of a container, read-only. Links are followed below the root, and none of
// /proc's own. Regular files, directories and links can be read; anything else can be looked at, not
// opened. Files of the kernel's file systems, such as /proc and /sys, are refused with fs.ErrPermission: what they
// tell is about the host, or meant for the reader. It is safe for concurrent use.
type RootFS struct {
	view     *rootView
	uid, gid []IDMap // of the container's user namespace
	mapped   bool    // it has one of its own
	readOnly error   // why nothing can be written; nil if it can
}

// The interfaces of io/fs that a root has.
var (
	_ fs.ReadDirFS  = (*RootFS)(nil)
	_ fs.ReadLinkFS = (*RootFS)(nil)
	_ fs.StatFS     = (*RootFS)(nil)
	_ io.Closer     = (*RootFS)(nil)
)

// FS returns the container's root, which the caller closes. Of a running container it is what the first
// process sees as its root, with all mounts; it stays that one's also when the container has ended. Of one that
// has no process it is Root.Dir, or the layers with what is in Root.Upper. What was written to a root without
// Upper is gone with the process; the error then wraps fs.ErrNotExist.
func (c *Container) FS() (*RootFS, error) {
	r, err := c.openRoot()
	if err != nil {
		return nil, c.failed("files", err)
	}
	return r, nil
}

func (c *Container) openRoot() (*RootFS, error) {
	if c.damage != nil {
		return nil, c.damage
	}
	switch t, err := c.target(); {
	case err == nil:
		defer t.close()
		r := &RootFS{view: t.root, uid: t.uidMaps, gid: t.gidMaps, mapped: t.flags&unix.CLONE_NEWUSER != 0}
		t.root = nil // ours now
		return r, nil
	case !errors.Is(err, ErrNotRunning):
		return nil, err
	}
	state, err := c.state()
	if err != nil {
		return nil, err
	}
	root := c.cfg.Root
	copies := root.access() == CopyOnWrite
	switch {
	case !c.cfg.Namespaces.NewMnt:
		return nil, &Error{Op: "files", Err: ErrNotRunning, Remedy: "without a mount namespace of its own the container has a root only while it runs"}
	case root.Dir == "/":
		return nil, &Error{Op: "files", Err: fmt.Errorf("%w: %w", ErrNotRunning, fs.ErrNotExist), Remedy: "a copy of the host's root is there only while the container runs"}
	case copies && root.Upper == "" && state.Status == StatusStopped:
		return nil, &Error{Op: "files", Err: fmt.Errorf("%w: %w", ErrNotRunning, fs.ErrNotExist), Remedy: "what it wrote was in memory and is gone; set Root.Upper to keep it"}
	}
	view, err := openRootView(root)
	if err != nil {
		return nil, err
	}
	pl := &plan{cfg: &c.cfg}
	pl.resolveUserNamespace()
	pl.files.close()
	r := &RootFS{view: view, uid: pl.uidMaps, gid: pl.gidMaps, mapped: c.cfg.Namespaces.NewUser}
	switch {
	case root.access() == ReadOnly:
		r.readOnly = unix.EROFS
	case copies:
		r.readOnly = &Error{Op: "files", Err: ErrNotRunning, Remedy: "layers can be written to while the container runs, or is created"}
	}
	return r, nil
}

// Close closes the root. Files that have been opened stay open.
func (r *RootFS) Close() error {
	r.view.close()
	return nil
}

// Open opens a regular file or a directory.
func (r *RootFS) Open(name string) (fs.File, error) {
	f, err := r.open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "stat", Path: name, Err: unwrapPath(err)}
	}
	if info.IsDir() {
		return &rootDir{rootFile: rootFile{f}, root: r, name: name}, nil
	}
	return rootFile{f}, nil
}

// open opens a regular file or a directory for reading.
func (r *RootFS) open(name string) (*os.File, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrInvalid
	}
	fd, err := r.view.open(name, true)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return reopen(fd, name)
}

// reopen opens the file of an O_PATH descriptor for reading, if that is harmless. It does not wait.
func reopen(fd int, name string) (*os.File, error) {
	if err := checkFileSystem(fd); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil, errNotRegular
	}
	read, err := unix.Open(fdPath(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(read), name), nil
}

// kernelFileSystems are those whose files are not data, but the kernel's: reading tells about the host, and
// writing changes it, with the rights of the caller and not the container's.
var kernelFileSystems = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
	unix.TRACEFS_MAGIC, unix.BPF_FS_MAGIC, unix.SECURITYFS_MAGIC, unix.EFIVARFS_MAGIC, unix.DEVPTS_SUPER_MAGIC,
	unix.BINFMTFS_MAGIC, unix.PSTOREFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.NSFS_MAGIC, unix.BINDERFS_SUPER_MAGIC,
	unix.RDTGROUP_SUPER_MAGIC, unix.XENFS_SUPER_MAGIC, unix.SOCKFS_MAGIC, unix.PIPEFS_MAGIC, unix.ANON_INODE_FS_MAGIC,
	0x62656570, // configfs
	0x19800202, // mqueue
}

func checkFileSystem(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if slices.Contains(kernelFileSystems, int64(st.Type)) {
		return fmt.Errorf("a file of the kernel's, not of the container's: %w", fs.ErrPermission)
	}
	return nil
}

// Stat returns the status of a file; links are followed.
func (r *RootFS) Stat(name string) (fs.FileInfo, error) { return r.stat("stat", name, true) }

// Lstat returns the status of a file; a link at the end is not followed.
func (r *RootFS) Lstat(name string) (fs.FileInfo, error) { return r.stat("lstat", name, false) }

func (r *RootFS) stat(op, name string, follow bool) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	fd, err := r.view.open(name, follow)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Stat()
}

// ReadLink returns the target of a symbolic link, as it is written: an absolute one is meant below
// the root.
func (r *RootFS) ReadLink(name string) (string, error) {
	fail := func(err error) (string, error) { return "", &fs.PathError{Op: "readlink", Path: name, Err: err} }
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	fd, err := r.view.open(name, false)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return fail(unix.EINVAL)
	}
	target, err := readLink(fd)
	if err != nil {
		return fail(err)
	}
	return target, nil
}

// ReadDir lists a directory, sorted by name.
func (r *RootFS) ReadDir(name string) ([]fs.DirEntry, error) {
	fail := func(err error) ([]fs.DirEntry, error) {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: unwrapPath(err)}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	names, err := r.view.list(name)
	if err != nil {
		return fail(err)
	}
	var list []fs.DirEntry
	for _, base := range names {
		path := base
		if name != "." {
			path = name + "/" + base
		}
		info, err := r.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) { // a whiteout, or gone meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, fs.FileInfoToDirEntry(info))
	}
	return list, nil
}

// list returns the names in a directory, sorted; in merged layers, those that are whited out too.
func (v *rootView) list(path string) ([]string, error) {
	dirs, err := v.openDirs(path)
	if err != nil {
		return nil, err
	}
	defer dirs.close()
	var all []string
	for _, fd := range dirs {
		f, err := reopen(fd, path)
		if err != nil {
			return nil, err
		}
		names, err := f.Readdirnames(-1)
		f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// A rootFile is an open regular file. It hides what would use the name as a path of the host's.
type rootFile struct{ f *os.File }

func (f rootFile) Stat() (fs.FileInfo, error)              { return f.f.Stat() }
func (f rootFile) Read(b []byte) (int, error)              { return f.f.Read(b) }
func (f rootFile) ReadAt(b []byte, o int64) (int, error)   { return f.f.ReadAt(b, o) }
func (f rootFile) Seek(o int64, whence int) (int64, error) { return f.f.Seek(o, whence) }
func (f rootFile) Close() error                            { return f.f.Close() }

// A rootDir is an open directory.
type rootDir struct {
	rootFile
	root *RootFS
	name string
	rest []fs.DirEntry
	read bool
}

func (d *rootDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: unix.EISDIR}
}

// ReadDir lists the directory that has the name now.
func (d *rootDir) ReadDir(n int) (list []fs.DirEntry, err error) {
	if !d.read {
		if d.rest, err = d.root.ReadDir(d.name); err != nil {
			return nil, err
		}
		d.read = true
	}
	if n <= 0 {
		list, d.rest = d.rest, nil
		return list, nil
	}
	if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	list, d.rest = d.rest[:n], d.rest[n:]
	return list, nil
}

// containerIDs are the owner of a file as the container sees it.
func (r *RootFS) containerIDs(st *unix.Stat_t) (uid, gid int) {
	if !r.mapped {
		return int(st.Uid), int(st.Gid)
	}
	const nobody = 65534
	uid, gid = nobody, nobody
	if id, ok := mapFromHost(r.uid, st.Uid); ok {
		uid = int(id)
	}
	if id, ok := mapFromHost(r.gid, st.Gid); ok {
		gid = int(id)
	}
	return uid, gid
}

// hostIDs are the ids of the host for an owner in the container.
func (r *RootFS) hostIDs(uid, gid int) (hostUid, hostGid uint32, ok bool) {
	if uid < 0 || gid < 0 || int64(uid) > maxID || int64(gid) > maxID {
		return 0, 0, false
	}
	if !r.mapped {
		return uint32(uid), uint32(gid), true
	}
	hostUid, ok1 := mapToHost(r.uid, uint32(uid))
	hostGid, ok2 := mapToHost(r.gid, uint32(gid))
	return hostUid, hostGid, ok1 && ok2
}

// statTime is the modification time of a status.
func statTime(st *unix.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()) }
