//go:build linux

package container

import (
	"cmp"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file is the keeper of a scope: a launcher that does nothing but live. Systemd makes a scope for processes that are there, and removes
// it with the last of them, and with it the numbers of the cgroup. With a keeper the container's cgroup is there before
// the container, which is born in it, and after it. The steps are added in the caller's process; the keeper holds no file.

const (
	keeperName = "container:keep" // in /proc/PID/comm
	tagKeeper  = 1
	keeperEnds = unix.SIGTERM // the one signal that ends it: the scope is being stopped
)

// A keeper waits for stay, and ends when the caller does before that.
type keeper struct {
	child *launch.Child
	id    processID
}

// startKeeper starts one, as nobody's child: it outlives the caller, and who ends it need not wait for it.
func startKeeper(tempDir string) (_ *keeper, err error) {
	p := keeperProgram()
	child, err := p.Start(&launch.Attr{TempDir: tempDir})
	if err != nil {
		return nil, &Error{Op: "keeper", Err: err}
	}
	k := &keeper{child: child}
	defer func() {
		if err != nil {
			k.release()
		}
	}()
	msg, err := child.Next()
	_, waitErr := child.Process().Wait()
	switch {
	case err == io.EOF:
		err = errors.New("it has ended early")
	case err == nil && msg.Tag != tagKeeper:
		err = errors.New("an unknown message")
	}
	if err = cmp.Or(err, waitErr); err == nil {
		k.id.Pid = int(msg.Value)
		// It waits for us, so the number is its own.
		k.id.StartTime, err = startTime(k.id.Pid)
	}
	if err != nil {
		return nil, &Error{Op: "keeper", Err: err}
	}
	return k, nil
}

func keeperProgram() *launch.Program {
	p := launch.New(0)
	p.Step("keeper", "")
	child := p.Label()
	p.Call(unix.SYS_CLONE, launch.Arg(unix.SIGCHLD)).Case(0, child)
	p.Exit(0)

	p.Here(child)
	p.Call(unix.SYS_SETSID) // no terminal's hangup reaches it
	p.Call(unix.SYS_PRCTL, unix.PR_SET_NAME, p.Str(keeperName))
	p.Call(unix.SYS_CHDIR, p.Str("/")) // no mount of the caller's is kept busy
	p.Call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, p.Words(^launch.Arg(1<<(keeperEnds-1))), 0, 8)
	p.Call(unix.SYS_CLOSE_RANGE, 0, p.SocketFD()-1, 0)
	p.Call(unix.SYS_CLOSE_RANGE, p.SocketFD()+1, 1<<32-1, 0)
	p.Send(tagKeeper, p.Call(unix.SYS_GETPID).Result())
	p.Wait()
	p.Call(unix.SYS_CLOSE_RANGE, 0, 1<<32-1, 0)
	again := p.Label()
	p.Here(again)
	p.Call(unix.SYS_PPOLL, 0, 0, 0, 0).Else(again).Then(again)
	return p
}

// stay lets it live on.
func (k *keeper) stay() error { return k.child.Go() }

// release ends it unless it stays.
func (k *keeper) release() { k.child.Release() }

// killKeeper ends the keeper of a record, if it is still that.
func killKeeper(id processID) error {
	if id.Pid == 0 {
		return nil
	}
	name, err := os.ReadFile("/proc/" + strconv.Itoa(id.Pid) + "/comm")
	if err != nil || strings.TrimSpace(string(name)) != keeperName {
		return onlyScarce(err)
	}
	return procEntry{pid: id.Pid, start: id.StartTime}.kill()
}
