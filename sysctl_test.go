package container

import (
	"errors"
	"strings"
	"testing"
)

func TestSysctlPath(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":              "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":              "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/1.forwarding":  "net/ipv4/conf/eth0.1/forwarding",
		"net/ipv4/conf/eth0.1/forwarding":  "net/ipv4/conf/eth0.1/forwarding",
		"kernel.shm_rmid_forced":           "kernel/shm_rmid_forced",
		"fs.mqueue.msg_max":                "fs/mqueue/msg_max",
		"net/ipv4/conf/a..b/forwarding":    "net/ipv4/conf/a..b/forwarding", // a strange name of an interface, but one
		"":                                 "",
		"kernel":                           "",
		"/net/ipv4/ip_forward":             "",
		".net.ipv4":                        "",
		"net.ipv4.":                        "",
		"net..ipv4":                        "",
		"net/../kernel/core_pattern":       "",
		"net/./ipv4":                       "",
		"net.//.kernel.core_pattern":       "", // "net/../kernel/core_pattern"
		"net.ipv4.conf.//.//.kernel.x":     "",
		"net.ipv4.ip\nforward":             "",
		"net.ipv4\x00.ip_forward":          "",
		"net.\xff":                         "",
		"net." + strings.Repeat("x", 5000): "",
	} {
		got, err := sysctlPath(name)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q, %v; want %q", name, got, err, want)
		}
		if err != nil && (!errors.Is(err, ErrInvalidConfig) || len(err.Error()) > 400) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCheckSysctl(t *testing.T) {
	all := DefaultConfig().Namespaces
	joined := Namespaces{Join: map[NamespaceKind]string{NetworkNamespace: "/proc/1/ns/net"}}
	for _, tt := range []struct {
		name, value string
		ns          Namespaces
		problem     string // a part of it; empty: allowed
	}{
		{"net.ipv4.ip_forward", "1", all, ""},
		{"net.ipv4.tcp_rmem", "4096\t131072 6291456", all, ""},
		{"net.ipv4.ip_local_reserved_ports", "", all, ""},
		{"net/ipv4/ip_forward", "1", Namespaces{}, "Namespaces.NewNet"},
		{"net.ipv4.ip_forward", "1", joined, ""},
		{"net.ipv4.ip_forward", "1", Namespaces{NewIPC: true}, "Namespaces.NewNet"},
		{"kernel.shmmax", "1", all, ""},
		{"kernel.sem", "1 2 3 4", Namespaces{NewNet: true}, "Namespaces.NewIPC"},
		{"kernel.semaphore", "1", all, "host"},
		{"fs.mqueue.msg_max", "1", all, ""},
		{"fs.mqueue", "1", all, "host"},
		{"fs.file-max", "1", all, "host"},
		{"kernel.domainname", "x", all, ""},
		{"kernel.domainname", "x", Namespaces{NewIPC: true}, "Namespaces.NewUTS"},
		{"kernel.hostname", "x", all, "Hostname"},
		{"user.max_user_namespaces", "0", all, ""},
		{"user.max_user_namespaces", "0", Namespaces{NewNet: true}, "Namespaces.NewUser"},
		{"kernel.core_pattern", "|/x", all, "host"},
		{"kernel.msgmax.x", "1", all, "host"},
		{"vm.overcommit_memory", "1", all, "host"},
		{"netfilter.x", "1", all, "host"},
		{"net.//.kernel.core_pattern", "|/x", all, "not the name"},
		{"net.ipv4.ip_forward", "1\n", all, "control"},
		{"net.ipv4.ip_forward", "\x00", all, "control"},
		{"net.ipv4.ip_forward", strings.Repeat("1", 4097), all, "longer"},
	} {
		err := checkSysctl(tt.name, tt.value, tt.ns)
		if tt.problem == "" {
			if err != nil {
				t.Errorf("%s=%q: %v", tt.name, tt.value, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%s=%q: %v, want a complaint with %q", tt.name, tt.value, err, tt.problem)
		}
	}
}

func FuzzSysctlPath(f *testing.F) {
	for _, s := range []string{"net.ipv4.conf.eth0/1.forwarding", "net/../x", "a.//.b", "kernel"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, err := sysctlPath(name)
		if err != nil {
			return
		}
		if again, err := sysctlPath(path); err != nil || again != path {
			// A path whose first part has a dot reads as dotted; no parameter has such a name.
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
				t.Fatalf("%q is %q, which is %q, %v", name, path, again, err)
			}
		}
		if strings.HasPrefix(path, "/") || strings.Contains("/"+path+"/", "/../") || strings.Contains(path, "\x00") {
			t.Fatalf("%q leads out: %q", name, path)
		}
	})
}

func TestNewFieldName(t *testing.T) {
	for _, k := range namespaceKinds {
		var ns Namespaces
		*k.new(&ns) = true
		if !ns.isNew(k.kind) {
			t.Errorf("%s is not new", k.kind)
		}
	}
	for kind, want := range map[NamespaceKind]string{
		CgroupNamespace: "NewCgroup", IPCNamespace: "NewIPC", MountNamespace: "NewMnt", NetworkNamespace: "NewNet",
		PIDNamespace: "NewPID", TimeNamespace: "NewTime", UserNamespace: "NewUser", UTSNamespace: "NewUTS",
	} {
		if got := newFieldName(kind); got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
}
