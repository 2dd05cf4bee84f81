//go:build linux

package container

import (
	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file is the reaper of Config.Init: process 1 of the container is the launcher, which has the program as
// its child. The steps are added in the caller's process; the reaper holds no file, has the user
// and the capabilities of the program, and its executable is sealed.

// Offsets in siginfo_t of a SIGCHLD, on 64-bit systems.
const (
	siginfoSize   = 128
	siginfoCode   = 8
	siginfoPid    = 16
	siginfoStatus = 24
)

const (
	reaperName  = "container:init"         // in /proc/PID/comm
	reaperReady = launch.Arg(unix.SIGUSR1) // what the reaper tells the child, which has blocked all signals
)

func (pl *plan) stepInit() error {
	if !pl.cfg.Init {
		return nil
	}
	all, old := pl.Words(-1), pl.Zero(8)
	child := pl.Label()
	// Before the fork: no signal is lost, and one that is blocked reaches even process 1.
	pl.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, all, old, 8)
	pid := pl.Call(unix.SYS_CLONE, launch.Arg(unix.SIGCHLD)).Case(0, child).Result()

	pl.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, pl.Str(reaperName))
	walled := pl.buildWall(false)
	if pl.keepsAdmin() {
		pl.capset(pl.launcherCaps()) // which it needs no more
	}
	pl.Call(unix.SYS_CLOSE_RANGE, 0, 1<<32-1, 0)
	// Exec finds the namespaces through process 1, which an ordinary user may look into only if it is dumpable, as
	// any other init is. Not before the socket to the caller is closed, and the child, which has it until
	// execve, never is.
	pl.becomeDumpable()
	pl.Call(unix.SYS_KILL, pid, reaperReady)
	info := pl.Zero(siginfoSize)
	next, reap, mine, killed := pl.Label(), pl.Label(), pl.Label(), pl.Label()
	pl.Here(next)
	sig := pl.Call(unix.SYS_RT_SIGTIMEDWAIT, all, 0, 0, 8).Case(int32(unix.SIGCHLD), reap).Else(next).Result()
	pl.Call(unix.SYS_KILL, pid, sig).Else(next).Then(next)
	pl.Here(reap)
	pl.Call(unix.SYS_WAITID, unix.P_ALL, 0, info, unix.WEXITED|unix.WNOHANG, 0).Else(next)
	ended := pl.Value(info + siginfoPid) // and the user's id in the upper half, which no case looks at
	pl.Sub(ended, 0).Case(0, next).IgnoreAll()
	pl.Sub(ended, pid).Case(0, mine).Else(reap).Then(reap)
	pl.Here(mine)
	const exited = 1
	status := pl.Value(info + siginfoStatus)
	exit := pl.Label()
	pl.Sub(pl.Value(info+siginfoCode), exited).Case(0, exit).Else(killed).Then(killed)
	pl.Here(exit)
	pl.Exit(status)
	pl.Here(killed)
	pl.Exit(pl.Sub(status, -128).Result())

	if walled {
		pl.walls[len(pl.walls)-1].to = pl.Len()
	}
	pl.Here(child)
	pl.Step("init", "")
	// When the caller hears that the program runs, the reaper must be as it stays.
	ready := pl.Label()
	pl.Here(ready)
	pl.Call(unix.SYS_RT_SIGTIMEDWAIT, pl.Words(1<<(reaperReady-1)), 0, 0, 8).On(unix.EINTR, ready)
	pl.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, old, 0, 8)
	pl.Call(unix.SYS_SETSID) // a leader of its own: the terminal's keys are for it and its children
	return nil
}
