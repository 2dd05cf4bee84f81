package container

import (
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates the devices of an OCI specification: the nodes, and the rules about all others.

func (s *fromSpec) devices() {
	if s.cfg.Namespaces.NewMnt {
		s.cfg.Devices = DefaultDevices()
	}
	for i, in := range s.spec.Linux.Devices {
		d := s.device(i, in)
		if d.Path == "/dev/ptmx" {
			continue // it is that of the container's own devpts, as the specification demands
		}
		s.cfg.Devices = slices.DeleteFunc(s.cfg.Devices, func(other Device) bool { return other.Path == d.Path })
		s.cfg.Devices = append(s.cfg.Devices, d)
	}
	if s.spec.Linux.Resources == nil {
		return
	}
	rules := s.spec.Linux.Resources.Devices
	if s.cfg.DevicesOnly = s.denies(rules); !s.cfg.DevicesOnly {
		return
	}
	for i, d := range s.spec.Linux.Devices {
		if a := access(rules, d.Type, d.Major, d.Minor); !strings.Contains(a, "r") || !strings.Contains(a, "w") {
			s.errs.addf("linux.resources.devices", "%s is a device of linux.devices[%d], and the rules do not let it be both read and written: that needs a device cgroup, which is not made yet", d.Path, i)
		}
	}
	for i := range s.cfg.Mounts {
		s.cfg.Mounts[i].ClearFlags &^= NoDev // a rule is above an option
	}
	for _, err := range checkDevicesOnly(&s.cfg) {
		s.errs.add(&FieldError{Field: "linux.resources.devices", Problem: "cannot be held without a device cgroup, which is not made yet", Err: err})
	}
}

func (s *fromSpec) device(i int, in specs.LinuxDevice) Device {
	complain := func(field, format string, args ...any) {
		s.errs.addf(specField("linux.devices", i, field), format, args...)
	}
	d := Device{Path: insidePath(in.Path), Type: 'c', Major: uint32(in.Major), Minor: uint32(in.Minor)}
	switch in.Type {
	case "c", "u":
	case "b":
		d.Type = 'b'
	default:
		complain("type", "%q is no device that can be made; c, u and b are", in.Type)
	}
	if in.Major < 0 || in.Major >= 1<<12 {
		complain("major", "%d is not between 0 and 4095", in.Major)
	}
	if in.Minor < 0 || in.Minor >= 1<<20 {
		complain("minor", "%d is not between 0 and 1048575", in.Minor)
	}
	if in.FileMode != nil {
		const typeBits = 0o170000 // some clients leave those of stat(2) in
		switch d.Mode = uint32(*in.FileMode) &^ typeBits; {
		case d.Mode > 0o777:
			complain("fileMode", "%#o has more than permission bits", d.Mode)
		case d.Mode == 0:
			complain("fileMode", "0 is refused: nobody could open it")
		}
	}
	if in.UID != nil {
		d.Uid = *in.UID
	}
	if in.GID != nil {
		d.Gid = *in.GID
	}
	return d
}

// denies tells whether rules leave any device denied. Before the first rule none is.
func (s *fromSpec) denies(rules []specs.LinuxDeviceCgroup) bool {
	denied := false
	for i, r := range rules {
		list := "linux.resources.devices"
		if !slices.Contains([]string{"", "a", "b", "c"}, r.Type) {
			s.errs.addf(specField(list, i, "type"), "%q is unknown; one of a, b, c", r.Type)
		}
		if strings.Trim(r.Access, "rwm") != "" {
			s.errs.addf(specField(list, i, "access"), "%q is unknown; any of r, w, m", r.Access)
		}
		if !r.Allow {
			denied = true
		} else if (r.Type == "" || r.Type == "a") && wildcard(r.Major) && wildcard(r.Minor) && ruleAccess(r) == "rwm" {
			denied = false
		}
	}
	return denied
}

// access is what rules leave of "rwm" for a device; the last rule about each letter counts.
func access(rules []specs.LinuxDeviceCgroup, typ string, major, minor int64) string {
	left := "rwm"
	for _, r := range rules {
		if r.Type != "" && r.Type != "a" && (r.Type == "b") != (typ == "b") ||
			!wildcard(r.Major) && *r.Major != major || !wildcard(r.Minor) && *r.Minor != minor {
			continue
		}
		for _, letter := range ruleAccess(r) {
			left = strings.ReplaceAll(left, string(letter), "")
			if r.Allow {
				left += string(letter)
			}
		}
	}
	return left
}

func ruleAccess(r specs.LinuxDeviceCgroup) string {
	if r.Access == "" {
		return "rwm"
	}
	var b strings.Builder
	for _, letter := range "rwm" {
		if strings.ContainsRune(r.Access, letter) {
			b.WriteRune(letter)
		}
	}
	return b.String()
}

func wildcard(n *int64) bool { return n == nil || *n < 0 }

func (t *toSpec) devices() {
	list := t.cfg.devices()
	for _, d := range DefaultDevices() {
		if t.cfg.Namespaces.NewMnt && !slices.ContainsFunc(list, func(own Device) bool { return own.Path == d.Path }) {
			t.errs.addf("Devices", "every container of the specification has %s; add it", d.Path)
		}
	}
	if t.cfg.DevicesOnly {
		t.spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	}
	for _, d := range list {
		major, minor := int64(d.Major), int64(d.Minor)
		if t.cfg.DevicesOnly {
			rules := &t.spec.Linux.Resources.Devices
			*rules = append(*rules, specs.LinuxDeviceCgroup{Allow: true, Type: string(d.Type), Major: &major, Minor: &minor, Access: "rwm"})
		}
		if slices.Contains(DefaultDevices(), d) {
			continue
		}
		out := specs.LinuxDevice{Path: d.Path, Type: string(d.Type), Major: major, Minor: minor}
		if d.Mode != 0 {
			mode := os.FileMode(d.Mode)
			out.FileMode = &mode
		}
		if d.Uid|d.Gid != 0 {
			uid, gid := d.Uid, d.Gid
			out.UID, out.GID = &uid, &gid
		}
		t.spec.Linux.Devices = append(t.spec.Linux.Devices, out)
	}
}
