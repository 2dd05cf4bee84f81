//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file makes a place ready for a cgroup. It runs in the caller's process.

// prepare makes Parent, by which a scope of systemd's is made, and fills in what was not known before: store the
// place again. After an error nothing is left. RecordDir is the container's, and grace the time that the container has to end when systemd
// stops the scope.
func (p *cgroupPlace) prepare(ctx context.Context, recordDir string, grace time.Duration) error {
	if p.Manager == CgroupSystemd {
		return p.makeScope(ctx, recordDir, grace)
	}
	tree, err := findCgroupTree()
	if err != nil {
		return err
	}
	return tree.makeParents(p.Parent)
}

// release undoes prepare, also one that was killed on its way. What others share stays. The container's cgroup should have been deleted; in a
// scope it is ended with it. Releasing twice is no error.
func (p *cgroupPlace) release(ctx context.Context) error {
	if p.Manager == CgroupSystemd {
		return p.removeScope(ctx)
	}
	if p.Parent == rootParent {
		removeRootParent()
	}
	return nil
}

// removeRootParent removes the package's own parent of cgroups, if nobody is left in it.
func removeRootParent() {
	if tree, err := findCgroupTree(); err == nil {
		_ = tree.remove(rootParent)
	}
}

// enable lets children of Parent have controllers. Before that, processes in it are moved to a child of their own, if it is
// the caller's own cgroup: the kernel allows no processes beside children with controllers.
func (p *cgroupPlace) enable(controllers []string) error {
	tree, err := findCgroupTree()
	if err != nil {
		return err
	}
	for range roomTries {
		err = tree.enable(p.Top, p.Parent, controllers)
		own := ownParent(cgroupOf(os.Getpid()))
		var e *Error
		if !p.Shared || !errors.Is(err, unix.EBUSY) || !errors.As(err, &e) || path.Dir(e.Path) != own {
			return err
		}
		if err := tree.makeRoom(own); err != nil {
			return err
		}
	}
	return err
}

// canBear tells whether the kernel lets the caller's children be born in the cgroup (CLONE_INTO_CGROUP): as for a move, the caller
// must have the right to move processes in what is above both, its own cgroup and that one. In a session of an
// ordinary user it has not, and the process must be moved by attach before anything of the container's is done.
func (p *cgroupPlace) canBear() bool {
	tree, err := findCgroupTree()
	own := cgroupOf(os.Getpid())
	if err != nil || !tree.shows(own) {
		return false
	}
	dir, err := tree.open(commonCgroup(own, p.Parent))
	if err != nil {
		return false
	}
	defer dir.Close()
	return unix.Faccessat(int(dir.Fd()), "cgroup.procs", unix.W_OK, unix.AT_EACCESS) == nil
}

// commonCgroup is the lowest cgroup that two are both in.
func commonCgroup(a, b string) string {
	for !within(b, a) && a != "/" && a != "." {
		a = path.Dir(a)
	}
	return a
}

// within tells whether a cgroup is another or below that.
func within(p, above string) bool {
	rest, ok := strings.CutPrefix(p, strings.TrimSuffix(above, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// makeParents makes a cgroup and those above it that are missing.
func (t cgroupTree) makeParents(cgroup string) (err error) {
	if !t.shows(cgroup) {
		return &Error{Op: "cgroup", Path: cgroup, Err: ErrUnsupported, Remedy: "no mount of cgroup v2 shows this place: " + remedyNoTree}
	}
	dir, err := unix.Open(t.mount, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &Error{Op: "cgroup", Path: t.mount, Err: err}
	}
	var undo cleanup
	defer func() {
		unix.Close(dir)
		if err != nil {
			undo.run()
		}
	}()
	at := t.top()
	for name := range strings.SplitSeq(strings.Trim(strings.TrimPrefix(cgroup, t.root), "/"), "/") {
		if name == "" {
			continue // the top itself
		}
		at = path.Join(at, name)
		if err = unix.Mkdirat(dir, name, 0o755); err == nil {
			made := at
			undo = append(cleanup{func() { t.remove(made) }}, undo...)
		}
		if err != nil && err != unix.EEXIST {
			// Of one that is there and cannot be written to, mkdir may say EACCES, or EROFS.
			if unix.Faccessat(dir, name, unix.F_OK, 0) != nil {
				return mkdirError(at, err)
			}
		}
		next, err := openBelowCgroup(dir, name, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return &Error{Op: "cgroup", Path: at, Err: err}
		}
		unix.Close(dir)
		dir = next
	}
	return nil
}

// mkdirError says what to do about a cgroup that cannot be made.
func mkdirError(cgroup string, err error) error {
	remedy := ""
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		remedy = "the cgroup above does not belong to the caller: " + remedyDelegate
	case errors.Is(err, unix.EROFS):
		remedy = "as root: mount -o remount,rw the tree of cgroups"
	case errors.Is(err, unix.EAGAIN):
		remedy = "cgroup.max.depth or cgroup.max.descendants of a cgroup above allows no more"
	}
	return &Error{Op: "cgroup", Path: cgroup, Err: err, Remedy: remedy}
}

// remove removes a cgroup that is empty.
func (t cgroupTree) remove(cgroup string) error {
	above, err := t.open(path.Dir(cgroup))
	if err != nil {
		return err
	}
	defer above.Close()
	if err := unix.Unlinkat(int(above.Fd()), path.Base(cgroup), unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return &Error{Op: "cgroup", Path: cgroup, Err: err}
	}
	return nil
}

// Bounds of makeRoom: processes fork while they are moved.
const (
	roomTries = 100
	roomPause = 2 * time.Millisecond
)

// makeRoom moves the processes of a cgroup to a child of it. Several callers may do so at the same time.
func (t cgroupTree) makeRoom(cgroup string) error {
	dir, err := t.open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	c := &Cgroup{dir: dir, path: cgroup}
	leaf := path.Join(cgroup, callersLeaf)
	if err := unix.Mkdirat(int(dir.Fd()), callersLeaf, 0o755); err != nil && err != unix.EEXIST {
		return mkdirError(leaf, err)
	}
	procs, err := openBelowCgroup(int(dir.Fd()), callersLeaf+"/cgroup.procs", unix.O_WRONLY)
	if err != nil {
		return &Error{Op: "cgroup", Path: leaf + "/cgroup.procs", Err: err}
	}
	defer unix.Close(procs)
	for range roomTries {
		text, err := c.readFile("cgroup.procs")
		if err != nil {
			return err
		}
		pids := strings.Fields(text)
		if len(pids) == 0 {
			return nil
		}
		var moved int
		var stuck error
		for _, pid := range pids {
			switch err := moveTo(procs, pid); err {
			case nil, unix.ESRCH: // it has ended, or is about to
				moved++
			default:
				stuck = fmt.Errorf("process %s cannot be moved there: %w", pid, err)
			}
		}
		if moved == 0 {
			return &Error{Op: "cgroup", Path: leaf, Err: stuck, Remedy: "the caller's own cgroup must be empty before its controllers are enabled: " + remedyDelegate}
		}
		time.Sleep(roomPause)
	}
	if kind, _ := c.readFile("cgroup.type"); strings.TrimSpace(kind) == "domain threaded" {
		return &Error{Op: "cgroup", Path: cgroup, Err: unix.EBUSY, Remedy: "it has threaded children; choose another parent"}
	}
	return &Error{Op: "cgroup", Path: cgroup, Err: unix.EBUSY, Remedy: "new processes keep coming; start the container from a cgroup of its own: " + remedyDelegate}
}

// moveTo moves a process to a cgroup whose cgroup.procs is open.
func moveTo(procs int, pid string) error {
	if _, err := strconv.ParseUint(pid, 10, 31); err != nil || pid == "0" {
		return unix.EXDEV // it is in a PID namespace that the caller does not see
	}
	for {
		_, err := unix.Write(procs, []byte(pid))
		if err != unix.EINTR {
			return err
		}
	}
}
