//go:build linux

package container

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns security labels into steps of the plan. It runs in the caller's process.
//
// A process asks for the label of the program that it is going to execute with lsm_set_self_attr(2), and before Linux 6.8 by writing
// to a file of its own in procfs. That file is reached from a descriptor of the caller's /proc, never by a path in the
// container, where something else may be mounted (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881): what the process is in that
// procfs, the kernel knows from its number in the caller's PID namespace.

// An lsmAttr is an attribute that a process may set of itself.
type lsmAttr struct {
	module launch.Arg // LSM_ID_*
	attr   launch.Arg // LSM_ATTR_*
	files  []string   // in thread-self/attr; the first that there is
}

// Of linux/lsm.h.
const (
	lsmSelinux  = 101
	lsmAppArmor = 104

	lsmAttrExec      = 101
	lsmAttrKeycreate = 103
)

var (
	appArmorExec = lsmAttr{lsmAppArmor, lsmAttrExec, []string{"apparmor/exec", "exec"}} // of its own since Linux 5.8: exec may be another module's
	selinuxExec  = lsmAttr{lsmSelinux, lsmAttrExec, []string{"exec"}}
	selinuxKeys  = lsmAttr{lsmSelinux, lsmAttrKeycreate, []string{"keycreate"}}
)

// resolveLabels sees that the kernel has the modules that labels are asked for, and the policy the contexts.
func (pl *plan) resolveLabels() error {
	pl.labels = pl.proc.labels(pl.cfg)
	var errs fieldErrors
	lacks := func(field string, problem string) {
		errs.add(&FieldError{Field: field, Problem: problem, Err: ErrUnsupported})
	}
	switch {
	case pl.labels.appArmor == "":
	case appArmorEnabled():
	case pl.labels.appArmor == unconfined:
		pl.labels.appArmor = "" // so it is
	default:
		lacks("AppArmorProfile", "the kernel has no AppArmor, or it is off; boot with apparmor=1 security=apparmor, or leave the field empty")
	}
	errs = append(errs, pl.resolveContexts()...)
	return errs.join()
}

// appArmorEnabled asks each time: a file that cannot be read does not say no for ever.
func appArmorEnabled() bool {
	text, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.TrimSpace(string(text)) == "Y"
}

// ownProcFS is the caller's procfs in the launcher. It must be one: a label that is written to another file is none.
func (pl *plan) ownProcFS() (launch.Arg, error) {
	if pl.procFS != 0 {
		return pl.procFS, nil
	}
	f, err := openProcFS(procDir)
	if err != nil {
		return 0, err
	}
	pl.files = append(pl.files, f)
	pl.procFS = pl.File(f)
	return pl.procFS, nil
}

// procDir is replaced by tests.
var procDir = "/proc"

func openProcFS(dir string) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &Error{Op: "security label", Path: dir, Err: err, Remedy: "procfs must be mounted on /proc for the caller"}
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	if st.Type != unix.PROC_SUPER_MAGIC {
		unix.Close(fd)
		return fail(errors.New("is no procfs"))
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// setSelfAttr sets an attribute of the launcher's.
func (e emitter) setSelfAttr(proc launch.Arg, a lsmAttr, value string) {
	set := e.Label()
	// struct lsm_ctx: id, flags, len, ctx_len, ctx
	const header = 4 * 8
	size := header + len(value)
	ctx := make([]byte, 0, size)
	for _, word := range []int{int(a.module), 0, size, len(value)} {
		ctx = binary.LittleEndian.AppendUint64(ctx, uint64(word))
	}
	missing := e.Label()
	e.Call(unix.SYS_LSM_SET_SELF_ATTR, a.attr, e.Bytes(append(ctx, value...)), launch.Arg(size), 0).
		On(unix.ENOSYS, missing).On(unix.EOPNOTSUPP, missing).Then(set)
	e.Here(missing)
	const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	var fd launch.Arg
	opened := e.Label()
	for i, name := range a.files {
		next := e.Label()
		op := e.open(proc, "thread-self/attr/"+name, unix.O_WRONLY, 0, beneath)
		if i == 0 {
			fd = op.Result()
		} else {
			op.StoreTo(fd)
		}
		if i+1 < len(a.files) {
			op.On(unix.ENOENT, next).Then(opened)
		}
		e.Here(next)
	}
	e.Here(opened)
	e.Call(unix.SYS_WRITE, fd, e.Str(value), launch.Arg(len(value)))
	e.close(fd)
	e.Here(set)
}

// stepKeyLabel is the label of the session keyring that comes next.
func (pl *plan) stepKeyLabel() error { return pl.keyLabel(pl.labels.selinux) }

// stepOwnKeyLabel: of keys that come later the kernel knows the label.
func (pl *plan) stepOwnKeyLabel() error { return pl.keyLabel("\n") }

func (pl *plan) keyLabel(value string) error {
	if pl.labels.selinux == "" || pl.cfg.HostKeyring {
		return nil
	}
	proc, err := pl.ownProcFS()
	if err != nil {
		return err
	}
	pl.Step("SELinux label", "of the session keyring")
	pl.setSelfAttr(proc, selinuxKeys, value)
	return nil
}

// stepLabel asks for the label of what is executed, by this process and by those that it forks.
func (pl *plan) stepLabel() error {
	l := pl.labels
	if l.appArmor+l.selinux == "" {
		return nil
	}
	proc, err := pl.ownProcFS()
	if err != nil {
		return err
	}
	if l.appArmor != "" {
		verb := "exec "
		if l.stack {
			verb = "stack "
		}
		pl.Step("AppArmor profile", l.appArmor)
		pl.setSelfAttr(proc, appArmorExec, verb+l.appArmor)
	}
	if l.selinux != "" {
		pl.Step("SELinux label", l.selinux)
		pl.setSelfAttr(proc, selinuxExec, l.selinux)
	}
	pl.close(proc)
	return nil
}

// newFS is that of the emitter, with MountLabel. Of the file systems that are made, these take one; the others are the kernel's, and mqueue
// exists before it is mounted.
func (pl *plan) newFS(typ, source string, attr uint64, options ...fsOption) launch.Arg {
	if label := pl.cfg.MountLabel; label != "" && (typ == "tmpfs" || typ == "devpts") {
		options = append(options, fsOption{key: "context", value: label})
	}
	return pl.emitter.newFS(typ, source, attr, options...)
}
