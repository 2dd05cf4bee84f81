//go:build linux

package container

import (
	"encoding/binary"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns Tty into steps of the plan. The launcher makes the pair of terminals in the devpts
// of the container, sends the master to the caller, and becomes the owner of the other one. No step
// trusts a name in the container: what opens the terminal is a descriptor of a devpts, and the
// terminal of the process is asked of its master (CVE-2025-52565). It runs in the caller's process.

// stepConsole makes the terminal of a container's first process.
func (pl *plan) stepConsole() error {
	if !pl.cfg.Namespaces.NewMnt {
		return pl.stepJoinConsole()
	}
	defer pl.finishDev()
	if !pl.proc.Tty {
		return nil
	}
	pl.Step("console", "/dev/pts")
	// What is there is ours, or a mount of the configuration's: nobody else is in here yet.
	pl.makeTerminal(pl.open(pl.dev, "pts", unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS).Result())
	pl.bindConsole()
	return nil
}

// stepJoinConsole makes a terminal in a mount namespace that others have been in. Whatever lies at
// /dev/pts, it is used only if it is a devpts, in which nobody can make a file of another kind.
func (pl *plan) stepJoinConsole() error {
	if !pl.proc.Tty {
		return nil
	}
	pl.Step("console", "/dev/pts")
	pl.makeTerminal(pl.open(cwdFD, "/dev/pts", unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS).Result())
	return nil
}

// makeTerminal makes a pair of terminals in the devpts of pts and sends the master to the caller.
func (pl *plan) makeTerminal(pts launch.Arg) {
	const statfsSize = 120
	buf := pl.Zero(statfsSize)
	pl.Call(unix.SYS_FSTATFS, pts, buf) // the type is the first field
	pl.expect(pl.Value(buf), unix.DEVPTS_SUPER_MAGIC, unix.ENODEV)
	const flags = unix.O_RDWR | unix.O_NOCTTY
	opened := pl.Label()
	open := pl.open(pts, "ptmx", flags, 0, ownFile)
	master := open.Result()
	if pl.ownMounts() {
		// A host's devpts may leave that to the node beside it, which finds the devpts by its own place.
		node := pl.Label()
		open.On(unix.EACCES, node).Then(opened)
		pl.Here(node)
		pl.open(cwdFD, "/dev/ptmx", flags, 0, unix.RESOLVE_NO_MAGICLINKS).StoreTo(master)
	}
	pl.Here(opened)
	pl.close(pts)
	pl.Call(unix.SYS_IOCTL, master, unix.TIOCSPTLCK, pl.struct32(0))
	size := pl.proc.consoleSize()
	b := binary.LittleEndian.AppendUint16(nil, size.Height)
	b = binary.LittleEndian.AppendUint16(b, size.Width)
	pl.Call(unix.SYS_IOCTL, master, unix.TIOCSWINSZ, pl.Bytes(append(b, 0, 0, 0, 0)))
	pl.terminal = pl.Call(unix.SYS_IOCTL, master, unix.TIOCGPTPEER, flags|unix.O_CLOEXEC).Result()
	// The group is what the devpts gives it: tty, if the container has that group.
	chown := pl.Call(unix.SYS_FCHOWN, pl.terminal, launch.Arg(pl.user.uid), -1)
	if !pl.cfg.Namespaces.NewMnt {
		chown.Ignore(unix.EPERM, unix.EINVAL) // a devpts of another user namespace: it stays its opener's
	}
	pl.SendFile(tagConsole, master)
	pl.close(master) // else the terminal would never hang up
}

// ownMounts tells whether the container sees the caller's own mounts.
func (pl *plan) ownMounts() bool {
	if pl.into != nil {
		return pl.into.flags&unix.CLONE_NEWNS == 0
	}
	ns := &pl.cfg.Namespaces
	return !ns.NewMnt && ns.Join[MountNamespace] == ""
}

// bindConsole makes /dev/console, unless the configuration has a mount for it. It is a file of our own
// tmpfs; nothing that an image brings can be in its place (CVE-2026-88264).
func (pl *plan) bindConsole() {
	for _, m := range pl.cfg.Mounts {
		if m.Target == "/dev/console" {
			return
		}
	}
	pl.Step("console", "/dev/console")
	pl.Call(unix.SYS_MKNODAT, pl.dev, pl.Str("console"), unix.S_IFREG|0o600, 0)
	at := pl.open(pl.dev, "console", unix.O_PATH, 0, ownFile).Result()
	mnt := pl.cloneTree(pl.terminal, "", false).Result()
	pl.attach(mnt, at)
	pl.close(mnt)
	pl.close(at)
}

// takeStreams makes the terminal the standard streams.
func (pl *plan) takeStreams() {
	for fd := range launch.Arg(3) {
		pl.Call(unix.SYS_DUP3, pl.terminal, fd, 0)
	}
	pl.close(pl.terminal)
}

// takeTerminal makes standard input the controlling terminal. It is for the process that will
// execute the program, which must be the leader of a session that has none.
func (pl *plan) takeTerminal() error {
	if pl.proc.Tty {
		pl.Call(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
	}
	return nil
}
