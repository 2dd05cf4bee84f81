package container

import (
	"maps"
	"math"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates the section "linux" of an OCI specification but for its devices: namespaces, ids,
// clocks, paths, and what is refused.

// specNamespaces are the kinds by the specification's names, where those are others.
var specNamespaces = map[specs.LinuxNamespaceType]NamespaceKind{
	specs.MountNamespace: MountNamespace, specs.NetworkNamespace: NetworkNamespace,
}

func (s *fromSpec) linux() {
	in := s.spec.Linux
	s.namespaces()
	s.cfg.UidMappings, s.cfg.GidMappings = idMapsFromSpec(in.UIDMappings), idMapsFromSpec(in.GIDMappings)
	if s.cfg.Namespaces.NewUser {
		const missing = "is missing, with a new user namespace that needs one"
		if len(in.UIDMappings) == 0 {
			s.errs.addf("linux.uidMappings", missing)
		}
		if len(in.GIDMappings) == 0 {
			s.errs.addf("linux.gidMappings", missing)
		}
	}
	s.timeOffsets()
	if len(in.Sysctl) > 0 {
		s.cfg.Sysctl = maps.Clone(in.Sysctl)
	}
	for _, p := range in.MaskedPaths {
		s.cfg.MaskPaths = append(s.cfg.MaskPaths, insidePath(p))
	}
	for _, p := range in.ReadonlyPaths {
		s.cfg.ReadonlyPaths = append(s.cfg.ReadonlyPaths, insidePath(p))
	}
	if p := in.Personality; p != nil {
		s.cfg.Personality = &Personality{Domain: string(p.Domain)}
		if len(p.Flags) > 0 {
			s.errs.addf("linux.personality.flags", "the specification defines none")
		}
	}
	if in.Seccomp != nil {
		s.cfg.Seccomp = seccompFromSpec(in.Seccomp)
	}
	if in.IntelRdt != nil {
		s.errs.addf("linux.intelRdt", "is not done here; leave it out")
	}
	if in.MemoryPolicy != nil {
		s.errs.addf("linux.memoryPolicy", "is not done here; leave it out")
	}
	s.netDevices()
}

func (s *fromSpec) namespaces() {
	ns := &s.cfg.Namespaces
	seen := map[NamespaceKind]bool{}
	for i, in := range s.spec.Linux.Namespaces {
		kind, ok := specNamespaces[in.Type]
		if !ok {
			kind = NamespaceKind(in.Type)
			for _, name := range specNamespaces {
				ok = ok || kind == name // "net" and "mnt" are names of ours only
			}
			ok = !ok && kind.known()
		}
		switch {
		case !ok:
			s.errs.addf(specField("linux.namespaces", i, "type"), "unknown kind of namespace %q", in.Type)
		case seen[kind]:
			s.errs.addf(specField("linux.namespaces", i, "type"), "%q is there already", in.Type)
		case in.Path != "" && !path.IsAbs(in.Path):
			s.errs.addf(specField("linux.namespaces", i, "path"), "%q is not an absolute path", in.Path)
		case in.Path != "":
			if ns.Join == nil {
				ns.Join = make(map[NamespaceKind]string)
			}
			ns.Join[kind] = path.Clean(in.Path)
		default:
			for _, k := range namespaceKinds {
				if k.kind == kind {
					*k.new(ns) = true
				}
			}
		}
		seen[kind] = true
	}
}

func (s *fromSpec) timeOffsets() {
	for _, clock := range slices.Sorted(maps.Keys(s.spec.Linux.TimeOffsets)) {
		in := s.spec.Linux.TimeOffsets[clock]
		to := &s.cfg.TimeOffsets.Monotonic
		switch clock {
		case "monotonic":
		case "boottime":
			to = &s.cfg.TimeOffsets.Boottime
		default:
			s.errs.addf(mapKey("linux.timeOffsets", clock), "has no offset; monotonic and boottime have")
			continue
		}
		const most = math.MaxInt64/int64(time.Second) - 1
		if in.Secs > most || in.Secs < -most || in.Nanosecs >= uint32(time.Second) {
			s.errs.addf(mapKey("linux.timeOffsets", clock), "%d s and %d ns are out of range", in.Secs, in.Nanosecs)
			continue
		}
		*to = time.Duration(in.Secs)*time.Second + time.Duration(in.Nanosecs)
	}
}

func idMapsFromSpec(in []specs.LinuxIDMapping) []IDMap {
	var list []IDMap
	for _, m := range in {
		list = append(list, IDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
	}
	return list
}

func idMapsToSpec(in []IDMap) []specs.LinuxIDMapping {
	var list []specs.LinuxIDMapping
	for _, m := range in {
		list = append(list, specs.LinuxIDMapping{ContainerID: uint32(m.ContainerID), HostID: uint32(m.HostID), Size: uint32(m.Size)})
	}
	return list
}

func (t *toSpec) linux() {
	out, cfg := t.spec.Linux, t.cfg
	for _, k := range namespaceKinds {
		name := specs.LinuxNamespaceType(k.kind)
		for theirs, ours := range specNamespaces {
			if ours == k.kind {
				name = theirs
			}
		}
		if cfg.Namespaces.private(k.kind) {
			out.Namespaces = append(out.Namespaces, specs.LinuxNamespace{Type: name, Path: cfg.Namespaces.Join[k.kind]})
		}
	}
	uid, gid := cfg.UidMappings, cfg.GidMappings
	if cfg.Namespaces.NewUser && len(uid)+len(gid) == 0 {
		uid, gid = defaultMaps()
	}
	out.UIDMappings, out.GIDMappings = idMapsToSpec(uid), idMapsToSpec(gid)
	for clock, offset := range map[string]time.Duration{"monotonic": cfg.TimeOffsets.Monotonic, "boottime": cfg.TimeOffsets.Boottime} {
		if offset == 0 {
			continue
		}
		secs := int64(math.Floor(offset.Seconds()))
		for time.Duration(secs)*time.Second > offset { // what a float64 has rounded up
			secs--
		}
		if out.TimeOffsets == nil {
			out.TimeOffsets = make(map[string]specs.LinuxTimeOffset)
		}
		out.TimeOffsets[clock] = specs.LinuxTimeOffset{Secs: secs, Nanosecs: uint32(offset - time.Duration(secs)*time.Second)}
	}
	out.Sysctl = maps.Clone(cfg.Sysctl)
	out.MountLabel = cfg.MountLabel
	out.MaskedPaths, out.ReadonlyPaths = slices.Clone(cfg.MaskPaths), slices.Clone(cfg.ReadonlyPaths)
	if cfg.Personality != nil {
		out.Personality = &specs.LinuxPersonality{Domain: specs.LinuxPersonalityDomain(cfg.Personality.Domain)}
	}
	out.RootfsPropagation = string(cfg.Root.Propagation)
}
