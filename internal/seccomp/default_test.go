package seccomp

import (
	"slices"
	"strings"
)

// This file makes a filter of the size and the form of a container engine's default: what is not denied is allowed, with
// conditions on a few arguments. It is moby's of 2026.

// denied has EPERM, in any ABI that has a call of the name.
var denied = strings.Fields(`
	syslog uselib ustat sysfs vhangup pivot_root _sysctl acct settimeofday mount umount umount2 swapon swapoff reboot
	sethostname setdomainname iopl ioperm create_module init_module delete_module get_kernel_syms query_module quotactl
	nfsservctl getpmsg putpmsg afs_syscall tuxcall security lookup_dcookie clock_settime vserver mbind set_mempolicy
	get_mempolicy kexec_load add_key request_key keyctl migrate_pages unshare move_pages perf_event_open fanotify_init
	open_by_handle_at setns kcmp finit_module kexec_file_load bpf userfaultfd uprobe io_uring_setup io_uring_enter
	io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick pidfd_getfd process_madvise mount_setattr
	quotactl_fd set_mempolicy_home_node lsm_get_self_attr lsm_set_self_attr lsm_list_modules open_tree_attr file_getattr
	file_setattr listns rseq_slice_yield

	break oldstat stime oldfstat stty gtty nice ftime prof signal lock mpx ulimit oldolduname sigaction sgetmask ssetmask
	sigsuspend sigpending oldlstat readdir profil olduname idle vm86old bdflush vm86 clock_settime64
	pciconfig_iobase pciconfig_read pciconfig_write usr26 usr32 get_tls`)

const (
	eperm  = 1
	enosys = 38
)

func whole(arg uint8, op Op, value uint64) Cmp {
	return Cmp{Arg: arg, Op: op, Mask: 1<<64 - 1, Value: value}
}

func low(arg uint8, op Op, value uint64) Cmp {
	return Cmp{Arg: arg, Op: op, Mask: 1<<64 - 1, Value: value, Low: true}
}

// conditions are those of single calls. Families and personalities are ints: with the upper half looked at, 1<<32 + 40 would be more than 40,
// and the kernel takes it for 40.
var conditions = map[string][]Rule{
	"socket": {
		{[]Cmp{low(0, LT, 38)}, Allow}, // AF_ALG
		{[]Cmp{low(0, EQ, 39)}, Allow},
		{[]Cmp{low(0, GT, 40)}, Allow}, // AF_VSOCK
	},
	"personality": {
		{[]Cmp{low(0, EQ, 0)}, Allow},
		{[]Cmp{low(0, EQ, 8)}, Allow},
		{[]Cmp{low(0, EQ, 0x20000)}, Allow},
		{[]Cmp{low(0, EQ, 0x20008)}, Allow},
		{[]Cmp{low(0, EQ, 0xffffffff)}, Allow},
	},
	"clone":  {{[]Cmp{{Arg: 0, Op: EQ, Mask: 0x7e020000, Value: 0}}, Allow}}, // CLONE_NEW*
	"clone3": {{nil, Errno(enosys)}},
}

func defaultFilter(abis ...ABI) *Filter {
	f := &Filter{Foreign: KillProcess, NoX32: Errno(enosys)}
	for _, abi := range abis {
		t := Table{ABI: abi, Rules: map[uint32][]Rule{}, Default: Errno(eperm), Unknown: Errno(enosys)}
		for i, number := range abi.calls().numbers {
			name := abi.calls().names[i]
			switch rules, ok := conditions[name]; {
			case ok:
				t.Rules[number] = rules
			case !slices.Contains(denied, name):
				t.Rules[number] = []Rule{{nil, Allow}}
			}
		}
		f.Tables = append(f.Tables, t)
	}
	return f
}
