package container

import (
	"slices"
	"strings"
	"sync"
)

// This file holds the default profile: data, and how to change it.

// DefaultSeccompProfile returns the profile of [DefaultConfig]. It allows what programs need and denies the rest with
// EPERM; what it does not know, and clone3 for its hidden flags, with ENOSYS, upon which the C library does
// without. It is Docker's default profile, and stricter:
//
//   - TIOCSTI and TIOCLINUX, which push input into a terminal, are denied whatever the upper half of the argument holds
//     (CVE-2017-5226, CVE-2019-10063), and so are AF_ALG and AF_VSOCK, which are interfaces of the kernel's and of the host's;
//   - calls of other ABIs, such as i386 on amd64, end the process. Add them to Architectures; socketcall(2) of i386, whose arguments
//     cannot be seen, stays denied.
//
// Creating namespaces and mounting, unless with CAP_SYS_ADMIN, io_uring, userfaultfd, keys, BPF and perf are
// denied as in Docker. Some calls come with the capability that they need, if that is in the bounding set of the process.
//
// Each call returns a profile of its own. Change it with [SeccompProfile.Allow] and [SeccompProfile.Deny].
func DefaultSeccompProfile() *SeccompProfile {
	return defaultProfile().clone()
}

// Allow lets calls through, with any arguments: a rule in front of all others, which therefore counts.
func (p *SeccompProfile) Allow(names ...string) {
	p.Syscalls = slices.Insert(p.Syscalls, 0, SeccompRule{Names: slices.Clone(names), Action: SeccompAllow})
}

// Deny makes calls fail with EPERM, with any arguments: a rule in front of all others, which therefore counts.
func (p *SeccompProfile) Deny(names ...string) {
	p.Syscalls = slices.Insert(p.Syscalls, 0, SeccompRule{Names: slices.Clone(names), Action: SeccompErrno})
}

// defaultCalls are allowed whatever their arguments, by what they are about. Names that only some ABIs have are among them.
var defaultCalls = []struct{ about, names string }{
	{"files by name", `access chdir chmod chown chown32 creat faccessat faccessat2 fchmodat fchmodat2 fchownat fstatat64 futimesat
		getcwd lchown lchown32 link linkat lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2
		readlink readlinkat rename renameat renameat2 rmdir stat stat64 statfs statfs64 statx symlink symlinkat truncate truncate64
		umask unlink unlinkat utime utimensat utimensat_time64 utimes`},
	{"open files", `_llseek arm_fadvise64_64 arm_sync_file_range close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64
		fallocate fchdir fchmod fchown fchown32 fcntl fcntl64 fdatasync flock fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
		getdents getdents64 lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64
		splice sync sync_file_range sync_file_range2 syncfs tee vmsplice write writev`},
	{"extended attributes", `fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
		lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat`},
	{"mounts, to look at", `listmount statmount`},
	{"events", `_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
		eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6
		pselect6_time64 select signalfd signalfd4`},
	{"asynchronous I/O, the old one", `io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit`},
	{"sockets, once they are there", `accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
		recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair`},
	{"memory", `brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
		mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages`},
	{"processes and threads", `arch_prctl breakpoint cacheflush execve execveat exit exit_group fork get_robust_list get_thread_area
		getcpu getpgid getpgrp getpid getppid getsid gettid modify_ldt pause pidfd_open prctl restart_syscall riscv_flush_icache riscv_hwprobe
		rseq set_robust_list set_thread_area set_tid_address set_tls setpgid setsid uretprobe vfork wait4 waitid waitpid`},
	{"debuggers, which the kernel lets near their own only", `process_vm_readv process_vm_writev ptrace`},
	{"signals", `alarm kill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
		rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill`},
	{"waiting for each other", `futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake`},
	{"System V and POSIX queues and semaphores, of the IPC namespace", `ipc mq_getsetattr mq_notify mq_open mq_timedreceive
		mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
		semtimedop_time64 shmat shmctl shmdt shmget`},
	{"users, groups, capabilities", `capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
		getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
		setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32`},
	{"more walls of one's own", `landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp`},
	{"limits and scheduling", `getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max
		sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
		sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority
		setrlimit ugetrlimit`},
	{"time; the clock is set by whom the kernel lets", `adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
		clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
		timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
		timerfd_settime timerfd_settime64 times`},
	{"the system", `getrandom sysinfo uname`},
}

// capabilityCalls come with a capability. The kernel would refuse them without it, most of them; but what cannot be called
// cannot be broken.
var capabilityCalls = []struct{ capability, names string }{
	{"CAP_SYS_ADMIN", `bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules
		lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
		umount umount2 unshare`},
	{"CAP_BPF", "bpf"},
	{"CAP_DAC_READ_SEARCH", "open_by_handle_at"},
	{"CAP_PERFMON", "perf_event_open"},
	{"CAP_SYSLOG", "syslog"},
	{"CAP_SYS_BOOT", "reboot"},
	{"CAP_SYS_CHROOT", "chroot"},
	{"CAP_SYS_MODULE", "delete_module finit_module init_module"},
	{"CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"},
	{"CAP_SYS_PACCT", "acct"},
	{"CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"},
	{"CAP_SYS_RAWIO", "ioperm iopl"},
	{"CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"},
	{"CAP_SYS_TTY_CONFIG", "vhangup"},
}

// Numbers of what the rules about arguments are about.
const (
	tiocsti   = 0x5412
	tioclinux = 0x541c
	afALG     = 38
	afVSOCK   = 40

	// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET
	cloneNew = 0x7e020000

	// PER_LINUX, PER_LINUX32, each also with UNAME26; the last asks for the present one.
	perLinux, perLinux32, uname26, perPresent = 0x0, 0x8, 0x20000, 0xffffffff
)

var defaultProfile = sync.OnceValue(func() *SeccompProfile {
	p := &SeccompProfile{DefaultAction: SeccompErrno}
	add := func(r SeccompRule, names string) {
		r.Names = strings.Fields(names)
		p.Syscalls = append(p.Syscalls, r)
	}
	// The mask says it also to others that these are ints.
	low := func(n uint, value uint64) []SeccompArg {
		return []SeccompArg{{Index: n, Value: 0xffffffff, ValueTwo: value, Op: SeccompMaskedEqual}}
	}
	add(SeccompRule{Action: SeccompErrno, Args: append(low(1, tiocsti), low(1, tioclinux)...), Comment: "input for a terminal"}, "ioctl")
	add(SeccompRule{Action: SeccompErrno, Args: append(low(0, afALG), low(0, afVSOCK)...), Comment: "AF_ALG, AF_VSOCK"}, "socket")
	add(SeccompRule{Action: SeccompAllow}, "ioctl socket")
	for _, c := range defaultCalls {
		add(SeccompRule{Action: SeccompAllow, Comment: c.about}, c.names)
	}
	for _, value := range []uint64{perLinux, perLinux32, uname26, perLinux32 | uname26, perPresent} {
		add(SeccompRule{Action: SeccompAllow, Args: []SeccompArg{{Value: value, Op: SeccompEqual}}}, "personality")
	}
	for _, c := range capabilityCalls {
		add(SeccompRule{Action: SeccompAllow, Includes: &SeccompCondition{Caps: []string{c.capability}}}, c.names)
	}
	add(SeccompRule{Action: SeccompAllow, Args: []SeccompArg{{Value: cloneNew, Op: SeccompMaskedEqual}}, Comment: "no new namespaces"}, "clone")
	unknown := uint(enosys)
	add(SeccompRule{Action: SeccompErrno, Errno: &unknown, Comment: "its flags are in memory"}, "clone3")
	return p
})
