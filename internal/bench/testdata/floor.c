// The floor: the start of a container by hand, with the system calls that it takes and nothing
// else. It is the measure for the Go code that has to decide which calls to make.
//
//   floor ROOTFS PROGRAM [userns]
//
// For each line on standard input it runs PROGRAM in a new container on the directory ROOTFS, waits
// for its end, and answers with the nanoseconds that took.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UMOUNT_DETACH 2 // MNT_DETACH; <sys/mount.h> does not go with <linux/mount.h>
int umount2(const char *, int);

#define KERNEL_FLAGS (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

static const char *rootfs, *program;
static int in_userns;
static uid_t uid;
static gid_t gid;

// must ends the child if a step failed. The parent sees the exit code.
static long must(long result, const char *step)
{
	if (result < 0) {
		dprintf(2, "floor: %s: %s\n", step, strerror(errno));
		_exit(1);
	}
	return result;
}

#define MUST(call) must(call, #call)
#define SYS(name, ...) syscall(SYS_##name, __VA_ARGS__)

// lookup opens a path below the root; -1 if it is not there.
static int lookup(int root, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	return SYS(openat2, root, path, &how, sizeof how);
}

// file_system makes a detached mount. options is a list of keys and values that ends in NULL.
static int file_system(const char *type, unsigned flags, const char **options)
{
	int fs = MUST(SYS(fsopen, type, FSOPEN_CLOEXEC));
	for (; options && *options; options += 2)
		MUST(SYS(fsconfig, fs, FSCONFIG_SET_STRING, options[0], options[1], 0));
	MUST(SYS(fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	int mount = MUST(SYS(fsmount, fs, FSMOUNT_CLOEXEC, flags));
	close(fs);
	return mount;
}

static void attach(int mount, int target)
{
	MUST(SYS(move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	close(target);
}

static void attach_at(int mount, int root, const char *path)
{
	attach(mount, MUST(lookup(root, path)));
	close(mount);
}

static int clone_tree(int fd, const char *path, int flags)
{
	return MUST(SYS(open_tree, fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags));
}

static void make_dev(int root)
{
	static const struct { const char *name; int major, minor; } nodes[] = {
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	};
	static const struct { const char *name, *target; } links[] = {
		{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
	};
	static const char *dirs[] = {"pts", "shm", "mqueue"};
	const char *dev_options[] = {"mode", "755", "size", "65536k", NULL};
	const char *pts_options[] = {"ptmxmode", "0666", "mode", "0620", in_userns ? NULL : "gid", "5", NULL};
	const char *shm_options[] = {"mode", "1777", "size", "65536k", NULL};

	int dev = file_system("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, dev_options);
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++)
		MUST(mkdirat(dev, dirs[i], 0755));
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		MUST(symlinkat(links[i].target, dev, links[i].name));
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		if (!in_userns) {
			MUST(mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
			continue;
		}
		// A user namespace makes no devices: the host's are bound, after a look at them.
		char path[32] = "/dev/";
		struct stat st;
		int host = MUST(open(strcat(path, nodes[i].name), O_PATH | O_CLOEXEC));
		MUST(fstat(host, &st));
		close(MUST(openat(dev, nodes[i].name, O_CREAT | O_WRONLY | O_CLOEXEC, 0666)));
		int mount = clone_tree(host, "", AT_EMPTY_PATH);
		close(host);
		attach(mount, MUST(openat(dev, nodes[i].name, O_PATH | O_CLOEXEC)));
		close(mount);
	}
	attach(file_system("devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, pts_options),
	       MUST(openat(dev, "pts", O_PATH | O_CLOEXEC)));
	attach(file_system("tmpfs", KERNEL_FLAGS, shm_options), MUST(openat(dev, "shm", O_PATH | O_CLOEXEC)));
	attach(file_system("mqueue", KERNEL_FLAGS, NULL), MUST(openat(dev, "mqueue", O_PATH | O_CLOEXEC)));
	attach_at(dev, root, "dev");
}

static void make_mounts(int root)
{
	attach_at(file_system("proc", KERNEL_FLAGS, NULL), root, "proc");
	attach_at(file_system("sysfs", KERNEL_FLAGS | MOUNT_ATTR_RDONLY, NULL), root, "sys");
	int cgroup = lookup(root, "sys/fs/cgroup");
	if (cgroup >= 0)
		attach(file_system("cgroup2", KERNEL_FLAGS | MOUNT_ATTR_RDONLY, NULL), cgroup);
	make_dev(root);
}

static void hide(int root)
{
	static const char *masked[] = {
		"proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats",
		"proc/sched_debug", "proc/scsi", "proc/timer_list", "proc/timer_stats",
		"sys/devices/virtual/powercap", "sys/firmware",
	};
	static const char *read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};

	int null = MUST(lookup(root, "dev/null"));
	int empty = file_system("tmpfs", KERNEL_FLAGS | MOUNT_ATTR_RDONLY, NULL);
	for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
		int target = lookup(root, masked[i]);
		if (target < 0)
			continue;
		struct stat st;
		MUST(fstat(target, &st));
		int mount = clone_tree(S_ISDIR(st.st_mode) ? empty : null, "", AT_EMPTY_PATH);
		attach(mount, target);
		close(mount);
	}
	for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++) {
		struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
		int target = lookup(root, read_only[i]);
		if (target < 0)
			continue;
		int mount = clone_tree(target, "", AT_EMPTY_PATH | AT_RECURSIVE);
		MUST(SYS(mount_setattr, mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &ro, sizeof ro));
		attach(mount, target);
		close(mount);
	}
}

static void write_file(const char *path, const char *text)
{
	int fd = MUST(open(path, O_WRONLY | O_CLOEXEC));
	MUST(write(fd, text, strlen(text)));
	close(fd);
}

static void become_root_of_userns(void)
{
	char map[32];
	write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "0 %u 1", uid);
	write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "0 %u 1", gid);
	write_file("/proc/self/gid_map", map);
}

static void loopback_up(void)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int s = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	MUST(ioctl(s, SIOCSIFFLAGS, &lo));
	close(s);
}

static void drop_privileges(void)
{
	// The capabilities that containers usually keep.
	static const int kept[] = {
		CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FSETID, CAP_FOWNER, CAP_MKNOD, CAP_NET_RAW, CAP_SETGID,
		CAP_SETUID, CAP_SETFCAP, CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT, CAP_KILL, CAP_AUDIT_WRITE,
	};
	unsigned long long set = 0;
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
		set |= 1ull << kept[i];

	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!(set & 1ull << cap))
			MUST(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
	if (!in_userns)
		MUST(SYS(setgroups, 0, NULL));
	MUST(SYS(setresgid, 0, 0, 0));
	MUST(SYS(setresuid, 0, 0, 0));
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = set, .permitted = set},
		{.effective = set >> 32, .permitted = set >> 32},
	};
	MUST(SYS(capset, &header, data));
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

// container is the child. It shares the memory of its parent, which waits.
static int container(void *unused)
{
	(void)unused;
	struct mount_attr private = {.propagation = 1 << 18}; // MS_PRIVATE
	char *args[] = {(char *)program, NULL}, *env[] = {"PATH=/bin", NULL};

	if (in_userns)
		become_root_of_userns();
	SYS(keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	umask(0);
	MUST(SYS(mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &private, sizeof private));
	int root = clone_tree(AT_FDCWD, rootfs, AT_RECURSIVE);
	attach(root, MUST(open(rootfs, O_PATH | O_CLOEXEC)));
	make_mounts(root);
	loopback_up();
	MUST(sethostname("container", 9));
	hide(root);
	MUST(fchdir(root));
	MUST(SYS(pivot_root, ".", "."));
	MUST(umount2(".", UMOUNT_DETACH));
	MUST(chdir("/"));
	umask(022);
	drop_privileges();
	MUST(SYS(close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC));
	execve(program, args, env);
	must(-1, program);
	return 1;
}

int main(int argc, char **argv)
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	char line[16];

	if (argc < 3)
		return 2;
	rootfs = argv[1];
	program = argv[2];
	in_userns = argc > 3;
	uid = geteuid();
	gid = getegid();
	while (fgets(line, sizeof line, stdin)) {
		struct timespec start, end;
		int status;

		clock_gettime(CLOCK_MONOTONIC, &start);
		pid_t pid = clone(container, stack + sizeof stack,
				  CLONE_VM | CLONE_VFORK | SIGCHLD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS |
				  CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP | (in_userns ? CLONE_NEWUSER : 0), NULL);
		if (pid < 0 || waitpid(pid, &status, 0) < 0) {
			perror("floor: clone");
			return 1;
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		if (status != 0)
			return 1;
		printf("%lld\n", (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec);
		fflush(stdout);
	}
	return 0;
}
