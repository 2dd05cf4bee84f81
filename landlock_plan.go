//go:build linux

package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file turns Landlock rules into steps of the plan. It runs in the caller's process; the launcher gives up its rights itself, and with
// them those of the program and its children.

// Rights to files. The kernel wants rules for a file without those that only a directory can give.
const (
	landlockRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockWrite = landlockRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	landlockExecute = landlockRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	landlockFiles   = landlockWrite | landlockExecute

	landlockOfFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	landlockTCP = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
)

// Kinds of rules, LANDLOCK_RULE_*.
const (
	landlockPathBeneath = 1
	landlockNetPort     = 2
)

// A landlockRules is what the kernel is told: the rights that are given up, and where they are kept.
type landlockRules struct {
	files, tcp, scopes uint64
	abi                int
}

// landlockVersions are the versions of the kernel's interface that something depends on, with the kernels that have them.
var landlockVersions = map[int]string{1: "5.13", 3: "6.2", 4: "6.7", 5: "6.10", 6: "6.12"}

// rules are those for a kernel with this version of the interface; 0 is one without Landlock.
func (l *Landlock) rules(abi int) (r landlockRules, err error) {
	r.abi = abi
	var errs fieldErrors
	need := func(field string, version int) bool {
		if abi < version && !l.BestEffort {
			has := "this one has none, or it is switched off: boot with lsm=landlock,..."
			if abi > 0 {
				has = fmt.Sprintf("this one has version %d of the interface, not %d", abi, version)
			}
			errs.add(&FieldError{Field: "Landlock." + field, Err: ErrUnsupported,
				Problem: fmt.Sprintf("needs the Landlock of Linux %s, and %s; with BestEffort it is left out", landlockVersions[version], has)})
		}
		return abi >= version
	}
	for _, list := range []struct {
		field string
		paths []string
	}{{"ReadOnly", l.ReadOnly}, {"ReadWrite", l.ReadWrite}, {"Execute", l.Execute}} {
		if len(list.paths) > 0 {
			need(list.field, 3) // before, files could be truncated that may only be read
		}
	}
	if l.files() && abi > 0 {
		r.files = landlockFiles
		for _, newer := range []struct {
			version int
			right   uint64
		}{
			{2, unix.LANDLOCK_ACCESS_FS_REFER}, // before, no file could get a name in another directory
			{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE},
			{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
		} {
			if abi < newer.version {
				r.files &^= newer.right
			}
		}
	}
	if l.RestrictTCP && need("RestrictTCP", 4) {
		r.tcp = landlockTCP
	}
	if l.NoAbstractSockets && need("NoAbstractSockets", 6) {
		r.scopes |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	if l.NoSignals && need("NoSignals", 6) {
		r.scopes |= unix.LANDLOCK_SCOPE_SIGNAL
	}
	return r, errs.join()
}

// stepLandlock gives the rights up.
func (pl *plan) stepLandlock() error {
	l := pl.cfg.Landlock
	if l == nil {
		return nil
	}
	abi, err := landlockABI()
	if err != nil {
		return &Error{Op: "landlock", Err: err}
	}
	r, err := l.rules(abi)
	if err != nil {
		return err
	}
	if r.files|r.tcp|r.scopes == 0 {
		return nil // nothing of it is there, and that is enough
	}
	// struct landlock_ruleset_attr: an older kernel takes a longer one, if what it does not know is 0.
	rules := pl.Call(unix.SYS_LANDLOCK_CREATE_RULESET, pl.words64(r.files, r.tcp, r.scopes), 3*8, 0).Result()
	if r.files != 0 {
		for _, list := range []struct {
			paths  []string
			rights uint64
		}{{l.ReadOnly, landlockRead}, {l.ReadWrite, landlockWrite}, {l.Execute, landlockExecute}} {
			for _, path := range list.paths {
				pl.Step("landlock", path)
				pl.allowBeneath(rules, pl.root, path, list.rights&r.files)
			}
		}
		pl.Step("landlock", "")
	}
	if r.tcp != 0 {
		for _, list := range []struct {
			ports []uint16
			right uint64
		}{{l.BindTCP, unix.LANDLOCK_ACCESS_NET_BIND_TCP}, {l.ConnectTCP, unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}} {
			for _, port := range list.ports { // struct landlock_net_port_attr: rights, port
				pl.Call(unix.SYS_LANDLOCK_ADD_RULE, rules, landlockNetPort, pl.words64(list.right, uint64(port)), 0)
			}
		}
	}
	pl.Call(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0)
	pl.close(rules)
	return nil
}

// allowBeneath keeps rights to a file, or to a directory and all below.
func (e emitter) allowBeneath(rules, root launch.Arg, path string, rights uint64) {
	rel := strings.Trim(path, "/")
	if rel == "" {
		rel = "."
	}
	// struct landlock_path_beneath_attr, packed: rights, and the descriptor in 4 bytes.
	attr := make([]byte, 16)
	binary.NativeEndian.PutUint64(attr, rights)
	rule := e.Bytes(attr)
	fd := e.open(root, rel, unix.O_PATH, 0, inRoot).StoreTo(rule + 8).Result()
	file, done := e.Label(), e.Label()
	e.Call(unix.SYS_LANDLOCK_ADD_RULE, rules, landlockPathBeneath, rule, 0).On(unix.EINVAL, file).Then(done)
	e.Here(file)
	attr = make([]byte, 16)
	binary.NativeEndian.PutUint64(attr, rights&landlockOfFile)
	rule = e.Bytes(attr)
	e.Sub(fd, 0).StoreTo(rule + 8)
	e.Call(unix.SYS_LANDLOCK_ADD_RULE, rules, landlockPathBeneath, rule, 0)
	e.Here(done)
	e.close(fd)
}

// landlockABI is the version of the kernel's interface, 0 if there is none.
var landlockABI = answered(func() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errno == 0:
		return int(abi), nil
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EOPNOTSUPP):
		return 0, nil
	}
	return 0, errno
})
