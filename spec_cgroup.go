package container

import (
	"path"
	"reflect"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates the cgroup of an OCI specification: its place, and the limits of a new container.

// resources comes after mounts and devices.
func (s *fromSpec) resources() {
	s.cgroupsPath()
	if s.spec.Linux.Resources != nil {
		s.limits(*s.spec.Linux.Resources)
	}
	if s.cfg.Cgroup != nil || s.cfg.Resources != nil {
		s.delegate()
	}
}

func (s *fromSpec) limits(in specs.LinuxResources) {
	in.Devices = nil // see devices
	r, err := ResourcesFromSpec(&in)
	if err != nil {
		s.errs.add(err)
		return
	}
	if r.Pids != nil && *r.Pids.Max == 0 && s.before(3) {
		r.Pids = nil // 0 was what clients wrote for no limit, before 1.3 gave it a meaning
	}
	if s.cfg.Resources != nil {
		r.Devices = s.cfg.Resources.Devices
	}
	s.cfg.Resources = r.ofNew()
}

// before tells whether the specification is older than 1.minor.
func (s *fromSpec) before(minor int) bool {
	parts := strings.SplitN(s.spec.Version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	n, err := strconv.Atoi(parts[1])
	return err == nil && n < minor
}

// cgroupsPath: the form "slice:prefix:name" is podman's and others' for a scope of systemd's.
func (s *fromSpec) cgroupsPath() {
	const field = "linux.cgroupsPath"
	p := s.spec.Linux.CgroupsPath
	parts := strings.Split(p, ":")
	switch {
	case p == "":
	case strings.HasPrefix(p, "/"):
		s.cfg.Cgroup = &CgroupConfig{Manager: CgroupFS, Path: path.Clean(p)}
	case len(parts) != 3:
		s.cfg.Cgroup = &CgroupConfig{Manager: CgroupFS, Name: path.Clean(p)}
	case parts[2] == "":
		s.errs.addf(field, "%q lacks a name; write \"slice:prefix:name\"", p)
	case strings.HasSuffix(parts[2], ".slice"):
		s.errs.addf(field, "%q names a slice, which holds no processes; write \"slice:prefix:name\"", p)
	default:
		name := parts[2] + ".scope"
		if parts[1] != "" {
			name = parts[1] + "-" + name
		}
		s.cfg.Cgroup = &CgroupConfig{Manager: CgroupSystemd, Parent: parts[0], Name: name}
	}
}

// delegate: a container that mounts its cgroup writable, in a namespace of its own, is to own it.
func (s *fromSpec) delegate() {
	if !s.cfg.Namespaces.NewCgroup || !s.cfg.Namespaces.NewMnt {
		return
	}
	for _, m := range s.cfg.Mounts {
		if m.Type == "cgroup2" && m.Target == "/sys/fs/cgroup" && m.Flags&MountReadOnly == 0 {
			if s.cfg.Cgroup == nil {
				s.cfg.Cgroup = &CgroupConfig{}
			}
			s.cfg.Cgroup.Delegate = true
		}
	}
}

// ofNew returns what of the Resources is not so anyway in a new cgroup, nil if nothing is: what clients write for "no limit" asks for
// no cgroup and no controller.
func (r *Resources) ofNew() *Resources {
	out := deepCopy(r)
	if c := out.CPU; c != nil {
		if c.Quota != nil && *c.Quota == Unlimited && (c.Period == 0 || c.Period == 100000) {
			c.Quota, c.Period = nil, 0
		}
		if c.Burst != nil && *c.Burst == 0 {
			c.Burst = nil
		}
		if c.Idle != nil && !*c.Idle {
			c.Idle = nil
		}
	}
	keep := out.CPU // a period that is not the default is beside a quota of none
	out.CPU = nil
	dropUnlimited(reflect.ValueOf(out).Elem())
	if keep != nil && *keep != (CPUResources{}) {
		out.CPU = keep
	}
	if reflect.ValueOf(*out).IsZero() {
		return nil
	}
	return out
}

// dropUnlimited clears what is Unlimited, and what is empty then.
func dropUnlimited(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			dropUnlimited(v.Field(i))
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if dropUnlimited(v.Elem()); v.Elem().Kind() == reflect.Struct && v.Elem().IsZero() || v.Elem().Kind() == reflect.Int64 && v.Elem().Int() == Unlimited {
			v.SetZero()
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			element := reflect.New(v.Type().Elem()).Elem()
			element.Set(v.MapIndex(key))
			dropUnlimited(element)
			if empty := element.Kind() == reflect.Struct && element.IsZero(); empty || element.Kind() == reflect.Int64 && element.Int() == Unlimited {
				element = reflect.Value{} // deletes it
			}
			v.SetMapIndex(key, element)
		}
		if v.Len() == 0 {
			v.SetZero()
		}
	}
}

// resources comes before devices, which adds rules.
func (t *toSpec) resources() {
	t.cgroup()
	if t.cfg.Resources == nil {
		return
	}
	t.spec.Linux.Resources = limitsToSpec(t.cfg.Resources)
}

func (t *toSpec) cgroup() {
	g := t.cfg.Cgroup
	switch {
	case g == nil:
	case g.Path != "":
		t.spec.Linux.CgroupsPath = g.Path
	case g.Name == "":
		if *g != (CgroupConfig{Delegate: g.Delegate}) {
			t.errs.addf("Cgroup", "the specification has a word for the whole place only; set Path, or Name")
		}
	case g.Manager == CgroupSystemd || strings.HasSuffix(g.Parent, ".slice"):
		t.spec.Linux.CgroupsPath = g.Parent + "::" + strings.TrimSuffix(g.Name, ".scope")
	case g.Parent != "":
		t.spec.Linux.CgroupsPath = path.Join(g.Parent, g.Name)
	default:
		t.spec.Linux.CgroupsPath = g.Name
	}
}
