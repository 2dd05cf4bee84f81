//go:build linux

package container

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns mounts, masks and read-only paths into steps of the plan. It runs in the caller's
// process; the mounts are made by the launcher, from descriptor to descriptor.

// stepSources copies what is bound from the host, with its attributes and propagation set, before
// anything is attached anywhere.
func (pl *plan) stepSources() error {
	if !pl.cfg.Namespaces.NewMnt {
		return nil
	}
	pl.sources = make([]mountSource, len(pl.cfg.Mounts))
	for i, m := range pl.cfg.Mounts {
		m = pl.effectiveMount(m)
		if m.Type != "bind" {
			continue
		}
		info, err := os.Stat(m.Source)
		if os.IsNotExist(err) && m.Optional {
			pl.sources[i].skip = true
			continue
		}
		if err != nil {
			return &Error{Op: "mount", Path: m.Source, Err: err, Remedy: "the source of the bind on " + m.Target + " must exist; Optional passes over one that does not"}
		}
		if !info.IsDir() {
			pl.sources[i].kind = regularFile
		}
		pl.Step("mount source", m.Source)
		recursive := m.Flags&Recursive != 0
		mnt, err := pl.bindSource(m, recursive)
		if err != nil {
			return err
		}
		set, clear := m.attrs()
		ms, deep, ok := m.Propagation.flags()
		if !ok || m.Propagation == "" {
			ms, deep = unix.MS_PRIVATE, true
		}
		all := recursive && m.Flags&TopOnly == 0
		if deep == all {
			pl.setAttr(mnt, mountAttr{set: set, clear: clear, propagation: ms}, all)
		} else {
			pl.setAttr(mnt, mountAttr{propagation: ms}, deep)
			if set|clear != 0 {
				pl.setAttr(mnt, mountAttr{set: set, clear: clear}, all)
			}
		}
		if pl.cfg.DevicesOnly && recursive && !all { // nor on what lies below
			pl.setAttr(mnt, mountAttr{set: unix.MOUNT_ATTR_NODEV}, true)
		}
		pl.sources[i].mnt = mnt
	}
	return pl.cloneRoot()
}

// bindSource copies the source of a bind, with its owners mapped if m says so.
func (pl *plan) bindSource(m Mount, recursive bool) (launch.Arg, error) {
	if len(m.UidMappings)+len(m.GidMappings) == 0 {
		mnt, err := pl.hostTree(m.Source, recursive)
		if err != nil {
			err = &Error{Op: "mount", Path: m.Source, Err: err}
		}
		return mnt, err
	}
	userns, err := newUserNamespace(context.Background(), m.UidMappings, m.GidMappings)
	if err != nil {
		return 0, err
	}
	defer userns.Close()
	f, err := idmappedTree(m.Source, recursive, recursive && m.Flags&TopOnly == 0, userns)
	if err != nil {
		return 0, err
	}
	pl.files = append(pl.files, f)
	return pl.File(f), nil
}

// A mountSource is what stepSources leaves for stepMounts.
type mountSource struct {
	mnt  launch.Arg
	kind fileKind
	skip bool
}

// effectiveMount replaces a file system of the kernel's that cannot be made here, because it shows
// a namespace that is not the container's own, with the host's view of the same. It also adds what
// DevicesOnly asks of all mounts but devpts, which holds the container's own terminals only.
func (pl *plan) effectiveMount(m Mount) Mount {
	if pl.cfg.DevicesOnly && m.Type != "devpts" {
		m.Flags |= NoDev
	}
	ns := &pl.cfg.Namespaces
	var owner NamespaceKind
	switch m.Type {
	case "proc":
		owner = PIDNamespace
	case "sysfs":
		owner = NetworkNamespace
	case "cgroup2":
		owner = CgroupNamespace
		if pl.cfg.Cgroup != nil && pl.cfg.Cgroup.Delegate {
			m.Flags &^= MountReadOnly
		}
	default:
		return m
	}
	if ns.private(owner) || pl.userns == usernsNone && m.Type != "cgroup2" {
		return m
	}
	source := map[string]string{"proc": "/proc", "sysfs": "/sys", "cgroup2": "/sys/fs/cgroup"}[m.Type]
	m.Type, m.Source = "bind", source
	m.Flags |= Recursive
	return m
}

func (pl *plan) stepMounts() error {
	if !pl.cfg.Namespaces.NewMnt {
		return nil
	}
	for i, m := range pl.cfg.Mounts {
		m = pl.effectiveMount(m)
		if m.Target == "/dev" || strings.HasPrefix(m.Target, "/dev/") {
			continue // by stepDev, the latter on the new /dev
		}
		if pl.sources[i].skip {
			pl.log.Debug("mount source does not exist", "source", m.Source)
			continue
		}
		pl.Step("mount", m.Target)
		if err := pl.mount(m, pl.sources[i]); err != nil {
			return err
		}
	}
	return nil
}

func (pl *plan) mount(m Mount, src mountSource) error {
	resolve := uint64(inRoot)
	if kernelPath(m.Target) {
		resolve = inRootNoLinks // an image must not move /proc, /sys or /dev elsewhere (CVE-2019-19921)
	}
	at := pl.target(pl.root, m.Target, src.kind, resolve)
	if resolve == inRoot {
		pl.refuseKernelTree(at)
	}
	mnt := src.mnt
	set, _ := m.attrs()
	switch {
	case m.Type == "bind":
	case m.Type == "tmpfs" && m.CopyUp:
		mnt = pl.copyUp(m, src.mnt, at, set)
	default:
		mnt = pl.newFS(m.Type, m.source(), set, fsOptions(m)...)
	}
	if ms, deep, ok := m.Propagation.flags(); ok && m.Type != "bind" && m.Propagation != "" {
		pl.setAttr(mnt, mountAttr{propagation: ms}, deep)
	}
	pl.attach(mnt, at)
	if m.Target == "/proc" || m.Target == "/sys" {
		pl.trees = append(pl.trees, kernelTree{m.Target + "/", mnt}) // closed with all the others
	} else {
		pl.close(mnt)
	}
	pl.close(at)
	return nil
}

// A kernelTree is what is mounted on /proc or /sys.
type kernelTree struct {
	prefix string // "/proc/"
	mnt    launch.Arg
}

// below returns where a path that is masked or made read-only is looked up. What lies in /proc and /sys is not looked up by way of their
// names: to whoever can rename in the root, these could be something else for that moment, and what is not there needs no mask.
func (pl *plan) below(name string) (dir launch.Arg, rel string) {
	for _, t := range slices.Backward(pl.trees) {
		if rel, ok := strings.CutPrefix(name, t.prefix); ok {
			return t.mnt, rel
		}
	}
	return pl.root, strings.TrimPrefix(name, "/")
}

// refuseKernelTree fails if a symbolic link of the image has led a target into /proc or /sys, where a
// mount could fake what the kernel says (CVE-2019-16884).
func (pl *plan) refuseKernelTree(at launch.Arg) {
	refuse, done := pl.Label(), pl.Label()
	buf := pl.Zero(statfsSize)
	pl.Call(unix.SYS_FSTATFS, at, buf)
	pl.Sub(pl.Value(buf), 0).Case(unix.PROC_SUPER_MAGIC, refuse).Case(unix.SYSFS_MAGIC, refuse).Case(unix.CGROUP2_SUPER_MAGIC, refuse).Then(done)
	pl.Here(refuse)
	pl.Fail(unix.EXDEV)
	pl.Here(done)
}

// copyUp is a tmpfs that begins with what is at the target: an overlay of it whose upper layer is
// the tmpfs base. Nothing is copied until it is written.
func (pl *plan) copyUp(m Mount, base, at launch.Arg, attr uint64) launch.Arg {
	fs := pl.fsOpen("overlay", m.source())
	pl.Call(unix.SYS_FCHDIR, at)
	pl.fsSet(fs, fsOption{key: "lowerdir", value: "."})
	pl.Call(unix.SYS_FCHDIR, base)
	pl.fsSet(fs, fsOption{key: "upperdir", value: "upper"})
	pl.fsSet(fs, fsOption{key: "workdir", value: "work"})
	for _, o := range pl.overlayOptions() {
		pl.fsSet(fs, o)
	}
	return pl.fsMount(fs, attr)
}

// statfsSize is the size of struct statfs, f_type first.
const statfsSize = 120

func fsOptions(m Mount) []fsOption {
	var list []fsOption
	for _, o := range m.dataOptions() {
		key, value, ok := strings.Cut(o, "=")
		list = append(list, fsOption{key: key, value: value, flag: !ok})
	}
	return list
}

// kernelPath tells whether a target is or lies below one of the trees that speak for the kernel.
func kernelPath(target string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if target == dir || strings.HasPrefix(target, dir+"/") {
			return true
		}
	}
	return false
}

// stepScratch makes the file systems that later steps take parts of. They are attached to the host's
// root and go with it: a mount that is dropped without having been attached costs a wait of the kernel's
// (RCU), and overlayfs before Linux 6.15 takes no detached upper layer.
func (pl *plan) stepScratch() error {
	if !pl.cfg.Namespaces.NewMnt {
		return nil
	}
	for i, m := range pl.cfg.Mounts {
		if m.Type == "tmpfs" && m.CopyUp {
			pl.Step("scratch", m.Target)
			base := pl.newFS("tmpfs", m.source(), unix.MOUNT_ATTR_NODEV, fsOptions(m)...)
			pl.attachOverRoot(base)
			pl.makeDir(base, "upper", 0o755)
			pl.makeDir(base, "work", 0o755)
			pl.sources[i].mnt = base
		}
	}
	if pl.cfg.DevicesOnly && !pl.inUserNamespace() {
		pl.Step("scratch", "devices")
		pl.nodes = pl.newFS("tmpfs", "dev", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, fsOption{key: "mode", value: "0755"}, fsOption{key: "size", value: "4k"})
		pl.attachOverRoot(pl.nodes)
	}
	if len(pl.cfg.MaskPaths) > 0 {
		pl.Step("scratch", "mask")
		pl.mask = pl.newFS("tmpfs", "mask", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC,
			fsOption{key: "mode", value: "0755"}, fsOption{key: "nr_inodes", value: "4"}, fsOption{key: "size", value: "4k"})
		pl.makeDir(pl.mask, "dir", 0o555)
		pl.Call(unix.SYS_MKNODAT, pl.mask, pl.Str("file"), unix.S_IFREG|0o444, 0)
		pl.setAttr(pl.mask, mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
		pl.attachOverRoot(pl.mask)
	}
	pl.scratchNetworkFiles()
	return nil
}

// stepMasks hides paths: under an empty read-only directory or file, whichever the path is. Both
// are in a tmpfs of ours.
func (pl *plan) stepMasks() error {
	if !pl.cfg.Namespaces.NewMnt || len(pl.cfg.MaskPaths) == 0 {
		return nil
	}
	for _, name := range pl.cfg.MaskPaths {
		pl.Step("mask", name)
		absent, file, attach := pl.Label(), pl.Label(), pl.Label()
		dir, rel := pl.below(name)
		at := pl.open(dir, rel, unix.O_PATH|unix.O_DIRECTORY, 0, inRoot).
			On(unix.ENOENT, absent).On(unix.ENOTDIR, file).Result()
		empty := pl.cloneTree(pl.mask, "dir", false).Then(attach)
		pl.Here(file)
		pl.open(dir, rel, unix.O_PATH, 0, inRoot).On(unix.ENOENT, absent).On(unix.ENOTDIR, absent).StoreTo(at)
		pl.cloneTree(pl.mask, "file", false).StoreTo(empty.Result())
		pl.Here(attach)
		pl.attach(empty.Result(), at)
		pl.Here(absent)
	}
	return nil
}

// stepReadonlyPaths mounts a read-only copy of a path over itself: made read-only while it is
// attached nowhere, and the path is looked up once.
func (pl *plan) stepReadonlyPaths() error {
	if !pl.cfg.Namespaces.NewMnt {
		return nil
	}
	for _, name := range pl.cfg.ReadonlyPaths {
		pl.Step("read-only path", name)
		absent := pl.Label()
		dir, rel := pl.below(name)
		at := pl.open(dir, rel, unix.O_PATH, 0, inRoot).On(unix.ENOENT, absent).On(unix.ENOTDIR, absent).Result()
		mnt := pl.cloneTree(at, "", true).Result()
		pl.setAttr(mnt, mountAttr{set: unix.MOUNT_ATTR_RDONLY}, true)
		pl.attach(mnt, at)
		pl.Here(absent)
	}
	return nil
}

// ownProc is a procfs that is attached nowhere: no mount of the container's can lie over it.
func (pl *plan) ownProc() launch.Arg {
	return pl.newFS("proc", "proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func (pl *plan) stepSysctls() error {
	if len(pl.cfg.Sysctl) == 0 {
		return nil
	}
	proc := pl.ownProc()
	for _, name := range slices.Sorted(maps.Keys(pl.cfg.Sysctl)) {
		rel, err := sysctlPath(name)
		if err != nil {
			return err
		}
		if err := pl.refuseOwnNamespace(sysctlKind(rel), sysctlField(name)); err != nil {
			return err
		}
		pl.Step("sysctl", name)
		pl.writeFile(proc, "sys/"+rel, ownFile, pl.cfg.Sysctl[name]+"\n")
	}
	pl.close(proc)
	return nil
}

// refuseOwnNamespace fails if the container joins the namespace that the caller is in: what is set there
// would hold for the caller, too.
func (pl *plan) refuseOwnNamespace(kind NamespaceKind, field string) error {
	path := pl.cfg.Namespaces.Join[kind]
	if path == "" {
		return nil
	}
	joined, err := os.Stat(path)
	if err != nil {
		return &Error{Op: "join namespace", Path: path, Err: err}
	}
	if own, err := os.Stat("/proc/self/ns/" + string(kind)); err != nil || os.SameFile(own, joined) {
		return fieldErrorf(field, "would hold for the caller, too: %s is the caller's own namespace", path)
	}
	return nil
}
