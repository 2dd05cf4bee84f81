package container

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file and its siblings spec_*.go translate between the OCI runtime specification and Config and
// Process. They run in the caller's process and look at nothing but their arguments. What is
// refused is named in the specification's words: "linux.resources.memory.limit".

// ReadSpec reads config.json of a bundle, a directory as the OCI runtime specification describes it.
// Fields that the specification does not have are ignored, as it demands.
func ReadSpec(bundle string) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const enough = 16 << 20
	text, err := io.ReadAll(io.LimitReader(f, enough))
	if err != nil {
		return nil, err
	}
	spec := new(specs.Spec)
	if err := json.Unmarshal(text, spec); err != nil {
		return nil, &os.PathError{Op: "parse", Path: f.Name(), Err: err}
	}
	return spec, nil
}

// FromSpec turns an OCI runtime specification into a Config and its first Process; the latter is nil if
// the specification has none. Relative paths in it are relative to bundle, an absolute path. It needs
// github.com/opencontainers/runtime-spec 1.3 or anything older from 1.0 on.
//
// Each field for Linux is carried out or refused: all complaints are returned at once, each a
// *FieldError that names the field in the specification's words, "linux.seccomp". Values are checked by
// New, whose complaints speak of the Config. Where the specification leaves something open:
//
//   - What holds for all processes of the container (capabilities, limits, umask, ...) is in the Config,
//     so that Exec has it too. Without process.capabilities there are none. Without process.user.umask it
//     is 0022, not the caller's.
//   - Ambient capabilities that are not both permitted and inheritable cannot be had, and are left out.
//   - /dev always is a tmpfs of its own with pts, shm and the default devices; a tmpfs on /dev sets the
//     options of that one. Type "cgroup" is a cgroup2.
//   - A bind without an option of propagation is private.
//   - linux.resources is as in [ResourcesFromSpec], but that what is so anyway in a new cgroup asks for nothing: -1, an idle of 0; and a
//     pids.limit of 0 before version 1.3.
//   - linux.resources.devices becomes [Resources].Devices, unless it allows everything. What no rule is about is denied; the
//     rules of [DefaultDeviceRules] are added if they are missing. A caller who is not root of the host goes on with [Config.LimitDevicesByMounts].
//   - linux.cgroupsPath of the form "slice:prefix:name" is a scope "prefix-name.scope" of systemd's, an absolute path is one in the
//     tree of cgroups, a relative one is below the usual parent. With neither it nor a limit there is no cgroup.
//   - A container that mounts type cgroup at /sys/fs/cgroup without "ro", in a new cgroup namespace, owns its cgroup.
//   - PATH and HOME are added to process.env if they are missing.
func FromSpec(spec *specs.Spec, bundle string) (Config, *Process, error) {
	s := &fromSpec{spec: spec, bundle: bundle}
	for _, f := range []func(*fromSpec){
		(*fromSpec).version, (*fromSpec).platforms, (*fromSpec).names, (*fromSpec).hooks,
		(*fromSpec).linux, (*fromSpec).root, (*fromSpec).process, (*fromSpec).mounts, (*fromSpec).devices, (*fromSpec).resources,
	} {
		f(s)
	}
	if err := s.errs.join(); err != nil {
		return Config{}, nil, err
	}
	return s.cfg, s.proc, nil
}

// fromSpec is a conversion at work.
type fromSpec struct {
	spec   *specs.Spec
	bundle string
	cfg    Config
	proc   *Process
	errs   fieldErrors
}

func (s *fromSpec) version() {
	major, rest, _ := strings.Cut(s.spec.Version, ".")
	if major != "1" || rest == "" {
		s.errs.addf("ociVersion", "%q is not a version that is known here; 1.0.0 to %s are, and what is compatible with them", s.spec.Version, specs.Version)
	}
}

// platforms: what describes containers of other systems describes none of ours.
func (s *fromSpec) platforms() {
	for _, p := range []struct {
		name  string
		given bool
	}{
		{"solaris", s.spec.Solaris != nil}, {"windows", s.spec.Windows != nil}, {"vm", s.spec.VM != nil},
		{"zos", s.spec.ZOS != nil}, {"freebsd", s.spec.FreeBSD != nil},
	} {
		if p.given {
			s.errs.addf(p.name, "is for another platform than Linux; leave it out")
		}
	}
	if s.spec.Linux == nil {
		s.errs.addf("linux", "is missing: without namespaces there is no container")
		s.spec = deepCopy(s.spec)
		s.spec.Linux = &specs.Linux{}
	}
}

func (s *fromSpec) names() {
	s.cfg.Hostname, s.cfg.Domainname = s.spec.Hostname, s.spec.Domainname
	s.cfg.Bundle = s.bundle
	if s.bundle != "" && !filepath.IsAbs(s.bundle) {
		s.errs.addf("bundle", "%q is not an absolute path", s.bundle)
	}
	if len(s.spec.Annotations) > 0 {
		s.cfg.Annotations = maps.Clone(s.spec.Annotations)
	}
}

// hostPath is a path of the host's, relative to the bundle.
func (s *fromSpec) hostPath(p string) string {
	if !path.IsAbs(p) {
		p = path.Join(filepath.ToSlash(s.bundle), p)
	}
	return path.Clean(p)
}

// insidePath is a path of the container's; relative ones, which are deprecated, begin at its root.
func insidePath(p string) string { return path.Clean("/" + p) }

func (s *fromSpec) root() {
	ns, root := &s.cfg.Namespaces, s.spec.Root
	switch {
	case root == nil && ns.NewMnt:
		s.errs.addf("root", "is missing, with a mount namespace that needs one")
	case root == nil:
	case !ns.NewMnt:
		s.errs.addf("root", "needs a new mount namespace; name type mount, without a path, in linux.namespaces")
	case root.Path == "":
		s.errs.addf("root.path", "is required")
	default:
		s.cfg.Root = Root{Dir: s.hostPath(root.Path), Access: ReadWrite, Propagation: Propagation(s.spec.Linux.RootfsPropagation)}
		if root.Readonly {
			s.cfg.Root.Access = ReadOnly
		}
	}
	if name := s.spec.Linux.RootfsPropagation; name != "" && !Propagation(name).valid() {
		s.errs.addf("linux.rootfsPropagation", "%q is unknown; one of private, slave, shared, unbindable", name)
	} else if name != "" && s.cfg.Root.Propagation == "" {
		s.errs.addf("linux.rootfsPropagation", "there is no root of the container's own")
	}
}

// OCI returns the state in the form of the OCI runtime specification.
func (s *ContainerState) OCI() *specs.State {
	return &specs.State{
		Version:     specs.Version,
		ID:          s.ID,
		Status:      specs.ContainerState(s.Status),
		Pid:         s.Pid,
		Bundle:      s.Bundle,
		Annotations: maps.Clone(s.Annotations),
	}
}

// specField is the name of a field of a list in the specification's words.
func specField(list string, i int, field string) string {
	return fmt.Sprintf("%s[%d].%s", list, i, field)
}
