package container

import (
	"slices"
	"strings"
)

// This file says what rules about devices mean, as data: what each covers, which are wrong, and which of a list
// make no difference. How they become a program is in cgroup_devices_program.go.

// DefaultDeviceRules returns the rules for a container that gets what every container is to have: it may
// read and write the nodes of [DefaultDevices], terminals (/dev/pts, ptmx) and its own /dev/console. It may
// make any node, if it has CAP_MKNOD: archives and builds of images do, and a node that cannot be
// opened is of no use. For more devices, append rules:
//
//	append(container.DefaultDeviceRules(), container.DeviceRule{Allow: true, Type: 'c', Major: new(uint32(10)), Minor: new(uint32(229))})
func DefaultDeviceRules() []DeviceRule {
	rules := []DeviceRule{
		{Allow: true, Type: 'c', Access: "m"},
		{Allow: true, Type: 'b', Access: "m"},
	}
	for _, d := range DefaultDevices() {
		rules = append(rules, allowDevice(d))
	}
	return append(rules,
		DeviceRule{Allow: true, Type: 'c', Major: new(uint32(5)), Minor: new(uint32(1)), Access: "rwm"}, // /dev/console
		DeviceRule{Allow: true, Type: 'c', Major: new(uint32(5)), Minor: new(uint32(2)), Access: "rwm"}, // /dev/ptmx
		DeviceRule{Allow: true, Type: 'c', Major: new(uint32(136)), Access: "rwm"},                      // /dev/pts/*
	)
}

// allowDevice is the rule that allows all of one device.
func allowDevice(d Device) DeviceRule {
	return DeviceRule{Allow: true, Type: d.Type, Major: new(d.Major), Minor: new(d.Minor), Access: "rwm"}
}

// deviceAccess is a set of kinds of access, in the bits of the kernel's BPF_DEVCG_ACC_*.
type deviceAccess uint8

const (
	deviceMknod deviceAccess = 1 << iota
	deviceRead
	deviceWrite
	anyDeviceAccess = deviceMknod | deviceRead | deviceWrite
)

func (r DeviceRule) access() (a deviceAccess) {
	if r.Access == "" {
		return anyDeviceAccess
	}
	for _, letter := range []byte(r.Access) {
		switch letter {
		case 'm':
			a |= deviceMknod
		case 'r':
			a |= deviceRead
		case 'w':
			a |= deviceWrite
		}
	}
	return a
}

// anyType tells whether a rule is about both character and block devices.
func (r DeviceRule) anyType() bool { return r.Type == 0 || r.Type == 'a' }

// covers tells whether all devices that other is about are devices that r is about.
func (r DeviceRule) covers(other DeviceRule) bool {
	return (r.anyType() || r.Type == other.Type) &&
		(r.Major == nil || other.Major != nil && *r.Major == *other.Major) &&
		(r.Minor == nil || other.Minor != nil && *r.Minor == *other.Minor)
}

// meets tells whether there can be a device that both rules are about.
func (r DeviceRule) meets(other DeviceRule) bool {
	return (r.anyType() || other.anyType() || r.Type == other.Type) &&
		(r.Major == nil || other.Major == nil || *r.Major == *other.Major) &&
		(r.Minor == nil || other.Minor == nil || *r.Minor == *other.Minor)
}

// deviceRulesAllow tells whether a list of rules allows all that a rule is about. It may say no where
// only several rules together do.
func deviceRulesAllow(rules []DeviceRule, want DeviceRule) bool {
	left := want.access()
	for _, r := range slices.Backward(rules) {
		switch {
		case r.Allow && r.covers(want):
			left &^= r.access()
		case !r.Allow && r.meets(want) && r.access()&left != 0:
			return false
		}
	}
	return left == 0
}

// simplifyDeviceRules leaves out rules that make no difference: those that later ones take back entirely,
// and denials of what nothing before has allowed.
func simplifyDeviceRules(rules []DeviceRule) []DeviceRule {
	var last []DeviceRule // in reverse order
	for _, r := range slices.Backward(rules) {
		left := r.access()
		for _, later := range last {
			if later.covers(r) {
				left &^= later.access()
			}
		}
		if left != 0 {
			last = append(last, r)
		}
	}
	var kept []DeviceRule
	for _, r := range slices.Backward(last) {
		if r.Allow || slices.ContainsFunc(kept, func(before DeviceRule) bool {
			return before.Allow && before.meets(r) && before.access()&r.access() != 0
		}) {
			kept = append(kept, r)
		}
	}
	return kept
}

// checkDeviceRules complains about rules that no device can match, and about lists that are too long.
func checkDeviceRules(field string, rules []DeviceRule) []error {
	var errs fieldErrors
	if len(rules) > maxDeviceProgram {
		errs.addf(field, "%d rules are more than the kernel can have, %d; leave out some", len(rules), maxDeviceProgram)
		return errs
	}
	for i, r := range rules {
		field := index(field, i)
		if !r.anyType() && r.Type != 'b' && r.Type != 'c' {
			errs.addf(field+".Type", "unknown type %q; 'c' for character devices, 'b' for block devices, 'a' for both", r.Type)
		}
		if r.Major != nil && *r.Major >= 1<<12 {
			errs.addf(field+".Major", "%d is more than 4095, the kernel's limit; nil is any", *r.Major)
		}
		if r.Minor != nil && *r.Minor >= 1<<20 {
			errs.addf(field+".Minor", "%d is more than 1048575, the kernel's limit; nil is any", *r.Minor)
		}
		if strings.Trim(r.Access, "rwm") != "" {
			errs.addf(field+".Access", "%.20q is unknown; any of r, w, m, and empty for all of them", r.Access)
		}
	}
	if len(errs) == 0 {
		if n := len(compileDeviceRules(rules)); n > maxDeviceProgram {
			errs.addf(field, "%d rules make a program of %d instructions, and the kernel takes %d; leave out some", len(rules), n, maxDeviceProgram)
		}
	}
	return errs
}
