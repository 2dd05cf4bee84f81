package container

import (
	"strings"
)

// This file checks the labels of security modules: the AppArmor profile, the SELinux contexts. It is pure. Whether the kernel has the
// module is found out at the start.

// unconfined is the name of no AppArmor profile.
const unconfined = "unconfined"

// stacked stands between the profiles of a stack.
const stacked = "//&"

// maxLabel bounds a label: the kernel takes one page, with a word before it.
const maxLabel = 2048

// labels are what a process gets from security modules. Empty ones are left to the kernel.
type labels struct {
	appArmor string
	stack    bool // on top of what the caller has
	selinux  string
}

// labels are those of the process, in a container of c.
func (p *Process) labels(c *Config) labels {
	l := labels{appArmor: c.AppArmorProfile, stack: c.AppArmorStack, selinux: c.SelinuxLabel}
	if p.AppArmorProfile != "" {
		l.appArmor = p.AppArmorProfile
	}
	if p.SelinuxLabel != "" {
		l.selinux = p.SelinuxLabel
	}
	return l
}

// profilesOf takes a label apart, as the kernel shows it: "profile (enforce)", "profile//&other (enforce)". The modes are the
// administrator's. A profile that is stacked on none is alone.
func profilesOf(label string) map[string]bool {
	set := make(map[string]bool)
	for name := range strings.SplitSeq(strings.TrimRight(label, "\n\x00"), stacked) {
		if i := strings.LastIndex(name, " ("); i >= 0 && strings.HasSuffix(name, ")") {
			name = name[:i]
		}
		set[name] = true
	}
	if len(set) > 1 {
		delete(set, unconfined)
	}
	return set
}

// checkLabels checks what a Config has of labels.
func checkLabels(c *Config) []error {
	var errs fieldErrors
	if c.AppArmorStack && c.AppArmorProfile == "" {
		errs.addf("AppArmorStack", "needs AppArmorProfile, the one to be stacked")
	}
	if c.MountLabel != "" && !c.Namespaces.NewMnt {
		errs.addf("MountLabel", "needs Namespaces.NewMnt: without it no mounts are made")
	}
	errs = append(errs, checkLabel("MountLabel", c.MountLabel)...)
	return append(errs, checkProcessLabels(&Process{AppArmorProfile: c.AppArmorProfile, SelinuxLabel: c.SelinuxLabel})...)
}

// checkProcessLabels checks what a Process has of them.
func checkProcessLabels(p *Process) []error {
	return append(checkLabel("AppArmorProfile", p.AppArmorProfile), checkLabel("SelinuxLabel", p.SelinuxLabel)...)
}

// checkLabel: a label goes to the kernel as a line.
func checkLabel(field, label string) []error {
	var errs fieldErrors
	switch {
	case len(label) > maxLabel:
		errs.addf(field, "is longer than %d bytes", maxLabel)
	case strings.ContainsFunc(label, isControl):
		errs.addf(field, "%.100q contains a control character", label)
	case strings.TrimSpace(label) != label:
		errs.addf(field, "%.100q begins or ends with a space", label)
	case field != "AppArmorProfile" && label != "" && strings.Count(label, ":") < 2:
		errs.addf(field, "%.100q is no context, such as \"system_u:system_r:container_t:s0:c1,c2\"", label)
	}
	return errs
}
