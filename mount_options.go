package container

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// This file turns mount options from text into fields and back, and fields into the kernel's
// numbers. Everything in it is a pure function; the numbers are written out so that it compiles
// on every system.

// mountAttributes lists the options that are attributes of a mount, in the order in which they are printed.
// The second name takes the attribute away.
var mountAttributes = []struct {
	flag    MountFlags
	on, off string
	attr    uint64 // MOUNT_ATTR_*, linux/mount.h
}{
	{MountReadOnly, "ro", "rw", 0x1},
	{NoSuid, "nosuid", "suid", 0x2},
	{NoDev, "nodev", "dev", 0x4},
	{NoExec, "noexec", "exec", 0x8},
	{NoAtime, "noatime", "atime", 0x10},
	{RelAtime, "relatime", "norelatime", 0}, // the kernel's default
	{StrictAtime, "strictatime", "nostrictatime", 0x20},
	{NoDirAtime, "nodiratime", "diratime", 0x80},
	{NoSymFollow, "nosymfollow", "symfollow", 0x200000},
}

// atimeFlags exclude each other: they are the values of one field of the mount, MOUNT_ATTR__ATIME.
const (
	atimeFlags   = NoAtime | RelAtime | StrictAtime
	attrAtime    = 0x70
	allMountFlag = MountReadOnly | NoSuid | NoDev | NoExec | atimeFlags | NoDirAtime | NoSymFollow | Recursive | TopOnly
)

// propagations lists the kinds of propagation with their MS_* flags, linux/mount.h.
var propagations = map[Propagation]uint64{
	Private: 1 << 18, Slave: 1 << 19, Shared: 1 << 20, Unbindable: 1 << 17,
}

// ParseMountOptions turns options as they stand in fstab or in an OCI bundle, "ro,nosuid,rbind,size=64m",
// into the fields of a Mount: Flags, ClearFlags, Propagation, Type (for bind and rbind), CopyUp
// (tmpcopyup), Optional (nofail) and Data. Of options that contradict each other the last one wins.
//
// The recursive forms of the OCI specification, "rro" or "rnosuid", set Recursive as well. What is
// not an option of every mount goes to Data, for the file system to judge; "defaults" means nothing.
// "idmap" and "ridmap" are refused, since they do not say which ids, and so are "remount" and
// "move", which are not mounts.
func ParseMountOptions(options string) (Mount, error) {
	var m Mount
	var data []string
	var errs []error
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "", "defaults":
		case "bind":
			m.Type = "bind"
		case "rbind":
			m.Type = "bind"
			m.Flags |= Recursive
		case "tmpcopyup":
			m.CopyUp = true
		case "nofail":
			m.Optional = true
		case "idmap", "ridmap":
			errs = append(errs, fieldErrorf("Options", "%q does not say which ids; set UidMappings and GidMappings instead", option))
		case "remount", "move":
			errs = append(errs, fieldErrorf("Options", "%q is not a mount; leave it out", option))
		default:
			switch {
			case strings.ContainsRune(option, 0):
				errs = append(errs, fieldErrorf("Options", "%q contains a NUL byte", option))
			case m.setAttribute(option):
			case Propagation(option).valid():
				m.Propagation = Propagation(option)
			default:
				data = append(data, option)
			}
		}
	}
	if len(errs) > 0 {
		return Mount{}, errors.Join(errs...)
	}
	m.Data = strings.Join(data, ",")
	return m, nil
}

// setAttribute applies an option that is an attribute of the mount, and tells whether it is one.
func (m *Mount) setAttribute(option string) bool {
	for _, recursive := range []string{"", "r"} {
		name, ok := strings.CutPrefix(option, recursive)
		if !ok {
			continue
		}
		for _, a := range mountAttributes {
			switch name {
			case a.on:
				if a.flag&atimeFlags != 0 {
					m.Flags &^= atimeFlags
				}
				m.Flags |= a.flag
				m.ClearFlags &^= a.flag
			case a.off:
				m.Flags &^= a.flag
				m.ClearFlags |= a.flag
			default:
				continue
			}
			if recursive != "" {
				m.Flags |= Recursive
			}
			return true
		}
	}
	return false
}

// Options returns the options that [ParseMountOptions] turns into the same fields, in a fixed
// order: "rbind,ro,nosuid,rslave,size=64m". Options that are not set are left out; of Recursive
// there is no trace unless there is something for it to hold for, and of TopOnly none at all.
func (m Mount) Options() string {
	var options []string
	add := func(option string, yes bool) {
		if yes {
			options = append(options, option)
		}
	}
	recursive := m.Flags&Recursive != 0
	bind := m.Type == "bind"
	add("bind", bind && !recursive)
	add("rbind", bind && recursive)
	prefix := ""
	if recursive && !bind {
		prefix = "r"
	}
	// Options that take away stand first: so none of them undoes an option that sets another
	// attribute of the atime family.
	for _, a := range mountAttributes {
		add(prefix+a.off, m.ClearFlags&a.flag != 0 && m.Flags&a.flag == 0)
	}
	for _, a := range mountAttributes {
		add(prefix+a.on, m.Flags&a.flag != 0)
	}
	add(string(m.Propagation), m.Propagation != "")
	add("tmpcopyup", m.CopyUp)
	add("nofail", m.Optional)
	add(m.Data, m.Data != "")
	return strings.Join(options, ",")
}

// attr returns the MOUNT_ATTR_* bits of fsmount(2) and mount_setattr(2). Recursive has none: there it
// is AT_RECURSIVE.
func (f MountFlags) attr() uint64 {
	var attr uint64
	for _, a := range mountAttributes {
		if f&a.flag != 0 {
			attr |= a.attr
		}
	}
	return attr
}

// attrs returns what mount_setattr(2) is to set and to clear. The atime family is one field of the
// mount: the kernel wants all of it cleared before any value of it is set.
func (m Mount) attrs() (set, clr uint64) {
	set, clr = m.Flags.attr(), m.ClearFlags.attr()&^m.Flags.attr()
	if (m.Flags|m.ClearFlags)&atimeFlags != 0 {
		clr |= attrAtime
	}
	return set, clr
}

// String returns the names of the flags: "ro,nosuid".
func (f MountFlags) String() string {
	var names []string
	for _, a := range mountAttributes {
		if f&a.flag != 0 {
			names = append(names, a.on)
		}
	}
	if f&Recursive != 0 {
		names = append(names, "recursive")
	}
	if f&TopOnly != 0 {
		names = append(names, "top-only")
	}
	if rest := f &^ allMountFlag; rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)))
	}
	return strings.Join(names, ",")
}

// flags returns the MS_* flag of mount(2) and mount_setattr(2), and whether it holds for the mounts
// below as well (MS_REC, AT_RECURSIVE). Empty is private. ok is false for a name that is unknown.
func (p Propagation) flags() (ms uint64, recursive, ok bool) {
	if p == "" {
		p = Private
	}
	if ms, ok = propagations[p]; ok {
		return ms, false, true
	}
	name, recursive := strings.CutPrefix(string(p), "r")
	if ms, ok = propagations[Propagation(name)]; ok && recursive {
		return ms, true, true
	}
	return 0, false, false
}

// valid tells whether p is the name of a kind of propagation.
func (p Propagation) valid() bool {
	_, _, ok := p.flags()
	return ok && p != ""
}

// dataOptions returns the elements of Data: "size=64m", "mode=1777".
func (m Mount) dataOptions() []string {
	return slices.DeleteFunc(strings.Split(m.Data, ","), func(s string) bool { return s == "" })
}
