package container

import (
	"path"
	"slices"
	"strings"
)

// This file checks where a cgroup is to be.

// checkCgroupConfig checks Config.Cgroup.
func checkCgroupConfig(c *Config) []error {
	var errs fieldErrors
	g := c.Cgroup
	if g == nil {
		return nil
	}
	switch g.Manager {
	case CgroupAuto, CgroupFS, CgroupSystemd:
	default:
		errs.addf("Cgroup.Manager", "unknown manager %q; one of CgroupAuto, CgroupFS, CgroupSystemd", g.Manager)
	}
	if g.Path != "" {
		switch {
		case g.Manager == CgroupSystemd:
			errs.addf("Cgroup.Path", "systemd decides about the place; set Parent to a slice, or Manager to CgroupFS")
		case g.Parent != "" || g.Name != "":
			errs.addf("Cgroup.Path", "is the whole path; leave Parent and Name empty")
		}
		if errs.cgroupPath("Cgroup.Path", g.Path) && g.Path == "/" {
			errs.addf("Cgroup.Path", "the root of the tree cannot be a container's own")
		}
	}
	slice := g.Manager == CgroupSystemd || g.Manager == CgroupAuto && !strings.HasPrefix(g.Parent, "/")
	switch {
	case g.Parent == "":
	case slice && !isSlice(g.Parent):
		errs.addf("Cgroup.Parent", "%.100q is not the name of a slice of systemd's, such as \"machine.slice\" or \"user-1000.slice\"", g.Parent)
	case !slice:
		errs.cgroupPath("Cgroup.Parent", g.Parent)
	}
	scope := g.Manager == CgroupSystemd || g.Manager == CgroupAuto && strings.HasSuffix(g.Parent, ".slice")
	switch {
	case g.Name == "":
	case scope && !isUnit(g.Name, ".scope"):
		errs.addf("Cgroup.Name", "%.100q is not the name of a scope of systemd's, such as \"demo.scope\"", g.Name)
	case !scope:
		errs.cgroupBelow("Cgroup.Name", g.Name)
	}
	if g.Delegate && !(c.Namespaces.NewCgroup && c.Namespaces.NewMnt) {
		errs.addf("Cgroup.Delegate", "needs a new cgroup namespace and a new mount namespace; set Namespaces.NewCgroup and NewMnt")
	}
	return errs
}

// cgroupPath complains about what is not the path of a cgroup as /proc/PID/cgroup has it.
func (e *fieldErrors) cgroupPath(field, p string) bool {
	if !e.absolute(field, p) {
		return false
	}
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if problem := cgroupNameProblem(name); p != "/" && problem != "" {
			e.addf(field, "%.100q %s", p, problem)
			return false
		}
	}
	return true
}

// cgroupNameProblem says what is wrong with the name of a cgroup. The kernel's own files are beside it, so it must be none of
// theirs, now or in a newer kernel.
func cgroupNameProblem(name string) string {
	prefix, _, dot := strings.Cut(name, ".")
	switch {
	case name == "" || name == "." || name == "..":
		return "is not in its shortest form"
	case len(name) > 255:
		return "has a name of more than 255 bytes"
	case strings.ContainsFunc(name, isControl):
		return "contains a control character"
	case dot && (prefix == "cgroup" || prefix == "irq" || slices.Contains(cgroupControllers, prefix)):
		return "has a name that is like those of the kernel's own files; put \"_\" in front of it"
	}
	return ""
}

// isSlice tells whether this is the name of a slice of systemd's; see systemd.slice(5).
func isSlice(name string) bool {
	base, _ := strings.CutSuffix(name, ".slice")
	return isUnit(name, ".slice") && (base == "-" || base[0] != '-' && base[len(base)-1] != '-' && !strings.Contains(base, "--"))
}

// isUnit tells whether this is the name of a unit of systemd's; see systemd.unit(5).
func isUnit(name, kind string) bool {
	base, ok := strings.CutSuffix(name, kind)
	return ok && len(name) <= 255 && isWord(base, ":_.-\\")
}

// checkProcessCgroup checks Process.Cgroup by itself.
func checkProcessCgroup(p *Process) []error {
	var errs fieldErrors
	if p.Cgroup != "" {
		errs.cgroupBelow("Cgroup", p.Cgroup)
	}
	return errs
}

// cgroupBelow complains about what is not the path of a cgroup below another.
func (e *fieldErrors) cgroupBelow(field, p string) {
	if strings.HasPrefix(p, "/") || p != path.Clean(p) || p == "." {
		e.addf(field, "%.100q is not a path below another cgroup in its shortest form, such as \"jobs/1\"", p)
		return
	}
	for name := range strings.SplitSeq(p, "/") {
		if problem := cgroupNameProblem(name); problem != "" {
			e.addf(field, "%.100q %s", p, problem)
			return
		}
	}
}

// validateFor is validate for a process of a container with this configuration, the first one or another.
func (p *Process) validateFor(c *Config, first bool) error {
	var errs fieldErrors
	errs.add(p.validate())
	errs.add(p.checkSeccompHandler(c))
	lacks := func(field, why string) {
		errs.add(&FieldError{Field: field, Problem: why + ": set Config.Cgroup or Config.Resources", Err: ErrNoCgroup})
	}
	if p.Cgroup != "" && !c.ownCgroup() {
		lacks("Cgroup", "is below the container's cgroup")
	}
	switch {
	case p.CPUTime < 0:
		errs.addf("CPUTime", "%v is negative", p.CPUTime)
	case p.CPUTime == 0:
	case first && c.Detached:
		errs.addf("CPUTime", "with Config.Detached nobody is sure to be there when it is used up; use RLIMIT_CPU")
	case !c.ownCgroup():
		lacks("CPUTime", "is counted by the container's cgroup")
	case !first && p.Cgroup == "":
		errs.addf("CPUTime", "is counted by a cgroup of this process's own; set Cgroup")
	}
	switch {
	case p.Timeout < 0:
		errs.addf("Timeout", "%v is negative", p.Timeout)
	case p.Timeout != 0 && first && c.Detached:
		errs.addf("Timeout", "with Config.Detached nobody is sure to be there when it is over; use timeout(1) in the container")
	}
	return errs.join()
}
