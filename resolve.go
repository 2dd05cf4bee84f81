//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// This file decides what the plan's steps need to know before the first of them: the way into the
// user namespace, the user, the environment, the capabilities. It runs in the caller's process.

func (pl *plan) resolve() error {
	pl.resolveUserNamespace()
	ns := &pl.cfg.Namespaces
	pl.staged = pl.supervised() || ns.NewUser || ns.NewTime || ns.Join[UserNamespace] != "" || ns.Join[PIDNamespace] != ""
	return pl.resolveProcess()
}

// resolveProcess is the part that is about the process alone, in a container that is there or not.
func (pl *plan) resolveProcess() error {
	caps, err := override(pl.proc.Capabilities, pl.cfg.Capabilities).sets()
	if err != nil {
		return err
	}
	pl.caps = caps
	if err := pl.cfg.checkDeviceWall(caps); err != nil {
		return err
	}

	if err := pl.resolveLabels(); err != nil {
		return err
	}
	if err := pl.resolveUser(); err != nil {
		return err
	}
	pl.env = pl.environment()
	if pl.profile, err = pl.cfg.resolveProfile(); err != nil {
		return err
	}
	if pl.profile != nil {
		if pl.filter, err = pl.profile.compile(caps.bounding); err != nil {
			return err
		}
	}
	return pl.resolveListener()
}

// resolveUserNamespace chooses the maps and the way they get written.
func (pl *plan) resolveUserNamespace() {
	ns := &pl.cfg.Namespaces
	if !ns.NewUser {
		if ns.Join[UserNamespace] != "" {
			pl.userns = usernsJoined
		}
		return
	}
	pl.uidMaps, pl.gidMaps = pl.cfg.UidMappings, pl.cfg.GidMappings
	if len(pl.uidMaps)+len(pl.gidMaps) == 0 {
		pl.uidMaps, pl.gidMaps = defaultMaps()
	}
	switch {
	case os.Geteuid() == 0:
		pl.userns = usernsParent
	case appArmorRestricts():
		pl.userns = usernsClone
	case !pl.needsHelpers():
		pl.userns = usernsSelf
	default:
		pl.userns = usernsParent
		if f := keptUserNamespaces.get(pl.uidMaps, pl.gidMaps); f != nil {
			pl.keptUserns = f
			pl.userns = usernsKept
			pl.files = append(pl.files, f)
		}
	}
}

// needsHelpers tells whether the maps hold more than an ordinary user may write alone.
func (pl *plan) needsHelpers() bool {
	return os.Geteuid() != 0 && (needsHelper(pl.uidMaps, uint32(os.Geteuid())) || needsHelper(pl.gidMaps, uint32(os.Getegid())))
}

// appArmorRestricts tells whether user namespaces are for programs with a profile only, as on Ubuntu
// since 24.04: the permission belongs to the caller's binary, and a memfd has none.
func appArmorRestricts() bool {
	text, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// resolveUser turns names into ids with the container's own files, and sees that the ids exist in
// its user namespace.
func (pl *plan) resolveUser() error {
	view, err := pl.accountsView()
	if err != nil {
		return err
	}
	if pl.into == nil {
		defer view.close()
	}
	user := pl.proc.User
	if user == "" {
		if _, ok := pl.hostUid(0); !ok {
			user = pl.ownIDs()
		}
	}
	pl.user, err = resolveUser(view, user, pl.proc.AdditionalGroups)
	if err != nil {
		return err
	}
	if _, ok := pl.hostUid(pl.user.uid); !ok {
		return fieldErrorf("User", "uid %d is not mapped in the user namespace; map it with UidMappings, for example with SubordinateIDs", pl.user.uid)
	}
	if !pl.canSetgroups() {
		pl.user.groups = []uint32{pl.user.gid} // memberships of the group file cannot be had
	}
	for _, gid := range pl.user.groups {
		if _, ok := pl.hostGid(gid); !ok {
			return fieldErrorf("User", "gid %d is not mapped in the user namespace; map it with GidMappings, for example with SubordinateIDs", gid)
		}
	}
	if !pl.canSetgroups() && len(pl.proc.AdditionalGroups) > 0 {
		return fieldErrorf("AdditionalGroups", "an ordinary user who maps only their own id cannot set groups (user_namespaces(7)); map ranges with SubordinateIDs")
	}
	return nil
}

// accountsView is where passwd and group are read from.
func (pl *plan) accountsView() (*rootView, error) {
	if pl.into != nil {
		return pl.into.root, nil
	}
	root := pl.cfg.Root
	if !pl.cfg.Namespaces.NewMnt {
		root = Root{Dir: "/"}
		// The root of a joined mount namespace is that of the process it belongs to.
		if dir, file := filepath.Split(pl.cfg.Namespaces.Join[MountNamespace]); file == "mnt" {
			root.Dir = filepath.Join(dir, "../root")
		}
	}
	view, err := openRootView(root)
	var e *Error
	if err != nil && !errors.As(err, &e) {
		err = rootError(root.Dir, err)
	}
	return view, err
}

// hostUid and hostGid are the host's ids of the container's.
func (pl *plan) hostUid(id uint32) (uint32, bool) { return pl.hostID(pl.uidMaps, id) }
func (pl *plan) hostGid(id uint32) (uint32, bool) { return pl.hostID(pl.gidMaps, id) }

func (pl *plan) hostID(maps []IDMap, id uint32) (uint32, bool) {
	if pl.userns == usernsNone || pl.userns == usernsJoined {
		return id, true
	}
	return mapToHost(maps, id)
}

// containerUid and containerGid are the container's ids of the host's; of those that it does not have,
// and of all where only the kernel knows, 0.
func (pl *plan) containerUid(id uint32) uint32 {
	own, _ := ownMaps()
	return pl.containerID(own, pl.uidMaps, id)
}

func (pl *plan) containerGid(id uint32) uint32 {
	_, own := ownMaps()
	return pl.containerID(own, pl.gidMaps, id)
}

func (pl *plan) containerID(own, maps []IDMap, id uint32) uint32 {
	switch pl.userns {
	case usernsNone:
		maps = own
	case usernsJoined:
		return 0
	}
	id, _ = mapFromHost(maps, id)
	return id
}

// ownIDs is the caller's own user and group as the container sees them, "1000:1000".
func (pl *plan) ownIDs() string {
	uid, okUid := mapFromHost(pl.uidMaps, uint32(os.Geteuid()))
	gid, okGid := mapFromHost(pl.gidMaps, uint32(os.Getegid()))
	if !okUid || !okGid {
		return "0"
	}
	return fmt.Sprintf("%d:%d", uid, gid)
}
