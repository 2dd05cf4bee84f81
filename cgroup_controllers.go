//go:build linux

package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file enables controllers: a cgroup has the files of a controller if that is in the cgroup.subtree_control of each
// cgroup above. It runs in the caller's process.

// enable lets the children of a cgroup have controllers, from the cgroup top on downwards. Only what is missing is written.
func (t cgroupTree) enable(top, cgroup string, controllers []string) error {
	if len(controllers) == 0 {
		return nil
	}
	if top == "" || !within(cgroup, top) {
		top = cgroup
	}
	level := top
	for rest := strings.Trim(strings.TrimPrefix(cgroup, top), "/"); ; {
		if err := t.enableLevel(level, controllers); err != nil {
			return err
		}
		if rest == "" {
			return nil
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		level = path.Join(level, name)
	}
}

func (t cgroupTree) enableLevel(cgroup string, controllers []string) error {
	dir, err := t.open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	c := &Cgroup{dir: dir, path: cgroup}
	const control = "cgroup.subtree_control"
	on, err := c.words(control)
	if err != nil {
		return err
	}
	offered, err := c.words("cgroup.controllers")
	if err != nil {
		return err
	}
	var missing []string
	for _, name := range controllers {
		switch {
		case slices.Contains(on, name) || slices.Contains(missing, name):
		case !slices.Contains(offered, name):
			return &Error{Op: "cgroup", Path: path.Join(cgroup, "cgroup.controllers"), Err: fmt.Errorf("no controller %s: %w", name, ErrUnsupported), Remedy: t.whyNoController(name, cgroup)}
		default:
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	// Beside processes the kernel refuses memory and io. It takes cpu and pids, and makes a threaded cgroup of it, in whose children
	// nobody can be. The root of the tree has no type and may have both.
	procs, err := c.readFile("cgroup.procs")
	switch {
	case err == nil && procs != "" && c.has("cgroup.type"):
		return enableError(path.Join(cgroup, control), missing[0], unix.EBUSY)
	case err != nil && !errors.Is(err, unix.EOPNOTSUPP):
		return err
	}
	if c.writeFile(control, "+"+strings.Join(missing, " +")) == nil {
		return nil
	}
	for _, name := range missing { // one after the other, to name the one that fails
		if err := c.writeFile(control, "+"+name); err != nil {
			return enableError(path.Join(cgroup, control), name, err)
		}
	}
	return nil
}

// words reads a file of words.
func (c *Cgroup) words(name string) ([]string, error) {
	text, err := c.readFile(name)
	return strings.Fields(text), err
}

// enableError completes the kernel's refusal.
func enableError(file, controller string, err error) error {
	var inner *Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	remedy := ""
	switch {
	case errors.Is(err, unix.EBUSY):
		remedy = "there are processes in this cgroup; move them to one below"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		remedy = "this cgroup has not been delegated to the caller: " + remedyDelegate
	case errors.Is(err, unix.EROFS):
		remedy = "as root: mount -o remount,rw the tree of cgroups"
	case errors.Is(err, unix.EOPNOTSUPP):
		remedy = "this cgroup is threaded; choose another parent"
	case errors.Is(err, unix.EINVAL) && controller == "cpu":
		remedy = "realtime processes in a cgroup keep the kernel from dividing the processors (CONFIG_RT_GROUP_SCHED); as root: chrt --other -p 0 PID"
	}
	return &Error{Op: "cgroup", Path: file, Err: fmt.Errorf("enable controller %s: %w", controller, err), Remedy: remedy}
}

// whyNoController says what to do about a controller that a cgroup is not offered.
func (t cgroupTree) whyNoController(name, cgroup string) string {
	old, disabled, known := controllerElsewhere(name)
	if dir, err := t.open(t.top()); err == nil { // version 1 and the kernel's command line have left it to the tree
		words, _ := (&Cgroup{dir: dir}).words("cgroup.controllers")
		dir.Close()
		if slices.Contains(words, name) {
			old, disabled, known = false, false, true
		}
	}
	switch {
	case old:
		return "taken by version 1 of cgroups: " + remedyUnified
	case disabled:
		return "remove cgroup_disable=" + name + " from the kernel's command line, or add cgroup_enable=" + name
	case !known:
		return "this kernel is built without it"
	case systemdRuns() && !slices.Contains([]string{"cpu", "cpuset", "io", "memory", "pids"}, name):
		return "systemd hands on cpu, cpuset, io, memory and pids only; as root, set Cgroup.Parent to a place that is not systemd's: \"" + rootParent + "\""
	case strings.Contains(cgroup, "/user@"):
		return "systemd has not delegated it to users. " + remedyControllers
	case systemdRuns():
		return "systemd has not delegated it: set Delegate=yes for the unit " + path.Base(cgroup)
	}
	return "enable it in cgroup.subtree_control of each cgroup above, from the root of the tree down"
}

// controllerElsewhere tells whether version 1 has a controller, whether it was disabled at boot, and whether the kernel
// knows it at all.
func controllerElsewhere(name string) (old, disabled, known bool) {
	if f, err := os.Open("/proc/self/cgroup"); err == nil {
		old = oldController(f, name)
		f.Close()
	}
	f, err := os.Open("/proc/cgroups")
	if err != nil {
		return old, false, true
	}
	defer f.Close()
	disabled, known = parseControllers(f, name)
	return old, disabled, known
}

// oldNames are the controllers that had another name in version 1.
var oldNames = map[string]string{"io": "blkio"}

// oldController looks for a controller of version 1 in /proc/self/cgroup.
func oldController(r io.Reader, name string) bool {
	if other := oldNames[name]; other != "" {
		name = other
	}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		id, rest, _ := strings.Cut(lines.Text(), ":")
		list, _, _ := strings.Cut(rest, ":")
		if id != "0" && slices.Contains(strings.Split(list, ","), name) {
			return true
		}
	}
	return false
}

// parseControllers looks for a controller in /proc/cgroups: name, hierarchy, number of cgroups, enabled. Newer kernels do not list those
// that version 1 never had.
func parseControllers(r io.Reader, name string) (disabled, known bool) {
	if other := oldNames[name]; other != "" {
		name = other
	}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 4 && fields[0] == name {
			return fields[3] == "0", true
		}
	}
	return false, false
}
