//go:build linux

package container

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file is the gate between Create and Start: two FIFOs in the container's record.
//
//	go       the launcher reads a byte from it when all is set up; Start, in any process, writes that
//	report   from then on the launcher writes here what fails, and execve closes it
//
// Both ends of the launcher's are closed by execve. So the kernel tells whether the program has been
// started: if it has not, somebody reads "go".

const (
	goFile     = "go"
	reportFile = "report"
)

// gate holds the launcher's ends.
type gate struct{ enter, report *os.File }

// makeGate makes the FIFOs anew.
func (r record) makeGate() (*gate, error) {
	r.removeGate()
	var files [2]*os.File
	for i, name := range []string{goFile, reportFile} {
		if err := unix.Mkfifo(r.path(name), 0o600); err != nil {
			closers(files[:i]).close()
			return nil, &os.PathError{Op: "mkfifo", Path: r.path(name), Err: err}
		}
		// For reading and writing: the open does not wait, and the read never sees an end.
		fd, err := openRetry(func() (int, error) { return unix.Open(r.path(name), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
		if err != nil {
			closers(files[:i]).close()
			return nil, &os.PathError{Op: "open", Path: r.path(name), Err: err}
		}
		files[i] = os.NewFile(uintptr(fd), name)
		at("gate: FIFO")
	}
	return &gate{files[0], files[1]}, nil
}

func (r record) removeGate() {
	_ = os.Remove(r.path(goFile))
	_ = os.Remove(r.path(reportFile))
}

// held tells whether a launcher is on its way to the gate or waits there.
func (r record) held() (bool, error) {
	fd, err := openRetry(func() (int, error) {
		return unix.Open(r.path(goFile), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return false, onlyScarce(err) // ENXIO: nobody reads
	}
	unix.Close(fd)
	return true, nil
}

// openGate lets the launcher go, and waits until it has executed the program or has failed. Once it
// is released, a failure is its end.
//
// Others may hold the FIFOs: who may look into a launcher at the gate can have its descriptors, and so has what was
// executed in the container before. So the end of the process, and the name that execve gives it, count as well
// as the end of the report; what is in the report is not believed, only shown.
func (r record) openGate(ctx context.Context, first procEntry, calls launch.LastCalls) (released bool, err error) {
	fail := func(err error) (bool, error) { return released, &Error{Op: "start", Err: err} }
	report, err := os.OpenFile(r.path(reportFile), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fail(err)
	}
	defer report.Close()
	fd, err := openRetry(func() (int, error) {
		return unix.Open(r.path(goFile), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err == unix.ENXIO {
		return fail(ErrNotRunning) // it has died this moment
	}
	if err != nil {
		return fail(&os.PathError{Op: "open", Path: r.path(goFile), Err: err})
	}
	_, err = unix.Write(fd, []byte{1})
	unix.Close(fd)
	at("gate: opened")
	if err != nil && err != unix.EPIPE {
		return fail(os.NewSyscallError("write", err))
	}
	released = true
	stop := context.AfterFunc(ctx, func() { report.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, launch.FailureSize+1)
	for {
		report.SetReadDeadline(time.Now().Add(gatePatience))
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		past := !first.inLauncher() // looked at before the report, which is complete then
		n, err := report.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && past, n == 0 && err == io.EOF:
			return true, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return fail(err)
		default:
			return true, stepError(calls.ParseFailure(buf[:n]))
		}
	}
}

// gatePatience is how long the end of the report is waited for before the process is looked at.
const gatePatience = 100 * time.Millisecond

// inLauncher tells whether the process is alive and has not executed a program.
func (p procEntry) inLauncher() bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/comm")
	if err != nil {
		return scarce(err)
	}
	if start, err := startTime(p.pid); err == nil && start != p.start {
		return false
	}
	name := strings.TrimSuffix(string(text), "\n")
	return name == launch.ProcessName || name == reaperName
}

// stepPlaced tells the caller that it may look where the process is.
func (pl *plan) stepPlaced() error {
	pl.Send(tagPlaced, 0)
	return nil
}

// stepVerify tells the caller that it may look. At the gate it looks while the launcher waits there.
func (pl *plan) stepVerify() error {
	if pl.launchFiles.gate == nil {
		pl.Send(tagVerify, 0)
	}
	return nil
}

// stepVerified waits for the caller, who kills the process if it is not as asked for.
func (pl *plan) stepVerified() error {
	if pl.launchFiles.gate == nil {
		pl.Wait()
	}
	return nil
}

// stepGate reports that all is set up, and waits until somebody starts the program. From here on the
// launcher speaks to that one: its socket becomes the report.
func (pl *plan) stepGate() error {
	g := pl.launchFiles.gate
	if g == nil {
		return nil
	}
	kept := pl.fileListener() + pl.fileStartHooks()
	enter, report := pl.File(g.enter), pl.File(g.report)
	pl.Call(unix.SYS_CLOSE_RANGE, pl.SocketFD()+1, enter-kept-1, 0)
	pl.Call(unix.SYS_CLOSE_RANGE, report+1, 1<<32-1, 0)
	pl.buildWall(true) // before it is ready: Create is told if there can be none
	pl.Send(tagReady, 0)
	pl.Call(unix.SYS_DUP3, report, pl.SocketFD(), unix.O_CLOEXEC)
	pl.close(report)
	// While it waits it may be looked into, which Exec needs to find the namespaces when the caller is an
	// ordinary user. All of the host's is closed, but for a /dev/null. The socket above all: who speaks on it says
	// which process the caller takes for the container's, and kills.
	if !pl.lendsAdmin() {
		pl.becomeDumpable()
	}
	again, on := pl.Label(), pl.Label()
	pl.Here(again)
	pl.Call(unix.SYS_READ, enter, pl.Zero(8), 1).On(unix.EINTR, again).Then(on)
	pl.Here(on)
	pl.stepNotDumpable()
	pl.behindGate = pl.Len()
	return nil
}

// becomeDumpable lets an ordinary user look into its launcher, and those who may trace the container's program.
// Root needs no such thing: there its memory, with what the configuration says of the host, stays its own.
func (pl *plan) becomeDumpable() {
	if becomesDumpable() {
		pl.Call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1)
	}
}

// awaitGate waits, but not for long, until the caller may look into a launcher that has said it is ready.
func awaitGate(pid int) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Microsecond) {
		if _, err := os.Stat(namespacePath(pid, MountNamespace)); !errors.Is(err, os.ErrPermission) {
			return
		}
	}
}

// becomesDumpable tells whether the caller needs that.
func becomesDumpable() bool {
	caps, err := strconv.ParseUint(ownStatus("CapEff"), 16, 64)
	return err != nil || caps&(1<<unix.CAP_SYS_PTRACE) == 0
}
