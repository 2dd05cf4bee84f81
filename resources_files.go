package container

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// This file turns Resources into the texts that are written to the files of a cgroup, as data. It runs in the caller's
// process and touches nothing. Whether the kernel took what was written is in resources_same.go.

// cgroupFile is one write(2) to a file of a cgroup. Files are written in their order, each is read back right after it has been
// written, and what one of them was before is asked for right before: a file may be written twice, and
// later ones change what earlier ones show.
type cgroupFile struct {
	controller string // that the cgroup must have: "memory"
	name       string // "memory.max"
	text       string // without a newline. Empty: nothing is written, the file is only read
	field      string // "Resources.Memory.Max"
	key        string // of the line that the write is about, in a file with a line for each device: "8:0"

	// or is another file of the same meaning: where the kernel has that one, this one may be missing.
	or string
	// remedy is for the error, if the kernel refuses the text, or same does.
	remedy string
	// same tells whether what is read is what was written, or is wanted. Nil: that cannot be said.
	same func(got string) bool
	// lost: another write changes this file, which an undo must write back.
	lost bool
}

// files returns what is to be written, in the order in which it is written. The order is such that nothing in it can
// fail for what the cgroup's limits were before. memory.max is the last: it may kill, which no undoing makes good.
func (r *Resources) files() []cgroupFile {
	if r == nil {
		return nil
	}
	var files fileList
	files.cpu(r.CPU)
	files.cpuset(r.CPU)
	if p := r.Pids; p != nil && p.Max != nil {
		files.add("Resources.Pids.Max", "pids.max", limitOrMax(*p.Max), sameNumber(*p.Max))
	}
	files.io(r.IO)
	files.hugetlb(r.Hugetlb)
	for _, device := range slices.Sorted(maps.Keys(r.RDMA)) {
		files.rdma(device, r.RDMA[device])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Misc)) {
		n := r.Misc[name]
		files.line(mapKey("Resources.Misc", name), "misc.max", name, limitOrMax(n), sameNumber(n))
		files.last().remedy = "misc.capacity of the root cgroup lists what there is"
	}
	files.unified(r.Unified, func(name string) bool { return name != "memory.max" })
	files.memory(r.Memory)
	files.unified(r.Unified, func(name string) bool { return name == "memory.max" })
	return files
}

// controllers returns the controllers that the cgroup must have for these Resources, sorted.
func (r *Resources) controllers() []string {
	var names []string
	for _, f := range r.files() {
		names = append(names, f.controller)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// fileList is what is to be written, under construction.
type fileList []cgroupFile

func (l *fileList) add(field, name, text string, same func(string) bool) {
	controller, _, _ := strings.Cut(name, ".")
	*l = append(*l, cgroupFile{controller: controller, name: name, text: text, field: field, same: same})
}

// line adds a write to a file that has a line for each device or resource; same is asked about the rest of the line.
func (l *fileList) line(field, name, key, text string, same func(string) bool) {
	l.add(field, name, key+" "+text, func(got string) bool {
		rest, _ := cgroupLine(got, key)
		return same(rest)
	})
	l.last().key = key
}

func (l *fileList) last() *cgroupFile { return &(*l)[len(*l)-1] }

// cpu: a burst above the quota is refused by the kernel, whichever of them is written, so the old burst goes
// first. An idle cgroup refuses a weight, and one that ceases to be idle gets the default one.
func (l *fileList) cpu(c *CPUResources) {
	if c == nil {
		return
	}
	if c.Quota != nil {
		if c.Burst != nil {
			l.add("Resources.CPU.Burst", "cpu.max.burst", "0", sameNumber(0))
		}
		text := limitOrMax(*c.Quota)
		if c.Period != 0 {
			text += " " + strconv.FormatUint(c.Period, 10)
		}
		l.add("Resources.CPU.Quota", "cpu.max", text, sameCPUMax(*c.Quota, c.Period))
		if c.Burst == nil {
			l.last().remedy = "a burst that has been set before may be more than the quota: set Burst, too"
		}
	}
	if c.Burst != nil {
		l.add("Resources.CPU.Burst", "cpu.max.burst", strconv.FormatUint(*c.Burst, 10), sameNumber(int64(*c.Burst)))
		l.last().remedy = "a burst may not be more than the quota; Linux 5.14"
	}
	if c.Idle != nil && !*c.Idle {
		l.add("Resources.CPU.Idle", "cpu.idle", "0", sameNumber(0))
	}
	if c.Weight != 0 && (c.Idle == nil || !*c.Idle) {
		l.add("Resources.CPU.Weight", "cpu.weight", strconv.FormatUint(c.Weight, 10), sameNumber(int64(c.Weight)))
		l.last().remedy = "a cgroup that is idle has no weight: set Idle to false"
	}
	if c.Idle != nil && *c.Idle {
		l.add("Resources.CPU.Idle", "cpu.weight", "", nil)
		l.last().lost = true
		l.add("Resources.CPU.Idle", "cpu.idle", "1", sameNumber(1))
	}
}

// cpuset: the kernel takes a list of CPUs that the parent has none of, and then gives the parent's. So it is asked
// what it gives.
func (l *fileList) cpuset(c *CPUResources) {
	if c == nil {
		return
	}
	for _, f := range []struct{ field, name, list string }{
		{"Resources.CPU.Mems", "cpuset.mems", c.Mems},
		{"Resources.CPU.Cpus", "cpuset.cpus", c.Cpus},
	} {
		if f.list == "" {
			continue
		}
		l.add(f.field, f.name, f.list, sameList(f.list))
		l.add(f.field, f.name+".effective", "", withinList(f.list))
		l.last().remedy = "the cgroup above has none of " + f.list + "; see its " + f.name + ".effective"
	}
}

func (l *fileList) io(r *IOResources) {
	if r == nil {
		return
	}
	const disk = "a device is a whole disk that is there, not a partition"
	weight := func(field, key string, weight uint64) {
		bfq := bfqWeight(weight)
		l.line(field, "io.weight", key, strconv.FormatUint(weight, 10), sameNumber(int64(weight)))
		l.last().or = "io.bfq.weight"
		l.line(field, "io.bfq.weight", key, strconv.FormatUint(bfq, 10), sameNumber(int64(bfq)))
		l.last().or = "io.weight"
	}
	if r.Weight != 0 {
		weight("Resources.IO.Weight", "default", r.Weight)
	}
	for _, device := range slices.Sorted(maps.Keys(r.DeviceWeight)) {
		weight(mapKey("Resources.IO.DeviceWeight", device), device, r.DeviceWeight[device])
		l.last().remedy, (*l)[len(*l)-2].remedy = disk, disk
	}
	for _, device := range slices.Sorted(maps.Keys(r.Max)) {
		m := r.Max[device]
		limits := []keyedLimit{{"rbps", m.ReadBytes}, {"wbps", m.WriteBytes}, {"riops", m.ReadOps}, {"wiops", m.WriteOps}}
		l.keyed(mapKey("Resources.IO.Max", device), "io.max", device, disk, limits)
	}
	for _, device := range slices.Sorted(maps.Keys(r.Latency)) {
		target := int64(r.Latency[device])
		l.line(mapKey("Resources.IO.Latency", device), "io.latency", device, fmt.Sprintf("target=%d", target), sameKeyed([]keyedLimit{{"target", &target}}))
		l.last().remedy = disk
	}
}

// bfqWeight is a weight from 1 to 10000 in the range of the scheduler bfq, 1 to 1000. Both have 100 for the default, which
// stays that; below it nothing changes.
func bfqWeight(weight uint64) uint64 {
	if weight <= 100 {
		return weight
	}
	return 100 + (weight-100)*(1000-100)/(10000-100)
}

func (l *fileList) hugetlb(sizes map[string]HugetlbResources) {
	for _, size := range slices.Sorted(maps.Keys(sizes)) {
		field, limits := mapKey("Resources.Hugetlb", size), sizes[size]
		unit, ok := hugetlbUnit(size)
		if !ok {
			continue // validate has refused it
		}
		for _, f := range []struct {
			field, name string
			limit       *int64
		}{
			{field + ".ReservedMax", "hugetlb." + size + ".rsvd.max", limits.ReservedMax},
			{field + ".Max", "hugetlb." + size + ".max", limits.Max},
		} {
			if f.limit != nil {
				l.add(f.field, f.name, limitOrMax(*f.limit), sameSize(*f.limit, unit))
				l.last().remedy = "/sys/kernel/mm/hugepages lists the sizes that there are"
			}
		}
	}
}

func (l *fileList) rdma(device string, r RDMAResources) {
	const remedy = "rdma.current of the root cgroup lists the devices"
	l.keyed(mapKey("Resources.RDMA", device), "rdma.max", device, remedy, []keyedLimit{{"hca_handle", r.HCAHandles}, {"hca_object", r.HCAObjects}})
}

// keyedLimit is one of several limits in a line: "rbps=1048576".
type keyedLimit struct {
	key   string
	limit *int64 // nil: not set
}

func (l *fileList) keyed(field, name, device, remedy string, limits []keyedLimit) {
	var words []string
	for _, k := range limits {
		if k.limit != nil {
			words = append(words, k.key+"="+limitOrMax(*k.limit))
		}
	}
	if len(words) > 0 {
		l.line(field, name, device, strings.Join(words, " "), sameKeyed(limits))
		l.last().remedy = remedy
	}
}

// memory: what a lower limit takes goes to swap, if it may, and is asked for politely by high, before max kills for the
// rest; and if it must kill, then all or one as is wanted.
func (l *fileList) memory(m *MemoryResources) {
	if m == nil {
		return
	}
	if m.OOMGroup != nil {
		text, value := "0", int64(0)
		if *m.OOMGroup {
			text, value = "1", 1
		}
		l.add("Resources.Memory.OOMGroup", "memory.oom.group", text, sameNumber(value))
	}
	for _, f := range []struct {
		field, name, remedy string
		limit               *int64
	}{
		{"ZswapMax", "memory.zswap.max", "the kernel has it from Linux 5.19 on, with CONFIG_ZSWAP", m.ZswapMax},
		{"SwapMax", "memory.swap.max", "the kernel must count swap: no swapaccount=0 on its command line", m.SwapMax},
		{"SwapHigh", "memory.swap.high", "the kernel must count swap: no swapaccount=0 on its command line", m.SwapHigh},
		{"Min", "memory.min", "", m.Min},
		{"Low", "memory.low", "", m.Low},
		{"High", "memory.high", "", m.High},
		{"Max", "memory.max", "", m.Max},
	} {
		if f.limit == nil {
			continue
		}
		field := "Resources.Memory." + f.field
		if f.name == "memory.max" && m.CheckUsage && *f.limit != Unlimited {
			l.add(field, "memory.current", "", atMost(*f.limit))
			l.last().remedy = "more than that is in use: the kernel would kill; see CheckUsage"
		}
		l.add(field, f.name, limitOrMax(*f.limit), sameSize(*f.limit, pageSize()))
		l.last().remedy = f.remedy
	}
}

// unified: a value of several lines is several writes, since these files take one line at a time.
func (l *fileList) unified(files map[string]string, take func(name string) bool) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !take(name) {
			continue
		}
		field := mapKey("Resources.Unified", name)
		for line := range strings.SplitSeq(files[name], "\n") {
			if line = strings.TrimSpace(line); line != "" {
				l.add(field, name, line, sameUnified(name, line))
				if hasLines(name) {
					key, _, ok := strings.Cut(line, " ")
					if !ok {
						key = "default" // io.weight takes "200", too
					}
					l.last().key = key
				}
			}
		}
	}
}

// hasLines tells whether a file has a line for each device or resource.
func hasLines(name string) bool {
	return slices.Contains([]string{"io.max", "io.weight", "io.bfq.weight", "io.latency", "rdma.max", "misc.max"}, name)
}

// undo returns the text that makes of the file again what it was before, when a read gave before. Empty: there is nothing to be
// written. The writes are undone in the reverse order.
func (f *cgroupFile) undo(before string) string {
	text := strings.TrimSpace(before)
	switch {
	case f.text == "" && (!f.lost || text == "0"): // the weight of a cgroup that was idle before
		return ""
	case f.key == "" && text == "":
		return "\n" // this empties cpuset.cpus
	case f.key == "":
		return text
	}
	if rest, ok := cgroupLine(before, f.key); ok {
		return f.key + " " + rest
	}
	switch f.name { // a device without a line has no limit
	case "io.max":
		return f.key + " rbps=max wbps=max riops=max wiops=max"
	case "io.latency":
		return f.key + " target=0"
	case "io.weight", "io.bfq.weight":
		return f.key + " default"
	case "rdma.max":
		return f.key + " hca_handle=max hca_object=max"
	}
	return f.key + " max"
}

// cgroupLine is what comes after the key in the line that begins with it.
func cgroupLine(text, key string) (rest string, ok bool) {
	for line := range strings.SplitSeq(text, "\n") {
		if first, rest, found := strings.Cut(line, " "); found && first == key {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// limitOrMax is a limit as the kernel takes it.
func limitOrMax(n int64) string {
	if n == Unlimited {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}
