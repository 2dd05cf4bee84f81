package container

// This file describes mounts and their options. It is data and text; plan_mount.go turns it into
// steps.

// Mount is a file system or a part of the host's tree in the container.
type Mount struct {
	// Type is "bind", or a file system: "tmpfs", "proc", "sysfs", "cgroup2", "devpts", "mqueue",
	// "overlay".
	Type string

	// Source is the absolute path of the file or directory to bind. For a file system it is the
	// name shown in mountinfo; if empty, the type is used.
	Source string

	// Target is an absolute path in the container. It is resolved inside the container's root:
	// symbolic links cannot lead out of it. If it is missing it is made, a file for a file and a
	// directory for a directory. Nothing can be mounted over /proc or /sys except by the kernel's own kinds, and
	// nothing below /proc.
	Target string

	// Flags are set on the mount, ClearFlags removed from it. A bind otherwise keeps the flags of
	// its source; in a user namespace the kernel refuses to remove any of those (EPERM).
	// With Recursive they hold for the mounts below as well, unless TopOnly is set.
	Flags      MountFlags
	ClearFlags MountFlags

	// Propagation of the mount; if empty, private.
	Propagation Propagation

	// Data holds the file system's own options, comma-separated: "size=64m,mode=1777".
	Data string

	// CopyUp fills a tmpfs with what the root has at Target.
	CopyUp bool

	// UidMappings and GidMappings make a bind an idmapped mount (Linux 5.12, root only): the
	// owners on disk, ContainerID here, appear as HostID. With Recursive it holds for the mounts below as
	// well, unless TopOnly is set.
	UidMappings []IDMap
	GidMappings []IDMap

	// Optional: if the source does not exist, there is no mount, and no error.
	Optional bool
}

// MountFlags are attributes of a mount; see mount_setattr(2).
type MountFlags uint32

// The attributes of a mount.
const (
	MountReadOnly MountFlags = 1 << iota // "ro"
	NoSuid                               // "nosuid": setuid bits and file capabilities have no effect
	NoDev                                // "nodev": devices cannot be opened
	NoExec                               // "noexec"
	NoAtime                              // "noatime"
	RelAtime                             // "relatime", the kernel's default
	StrictAtime                          // "strictatime"
	NoDirAtime                           // "nodiratime"
	NoSymFollow                          // "nosymfollow": symbolic links are not followed
	Recursive                            // "rbind": a bind brings the mounts below its source
	TopOnly                              // with Recursive: the other flags hold for the topmost mount only, as in mount(8)
)

// Propagation says whether mounts made later travel between this mount and its peers; see
// mount_namespaces(7). With "r" in front it holds for all mounts below as well.
type Propagation string

// The kinds of propagation.
const (
	Private    Propagation = "private"
	Slave      Propagation = "slave"
	Shared     Propagation = "shared"
	Unbindable Propagation = "unbindable"

	RPrivate    Propagation = "rprivate"
	RSlave      Propagation = "rslave"
	RShared     Propagation = "rshared"
	RUnbindable Propagation = "runbindable"
)

// source is the name that mountinfo shows.
func (m Mount) source() string {
	if m.Source == "" {
		return m.Type
	}
	return m.Source
}
