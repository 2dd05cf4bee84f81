package container

import (
	"maps"
	"slices"
	"strings"
)

// This file turns files of cgroup v2 that an OCI specification names, since it has no other word, into the fields of Resources.

// takeUnified moves what has a field in Resources and no other word in the specification from Unified to that field, if the field is
// empty and the text is understood. What is left is written as it is.
func (r *Resources) takeUnified() {
	var m MemoryResources
	if r.Memory != nil {
		m = *r.Memory
	}
	sizes := map[string]**int64{
		"memory.high": &m.High, "memory.low": &m.Low, "memory.min": &m.Min,
		"memory.swap.max": &m.SwapMax, "memory.swap.high": &m.SwapHigh, "memory.zswap.max": &m.ZswapMax,
	}
	for _, name := range slices.Sorted(maps.Keys(r.Unified)) {
		text := strings.TrimSpace(r.Unified[name])
		n, isLimit := parseLimit(text)
		size, isSize := sizes[name]
		taken := false
		switch {
		case isSize && isLimit && *size == nil:
			*size, taken = new(n), true
		case name == "memory.oom.group" && m.OOMGroup == nil && (text == "0" || text == "1"):
			m.OOMGroup, taken = new(text == "1"), true
		case name == "io.weight":
			taken = r.takeIOWeight(text)
		case name == "io.latency":
			taken = r.takeIOLatency(text)
		case name == "misc.max":
			taken = r.takeMisc(text)
		case strings.HasPrefix(name, "hugetlb.") && isLimit:
			taken = r.takeHugetlb(name, n)
		}
		if taken {
			delete(r.Unified, name)
		}
	}
	if m != (MemoryResources{}) {
		r.Memory = &m
	}
	if len(r.Unified) == 0 {
		r.Unified = nil
	}
}

// linesOf cuts each line after its key; it returns nil if there is one without.
func linesOf(text string) (lines [][2]string) {
	for line := range strings.SplitSeq(text, "\n") {
		key, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || slices.ContainsFunc(lines, func(other [2]string) bool { return other[0] == key }) {
			return nil
		}
		lines = append(lines, [2]string{key, rest})
	}
	return lines
}

func (r *Resources) takeIOWeight(text string) bool {
	var own IOResources
	if r.IO != nil {
		own = *r.IO
	}
	lines := linesOf(text)
	if n, err := parseDecimal(text, 10000); err == nil && text != "" && n > 0 {
		lines = [][2]string{{"default", text}}
	}
	if own.Weight != 0 || len(own.DeviceWeight) > 0 || lines == nil {
		return false
	}
	for _, line := range lines {
		weight, err := parseDecimal(line[1], 10000)
		if err != nil || weight == 0 {
			return false
		}
		if line[0] == "default" {
			own.Weight = weight
		} else {
			set(&own.DeviceWeight, line[0], weight)
		}
	}
	r.IO = &own
	return true
}

func (r *Resources) takeIOLatency(text string) bool {
	var own IOResources
	if r.IO != nil {
		own = *r.IO
	}
	lines := linesOf(text)
	if len(own.Latency) > 0 || lines == nil {
		return false
	}
	for _, line := range lines {
		number, ok := strings.CutPrefix(line[1], "target=")
		target, err := parseDecimal(number, 1<<53)
		if !ok || err != nil {
			return false
		}
		set(&own.Latency, line[0], target)
	}
	r.IO = &own
	return true
}

func (r *Resources) takeMisc(text string) bool {
	lines := linesOf(text)
	misc := make(map[string]int64)
	for _, line := range lines {
		n, ok := parseLimit(line[1])
		if !ok {
			return false
		}
		misc[line[0]] = n
	}
	if lines == nil || len(r.Misc) > 0 {
		return false
	}
	r.Misc = misc
	return true
}

func (r *Resources) takeHugetlb(name string, n int64) bool {
	size, isMax := strings.CutSuffix(strings.TrimPrefix(name, "hugetlb."), ".max")
	size, reserved := strings.CutSuffix(size, ".rsvd")
	limits := r.Hugetlb[size]
	limit := &limits.Max
	if reserved {
		limit = &limits.ReservedMax
	}
	if _, ok := hugetlbUnit(size); !ok || !isMax || *limit != nil {
		return false
	}
	*limit = new(n)
	set(&r.Hugetlb, size, limits)
	return true
}
