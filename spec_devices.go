package container

import (
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates the devices of an OCI specification: the nodes. The rules are in spec_device_rules.go.

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
	s.deviceRules()
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

func (t *toSpec) devices() {
	list := t.cfg.devices()
	for _, d := range DefaultDevices() {
		if t.cfg.Namespaces.NewMnt && !slices.ContainsFunc(list, func(own Device) bool { return own.Path == d.Path }) {
			t.errs.addf("Devices", "every container of the specification has %s; add it", d.Path)
		}
	}
	t.deviceRules()
	for _, d := range list {
		major, minor := int64(d.Major), int64(d.Minor)
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
