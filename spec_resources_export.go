package container

import (
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file turns Resources into the limits of an OCI specification: in its own words where they say the same, and else by the names
// of the files, as "unified".

// limitsToSpec returns nil for nil. Devices are left out.
func limitsToSpec(r *Resources) *specs.LinuxResources {
	out, rest := &specs.LinuxResources{}, deepCopy(r)
	rest.Devices = nil
	memoryToSpec(out, rest)
	cpuToSpec(out, rest)
	if rest.Pids != nil {
		out.Pids, rest.Pids = &specs.LinuxPids{Limit: rest.Pids.Max}, nil
	}
	ioToSpec(out, rest)
	for _, size := range slices.Sorted(maps.Keys(rest.Hugetlb)) {
		if h := rest.Hugetlb[size]; h.Max != nil && h.ReservedMax != nil && *h.Max == *h.ReservedMax {
			out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: size, Limit: uint64(*h.Max)}) // -1 is the greatest
			delete(rest.Hugetlb, size)
		}
	}
	for device, limits := range rest.RDMA {
		set(&out.Rdma, device, specs.LinuxRdma{HcaHandles: countToSpec(limits.HCAHandles), HcaObjects: countToSpec(limits.HCAObjects)})
	}
	rest.RDMA = nil
	for _, f := range rest.files() {
		if f.text == "" || f.name == "io.bfq.weight" {
			continue
		}
		set(&out.Unified, f.name, strings.TrimPrefix(out.Unified[f.name]+"\n"+f.text, "\n"))
	}
	return out
}

func memoryToSpec(out *specs.LinuxResources, rest *Resources) {
	m := rest.Memory
	if m == nil {
		return
	}
	var o specs.LinuxMemory
	if has(m.Max) {
		if swap := m.SwapMax; swap != nil && *swap >= 0 && *m.Max > 0 && *swap <= math.MaxInt64-*m.Max {
			o.Swap, m.SwapMax = new(*m.Max+*swap), nil
		}
		o.Limit, m.Max = m.Max, nil
		if m.CheckUsage {
			o.CheckBeforeUpdate = new(true)
		}
	}
	if has(m.SwapMax) && *m.SwapMax == Unlimited {
		o.Swap, m.SwapMax = m.SwapMax, nil
	}
	if has(m.Low) {
		o.Reservation, m.Low = m.Low, nil
	}
	if o != (specs.LinuxMemory{}) {
		out.Memory = &o
	}
}

// has tells whether the specification can say a limit: there 0 is none.
func has(n *int64) bool { return n != nil && *n != 0 }

func cpuToSpec(out *specs.LinuxResources, rest *Resources) {
	c := rest.CPU
	if c == nil {
		return
	}
	o := specs.LinuxCPU{Quota: c.Quota, Burst: c.Burst, Cpus: c.Cpus, Mems: c.Mems}
	if c.Period != 0 {
		o.Period = new(c.Period)
	}
	if c.Weight != 0 {
		o.Shares = new(sharesOfWeight(c.Weight))
	}
	if c.Idle != nil {
		o.Idle = new(int64(0))
		if *c.Idle {
			*o.Idle = 1
		}
	}
	out.CPU, rest.CPU = &o, nil
}

// sharesOfWeight is the least number of shares that becomes a weight. There is one for each.
func sharesOfWeight(weight uint64) uint64 {
	return uint64(sort.Search(262144, func(n int) bool { return weightOfShares(uint64(n)) >= weight && n >= 2 }))
}

func ioToSpec(out *specs.LinuxResources, rest *Resources) {
	r := rest.IO
	if r == nil {
		return
	}
	var o specs.LinuxBlockIO
	weights := len(r.DeviceWeight)
	for _, device := range slices.Sorted(maps.Keys(r.DeviceWeight)) {
		if w := blkioOfWeight(r.DeviceWeight[device]); w != nil {
			o.WeightDevice = append(o.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: deviceToSpec(device), Weight: w})
		}
	}
	o.Weight = blkioOfWeight(r.Weight)
	if len(o.WeightDevice) == weights && (o.Weight != nil || r.Weight == 0) { // else all of them by the name of their file
		r.Weight, r.DeviceWeight = 0, nil
	} else {
		o.Weight, o.WeightDevice = nil, nil
	}
	for _, device := range slices.Sorted(maps.Keys(r.Max)) {
		limits := r.Max[device]
		for _, list := range throttleLists(&o) {
			if n := *list.limit(&limits); n != nil {
				rate := uint64(max(*n, 0)) // 0 takes a limit away
				*list.devices = append(*list.devices, specs.LinuxThrottleDevice{LinuxBlockIODevice: deviceToSpec(device), Rate: rate})
			}
		}
	}
	if r.Max = nil; o.Weight != nil || len(o.WeightDevice) > 0 || slices.ContainsFunc(throttleLists(&o), func(l throttleList) bool { return len(*l.devices) > 0 }) {
		out.BlockIO = &o
	}
}

// blkioOfWeight is the blkio.weight that becomes an io.weight; nil if there is none.
func blkioOfWeight(weight uint64) *uint16 {
	if weight == 0 || weight > 10000 {
		return nil
	}
	w := uint16(10 + ((weight-1)*990+9998)/9999)
	if weightOfBlkio(w) != weight {
		return nil
	}
	return &w
}

func deviceToSpec(device string) (d specs.LinuxBlockIODevice) {
	major, minor, _ := strings.Cut(device, ":")
	d.Major, _ = strconv.ParseInt(major, 10, 64)
	d.Minor, _ = strconv.ParseInt(minor, 10, 64)
	return d
}

func countToSpec(n *int64) *uint32 {
	switch {
	case n == nil:
		return nil
	case *n < 0 || *n > math.MaxInt32:
		return new(uint32(math.MaxInt32)) // the kernel's word for no limit
	}
	return new(uint32(*n))
}
