package container

import (
	"log/slog"
	"path/filepath"
	"syscall"
	"time"
)

// This file holds Config, the description of a container, as plain data. Nothing here acts.
// The parts that need more words have files of their own: namespace.go, mount.go, capability.go.

// Config describes a container: what it looks like from inside and what its processes may do.
// It is data: New copies it, validates the copy and stores it as JSON. The zero Config isolates
// nothing and is refused; start from [DefaultConfig].
type Config struct {
	// Root is what the container's / is made of. Required when Namespaces.NewMnt is set, and must
	// be zero without it: nothing is pivoted outside a mount namespace of the container's own.
	Root Root

	// Namespaces says which kinds are new, joined or shared with the caller.
	Namespaces Namespaces

	// UidMappings and GidMappings map ids of a new user namespace to ids of the host. With
	// NewUser set and both empty: an ordinary user's own ids become 0, and root keeps all ids as they
	// are. See [KeepID] and [SubordinateIDs] for the other usual ones. Of a user namespace that is joined they are what it must have: a start fails if it has others.
	// Without either they must be empty.
	UidMappings []IDMap
	GidMappings []IDMap

	// TimeOffsets shifts the clocks of a new time namespace. Needs Namespaces.NewTime.
	TimeOffsets TimeOffsets

	// Hostname and Domainname are set in the UTS namespace. If empty, the host's are kept. Need
	// Namespaces.NewUTS.
	Hostname   string
	Domainname string

	// Mounts are made in this order, before the root is entered. /dev is always a fresh tmpfs and
	// needs no entry; one of type tmpfs sets its options. See [DefaultMounts].
	Mounts []Mount

	// Devices are the nodes in /dev. Nil means [DefaultDevices]; empty and not nil means none.
	// In a user namespace, where nodes cannot be made, the host's are bound after their type and
	// numbers have been verified.
	Devices []Device

	// DevicesOnly: nothing but Devices can be opened as a device, whatever nodes an image, a bind or
	// CAP_MKNOD brings. /dev and all other mounts get NoDev, and each node is a mount of its own. The wall
	// is the mount table, so it needs new mount and PID namespaces, and a bounding set without
	// CAP_SYS_ADMIN, which could open it. Anybody can have it; Resources.Devices, which needs none of that, only root of the host.
	DevicesOnly bool

	// MaskPaths are hidden: a file reads as empty, a directory is empty. ReadonlyPaths are made
	// read-only with all that is mounted below. Paths that do not exist are passed over.
	MaskPaths     []string
	ReadonlyPaths []string

	// Sysctl sets kernel parameters by their dotted or slashed name: only those that belong to a
	// namespace, and only with that namespace new, or joined and not the caller's own.
	Sysctl map[string]string

	// Capabilities are the five sets of the container's processes. Nil means
	// [DefaultCapabilitiesConfig].
	Capabilities *Capabilities

	// NoNewPrivileges sets no_new_privs: setuid programs and file capabilities give nothing.
	// See prctl(2), PR_SET_NO_NEW_PRIVS.
	NoNewPrivileges bool

	// Seccomp filters system calls. Nil: no filter; [DefaultConfig] has [DefaultSeccompProfile].
	Seccomp *SeccompProfile

	// SeccompNotify decides about the calls of action SeccompNotify. It is the caller's, not stored: once the process that has started
	// a process ends, such calls of that process fail with ENOSYS. Required if there is such a rule and no
	// Seccomp.ListenerPath; refused without.
	SeccompNotify SeccompHandler `json:"-"`

	// AppArmorProfile is the AppArmor profile of the container's processes, and of its hooks of StartContainer: one that is loaded already
	// (apparmor_parser), or "unconfined". If empty, as the kernel has it for the caller. If AppArmor is not there, an
	// error that wraps ErrUnsupported, but for "unconfined". AppArmorStack adds it to the caller's profile instead of replacing that, which is all that a confined caller may do.
	// The label is read back when the program has been executed; see ErrVerify.
	AppArmorProfile string
	AppArmorStack   bool

	// SelinuxLabel is the SELinux context of the container's processes and of their session keyring, as the kernel writes it
	// ("system_u:system_r:container_t:s0:c1,c2"); MountLabel that of all files in what is made for the container: tmpfs, devpts, overlays. Not of mqueue, which is
	// there before it is mounted, and not of binds. If empty, as the policy has it. If SELinux is not there, an error that wraps ErrUnsupported.
	SelinuxLabel string
	MountLabel   string

	// Network is what the container is connected to. Nil: as Namespaces says, and nothing is set up but lo.
	Network *NetworkConfig

	// Landlock gives up rights to files and networks. Nil: none.
	Landlock *Landlock

	// Resources limit what all processes of the container use together. Nil: no limits.
	Resources *Resources

	// Cgroup says where the container's cgroup is. Nil: if Resources is set, it is the zero CgroupConfig; else the container has
	// no cgroup of its own and stays in the caller's: nothing can be limited or counted, and Pause, Set and
	// Stats return ErrNoCgroup.
	Cgroup *CgroupConfig

	// Rlimits are set with prlimit(2). Those not named are inherited from the caller.
	Rlimits []Rlimit

	// Umask is the file mode creation mask. Nil means 0022.
	Umask *uint32

	// OomScoreAdj is written to /proc/self/oom_score_adj: -1000 (never killed) to 1000. Nil: as the
	// caller's. Lowering it needs CAP_SYS_RESOURCE on the host.
	OomScoreAdj *int

	// Personality is the execution domain of personality(2). Nil: as the caller's.
	Personality *Personality

	// Scheduler is set with sched_setattr(2), IOPriority with ioprio_set(2). Nil: as the caller's.
	Scheduler  *Scheduler
	IOPriority *IOPriority

	// CPUAffinity is a list of CPUs, "0-3,7", for sched_setaffinity(2). If empty, as the caller's.
	CPUAffinity string

	// HostKeyring keeps the caller's session keyring. By default the container gets a new, empty
	// one. See session-keyring(7).
	HostKeyring bool

	// DieWithParent kills the container's first process, and with it its PID namespace, when the
	// caller's process dies. See prctl(2), PR_SET_PDEATHSIG.
	DieWithParent bool

	// Detached lets the container live on when the caller's process ends, and keep how it ended: the launcher
	// stays as the parent of the first process, in a few kilobytes of memory, waits for it and writes its
	// status to the state directory. Without it the process lives on too, as a child of the host's
	// first process or of a subreaper, but its exit code is known to nobody of ours.
	Detached bool

	// Init runs a reaper as process 1, and the program as its child: the reaper passes on the signals it gets,
	// collects the processes whose parents have ended, and exits as the program does, with 128 plus
	// the signal's number if that was killed. Needs Namespaces.NewPID.
	Init bool

	// StopSignal asks the first process to end: in Stop, and when Run's context is done. Zero means
	// SIGTERM. StopTimeout is how long it has before SIGKILL; zero means 10 s, negative means that
	// SIGKILL is sent at once.
	StopSignal  syscall.Signal
	StopTimeout time.Duration

	// Hooks are the caller's actions at moments of the container's life. Nil: none.
	Hooks *Hooks

	// Bundle is the directory of an OCI bundle that the Config was made from; see [FromSpec]. It is
	// recorded and told to hooks, and nothing is read there.
	Bundle string

	// Annotations are the caller's own notes. The package stores them and never reads them.
	Annotations map[string]string

	// Logger is told of steps and clean-ups. Nil is silent. It is not stored.
	Logger *slog.Logger `json:"-"`
}

// Root says what the container's / is made of. Exactly one of Dir and Layers is set.
type Root struct {
	// Dir is an absolute path of a directory. "/" is the host's own root with all that is mounted
	// below it.
	Dir string

	// Layers are directories in overlayfs format, the lowest first; [Image.Root] fills them in.
	Layers []string

	// Access says where writes go. The zero value means ReadWrite for a Dir other than "/", and
	// CopyOnWrite for the host's root and for layers.
	Access Access

	// Upper is a directory that keeps what was written, with CopyOnWrite: the subdirectories
	// "upper" and "work" are made in it. If empty, changes live in a tmpfs and are gone with the
	// container.
	Upper string

	// UpperSize limits that tmpfs, in bytes. Zero means the kernel's default, half of the memory.
	UpperSize int64

	// Propagation of the root: "private" (the default); "slave", mounts that the host makes below Dir
	// appear inside; "shared", they do, and what is mounted inside appears in the mount namespaces that
	// the container makes, never on the host: for that, see Mount.Propagation; or "unbindable". With "r"
	// in front it holds for all that is mounted below.
	Propagation Propagation
}

// access is Root.Access with its zero value resolved.
func (r Root) access() Access {
	switch {
	case r.Access != "":
		return r.Access
	case r.Dir == "/" || len(r.Layers) > 0:
		return CopyOnWrite
	}
	return ReadWrite
}

// Access says where writes to a root go.
type Access string

// The kinds of access to a root.
const (
	// ReadOnly: writes fail with EROFS.
	ReadOnly Access = "ro"
	// CopyOnWrite: writes go to an upper layer of overlayfs.
	CopyOnWrite Access = "cow"
	// ReadWrite: writes go to the directory itself. Refused for the host's root and for layers.
	ReadWrite Access = "rw"
)

// HostRoot is the host's own file tree, copy-on-write: what the container changes is gone with it.
// Mounted file systems are included, each copy-on-write; those that overlayfs cannot
// stand on are read-only. /proc, /sys, /dev and /run are not taken from the host.
//
// An ordinary user who maps only their own id can read what they can read outside, and change what
// belongs to them; writing into a directory of somebody else's fails with EOVERFLOW or EACCES, since
// its owner has no id inside.
// Sockets and FIFOs of the host are there, but nobody listens behind them.
var HostRoot = Root{Dir: "/", Access: CopyOnWrite}

// Directory is a root in a directory of the host; what the container writes stays there.
func Directory(path string) Root { return Root{Dir: path, Access: ReadWrite} }

// TimeOffsets are added to the clocks of a time namespace; see time_namespaces(7).
type TimeOffsets struct {
	Monotonic time.Duration
	Boottime  time.Duration
}

// Device is a node in the container's /dev.
type Device struct {
	// Path is absolute and below /dev. Missing directories are made.
	Path string
	// Type is 'c' for a character device, 'b' for a block device.
	Type rune
	// Major and Minor are the device's numbers.
	Major, Minor uint32
	// Mode holds the permission bits. Zero means 0666.
	Mode uint32
	// Uid and Gid own the node, as ids of the container.
	Uid, Gid uint32
}

// DefaultDevices returns the nodes that every container gets: null, zero, full, random, urandom
// and tty.
func DefaultDevices() []Device {
	return []Device{
		{Path: "/dev/null", Type: 'c', Major: 1, Minor: 3},
		{Path: "/dev/zero", Type: 'c', Major: 1, Minor: 5},
		{Path: "/dev/full", Type: 'c', Major: 1, Minor: 7},
		{Path: "/dev/random", Type: 'c', Major: 1, Minor: 8},
		{Path: "/dev/urandom", Type: 'c', Major: 1, Minor: 9},
		{Path: "/dev/tty", Type: 'c', Major: 5, Minor: 0},
	}
}

// devices are Devices with nil resolved.
func (c *Config) devices() []Device {
	if c.Devices == nil {
		return DefaultDevices()
	}
	return c.Devices
}

// ttyGroup is "tty" everywhere; the C library expects terminals to belong to it.
const ttyGroup = 5

// DefaultMounts returns /proc, /sys read-only, and /sys/fs/cgroup read-only. /dev with its pts,
// shm and mqueue is made without an entry.
func DefaultMounts() []Mount {
	kernel := NoSuid | NoDev | NoExec
	return []Mount{
		{Type: "proc", Source: "proc", Target: "/proc", Flags: kernel},
		{Type: "sysfs", Source: "sysfs", Target: "/sys", Flags: kernel | MountReadOnly},
		{Type: "cgroup2", Source: "cgroup2", Target: "/sys/fs/cgroup", Flags: kernel | MountReadOnly},
	}
}

// DefaultMaskPaths returns the files of /proc and /sys that tell about the host, or act on it. Among
// them are meters of power and heat, which tell what other programs compute.
func DefaultMaskPaths() []string {
	list := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	perCPU, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	return append(list, perCPU...)
}

// DefaultReadonlyPaths returns the parts of /proc through which the host could be changed.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// DefaultConfig returns a Config that isolates: every kind of namespace but time is new, the
// caller's ids become 0 inside (root keeps all ids as they are, with its capabilities inside only:
// pass explicit maps, or clear NewUser, for anything else), default mounts, masks and devices, few capabilities, no new privileges,
// the default filter of system calls. Root is left
// for the caller to set.
func DefaultConfig() Config {
	return Config{
		Namespaces: Namespaces{
			NewCgroup: true, NewIPC: true, NewMnt: true, NewNet: true,
			NewPID: true, NewUser: true, NewUTS: true,
		},
		Hostname:        "container",
		Mounts:          DefaultMounts(),
		MaskPaths:       DefaultMaskPaths(),
		ReadonlyPaths:   DefaultReadonlyPaths(),
		NoNewPrivileges: true,
		Seccomp:         DefaultSeccompProfile(),
	}
}
