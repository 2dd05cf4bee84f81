package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// This file reads the JSON of profiles, and copies them. Writing them is encoding/json's own affair.

// UnmarshalJSON reads a profile of the OCI runtime specification or of Docker, whose older ones have rules with a "name". A field that is
// neither's is refused: what a filter does not do must not be thought done. Values are checked by New.
func (p *SeccompProfile) UnmarshalJSON(text []byte) error {
	if bytes.Equal(text, defaultProfileJSON()) { // as most records have it
		*p = *DefaultSeccompProfile()
		return nil
	}
	type plain SeccompProfile
	type rule SeccompRule
	var in struct {
		plain
		Syscalls []struct {
			rule
			Name string `json:"name"`
		} `json:"syscalls"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	out := SeccompProfile(in.plain)
	for i, r := range in.Syscalls {
		if r.Name != "" {
			if len(r.Names) > 0 {
				return fmt.Errorf("seccomp profile: rule %d has both \"name\" and \"names\"", i)
			}
			r.Names = []string{r.Name}
		}
		out.Syscalls = append(out.Syscalls, SeccompRule(r.rule))
	}
	*p = out
	return nil
}

// defaultProfileJSON is the default profile as encoding/json writes it. To read that takes a millisecond.
var defaultProfileJSON = sync.OnceValue(func() []byte {
	text, err := json.Marshal(defaultProfile())
	if err != nil {
		panic(err) // plain data
	}
	return text
})

// clone is deepCopy, which would look at each of hundreds of names.
func (p *SeccompProfile) clone() *SeccompProfile {
	if p == nil {
		return nil
	}
	out := *p
	out.DefaultErrno = copyPointer(p.DefaultErrno)
	out.Architectures, out.Flags = slices.Clone(p.Architectures), slices.Clone(p.Flags)
	out.ArchMap, out.Syscalls = slices.Clone(p.ArchMap), slices.Clone(p.Syscalls)
	for i := range out.ArchMap {
		out.ArchMap[i].SubArchitectures = slices.Clone(out.ArchMap[i].SubArchitectures)
	}
	for i := range out.Syscalls {
		r := &out.Syscalls[i]
		r.Names, r.Args, r.Errno = slices.Clone(r.Names), slices.Clone(r.Args), copyPointer(r.Errno)
		r.Includes, r.Excludes = r.Includes.clone(), r.Excludes.clone()
	}
	return &out
}

func (c *SeccompCondition) clone() *SeccompCondition {
	if c == nil {
		return nil
	}
	return &SeccompCondition{Caps: slices.Clone(c.Caps), Arches: slices.Clone(c.Arches), MinKernel: c.MinKernel}
}

func copyPointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}
