//go:build linux

package container

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"example.com/container/internal/seccomp"
	"golang.org/x/sys/unix"
)

// This file is about faults of the kernel's that a runtime keeps programs from: each test makes the first call of the attack under the default
// filter of system calls, which must deny it whatever the kernel would say.

// A forbiddenCall is a system call with its arguments, and what the filter answers. What it would do if it were allowed is no harm.
type forbiddenCall struct {
	name string
	args []uint64
	want unix.Errno
}

// String is the call as the attacker takes it as an argument: "name arg arg".
func (c forbiddenCall) String() string {
	s := c.name
	for _, a := range c.args {
		s += " " + strconv.FormatUint(a, 10)
	}
	return s
}

// makeCalls is the attacker that makes them.
func makeCalls(calls []string) {
	for _, call := range calls {
		f := strings.Fields(call)
		nr, ok := seccomp.Number(seccomp.Native(), f[0])
		if n, err := strconv.ParseUint(f[0], 0, 32); err == nil {
			nr, ok = uint32(n), true
		}
		if !ok {
			fmt.Println(call, "none")
			continue
		}
		args := [6]uintptr{}
		for i, a := range f[1:] {
			n, _ := strconv.ParseUint(a, 10, 64)
			args[i] = uintptr(n)
		}
		r, _, e := unix.RawSyscall6(uintptr(nr), args[0], args[1], args[2], args[3], args[4], args[5])
		if r == 0 && e == 0 && (f[0] == "clone" || f[0] == "clone3") { // the child
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		fmt.Println(call, int(e))
	}
}

// deny checks that each call is denied under the default filter, and with all else that is the default.
func deny(t *testing.T, p Process, calls ...forbiddenCall) {
	t.Helper()
	devModes(t, func(t *testing.T, cfg Config) {
		if cfg.Seccomp == nil {
			t.Fatal("there is no default filter")
		}
		attackerIn(t, cfg.Root.Dir)
		for call, got := range errnos(t, cfg, p, calls) {
			if got != strconv.Itoa(int(call.want)) && got != "none" {
				t.Errorf("%v: errno %s, want %d", call, got, call.want)
			}
		}
	})
}

// errnos makes the calls in a container and returns what each said.
func errnos(t *testing.T, cfg Config, p Process, calls []forbiddenCall) map[*forbiddenCall]string {
	t.Helper()
	args := make([]string, len(calls))
	for i, c := range calls {
		args[i] = c.String()
	}
	a := attack("calls", args...)
	var out bytes.Buffer
	p.Args, p.Env, p.Stdout, p.Stderr = a.Args, a.Env, &out, &out
	if text, err := runIn(t, cfg, &p); err != nil {
		t.Fatalf("%s%s, %v", text, &out, err)
	}
	lines := strings.Split(strings.ReplaceAll(strings.TrimSpace(out.String()), "\r", ""), "\n")
	if len(lines) != len(calls) {
		t.Fatalf("%d calls, %q", len(calls), lines)
	}
	got := map[*forbiddenCall]string{}
	for i := range calls {
		got[&calls[i]] = strings.TrimPrefix(lines[i], args[i]+" ")
	}
	return got
}

const (
	high = 1 << 32 // the kernel takes no notice of it where the argument is an int
	eNO  = unix.EPERM
	none = unix.ENOSYS
)

func denied(name string, args ...uint64) forbiddenCall { return forbiddenCall{name, args, eNO} }

// AF_ALG writes to the page cache, which containers of the same image share.
func TestCVE_2026_31431(t *testing.T) {
	for _, typ := range []uint64{unix.SOCK_SEQPACKET, unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC, unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		deny(t, Process{}, denied("socket", unix.AF_ALG, typ, 0), denied("socket", high|unix.AF_ALG, typ, 0), denied("socket", unix.AF_VSOCK, typ, 0), denied("socket", high|unix.AF_VSOCK, typ, 0))
	}
}

// fsconfig overflows the heap, for everybody who can have a user namespace.
func TestCVE_2022_0185(t *testing.T) {
	deny(t, Process{}, denied("unshare", unix.CLONE_NEWUSER|unix.CLONE_NEWNS), denied("unshare", unix.CLONE_NEWUSER), denied("clone", unix.CLONE_NEWUSER|uint64(unix.SIGCHLD)),
		denied("clone", high|unix.CLONE_NEWUSER|uint64(unix.SIGCHLD)), forbiddenCall{"clone3", []uint64{0, 0}, none}, denied("setns", 0, 0),
		denied("fsopen", 0, 0), denied("fsconfig", 3, 1, 0, 0, 0), denied("fspick", 0, 0, 0))
}

// Whoever mounts a hierarchy of cgroup v1 names a program that the kernel runs as the host's root.
func TestCVE_2022_0492(t *testing.T) {
	deny(t, Process{}, denied("unshare", unix.CLONE_NEWCGROUP), denied("unshare", unix.CLONE_NEWUSER|unix.CLONE_NEWCGROUP), denied("mount", 0, 0, 0, 0, 0))
	// Neither without the filter, nor with all capabilities in a user namespace.
	for name, cfg := range map[string]Config{"default": attackConfig(t), "all": withAllCaps(attackConfig(t))} {
		got := sh(t, cfg, `cat /proc/self/mountinfo | grep -c ' - cgroup '; mkdir /c
			for o in rdma memory cpu freezer devices pids misc net_cls none,name=attack none,name=systemd; do
				for how in "" "unshare -UrmC"; do $how sh -c 'mount -t cgroup -o '$o' c /c && { echo /attack >/c/release_agent && echo "written '$o'"; umount /c; }' 2>/dev/null; done
			done; find / -xdev -name release_agent 2>/dev/null; find /sys -name release_agent 2>/dev/null; true`)
		if got != "0" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Packet sockets overflow the heap, for everybody with CAP_NET_RAW, which Docker gives by default.
func TestCVE_2020_14386(t *testing.T) {
	calls := []forbiddenCall{denied("socket", unix.AF_PACKET, unix.SOCK_RAW, 0x300), denied("socket", unix.AF_PACKET, unix.SOCK_DGRAM, 0), denied("socket", unix.AF_INET, unix.SOCK_RAW, 1), denied("socket", unix.AF_INET6, unix.SOCK_RAW, 58)}
	deny(t, Process{}, calls...)
	cfg := attackConfig(t) // without the filter: it is the capability that is missing
	attackerIn(t, cfg.Root.Dir)
	for call, got := range errnos(t, cfg, Process{}, calls) {
		if got != strconv.Itoa(int(eNO)) {
			t.Errorf("%v without a filter: %s", call, got)
		}
	}
}

// A descriptor is taken from a process of more rights in the moment in which it ends.
func TestCVE_2026_46333(t *testing.T) {
	deny(t, Process{}, denied("pidfd_getfd", 0, 0, 0), denied("kcmp", 1, 1, 0, 0, 0), denied("process_madvise", 0, 0, 0, 0, 0))
}

// attackTtyCall makes an ioctl of a terminal under the filter, with and without bits that only a filter sees. Without a filter the
// kernel's own answer is another one, which shows that it is the filter's.
func attackTtyCall(t *testing.T, request uint64) {
	calls := []forbiddenCall{denied("ioctl", 0, request, 0), denied("ioctl", 0, high|request, 0), denied("ioctl", 0, 0xffffffff<<32|request, 0), denied("ioctl", 1, 1<<63|request, 0)}
	deny(t, Process{Tty: true}, calls...)
	cfg := attackConfig(t)
	attackerIn(t, cfg.Root.Dir)
	for call, got := range errnos(t, cfg, Process{Tty: true}, calls) {
		if got == strconv.Itoa(int(eNO)) {
			t.Errorf("%v without a filter: the same, which shows nothing", call)
		}
	}
}

// A filter compared all 64 bits of an ioctl's number, of which the kernel takes 32.
func TestCVE_2019_10063(t *testing.T) { attackTtyCall(t, unix.TIOCSTI) }

// The same input, by way of the selection of a console.
func TestCVE_2023_28100(t *testing.T) { attackTtyCall(t, unix.TIOCLINUX) }

// The rest of what lets programs into parts of the kernel that had their faults and that containers do without.
func TestForbiddenCalls(t *testing.T) {
	var calls []forbiddenCall
	for _, name := range strings.Fields(`mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr
			unshare setns keyctl add_key request_key bpf userfaultfd io_uring_setup io_uring_enter io_uring_register perf_event_open
			pidfd_getfd kcmp process_madvise init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct
			iopl ioperm open_by_handle_at quotactl quotactl_fd syslog settimeofday clock_settime mbind set_mempolicy get_mempolicy migrate_pages move_pages
			sethostname setdomainname fanotify_init vhangup`) {
		calls = append(calls, forbiddenCall{name, []uint64{1 << 40, 1 << 40, 1 << 40, 1 << 40, 1 << 40}, eNO})
	}
	for _, flag := range []uint64{unix.CLONE_NEWNS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET} {
		calls = append(calls, denied("clone", flag|uint64(unix.SIGCHLD)))
	}
	for _, persona := range []uint64{0x0040000, 0x0100000, 0x0400000, 0x4000000} { // ADDR_NO_RANDOMIZE, MMAP_PAGE_ZERO, READ_IMPLIES_EXEC, ...
		calls = append(calls, denied("personality", persona))
	}
	// What is not known is not there; so are calls of x32.
	for _, nr := range []string{"999", "100000", "0x40000001", "0x40000027"} {
		if seccomp.Native() != "SCMP_ARCH_X86_64" && strings.HasPrefix(nr, "0x4") {
			continue
		}
		calls = append(calls, forbiddenCall{nr, nil, none})
	}
	calls = append(calls, forbiddenCall{"clone3", []uint64{0, 0}, none})
	deny(t, Process{}, calls...)
}
