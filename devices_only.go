package container

import (
	"reflect"
	"slices"
)

// This file turns rules about devices into a wall of mounts, for callers who may load no eBPF program.

// LimitDevicesByMounts replaces Resources.Devices by DevicesOnly, for a caller to whom [CanLimitDevices] returns an error: an ordinary
// user, or root in a user namespace. It changes nothing if there are no rules. What DevicesOnly leaves
// is never more than the rules allow, but may be less: nodes that are not in Devices cannot be opened at all.
// A mount's NoDev is not cleared any more.
//
// It returns complaints, each a *FieldError, if the rules deny part of what Devices has, or if DevicesOnly cannot be held; then nothing has changed.
func (c *Config) LimitDevicesByMounts() error {
	if c.Resources == nil || c.Resources.Devices == nil {
		return nil
	}
	rules, limits, changed := c.Resources.Devices, *c.Resources, *c
	limits.Devices = nil
	if changed.Resources = &limits; reflect.ValueOf(limits).IsZero() {
		changed.Resources = nil // a cgroup is not needed for nothing
	}
	var errs fieldErrors
	if !deviceRulesAllow(rules, DeviceRule{}) {
		for i, d := range c.devices() {
			want := allowDevice(d)
			if want.Access = "rw"; !deviceRulesAllow(rules, want) {
				errs.addf("Resources.Devices", "%s is one of Devices (%d), and the rules do not let it be both read and written: only an eBPF program can hold that", d.Path, i)
			}
		}
		changed.DevicesOnly = true
		changed.Mounts = slices.Clone(c.Mounts)
		for i := range changed.Mounts {
			changed.Mounts[i].ClearFlags &^= NoDev // a rule is above an option
		}
		errs = append(errs, checkDevicesOnly(&changed)...)
	}
	if err := errs.join(); err != nil {
		return err
	}
	*c = changed
	return nil
}
