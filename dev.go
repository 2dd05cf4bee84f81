//go:build linux

package container

import (
	"os"
	"path"
	"strconv"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file makes /dev: always a tmpfs of ours, never a directory of the image's (CVE-2026-41579),
// attached by descriptor and filled through it. Nodes are made where that is allowed, and bound from
// the host, after they have been verified, in a user namespace. It runs in the caller's process.

// devLinks are the links that programs expect; see the OCI runtime specification, "Linux runtime".
var devLinks = []struct{ name, to string }{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
}

func (pl *plan) stepDev() error {
	if !pl.cfg.Namespaces.NewMnt {
		return nil
	}
	const quiet = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	pl.Step("mount", "/dev")
	at := pl.target(pl.root, "/dev", directory, inRootNoLinks)
	asked := pl.devMount()
	attr, _ := asked.attrs()
	dev := pl.newFS("tmpfs", asked.source(), attr&^unix.MOUNT_ATTR_RDONLY, fsOptions(asked)...)
	if ms, deep, ok := asked.Propagation.flags(); ok && asked.Propagation != "" {
		pl.setAttr(dev, mountAttr{propagation: ms}, deep)
	}
	pl.attach(dev, at)
	pl.close(at)

	for _, l := range devLinks {
		pl.Call(unix.SYS_SYMLINKAT, pl.Str(l.to), dev, pl.Str(l.name))
	}
	if err := pl.devices(dev); err != nil {
		return err
	}

	pts := []fsOption{{key: "newinstance", flag: true}, {key: "ptmxmode", value: "0666"}, {key: "mode", value: "0620"}}
	if _, ok := pl.hostGid(ttyGroup); ok {
		// Whether a user namespace that is joined has the group, only the kernel knows.
		pts = append(pts, fsOption{key: "gid", value: "5", optional: pl.userns == usernsJoined || nested()})
	}
	pl.mountIn(dev, "/dev/pts", "devpts", quiet, pts...)
	pl.mountIn(dev, "/dev/shm", "tmpfs", quiet|unix.MOUNT_ATTR_NODEV, fsOption{key: "mode", value: "1777"}, fsOption{key: "size", value: "64m"})
	if pl.cfg.Namespaces.private(IPCNamespace) {
		pl.mountIn(dev, "/dev/mqueue", "mqueue", quiet|unix.MOUNT_ATTR_NODEV)
	}
	// Mounts below /dev that the configuration has are made here, on the new /dev.
	for i, m := range pl.cfg.Mounts {
		if strings.HasPrefix(m.Target, "/dev/") && !pl.sources[i].skip {
			pl.Step("mount", m.Target)
			if err := pl.mount(pl.effectiveMount(m), pl.sources[i]); err != nil {
				return err
			}
		}
	}
	pl.dev = dev // stepConsole finishes it
	return nil
}

// finishDev is for when nothing needs to be made in /dev any more.
func (pl *plan) finishDev() {
	if pl.devMount().Flags&MountReadOnly != 0 {
		pl.Step("mount", "/dev")
		pl.setAttr(pl.dev, mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
	}
	pl.close(pl.dev)
}

// devMount is the mount of /dev: the configuration's, or ours.
func (pl *plan) devMount() Mount {
	m := Mount{Type: "tmpfs", Source: "dev", Flags: NoSuid | NoExec, Data: "mode=0755,size=65536k"}
	for _, asked := range pl.cfg.Mounts {
		if asked.Target == "/dev" {
			m = asked
		}
	}
	if pl.cfg.DevicesOnly {
		m.Flags |= NoDev
	}
	return m
}

// mountIn mounts a new file system on a new directory of /dev, unless the configuration has a mount
// of its own for the place.
func (pl *plan) mountIn(dev launch.Arg, target, typ string, attr uint64, options ...fsOption) {
	for _, m := range pl.cfg.Mounts {
		if m.Target == target {
			return
		}
	}
	pl.Step("mount", target)
	name := path.Base(target)
	pl.makeDir(dev, name, 0o755)
	at := pl.open(dev, name, unix.O_PATH|unix.O_DIRECTORY, 0, ownFile).Result()
	mnt := pl.newFS(typ, typ, attr, options...)
	pl.attach(mnt, at)
	pl.close(mnt)
	pl.close(at)
}

func (pl *plan) devices(dev launch.Arg) error {
	nodes := dev
	if pl.cfg.DevicesOnly && !pl.inUserNamespace() {
		nodes = pl.nodes
	}
	for i, d := range pl.cfg.devices() {
		pl.Step("device", d.Path)
		name := strings.TrimPrefix(d.Path, "/dev/")
		for i, c := range name {
			if c == '/' {
				pl.makeDir(dev, name[:i], 0o755)
			}
		}
		if pl.inUserNamespace() {
			if err := pl.bindDevice(dev, name, d); err != nil {
				return err
			}
			continue
		}
		node := name
		if pl.cfg.DevicesOnly {
			node = strconv.Itoa(i)
		}
		pl.Call(unix.SYS_MKNODAT, nodes, pl.Str(node), launch.Arg(d.fileType()|d.mode()), launch.Arg(unix.Mkdev(d.Major, d.Minor)))
		if d.Uid|d.Gid != 0 {
			pl.Call(unix.SYS_FCHOWNAT, nodes, pl.Str(node), launch.Arg(d.Uid), launch.Arg(d.Gid), unix.AT_SYMLINK_NOFOLLOW)
		}
		if pl.cfg.DevicesOnly {
			mnt := pl.cloneTree(nodes, node, false).Result()
			pl.attachFile(mnt, dev, name)
			pl.close(mnt)
		}
	}
	return nil
}

// attachFile mounts a single file on a new file of /dev.
func (pl *plan) attachFile(mnt, dev launch.Arg, name string) {
	pl.Call(unix.SYS_MKNODAT, dev, pl.Str(name), unix.S_IFREG|0o644, 0)
	at := pl.open(dev, name, unix.O_PATH, 0, ownFile).Result()
	pl.attach(mnt, at)
	pl.close(at)
}

func (d Device) fileType() uint32 {
	if d.Type == 'b' {
		return unix.S_IFBLK
	}
	return unix.S_IFCHR
}

func (d Device) mode() uint32 {
	if d.Mode == 0 {
		return 0o666
	}
	return d.Mode
}

// Offsets in struct statx.
const (
	statxSize  = 256
	statxMode  = 28
	statxMajor = 128
	statxMinor = 132
	statxMntID = 144
)

// bindDevice binds the host's node of the same name. The launcher opens it once, verifies that what
// it opened has the type and numbers asked for, and copies the mount of that very descriptor.
func (pl *plan) bindDevice(dev launch.Arg, name string, d Device) error {
	fail := func(err error) error {
		return &Error{Op: "device", Path: d.Path, Err: err, Remedy: "in a user namespace a device must be on the host, under the same path and with the same numbers"}
	}
	info, err := os.Lstat(d.Path)
	if err != nil {
		return fail(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(d.Path, &st); err != nil {
		return fail(err)
	}
	if st.Mode&unix.S_IFMT != d.fileType() || uint64(st.Rdev) != unix.Mkdev(d.Major, d.Minor) {
		return fail(&os.PathError{Op: "verify", Path: info.Mode().String(), Err: unix.ENODEV})
	}
	src := pl.open(cwdFD, d.Path, unix.O_PATH|unix.O_NOFOLLOW, 0, unix.RESOLVE_NO_MAGICLINKS).Result()
	buf := pl.Zero(statxSize)
	pl.Call(unix.SYS_STATX, src, pl.Str(""), unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, buf)
	pl.expect(pl.Value(buf+statxMode), int32(st.Mode), unix.ENODEV)
	pl.expect(pl.Value(buf+statxMajor), int32(d.Major), unix.ENODEV)
	pl.expect(pl.Value(buf+statxMinor), int32(d.Minor), unix.ENODEV)
	mnt := pl.cloneTree(src, "", false).Result()
	// Root of the container may be the node's owner on the host. Read-only keeps the node's mode, owner and
	// times as they are; a device can be written to all the same.
	pl.setAttr(mnt, mountAttr{set: unix.MOUNT_ATTR_RDONLY}, false)
	pl.attachFile(mnt, dev, name)
	pl.close(src)
	pl.close(mnt)
	return nil
}
