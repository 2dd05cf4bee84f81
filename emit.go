//go:build linux

package container

import (
	"encoding/binary"
	"path"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file holds the vocabulary of the plan: groups of system calls that several steps need, all
// from descriptor to descriptor. It adds calls to a program in the caller's process; they are
// made by the launcher.

// emitter adds to a program.
type emitter struct {
	*launch.Program
	structs map[[4]launch.Arg]launch.Arg // data that several calls share
}

// words4 is Words, once for equal words.
func (e emitter) words4(a, b, c, d launch.Arg) launch.Arg {
	key := [4]launch.Arg{a, b, c, d}
	addr, ok := e.structs[key]
	if !ok {
		addr = e.Words(a, b, c, d)
		e.structs[key] = addr
	}
	return addr
}

const cwdFD = launch.Arg(unix.AT_FDCWD)

// open is openat2(2). The mode is for O_CREAT. Where links may lead up inside a root, the kernel says
// EAGAIN if anything at all was renamed or mounted meanwhile, on purpose or not; then it is asked again.
func (e emitter) open(dir launch.Arg, name string, flags, mode, resolve uint64) launch.Op {
	how := e.words4(launch.Arg(flags|unix.O_CLOEXEC), launch.Arg(mode), launch.Arg(resolve), 0)
	again := e.Label()
	e.Here(again)
	op := e.Call(unix.SYS_OPENAT2, dir, e.Str(name), how, unix.SizeofOpenHow)
	if resolve&unix.RESOLVE_IN_ROOT != 0 {
		op.On(unix.EAGAIN, again)
	}
	return op
}

// How paths are resolved. Below a root that others fill, no path leads out, and none goes through
// a magic link of /proc.
const (
	inRoot        = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	inRootNoLinks = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS
	ownFile       = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV
)

// write writes s to a new descriptor of the file and closes it.
func (e emitter) writeFile(dir launch.Arg, name string, resolve uint64, s string) {
	fd := e.open(dir, name, unix.O_WRONLY, 0, resolve).Result()
	e.Call(unix.SYS_WRITE, fd, e.Str(s), launch.Arg(len(s)))
	e.close(fd)
}

func (e emitter) close(fd launch.Arg) { e.Call(unix.SYS_CLOSE, fd) }

// An fsOption is a parameter of a new file system; without a value it is a flag.
type fsOption struct {
	key, value string
	flag       bool
	optional   bool // goes without if the kernel does not take the value
}

// newFS makes a file system of its own, attached nowhere, and returns the mount's descriptor.
func (e emitter) newFS(typ, source string, attr uint64, options ...fsOption) launch.Arg {
	fs := e.fsOpen(typ, source)
	for _, o := range options {
		e.fsSet(fs, o)
	}
	return e.fsMount(fs, attr)
}

func (e emitter) fsOpen(typ, source string) launch.Arg {
	fs := e.Call(unix.SYS_FSOPEN, e.Str(typ), unix.FSOPEN_CLOEXEC).Result()
	if source != "" {
		e.fsSet(fs, fsOption{key: "source", value: source})
	}
	return fs
}

func (e emitter) fsSet(fs launch.Arg, o fsOption) launch.Op {
	if o.flag {
		return e.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_FLAG, e.Str(o.key))
	}
	op := e.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_SET_STRING, e.Str(o.key), e.Str(o.value))
	if o.optional {
		op.Ignore(unix.EINVAL)
	}
	return op
}

func (e emitter) fsMount(fs launch.Arg, attr uint64) launch.Arg {
	e.Call(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE)
	mnt := e.Call(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, launch.Arg(attr)).Result()
	e.close(fs)
	return mnt
}

// cloneTree copies a mount, with all below it if recursive, and returns the copy, attached nowhere.
func (e emitter) cloneTree(dir launch.Arg, name string, recursive bool) launch.Op {
	flags := uint64(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return e.Call(unix.SYS_OPEN_TREE, dir, e.Str(name), launch.Arg(flags))
}

// attr is struct mount_attr.
type mountAttr struct{ set, clear, propagation, userns uint64 }

// setAttr is mount_setattr(2) on the mount of a descriptor.
func (e emitter) setAttr(mnt launch.Arg, a mountAttr, recursive bool) launch.Op {
	flags := launch.Arg(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	words := e.words4(launch.Arg(a.set), launch.Arg(a.clear), launch.Arg(a.propagation), launch.Arg(a.userns))
	return e.Call(unix.SYS_MOUNT_SETATTR, mnt, e.Str(""), flags, words, 32)
}

// attach mounts mnt at the place that the descriptor at refers to.
func (e emitter) attach(mnt, at launch.Arg) launch.Op {
	return e.Call(unix.SYS_MOVE_MOUNT, mnt, e.Str(""), at, e.Str(""), unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// A fileKind is what a missing mount target is made as.
type fileKind int

const (
	directory fileKind = iota
	regularFile
)

// target opens a place below root for a mount, as a descriptor that pins it, and makes it if it is
// missing, each directory in its pinned parent. Symbolic links are resolved inside root.
func (e emitter) target(root launch.Arg, name string, kind fileKind, resolve uint64) launch.Arg {
	name = strings.Trim(path.Clean(name), "/")
	if name == "" || name == "." {
		return root
	}
	flags := uint64(unix.O_PATH)
	missing, done := e.Label(), e.Label()
	fd := e.open(root, name, flags, 0, resolve).On(unix.ENOENT, missing).Then(done)
	e.Here(missing)
	parent := root
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		prefix, last := name[:i], i == len(name)
		base := e.Str(path.Base(prefix))
		made := e.Label()
		have := e.Label()
		if !last {
			next := e.open(root, prefix, flags|unix.O_DIRECTORY, 0, resolve).On(unix.ENOENT, made).Then(have)
			e.Here(made)
			e.Call(unix.SYS_MKDIRAT, parent, base, 0o755).Ignore(unix.EEXIST)
			e.open(root, prefix, flags|unix.O_DIRECTORY, 0, resolve).StoreTo(next.Result())
			e.Here(have)
			parent = next.Result()
			continue
		}
		if kind == directory {
			e.Call(unix.SYS_MKDIRAT, parent, base, 0o755).Ignore(unix.EEXIST)
		} else {
			e.Call(unix.SYS_MKNODAT, parent, base, unix.S_IFREG|0o644, 0).Ignore(unix.EEXIST)
		}
		e.open(root, prefix, flags, 0, resolve).StoreTo(fd.Result())
	}
	e.Here(done)
	return fd.Result()
}

// expect reports errno unless the value, its low 32 bits, is want.
func (e emitter) expect(value launch.Arg, want int32, errno unix.Errno) {
	ok := e.Label()
	e.Sub(value, 0).Case(want, ok).IgnoreAll()
	e.Fail(errno)
	e.Here(ok)
}

// struct32 is the address of a structure of 32-bit words.
func (e emitter) struct32(words ...uint32) launch.Arg {
	var b []byte
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return e.Bytes(b)
}
