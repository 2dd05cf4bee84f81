//go:build linux

package container

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns Namespaces into steps of the plan. It runs in the caller's process.

// usernsMode is the way into the user namespace.
type usernsMode int

const (
	usernsNone    usernsMode = iota
	usernsJoined             // setns
	usernsSelf               // the launcher unshares and maps its own single id
	usernsParent             // the launcher unshares and waits; the parent writes the maps
	usernsKept               // setns to a mapped one that this process keeps open: no newuidmap again
	usernsEntered            // setns, with the container's other namespaces
	usernsClone              // os/exec clones into it, since the permission belongs to the caller's binary
)

// stepJoin joins namespaces by path. The files are opened in the caller's process, once.
func (pl *plan) stepJoin() error {
	pl.Call(unix.SYS_UMASK, 0) // modes of what is made are exact; the process's own comes with the limits
	ns := &pl.cfg.Namespaces
	if pl.cfg.TimeOffsets != (TimeOffsets{}) {
		// While /proc/self is ours: it is root's when the ids have changed or we are not dumpable.
		pl.Step("clocks", "")
		pl.clocks = pl.open(cwdFD, "/proc/self/timens_offsets", unix.O_WRONLY, 0, 0).Result()
	}
	if len(ns.Join) > 0 {
		pl.stepNotDumpable() // others are there already
	}
	for _, k := range namespaceKinds {
		name := ns.Join[k.kind]
		if name == "" {
			continue
		}
		fd, err := openRetry(func() (int, error) { return unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
		if err != nil {
			return &Error{Op: "join namespace", Path: name, Err: err}
		}
		f := os.NewFile(uintptr(fd), name)
		pl.files = append(pl.files, f)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return &Error{Op: "join namespace", Path: name, Err: err}
		}
		if pl.joined == nil {
			pl.joined = make(map[NamespaceKind]uint64)
		}
		pl.joined[k.kind] = st.Ino
		pl.Step("join namespace", name)
		pl.Call(unix.SYS_SETNS, pl.File(f), launch.Arg(k.flag))
		if k.kind == UserNamespace {
			pl.becomeRoot()
		}
	}
	return nil
}

func (pl *plan) stepUserNamespace() error {
	switch pl.userns {
	case usernsSelf:
		pl.Call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
		// The kernel lets a process without privilege map its own id, and its own group if it
		// gives up setgroups(2); see user_namespaces(7).
		pl.writeFile(cwdFD, "/proc/self/setgroups", 0, "deny")
		pl.writeFile(cwdFD, "/proc/self/uid_map", 0, string(idMapText(pl.uidMaps)))
		pl.writeFile(cwdFD, "/proc/self/gid_map", 0, string(idMapText(pl.gidMaps)))
	case usernsParent, usernsClone:
		if pl.userns == usernsParent {
			pl.Call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
		}
		pl.Send(tagMaps, 0)
		pl.Wait()
		pl.becomeRoot()
	case usernsKept:
		pl.stepNotDumpable() // other containers are in it
		pl.Call(unix.SYS_SETNS, pl.File(pl.keptUserns), unix.CLONE_NEWUSER)
		pl.becomeRoot()
	}
	return nil
}

// becomeRoot takes the ids 0 of the user namespace, if it has them, so that what is made from here
// on belongs to its root.
func (e emitter) becomeRoot() {
	e.Call(unix.SYS_SETRESGID, 0, 0, 0).Ignore(unix.EINVAL)
	e.Call(unix.SYS_SETRESUID, 0, 0, 0).Ignore(unix.EINVAL)
}

func (pl *plan) stepOOMScore() error {
	if adj := override(pl.proc.OomScoreAdj, pl.cfg.OomScoreAdj); adj != nil {
		pl.writeFile(cwdFD, "/proc/self/oom_score_adj", 0, fmt.Sprint(*adj))
	}
	return nil
}

// stepAdopt waits until the caller has had it moved into the container's cgroup, where it cannot be born there.
func (pl *plan) stepAdopt() error {
	if pl.adopt != nil {
		pl.Send(tagAdopt, pl.Call(unix.SYS_GETPID).Result())
		pl.Wait()
	}
	return nil
}

func (pl *plan) stepNotDumpable() error {
	pl.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	return nil
}

// sysProcAttr holds the namespaces that os/exec makes, in one go with the process.
func (pl *plan) sysProcAttr() *syscall.SysProcAttr {
	if pl.into != nil {
		return pl.joinAttr()
	}
	attr := &syscall.SysProcAttr{}
	if pl.cgroup != nil && pl.adopt == nil && !pl.supervised() {
		attr.UseCgroupFD, attr.CgroupFD = true, int(pl.cgroup.Fd())
	}
	switch {
	case pl.userns == usernsClone:
		attr.Cloneflags = unix.CLONE_NEWUSER
		// Without maps the launcher is nobody, who keeps over execve what is ambient and no more.
		for c := 0; c <= lastCap(); c++ {
			attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c))
		}
	case !pl.staged:
		attr.Cloneflags = pl.cfg.Namespaces.CloneFlags() &^ pl.lateNamespaces()
	}
	return attr
}

func (pl *plan) stepNamespaces() error {
	flags := pl.cfg.Namespaces.CloneFlags() &^ (unix.CLONE_NEWUSER | unix.CLONE_NEWTIME)
	if !pl.staged {
		flags &= pl.lateNamespaces()
	}
	if flags != 0 {
		pl.Call(unix.SYS_UNSHARE, launch.Arg(flags))
	}
	return nil
}

// lateNamespaces are those that os/exec cannot make in one go with the process: the root of a cgroup namespace that
// clone(2) makes is the cgroup of the parent, also if the child is born in another.
func (pl *plan) lateNamespaces() uintptr {
	if pl.cfg.ownCgroup() {
		return unix.CLONE_NEWCGROUP
	}
	return 0
}

// forks tells whether only a child of the launcher is in the container's namespaces.
func (pl *plan) forks() bool {
	if pl.into != nil {
		return pl.into.flags&unix.CLONE_NEWPID != 0
	}
	ns := &pl.cfg.Namespaces
	return pl.staged && (ns.NewPID || ns.NewTime || ns.Join[PIDNamespace] != "")
}

// stepFork goes on in a child where only a child is in the namespace. CLONE_PARENT makes it a child
// of the caller, who waits for it; the first process reports its number and is done.
func (pl *plan) stepFork() error {
	if !pl.forks() {
		return nil
	}
	// With a supervisor the caller's place is the supervisor's.
	inner := pl.Label()
	pid := pl.Call(unix.SYS_CLONE, unix.CLONE_PARENT|launch.Arg(unix.SIGCHLD)).Case(0, inner)
	tag := uint32(tagPid)
	if pl.supervised() {
		tag = tagHeld
	}
	pl.Send(tag, pid.Result())
	pl.Exit(0)
	pl.Here(inner)
	if pl.supervised() {
		pl.Wait()
	}
	return nil
}

// stepClocks makes the time namespace. The next child is in it.
func (pl *plan) stepClocks() error {
	if !pl.cfg.Namespaces.NewTime {
		return nil
	}
	pl.Call(unix.SYS_UNSHARE, unix.CLONE_NEWTIME)
	if pl.cfg.TimeOffsets == (TimeOffsets{}) {
		return nil
	}
	var b strings.Builder
	for _, o := range []struct {
		clock  string
		offset int64
	}{{"monotonic", int64(pl.cfg.TimeOffsets.Monotonic)}, {"boottime", int64(pl.cfg.TimeOffsets.Boottime)}} {
		sec, nsec := o.offset/1e9, o.offset%1e9
		if nsec < 0 {
			sec, nsec = sec-1, nsec+1e9
		}
		fmt.Fprintf(&b, "%s %d %d\n", o.clock, sec, nsec)
	}
	pl.Call(unix.SYS_WRITE, pl.clocks, pl.Str(b.String()), launch.Arg(b.Len()))
	pl.close(pl.clocks)
	return nil
}

// stepRecord copies what the kernel says about the process into the container's record, and gives up the
// record's lock. Number and time are those of the caller's procfs, whatever namespaces the process is in.
func (pl *plan) stepRecord() error {
	if pl.intent == nil {
		return nil
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return &Error{Op: "record", Path: "/proc", Err: err}
	}
	pl.files = append(pl.files, proc)
	const enough = 1024
	intent, buf := pl.File(pl.intent), pl.Zero(enough)
	stat := pl.open(pl.File(proc), "self/stat", unix.O_RDONLY, 0, 0).Result()
	n := pl.Call(unix.SYS_READ, stat, buf, enough).Result()
	pl.Call(unix.SYS_WRITE, intent, buf, n)
	pl.close(stat)
	if pl.cfg.Namespaces.marked() {
		ns := pl.open(pl.File(proc), "self/ns/mnt", unix.O_RDONLY, 0, 0).Result()
		id := pl.Zero(8)
		unknown := pl.Label()
		pl.Call(unix.SYS_IOCTL, ns, unix.NS_GET_MNTNS_ID, id).On(unix.ENOTTY, unknown)
		pl.Call(unix.SYS_WRITE, intent, id, 8)
		pl.Here(unknown)
		pl.close(ns)
	}
	pl.close(pl.File(pl.lock)) // whoever destroys the container from now on finds the process
	return nil
}

func (pl *plan) stepParentDeath() error {
	if pl.cfg.DieWithParent {
		pl.dieWithParent()
	}
	return nil
}

// dieWithParent asks for the signal, and then sees whether the parent died before that: then nobody
// holds the other end of the socket.
func (pl *plan) dieWithParent() {
	pl.Call(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, launch.Arg(unix.SIGKILL))
	alive := pl.Label()
	fds := pl.struct32(uint32(pl.SocketFD()), 0) // events 0: POLLHUP is always reported
	now := pl.Words(0, 0)
	pl.Call(unix.SYS_PPOLL, fds, 1, now).Case(0, alive)
	pl.Exit(launch.ExitFailed)
	pl.Here(alive)
}

func (pl *plan) stepSession() error {
	pl.Call(unix.SYS_SETSID) // EPERM, for the leader of a process group, is an error: the terminal would stay
	return nil
}

func (pl *plan) stepKeyring() error {
	if !pl.cfg.HostKeyring {
		// Without a name it is anonymous: nobody can join it. A kernel without keys has none to hide.
		pl.Call(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0).Ignore(unix.ENOSYS)
	}
	return nil
}

// stepLoopback is ip link set lo up.
func (pl *plan) stepLoopback() error {
	if !pl.cfg.Namespaces.NewNet {
		return nil
	}
	var ifreq [40]byte
	copy(ifreq[:], "lo")
	ifreq[unix.IFNAMSIZ] = unix.IFF_UP
	fd := pl.Call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC).Result()
	pl.Call(unix.SYS_IOCTL, fd, unix.SIOCSIFFLAGS, pl.Bytes(ifreq[:]))
	pl.close(fd)
	return nil
}

func (pl *plan) stepHostname() error {
	for _, n := range []struct {
		nr   uint32
		name string
	}{{unix.SYS_SETHOSTNAME, pl.cfg.Hostname}, {unix.SYS_SETDOMAINNAME, pl.cfg.Domainname}} {
		if n.name != "" {
			pl.Call(n.nr, pl.Str(n.name), launch.Arg(len(n.name)))
		}
	}
	return nil
}
