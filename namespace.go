package container

// This file names the kinds of namespaces. It is data; plan.go turns it into steps.

// Namespaces says for each kind of namespace whether the container gets a new one. A kind that is
// neither new nor joined is shared with the caller: less isolation, and the caller's choice.
type Namespaces struct {
	NewCgroup bool // cgroup_namespaces(7): the container's cgroup is the root of what it sees
	NewIPC    bool // ipc_namespaces(7): System V IPC and POSIX message queues
	NewMnt    bool // mount_namespaces(7)
	NewNet    bool // network_namespaces(7): with lo up, and nothing else
	NewPID    bool // pid_namespaces(7): the process is number 1, and all others end with it
	NewTime   bool // time_namespaces(7)
	NewUser   bool // user_namespaces(7)
	NewUTS    bool // uts_namespaces(7): host and domain name

	// Join maps a kind to the path of a namespace to join, such as /proc/1234/ns/net or a bind of
	// it. A kind must not be both new and joined. If a user namespace is joined, it is joined
	// first, so that its owner may join the others.
	Join map[NamespaceKind]string
}

// NamespaceKind names a kind of namespace, as in /proc/self/ns.
type NamespaceKind string

// The kinds of namespaces.
const (
	CgroupNamespace  NamespaceKind = "cgroup"
	IPCNamespace     NamespaceKind = "ipc"
	MountNamespace   NamespaceKind = "mnt"
	NetworkNamespace NamespaceKind = "net"
	PIDNamespace     NamespaceKind = "pid"
	TimeNamespace    NamespaceKind = "time"
	UserNamespace    NamespaceKind = "user"
	UTSNamespace     NamespaceKind = "uts"
)

// namespaceKinds lists the kinds in the order in which they are joined: the user namespace first,
// since it gives the right to join the rest, and the mount namespace last, since the paths of the
// others are opened before it.
var namespaceKinds = []struct {
	kind NamespaceKind
	flag uintptr // CLONE_NEW*
	new  func(*Namespaces) *bool
}{
	{UserNamespace, 0x10000000, func(n *Namespaces) *bool { return &n.NewUser }},
	{CgroupNamespace, 0x02000000, func(n *Namespaces) *bool { return &n.NewCgroup }},
	{IPCNamespace, 0x08000000, func(n *Namespaces) *bool { return &n.NewIPC }},
	{UTSNamespace, 0x04000000, func(n *Namespaces) *bool { return &n.NewUTS }},
	{NetworkNamespace, 0x40000000, func(n *Namespaces) *bool { return &n.NewNet }},
	{PIDNamespace, 0x20000000, func(n *Namespaces) *bool { return &n.NewPID }},
	{TimeNamespace, 0x00000080, func(n *Namespaces) *bool { return &n.NewTime }},
	{MountNamespace, 0x00020000, func(n *Namespaces) *bool { return &n.NewMnt }},
}

// CloneFlags returns the CLONE_NEW* flags of the new namespaces, as for syscall.SysProcAttr.
func (n Namespaces) CloneFlags() uintptr {
	var flags uintptr
	for _, k := range namespaceKinds {
		if *k.new(&n) {
			flags |= k.flag
		}
	}
	return flags
}

// isNew tells whether the container makes a namespace of this kind.
func (n Namespaces) isNew(kind NamespaceKind) bool {
	for _, k := range namespaceKinds {
		if k.kind == kind {
			return *k.new(&n)
		}
	}
	return false
}

// private tells whether the container has a namespace of this kind that is not the caller's.
func (n Namespaces) private(kind NamespaceKind) bool { return n.Join[kind] != "" || n.isNew(kind) }
