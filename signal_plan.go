//go:build linux

package container

import "golang.org/x/sys/unix"

// This file gives the process the signals as they are for a new program. It runs in the caller's process.

// lastSignal is the greatest number of a signal.
const lastSignal = 64

// stepSignals gives every signal its default action and blocks none. What the caller ignores or blocks would go through
// fork and execve to the program: a shell with an ignored SIGINT cannot even trap it, and callers begin with one wherever a
// shell without job control has started them in the background, with an ignored SIGHUP below nohup(1).
func (pl *plan) stepSignals() error {
	none := pl.Zero(32) // a struct sigaction: SIG_DFL, no flags, nothing blocked
	number := pl.Zero(8)
	again, done := pl.Label(), pl.Label()
	pl.Sub(lastSignal, 0).StoreTo(number)
	pl.Here(again)
	pl.Call(unix.SYS_RT_SIGACTION, pl.Value(number), none, 0, 8).Ignore(unix.EINVAL) // SIGKILL and SIGSTOP
	pl.Sub(pl.Value(number), 1).StoreTo(number).Case(0, done).Then(again)
	pl.Here(done)
	pl.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, none, 0, 8)
	return nil
}
