package container

// This file says where a container's cgroup is. It is data.

// CgroupConfig says where the container's cgroup is and who manages it. The zero value is the usual choice.
//
// The container's processes are born in it and never leave it. It is made by Create and removed by Destroy. Where limits,
// statistics, Pause or Kill are asked for and there can be no cgroup, Create says why.
type CgroupConfig struct {
	// Manager says who makes the cgroup. Empty: [CgroupAuto].
	Manager CgroupManager

	// Path is the cgroup's place in the tree, "/machines/demo", as /proc/PID/cgroup shows it. Directories above it are made if they are
	// missing, and stay. The cgroup may be there already if nobody is in it; then it stays, too. With CgroupSystemd it must be
	// empty. If empty: below Parent.
	Path string

	// Parent is the cgroup below which the container's is made, "/machines". It is made if it is missing, and stays. The
	// name of a slice, "machine.slice", asks systemd.
	//
	// If empty, it is the caller's own cgroup, if that has been delegated to the caller: by systemd (Delegate=yes in a unit's file, systemd-run
	// -p Delegate=yes), by whoever has made the caller's cgroup namespace, or, for an ordinary user where there is no systemd, by the
	// right to write to it. Before limits are enabled there, all processes in it, the caller among them, are moved to
	// "container-callers" below it: the kernel has no processes beside cgroups with limits. Otherwise it is
	// "/container" for root, and for an ordinary user systemd is asked, with "user.slice". With CgroupSystemd that is the default, for
	// root "system.slice".
	Parent string

	// Name is the cgroup's path below Parent, "jobs/demo". With CgroupSystemd it is the name of the scope, "demo.scope". If empty, the
	// cgroup is named after the container and its record. With Path it must be empty.
	Name string

	// Delegate gives the container's root the right to make cgroups below its own: mounts of type cgroup2 are
	// writable, and the files that /sys/kernel/cgroup/delegate lists belong to it. The limits stay the caller's. It needs
	// a new cgroup namespace.
	Delegate bool
}

// CgroupManager says who makes cgroups.
type CgroupManager string

// The managers of cgroups.
const (
	// CgroupAuto: the file system, if the caller's own cgroup has been delegated to it, if the caller is root, or if Path or Parent
	// says where; else systemd.
	CgroupAuto CgroupManager = ""
	// CgroupFS: directories are made in the file system. On a host with systemd they should be below a cgroup that systemd has
	// delegated, or in a place of their own right below the root of the tree.
	CgroupFS CgroupManager = "cgroupfs"
	// CgroupSystemd: systemd makes a scope, "container-ID-xxxxxxxx.scope", and delegates it; the container's cgroup is in it. So
	// the container is seen by systemctl and systemd-cgls, can be stopped by them, and is stopped when the host is shut down. A
	// process of some KiB, "container:keep", keeps the scope from the container's creation until Destroy.
	//
	// For an ordinary user it is the user's own systemd, asked on the session bus. It ends some seconds after the user's last session, and
	// containers with it, unless root has called loginctl enable-linger. It has the controllers cpu, memory and pids, unless
	// root has given it more; [Check] says how. systemd 238 or newer.
	CgroupSystemd CgroupManager = "systemd"
)

// ownCgroup tells whether the container gets a cgroup of its own.
func (c *Config) ownCgroup() bool { return c.Cgroup != nil || c.Resources != nil }
