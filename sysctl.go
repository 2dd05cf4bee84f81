package container

import (
	"strings"
)

// This file says which kernel parameters a container may set. It is pure; the launcher's program
// writes them, through a procfs of its own.

// maxSysctl bounds names and values: the kernel takes one page.
const maxSysctl = 4096

// namespacedSysctls lists the parameters that belong to a kind of namespace. All others are the
// host's. A slash at the end stands for all that is below.
var namespacedSysctls = []struct {
	path string
	kind NamespaceKind
}{
	{"net/", NetworkNamespace},
	{"fs/mqueue/", IPCNamespace},
	{"kernel/msgmax", IPCNamespace},
	{"kernel/msgmnb", IPCNamespace},
	{"kernel/msgmni", IPCNamespace},
	{"kernel/sem", IPCNamespace},
	{"kernel/shmall", IPCNamespace},
	{"kernel/shmmax", IPCNamespace},
	{"kernel/shmmni", IPCNamespace},
	{"kernel/shm_rmid_forced", IPCNamespace},
	{"kernel/domainname", UTSNamespace},
	{"user/", UserNamespace},
}

// sysctlPath returns the path below /proc/sys for a name as sysctl(8) takes it: the first separator
// tells which one it is, and the other one stands for a dot in a name. So "net.ipv4.conf.eth0/1.forwarding"
// and "net/ipv4/conf/eth0.1/forwarding" both are the latter.
func sysctlPath(name string) (string, error) {
	field := sysctlField(name)
	if len(name) > maxSysctl {
		return "", fieldErrorf(field, "the name is longer than %d bytes", maxSysctl)
	}
	path := name
	if i := strings.IndexAny(name, "./"); i < 0 {
		return "", fieldErrorf(field, "%q is not the name of a parameter, such as \"net.ipv4.ip_forward\"", name)
	} else if name[i] == '.' {
		path = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, isControl) {
			return "", fieldErrorf(field, "%q is not the name of a parameter, such as \"net.ipv4.ip_forward\"", name)
		}
	}
	return path, nil
}

// checkSysctl tells whether a container with these namespaces may set a parameter to a value: only
// one that belongs to a namespace, and only if that namespace is new or joined. That a joined one is not
// the caller's own is found out at the start.
func checkSysctl(name, value string, ns Namespaces) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	field := sysctlField(name)
	if len(value) > maxSysctl {
		return fieldErrorf(field, "the value is longer than %d bytes", maxSysctl)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return isControl(r) && r != '\t' }) {
		return fieldErrorf(field, "the value %q contains a control character", value)
	}
	if path == "kernel/hostname" {
		return fieldErrorf(field, "set Hostname instead")
	}
	switch kind := sysctlKind(path); {
	case kind == "":
		return fieldErrorf(field, "belongs to the host and not to a namespace; set it there with sysctl(8)")
	case !ns.private(kind):
		return fieldErrorf(field, "needs a %s namespace of the container's own; set Namespaces.%s", kind, newFieldName(kind))
	}
	return nil
}

func sysctlField(name string) string { return mapKey("Sysctl", name) }

// isControl tells whether r is a control character, or no character at all.
func isControl(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }

// newFieldName returns the name of the field in Namespaces that asks for a new one of this kind.
func newFieldName(kind NamespaceKind) string {
	switch kind {
	case CgroupNamespace:
		return "NewCgroup"
	case MountNamespace:
		return "NewMnt"
	case NetworkNamespace:
		return "NewNet"
	case TimeNamespace:
		return "NewTime"
	case UserNamespace:
		return "NewUser"
	}
	return "New" + strings.ToUpper(string(kind))
}

// sysctlKind is the kind of namespace that a parameter belongs to.
func sysctlKind(path string) NamespaceKind {
	for _, s := range namespacedSysctls {
		if path == s.path || strings.HasSuffix(s.path, "/") && strings.HasPrefix(path, s.path) {
			return s.kind
		}
	}
	return ""
}
