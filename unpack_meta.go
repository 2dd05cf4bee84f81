//go:build linux

package container

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file sets owner, extended attributes, mode and times of what unpack.go makes, always through
// the descriptor of the file just made, never by a path.

// fileAttrs are the attributes of one entry.
type fileAttrs struct {
	uid, gid   uint32
	mode       uint32 // permission bits, setuid, setgid, sticky
	mtime      unix.Timespec
	keepTime   bool              // leave the times alone
	xattrs     map[string]string // allowed ones of user.*
	capability []byte            // the value of security.capability, or nil
}

// layerOwner is an entry whose owner or attributes could not be set as they are in the image, because
// the user who unpacked it may not.
type layerOwner struct {
	Path       string `json:"path"`
	UID        uint32 `json:"uid"`
	GID        uint32 `json:"gid"`
	Mode       uint32 `json:"mode"` // with the type: chown clears bits of regular files
	Capability []byte `json:"capability,omitempty"`
}

const (
	paxXattr        = "SCHILY.xattr."
	xattrCapability = "security.capability"
	xattrUser       = "user."
	xattrUserOvl    = "user.overlay."
	xattrTrustedOvl = "trusted.overlay."
	maxXattrValue   = 64 << 10 // XATTR_SIZE_MAX
	maxXattrName    = 255      // XATTR_NAME_MAX
)

// attributes reads a header. Of the extended attributes, those pass that mean the same in any
// container: user.* and file capabilities. An image must not say what overlayfs should think of its files
// (user.overlay.*, trusted.overlay.*: redirects lead out of the layer), nor how this host labels them.
func (u *unpacker) attributes(h *tar.Header) (fileAttrs, error) {
	a := fileAttrs{mode: uint32(h.Mode) & 0o7777, mtime: timespec(h.ModTime)}
	// The last id, 2^32-1, means "leave it" to the kernel.
	if int64(h.Uid) < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) < 0 || int64(h.Gid) >= math.MaxUint32 {
		return a, fmt.Errorf("%w: owner %d:%d", ErrInvalidImage, h.Uid, h.Gid)
	}
	a.uid, a.gid = uint32(h.Uid), uint32(h.Gid)
	for record, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(record, paxXattr)
		if !ok {
			continue
		}
		switch {
		case len(name) > maxXattrName || len(value) > maxXattrValue || strings.IndexByte(name, 0) >= 0:
			return a, fmt.Errorf("%w: extended attribute %.50q of %d bytes", ErrLimit, name, len(value))
		case name == xattrCapability:
			if a.capability = fileCapability(value); a.capability == nil {
				u.meta.SkippedXattrs++
			}
		case strings.HasPrefix(name, xattrUser) && !strings.HasPrefix(name, xattrUserOvl) && len(name) > len(xattrUser):
			if a.xattrs == nil {
				a.xattrs = map[string]string{}
			}
			a.xattrs[name] = value
		default:
			u.meta.SkippedXattrs++
		}
	}
	return a, nil
}

// fileCapability returns a value of security.capability of version 2, which has no user namespace in it
// (struct vfs_cap_data of linux/capability.h), or nil. Version 3 is accepted if its namespace's root
// is 0: the image's.
func fileCapability(value string) []byte {
	const (
		v2, v3   = 0x02000000, 0x03000000
		revision = 0xff000000
		size     = 20
	)
	b := []byte(value)
	if len(b) < size {
		return nil
	}
	magic := binary.LittleEndian.Uint32(b)
	switch {
	case magic&revision == v2 && len(b) == size:
	case magic&revision == v3 && len(b) == size+4 && binary.LittleEndian.Uint32(b[size:]) == 0:
		binary.LittleEndian.PutUint32(b, magic&^revision|v2)
		b = b[:size]
	default:
		return nil
	}
	return b
}

// setAttrs sets the attributes of an open file or directory, kind being S_IFREG or S_IFDIR. path is its
// path in the layer.
func (u *unpacker) setAttrs(fd int, path string, a *fileAttrs, kind uint32) error {
	if err := u.chown(path, a, func() error { return unix.Fchown(fd, int(a.uid), int(a.gid)) }, kind); err != nil {
		return err
	}
	for name, value := range a.xattrs {
		switch err := unix.Fsetxattr(fd, name, []byte(value), 0); err {
		case nil:
		case unix.ENOTSUP:
			u.meta.SkippedXattrs++
		default:
			return fmt.Errorf("set extended attribute %q: %w", name, err)
		}
	}
	if a.capability != nil && u.ownership == OwnershipRoot {
		switch err := unix.Fsetxattr(fd, xattrCapability, a.capability, 0); err {
		case nil:
		case unix.ENOTSUP:
			u.meta.SkippedXattrs++
		default:
			return fmt.Errorf("set file capabilities: %w", err)
		}
	}
	// Always: the mode given to open is subject to a umask that is not ours to change.
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if a.keepTime {
		return nil
	}
	// An empty path with AT_EMPTY_PATH is the descriptor itself, since Linux 5.8.
	if err := unix.UtimesNanoAt(fd, "", a.times(), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// setAttrsAt sets the attributes of what cannot be opened: a symbolic link, a fifo.
func (u *unpacker) setAttrsAt(d *unpackDir, base string, a *fileAttrs) error {
	fd, err := openRetry(func() (int, error) {
		return unix.Openat(d.fd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	chown := func() error { return unix.Fchownat(fd, "", int(a.uid), int(a.gid), unix.AT_EMPTY_PATH) }
	if err := u.chown(joinName(d.path, base), a, chown, st.Mode&unix.S_IFMT); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // a link has no mode of its own
		if err := unix.Chmod(fdPath(fd), a.mode); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	u.meta.SkippedXattrs += int64(len(a.xattrs)) // the kernel allows user.* on files and directories only
	if err := unix.UtimesNanoAt(fd, "", a.times(), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// chown gives an entry its owner, or notes it.
func (u *unpacker) chown(path string, a *fileAttrs, chown func() error, kind uint32) error {
	if u.ownership != OwnershipRoot {
		if a.uid != 0 || a.gid != 0 || a.capability != nil {
			u.owners[path] = layerOwner{path, a.uid, a.gid, kind | a.mode, a.capability}
			return u.keep(path, nil)
		}
		return nil
	}
	if int(a.uid) == u.euid && int(a.gid) == u.egid {
		return nil
	}
	if err := chown(); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", a.uid, a.gid, err)
	}
	return nil
}

// setOpaque marks a directory that hides those below it. Overlayfs looks at trusted.* when it is mounted by root, and
// at user.* when it is mounted in a user namespace (option userxattr, Linux 5.11); root sets both, so that its layers
// serve both. The other one is then an ordinary attribute.
func (u *unpacker) setOpaque(fd int) error {
	err := unix.Fsetxattr(fd, xattrUserOvl+"opaque", []byte("y"), 0)
	if err == nil && u.ownership == OwnershipRoot {
		err = unix.Fsetxattr(fd, xattrTrustedOvl+"opaque", []byte("y"), 0)
	}
	if err != nil {
		return fmt.Errorf("mark as opaque (the file system of the store must have extended attributes): %w", err)
	}
	return nil
}

func (a *fileAttrs) times() []unix.Timespec { return []unix.Timespec{a.mtime, a.mtime} }

// timespec converts a time; what the kernel cannot express is cut to what it can.
func timespec(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		ts, _ = unix.TimeToTimespec(time.Unix(math.MaxInt32, 0))
	}
	return ts
}
