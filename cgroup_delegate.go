//go:build linux

package container

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file gives the container's root the right to make cgroups of its own below the one that it is in. It runs in
// the caller's process.

// delegateTo gives the container's root the cgroup that its processes are in, which is this one or below it, with all controllers
// that this one has.
func (c *Cgroup) delegateTo(inside *Cgroup, cfg *Config) error {
	if inside != c {
		tree, err := findCgroupTree()
		if err != nil {
			return err
		}
		has, err := c.words("cgroup.controllers")
		if err == nil && len(has) > 0 {
			err = tree.enableLevel(c.path, has)
		}
		if err != nil {
			return err
		}
	}
	return inside.delegate(cfg)
}

// delegate gives the cgroup to the container's root: the directory, and the files that the kernel says may be given away. The
// limits of this cgroup are not among them.
func (c *Cgroup) delegate(cfg *Config) error {
	fail := func(err error, remedy string) error {
		return &Error{Op: "delegate cgroup", Path: c.path, Err: err, Remedy: remedy}
	}
	uid, gid, ok := cfg.rootIDs()
	switch {
	case !ok:
		return fail(ErrUnsupported, "the container has no root that the cgroup could belong to: map the id 0")
	case uid == os.Geteuid() && gid == os.Getegid():
		return nil // that user has made it
	case os.Geteuid() != 0:
		return fail(ErrUnsupported, "the container's root is another user than the caller, and only root can give it files: map the id 0 to the caller's own")
	}
	text, err := os.ReadFile("/sys/kernel/cgroup/delegate") // Linux 4.15
	if err != nil {
		return fail(err, "")
	}
	if err := unix.Fchown(int(c.dir.Fd()), uid, gid); err != nil {
		return fail(err, "")
	}
	for name := range strings.FieldsSeq(string(text)) {
		if strings.Contains(name, "/") {
			continue
		}
		err := unix.Fchownat(int(c.dir.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // of a controller that is not enabled here
			return fail(err, "")
		}
	}
	return nil
}

// rootIDs are the host's ids of the container's root.
func (c *Config) rootIDs() (uid, gid int, ok bool) {
	if !c.Namespaces.NewUser && c.Namespaces.Join[UserNamespace] == "" {
		return os.Geteuid(), os.Getegid(), true
	}
	uids, gids := c.UidMappings, c.GidMappings
	if len(uids)+len(gids) == 0 {
		uids, gids = defaultMaps()
	}
	u, ok1 := mapToHost(uids, 0)
	g, ok2 := mapToHost(gids, 0)
	return int(u), int(g), ok1 && ok2
}
