//go:build linux

package container

import (
	"os"
	"path"
	"slices"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file puts the host's own root together for a container. An overlay of "/" itself would show
// what lies hidden under the host's mounts, and the kernel refuses it in a user namespace for
// that reason. So the top is a skeleton of directories and links, and each of the host's
// directories that has no mount below is one overlay (or one read-only bind) on it.

// notFromHost are the trees that a container never takes from the host: they speak for the host's
// kernel and its services. They are empty directories in the skeleton.
var notFromHost = []string{"/dev", "/proc", "/run", "/sys"}

// pseudoFS are file systems that hold no files of the host's; their mount points are empty.
var pseudoFS = []string{"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
	"devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs",
	"selinuxfs", "sysfs", "tracefs"}

// A hostEntry is one entry of the skeleton.
type hostEntry struct {
	path string // absolute
	kind hostKind
	stat unix.Stat_t
	link string
}

type hostKind int

const (
	hostSkeleton hostKind = iota // a directory of the skeleton
	hostTree                     // the host's directory
	hostFile                     // the host's file
	hostLink                     // a symbolic link
)

// hostTreeOf lists the entries, parents first.
func hostTreeOf(mounts []mountInfo) ([]hostEntry, error) {
	points := map[string]string{} // mount point to file system type; the last mount wins
	for _, m := range mounts {
		points[m.target] = m.fsType
	}
	below := map[string]bool{"/": true} // directories with a mount point below
	for p := range points {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			below[d] = true
		}
	}
	var entries []hostEntry
	var walk func(dir string) error
	walk = func(dir string) error {
		list, err := os.ReadDir(dir)
		if err != nil {
			if dir != "/" {
				return nil // the caller may not look into it: so may not the container
			}
			return err
		}
		for _, d := range list {
			name := path.Join(dir, d.Name())
			e := hostEntry{path: name}
			if err := unix.Lstat(name, &e.stat); err != nil {
				continue // gone, or not ours to see
			}
			fsType, isMount := points[name]
			switch typ := e.stat.Mode & unix.S_IFMT; {
			case typ == unix.S_IFLNK:
				e.kind = hostLink
				if e.link, err = os.Readlink(name); err != nil {
					continue
				}
			case typ == unix.S_IFREG:
				e.kind = hostFile
			case typ != unix.S_IFDIR:
				continue // sockets, FIFOs and devices are doors to the host
			case slices.Contains(notFromHost, name), isMount && slices.Contains(pseudoFS, fsType):
				e.kind = hostSkeleton
			case below[name]:
				entries = append(entries, e)
				if err := walk(name); err != nil {
					return err
				}
				continue
			default:
				e.kind = hostTree
			}
			entries = append(entries, e)
		}
		return nil
	}
	err := walk("/")
	return entries, err
}

// hostRoot makes the skeleton and what stands on it.
func (pl *plan) hostRoot() error {
	mounts, err := readMountInfo()
	if err != nil {
		return &Error{Op: "root", Path: "/proc/self/mountinfo", Err: err}
	}
	entries, err := hostTreeOf(mounts)
	if err != nil {
		return rootError("/", err)
	}
	base, err := pl.upperBase()
	if err != nil {
		return err
	}
	for _, dir := range []string{"root", "upper", "work"} {
		pl.makeDir(base, dir, 0o755)
	}
	pl.root = pl.cloneTree(base, "root", false).Result()
	pl.setAttr(pl.root, mountAttr{set: pl.rootAttr()}, false)
	pl.Step("attach root", "")
	pl.attachOverRoot(pl.root)
	// Parents are pinned: in an upper directory from before, the container may have put links in the
	// place of directories, and they would lead to the host (CVE-2026-87766).
	parents := map[string]launch.Arg{"/": pl.root}
	for _, e := range entries {
		dir, name := path.Split(e.path)
		pl.Step("root", e.path)
		parent, ok := parents[dir]
		if !ok {
			parent = pl.open(pl.root, strings.Trim(dir, "/"), unix.O_PATH|unix.O_DIRECTORY, 0, inRootNoLinks).Result()
			parents[dir] = parent
		}
		gone := pl.Label() // removed since we looked: so it is not in the container either
		switch e.kind {
		case hostSkeleton:
			pl.makeDirLike(parent, name, e.stat)
		case hostLink:
			pl.Call(unix.SYS_SYMLINKAT, pl.Str(e.link), parent, pl.Str(name)).Ignore(unix.EEXIST)
		case hostFile:
			pl.Call(unix.SYS_MKNODAT, parent, pl.Str(name), unix.S_IFREG|0o644, 0).Ignore(unix.EEXIST)
			pl.attachHost(pl.hostBind(e.path, gone), parent, name)
		case hostTree:
			pl.makeDir(parent, name, 0o755)
			pl.attachHost(pl.hostDirectory(base, e, gone), parent, name)
		}
		pl.Here(gone)
	}
	return nil
}

func (pl *plan) attachHost(mnt, parent launch.Arg, name string) {
	at := pl.open(parent, name, unix.O_PATH, 0, inRootNoLinks).Result()
	pl.attach(mnt, at)
	pl.close(mnt)
	pl.close(at)
}

// hostBind is a read-only copy of a part of the host's tree.
func (pl *plan) hostBind(dir string, gone launch.Label) launch.Arg {
	mnt := pl.cloneTree(cwdFD, dir, true).On(unix.ENOENT, gone).Result()
	pl.setAttr(mnt, mountAttr{set: pl.rootAttr() | unix.MOUNT_ATTR_RDONLY}, true)
	return mnt
}

// hostDirectory is an overlay of one of the host's directories, or where there can be none, because
// the file system cannot be a lower layer, a read-only bind. It is an overlay for read-only access as
// well: on a bind, sockets and FIFOs would be the host's own, and programs of the host listen there.
func (pl *plan) hostDirectory(base launch.Arg, e hostEntry, gone launch.Label) launch.Arg {
	attr := pl.rootAttr()
	if pl.cfg.Root.access() == ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	name := hostUpperName(e.path)
	pl.makeDirLike(base, "upper/"+name, e.stat)
	pl.makeDir(base, "work/"+name, 0o755)
	bind, done := pl.Label(), pl.Label()
	pl.Call(unix.SYS_FCHDIR, base)
	fs := pl.fsOpen("overlay", "overlay")
	lower := overlayEscape(e.path, `\:`)
	if len(lower) > 250 {
		return pl.hostBind(e.path, gone)
	}
	options := append([]fsOption{{key: "lowerdir", value: lower}, {key: "upperdir", value: "upper/" + name},
		{key: "workdir", value: "work/" + name}}, pl.overlayOptions()...)
	for _, o := range options {
		pl.fsSet(fs, o).On(unix.EINVAL, bind).On(unix.ENOENT, gone)
	}
	pl.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE).On(unix.EINVAL, bind).On(unix.ENOENT, gone)
	mnt := pl.Call(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, launch.Arg(attr)).Then(done)
	pl.Here(bind)
	pl.cloneTree(cwdFD, e.path, true).On(unix.ENOENT, gone).StoreTo(mnt.Result())
	pl.setAttr(mnt.Result(), mountAttr{set: pl.rootAttr() | unix.MOUNT_ATTR_RDONLY}, true)
	pl.Here(done)
	pl.close(fs)
	return mnt.Result()
}

// hostUpperName is the name of a directory's upper layer: "var/lib" and "var%2Flib" differ.
func hostUpperName(p string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(strings.TrimPrefix(p, "/"))
}

// mountInfo is a line of /proc/self/mountinfo.
type mountInfo struct{ target, fsType string }

func readMountInfo() ([]mountInfo, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	return parseMountInfo(string(text)), err
}

func parseMountInfo(text string) (list []mountInfo) {
	for line := range strings.Lines(text) {
		fields, rest, ok := strings.Cut(line, " - ")
		left := strings.Split(fields, " ") // and at no other space: only this one, tabs and line ends are escaped
		fsType, _, _ := strings.Cut(strings.TrimSuffix(rest, "\n"), " ")
		if ok && len(left) >= 5 && fsType != "" {
			list = append(list, mountInfo{unescapeMountinfo(left[4]), fsType})
		}
	}
	return list
}
