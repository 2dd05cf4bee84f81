//go:build linux

package container

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file writes the maps of user namespaces and keeps those that were expensive. It runs in the
// caller's process.

// defaultMaps are the maps of a new user namespace that asks for none: an ordinary user becomes
// root inside; root keeps all ids as they are, and has their capabilities only inside.
func defaultMaps() (uid, gid []IDMap) {
	if os.Geteuid() != 0 {
		return selfMap()
	}
	return ownMaps()
}

// identityMap maps to themselves the ids that exist in the caller's own user namespace.
func identityMap(file string) ([]IDMap, error) {
	f, err := os.Open(file)
	if err != nil {
		return []IDMap{{Size: math.MaxInt32}}, onlyScarce(err)
	}
	defer f.Close()
	var maps []IDMap
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var inside, outside, size int
		if n, _ := fmt.Sscan(lines.Text(), &inside, &outside, &size); n == 3 {
			maps = append(maps, IDMap{ContainerID: inside, HostID: inside, Size: size})
		}
	}
	return maps, nil
}

// ownMaps are the ids of the caller's own user namespace, each mapped to itself.
func ownMaps() (uid, gid []IDMap) {
	maps, _ := askedMaps()
	return maps[0], maps[1]
}

var askedMaps = answered(func() (maps [2][]IDMap, err error) {
	for i, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		var ferr error
		maps[i], ferr = identityMap(file)
		err = cmp.Or(err, ferr)
	}
	return maps, err
})

// nested tells whether the caller itself is in a user namespace other than the host's, where even
// root may not make nodes and has no trusted attributes.
func nested() bool {
	maps, _ := ownMaps()
	return len(maps) != 1 || uint32(maps[0].Size) != 1<<32-1
}

// setgroupsDenied tells whether the caller's user namespace has given up setgroups(2), for itself
// and for those below.
func setgroupsDenied() bool {
	denied, _ := askedSetgroups()
	return denied
}

var askedSetgroups = answered(func() (bool, error) {
	text, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(string(text)) == "deny", onlyScarce(err)
})

// inUserNamespace tells whether the launcher is root in a user namespace at most.
func (pl *plan) inUserNamespace() bool { return pl.userns != usernsNone || nested() }

// mapFromHost is the container's id of a host's.
func mapFromHost(maps []IDMap, id uint32) (uint32, bool) {
	for _, m := range maps {
		if off := int64(id) - int64(m.HostID); off >= 0 && off < int64(m.Size) {
			return uint32(int64(m.ContainerID) + off), true
		}
	}
	return 0, false
}

// writeMaps writes the maps of a process that waits for them in its new user namespace.
func writeMaps(ctx context.Context, pid int, uid, gid []IDMap) error {
	self := os.Geteuid()
	if self != 0 && (needsHelper(uid, uint32(self)) || needsHelper(gid, uint32(os.Getegid()))) {
		return writeWithHelpers(ctx, pid, uid, gid)
	}
	files := []struct{ name, text string }{
		{"setgroups", "deny"}, // without privilege the kernel demands it before gid_map
		{"uid_map", string(idMapText(uid))},
		{"gid_map", string(idMapText(gid))},
	}
	if self == 0 {
		files = files[1:]
	}
	for _, file := range files {
		path := fmt.Sprintf("/proc/%d/%s", pid, file.name)
		if err := os.WriteFile(path, []byte(file.text), 0); err != nil {
			return &Error{Op: "write id map", Path: path, Err: err, Remedy: "the caller must own the ids it maps; root needs CAP_SETUID and CAP_SETGID"}
		}
	}
	return nil
}

// keptUserNamespaces are the mapped user namespaces that this process keeps open: the second and later
// containers with the same ranges join one and need not run newuidmap and newgidmap, which takes
// milliseconds. Containers of one process with the same ranges so share the user namespace, as all of a
// user's do with podman; each has its own of every other kind.
var keptUserNamespaces userNamespaces

type userNamespaces struct {
	mu   sync.Mutex
	open map[string]*os.File
}

func userNamespaceKey(uid, gid []IDMap) string {
	return string(idMapText(uid)) + "," + string(idMapText(gid))
}

// get returns a descriptor of the caller's own of the namespace, or nil.
func (k *userNamespaces) get(uid, gid []IDMap) *os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.open[userNamespaceKey(uid, gid)]
	if f == nil {
		return nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// keep keeps the namespace of a process that has just been mapped.
func (k *userNamespaces) keep(pid int, uid, gid []IDMap) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := userNamespaceKey(uid, gid)
	if k.open[key] != nil {
		return
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return // the next start runs the helpers again
	}
	if k.open == nil {
		k.open = make(map[string]*os.File)
	}
	k.open[key] = f
}

// newUserNamespace returns a user namespace with these maps and no process in it.
func newUserNamespace(ctx context.Context, uid, gid []IDMap) (*os.File, error) {
	p := launch.New(0)
	p.Step("user namespace", "")
	p.Call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	p.Send(tagMaps, 0)
	p.Wait()
	p.Exit(0)
	child, err := p.Start(&launch.Attr{})
	if err != nil {
		return nil, &Error{Op: "user namespace", Err: err}
	}
	defer func() {
		child.CloseSocket() // ends the process
		child.Process().Wait()
		child.Release()
	}()
	if _, err := child.Next(); err != nil {
		return nil, stepError(err)
	}
	pid := child.Process().Pid
	if err := writeMaps(ctx, pid, uid, gid); err != nil {
		return nil, err
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
}

// idmappedTree is a copy of a part of the host's tree on which an owner appears as the id that userns
// maps it to: on the topmost mount, or deep on all. It is attached nowhere. It needs root in the user namespace of the file system; see
// mount_setattr(2).
func idmappedTree(source string, recursive, deep bool, userns *os.File) (*os.File, error) {
	tree, err := openTree(source, recursive)
	if err == nil {
		flags := uint(unix.AT_EMPTY_PATH)
		if deep {
			flags |= unix.AT_RECURSIVE
		}
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
		if err = unix.MountSetattr(int(tree.Fd()), "", flags, &attr); err == nil {
			return tree, nil
		}
		tree.Close()
		err = os.NewSyscallError("mount_setattr", err)
	}
	return nil, &Error{Op: "idmapped mount", Path: source, Err: err, Remedy: "needs root, Linux 5.12 (below an overlay 5.19), and a file system that supports it"}
}

// openTree copies a part of the host's tree in the caller's process, which needs root.
func openTree(source string, recursive bool) (*os.File, error) {
	deep := uint(0)
	if recursive {
		deep = unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|deep)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	return os.NewFile(uintptr(fd), source), nil
}

// foreignRoot tells whether the container's root is another user than the caller, who is root: then
// the launcher may not pass through the caller's directories, and the caller copies the host's trees.
func (pl *plan) foreignRoot() bool {
	if os.Geteuid() != 0 || !pl.cfg.Namespaces.NewUser {
		return false
	}
	uid, ok := pl.hostUid(0)
	return !ok || uid != 0
}

// hostTree is a copy of a part of the host's tree, attached nowhere.
func (pl *plan) hostTree(source string, recursive bool) (launch.Arg, error) {
	if !pl.foreignRoot() {
		return pl.cloneTree(cwdFD, source, recursive).Result(), nil
	}
	f, err := openTree(source, recursive)
	if err != nil {
		return 0, err
	}
	pl.files = append(pl.files, f)
	return pl.File(f), nil
}

// verifyJoinedMaps sees that a joined user namespace has the maps that the configuration says it has. Only
// a process in the namespace shows them.
func (c *Config) verifyJoinedMaps() error {
	path := c.Namespaces.Join[UserNamespace]
	if path == "" || len(c.UidMappings) == 0 {
		return nil
	}
	ns, err := os.Open(path)
	if err != nil {
		return &Error{Op: "join namespace", Path: path, Err: err}
	}
	defer ns.Close()
	p := launch.New(0)
	p.Step("join namespace", path)
	p.Call(unix.SYS_SETNS, p.File(ns), unix.CLONE_NEWUSER)
	p.Send(tagMaps, 0)
	p.Wait()
	p.Exit(0)
	child, err := p.Start(&launch.Attr{})
	if err != nil {
		return &Error{Op: "join namespace", Path: path, Err: err}
	}
	defer func() {
		child.CloseSocket() // ends the process
		child.Process().Wait()
		child.Release()
	}()
	if _, err := child.Next(); err != nil {
		return stepError(err)
	}
	for _, m := range []struct {
		field, file string
		want        []IDMap
	}{{"UidMappings", "uid_map", c.UidMappings}, {"GidMappings", "gid_map", c.GidMappings}} {
		has, err := readIDMap(fmt.Sprintf("/proc/%d/%s", child.Process().Pid, m.file))
		if err != nil {
			return &Error{Op: "join namespace", Path: path, Err: err}
		}
		if !slices.Equal(joinRanges(has), joinRanges(m.want)) {
			return fieldErrorf(m.field, "the user namespace %s maps %v, and not %v; leave it out, or join another", path, has, m.want)
		}
	}
	return nil
}

// joinRanges orders a map and makes one line of those that follow each other.
func joinRanges(maps []IDMap) (list []IDMap) {
	maps = slices.SortedFunc(slices.Values(maps), func(a, b IDMap) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
	for _, m := range maps {
		if last := len(list) - 1; last >= 0 && list[last].ContainerID+list[last].Size == m.ContainerID && list[last].HostID+list[last].Size == m.HostID {
			list[last].Size += m.Size
			continue
		}
		list = append(list, m)
	}
	return list
}
