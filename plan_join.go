//go:build linux

package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file holds the order in which another process gets into a running container: the table, what
// must be known of the container, and the steps that a start does not have. It runs in the caller's
// process.

// joinSteps is the start of another process in a container.
var joinSteps = slices.Concat([]step{
	{"cgroup", (*plan).stepAdopt, "who is not born in the container's cgroup does nothing outside of it"},
	{"oom score", (*plan).stepOOMScore, "while /proc/self is ours, and with the caller's rights"},
	{"not dumpable", (*plan).stepNotDumpable, "before the first namespace: no process of the container may look into this one (CVE-2016-9962)"},
	{"enter", (*plan).stepEnter, "all namespaces in one call, by the first process's pidfd: the user namespace gives the right to the rest"},
	{"fork", (*plan).stepFork, "only a child is in the PID namespace"},
	{"parent death", (*plan).stepParentDeath, "the signal is lost in fork, so after it"},
	{"session", (*plan).stepSession, "a new session has no controlling terminal to push input into (CVE-2017-5226)"},
	{"signals", (*plan).stepSignals, "those which the caller ignores are no business of the program's; in a session of its own it gets none of the caller's terminal"},
	{"label of keys", (*plan).stepKeyLabel, "so that the keyring which comes next has it"},
	{"keyring", (*plan).stepKeyring, "the caller's session keyring must not be searchable from inside"},
	{"own label of keys", (*plan).stepOwnKeyLabel, "for nothing but that keyring"},
	{"placed", (*plan).stepPlaced, "where the process is it stays; the caller looks while we go on"},
	{"root", (*plan).stepOpenRoot, "of the mount namespace; what the first process has made of its own root does not count"},
	{"console", (*plan).stepJoinConsole, "a terminal of the container's devpts, which is known by its type: others have been here"},
	{"working directory", (*plan).stepWorkdir, "made if missing; kept as a descriptor, below the root (CVE-2024-21626)"},
}, processSteps, []step{
	{"verified", (*plan).stepVerified, "the caller has seen from outside that it is all as asked for, before the program runs"},
	{"seccomp agent", (*plan).stepAgent, "what it is told has the process's number, which the caller knows"},
	{"close", (*plan).stepClose, "all but the streams, the extra files and the socket, which goes with execve"},
	{"terminal", (*plan).takeTerminal, "by the process that executes the program, which gets its signals"},
	{"seccomp", (*plan).stepSeccomp, "last, so that the filter need not allow any of the above"},
	{"execute", (*plan).stepExecute, "the socket closes: the parent knows that it worked"},
})

// A target is a running container as the kernel shows it, seen through its first process. All of it
// has been read while that process was alive, so none of it is another's.
type target struct {
	pid       int
	process   *os.File // pidfd
	flags     uintptr  // CLONE_NEW* of the namespaces that are not the caller's
	uidMaps   []IDMap  // of its user namespace, if that is not the caller's
	gidMaps   []IDMap
	setgroups bool // allowed in that user namespace
	birth
	root *rootView
}

// openTarget looks at the container's first process. It takes ownership of pidfd.
func openTarget(pid int, pidfd *os.File) (*target, error) {
	t := &target{pid: pid, process: pidfd, setgroups: true}
	if err := t.look(); err != nil {
		defer t.close()
		return nil, t.explain(err, true)
	}
	return t, nil
}

func (t *target) look() (err error) {
	if t.flags, err = otherNamespaces(t.pid); err != nil {
		return err
	}
	if t.flags&unix.CLONE_NEWUSER != 0 {
		if err := t.readMaps(); err != nil {
			return err
		}
	}
	if t.root, err = openRootOf(t.pid); err != nil {
		return err
	}
	// As long as it is there, if only as a zombie, its number is not another's.
	if unix.PidfdSendSignal(int(t.process.Fd()), 0, nil, 0) == unix.ESRCH {
		return ErrNotRunning
	}
	return nil
}

// openRootOf opens the root of a process. Nothing that is read there leads out of it.
func openRootOf(pid int) (*rootView, error) {
	path := fmt.Sprintf("/proc/%d/root", pid)
	fd, err := openRetry(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &rootView{layers: []int{fd}}, nil
}

// ended tells whether the process has ended, or does so in that time. One that is about to end has no namespaces any more, and a
// moment later is dead; the first one of a PID namespace only when all others there have been reaped, which it is given more time for.
func (t *target) ended(patience time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(t.process.Fd()), Events: unix.POLLIN}}
	began := time.Now()
	for deadline := began.Add(patience); ; {
		n, err := unix.Poll(fds, max(0, int(time.Until(deadline).Milliseconds()))) // a negative time is for ever
		switch {
		case err == unix.EINTR:
		case n == 0 && patience > 0 && time.Since(began) < killPatience && dies(t.pid):
			deadline = time.Now().Add(patience)
		default:
			return n > 0
		}
	}
}

func (t *target) close() {
	t.process.Close()
	t.birth.close()
	if t.root != nil {
		t.root.close()
	}
}

// otherNamespaces are the kinds of namespaces that a process does not share with the caller.
func otherNamespaces(pid int) (flags uintptr, err error) {
	for _, k := range namespaceKinds {
		var own, its unix.Stat_t
		if unix.Stat("/proc/self/ns/"+string(k.kind), &own) == unix.ENOENT {
			continue // not in this kernel
		}
		path := namespacePath(pid, k.kind)
		if err := unix.Stat(path, &its); err != nil {
			return 0, &Error{Op: "namespaces", Path: path, Err: err, Remedy: "only root, and the user who has started the container, may enter it"}
		}
		if own.Ino != its.Ino || own.Dev != its.Dev {
			flags |= k.flag
		}
	}
	return flags, nil
}

// readMaps reads the maps of the user namespace, and whether groups may be set in it.
func (t *target) readMaps() (err error) {
	file := func(name string) string { return fmt.Sprintf("/proc/%d/%s", t.pid, name) }
	if t.uidMaps, err = readIDMap(file("uid_map")); err != nil {
		return err
	}
	if t.gidMaps, err = readIDMap(file("gid_map")); err != nil {
		return err
	}
	text, err := os.ReadFile(file("setgroups"))
	t.setgroups = strings.TrimSpace(string(text)) != "deny"
	return err
}

// readIDMap reads a map as /proc/PID/uid_map shows it to the caller.
func readIDMap(file string) ([]IDMap, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseIDMap(f)
}

func parseIDMap(r io.Reader) (maps []IDMap, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var inside, outside, size int64
		if n, _ := fmt.Sscan(lines.Text(), &inside, &outside, &size); n == 3 {
			maps = append(maps, IDMap{ContainerID: int(inside), HostID: int(outside), Size: int(min(size, math.MaxInt))})
		}
	}
	return maps, lines.Err()
}

// newJoinPlan is newPlan for another process in a running container.
func newJoinPlan(cfg *Config, proc *Process, stdio stdioFiles, t *target) (*plan, error) {
	its := *cfg
	its.Detached, its.Init, its.Root = false, false, Root{} // matters of the first process
	pl := &plan{cfg: &its, proc: proc, log: cfg.logger(), stdio: stdio, into: t, staged: true}
	pl.adopt = t.adopt
	if t.flags&unix.CLONE_NEWUSER != 0 {
		pl.userns, pl.uidMaps, pl.gidMaps = usernsEntered, t.uidMaps, t.gidMaps
	}
	if err := pl.resolveProcess(); err != nil {
		return nil, err
	}
	if err := pl.compile(joinSteps); err != nil {
		pl.listener.close()
		return nil, err
	}
	return pl, nil
}

// stepEnter enters the namespaces. A kind that the container shares with the caller is left out: the
// caller is there, and for its own user namespace the kernel says EINVAL.
func (pl *plan) stepEnter() error {
	pl.Call(unix.SYS_UMASK, 0) // modes of what is made are exact; the process's own comes with the limits
	if pl.into.flags == 0 {
		return nil
	}
	pl.Step("enter namespaces", kindsOf(pl.into.flags))
	pl.Call(unix.SYS_SETNS, pl.File(pl.into.process), launch.Arg(pl.into.flags))
	if pl.into.flags&unix.CLONE_NEWUSER != 0 {
		pl.becomeRoot()
	}
	return nil
}

// kindsOf names the kinds of namespaces in flags.
func kindsOf(flags uintptr) string {
	var list []string
	for _, k := range namespaceKinds {
		if flags&k.flag != 0 {
			list = append(list, string(k.kind))
		}
	}
	return strings.Join(list, " ")
}

// stepOpenRoot opens the root and stands in it: without a mount namespace to enter, the working
// directory would be the caller's.
func (pl *plan) stepOpenRoot() error {
	pl.root = pl.open(cwdFD, "/", unix.O_PATH|unix.O_DIRECTORY, 0, 0).Result()
	pl.Call(unix.SYS_FCHDIR, pl.root)
	return nil
}

// joinAttr lets the process be born in the container's cgroup.
func (pl *plan) joinAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{}
	if dir := pl.into.cgroup; dir != nil && pl.adopt == nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	return attr
}

// explain says of an error whether it is the container's end, or its cgroup. It waits for an end that is
// likely.
func (t *target) explain(err error, likely bool) error {
	var e *Error
	patience := time.Duration(0)
	if errors.As(err, &e) && (e.Op == "enter namespaces" || e.Op == "fork") || errors.Is(err, launch.ErrDied) || likely {
		patience = time.Second
	}
	switch {
	case t.ended(patience):
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	case t.cgroup != nil && e != nil && e.Op == "start" && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY)):
		e.Op, e.Path = "cgroup", t.cgroup.Name()
		e.Remedy = "the process must be born in the container's cgroup, and the caller may not move processes there: run as root, or in a cgroup that is delegated to the caller and has both"
	}
	return err
}
