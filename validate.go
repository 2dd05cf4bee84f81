package container

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// This file and its siblings validate_*.go check a Config and a Process, in the caller's process,
// before anything else happens. Each check is a function of the data alone; the list says all there
// are. What only the host can tell, such as whether a path exists, is found out where it is used.

// configChecks are all checks of a Config, in the order of its fields.
var configChecks = []func(*Config) []error{
	checkRoot,
	checkNamespaces,
	checkIDMappings,
	checkTimeOffsets,
	checkNames,
	checkMounts,
	checkDevices,
	checkDevicesOnly,
	checkPaths,
	checkSysctls,
	checkSeccompProfile,
	checkResources,
	checkCgroupConfig,
	checkLabels,
	checkLandlock,
	checkNetwork,
	checkLife,
	checkStop,
	checkHooks,
	func(c *Config) []error { return checkSettings(c.settings()) },
}

// validate returns all complaints about a Config, joined, or nil. Each is a FieldError.
func (c *Config) validate() error {
	var errs fieldErrors
	for _, check := range configChecks {
		errs = append(errs, check(c)...)
	}
	return errs.join()
}

// validateID returns an error that wraps ErrInvalidID unless id matches [A-Za-z0-9_+.-]{1,1024} and is
// neither "." nor "..": it becomes the name of a directory and of a cgroup.
func validateID(id string) error {
	ok := id != "" && len(id) <= 1024 && id != "." && id != ".."
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+.-", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%w %.100q: use 1 to 1024 of the characters A-Z a-z 0-9 _ + . -, but not \".\" or \"..\"", ErrInvalidID, id)
	}
	return nil
}

// checkLife: who is the parent of the first process, and who is process 1.
func checkLife(c *Config) []error {
	var errs fieldErrors
	if c.Detached && c.DieWithParent {
		errs.addf("Detached", "contradicts DieWithParent: set one of them")
	}
	if c.Init && !c.Namespaces.NewPID {
		errs.addf("Init", "needs Namespaces.NewPID: only process 1 of a PID namespace gets the orphans")
	}
	if strings.ContainsRune(c.Bundle, 0) {
		errs.addf("Bundle", "%q contains a NUL byte", c.Bundle)
	}
	return errs
}

// checkRoot: a root of one kind, with the accesses that make sense, and only where it is pivoted to.
func checkRoot(c *Config) []error {
	var errs fieldErrors
	r := c.Root
	given := r.Dir != "" || len(r.Layers) > 0
	touched := given || r.Access != "" || r.Upper != "" || r.UpperSize != 0 || r.Propagation != ""
	switch {
	case c.Namespaces.Join[MountNamespace] != "":
		if touched {
			errs.addf("Root", "the joined mount namespace has a root already; leave Root empty")
		}
		return errs
	case !c.Namespaces.NewMnt:
		if touched {
			errs.addf("Root", "needs a mount namespace of the container's own; set Namespaces.NewMnt, or leave Root empty")
		}
		return errs
	case !given:
		errs.addf("Root", "is required; set Dir or Layers, or use HostRoot or Directory")
		return errs
	case r.Dir != "" && len(r.Layers) > 0:
		errs.addf("Root", "has both Dir and Layers; set one of them")
		return errs
	}

	if r.Dir != "" {
		errs.absolute("Root.Dir", r.Dir)
	}
	for i, layer := range r.Layers {
		errs.absolute(index("Root.Layers", i), layer)
		if first := slices.Index(r.Layers, layer); first < i {
			errs.addf(index("Root.Layers", i), "%q is layer %d already; overlayfs takes each directory once", layer, first)
		}
	}
	writable := r.Dir != "" && r.Dir != "/"
	copies := r.Access == CopyOnWrite || r.Access == "" && !writable
	switch r.Access {
	case "", ReadOnly, CopyOnWrite:
	case ReadWrite:
		if !writable {
			errs.addf("Root.Access", "the host's root and layers cannot be written to; use CopyOnWrite or ReadOnly")
		}
	default:
		errs.addf("Root.Access", "unknown kind of access %q; one of ReadOnly, CopyOnWrite, ReadWrite", r.Access)
		return errs
	}
	if r.Upper != "" {
		errs.absolute("Root.Upper", r.Upper)
		if !copies {
			errs.addf("Root.Upper", "only a copy-on-write root has an upper directory; set Access to CopyOnWrite")
		}
	}
	switch {
	case r.UpperSize < 0:
		errs.addf("Root.UpperSize", "%d is negative; 0 means the kernel's default", r.UpperSize)
	case r.UpperSize > 0 && (!copies || r.Upper != ""):
		errs.addf("Root.UpperSize", "limits the tmpfs of a copy-on-write root without Upper; there is none")
	}
	errs.propagation("Root.Propagation", r.Propagation)
	return errs
}

// checkNamespaces: something is isolated, and no kind is both new and joined.
func checkNamespaces(c *Config) []error {
	var errs fieldErrors
	ns := c.Namespaces
	if ns.CloneFlags() == 0 && len(ns.Join) == 0 {
		errs.addf("Namespaces", "nothing is isolated; start from DefaultConfig, or use os/exec")
	}
	for _, kind := range slices.Sorted(maps.Keys(ns.Join)) {
		field := mapKey("Namespaces.Join", string(kind))
		if !kind.known() {
			errs.addf(field, "unknown kind of namespace; one of user, cgroup, ipc, uts, net, pid, time, mnt")
			continue
		}
		errs.absolute(field, ns.Join[kind])
		alone := Namespaces{NewCgroup: ns.NewCgroup, NewIPC: ns.NewIPC, NewMnt: ns.NewMnt, NewNet: ns.NewNet,
			NewPID: ns.NewPID, NewTime: ns.NewTime, NewUser: ns.NewUser, NewUTS: ns.NewUTS}
		if alone.isNew(kind) {
			errs.addf(field, "is to be both joined and new; clear Namespaces.%s, or leave this out", newFieldName(kind))
		}
	}
	return errs
}

// known tells whether this is a kind of namespace.
func (k NamespaceKind) known() bool {
	for _, known := range namespaceKinds {
		if k == known.kind {
			return true
		}
	}
	return false
}

// checkIDMappings: maps that the kernel takes, for a new user namespace or of one that is joined.
func checkIDMappings(c *Config) []error {
	var errs fieldErrors
	for _, m := range []struct {
		field, other    string
		maps, otherMaps []IDMap
	}{
		{"UidMappings", "GidMappings", c.UidMappings, c.GidMappings},
		{"GidMappings", "UidMappings", c.GidMappings, c.UidMappings},
	} {
		switch {
		case len(m.maps) == 0:
		case !c.Namespaces.private(UserNamespace):
			errs.addf(m.field, "needs a user namespace of the container's own; set Namespaces.NewUser")
			continue
		case len(m.otherMaps) == 0:
			errs.addf(m.other, "is empty, but %s is not; set both or none", m.field)
		}
		errs.add(checkIDMaps(m.field, m.maps))
		if os.Geteuid() == 0 {
			continue
		}
		for i, line := range m.maps {
			if line.HostID == 0 {
				errs.addf(index(m.field, i), "maps the host's id 0, which only root may do; see SubordinateIDs")
			}
		}
	}
	return errs
}

func checkTimeOffsets(c *Config) []error {
	var errs fieldErrors
	if c.TimeOffsets != (TimeOffsets{}) && !c.Namespaces.NewTime {
		errs.addf("TimeOffsets", "needs a new time namespace; set Namespaces.NewTime")
	}
	return errs
}

// checkNames: names that fit, in a UTS namespace of the container's own.
func checkNames(c *Config) []error {
	const max = 64 // __NEW_UTS_LEN
	var errs fieldErrors
	for _, f := range []struct{ field, name string }{{"Hostname", c.Hostname}, {"Domainname", c.Domainname}} {
		switch {
		case f.name == "":
		case !c.Namespaces.private(UTSNamespace):
			errs.addf(f.field, "needs a UTS namespace of the container's own; set Namespaces.NewUTS, or leave it empty")
		case len(f.name) > max:
			errs.addf(f.field, "has %d bytes; the kernel takes %d", len(f.name), max)
		case strings.ContainsFunc(f.name, isControl):
			errs.addf(f.field, "%q contains a control character", f.name)
		}
	}
	return errs
}

// checkPaths: masked and read-only paths, in a new mount namespace: one that is joined is left as it is.
func checkPaths(c *Config) []error {
	var errs fieldErrors
	for _, f := range []struct {
		field string
		paths []string
	}{{"MaskPaths", c.MaskPaths}, {"ReadonlyPaths", c.ReadonlyPaths}} {
		if len(f.paths) > 0 && !c.Namespaces.isNew(MountNamespace) {
			errs.addf(f.field, "needs a new mount namespace; set Namespaces.NewMnt, or leave it empty")
			continue
		}
		for i, p := range f.paths {
			errs.absolute(index(f.field, i), p)
			if p == "/" {
				errs.addf(index(f.field, i), "is the root itself; set Root.Access to ReadOnly for a root that cannot be written to")
			}
		}
	}
	return errs
}

// checkSysctls: parameters of a namespace, each once.
func checkSysctls(c *Config) []error {
	var errs fieldErrors
	seen := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(c.Sysctl)) {
		if err := checkSysctl(name, c.Sysctl[name], c.Namespaces); err != nil {
			errs.add(err)
			continue
		}
		p, _ := sysctlPath(name)
		if other, ok := seen[p]; ok {
			errs.addf(sysctlField(name), "is the same parameter as %q; leave one of them out", other)
		}
		seen[p] = name
	}
	return errs
}

func checkStop(c *Config) []error {
	var errs fieldErrors
	if c.StopSignal < 0 || c.StopSignal > sigRTMax {
		errs.addf("StopSignal", "%d is not a signal; use 1 to %d, or 0 for SIGTERM", int(c.StopSignal), sigRTMax)
	}
	return errs
}

// absolute complains about a path that is not absolute, or that has more than one spelling: what is
// compared here must be what the kernel gets later.
func (e *fieldErrors) absolute(field, p string) bool {
	switch {
	case strings.ContainsRune(p, 0):
		e.addf(field, "%q contains a NUL byte", p)
	case !strings.HasPrefix(p, "/"):
		e.addf(field, "%q is not an absolute path", p)
	case p != path.Clean(p):
		e.addf(field, "%q is not in its shortest form; write %q", p, path.Clean(p))
	default:
		return true
	}
	return false
}

// propagation complains about an unknown kind of propagation.
func (e *fieldErrors) propagation(field string, p Propagation) {
	if _, _, ok := p.flags(); !ok {
		e.addf(field, "unknown propagation %q; one of private, slave, shared, unbindable, with \"r\" in front for all mounts below", p)
	}
}
