//go:build linux

package container

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file is a cgroup as a group of processes: making it, who is in it, killing them, removing it. It runs in the
// caller's process. What it limits is in cgroup_apply.go, what it counts in stats.go.

// A Cgroup is a group of processes in the tree of cgroup v2, which is limited, counted, stopped and killed as one. It is
// held open, so it never comes to mean another one of the same name: once it has been removed, the methods return
// ErrNotExist. It is safe for concurrent use.
//
// Containers have cgroups without it; see [Config.Cgroup] and [Container.Cgroup]. It is for processes outside of
// containers, and for groups of containers: a Cgroup's Path can be a [CgroupConfig.Parent].
type Cgroup struct {
	dir  *os.File
	path string // as /proc/PID/cgroup has it

	files statFiles // that Stats keeps open
}

// NewCgroup makes a cgroup. A name that begins with a slash is its place in the tree; directories above it are made if they
// are missing, and stay. Any other name is below the place where containers of this caller get theirs; see
// [CgroupConfig.Parent]. It returns ErrExist if there is one.
//
// Equivalent to: mkdir /sys/fs/cgroup/NAME
func NewCgroup(name string) (*Cgroup, error) {
	parent, base, err := splitCgroupName(name)
	if err != nil {
		return nil, err
	}
	tree, err := findCgroupTree()
	if err != nil {
		return nil, err
	}
	for range parentTries {
		var c *Cgroup
		if c, err = tree.makeBelow(parent, base); !errors.Is(err, unix.ENOENT) {
			return c, err
		}
	}
	return nil, err
}

// makeBelow makes a cgroup, and those above it that are missing.
func (t cgroupTree) makeBelow(parent, base string) (*Cgroup, error) {
	if err := t.makeParents(parent); err != nil {
		return nil, err
	}
	dir, err := t.open(parent)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return makeCgroup(dir, parent, base)
}

// LoadCgroup opens a cgroup by its name, which means what it means to NewCgroup. It returns ErrNotExist if there is none.
func LoadCgroup(name string) (*Cgroup, error) {
	parent, base, err := splitCgroupName(name)
	if err != nil {
		return nil, err
	}
	c, err := openCgroup(path.Join(parent, base))
	if errors.Is(err, unix.ENOENT) {
		err = &Error{Op: "cgroup", Path: path.Join(parent, base), Err: ErrNotExist}
	}
	return c, err
}

// splitCgroupName returns the place in the tree that a name means.
func splitCgroupName(name string) (parent, base string, err error) {
	var errs fieldErrors
	full := name
	if strings.HasPrefix(name, "/") {
		errs.cgroupPath("name", name)
	} else {
		errs.cgroupBelow("name", name)
	}
	if err := errs.join(); err != nil {
		return "", "", err
	}
	if full[0] != '/' {
		place, err := (&CgroupConfig{Manager: CgroupFS}).place("x", "/")
		if err != nil {
			return "", "", err
		}
		full = path.Join(place.Parent, name)
	}
	return path.Dir(full), path.Base(full), nil
}

// openCgroup opens a cgroup by its path in the tree.
func openCgroup(path string) (*Cgroup, error) {
	tree, err := findCgroupTree()
	if err != nil {
		return nil, err
	}
	dir, err := tree.open(path)
	if err != nil {
		return nil, err
	}
	return &Cgroup{dir: dir, path: path}, nil
}

// makeCgroup makes a cgroup in an open one. It returns ErrExist if there is one of the name.
func makeCgroup(parent *os.File, parentPath, name string) (*Cgroup, error) {
	full := path.Join(parentPath, name)
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o755); err != nil {
		if err == unix.EEXIST {
			return nil, &Error{Op: "cgroup", Path: full, Err: ErrExist}
		}
		return nil, mkdirError(full, err)
	}
	fd, err := openBelowCgroup(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		_ = unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR)
		return nil, mkdirError(full, err)
	}
	return &Cgroup{dir: os.NewFile(uintptr(fd), full), path: full}, nil
}

// Path is the cgroup's place in the tree, as /proc/PID/cgroup shows it: "/container/demo".
func (c *Cgroup) Path() string { return c.path }

// Close closes the Cgroup; the group itself stays.
func (c *Cgroup) Close() error {
	c.files.close()
	return c.dir.Close()
}

// AddProcess moves a process into the cgroup, with all its threads. What it has used so far stays with the cgroup that it comes from.
//
// Equivalent to: echo PID > cgroup.procs
func (c *Cgroup) AddProcess(pid int) error {
	if pid <= 0 {
		return &Error{Op: "cgroup", Path: c.path, Err: fieldErrorf("pid", "%d is no process", pid)} // 0 would be the caller
	}
	err := c.writeFile("cgroup.procs", strconv.Itoa(pid))
	var e *Error
	if errors.As(err, &e) {
		switch {
		case errors.Is(err, unix.ESRCH):
			e.Remedy = "there is no process " + strconv.Itoa(pid)
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			e.Remedy = "the caller must own cgroup.procs of this cgroup and of the one that is above this and the process's; as root, or with: " + remedyDelegate
		case errors.Is(err, unix.EBUSY):
			e.Remedy = "it has cgroups below it with controllers of their own: add the process to one of those"
		}
	}
	return err
}

// Processes returns the processes in the cgroup and in all below it, in the caller's PID namespace. One that the caller's PID
// namespace does not have is 0.
func (c *Cgroup) Processes() ([]int, error) {
	var pids []int
	err := c.walk(func(g *Cgroup, _ []string) error {
		text, err := g.readFile("cgroup.procs")
		if errors.Is(err, unix.EOPNOTSUPP) { // a threaded cgroup's processes are listed further up
			return nil
		}
		for line := range strings.Lines(text) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
				pids = append(pids, pid)
			}
		}
		return err
	})
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// Kill kills all processes in the cgroup and below it, at once: none can escape by forking. It does not wait for their ends. It
// works on frozen ones, too. Since Linux 5.14.
//
// Equivalent to: echo 1 > cgroup.kill
func (c *Cgroup) Kill() error { return c.writeFile("cgroup.kill", "1") }

// Delete kills all processes in the cgroup and below it, waits for their ends, and removes it with all below. It returns nil if
// it has been removed already.
func (c *Cgroup) Delete() error {
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	if err := c.delete(ctx); err != nil {
		return err
	}
	if path.Dir(c.path) == rootParent {
		removeRootParent()
	}
	return nil
}

func (c *Cgroup) delete(ctx context.Context) error {
	if err := c.killWait(ctx); err != nil {
		if errors.Is(err, ErrNotExist) {
			return nil
		}
		return err
	}
	return c.remove(ctx)
}

// killWait kills all processes and waits until there are none.
func (c *Cgroup) killWait(ctx context.Context) error {
	if err := c.Kill(); err != nil {
		return err
	}
	err := c.await(ctx, "cgroup.events", func(text string) bool { return strings.Contains(text, "populated 0\n") })
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Op: "cgroup", Path: c.path, Err: errNoEnd}
	}
	return err
}

// remove removes the cgroup and all below it, which have no processes.
func (c *Cgroup) remove(ctx context.Context) error {
	tree, err := findCgroupTree()
	if err != nil {
		return err
	}
	parent, err := tree.open(path.Dir(c.path))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	if !c.isNamed(parent) {
		return nil // removed, and another has its name
	}
	return (&Cgroup{dir: parent, path: path.Dir(c.path)}).removeChild(ctx, path.Base(c.path))
}

// isNamed tells whether the cgroup still has its name.
func (c *Cgroup) isNamed(parent *os.File) bool {
	var own, named unix.Stat_t
	return unix.Fstat(int(c.dir.Fd()), &own) == nil &&
		unix.Fstatat(int(parent.Fd()), path.Base(c.path), &named, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		own.Ino == named.Ino && own.Dev == named.Dev
}

// id is the cgroup's number, which is never used again.
func (c *Cgroup) id() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(c.dir.Fd()), &st); err != nil {
		return 0, c.fileError("", err)
	}
	return st.Ino, nil
}
