//go:build linux

package container

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// This file finds the directory in which an entry of a layer is to be made. It is the wall between the
// names in a layer, which a stranger chose, and the host.
//
// The naive way is to join the layer's directory and the name, to check the result for "..", and to
// hand it to open, chmod and link: the kernel then follows symbolic links that earlier entries have
// planted. Here every directory is opened by openat2(2) below the descriptor of the layer's root,
// which no name and no link can leave, and everything else is done relative to the directory's
// descriptor with one path component that is not followed. Opening a path per entry would be
// slow; a small cache of descriptors makes this the fastest way as well.

// The most directories that are kept open.
const dirCacheSize = 64

// unpackDir is an open directory of the layer.
type unpackDir struct {
	fd int // O_PATH
	// path is where the directory really is: no symbolic links, no slash at either end. The root's
	// is empty.
	path string

	name       string // by which it is cached
	prev, next *unpackDir
}

// dirTree opens directories below a root.
type dirTree struct {
	root     unpackDir // also the head of the list: next is the most recently used
	rootPath string    // of the root as the kernel names it
	cache    map[string]*unpackDir
	// make makes a missing directory, "implied" by the name of an entry below it.
	make func(parent *unpackDir, name string) error
}

func newDirTree(rootFD int, make_ func(*unpackDir, string) error) (*dirTree, error) {
	t := &dirTree{cache: map[string]*unpackDir{}, make: make_}
	t.root.fd = rootFD
	t.root.prev, t.root.next = &t.root, &t.root
	var err error
	t.rootPath, err = pathOfFD(rootFD)
	return t, err
}

// close closes all directories but the root.
func (t *dirTree) close() {
	for d := t.root.next; d != &t.root; d = d.next {
		unix.Close(d.fd)
	}
	t.root.prev, t.root.next = &t.root, &t.root
	clear(t.cache)
}

// forget must be called when a directory or a symbolic link has been removed or replaced: any path
// may now lead elsewhere.
func (t *dirTree) forget() { t.close() }

// open returns the directory of that name, a clean relative path. It is valid until the second next call of open,
// or the next of forget. Symbolic links are followed as chroot would follow them; what is missing is made.
func (t *dirTree) open(name string) (*unpackDir, error) { return t.walk(name, true, 0) }

// lookup is open for what must exist.
func (t *dirTree) lookup(name string) (*unpackDir, error) { return t.walk(name, false, 0) }

func (t *dirTree) walk(name string, mkdir bool, links int) (*unpackDir, error) {
	if name == "" {
		return &t.root, nil
	}
	if d := t.cache[name]; d != nil {
		t.unlink(d)
		t.link(d)
		return d, nil
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY
	path := name
	fd, err := openBeneath(t.root.fd, name, flags, unix.RESOLVE_NO_SYMLINKS)
	if err == unix.ENOENT && mkdir {
		if err := t.makeMissing(name); err != nil {
			return nil, err
		}
		fd, err = openBeneath(t.root.fd, name, flags, unix.RESOLVE_NO_SYMLINKS)
	}
	if err == unix.ELOOP || err == unix.ENOTDIR {
		fd, err = openBeneath(t.root.fd, name, flags, unix.RESOLVE_IN_ROOT)
		if err == unix.ENOENT && mkdir && links < maxSymlinks {
			target, err := t.readLink(name)
			if err != nil {
				return nil, err
			}
			return t.walk(target, mkdir, links+1)
		}
		if err == nil {
			path, err = t.realPath(fd)
		}
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("open directory %q in the layer: %w", name, err)
	}
	d := &unpackDir{fd: fd, path: path, name: name}
	if len(t.cache) >= dirCacheSize {
		oldest := t.root.prev
		t.unlink(oldest)
		delete(t.cache, oldest.name)
		unix.Close(oldest.fd)
	}
	t.cache[name] = d
	t.link(d)
	return d, nil
}

// How many symbolic links are followed, as in the kernel.
const maxSymlinks = 40

// makeMissing makes a directory in the one above it, which walk finds or makes in the same way.
func (t *dirTree) makeMissing(name string) error {
	parent, base := splitName(name)
	dir, err := t.open(parent)
	if err != nil {
		return err
	}
	if err := t.make(dir, base); err != nil && err != unix.EEXIST {
		return fmt.Errorf("make directory %q in the layer: %w", name, err)
	}
	return nil
}

// readLink replaces the first symbolic link of a path by its target, for links to directories that
// are in a lower layer only and have to be made in this one. The result is as clean and as confined as any name.
func (t *dirTree) readLink(name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		fd, err := openBeneath(t.root.fd, name[:i], unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return "", fmt.Errorf("open %q in the layer: %w", name[:i], err)
		}
		n, err := unix.Readlinkat(fd, "", buf)
		unix.Close(fd)
		if err != nil {
			continue // not a symbolic link
		}
		target := string(buf[:n])
		if !strings.HasPrefix(target, "/") {
			// What is in front of the first link is free of links: ".." may be taken by its letters.
			target = filepath.Join("/", filepath.Dir(name[:i]), target)
		}
		target = filepath.Join("/", target, name[i:])
		return cleanName(target)
	}
	return "", fmt.Errorf("open directory %q in the layer: %w", name, unix.ENOENT)
}

// realPath tells where an open directory is.
func (t *dirTree) realPath(fd int) (string, error) {
	path, err := pathOfFD(fd)
	if err != nil {
		return "", err
	}
	rel, ok := strings.CutPrefix(path, t.rootPath)
	if !ok || (rel != "" && rel[0] != '/') {
		return "", fmt.Errorf("%w: it leads out of the layer", ErrInvalidImage) // cannot happen: openat2 has kept it in
	}
	return strings.TrimPrefix(rel, "/"), nil
}

func (t *dirTree) link(d *unpackDir) {
	d.prev, d.next = &t.root, t.root.next
	d.prev.next, d.next.prev = d, d
}

func (t *dirTree) unlink(d *unpackDir) {
	d.prev.next, d.next.prev = d.next, d.prev
}

// openBeneath opens a path below a directory, by openat2(2) of Linux 5.6. resolve says how symbolic
// links are treated; links of procfs are never followed.
func openBeneath(dirFD int, path string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS,
	}
	if resolve&unix.RESOLVE_IN_ROOT == 0 {
		how.Resolve |= unix.RESOLVE_BENEATH
	}
	fd, err := openRetry(func() (int, error) { return unix.Openat2(dirFD, path, &how) })
	if err == unix.ENOSYS {
		err = fmt.Errorf("%w: openat2 is missing or forbidden; Linux 5.6 has it", ErrUnsupported)
	}
	return fd, err
}

// pathOfFD is the path of an open file as the kernel knows it.
func pathOfFD(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(fdPath(fd), buf)
	if err != nil {
		return "", fmt.Errorf("read the name of a directory from /proc: %w", err)
	}
	return string(buf[:n]), nil
}

// splitName splits a clean relative path into the directory and the last component.
func splitName(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// cleanName turns a name in a tar into a path relative to the root, without empty components and
// without ".". The root itself is "". Names that go up are refused, also where they would stay inside: no
// tool makes them, and what they mean depends on symbolic links.
func cleanName(name string) (string, error) {
	if len(name) > maxNameLength {
		return "", fmt.Errorf("%w: a name of %d bytes", ErrLimit, len(name))
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("%w: the name %q contains a zero byte", ErrInvalidImage, name)
	}
	clean := isCleanName(name)
	depth := 0
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("%w: the name %q contains \"..\"", ErrInvalidImage, name)
		}
		if len(part) > unix.NAME_MAX {
			return "", fmt.Errorf("%w: a component of %d bytes in a name", ErrLimit, len(part))
		}
		if part != "" && part != "." {
			depth++
		}
	}
	if depth > maxNameDepth {
		return "", fmt.Errorf("%w: a name of %d components", ErrLimit, depth)
	}
	if clean {
		return name, nil
	}
	name = strings.Trim(filepath.Clean("/"+name), "/")
	return name, nil
}

// isCleanName tells whether there is nothing to clean, the usual case.
func isCleanName(name string) bool {
	if name == "" || name[0] == '/' || name[0] == '.' || name[len(name)-1] == '/' {
		return false
	}
	return !strings.Contains(name, "//") && !strings.Contains(name, "/.")
}

// The longest and the deepest name, as for the kernel's PATH_MAX. A layer's directory is a part
// of the paths that overlayfs sees, but the kernel walks it from a descriptor.
const (
	maxNameLength = 4096 - 1
	maxNameDepth  = 256
)
