//go:build linux

package container

import (
	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns the profile into steps of the plan. It runs in the caller's process.
//
// The filter is the last before execve, so that it need not allow anything of the launcher's. There are two moments at which
// others may look into the launcher and make calls in its name, before it has that filter: at the gate, and in the reaper, which
// stays. There it gets a wall first: a filter that lets nothing through but what the launcher is going to do from
// there on, with these very arguments, and, at the gate, what the profile lets through anyway.

// stepSeccomp sets the filter.
func (pl *plan) stepSeccomp() error {
	if pl.filter != nil {
		pl.Step("seccomp", "")
		pl.installFilter(pl.filter)
	}
	return nil
}

// keepsAdmin tells whether the launcher needs CAP_SYS_ADMIN to the end: without no_new_privs the kernel takes a filter from
// nobody else. The program does not get it. Execve computes the sets anew: the permitted set of root becomes the bounding and the inheritable
// set, that of others the ambient set, to both of which it is not added, and with what a file brings bounded by the bounding
// set; see capabilities(7). What it could be used for until then is the launcher's program and no more.
func (pl *plan) keepsAdmin() bool { return pl.filter != nil && !pl.noNewPrivileges() }

// lendsAdmin tells whether who may trace any process could so have a capability that nobody in the container is to have. Others can
// trace nobody who has more than they. The launcher stays not dumpable then, and Exec has to wait for the start; see Container.lends.
func (pl *plan) lendsAdmin() bool {
	return pl.keepsAdmin() && pl.caps.tracesOnly()
}

// tracesOnly tells whether a process with these sets can trace others and has no CAP_SYS_ADMIN, which it could so get hold of.
func (c capSets) tracesOnly() bool {
	const admin, ptrace = 1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_SYS_PTRACE
	return c.bounding&(admin|ptrace) == ptrace
}

// A wall is a filter for the launcher that depends on calls which come later in the program.
type wall struct {
	prog     launch.Arg // struct sock_fprog, filled in at the end
	from, to int        // the calls; to is 0 for the end
	profile  bool       // what the profile allows is allowed, too
}

// buildWall adds the call that sets a wall around the launcher, if others may look into it after this.
//
// That is so where the caller is an ordinary user, for whom the launcher becomes dumpable, and for
// processes with CAP_SYS_PTRACE in a container that has no user namespace of its own. All others never can.
func (pl *plan) buildWall(profile bool) (built bool) {
	if pl.filter == nil || !becomesDumpable() && pl.caps.bounding&(1<<unix.CAP_SYS_PTRACE) == 0 {
		return false
	}
	pl.Step("wall", "")
	w := wall{prog: pl.Zero(16), profile: profile}
	pl.Call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, w.prog)
	w.from = pl.Len()
	pl.walls = append(pl.walls, w)
	return true
}

// fillWalls compiles them, when all calls are known.
func (pl *plan) fillWalls() error {
	for _, w := range pl.walls {
		if w.to == 0 {
			w.to = pl.Len()
		}
		f, err := pl.wallFilter(w)
		if err != nil {
			return err
		}
		pl.Fill(w.prog, launch.Arg(len(f.insns)), pl.filterCode(f.insns))
	}
	return nil
}

func (pl *plan) wallFilter(w wall) (*seccompFilter, error) {
	calls := pl.Patterns(w.from, w.to)
	if w.profile {
		return pl.profile.compileFor(pl.caps.bounding, calls)
	}
	return onlyCalls(calls)
}
