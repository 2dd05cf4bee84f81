package container

import (
	"maps"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file turns a Config and a Process into an OCI specification.

// ToSpec turns a Config, and a Process if it is not nil, into an OCI runtime specification, for other
// runtimes or for [FromSpec], which makes the same of it: what is left to defaults in cfg is written out
// in the specification, among it what /dev has without being asked. The default maps of a new
// user namespace are those of the calling user.
//
// All complaints about what the specification has no word for are returned at once, each a *FieldError: a
// copy-on-write root, users by name, Network but for NetDevices, DieWithParent and what else is about this package's own
// handling. Streams, Logger, Bundle and SeccompNotify are left out. The rules of Seccomp are those for the process on this host. DevicesOnly becomes rules, which FromSpec makes Resources.Devices of.
func ToSpec(cfg Config, p *Process) (*specs.Spec, error) {
	t := &toSpec{cfg: &cfg, spec: &specs.Spec{
		Version:    specs.Version,
		Hostname:   cfg.Hostname,
		Domainname: cfg.Domainname,
		Linux:      &specs.Linux{},
	}}
	if len(cfg.Annotations) > 0 {
		t.spec.Annotations = maps.Clone(cfg.Annotations)
	}
	t.wordless()
	t.root()
	t.linux()
	t.network()
	t.seccomp(p)
	t.hooks()
	t.process(p)
	t.mounts()
	t.resources()
	t.devices()
	if err := t.errs.join(); err != nil {
		return nil, err
	}
	return t.spec, nil
}

// toSpec is a conversion at work.
type toSpec struct {
	cfg  *Config
	spec *specs.Spec
	errs fieldErrors
}

// wordless refuses what the specification has no word for.
func (t *toSpec) wordless() {
	cfg := t.cfg
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"AppArmorStack", cfg.AppArmorStack},
		{"Landlock", cfg.Landlock != nil},
		{"CPUAffinity", cfg.CPUAffinity != ""},
		{"HostKeyring", cfg.HostKeyring},
		{"DieWithParent", cfg.DieWithParent},
		{"Detached", cfg.Detached},
		{"Init", cfg.Init},
		{"StopSignal", cfg.StopSignal != 0},
		{"StopTimeout", cfg.StopTimeout != 0},
	} {
		if f.set {
			t.errs.addf(f.field, "the specification has no word for it; leave it out")
		}
	}
}

func (t *toSpec) root() {
	r := t.cfg.Root
	switch {
	case !t.cfg.Namespaces.NewMnt:
		return
	case r.Dir == "" || r.access() == CopyOnWrite:
		t.errs.addf("Root", "the specification knows a directory, read-write or read-only, and no layers; use Directory")
	}
	t.spec.Root = &specs.Root{Path: r.Dir, Readonly: r.access() == ReadOnly}
}
