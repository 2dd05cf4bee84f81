//go:build linux

package container

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
)

// This file sets limits on a cgroup. It runs in the caller's process.

// Apply sets the limits of r, all or none: after an error those that had been set are as they were. What r does not name stays. Each
// limit is read back. Errors name the controller, the file, the field of Resources, and what can be done about it. A
// limit that is lower than what is used holds from now on; for memory that means that the kernel takes
// memory back, and kills if it cannot.
//
// The controllers are enabled from the root of the tree, or from where it has been delegated to the caller, down to the cgroup. If
// the caller is above the cgroup itself it makes room; see [CgroupConfig.Parent].
func (c *Cgroup) Apply(r *Resources) error {
	if err := errors.Join(r.validate("Resources")...); err != nil {
		return err
	}
	if c.removed() {
		return &Error{Op: "cgroup", Path: c.path, Err: errCgroupGone}
	}
	place := (&CgroupConfig{}).treePlace(askPlaceFacts(), c.path)
	if err := place.enable(r.controllers()); err != nil {
		return err
	}
	return c.apply(r)
}

// apply is Apply for a cgroup that has the controllers.
func (c *Cgroup) apply(r *Resources) (err error) {
	if r == nil {
		return nil
	}
	var undo []func()
	defer func() {
		if err == nil {
			return
		}
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}()
	for _, f := range r.files() {
		back, err := c.set(f)
		if back != nil {
			undo = append(undo, back)
		}
		if err != nil {
			return err
		}
	}
	if r.Devices == nil {
		return nil
	}
	return c.setDevices(r.Devices) // the last: it needs no undoing
}

// set writes a file and reads it back. Undo is not nil if the file may have changed.
func (c *Cgroup) set(f cgroupFile) (undo func(), err error) {
	before, err := c.readFile(f.name)
	switch {
	case errors.Is(err, unix.ENOENT) && f.or != "" && c.has(f.or):
		return nil, nil
	case errors.Is(err, unix.EACCES) && f.same == nil: // it is for writing only
		return nil, f.explain(c.writeFile(f.name, f.text))
	case err != nil:
		return nil, f.explain(err)
	}
	if f.text != "" {
		if err := c.writeFile(f.name, f.text); err != nil {
			return nil, f.explain(err)
		}
	}
	if text := f.undo(before); text != "" {
		undo = func() { _ = c.writeFile(f.name, text) }
	}
	if f.same == nil {
		return undo, nil
	}
	after, err := c.readFile(f.name)
	if err != nil {
		return undo, f.explain(err)
	}
	if !f.same(after) {
		return undo, f.explain(&Error{Op: "cgroup", Path: c.path + "/" + f.name, Err: &notTakenError{f.text, after}})
	}
	return undo, nil
}

// has tells whether the cgroup has a file.
func (c *Cgroup) has(name string) bool {
	return unix.Faccessat(int(c.dir.Fd()), name, unix.F_OK, 0) == nil
}

// A notTakenError says that the kernel has made something else of a limit.
type notTakenError struct{ written, read string }

func (e *notTakenError) Error() string {
	if e.written == "" {
		return fmt.Sprintf("it is %q", strings.TrimSpace(e.read))
	}
	return fmt.Sprintf("the kernel has made %q of %q", strings.TrimSpace(e.read), strings.TrimSpace(e.written))
}

// explain completes an error: which field it was, and what can be done.
func (f cgroupFile) explain(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	remedy := cmp.Or(e.Remedy, f.remedyFor(e.Err))
	return &Error{Op: f.field, Path: e.Path, Err: e.Err, Remedy: remedy}
}

func (f cgroupFile) remedyFor(err error) string {
	switch {
	case errors.Is(err, ErrNotExist):
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "the controller " + f.controller + " of this kernel has no such file"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "the file belongs to who has made the cgroup: be root, or use a cgroup below a delegated one"
	case errors.Is(err, unix.EOPNOTSUPP):
		return "this kernel, or the device's scheduler, does not support it"
	}
	return cmp.Or(f.remedy, fmt.Sprintf("the kernel does not take %q for %s", f.text, f.name))
}
