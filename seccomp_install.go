//go:build linux

package container

import (
	"encoding/binary"

	"example.com/container/internal/launch"
	"example.com/container/internal/seccomp"
	"golang.org/x/sys/unix"
)

// This file adds the installation of a filter to the plan. It runs in the caller's process; what it adds runs in the
// launcher.

// A seccompFilter is a compiled profile.
type seccompFilter struct {
	insns  []seccomp.Instruction
	flags  uintptr // of seccomp(2), but for that of the listener
	notify bool    // some call is to be asked about
}

// installFilter adds the call that sets the filter. Only execve may follow: what the launcher needs is not the
// profile's to allow.
func (pl *plan) installFilter(f *seccompFilter) {
	program := pl.filterProgram(f.insns)
	if !f.notify {
		pl.Call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, launch.Arg(f.flags), program)
		return
	}
	// The listener is a descriptor that the call returns, and to send it is a call that the filter may be about. So it is sent
	// by a second thread, which was there before the filter and is not under it. This one then waits for that
	// without a system call; execve ends the other, if that has not ended.
	const thread = unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	link, listener, sent := pl.listenerFD(), pl.Zero(8), pl.Zero(8)
	other, filtered := pl.Label(), pl.Label()
	pl.Call(unix.SYS_CLONE, thread).Case(0, other)
	pl.Call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, launch.Arg(f.flags)|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, program).StoreTo(listener)
	pl.spinUntil(sent, filtered)

	pl.Here(other)
	again, yield, send, done := pl.Label(), pl.Label(), pl.Label(), pl.Label()
	pl.Here(again)
	pl.Sub(pl.Value(listener), 0).Case(0, yield).Else(done).Then(send) // a failure is the other's to report
	pl.Here(yield)
	pl.Call(unix.SYS_SCHED_YIELD).Else(again).Then(again)
	pl.Here(send)
	op := pl.SendFileTo(link, pl.Value(listener), pl.listener.text, pl.listener.size)
	if pl.listener.handler != nil {
		op.Ignore(unix.EPIPE, unix.ECONNRESET) // who has created the process is gone: then its calls fail with ENOSYS, as they will
	}
	// Nobody here may keep it: an execve that waits for an answer would wait for ever, once the caller is gone.
	pl.Call(unix.SYS_CLOSE, pl.Value(listener))
	pl.Sub(1, 0).StoreTo(sent)
	pl.Here(done)
	pl.Call(unix.SYS_EXIT, 0)
	pl.Here(filtered)
}

// spinUntil goes on at l when the 8 bytes at addr are not 0. It takes processor time, and makes no call. After some seconds of
// that it ends the process: the one that is to write does not come to run, as with SCHED_FIFO on a single processor.
func (pl *plan) spinUntil(addr launch.Arg, l launch.Label) {
	const patience = 1 << 29 // rounds
	left := pl.Words(patience)
	again, count, crash := pl.Label(), pl.Label(), pl.Label()
	pl.Here(again)
	pl.Sub(pl.Value(addr), 0).Case(0, count).Then(l)
	pl.Here(count)
	pl.Sub(pl.Value(left), 1).StoreTo(left).Case(0, crash).Then(again)
	pl.Here(crash)
	pl.Crash()
}

// filterProgram is the address of struct sock_fprog.
func (pl *plan) filterProgram(insns []seccomp.Instruction) launch.Arg {
	return pl.Words(launch.Arg(len(insns)), pl.filterCode(insns))
}

// filterCode is the address of the instructions.
func (pl *plan) filterCode(insns []seccomp.Instruction) launch.Arg {
	code := make([]byte, 0, 8*len(insns))
	for _, in := range insns {
		code = binary.NativeEndian.AppendUint16(code, in.Code)
		code = append(code, in.Jt, in.Jf)
		code = binary.NativeEndian.AppendUint32(code, in.K)
	}
	return pl.Bytes(code)
}
