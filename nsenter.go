//go:build linux

package container

import (
	"context"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file enters a container with programs of the host, prlimit(1), setpriv(1) and nsenter(1) of
// util-linux. It runs in the caller's process. Whatever these programs cannot do is refused: no program of the
// container may run before all is applied. So what must happen after the namespaces have been entered, and
// nsenter does not do itself, cannot be had.

// ExecWithNsenter is Exec through nsenter(1), for hosts without a launcher. It needs util-linux, applies namespaces,
// cgroup, NoNewPrivileges, Rlimits, Env, Cwd and a session keyring as Exec does, and refuses what these programs cannot
// apply without running a program of the container first. The errors are *FieldErrors, joined, that wrap ErrUnsupported and name:
//
//   - Capabilities: only all that there are in the bounding, effective and permitted sets, since the kernel gives all to who
//     enters a user namespace, and takes them from who gives them up before;
//   - User: only one that the caller already is, such as root of a container of the caller's own id;
//   - Seccomp, AppArmorProfile, SelinuxLabel, Landlock, Scheduler, IOPriority, CPUAffinity, Personality, OomScoreAdj, DieWithParent, a Umask other than the
//     caller's, and entries of Env that programs of the host would act on, such as LD_PRELOAD.
//
// So a container of DefaultConfig is refused, for Seccomp and Capabilities. Neither can be set before nsenter enters: a filter
// that forbids setns(2) forbids it to nsenter, too, and none that has been set can be taken away; the kernel replaces the bounding set of
// who enters a user namespace, and setns needs capabilities that the container lacks. After that only a program of the container could set them.
//
// Cwd must be there. While nsenter enters, processes of the container that have CAP_SYS_PTRACE can look into it; Exec has no
// such moment. Without a launcher what fails inside nsenter is an exit code of 1, 126 or 127 and a message on Stderr.
func (c *Container) ExecWithNsenter(ctx context.Context, p *Process) error {
	return c.exec(ctx, p, func(t *target, stdio stdioFiles) (*started, error) {
		n := &nsenter{plan: plan{cfg: &c.cfg, proc: p, stdio: stdio, into: t}}
		return n.start(ctx)
	})
}

// nsenter is a plan that is carried out by other programs.
type nsenter struct {
	plan
	tools []os.FileInfo // their executables, and ours, which is the process's until the first of them is executed
	lines []string      // how their command lines begin, and ours
}

func (n *nsenter) start(ctx context.Context) (*started, error) {
	t := n.into
	if t.flags&unix.CLONE_NEWUSER != 0 {
		n.userns, n.uidMaps, n.gidMaps = usernsEntered, t.uidMaps, t.gidMaps
	}
	if err := n.resolveProcess(); err != nil {
		return nil, err
	}
	if err := n.refuse(); err != nil {
		return nil, err
	}
	defer func() { n.files.close() }()
	args, err := n.command()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Env: n.env, Sys: n.joinAttr()}
	attr.Sys.Setsid = true
	for _, f := range append(n.stdio[:], n.proc.ExtraFiles...) {
		fd := ^uintptr(0) // stays closed
		if f != nil {
			fd = f.Fd()
		}
		attr.Files = append(attr.Files, fd)
	}
	pid := 0
	onOwnThread(func() {
		if !n.cfg.HostKeyring {
			// Without a name it is anonymous, as with Exec.
			if _, err = unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil && err != unix.ENOSYS {
				return
			}
		}
		// What the caller has open without close-on-exec must not get into the container. The thread has a table
		// of its own, so that this is no matter of the caller's.
		if err = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC); err == nil {
			pid, err = syscall.ForkExec(args[0], args, attr)
		}
	})
	runtime.KeepAlive(n)
	if err != nil {
		return nil, &Error{Op: "start", Path: args[0], Err: err}
	}
	return n.handOver(ctx, pid)
}

// refuse names all that cannot be applied.
func (n *nsenter) refuse() error {
	var errs fieldErrors
	cannot := func(field, problem string) {
		errs.add(&FieldError{Field: field, Problem: problem, Err: ErrUnsupported})
	}
	have := uint64(1)<<(lastCap()+1) - 1 // in a user namespace that is entered
	if n.into.flags&unix.CLONE_NEWUSER == 0 {
		if _, err := fmt.Sscanf(ownStatus("CapBnd"), "%x", &have); err != nil {
			return err
		}
	}
	if c := n.caps; c.bounding&^have != 0 || have&^(c.bounding&c.effective&c.permitted) != 0 || c.inheritable|c.ambient != 0 {
		cannot("Capabilities", "nsenter leaves all capabilities to the process; use Exec, or, if it is to have them all, set Process.Capabilities to AllCapabilities")
	}
	uid, okUid := n.hostUid(n.user.uid)
	gid, okGid := n.hostGid(n.user.gid)
	if !okUid || !okGid || int(uid) != os.Geteuid() || int(gid) != os.Getegid() {
		cannot("User", "nsenter enters with the caller's own user and group")
	} else if n.canSetgroups() && os.Geteuid() != 0 {
		cannot("User", "the caller's groups would be kept")
	}
	if n.cfg.Seccomp != nil {
		cannot("Seccomp", "the filter would have to let nsenter enter, and util-linux sets none after that; use Exec")
	}
	if n.labels.appArmor != "" {
		cannot("AppArmorProfile", "it would be nsenter's, and not the program's")
	}
	if n.labels.selinux != "" {
		cannot("SelinuxLabel", "it would be nsenter's, and not the program's")
	}
	if n.cfg.Landlock != nil {
		cannot("Landlock", "util-linux has no rules for paths of the container")
	}
	if n.cfg.DieWithParent {
		cannot("DieWithParent", "nsenter's child would not get the signal")
	}
	if override(n.proc.Scheduler, n.cfg.Scheduler) != nil {
		cannot("Scheduler", "is not set by nsenter")
	}
	if override(n.proc.IOPriority, n.cfg.IOPriority) != nil {
		cannot("IOPriority", "is not set by nsenter")
	}
	if override(n.proc.Personality, n.cfg.Personality) != nil {
		cannot("Personality", "is not set by nsenter")
	}
	if override(n.proc.OomScoreAdj, n.cfg.OomScoreAdj) != nil {
		cannot("OomScoreAdj", "is not set by nsenter")
	}
	if n.proc.CPUAffinity+n.cfg.CPUAffinity != "" {
		cannot("CPUAffinity", "is not set by nsenter")
	}
	umask := uint32(0o022)
	if u := override(n.proc.Umask, n.cfg.Umask); u != nil {
		umask = *u
	}
	if own, err := ownUmask(); err != nil || own != umask {
		cannot("Umask", fmt.Sprintf("is %#o, and the caller's %#o; nsenter keeps the caller's", umask, own))
	}
	for _, entry := range n.env {
		name, value, _ := strings.Cut(entry, "=")
		if hostActsOn(name) {
			cannot("Env", fmt.Sprintf("%.100q would be acted on by programs of the host", name))
		}
		if name == "PATH" && !strings.Contains(n.proc.Args[0], "/") && slices.ContainsFunc(filepath.SplitList(value), func(dir string) bool { return !path.IsAbs(dir) }) {
			cannot("Env", "PATH has entries that are not absolute")
		}
	}
	return errs.join()
}

// hostActsOn tells whether the C library or the loader acts on a variable, those that it drops for setuid
// programs: here they come from an image, and the programs that would see them are the host's.
func hostActsOn(name string) bool {
	for _, prefix := range []string{"LD_", "MALLOC_", "GLIBC_", "GCONV_", "LOC", "NLS", "RES", "TZ", "LIBC_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"GETCONF_DIR", "HOSTALIASES", "NIS_PATH", "TMPDIR", "PCPROFILE_OUTPUT", "LANGUAGE"}, name)
}

// ownStatus is a field of the caller's /proc/self/status, or "".
func ownStatus(field string) string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return ""
	}
	return statusField(string(text), field)
}

// ownUmask is the caller's umask, which the kernel tells without its being changed.
func ownUmask() (mask uint32, err error) {
	_, err = fmt.Sscanf(ownStatus("Umask"), "%o", &mask)
	return mask, err
}

// command is the command line. The namespaces and the directory are passed as descriptors of ours, which
// nsenter opens before it enters: a number of a process may be another's by then, and a path the container's.
func (n *nsenter) command() ([]string, error) {
	if err := n.lookup(); err != nil {
		return nil, err
	}
	var args []string
	var starts []int // of each program's command line
	tool := func(name string, options ...string) error {
		path := hostTool(name)
		if path == "" {
			return &Error{Op: "exec", Path: name, Err: ErrUnsupported, Remedy: "install util-linux"}
		}
		args = append(append(args, path), options...)
		exe, err := os.Stat(path)
		n.tools = append(n.tools, exe)
		starts = append(starts, len(args)-len(options)-1)
		return err
	}
	limits := n.cfg.Rlimits
	if len(n.proc.Rlimits) > 0 {
		limits = n.proc.Rlimits
	}
	if len(limits) > 0 {
		var options []string
		for _, r := range limits {
			name := strings.TrimPrefix(strings.ToLower(r.Type), "rlimit_")
			options = append(options, fmt.Sprintf("--%s=%d:%d", name, r.Soft, r.Hard))
		}
		if err := tool("prlimit", options...); err != nil {
			return nil, err
		}
	}
	var privileges []string
	if n.noNewPrivileges() {
		privileges = append(privileges, "--no-new-privs")
	}
	if n.canSetgroups() {
		var groups []string
		for _, gid := range n.user.groups {
			host, _ := n.hostGid(gid) // resolveUser has seen that it is mapped
			groups = append(groups, fmt.Sprint(host))
		}
		privileges = append(privileges, "--groups="+strings.Join(groups, ","))
	}
	if len(privileges) > 0 {
		if err := tool("setpriv", privileges...); err != nil {
			return nil, err
		}
	}
	options, err := n.namespaces()
	if err != nil {
		return nil, err
	}
	if err := tool("nsenter", options...); err != nil {
		return nil, err
	}
	args = append(append(args, "--"), n.proc.Args...)
	for _, i := range starts {
		line := strings.Join(args[i:], "\x00") + "\x00"
		n.lines = append(n.lines, line[:min(len(line), commandLineSize)])
	}
	exe, err := os.Stat("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	n.tools, n.lines = append(n.tools, exe), append(n.lines, commandLine(os.Getpid()))
	return args, nil
}

// namespaces are nsenter's options.
func (n *nsenter) namespaces() ([]string, error) {
	own := func(f *os.File) string {
		n.files = append(n.files, f)
		return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	}
	options := []string{"--preserve-credentials"}
	for _, k := range namespaceKinds {
		if n.into.flags&k.flag == 0 {
			continue
		}
		f, err := os.Open(namespacePath(n.into.pid, k.kind))
		if err != nil {
			return nil, err
		}
		name := string(k.kind)
		if k.kind == MountNamespace {
			name = "mount"
		}
		options = append(options, "--"+name+"="+own(f))
	}
	cwd := path.Clean("/" + n.proc.Cwd)
	fd, err := n.into.root.open(cwd, true)
	if err != nil {
		return nil, &Error{Op: "working directory", Path: cwd, Err: err}
	}
	options = append(options, "--wd="+own(os.NewFile(uintptr(fd), cwd)))
	if unix.PidfdSendSignal(int(n.into.process.Fd()), 0, nil, 0) == unix.ESRCH {
		return nil, ErrNotRunning // and what has been opened may be another's
	}
	return options, nil
}

// lookup sees that there is an executable, which nsenter would only complain about.
func (n *nsenter) lookup() error {
	reason := ErrNotFound
	for _, name := range n.candidates() {
		if !path.IsAbs(name) {
			name = path.Join("/", n.proc.Cwd, name)
		}
		fd, err := n.into.root.open(name, true)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return nil
		}
		reason = ErrNotExecutable
	}
	return &Error{Op: "execute", Path: n.proc.Args[0], Err: reason}
}

// handOver returns the process. In a PID namespace it is nsenter's child: nsenter waits for it and ends as
// it does.
func (n *nsenter) handOver(ctx context.Context, pid int) (*started, error) {
	fd, err := unix.PidfdOpen(pid, 0) // nobody else waits for it, so the number is its own
	if err != nil {
		if child, ferr := os.FindProcess(pid); ferr == nil {
			child.Kill()
			child.Wait()
		}
		return nil, &Error{Op: "start", Err: os.NewSyscallError("pidfd_open", err)}
	}
	outer, err := newLiveProcess(pid, fd)
	if err != nil {
		return nil, &Error{Op: "start", Err: err}
	}
	// Until nsenter has entered, it opens descriptors of ours.
	for ; !waitPidfdNow(outer.pidfd); time.Sleep(200 * time.Microsecond) {
		if err := ctx.Err(); err != nil {
			childOf(pid).kill()
			outer.signal(unix.SIGKILL)
			outer.reap()
			outer.pidfd.Close()
			return nil, &Error{Op: "start", Err: err}
		}
		if !n.forks() {
			if n.entered(pid) {
				break
			}
			continue
		}
		if child := childOf(pid); child.pid != 0 {
			if pidfd, err := (processID{child.pid, child.start}).open(); err == nil {
				return &started{&liveProcess{
					pid: child.pid, pidfd: pidfd, outer: outer,
					done: make(chan struct{}), ended: make(chan struct{}), kept: make(chan struct{}),
				}, func() {}}, nil
			}
		}
	}
	return &started{outer, func() {}}, nil // if it has ended, it has as the program has
}

// entered tells whether the program has been executed. Neither of the two signs is enough: what the container executes may be one of the
// tools, or our own program; and a command line can be changed to another. On Linux 6.1 a process still has our executable when the pipe
// has been closed that syscall.ForkExec waits for.
func (n *nsenter) entered(pid int) bool {
	if line := commandLine(pid); line != "" && !slices.Contains(n.lines, line) {
		return true
	}
	// It is one of the tools, or is in the middle of execve(2), or has ended.
	exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && !slices.ContainsFunc(n.tools, func(tool os.FileInfo) bool { return os.SameFile(exe, tool) })
}

// commandLineSize is how much of a command line is looked at: nsenter's options are in it.
const commandLineSize = 4096

// commandLine is the beginning of that of a process, or "". Everybody may read it.
func commandLine(pid int) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	line := make([]byte, commandLineSize)
	size, _ := f.Read(line) // once: the rest of it could be another program's
	return string(line[:max(size, 0)])
}

// waitPidfdNow tells whether a process has ended.
func waitPidfdNow(pidfd *os.File) bool {
	ended := false
	conn, err := pidfd.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			ended = n > 0
		})
	}
	return ended || err != nil
}

// reapOuter waits for the parent, which is ours, of a process that is not.
func (l *liveProcess) reapOuter() error {
	err := l.outer.reap()
	l.outer.pidfd.Close()
	l.status, l.rusage, l.end = l.outer.status, l.outer.rusage, l.outer.end
	return err
}

// hostTool finds a program of the host's in the directories for them, whatever the caller's PATH says.
func hostTool(name string) string {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
		if info, err := os.Stat(dir + "/" + name); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return dir + "/" + name
		}
	}
	return ""
}

// childOf is the oldest child of a process; its number is 0 if there is none.
func childOf(parent int) (oldest procEntry) {
	all, _ := procEntries()
	for _, p := range all {
		if p.parent == parent && (oldest.pid == 0 || p.start < oldest.start || p.start == oldest.start && p.pid < oldest.pid) {
			oldest = p
		}
	}
	return oldest
}
