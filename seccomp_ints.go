package container

// This file tells which arguments of system calls are ints.

// intArgs are arguments of calls that the kernel takes for an int, an unsigned int or another type of no more than 32 bits, as bits. It does not look
// at the upper half, which may hold anything; to compare it with a profile's number would let a call through that is not what it
// looks like (CVE-2019-10063), or not know a negative number, of which C sets the lower half only. What is not here is a pointer, a
// length or an unsigned long, or no profile compares it.
var intArgs = map[string]uint8{
	// users and groups
	"chown": 6, "fchown": 7, "fchownat": 29, "lchown": 6, "setfsgid": 1, "setfsuid": 1, "setgid": 1, "setgroups": 1, "setregid": 3,
	"setresgid": 7, "setresuid": 7, "setreuid": 3, "setuid": 1,
	// files
	"access": 2, "chmod": 2, "close_range": 7, "creat": 2, "dup3": 7, "faccessat": 5, "faccessat2": 13, "fallocate": 3, "fchmod": 3,
	"fchmodat": 5, "fchmodat2": 13, "fcntl": 3, "fcntl64": 3, "flock": 3, "ioctl": 3, "linkat": 21, "lseek": 5, "memfd_create": 2,
	"memfd_secret": 1, "mkdir": 2, "mkdirat": 5, "mknod": 6, "mknodat": 13, "mq_open": 6, "name_to_handle_at": 17, "open": 6,
	"open_by_handle_at": 5, "openat": 13, "openat2": 1, "pipe2": 2, "renameat2": 21, "statx": 13, "umask": 1, "unlinkat": 5, "userfaultfd": 1,
	// mounts
	"fsconfig": 19, "fsmount": 7, "fsopen": 2, "fspick": 5, "mount_setattr": 5, "move_mount": 21, "open_tree": 5, "quotactl": 5,
	"quotactl_fd": 7, "swapon": 2, "umount2": 2,
	// processes; of clone(2) the flags, which it takes from an unsigned long
	"arch_prctl": 1, "clone": 1, "execveat": 17, "exit": 1, "exit_group": 1, "futex": 6, "getpriority": 3, "ioprio_get": 3, "ioprio_set": 7, "kcmp": 7,
	"kill": 3, "madvise": 4, "membarrier": 7, "mlock2": 4, "mlockall": 1, "modify_ldt": 1, "personality": 1, "pidfd_getfd": 7, "pidfd_open": 3,
	"pidfd_send_signal": 11, "prctl": 1, "prlimit64": 3, "process_madvise": 25, "rt_sigqueueinfo": 3, "rt_tgsigqueueinfo": 7,
	"sched_setattr": 5, "sched_setparam": 1, "sched_setscheduler": 3, "set_mempolicy": 1, "setns": 3, "setpgid": 3, "setpriority": 7,
	"setrlimit": 1, "tgkill": 7, "tkill": 3, "wait4": 5, "waitid": 11,
	// sockets and queues
	"accept": 1, "accept4": 9, "bind": 1, "connect": 1, "getsockopt": 7, "listen": 3, "msgctl": 3, "msgget": 3, "recvfrom": 9, "recvmsg": 5,
	"semctl": 7, "semget": 7, "sendmsg": 5, "sendto": 9, "setsockopt": 7, "shmctl": 3, "shmget": 5, "shutdown": 3, "socket": 7, "socketpair": 7,
	// the kernel
	"bpf": 5, "clock_adjtime": 1, "clock_settime": 1, "delete_module": 2, "fanotify_init": 3, "fanotify_mark": 11, "finit_module": 5, "getrandom": 4,
	"inotify_init1": 1, "io_uring_enter": 15, "io_uring_register": 11, "io_uring_setup": 1, "iopl": 1, "kexec_file_load": 3, "keyctl": 1,
	"landlock_restrict_self": 3, "perf_event_open": 14, "reboot": 7, "seccomp": 3, "signalfd4": 9, "syslog": 5, "timerfd_create": 3,
}
