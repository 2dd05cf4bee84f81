//go:build linux

package container

import (
	"context"
	"path"
	"strconv"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns Root into steps of the plan: the container's root is put together, attached over
// the host's, and entered with pivot_root. It runs in the caller's process.

// rootAttr are the attributes of every root: devices of the container are in its /dev, and only
// there.
func (pl *plan) rootAttr() uint64 {
	attr := uint64(unix.MOUNT_ATTR_NODEV)
	if pl.noNewPrivileges() {
		attr |= unix.MOUNT_ATTR_NOSUID // has no effect any more, and says so
	}
	return attr
}

// stepPrivate stops propagation between the mounts of our namespace and the host's.
func (pl *plan) stepPrivate() error {
	if !pl.cfg.Namespaces.NewMnt {
		return nil
	}
	attr := pl.Words(0, 0, unix.MS_PRIVATE, 0)
	pl.Call(unix.SYS_MOUNT_SETATTR, cwdFD, pl.Str("/"), unix.AT_RECURSIVE, attr, 32)
	return nil
}

// cloneRoot copies the tree of a directory root while it still is a peer of the host's mounts, for
// a Propagation that needs it.
func (pl *plan) cloneRoot() error {
	r := &pl.cfg.Root
	if r.Dir == "" || r.Dir == "/" || r.access() == CopyOnWrite {
		return nil
	}
	st, err := topLayer([]string{r.Dir})
	if err != nil {
		return err
	}
	pl.rootDir = fileID{uint64(st.Dev), st.Ino}
	pl.Step("root", r.Dir)
	if pl.root, err = pl.hostTree(r.Dir, true); err != nil {
		return rootError(r.Dir, err)
	}
	ms, recursive, _ := r.Propagation.flags()
	switch {
	case r.Propagation == "" || ms == unix.MS_UNBINDABLE:
		ms, recursive = unix.MS_PRIVATE, true
	case ms == unix.MS_SHARED: // after the pivot
		ms = unix.MS_SLAVE
	}
	pl.setAttr(pl.root, mountAttr{propagation: ms}, recursive)
	pl.setAttr(pl.root, mountAttr{set: pl.rootAttr()}, true)
	return nil
}

func rootError(dir string, err error) error {
	return &Error{Op: "root", Path: dir, Err: err, Remedy: "Config.Root.Dir must be a directory that the caller can enter"}
}

func (pl *plan) stepRoot() error {
	r := &pl.cfg.Root
	switch {
	case !pl.cfg.Namespaces.NewMnt:
		pl.root = pl.open(cwdFD, "/", unix.O_PATH|unix.O_DIRECTORY, 0, 0).Result()
		return nil
	case r.Dir == "/":
		return pl.hostRoot()
	case r.access() == CopyOnWrite || len(r.Layers) > 0:
		lowers := r.Layers
		if r.Dir != "" {
			lowers = []string{r.Dir}
		}
		top, err := topLayer(lowers)
		if err != nil {
			return err
		}
		base, err := pl.upperBase()
		if err != nil {
			return err
		}
		pl.makeDirLike(base, "upper", top)
		pl.makeDir(base, "work", 0o755)
		pl.Step("root", "overlay of "+strconv.Itoa(len(lowers)))
		if pl.foreignRoot() {
			if lowers, err = pl.idmappedLayers(base, lowers); err != nil {
				return err
			}
		}
		pl.root = pl.overlay(base, "upper", "work", lowers, pl.rootAttr())
	}
	pl.Step("attach root", "")
	if dir := r.Dir; dir != "" && len(pl.cfg.Hooks.programs(hookCreateContainer)) > 0 {
		pl.attachForHooks(dir)
		return nil
	}
	pl.attachOverRoot(pl.root)
	return nil
}

// idmappedLayers attaches the layers below base so that their owners, which are ids of the container
// on disk, are the container's ids: no file is copied or changed for a container with maps of its own.
// It returns their names relative to base.
func (pl *plan) idmappedLayers(base launch.Arg, layers []string) ([]string, error) {
	userns, err := newUserNamespace(context.Background(), pl.uidMaps, pl.gidMaps)
	if err != nil {
		return nil, err
	}
	defer userns.Close()
	names := make([]string, len(layers))
	for i, dir := range layers {
		f, err := idmappedTree(dir, false, false, userns)
		if err != nil {
			return nil, err
		}
		pl.files = append(pl.files, f)
		names[i] = "layer" + strconv.Itoa(i)
		pl.makeDir(base, names[i], 0o755)
		at := pl.open(base, names[i], unix.O_PATH|unix.O_DIRECTORY, 0, ownFile).Result()
		pl.attach(pl.File(f), at)
		pl.close(at)
	}
	return names, nil
}

// topLayer checks that the layers are there and returns the status of the topmost one's root, as
// which the merged root appears.
func topLayer(layers []string) (st unix.Stat_t, err error) {
	for _, dir := range layers {
		err := unix.Stat(dir, &st)
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = unix.ENOTDIR
		}
		if err != nil {
			return st, rootError(dir, err)
		}
	}
	return st, nil
}

// attachOverRoot mounts mnt on top of the host's root of our namespace. Paths still begin below it:
// what is attached here is reached by descriptor only, until pivot_root makes it the root.
func (pl *plan) attachOverRoot(mnt launch.Arg) {
	pl.Call(unix.SYS_MOVE_MOUNT, mnt, pl.Str(""), cwdFD, pl.Str("/"), unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// upperBase is the directory that holds what is written with CopyOnWrite: Root.Upper, or a tmpfs
// that is gone with the mount namespace.
func (pl *plan) upperBase() (launch.Arg, error) {
	r := &pl.cfg.Root
	pl.Step("upper layer", r.Upper)
	if r.Upper == "" {
		options := []fsOption{{key: "mode", value: "0755"}}
		if r.UpperSize > 0 {
			options = append(options, fsOption{key: "size", value: strconv.FormatInt(r.UpperSize, 10)})
		}
		base := pl.newFS("tmpfs", "upper", unix.MOUNT_ATTR_NODEV, options...)
		pl.attachOverRoot(base) // overlayfs before Linux 6.15 takes no detached upper layer
		return base, nil
	}
	return pl.open(cwdFD, r.Upper, unix.O_PATH|unix.O_DIRECTORY, 0, 0).Result(), nil
}

func (pl *plan) makeDir(dir launch.Arg, name string, mode uint32) {
	pl.Call(unix.SYS_MKDIRAT, dir, pl.Str(name), launch.Arg(mode)).Ignore(unix.EEXIST)
}

// makeDirLike makes a directory with the owner and mode of one of the host's: an upper directory
// covers those of the lower one. An owner without an id in the container is its root. A directory that
// is there already, from an earlier container, keeps what it has.
func (pl *plan) makeDirLike(dir launch.Arg, name string, st unix.Stat_t) {
	made := pl.Label()
	mode := launch.Arg(st.Mode & 0o7777)
	pl.Call(unix.SYS_MKDIRAT, dir, pl.Str(name), mode).On(unix.EEXIST, made)
	if uid, gid := pl.containerUid(st.Uid), pl.containerGid(st.Gid); uid|gid != 0 {
		pl.Call(unix.SYS_FCHOWNAT, dir, pl.Str(name), launch.Arg(uid), launch.Arg(gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if st.Mode&unix.S_ISGID != 0 { // mkdir(2) does not set it
		pl.Call(unix.SYS_FCHMODAT, dir, pl.Str(name), mode)
	}
	pl.Here(made)
}

func (pl *plan) stepReadonlyRoot() error {
	if pl.cfg.Namespaces.NewMnt && pl.cfg.Root.access() == ReadOnly {
		pl.setAttr(pl.root, mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
	}
	return nil
}

// stepPivot makes the container's root the root of the mount namespace, and drops the host's: it
// is mounted over the new root for a moment, and taken off from there (pivot_root(2), "pivot_root(".", ".")").
// With it lie there the other mounts that were attached over the host's root, and any that the caller had
// there; each call takes off the topmost one. If one were left, "/.." would lead to it: so that, and no
// count, says when they are all gone.
func (pl *plan) stepPivot() error {
	if !pl.cfg.Namespaces.NewMnt {
		return nil
	}
	here := pl.Str(".")
	pl.Call(unix.SYS_FCHDIR, pl.root)
	pl.Call(unix.SYS_PIVOT_ROOT, here, here)
	own, top := pl.Zero(statxSize), pl.Zero(statxSize)
	pl.Call(unix.SYS_STATX, pl.root, pl.Str(""), unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, own)
	again, alone := pl.Label(), pl.Label()
	pl.Here(again)
	pl.Call(unix.SYS_UMOUNT2, here, unix.MNT_DETACH)
	pl.Call(unix.SYS_STATX, cwdFD, pl.Str("/.."), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, top)
	pl.Sub(pl.Value(top+statxMntID), pl.Value(own+statxMntID)).Case(0, alone).Else(again).Then(again)
	pl.Here(alone)
	pl.Call(unix.SYS_CHDIR, pl.Str("/"))
	// Nothing can be pivoted to a shared root.
	if ms, recursive, _ := pl.cfg.Root.Propagation.flags(); ms == unix.MS_SHARED || ms == unix.MS_UNBINDABLE {
		pl.setAttr(pl.root, mountAttr{propagation: ms}, recursive)
	}
	return nil
}

// stepWorkdir opens the working directory below the root, and makes it if it is missing.
func (pl *plan) stepWorkdir() error {
	if dir := path.Clean("/" + pl.proc.Cwd); dir != "/" {
		pl.Step("working directory", dir)
		pl.cwd = pl.target(pl.root, dir, directory, inRoot)
	}
	return nil
}

// stepEnterWorkdir enters it as root, who may enter what the user may not: so do runc and Docker with
// a WORKDIR like /root.
func (pl *plan) stepEnterWorkdir() error {
	if pl.cwd != 0 {
		pl.Step("working directory", pl.proc.Cwd)
		pl.entered = pl.Call(unix.SYS_FCHDIR, pl.cwd).IgnoreAll().Result()
	}
	return nil
}

// stepReenterWorkdir tries as the user what root could not.
func (pl *plan) stepReenterWorkdir() error {
	if pl.cwd != 0 {
		pl.Step("working directory", pl.proc.Cwd)
		done := pl.Label()
		pl.Sub(pl.entered, 0).Case(0, done).IgnoreAll()
		pl.Call(unix.SYS_FCHDIR, pl.cwd)
		pl.Here(done)
	}
	return nil
}
