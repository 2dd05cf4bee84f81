package container

import (
	"math/bits"
	"os"
	"slices"
	"strings"
)

// This file checks the mounts and devices of a Config. What a target turns out to be once its
// symbolic links are resolved is checked again where it is mounted.

// mountTypes are the file systems that a Mount may have.
var mountTypes = []string{"bind", "tmpfs", "proc", "sysfs", "cgroup2", "devpts", "mqueue", "overlay"}

// checkMounts: file systems and flags that are known, in places that are safe.
func checkMounts(c *Config) []error {
	var errs fieldErrors
	if len(c.Mounts) > 0 && !c.Namespaces.isNew(MountNamespace) {
		errs.addf("Mounts", "needs a new mount namespace; set Namespaces.NewMnt, or leave it empty")
		return errs
	}
	for i, m := range c.Mounts {
		for _, check := range mountChecks {
			errs = append(errs, check(index("Mounts", i), m)...)
		}
	}
	return errs
}

// mountChecks are all checks of a Mount; field is its name.
var mountChecks = []func(field string, m Mount) []error{
	checkMountType, checkMountTarget, checkMountFlags, checkMountIDs,
}

func checkMountType(field string, m Mount) []error {
	var errs fieldErrors
	if !slices.Contains(mountTypes, m.Type) {
		errs.addf(field+".Type", "unknown file system %q; one of %s", m.Type, strings.Join(mountTypes, ", "))
		return errs
	}
	if m.Type == "bind" {
		errs.absolute(field+".Source", m.Source)
		if m.Data != "" {
			errs.addf(field+".Data", "a bind has no options of a file system, but %q is given", m.Data)
		}
	} else if strings.ContainsRune(m.Source, 0) {
		errs.addf(field+".Source", "%q contains a NUL byte", m.Source)
	}
	if m.CopyUp && m.Type != "tmpfs" {
		errs.addf(field+".CopyUp", "only a tmpfs can be filled; clear it")
	}
	if strings.ContainsRune(m.Data, 0) {
		errs.addf(field+".Data", "%q contains a NUL byte", m.Data)
	}
	return errs
}

// checkMountTarget keeps everything but the kernel's own from /proc and /sys: a runtime that writes
// its labels to what somebody mounted there is fooled (CVE-2019-16884, CVE-2019-19921).
func checkMountTarget(field string, m Mount) []error {
	var errs fieldErrors
	field += ".Target"
	if !errs.absolute(field, m.Target) {
		return errs
	}
	// The host's own /proc or /sys, whole, is as good as a new one.
	own := func(kind string) bool {
		return m.Type == kind || m.Type == "bind" && m.Source == m.Target && m.Flags&Recursive != 0
	}
	switch {
	case m.Target == "/":
		errs.addf(field, "is the root itself; set Root")
	case m.Target == "/dev" && (m.Type != "tmpfs" || m.CopyUp):
		errs.addf(field, "/dev always is a fresh tmpfs with what Devices says; leave this mount out, or give options for that tmpfs")
	case m.Target == "/dev" && m.Flags&NoDev != 0:
		errs.addf(field, "NoDev would make the nodes of /dev useless; see DevicesOnly")
	case m.Target == "/proc" && !own("proc"):
		errs.addf(field, "only type proc, or a recursive bind of the host's /proc, may stand on /proc")
	case m.Target == "/sys" && !own("sysfs"):
		errs.addf(field, "only type sysfs, or a recursive bind of the host's /sys, may stand on /sys")
	case strings.HasPrefix(m.Target, "/proc/"):
		errs.addf(field, "nothing can be mounted below /proc; use MaskPaths or ReadonlyPaths to restrict it")
	}
	return errs
}

func checkMountFlags(field string, m Mount) []error {
	var errs fieldErrors
	for _, f := range []struct {
		name  string
		flags MountFlags
	}{{".Flags", m.Flags}, {".ClearFlags", m.ClearFlags}} {
		if unknown := f.flags &^ allMountFlag; unknown != 0 {
			errs.addf(field+f.name, "unknown flags %v", unknown)
		}
	}
	if m.ClearFlags&Recursive != 0 {
		errs.addf(field+".ClearFlags", "Recursive belongs in Flags: it holds for both")
	}
	if m.ClearFlags&TopOnly != 0 {
		errs.addf(field+".ClearFlags", "TopOnly belongs in Flags: it holds for both")
	}
	if m.Flags&TopOnly != 0 && m.Flags&Recursive == 0 {
		errs.addf(field+".Flags", "TopOnly tells what Recursive means for the other flags; set both or none")
	}
	if both := m.Flags & m.ClearFlags; both != 0 {
		errs.addf(field+".ClearFlags", "%v is both set and cleared", both)
	}
	if atime := m.Flags & atimeFlags; bits.OnesCount32(uint32(atime)) > 1 {
		errs.addf(field+".Flags", "%v exclude each other; set one of them", atime)
	}
	errs.propagation(field+".Propagation", m.Propagation)
	return errs
}

func checkMountIDs(field string, m Mount) []error {
	var errs fieldErrors
	if len(m.UidMappings) == 0 && len(m.GidMappings) == 0 {
		return nil
	}
	switch {
	case len(m.UidMappings) == 0:
		errs.addf(field+".UidMappings", "is empty, but GidMappings is not; set both or none")
	case len(m.GidMappings) == 0:
		errs.addf(field+".GidMappings", "is empty, but UidMappings is not; set both or none")
	case m.Type != "bind":
		errs.addf(field+".UidMappings", "only a bind can be idmapped, not %s", m.Type)
	case os.Geteuid() != 0:
		errs.addf(field+".UidMappings", "only root can make an idmapped mount; leave it empty")
	}
	errs.add(checkIDMaps(field+".UidMappings", m.UidMappings))
	errs.add(checkIDMaps(field+".GidMappings", m.GidMappings))
	return errs
}

// ownDev is what /dev has without being asked; a device cannot take its place, and a name with a slash
// at the end cannot be above it.
var ownDev = []string{
	"/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/fd/", "/dev/ptmx", "/dev/console", "/dev/stdin", "/dev/stdout", "/dev/stderr",
}

// checkDevices: nodes below /dev, each once, with numbers that there are.
func checkDevices(c *Config) []error {
	var errs fieldErrors
	if len(c.Devices) > 0 && !c.Namespaces.isNew(MountNamespace) {
		errs.addf("Devices", "needs a new mount namespace; set Namespaces.NewMnt, or leave it empty")
		return errs
	}
	seen := make(map[string]int)
	for i, d := range c.Devices {
		field := index("Devices", i)
		if errs.absolute(field+".Path", d.Path) {
			first, again := seen[d.Path]
			switch {
			case !strings.HasPrefix(d.Path, "/dev/"):
				errs.addf(field+".Path", "%q is not below /dev", d.Path)
			case again:
				errs.addf(field+".Path", "%q is that of %s already", d.Path, index("Devices", first))
			case slices.ContainsFunc(ownDev, func(own string) bool {
				return d.Path == strings.TrimSuffix(own, "/") || strings.HasSuffix(own, "/") && strings.HasPrefix(d.Path, own)
			}):
				errs.addf(field+".Path", "%q is there without being asked for; leave it out", d.Path)
			}
			seen[d.Path] = i
		}
		if d.Type != 'c' && d.Type != 'b' {
			errs.addf(field+".Type", "unknown type %q; 'c' for a character device, 'b' for a block device", d.Type)
		}
		if d.Major >= 1<<12 {
			errs.addf(field+".Major", "%d is more than 4095, the kernel's limit", d.Major)
		}
		if d.Minor >= 1<<20 {
			errs.addf(field+".Minor", "%d is more than 1048575, the kernel's limit", d.Minor)
		}
		if d.Mode > 0o777 {
			errs.addf(field+".Mode", "%#o has more than permission bits, 0777", d.Mode)
		}
	}
	return errs
}

// checkDevicesOnly: a mount table of the container's own, that its processes cannot go around.
func checkDevicesOnly(c *Config) []error {
	var errs fieldErrors
	if !c.DevicesOnly {
		return nil
	}
	if !c.Namespaces.isNew(MountNamespace) {
		errs.addf("DevicesOnly", "needs a new mount namespace; set Namespaces.NewMnt")
	}
	if !c.Namespaces.private(PIDNamespace) {
		errs.addf("DevicesOnly", "needs a PID namespace of the container's own: the roots of other processes are reached through /proc; set Namespaces.NewPID")
	}
	for i, m := range c.Mounts {
		if m.ClearFlags&NoDev != 0 && m.Type != "devpts" {
			errs.addf(index("Mounts", i)+".ClearFlags", "NoDev cannot be cleared with DevicesOnly")
		}
	}
	if caps, err := c.Capabilities.sets(); err == nil { // the names have been checked elsewhere
		errs.add(c.checkDeviceWall(caps))
	}
	return errs
}

// checkDeviceWall refuses the capability that takes NoDev off a mount.
func (c *Config) checkDeviceWall(caps capSets) error {
	n, _ := capabilityNumber("CAP_SYS_ADMIN")
	if c.DevicesOnly && (caps.bounding|caps.permitted)&(1<<n) != 0 {
		return fieldErrorf("DevicesOnly", "cannot be held against CAP_SYS_ADMIN in the bounding set; leave one of the two out")
	}
	return nil
}
