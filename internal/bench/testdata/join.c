// The floor of exec: another process in a running container by hand, with the system calls that it takes
// and nothing else.
//
//   join PID PROGRAM [userns]
//
// For each line on standard input it runs PROGRAM in the namespaces of the process PID, waits for its
// end, and answers with the nanoseconds that took.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *program;
static int in_userns, pid, pidfd, pipes[2];

// must ends the child if a step failed. The parent sees the exit code.
static long must(long result, const char *step)
{
	if (result < 0) {
		dprintf(2, "join: %s: %s\n", step, strerror(errno));
		_exit(1);
	}
	return result;
}

#define MUST(call) must(call, #call)
#define SYS(name, ...) syscall(SYS_##name, __VA_ARGS__)

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
	MUST(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = set, .permitted = set},
		{.effective = set >> 32, .permitted = set >> 32},
	};
	MUST(SYS(capset, &header, data));
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

static int inner(void *unused)
{
	(void)unused;
	char *args[] = {(char *)program, NULL}, *env[] = {"PATH=/bin", NULL};
	MUST(setsid());
	SYS(keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	MUST(fchdir(MUST(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC))));
	umask(022);
	drop_privileges();
	MUST(SYS(close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC));
	execve(program, args, env);
	must(-1, program);
	return 1;
}

static char stack[1 << 16] __attribute__((aligned(16))), inner_stack[1 << 16] __attribute__((aligned(16)));

// enter is a child that makes another: only that one is in the PID namespace. It shares the memory of its
// parent, which waits.
static int enter(void *unused)
{
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP;
	MUST(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
	umask(0);
	MUST(setns(pidfd, flags | (in_userns ? CLONE_NEWUSER : 0)));
	MUST(SYS(setresgid, 0, 0, 0));
	MUST(SYS(setresuid, 0, 0, 0));
	int child = MUST(clone(inner, inner_stack + sizeof inner_stack, CLONE_VM | CLONE_VFORK | CLONE_PARENT | SIGCHLD, unused));
	MUST(write(pipes[1], &child, sizeof child));
	_exit(0);
}

int main(int argc, char **argv)
{
	char line[16];

	if (argc < 3 || pipe2(pipes, O_CLOEXEC) < 0)
		return 2;
	pid = atoi(argv[1]);
	program = argv[2];
	in_userns = argc > 3;
	while (fgets(line, sizeof line, stdin)) {
		struct timespec start, end;
		int status, child;

		clock_gettime(CLOCK_MONOTONIC, &start);
		pidfd = SYS(pidfd_open, pid, 0);
		// The namespaces are entered in a copy of our memory: not being dumpable belongs to the memory.
		pid_t outer = fork();
		if (outer == 0)
			enter(NULL);
		if (outer < 0 || waitpid(outer, &status, 0) < 0 || status != 0 ||
		    read(pipes[0], &child, sizeof child) != sizeof child || waitpid(child, &status, 0) < 0) {
			perror("join");
			return 1;
		}
		close(pidfd);
		clock_gettime(CLOCK_MONOTONIC, &end);
		if (status != 0)
			return 1;
		printf("%lld\n", (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec);
		fflush(stdout);
	}
	return 0;
}
