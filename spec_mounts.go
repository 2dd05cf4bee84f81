package container

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates the mounts of an OCI specification. The specification's options speak of the
// topmost mount of a recursive bind, unless they have an "r" in front.

// quietOptions ask a bind, or any file system, for what is the case anyway.
var (
	quietOptions     = []string{"", "defaults", "loud", "silent", "noiversion"}
	quietBindOptions = []string{"async", "nolazytime", "nomand"}
)

func (s *fromSpec) mounts() {
	s.cfg.MountLabel = s.spec.Linux.MountLabel
	for i, m := range s.spec.Mounts {
		s.cfg.Mounts = append(s.cfg.Mounts, s.mount(i, m))
	}
}

func (s *fromSpec) mount(i int, in specs.Mount) Mount {
	complain := func(field, format string, args ...any) {
		s.errs.addf(specField("mounts", i, field), format, args...)
	}
	bind := in.Type == "bind" || slices.Contains(in.Options, "bind") || slices.Contains(in.Options, "rbind")
	var options []string
	idmap, ridmap := false, false
	for _, o := range in.Options {
		switch {
		case o == "idmap":
			idmap = true
		case o == "ridmap":
			ridmap = true
		case slices.Contains(quietOptions, o) || bind && slices.Contains(quietBindOptions, o):
		default:
			options = append(options, o)
		}
	}
	m, err := ParseMountOptions(strings.Join(options, ","))
	if err != nil {
		complain("options", "%v", err)
	}
	switch {
	case bind:
		m.Type, m.Source = "bind", s.hostPath(in.Source)
		if in.Source == "" {
			complain("source", "is missing")
		}
		if m.Data != "" {
			complain("options", "a bind has no option %q", m.Data)
		}
	case in.Type == "cgroup" || in.Type == "cgroup2":
		m.Type, m.Source = "cgroup2", in.Source
	default:
		m.Type, m.Source = in.Type, in.Source
		if !slices.Contains(mountTypes, m.Type) {
			complain("type", "cannot mount a %q; one of %s can be, and cgroup", in.Type, strings.Join(mountTypes, ", "))
		}
	}
	m.Target = insidePath(in.Destination)
	if in.Destination == "" {
		complain("destination", "is missing")
	}

	m.UidMappings, m.GidMappings = idMapsFromSpec(in.UIDMappings), idMapsFromSpec(in.GIDMappings)
	if (idmap || ridmap) && len(m.UidMappings)+len(m.GidMappings) == 0 {
		m.UidMappings, m.GidMappings = deepCopy(s.cfg.UidMappings), deepCopy(s.cfg.GidMappings)
		if len(m.UidMappings) == 0 {
			complain("options", "idmap needs mappings, of the mount or of a user namespace")
		}
	}
	m.Flags &^= Recursive
	if slices.Contains(options, "rbind") {
		m.Flags |= Recursive
		mapped := len(m.UidMappings)+len(m.GidMappings) > 0
		top, deep := splitAttributes(options)
		if mapped && !ridmap {
			top |= idmapped
		} else if mapped {
			deep |= idmapped
		}
		switch {
		case top != 0 && deep == 0:
			m.Flags |= TopOnly
		case top&^deep != 0:
			complain("options", "of a recursive bind either all mounts have attributes, or the topmost one alone: write them all with or all without an \"r\"")
		}
	}
	return m
}

// idmapped stands for an idmapped mount among the attributes.
const idmapped = Recursive

// splitAttributes tells which attributes options set or clear on the topmost mount, and which on all.
func splitAttributes(options []string) (plain, deep MountFlags) {
	for _, o := range options {
		for _, a := range mountAttributes {
			switch o {
			case a.on, a.off:
				plain |= a.flag
			case "r" + a.on, "r" + a.off:
				deep |= a.flag
			}
		}
	}
	return plain, deep
}

func (t *toSpec) mounts() {
	for _, m := range t.withDev() {
		out := specs.Mount{
			Destination: m.Target, Type: m.Type, Source: m.source(),
			UIDMappings: idMapsToSpec(m.UidMappings), GIDMappings: idMapsToSpec(m.GidMappings),
		}
		if m.Type == "cgroup2" {
			out.Type = "cgroup"
		}
		recursive := m.Type == "bind" && m.Flags&Recursive != 0
		prefix := ""
		if recursive && m.Flags&TopOnly == 0 {
			prefix = "r"
		}
		add := func(option string, yes bool) {
			if yes {
				out.Options = append(out.Options, option)
			}
		}
		add("bind", m.Type == "bind" && !recursive)
		add("rbind", recursive)
		for _, a := range mountAttributes {
			add(prefix+a.off, m.ClearFlags&a.flag != 0)
		}
		for _, a := range mountAttributes {
			add(prefix+a.on, m.Flags&a.flag != 0)
		}
		add(string(m.Propagation), m.Propagation != "")
		add("tmpcopyup", m.CopyUp)
		add("nofail", m.Optional)
		mapped := len(m.UidMappings)+len(m.GidMappings) > 0
		add(prefix+"idmap", mapped)
		out.Options = append(out.Options, m.dataOptions()...)
		t.spec.Mounts = append(t.spec.Mounts, out)
	}
}

// withDev adds what /dev has here without being asked, so that another runtime makes the same.
func (t *toSpec) withDev() []Mount {
	if !t.cfg.Namespaces.NewMnt {
		return nil
	}
	pts := "newinstance,ptmxmode=0666,mode=0620"
	gids := t.cfg.GidMappings
	if len(gids) == 0 {
		_, gids = defaultMaps()
	}
	if _, ok := mapToHost(gids, ttyGroup); ok || !t.cfg.Namespaces.NewUser {
		pts += ",gid=5"
	}
	const quiet = NoSuid | NoExec
	own := []Mount{
		{Type: "tmpfs", Source: "tmpfs", Target: "/dev", Flags: quiet, Data: "mode=0755,size=65536k"},
		{Type: "devpts", Source: "devpts", Target: "/dev/pts", Flags: quiet, Data: pts},
		{Type: "tmpfs", Source: "shm", Target: "/dev/shm", Flags: quiet | NoDev, Data: "mode=1777,size=64m"},
	}
	if t.cfg.Namespaces.private(IPCNamespace) {
		own = append(own, Mount{Type: "mqueue", Source: "mqueue", Target: "/dev/mqueue", Flags: quiet | NoDev})
	}
	own = slices.DeleteFunc(own, func(m Mount) bool {
		return slices.ContainsFunc(t.cfg.Mounts, func(asked Mount) bool { return asked.Target == m.Target })
	})
	first := 1 + slices.IndexFunc(t.cfg.Mounts, func(m Mount) bool { return m.Target == "/dev" })
	return slices.Insert(slices.Clone(t.cfg.Mounts), first, own...)
}
