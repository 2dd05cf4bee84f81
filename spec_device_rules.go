package container

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates linux.resources.devices of an OCI specification. In both forms the last rule about a device and a kind of
// access counts. What no rule is about is denied: runtimes agree on that for cgroup v2, and clients write it as their
// first rule. The specification demands that the default devices work, whatever the rules say; runc and crun add rules for them.

// deviceRulesFromSpec makes rules of a list, with what is missing for the default devices. Nil: there is no list.
func deviceRulesFromSpec(list []specs.LinuxDeviceCgroup) ([]DeviceRule, []error) {
	if len(list) == 0 {
		return nil, nil
	}
	const name = "linux.resources.devices"
	var errs fieldErrors
	number := func(i int, field string, n *int64, limit int64) *uint32 {
		switch {
		case n == nil || *n < 0: // clients write -1 for any
			return nil
		case *n >= limit:
			errs.addf(specField(name, i, field), "%d is more than %d, the kernel's limit", *n, limit-1)
		}
		return new(uint32(*n))
	}
	rules := []DeviceRule{}
	for i, in := range list {
		r := DeviceRule{Allow: in.Allow, Access: in.Access}
		switch in.Type {
		case "", "a":
		case "b", "c":
			r.Type = rune(in.Type[0])
		default:
			errs.addf(specField(name, i, "type"), "%q is unknown; one of a, b, c", in.Type)
		}
		if strings.Trim(in.Access, "rwm") != "" {
			errs.addf(specField(name, i, "access"), "%q is unknown; any of r, w, m", in.Access)
		}
		r.Major, r.Minor = number(i, "major", in.Major, 1<<12), number(i, "minor", in.Minor, 1<<20)
		if len(rules) > 0 || !r.deniesAll() {
			rules = append(rules, r)
		}
	}
	given := rules
	for _, r := range DefaultDeviceRules() {
		if !deviceRulesAllow(given, r) {
			rules = append(rules, r)
		}
	}
	return rules, errs
}

// deniesAll tells whether a rule leaves nothing of those before it.
func (r DeviceRule) deniesAll() bool {
	return !r.Allow && r.covers(DeviceRule{}) && r.access() == anyDeviceAccess
}

// deviceRulesToSpec makes a list of rules. It begins with what is to hold for the rest, so that it means the
// same to every runtime.
func deviceRulesToSpec(rules []DeviceRule) []specs.LinuxDeviceCgroup {
	list := []specs.LinuxDeviceCgroup{{Access: "rwm"}}
	number := func(n *uint32) *int64 {
		if n == nil {
			return nil
		}
		return new(int64(*n))
	}
	for _, r := range rules {
		out := specs.LinuxDeviceCgroup{Allow: r.Allow, Major: number(r.Major), Minor: number(r.Minor), Access: r.Access}
		if r.Access == "" {
			out.Access = "rwm"
		}
		types := []string{string(r.Type)}
		if r.anyType() {
			types = []string{"c", "b"} // runc takes "a" for everything, whatever else the rule says
			if r.covers(DeviceRule{}) && r.access() == anyDeviceAccess {
				types = []string{"a"}
			}
		}
		for _, out.Type = range types {
			list = append(list, out)
		}
	}
	return list
}

// deviceRules are the rules of a specification; none if all devices are allowed.
func (s *fromSpec) deviceRules() {
	if s.spec.Linux.Resources == nil {
		return
	}
	rules, errs := deviceRulesFromSpec(s.spec.Linux.Resources.Devices)
	s.errs = append(s.errs, errs...)
	if rules == nil || deviceRulesAllow(rules, DeviceRule{}) {
		return
	}
	if s.cfg.Resources == nil {
		s.cfg.Resources = &Resources{}
	}
	s.cfg.Resources.Devices = rules
}

// deviceRules writes the rules of Resources, or what DevicesOnly amounts to.
func (t *toSpec) deviceRules() {
	var rules []DeviceRule
	if t.cfg.Resources != nil {
		rules = t.cfg.Resources.Devices
	}
	switch {
	case rules != nil && t.cfg.DevicesOnly:
		t.errs.addf("DevicesOnly", "the specification knows one way of limiting devices; leave out this or Resources.Devices")
	case rules != nil:
		if i := slices.IndexFunc(DefaultDeviceRules(), func(r DeviceRule) bool { return !deviceRulesAllow(rules, r) }); i >= 0 {
			t.errs.addf("Resources.Devices", "every container of the specification may do what DefaultDeviceRules allow, and these rules do not allow all of rule %d of them; append them", i)
		}
	case t.cfg.DevicesOnly:
		for _, d := range t.cfg.devices() {
			rules = append(rules, allowDevice(d))
		}
	default:
		return
	}
	if t.spec.Linux.Resources == nil {
		t.spec.Linux.Resources = &specs.LinuxResources{}
	}
	t.spec.Linux.Resources.Devices = deviceRulesToSpec(rules)
}
