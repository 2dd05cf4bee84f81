package container

import (
	"math"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates the hooks of an OCI specification.

// specHooks pairs the lists of the two.
func specHooks(theirs *specs.Hooks, ours *Hooks) []struct {
	kind   hookKind
	theirs *[]specs.Hook
	ours   *[]Hook
} {
	return []struct {
		kind   hookKind
		theirs *[]specs.Hook
		ours   *[]Hook
	}{
		{hookPrestart, &theirs.Prestart, &ours.Prestart}, //nolint:staticcheck // deprecated, and still to be run
		{hookCreateRuntime, &theirs.CreateRuntime, &ours.CreateRuntime},
		{hookCreateContainer, &theirs.CreateContainer, &ours.CreateContainer},
		{hookStartContainer, &theirs.StartContainer, &ours.StartContainer},
		{hookPoststart, &theirs.Poststart, &ours.Poststart},
		{hookPoststop, &theirs.Poststop, &ours.Poststop},
	}
}

func (s *fromSpec) hooks() {
	if s.spec.Hooks == nil {
		return
	}
	hooks := new(Hooks)
	for _, list := range specHooks(s.spec.Hooks, hooks) {
		name := "hooks." + string(list.kind)
		for i, in := range *list.theirs {
			h := Hook{Path: in.Path, Args: slices.Clone(in.Args), Env: slices.Clone(in.Env)}
			if !path.IsAbs(in.Path) {
				s.errs.addf(specField(name, i, "path"), "%q is not an absolute path", in.Path)
			}
			if in.Timeout != nil {
				if *in.Timeout <= 0 || *in.Timeout > int(math.MaxInt32) {
					s.errs.addf(specField(name, i, "timeout"), "%d is not a number of seconds above 0", *in.Timeout)
				}
				h.Timeout = time.Duration(*in.Timeout) * time.Second
			}
			*list.ours = append(*list.ours, h)
			s.cfg.Hooks = hooks
		}
	}
}

func (t *toSpec) hooks() {
	if t.cfg.Hooks == nil {
		return
	}
	out := new(specs.Hooks)
	for _, list := range specHooks(out, t.cfg.Hooks) {
		field := "Hooks." + string(list.kind)
		for i, h := range *list.ours {
			in := specs.Hook{Path: h.Path, Args: slices.Clone(h.Args), Env: slices.Clone(h.Env)}
			if h.isFunc() {
				t.errs.addf(specField(field, i, "Func"), "the specification knows programs only")
			}
			if h.Timeout%time.Second != 0 {
				t.errs.addf(specField(field, i, "Timeout"), "the specification counts whole seconds, and not %v", h.Timeout)
			}
			if seconds := int(h.Timeout / time.Second); seconds != 0 {
				in.Timeout = &seconds
			}
			*list.theirs = append(*list.theirs, in)
			t.spec.Hooks = out
		}
	}
}
