//go:build linux

package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file gives a container its cgroup, and takes it away. It runs in the caller's process.
//
//	<parent>/demo-1a2b3c4d/           limits and counts; the caller's, and never seen inside
//	    container/                    the processes: the root of the container's cgroup namespace
//	        jobs/1/                   those of a Process.Cgroup
//
// The level in between is there where a process inside can have the user id that owns the cgroup. The
// mount option nsdelegate forbids to write to the limits at the root of one's own cgroup namespace, and
// only there: who makes a cgroup and a namespace further down looks at the limits from another namespace,
// and has the right user id. What is above the root of the namespace nobody inside can reach.

// insideCgroup is the name of the level with the processes. Podman knows it from crun, and takes its numbers from above.
const insideCgroup = "container"

// A cgroupRecord is what the container's record says about its cgroup. It is written before the cgroup is made.
type cgroupRecord struct {
	Place cgroupPlace `json:"place"`
	// Boot is the boot that it was made in: numbers begin anew with each.
	Boot string `json:"boot"`
	// ID is its number; 0 until it has been made.
	ID uint64 `json:"id,omitempty"`
	// Named: the caller has named it, so others may make one of that name.
	Named bool `json:"named,omitempty"`
	// Inner: the processes are in a cgroup of their own below it.
	Inner bool `json:"inner,omitempty"`
}

// makeCgroup makes the container's cgroup with its limits, and opens it. The launcher gets the one that p is to be born in. The container may
// have none of its own; then it returns nil.
func (c *Container) makeCgroup(ctx context.Context, st *stored, p *Process, files *launchFiles) (group *Cgroup, err error) {
	if !c.cfg.ownCgroup() {
		return nil, nil
	}
	r, err := c.placeCgroup()
	if err != nil {
		return nil, err
	}
	st.Cgroup = r
	note := func() error { return c.record.write("state.json", st) }
	if err := note(); err != nil {
		return nil, err
	}
	at("cgroup: intent")
	defer func() {
		if err != nil {
			err = errors.Join(err, c.removeCgroup(st))
			_ = note()
		}
	}()
	var g *Cgroup
	for range parentTries {
		if g, err = c.makeInPlace(ctx, r, note); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	at("cgroup: made")
	if r.Named {
		if err := note(); err != nil {
			return nil, err
		}
	}
	if err := g.apply(c.cfg.Resources); err != nil {
		return nil, err
	}
	at("cgroup: limits")
	inside := g
	if r.Inner {
		if inside, err = g.sub(insideCgroup); err != nil {
			return nil, err
		}
		defer inside.Close()
	}
	if c.cfg.Cgroup != nil && c.cfg.Cgroup.Delegate {
		if err := g.delegateTo(inside, &c.cfg); err != nil {
			return nil, err
		}
	}
	b, err := inside.sub(p.Cgroup)
	if err != nil {
		return nil, err
	}
	at("cgroup: ready")
	files.birth = r.birth(b)
	return g, nil
}

// placeCgroup decides where the cgroup is going to be.
func (c *Container) placeCgroup() (*cgroupRecord, error) {
	place, err := c.cfg.Cgroup.place(c.id, c.record.dir)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	return &cgroupRecord{Place: place, Boot: boot, Inner: c.cfg.ownsCgroup(), Named: place.Unit == "" && c.cfg.Cgroup.named()}, nil
}

// parentTries is how often a parent may be removed that has just been made: by the Destroy of the last container that was
// in it.
const parentTries = 10

// makeInPlace makes the place ready, and the cgroup in it.
func (c *Container) makeInPlace(ctx context.Context, r *cgroupRecord, note func() error) (*Cgroup, error) {
	if err := r.Place.prepare(ctx, c.record.dir, c.stopTimeout()); err != nil {
		return nil, err
	}
	at("cgroup: place")
	if r.Place.Unit != "" { // its place is known only now
		if err := note(); err != nil {
			return nil, err
		}
	}
	if err := r.Place.offer(c.cfg.Resources.controllers()); err != nil {
		return nil, err
	}
	return r.make()
}

// wantedControllers count what Stats tells, and OOM kills. They are enabled where they are available.
var wantedControllers = []string{"cpu", "io", "memory", "pids"}

// offer lets children of the parent have the controllers that the limits need, and those that are wanted.
func (p *cgroupPlace) offer(needed []string) error {
	tree, err := findCgroupTree()
	if err != nil {
		return err
	}
	dir, err := tree.open(p.Top)
	if err != nil {
		return err
	}
	defer dir.Close()
	there, err := (&Cgroup{dir: dir, path: p.Top}).words("cgroup.controllers")
	if err != nil {
		return err
	}
	all := slices.Clone(needed)
	for _, name := range wantedControllers {
		if slices.Contains(there, name) && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	if err = p.enable(all); err != nil && len(all) > len(needed) {
		return p.enable(needed)
	}
	return err
}

// make makes the cgroup at its place, which is ready.
func (r *cgroupRecord) make() (*Cgroup, error) {
	tree, err := findCgroupTree()
	if err != nil {
		return nil, err
	}
	parent, err := tree.open(r.Place.Parent)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	g, err := makeCgroup(parent, r.Place.Parent, r.Place.Name)
	// Of the other names nobody makes one but we, in a Create that was killed.
	if errors.Is(err, ErrExist) && (r.Place.Kept || !r.Named) {
		if g, err = openCgroup(r.Place.path()); err != nil {
			return nil, err
		}
		pids, err := g.Processes()
		if err == nil && len(pids) > 0 {
			err = &Error{Op: "cgroup", Path: g.path, Err: ErrExist, Remedy: "there are processes in it, which are not the container's: choose another Cgroup.Path"}
		}
		if err != nil {
			g.Close()
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if r.ID, err = g.id(); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// A birth is the cgroup that a process is to be in from its beginning.
type birth struct {
	cgroup *os.File // nil: the caller's
	// adopt moves the launcher there, before it has done anything; nil: it is born there.
	adopt func(ctx context.Context, pid int) error
}

func (b *birth) close() {
	if b.cgroup != nil {
		b.cgroup.Close()
	}
}

// birth is for a process in a cgroup of the container's. It takes ownership of g.
func (r *cgroupRecord) birth(g *Cgroup) birth {
	b := birth{cgroup: g.dir}
	if !r.Place.canBear() {
		below := strings.TrimPrefix(strings.TrimPrefix(g.path, r.Place.path()), "/")
		b.adopt = func(ctx context.Context, pid int) error { return r.Place.attach(ctx, pid, below) }
	}
	return b
}

// ownsCgroup tells whether a process inside can have the user id that owns the cgroup, which is the caller's.
func (c *Config) ownsCgroup() bool {
	if !c.Namespaces.NewUser {
		return true
	}
	maps := c.UidMappings
	if len(maps) == 0 {
		return true // by default the caller's id is mapped
	}
	_, mapped := mapFromHost(maps, uint32(os.Geteuid()))
	return mapped
}

// sub opens a cgroup below, and makes it and those in between where they are missing. With an empty name it is the cgroup
// itself.
func (c *Cgroup) sub(name string) (*Cgroup, error) {
	fd, err := openBelowCgroup(int(c.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, c.fileError("", err)
	}
	g := &Cgroup{dir: os.NewFile(uintptr(fd), c.path), path: c.path}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" {
			continue
		}
		next, err := makeCgroup(g.dir, g.path, part)
		if errors.Is(err, ErrExist) {
			next, err = g.open(part)
		}
		g.Close()
		if err != nil {
			return nil, err
		}
		g = next
	}
	return g, nil
}

// open opens a cgroup below.
func (c *Cgroup) open(name string) (*Cgroup, error) {
	full := path.Join(c.path, name)
	fd, err := openBelowCgroup(int(c.dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, c.fileError(name, err)
	}
	return &Cgroup{dir: os.NewFile(uintptr(fd), full), path: full}, nil
}

// openRecorded opens the container's cgroup. It returns ErrNoCgroup if there is none, or none any more.
func (st *stored) openCgroup() (*Cgroup, error) {
	r := st.Cgroup
	if r == nil || r.Place.Parent == "" {
		return nil, ErrNoCgroup
	}
	if boot, err := bootID(); err != nil || boot != r.Boot {
		return nil, errors.Join(ErrNoCgroup, err)
	}
	g, err := openCgroup(r.Place.path())
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil, ErrNoCgroup
	}
	if err != nil {
		return nil, err
	}
	// A number that is not known yet: the name is ours alone, or nothing of ours has been in it.
	id, err := g.id()
	if err != nil || r.ID != 0 && id != r.ID || r.ID == 0 && r.Named {
		g.Close()
		return nil, errors.Join(ErrNoCgroup, err)
	}
	return g, nil
}

// inside opens the cgroup that the processes are in, which is the root of the container's cgroup namespace.
func (r *cgroupRecord) inside(g *Cgroup) (*Cgroup, error) {
	if r.Inner {
		return g.open(insideCgroup)
	}
	return g.sub("")
}

// removeCgroup kills what is in the cgroup, and removes it and what was made for it.
func (c *Container) removeCgroup(st *stored) error {
	if st.Cgroup == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	g, err := st.openCgroup()
	switch {
	case errors.Is(err, ErrNoCgroup):
		if r := st.Cgroup; r.Named && r.ID == 0 && !r.Place.Kept {
			if tree, err := findCgroupTree(); err == nil {
				_ = tree.remove(r.Place.path()) // made, and then its maker was killed; if anybody is in it, it is another's
			}
		}
	case err != nil:
		return err
	case st.Cgroup.Place.Kept:
		if err = g.killWait(ctx); err == nil {
			err = c.removeAll(ctx, g, func() error { return g.removeBelow(ctx) })
		}
		g.Close()
	default:
		err = c.removeAll(ctx, g, func() error { return g.delete(ctx) })
		g.Close()
	}
	at("destroy: cgroup")
	if err != nil && !errors.Is(err, ErrNoCgroup) {
		return err
	}
	if err := st.Cgroup.Place.release(ctx); err != nil {
		return err
	}
	st.Cgroup = nil
	return nil
}

// takeBackCgroup undoes makeCgroup after a start that has failed.
func (c *Container) takeBackCgroup(st *stored) {
	if st.Cgroup == nil {
		return
	}
	err := c.removeCgroup(st)
	if err == nil {
		err = c.record.write("state.json", st)
	}
	if err != nil { // Destroy tries again
		c.cfg.logger().Warn("the cgroup of a failed start could not be removed", "id", c.id, "err", err)
	}
}

// findLostCgroup is for a record that has lost state.json: the name that the cgroup would have is nobody else's.
func (c *Container) findLostCgroup(st *stored) {
	if c.damage != nil || !c.cfg.ownCgroup() {
		return
	}
	if r, err := c.placeCgroup(); err == nil {
		st.Cgroup = r
	}
}

// Cgroup opens the container's cgroup: the one with the limits. The caller closes it. It returns ErrNoCgroup if the container has
// none of its own, or has not been created.
func (c *Container) Cgroup() (*Cgroup, error) {
	st, err := c.state()
	var g *Cgroup
	if err == nil {
		g, err = st.openCgroup()
	}
	if err != nil {
		return nil, &Error{Op: "cgroup", ID: c.id, Err: err}
	}
	return g, nil
}

// Set changes the limits of a container that has been created: those that r names, all or none of them. See
// [Cgroup.Apply] for the errors. The new limits hold until the container is destroyed; they are asked of the kernel and
// not recorded. It returns ErrNoCgroup if the container has no cgroup of its own.
func (c *Container) Set(r *Resources) error { return c.failed("set", c.set(r)) }

func (c *Container) set(r *Resources) error {
	if err := errors.Join(r.validate("Resources")...); err != nil {
		return err
	}
	lock, err := c.lockRecord()
	if err != nil {
		return err
	}
	defer lock.Close()
	g, err := c.liveCgroup()
	if err != nil {
		return err
	}
	defer g.Close()
	return g.apply(r)
}

// liveCgroup opens the cgroup of a container that has a process.
func (c *Container) liveCgroup() (*Cgroup, error) {
	st, err := c.state()
	if err != nil {
		return nil, err
	}
	if st.Status == StatusCreating || st.Status == StatusStopped {
		return nil, ErrNotRunning
	}
	return st.openCgroup()
}
