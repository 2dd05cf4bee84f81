//go:build linux

package container

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file gives files of an unpacked layer the owners that they have in the image, where the user
// may not do so: it compiles the work into a program of system calls that a launcher carries out in the store's user namespace,
// in which the user is root. Most files of most images belong to root, who is the user there: so
// the program is short.

// How many entries one program has; each takes up to 6 calls of 128 bytes.
const ownersPerProgram = 4096

// setOwners finishes a layer in its stage: owners and file capabilities for OwnershipSubIDs, file
// capabilities for OwnershipSingle.
func (st *stage) setOwners(ctx context.Context, m *layerMeta) error {
	s := st.store
	owners := m.Owners
	switch s.config.Ownership {
	case OwnershipRoot:
		return nil
	case OwnershipSingle:
		owners = nil
		for _, o := range m.Owners {
			if o.Capability != nil {
				owners = append(owners, o)
			}
		}
	}
	if len(owners) == 0 {
		return nil
	}
	for _, o := range owners {
		if s.config.Ownership != OwnershipSubIDs {
			break
		}
		_, uidOK := mapToHost(s.config.UIDMap, o.UID)
		_, gidOK := mapToHost(s.config.GIDMap, o.GID)
		if !uidOK || !gidOK {
			return remedy(fmt.Errorf("%w: %.300q belongs to %d:%d, which is beyond this user's subordinate ids", ErrUnsupported, o.Path, o.UID, o.GID),
				"give the user longer ranges in /etc/subuid and /etc/subgid and make a new store, or use one with the Ownership \"single\"")
		}
	}
	// Before the first file has another owner it is on record who has: nobody else could delete them.
	if err := s.writeJSON(st.name+"/meta.json", m); err != nil {
		return err
	}
	root, err := os.Open(filepath.Join(s.dir, st.name, "fs"))
	if err != nil {
		return err
	}
	defer root.Close()
	err = s.runOwners(ctx, root, owners, ownerCalls.set)
	if s.config.Ownership == OwnershipSingle && err != nil && ctx.Err() == nil {
		// Nobody has promised capabilities to a store of one owner.
		m.SkippedXattrs += int64(len(owners))
		return nil
	}
	return err
}

// takeBack gives directories back to the user, who can then delete what is in them.
func (s *Store) takeBack(ctx context.Context, root *os.File, owners []layerOwner) error {
	var dirs []layerOwner
	for _, o := range owners {
		if o.Mode&unix.S_IFMT == unix.S_IFDIR && (o.UID != 0 || o.GID != 0) {
			dirs = append(dirs, o)
		}
	}
	return s.runOwners(ctx, root, dirs, ownerCalls.takeBack)
}

// runOwners runs programs that call emit for each entry.
func (s *Store) runOwners(ctx context.Context, root *os.File, owners []layerOwner, emit func(ownerCalls, layerOwner)) error {
	if len(owners) == 0 {
		return nil
	}
	ns, err := s.userNamespace(ctx)
	if err != nil {
		return err
	}
	for len(owners) > 0 {
		n := min(len(owners), ownersPerProgram)
		if err := s.runOwnersIn(ns, root, owners[:n], emit); err != nil {
			return err
		}
		if owners = owners[n:]; ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *Store) runOwnersIn(ns, root *os.File, owners []layerOwner, emit func(ownerCalls, layerOwner)) error {
	p := launch.New(0)
	p.Step("enter the store's user namespace", "")
	p.Call(unix.SYS_SETNS, p.File(ns), unix.CLONE_NEWUSER)
	c := ownerCalls{
		Program: p,
		root:    p.File(root),
		chown:   s.config.Ownership == OwnershipSubIDs,
		// openat2's argument, as in linux/openat2.h: flags, mode, resolve.
		open: p.Words(unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS),
		path: p.Words(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS),
	}
	for _, o := range owners {
		emit(c, o)
	}
	p.Exit(0)
	return runToEnd("set owners", p, filepath.Join(s.dir, "ingest"))
}

// ownerCalls emits calls about an entry.
type ownerCalls struct {
	*launch.Program
	root       launch.Arg
	open, path launch.Arg // for openat2
	chown      bool
}

const openHowSize = 24 // of struct open_how

// name is the entry's path from the root.
func (o *layerOwner) name() string {
	if o.Path == "" {
		return "."
	}
	return o.Path
}

// set gives an entry its owner. The order is that of setAttrs.
func (c ownerCalls) set(o layerOwner) {
	c.Step("set owner", o.name())
	how := c.open
	if o.Mode&unix.S_IFMT == unix.S_IFLNK {
		how = c.path
	}
	fd := c.Call(unix.SYS_OPENAT2, c.root, c.Str(o.name()), how, openHowSize).Result()
	if c.chown {
		c.Call(unix.SYS_FCHOWNAT, fd, c.Str(""), launch.Arg(o.UID), launch.Arg(o.GID), unix.AT_EMPTY_PATH)
	}
	if o.Capability != nil {
		c.Call(unix.SYS_FSETXATTR, fd, c.Str(xattrCapability), c.Bytes(o.Capability), launch.Arg(len(o.Capability)), 0).
			Ignore(unix.ENOTSUP)
	}
	if o.Mode&unix.S_IFMT != unix.S_IFLNK && o.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 && c.chown {
		c.Call(unix.SYS_FCHMOD, fd, launch.Arg(o.Mode&0o7777))
	}
	c.Call(unix.SYS_CLOSE, fd)
}

// takeBack makes a directory the user's.
func (c ownerCalls) takeBack(o layerOwner) {
	c.Step("take back", o.name())
	done := c.Label()
	fd := c.Call(unix.SYS_OPENAT2, c.root, c.Str(o.name()), c.open, openHowSize).Else(done).Result()
	c.Call(unix.SYS_FCHOWN, fd, 0, 0).IgnoreAll()
	c.Call(unix.SYS_FCHMOD, fd, 0o700).IgnoreAll()
	c.Call(unix.SYS_CLOSE, fd)
	c.Here(done)
}

// userNamespace is the namespace in which the ids of images are those of the store.
func (s *Store) userNamespace(ctx context.Context) (*os.File, error) {
	s.userns.Lock()
	defer s.userns.Unlock()
	if s.userns.f != nil {
		return s.userns.f, nil
	}
	uid, gid := s.config.UIDMap, s.config.GIDMap
	if len(uid) == 0 {
		uid, gid = selfMap()
	}
	f, err := newUserNamespace(ctx, uid, gid)
	if err != nil {
		return nil, err
	}
	s.userns.f = f
	return f, nil
}
