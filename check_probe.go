//go:build linux

package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/container/internal/launch"
)

// This file is the child of Check: a program that tries, in namespaces of its own, what a start of a
// container does, and tells how each call ended. It expects nothing: what fails is an answer.

// The questions. An answer is the result of the call that decides.
const (
	tagUser uint32 = iota + 1
	tagMountSetattr
	tagFsopen
	tagTmpfs
	tagProc
	tagSysfs
	tagXattr
	tagOverlay
	tagLowerPlus
	tagSeccomp
	tagCloseRange
	tagNamespace // the first of probeKinds; the others follow
)

// probeKinds are the kinds that the probe makes besides the user namespace.
var probeKinds = namespaceKinds[1:]

// errNotReached says that the probe ended before it could ask.
var errNotReached = errors.New("not tried")

// probe holds the answers.
type probe struct {
	results  map[uint32]int64
	startErr error // the child could not be started
	mapErr   error // its maps could not be written
}

// err returns how a call ended: nil, its error number, or errNotReached.
func (p probe) err(tag uint32) error {
	switch n, ok := p.results[tag]; {
	case !ok:
		return errNotReached
	case n < 0:
		return syscall.Errno(-n)
	}
	return nil
}

// userErr returns why there is no user namespace that is worth something. Where AppArmor restricts
// them, there is one, but without rights: the first mount namespace fails.
func (p probe) userErr() error {
	if p.startErr != nil {
		return p.startErr
	}
	if err := p.err(tagUser); err != nil && err != errNotReached {
		return err
	}
	if p.mapErr != nil {
		return p.mapErr
	}
	for i, k := range probeKinds {
		if err := p.err(tagNamespace + uint32(i)); k.kind == MountNamespace && err != nil && !errors.Is(err, unix.ENOSPC) {
			return err
		}
	}
	return nil
}

// userWay is a way into a user namespace.
type userWay int

const (
	userByLauncher userWay = iota // the launcher unshares: the usual one
	userByCaller                  // the caller's program clones: a profile for its path may allow that
	noUser                        // none
)

// runProbe runs the child and collects its answers.
func runProbe(way userWay) probe {
	p := probe{results: make(map[uint32]int64)}
	uid, gid := selfMap()
	var sys syscall.SysProcAttr
	if way == userByCaller {
		sys = syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: uid, GidMappings: gid}
	}
	child, err := probeProgram(way).Start(&launch.Attr{Sys: &sys, TempDir: os.TempDir()})
	if err != nil {
		p.startErr = err
		return p
	}
	defer child.Release()
	defer child.Process().Wait()
	for {
		m, err := child.Next()
		if err != nil {
			return p // the end, or a failure of the conversation: then answers are missing
		}
		p.results[m.Tag] = m.Value
		if m.Tag == tagUser {
			if m.Value >= 0 {
				p.mapErr = writeSelfMaps(child.Process().Pid, uid, gid)
			}
			if err := child.Go(); err != nil {
				return p
			}
		}
	}
}

// writeSelfMaps writes the maps that an ordinary user may write alone. The kernel wants setgroups
// denied before the group map (CVE-2014-8989).
func writeSelfMaps(pid int, uid, gid []IDMap) error {
	for _, f := range []struct {
		name string
		text []byte
	}{{"uid_map", idMapText(uid)}, {"setgroups", []byte("deny")}, {"gid_map", idMapText(gid)}} {
		path := fmt.Sprintf("/proc/%d/%s", pid, f.name)
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = file.Write(f.text)
			file.Close()
		}
		if err != nil {
			return &Error{Op: "write id map", Path: path, Err: unwrapPath(err)}
		}
	}
	return nil
}

// probeProgram is what the child does.
func probeProgram(way userWay) *launch.Program {
	p := launch.New(0)
	p.Step("check", "")
	// ask makes a call and sends how it ended.
	ask := func(tag uint32, nr uint32, args ...launch.Arg) launch.Op {
		op := p.Call(nr, args...).IgnoreAll()
		p.Send(tag, op.Result())
		return op
	}
	try := func(nr uint32, args ...launch.Arg) launch.Op { return p.Call(nr, args...).IgnoreAll() }

	// need ends the program if the call has failed.
	stop := p.Label()
	need := func(op launch.Op) { p.Sub(op.Result(), 0).Else(stop) }

	if way == userByLauncher {
		user := ask(tagUser, unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
		p.Wait()
		need(user)
	}
	var last launch.Op
	for i, k := range probeKinds {
		last = ask(tagNamespace+uint32(i), unix.SYS_UNSHARE, launch.Arg(k.flag))
	}
	need(last) // the mount namespace: without it all that follows would happen to the host
	// Only a child is in the new PID namespace, and only there a new /proc can be had.
	inner := p.Label()
	fork := p.Call(unix.SYS_CLONE, launch.Arg(unix.SIGCHLD), 0, 0, 0, 0).IgnoreAll().Case(0, inner)
	try(unix.SYS_WAIT4, fork.Result(), 0, 0, 0)
	p.Exit(0)
	p.Here(inner)

	empty, slash, proc := p.Str(""), p.Str("/"), p.Str("/proc")
	cwd := launch.Arg(unix.AT_FDCWD)
	private := p.Words(0, 0, unix.MS_PRIVATE, 0) // struct mount_attr
	alone := ask(tagMountSetattr, unix.SYS_MOUNT_SETATTR, cwd, slash, unix.AT_RECURSIVE, private, 32)
	ask(tagCloseRange, unix.SYS_CLOSE_RANGE, 1<<30, 1<<30, 0)
	action := p.Bytes(binary.NativeEndian.AppendUint32(nil, unix.SECCOMP_RET_ERRNO))
	ask(tagSeccomp, unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, action)

	create := func(fs launch.Op) { try(unix.SYS_FSCONFIG, fs.Result(), unix.FSCONFIG_CMD_CREATE, 0, 0, 0) }
	fs := try(unix.SYS_FSOPEN, p.Str("proc"), unix.FSOPEN_CLOEXEC)
	create(fs)
	ask(tagProc, unix.SYS_FSMOUNT, fs.Result(), unix.FSMOUNT_CLOEXEC, 0)
	fs = try(unix.SYS_FSOPEN, p.Str("sysfs"), unix.FSOPEN_CLOEXEC)
	create(fs)
	ask(tagSysfs, unix.SYS_FSMOUNT, fs.Result(), unix.FSMOUNT_CLOEXEC, 0)

	// From root's own mount namespace, mounts would travel to the host if they were still shared.
	need(alone)
	// A tmpfs over /proc, which every host has, in this mount namespace only; an overlay stands on it.
	fs = ask(tagFsopen, unix.SYS_FSOPEN, p.Str("tmpfs"), unix.FSOPEN_CLOEXEC)
	create(fs)
	mnt := try(unix.SYS_FSMOUNT, fs.Result(), unix.FSMOUNT_CLOEXEC, 0)
	need(ask(tagTmpfs, unix.SYS_MOVE_MOUNT, mnt.Result(), empty, cwd, proc, unix.MOVE_MOUNT_F_EMPTY_PATH))
	for _, name := range []string{"lower", "upper", "work"} {
		try(unix.SYS_MKDIRAT, cwd, p.Str("/proc/"+name), 0o755)
	}
	xattr := "trusted.overlay.opaque"
	if way != noUser {
		xattr = "user.overlay.opaque"
	}
	ask(tagXattr, unix.SYS_SETXATTR, p.Str("/proc/lower"), p.Str(xattr), p.Str("y"), 1, 0)
	fs = try(unix.SYS_FSOPEN, p.Str("overlay"), unix.FSOPEN_CLOEXEC)
	set := func(key, value string) launch.Op {
		return try(unix.SYS_FSCONFIG, fs.Result(), unix.FSCONFIG_SET_STRING, p.Str(key), p.Str(value), 0)
	}
	for option := range strings.FieldsSeq("lowerdir=/proc/lower upperdir=/proc/upper workdir=/proc/work") {
		key, value, _ := strings.Cut(option, "=")
		set(key, value)
	}
	if way != noUser {
		try(unix.SYS_FSCONFIG, fs.Result(), unix.FSCONFIG_SET_FLAG, p.Str("userxattr"), 0, 0)
	}
	create(fs)
	ask(tagOverlay, unix.SYS_FSMOUNT, fs.Result(), unix.FSMOUNT_CLOEXEC, 0)
	fs = try(unix.SYS_FSOPEN, p.Str("overlay"), unix.FSOPEN_CLOEXEC)
	p.Send(tagLowerPlus, set("lowerdir+", "/proc/lower").Result())
	p.Here(stop)
	p.Exit(0)
	return p
}
