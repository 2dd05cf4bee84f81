//go:build linux

package container

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file turns the command line into the last steps of the plan: find the executable, close what
// is not the program's, execute. It runs in the caller's process.

// defaultPath is PATH where neither the image nor the process sets it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the process's environment: of equal keys the last one wins, with PATH and HOME
// added where they are missing.
func (pl *plan) environment() []string {
	var list []string
	if pl.proc.InheritEnv {
		list = os.Environ()
	}
	list = append(list, pl.proc.Env...)
	last := make(map[string]int, len(list))
	key := func(entry string) string {
		k, _, _ := strings.Cut(entry, "=")
		return k
	}
	for i, e := range list {
		last[key(e)] = i
	}
	env := make([]string, 0, len(list)+2)
	for i, e := range list {
		if last[key(e)] == i {
			env = append(env, e)
		}
	}
	if _, ok := last["PATH"]; !ok {
		env = append(env, "PATH="+defaultPath)
	}
	if _, ok := last["HOME"]; !ok {
		home := pl.user.home
		if home == "" {
			home = "/"
		}
		env = append(env, "HOME="+home)
	}
	return env
}

// candidates are the paths that Args[0] can mean. Relative and empty entries of PATH are passed
// over: what runs must not depend on the working directory.
func (pl *plan) candidates() []string {
	name := pl.proc.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var list []string
	for _, e := range pl.env {
		if dirs, ok := strings.CutPrefix(e, "PATH="); ok {
			for dir := range strings.SplitSeq(dirs, ":") {
				if strings.HasPrefix(dir, "/") {
					list = append(list, strings.TrimSuffix(dir, "/")+"/"+name)
				}
			}
		}
	}
	return list
}

// stepLookup finds the executable: the first candidate that the user may execute and that is no
// directory. If there is none, it reports EACCES if one was there that may not be executed, else ENOENT.
func (pl *plan) stepLookup() error {
	pl.Step("executable", pl.proc.Args[0])
	pl.path = pl.Zero(8)
	denied := pl.Zero(8)
	found := pl.Label()
	for _, name := range pl.candidates() {
		file, forbidden, next := pl.Label(), pl.Label(), pl.Label()
		path := pl.Str(name)
		pl.Call(unix.SYS_FACCESSAT2, cwdFD, path, unix.X_OK, unix.AT_EACCESS).On(unix.EACCES, forbidden).Else(next)
		pl.Call(unix.SYS_FACCESSAT2, cwdFD, pl.Str(name+"/."), unix.F_OK, unix.AT_EACCESS).On(unix.ENOTDIR, file).Else(next).Then(forbidden)
		pl.Here(file)
		pl.Sub(path, 0).StoreTo(pl.path).Then(found)
		pl.Here(forbidden)
		pl.Sub(1, 0).StoreTo(denied)
		pl.Here(next)
	}
	missing := pl.Label()
	pl.Sub(pl.Value(denied), 0).Case(0, missing)
	pl.Fail(unix.EACCES)
	pl.Here(missing)
	pl.Fail(unix.ENOENT)
	pl.Here(found)
	return nil
}

// stepClose closes the launcher's descriptors. The socket is left; it is closed by execve, and that
// tells the parent that execve succeeded.
func (pl *plan) stepClose() error {
	first := pl.SocketFD() + 1
	if fd := pl.listenerFD(); fd != 0 {
		if fd != first {
			pl.Call(unix.SYS_DUP3, fd, first, unix.O_CLOEXEC)
			pl.listener.fd = first
		}
		first++
	}
	pl.Call(unix.SYS_CLOSE_RANGE, first, 1<<32-1, 0)
	return nil
}

// stepLastWord is for a supervisor that may have waited for the process before we look at it: then only this tells that it
// did not die earlier.
func (pl *plan) stepLastWord() error {
	if pl.supervised() && pl.gate == nil {
		pl.Send(tagLast, 0)
	}
	return nil
}

func (pl *plan) stepExecute() error {
	pl.Step("execute", pl.proc.Args[0])
	pl.Call(unix.SYS_EXECVE, pl.Value(pl.path), pl.Strs(pl.proc.Args), pl.Strs(pl.env))
	return nil
}
