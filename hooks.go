package container

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"strings"
	"time"
)

// This file holds Hooks, the caller's own actions in the life of a container, as plain data. They are
// run by hooks_run.go; hooks_plan.go has those that the container's first process runs.

// Hooks are actions at fixed moments of a container's life, those of the OCI runtime specification 1.3
// ("POSIX-platform Hooks" and "Lifecycle"). Each list is run in its order, to its end or to the first
// that fails. Programs read the state of the container from their standard input, as JSON.
//
//	list             in       when                                                 status in the state
//	Prestart         Create   the namespaces and mounts are there, before pivot    creating
//	CreateRuntime    Create   after those                                          creating
//	CreateContainer  Create   after those                                          creating
//	StartContainer   Start    before the container's program                       created
//	Poststart        Start    the program runs; before Start returns               running
//	Poststop         Destroy  of the container only the record is left             stopped
//
// Run is Create and Start in one.
//
// Programs of CreateContainer and StartContainer run in the namespaces of the container; there the pid in
// the state is the one that the first process has in them. All others run where the caller is, and see
// the pid as the caller does. Programs of StartContainer are looked up in the container, those of all other
// lists on the host.
//
// If a hook of the first four lists fails, so does Create, Start or Run, with an [*Error] whose Op
// is "hook " and the list's name in the specification, "hook createRuntime", and whose Path is the program's.
// Nothing of the container is left then but its record, as after any other failure. A failed Poststart
// hook (an error since version 1.3 of the specification, and a warning before) kills the container's
// processes, and Start or Run returns the error. Destroy calls all Poststop hooks, also of a
// container that has never been started or whose start has failed, since others may have left something; their failures go
// to Config.Logger. If the caller is killed while Destroy is at it, they are called again by the next Destroy.
//
// While hooks of the first four lists and of Poststop run, the container's record is locked: from them State
// and Signal work, but Status may be ahead of the state that the hook is given; Create, Start and Destroy of the same container wait for the hook and so for themselves.
//
// A hook of the host is not killed when the caller is: it is the caller's helper, and half of its work may be worse
// than all. One in the container's namespaces dies with the container's first process.
type Hooks struct {
	// Prestart is the older name of CreateRuntime, and run before it. The specification calls it deprecated.
	Prestart []Hook

	// CreateRuntime hooks complete what the host does for the container: its network, for example.
	CreateRuntime []Hook

	// CreateContainer hooks are programs of the host in the container's namespaces, and run as the container's root:
	// with all capabilities there, and none over the host unless its user namespace is shared. With maps
	// of ids, that user must be able to reach the program. The container's root, with all mounts, is the working
	// directory; it is mounted on Root.Dir as well, if that is set and not "/". The host's tree is still all around it: do
	// not use them with PID and user namespaces joined from somebody who must not see that.
	CreateContainer []Hook

	// StartContainer hooks are programs of the container that run in its place before it: as its user, with
	// its capabilities, limits, seccomp filter and working directory, in the first process's namespaces.
	StartContainer []Hook

	// Poststart hooks see the program running, or ended if it was quick.
	Poststart []Hook

	// Poststop hooks take back what the others have done.
	Poststop []Hook
}

// A Hook is a program or a Go function.
type Hook struct {
	// Path is the program, an absolute path. Required, unless Func is set.
	Path string

	// Args is the command line of the program, Args[0] included. If empty, it is Path alone.
	Args []string

	// Env is the whole environment of the program, "KEY=value". Nothing is inherited, not even PATH.
	Env []string

	// Timeout bounds the hook. When it is over, the program gets SIGKILL with its process group, and the
	// hook has failed with an error that wraps context.DeadlineExceeded. Zero: no bound.
	Timeout time.Duration

	// Func is called in the caller's process, instead of a program. Its context ends with that of Create, Start or
	// Run, and with Timeout; it must return then. What it returns is the failure of the hook; a panic
	// goes on to the caller of Create, Start, Run or Destroy, after the same cleaning up.
	//
	// A function cannot enter the container's namespaces: use Container.Exec, from Poststart, to do something
	// there. In CreateContainer and StartContainer functions come before programs.
	//
	// Functions are not stored. In a process that has the container from Load, Create, Start and Run return
	// ErrHookFunc where they would have to call one; Destroy goes on, and tells Config.Logger.
	Func func(ctx context.Context, state *ContainerState) error `json:"-"`

	lost bool // it was a function, of the process that called New
}

// ErrHookFunc is returned by Create, Start and Run of a container from Load when a hook at this moment is a Go
// function: it exists only in the process that has called New.
var ErrHookFunc = errors.New("the hook is a Go function of the process that made the container")

// A hookKind is a list of Hooks, by its name in the specification.
type hookKind string

const (
	hookPrestart        hookKind = "prestart"
	hookCreateRuntime   hookKind = "createRuntime"
	hookCreateContainer hookKind = "createContainer"
	hookStartContainer  hookKind = "startContainer"
	hookPoststart       hookKind = "poststart"
	hookPoststop        hookKind = "poststop"
)

// inside tells whether programs of this kind are run by the container's first process.
func (k hookKind) inside() bool { return k == hookCreateContainer || k == hookStartContainer }

// list returns the hooks of a kind, of no Hooks none.
func (h *Hooks) list(kind hookKind) []Hook {
	if h == nil {
		return nil
	}
	switch kind {
	case hookPrestart:
		return h.Prestart
	case hookCreateRuntime:
		return h.CreateRuntime
	case hookCreateContainer:
		return h.CreateContainer
	case hookStartContainer:
		return h.StartContainer
	case hookPoststart:
		return h.Poststart
	}
	return h.Poststop
}

// programs returns the programs among the hooks of a kind.
func (h *Hooks) programs(kind hookKind) (list []*Hook) {
	all := h.list(kind)
	for i := range all {
		if !all[i].isFunc() {
			list = append(list, &all[i])
		}
	}
	return list
}

// isFunc tells whether the hook is a function, if of another process.
func (h *Hook) isFunc() bool { return h.Func != nil || h.lost }

// argv is the command line.
func (h *Hook) argv() []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

// plainHook is Hook as it is stored, but for what is added about Func.
type plainHook Hook

// storedHook keeps that there was a function: a container that forgot it would leave something out.
type storedHook struct {
	plainHook
	IsFunc bool `json:",omitempty"`
}

// MarshalJSON keeps of Func that it was set.
func (h Hook) MarshalJSON() ([]byte, error) {
	return json.Marshal(storedHook{plainHook(h), h.isFunc()})
}

// UnmarshalJSON is the reverse.
func (h *Hook) UnmarshalJSON(text []byte) error {
	var s storedHook
	err := json.Unmarshal(text, &s)
	*h = Hook(s.plainHook)
	h.lost = s.IsFunc
	return err
}

// checkHooks: each hook is a program by its absolute path or a function, and where the container's own
// process runs programs, functions come first.
func checkHooks(c *Config) []error {
	var errs fieldErrors
	if c.Hooks == nil {
		return nil
	}
	for _, l := range []struct {
		field string
		kind  hookKind
	}{
		{"Prestart", hookPrestart}, {"CreateRuntime", hookCreateRuntime}, {"CreateContainer", hookCreateContainer},
		{"StartContainer", hookStartContainer}, {"Poststart", hookPoststart}, {"Poststop", hookPoststop},
	} {
		programs := false
		for i, h := range c.Hooks.list(l.kind) {
			field := index("Hooks."+l.field, i)
			errs.hook(field, &h)
			if h.isFunc() && programs && l.kind.inside() {
				errs.addf(field+".Func", "comes after a program; put functions first: programs of this list are run by the container's process")
			}
			programs = programs || !h.isFunc()
		}
	}
	return errs
}

func (e *fieldErrors) hook(field string, h *Hook) {
	switch {
	case h.isFunc() && (h.Path != "" || len(h.Args) > 0 || len(h.Env) > 0):
		e.addf(field, "has a Func as well as a Path, Args or Env; set Func, or the others")
	case h.isFunc():
	case h.Path == "":
		e.addf(field, "has neither a Path nor a Func; set one")
	case !path.IsAbs(h.Path):
		e.addf(field+".Path", "%q is not an absolute path", h.Path)
	case strings.ContainsRune(h.Path, 0):
		e.addf(field+".Path", "%q contains a NUL byte", h.Path)
	}
	for i, arg := range h.Args {
		if strings.ContainsRune(arg, 0) {
			e.addf(index(field+".Args", i), "%.100q contains a NUL byte", arg)
		}
	}
	for _, err := range checkEnv(&Process{Env: h.Env}) {
		e.add(inField(field, err))
	}
	if h.Timeout < 0 {
		e.addf(field+".Timeout", "%v is negative; 0 means no bound", h.Timeout)
	}
}
