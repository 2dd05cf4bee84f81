//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file finds all processes of a container. It runs in the caller's process and reads its /proc.
//
// With a PID namespace of the container's own, they are those in it, and all end with the first. Without
// one they are those in another of its namespaces; they may live on when the first has ended.

// marked tells whether the launcher notes the mount namespace that the container's processes are in.
func (n Namespaces) marked() bool { return !n.NewPID && n.NewMnt }

// mountNamespaceID is the number of a process's mount namespace, which unlike an inode number is never used
// again; 0 before Linux 6.11. See ioctl_nsfs(2). Without it, processes that outlive the first are not known.
func mountNamespaceID(pid int) (uint64, error) {
	fd, err := openRetry(func() (int, error) {
		return unix.Open(namespacePath(pid, MountNamespace), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	for _, thread := range otherThreads(pid, err) {
		if fd, err = unix.Open(thread+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			break
		}
	}
	if err != nil {
		return 0, onlyScarce(err)
	}
	defer unix.Close(fd)
	id, err := ioctlGetUint64(fd, unix.NS_GET_MNTNS_ID)
	if err != nil {
		return 0, nil
	}
	return id, nil
}

// known is the kind of namespace by which the container's processes are found while the first is alive;
// empty if it has none of its own.
func (n Namespaces) known() NamespaceKind {
	for _, kind := range []NamespaceKind{PIDNamespace, MountNamespace, NetworkNamespace, IPCNamespace, UTSNamespace, CgroupNamespace, UserNamespace} {
		if n.isNew(kind) {
			return kind
		}
	}
	return ""
}

// A procEntry is a process of /proc.
type procEntry struct {
	pid, parent int
	start       uint64
}

// procEntries lists the processes of the caller's PID namespace, but for those that have ended.
func procEntries() ([]procEntry, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []procEntry
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if scarce(err) {
			return nil, err
		}
		if err != nil {
			continue // it has ended
		}
		if parent, start := parseStat(string(stat)); start != 0 {
			list = append(list, procEntry{pid, parent, start})
		}
	}
	return list, nil
}

// members are the processes of a container, the first one in front. A process that has ended but has not been
// waited for is none.
func (st *stored) members(ns *Namespaces) ([]procEntry, error) {
	all, err := procEntries()
	if err != nil {
		return nil, err
	}
	kind, name := ns.known(), ""
	if st.Pid != 0 && kind != "" {
		name = namespaceOf(st.Pid, kind)
		// If the number is another's by now, that is the name of a namespace of the host's.
		if start, err := startTime(st.Pid); err != nil || start != st.StartTime {
			name = ""
		}
	}
	in := make(map[int]bool)
	started := make(map[int]uint64, len(all))
	for _, p := range all {
		started[p.pid] = p.start
		switch {
		case p.pid == st.Pid && p.start == st.StartTime:
			in[p.pid] = true
		case name != "":
			in[p.pid] = namespaceOf(p.pid, kind) == name
		case st.MountNamespaceID != 0:
			id, err := mountNamespaceID(p.pid)
			if err != nil {
				return nil, err
			}
			in[p.pid] = id == st.MountNamespaceID
		}
	}
	for grown := true; grown; { // those that have made namespaces of their own
		grown = false
		for _, p := range all {
			// A parent that is younger has the number of the true one.
			if !in[p.pid] && in[p.parent] && started[p.parent] <= p.start {
				in[p.pid], grown = true, true
			}
		}
	}
	list := slices.DeleteFunc(all, func(p procEntry) bool { return !in[p.pid] })
	slices.SortFunc(list, func(a, b procEntry) int {
		switch {
		case a.pid == st.Pid:
			return -1
		case b.pid == st.Pid:
			return 1
		}
		return a.pid - b.pid
	})
	return list, nil
}

// Processes returns the numbers of the container's processes in the caller's PID namespace, the first process
// in front. It returns an empty list if there are none.
//
// Without a PID namespace of the container's own, the processes are those in another namespace of its own and
// their descendants: one that leaves all of these cannot be told from others. Those that outlive the first
// process are known since Linux 6.11 only.
func (c *Container) Processes() ([]int, error) {
	st, err := c.state()
	if err != nil {
		return nil, &Error{Op: "processes", ID: c.id, Err: err}
	}
	list, err := st.members(&c.cfg.Namespaces)
	if err != nil {
		return nil, &Error{Op: "processes", ID: c.id, Err: err}
	}
	pids := make([]int, len(list))
	for i, p := range list {
		pids[i] = p.pid
	}
	return pids, nil
}

// SignalAll sends a signal to all processes of the container. It returns ErrNotRunning if there are none.
// One that is started at the same time may be missed; SIGKILL is sent until there are none left.
func (c *Container) SignalAll(sig syscall.Signal) error {
	st, err := c.state()
	if err == nil && st.Status == StatusCreating {
		err = ErrNotRunning
	}
	if err == nil {
		err = c.signalAll(context.Background(), st, sig)
	}
	if err != nil {
		return &Error{Op: "signal all", ID: c.id, Path: signalName(sig), Err: err}
	}
	return nil
}

func (c *Container) signalAll(ctx context.Context, st *stored, sig syscall.Signal) error {
	list, err := st.members(&c.cfg.Namespaces)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return ErrNotRunning
	}
	if sig == unix.SIGKILL {
		return c.killAll(ctx, st)
	}
	for _, p := range list {
		if err := p.signal(sig); err != nil {
			return err
		}
	}
	return nil
}

// killPatience bounds the time until the kernel has ended what was killed. It is much when a process
// writes its memory out, or waits for a device.
const killPatience = 10 * time.Second

// killAll kills all processes of the container and waits until there are none.
func (c *Container) killAll(ctx context.Context, st *stored) error {
	if err := st.killCgroup(ctx); err != nil {
		return err
	}
	if st.MountNamespaceID == 0 && (c.cfg.Namespaces.NewPID || c.damage != nil || st.Pid == 0) {
		return st.first().kill() // all end with it, or nothing tells of others
	}
	deadline := time.Now().Add(killPatience)
	var empty time.Time // since when none was found
	for {
		list, err := st.members(&c.cfg.Namespaces)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			// A list is not of one moment: a process that ended may have made another behind our back. And the
			// launcher of an Exec, which is soon done, cannot be looked into by an ordinary user.
			hidden, err := launcherHidden()
			if err != nil || !empty.IsZero() && (!hidden || time.Since(empty) > time.Second) {
				return err
			}
			if empty.IsZero() {
				empty = time.Now()
			}
			if hidden {
				time.Sleep(time.Millisecond)
			}
			continue
		}
		empty = time.Time{}
		for _, p := range list {
			if err := p.signal(unix.SIGKILL); err != nil {
				return err
			}
		}
		if _, err := list[0].wait(20 * time.Millisecond); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errNoEnd
		}
	}
}

// killCgroup kills all processes in the container's cgroup, whatever namespaces they are in, and waits until there are
// none.
func (st *stored) killCgroup(ctx context.Context) error {
	g, err := st.openCgroup()
	if errors.Is(err, ErrNoCgroup) {
		return nil
	}
	if err != nil {
		return err
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	if err := g.killWait(ctx); !errors.Is(err, ErrNotExist) {
		return err
	}
	return nil
}

// launcherHidden tells whether there is a launcher whose namespaces the caller may not see.
func launcherHidden() (bool, error) {
	all, err := procEntries()
	for _, p := range all {
		if _, err := os.Readlink(namespacePath(p.pid, MountNamespace)); errors.Is(err, fs.ErrPermission) {
			if comm, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/comm"); string(comm) == launch.ProcessName+"\n" {
				return true, nil
			}
		}
	}
	return false, err
}

var errNoEnd = errors.New("the process does not end, although it was killed")

// open opens the process, if it still is the one that was listed.
func (p procEntry) open() (pidfd int, err error) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return -1, err
	}
	if start, err := startTime(p.pid); err != nil || start != p.start {
		unix.Close(fd)
		return -1, cmp.Or(err, error(unix.ESRCH))
	}
	return fd, nil
}

func (p procEntry) signal(sig syscall.Signal) error {
	fd, err := p.open()
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
		unix.Close(fd)
	}
	if err == unix.ESRCH || err == unix.EINVAL { // it has ended meanwhile; EINVAL: the number is a thread's by now
		return nil
	}
	return err
}

// wait waits for the end of the process, but not for long. It returns whether it has ended.
func (p procEntry) wait(d time.Duration) (ended bool, err error) {
	fd, err := p.open()
	if err != nil {
		return true, onlyScarce(err)
	}
	defer unix.Close(fd)
	for deadline := time.Now().Add(d); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, max(0, int(time.Until(deadline).Milliseconds())))
		if err != unix.EINTR {
			return n > 0, nil
		}
	}
}

// kill ends the process, if there is one, and waits until it has ended.
func (p procEntry) kill() error {
	if p.pid == 0 {
		return nil
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	ended, err := p.wait(killPatience)
	if err == nil && !ended {
		err = errNoEnd
	}
	return err
}

// first is the first process; its number is 0 if it has ended.
func (st *stored) first() procEntry { return procEntry{pid: st.Pid, start: st.StartTime} }

// killChildren kills the children of a process that is the caller's own child.
func killChildren(parent int) {
	all, _ := procEntries()
	for _, p := range all {
		if p.parent == parent {
			p.signal(unix.SIGKILL)
		}
	}
}

// namespaceOf names the namespace that a process is in; empty if it has ended.
func namespaceOf(pid int, kind NamespaceKind) string {
	name, err := os.Readlink(namespacePath(pid, kind))
	for _, thread := range otherThreads(pid, err) {
		if name, err = os.Readlink(thread + "/ns/" + string(kind)); err == nil {
			break
		}
	}
	return name
}

// otherThreads are the directories of a process's threads, if there is no such thing as was asked for in the
// process's own: its first thread has left its namespaces when it has ended, and the others run on.
func otherThreads(pid int, err error) []string {
	if !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	task := "/proc/" + strconv.Itoa(pid) + "/task"
	entries, _ := os.ReadDir(task)
	var list []string
	for _, e := range entries {
		list = append(list, task+"/"+e.Name())
	}
	return list
}

func namespacePath(pid int, kind NamespaceKind) string {
	return "/proc/" + strconv.Itoa(pid) + "/ns/" + string(kind)
}

// namespacePaths are the namespaces of a process.
func namespacePaths(pid int) map[NamespaceKind]string {
	paths := make(map[NamespaceKind]string, len(namespaceKinds))
	for _, k := range namespaceKinds {
		paths[k.kind] = namespacePath(pid, k.kind)
	}
	return paths
}
