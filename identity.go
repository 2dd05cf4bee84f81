//go:build linux

package container

import (
	"os"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns who the process is and what it may do into steps of the plan: limits, user,
// groups, capabilities. It runs in the caller's process.

func (pl *plan) noNewPrivileges() bool {
	return *override(pl.proc.NoNewPrivileges, &pl.cfg.NoNewPrivileges)
}

// stepStreams gives pipes of ours to the user: without that /dev/stdout could not be opened by its
// name. Files and terminals of the caller stay as they are. With Tty there is a terminal for all three.
func (pl *plan) stepStreams() error {
	if pl.proc.Tty {
		pl.takeStreams()
		return nil
	}
	for i, f := range pl.stdio {
		if f != nil && isPipe(f) {
			pl.Call(unix.SYS_FCHOWN, launch.Arg(i), launch.Arg(pl.user.uid), launch.Arg(pl.user.gid)).Ignore(unix.EPERM, unix.EINVAL)
		}
	}
	return nil
}

// isPipe tells a pipe from a FIFO, which is a file of somebody's.
func isPipe(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Type == unix.PIPEFS_MAGIC
}

func (pl *plan) stepLimits() error {
	limits := pl.cfg.Rlimits
	if len(pl.proc.Rlimits) > 0 {
		limits = pl.proc.Rlimits
	}
	for _, r := range limits {
		resource, err := r.resource()
		if err != nil {
			return err
		}
		pl.Step("rlimit", r.Type)
		pl.Call(unix.SYS_PRLIMIT64, 0, launch.Arg(resource), pl.words64(r.Soft, r.Hard))
	}

	umask := uint32(0o022)
	if u := override(pl.proc.Umask, pl.cfg.Umask); u != nil {
		umask = *u
	}
	pl.Call(unix.SYS_UMASK, launch.Arg(umask))

	if s := override(pl.proc.Scheduler, pl.cfg.Scheduler); s != nil {
		attr, err := s.attr()
		if err != nil {
			return err
		}
		pl.Step("scheduler", s.Policy)
		pl.Call(unix.SYS_SCHED_SETATTR, 0, pl.Bytes(attr))
	}
	if p := override(pl.proc.IOPriority, pl.cfg.IOPriority); p != nil {
		v, err := p.value()
		if err != nil {
			return err
		}
		pl.Step("I/O priority", p.Class)
		const whoProcess = 1
		pl.Call(unix.SYS_IOPRIO_SET, whoProcess, 0, launch.Arg(v))
	}
	cpus := pl.cfg.CPUAffinity
	if pl.proc.CPUAffinity != "" {
		cpus = pl.proc.CPUAffinity
	}
	if cpus != "" {
		mask, err := parseCPUList(cpus)
		if err != nil {
			return err
		}
		pl.Step("CPU affinity", cpus)
		pl.Call(unix.SYS_SCHED_SETAFFINITY, 0, launch.Arg(len(mask)), pl.Bytes(mask))
	}
	if p := override(pl.proc.Personality, pl.cfg.Personality); p != nil {
		v, err := p.value()
		if err != nil {
			return err
		}
		pl.Step("personality", p.Domain)
		pl.Call(unix.SYS_PERSONALITY, launch.Arg(v))
	}
	return nil
}

// words64 is the address of 64-bit numbers of which any bit may be set.
func (e emitter) words64(words ...uint64) launch.Arg {
	var list []uint32
	for _, w := range words {
		list = append(list, uint32(w), uint32(w>>32))
	}
	return e.struct32(list...)
}

func (pl *plan) stepNoNewPrivileges() error {
	if pl.noNewPrivileges() {
		pl.Call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	return nil
}

// stepBounding drops from the bounding set what is not asked for.
func (pl *plan) stepBounding() error {
	for c := 0; c <= lastCap(); c++ {
		if pl.caps.bounding&(1<<c) == 0 {
			pl.Call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, launch.Arg(c))
		}
	}
	return nil
}

// stepUser changes the groups, the group and the user.
func (pl *plan) stepUser() error {
	if pl.canSetgroups() {
		pl.Step("groups", "")
		set := pl.Call(unix.SYS_SETGROUPS, launch.Arg(len(pl.user.groups)), pl.struct32(pl.user.groups...))
		if pl.userns == usernsJoined && len(pl.user.groups) == 1 {
			set.Ignore(unix.EPERM) // who made it gave setgroups up, as an ordinary user must
		}
	}
	pl.Step("user", pl.proc.User)
	if pl.user.uid != 0 {
		pl.Call(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	}
	uid, gid := launch.Arg(pl.user.uid), launch.Arg(pl.user.gid)
	pl.Call(unix.SYS_SETRESGID, gid, gid, gid)
	pl.Call(unix.SYS_SETRESUID, uid, uid, uid)
	// The kernel has reset both with the change of the user.
	pl.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	if pl.cfg.DieWithParent {
		pl.dieWithParent()
	}
	return nil
}

// canSetgroups: a user who maps ids without help of the setuid programs gave it up, as the kernel
// demands; see user_namespaces(7).
func (pl *plan) canSetgroups() bool {
	if pl.userns == usernsEntered {
		return pl.into.setgroups
	}
	return !setgroupsDenied() && pl.userns != usernsSelf && !(pl.userns == usernsClone && !pl.needsHelpers())
}

// stepCapabilities sets the five sets.
func (pl *plan) stepCapabilities() error {
	if pl.keepsAdmin() {
		// Whoever does not have it learns what it was for from seccomp(2).
		without, set := pl.Label(), pl.Label()
		c := pl.launcherCaps()
		c.effective |= 1 << unix.CAP_SYS_ADMIN
		c.permitted |= 1 << unix.CAP_SYS_ADMIN
		pl.capset(c).On(unix.EPERM, without).Then(set)
		pl.Here(without)
		pl.capset(pl.launcherCaps())
		pl.Here(set)
	} else {
		pl.capset(pl.launcherCaps())
	}
	pl.Call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	for n := 0; n <= lastCap(); n++ {
		if pl.caps.ambient&(1<<n) != 0 {
			pl.Call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, launch.Arg(n))
		}
	}
	return nil
}

// launcherCaps are the sets for the steps that are left. Of a user other than root the effective set is what the
// program will have, the ambient one, so that they may no more than it may.
func (pl *plan) launcherCaps() capSets {
	c := pl.caps
	if pl.user.uid != 0 {
		c.effective = c.ambient
	}
	return c
}

// capset sets the effective, permitted and inheritable sets.
func (pl *plan) capset(c capSets) launch.Op {
	const version3 = 0x20080522
	header := pl.struct32(version3, 0)
	low, high := func(s uint64) uint32 { return uint32(s) }, func(s uint64) uint32 { return uint32(s >> 32) }
	data := pl.struct32(low(c.effective), low(c.permitted), low(c.inheritable),
		high(c.effective), high(c.permitted), high(c.inheritable))
	return pl.Call(unix.SYS_CAPSET, header, data)
}
