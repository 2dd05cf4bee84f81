package container

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// This file checks Resources, by themselves as for Set, and of a Config.

// DefaultResources returns the limits that suit every container: 2048 processes and threads, which is podman's
// limit, too. A fork bomb then stays inside, for what it takes besides memory belongs to all of the host. How much memory and CPU a program needs
// nobody knows but its user, so these have no limit here.
func DefaultResources() *Resources {
	return &Resources{Pids: &PidsResources{Max: new(int64(2048))}}
}

// checkResources checks the Resources of a Config.
func checkResources(c *Config) []error { return c.Resources.validate("Resources") }

// validate returns a FieldError for each complaint; prefix is the name of the Resources themselves. Nil Resources are fine. What only
// the host can tell, such as whether there is a device, is left to the kernel.
func (r *Resources) validate(prefix string) []error {
	if r == nil {
		return nil
	}
	check := resourceCheck{prefix: prefix}
	check.memory(r.Memory)
	check.cpu(r.CPU)
	if r.Pids != nil {
		const most = 4 << 20 // PID_MAX_LIMIT
		check.limit(".Pids.Max", r.Pids.Max, 0, most)
	}
	check.io(r.IO)
	for _, size := range slices.Sorted(maps.Keys(r.Hugetlb)) {
		field := mapKey(".Hugetlb", size)
		if _, ok := hugetlbUnit(size); !ok {
			check.addf(field, "%q is not a size of huge pages as the kernel writes it, such as \"2MB\" or \"1GB\"", size)
		}
		check.limit(field+".Max", r.Hugetlb[size].Max, 0, math.MaxInt64)
		check.limit(field+".ReservedMax", r.Hugetlb[size].ReservedMax, 0, math.MaxInt64)
	}
	for _, device := range slices.Sorted(maps.Keys(r.RDMA)) {
		field := mapKey(".RDMA", device)
		if !isWord(device, "_.-") {
			check.addf(field, "%q is not the name of a device, such as \"mlx5_0\"", device)
		}
		check.limit(field+".HCAHandles", r.RDMA[device].HCAHandles, 0, math.MaxInt32)
		check.limit(field+".HCAObjects", r.RDMA[device].HCAObjects, 0, math.MaxInt32)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Misc)) {
		if !isWord(name, "_") {
			check.addf(mapKey(".Misc", name), "%q is not the name of a resource in misc.capacity, such as \"sev\"", name)
		}
		check.limit(mapKey(".Misc", name), new(r.Misc[name]), 0, math.MaxInt64)
	}
	check.errs = append(check.errs, checkDeviceRules(prefix+".Devices", r.Devices)...)
	check.unified(r)
	return check.errs
}

// resourceCheck is a check of Resources at work.
type resourceCheck struct {
	prefix string
	errs   fieldErrors
}

func (c *resourceCheck) addf(field, format string, args ...any) {
	c.errs.addf(c.prefix+field, format, args...)
}

// limit complains about a limit that is neither Unlimited nor within a range.
func (c *resourceCheck) limit(field string, n *int64, least, most int64) {
	if n == nil || *n == Unlimited || *n >= least && *n <= most {
		return
	}
	if *n >= 0 && most < math.MaxInt64 {
		c.addf(field, "%d is not between %d and %d; use Unlimited, which is -1, for no limit", *n, least, most)
		return
	}
	c.addf(field, "%d is less than %d; use Unlimited, which is -1, for no limit", *n, least)
}

func (c *resourceCheck) memory(m *MemoryResources) {
	if m == nil {
		return
	}
	for _, f := range []struct {
		field string
		limit *int64
	}{
		{"Max", m.Max}, {"High", m.High}, {"Low", m.Low}, {"Min", m.Min},
		{"SwapMax", m.SwapMax}, {"SwapHigh", m.SwapHigh}, {"ZswapMax", m.ZswapMax},
	} {
		c.limit(".Memory."+f.field, f.limit, 0, math.MaxInt64)
	}
	if m.CheckUsage && m.Max == nil {
		c.addf(".Memory.CheckUsage", "there is nothing to check without Max")
	}
}

func (c *resourceCheck) cpu(r *CPUResources) {
	if r == nil {
		return
	}
	const most = 1<<44 - 1 // microseconds, max_cfs_runtime of the kernel
	c.limit(".CPU.Quota", r.Quota, 1000, most)
	switch {
	case r.Period == 0:
	case r.Period < 1000 || r.Period > 1000000:
		c.addf(".CPU.Period", "%d is not between 1000 and 1000000 microseconds", r.Period)
	case r.Quota == nil:
		c.addf(".CPU.Period", "needs Quota, since the kernel sets both at once; Unlimited is a quota, too")
	}
	switch {
	case r.Burst == nil || *r.Burst == 0:
	case *r.Burst > most:
		c.addf(".CPU.Burst", "%d is more than %d microseconds, which no Quota is", *r.Burst, int64(most))
	case r.Quota != nil && *r.Quota == Unlimited:
		c.addf(".CPU.Burst", "saves up what is left of Quota, which is Unlimited; leave it out")
	case r.Quota != nil && *r.Burst > uint64(*r.Quota):
		c.addf(".CPU.Burst", "%d is more than Quota, %d", *r.Burst, *r.Quota)
	}
	c.weight(".CPU.Weight", r.Weight, true)
	for _, f := range []struct{ field, list string }{{".CPU.Cpus", r.Cpus}, {".CPU.Mems", r.Mems}} {
		if _, err := parseCPUList(f.list); f.list != "" && err != nil {
			c.addf(f.field, "%.100q is not a list of numbers below %d, such as \"0-3,7\"", f.list, maxCPUs)
		}
	}
}

func (c *resourceCheck) weight(field string, weight uint64, zeroIsDefault bool) {
	if weight > 10000 || weight == 0 && !zeroIsDefault {
		c.addf(field, "%d is not between 1 and 10000; what is not told has 100", weight)
	}
}

func (c *resourceCheck) io(r *IOResources) {
	if r == nil {
		return
	}
	c.weight(".IO.Weight", r.Weight, true)
	for _, device := range slices.Sorted(maps.Keys(r.DeviceWeight)) {
		field := mapKey(".IO.DeviceWeight", device)
		c.device(field, device)
		c.weight(field, r.DeviceWeight[device], false)
	}
	for _, device := range slices.Sorted(maps.Keys(r.Max)) {
		field, m := mapKey(".IO.Max", device), r.Max[device]
		c.device(field, device)
		c.limit(field+".ReadBytes", m.ReadBytes, 1, math.MaxInt64)
		c.limit(field+".WriteBytes", m.WriteBytes, 1, math.MaxInt64)
		c.limit(field+".ReadOps", m.ReadOps, 1, math.MaxInt64)
		c.limit(field+".WriteOps", m.WriteOps, 1, math.MaxInt64)
	}
	for _, device := range slices.Sorted(maps.Keys(r.Latency)) {
		field := mapKey(".IO.Latency", device)
		c.device(field, device)
		const most = math.MaxInt64 / 1000 // the kernel counts in nanoseconds
		if r.Latency[device] > most {
			c.addf(field, "%d is more than %d microseconds", r.Latency[device], int64(most))
		}
	}
}

// device complains about what is not "MAJOR:MINOR" as the kernel writes it.
func (c *resourceCheck) device(field, device string) {
	major, minor, ok := strings.Cut(device, ":")
	if !ok || !isNumber(major, 1<<12) || !isNumber(minor, 1<<20) {
		c.addf(field, "%.100q is not a device; write \"MAJOR:MINOR\", as in /sys/block/sda/dev", device)
	}
}

// isNumber tells whether this is a number below limit as the kernel writes it, without leading zeros.
func isNumber(s string, limit uint64) bool {
	_, err := parseDecimal(s, limit-1)
	return err == nil && (s == "0" || s[0] != '0')
}

// isWord tells whether s consists of letters, digits and extra characters.
func isWord(s, extra string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(extra, r))
	})
}

// cgroupControllers are the controllers that have files to write limits to.
var cgroupControllers = []string{"cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma"}

// maxCgroupWrite is how much the kernel takes in one write, a page. Files of cgroups never need more.
const maxCgroupWrite = 4095

func (c *resourceCheck) unified(r *Resources) {
	fields := *r
	fields.Unified = nil
	set := make(map[string]string)
	for _, f := range fields.files() {
		if f.text != "" {
			set[f.name] = c.prefix + strings.TrimPrefix(f.field, "Resources")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Unified)) {
		field, value := mapKey(".Unified", name), r.Unified[name]
		controller, rest, _ := strings.Cut(name, ".")
		switch {
		case controller == "cgroup":
			c.addf(field, "is no limit; the files of the core are the package's own affair")
		case !slices.Contains(cgroupControllers, controller):
			c.addf(field, "is not a file of a controller; its name begins with one of %s, and a dot", strings.Join(cgroupControllers, ", "))
		case !isWord(rest, "_.-") || strings.Contains(rest, ".."):
			c.addf(field, "is not the name of a file, such as \"memory.high\"")
		case strings.HasSuffix(name, ".pressure") || name == "memory.reclaim":
			c.addf(field, "is no limit: a write to it has no effect that lasts")
		case set[name] != "":
			c.addf(field, "is set by %s, too; leave one of them out", set[name])
		case strings.TrimSpace(value) == "":
			c.addf(field, "is empty, which writes nothing; leave it out")
		case strings.ContainsFunc(value, func(r rune) bool { return isControl(r) && r != '\n' }):
			c.addf(field, "%.100q contains a control character", value)
		}
		for line := range strings.SplitSeq(value, "\n") {
			if len(line) > maxCgroupWrite {
				c.addf(field, "has a line of %d bytes; the kernel takes %d", len(line), maxCgroupWrite)
			}
		}
	}
}
