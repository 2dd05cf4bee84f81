package container

import (
	"fmt"
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file translates the limits of an OCI specification, whose words are those of cgroup v1.

// ResourcesFromSpec turns the limits of an OCI runtime specification into Resources, for [Container.Set]. What
// is not there, or 0 where that is no limit, is left as it is; -1 is Unlimited. Each field is carried out or refused: all
// complaints are returned at once, each a *FieldError that names the field in the specification's words. Values are checked where
// the Resources are used, whose complaints speak of the Resources.
//
//   - cpu.shares (2 to 262144) become a weight w (1 to 10000) by log10(w) = (L*L + 125*L)/612 - 7/34, where L is log2(shares),
//     rounded up, so that both defaults meet: 1024 is 100. It is what runc does since 1.3.2 and crun since 1.23;
//     before, they made 39 of 1024.
//   - cpu.period without cpu.quota is of Unlimited.
//   - memory.swap counts memory and swap together, SwapMax swap alone: memory.limit is subtracted. memory.reservation is Low.
//   - memory.useHierarchy is always so. memory.swappiness, memory.disableOOMKiller, memory.kernel, real time and
//     network classes are not in cgroup v2, and are refused.
//   - blockIO.weight (10 to 1000) becomes 1 + (weight-10)*9999/990. A rate of 0 takes a limit away.
//   - hugepageLimits limit both what is reserved and what is used.
//   - pids.limit of 0 is a limit.
//   - devices are Devices: what no rule is about is denied, and the rules of DefaultDeviceRules are added if they are missing.
//   - unified is Unified, but for limits that have a field here and none in the specification.
func ResourcesFromSpec(in *specs.LinuxResources) (*Resources, error) {
	f := &limitsFromSpec{}
	if in != nil {
		f.convert(in)
	}
	if err := f.errs.join(); err != nil {
		return nil, err
	}
	return &f.r, nil
}

// limitsFromSpec is a conversion at work.
type limitsFromSpec struct {
	r    Resources
	errs fieldErrors
}

func (f *limitsFromSpec) convert(in *specs.LinuxResources) {
	rest := deepCopy(*in)
	f.memory(rest.Memory)
	f.cpu(rest.CPU)
	if rest.Pids != nil && rest.Pids.Limit != nil {
		f.r.Pids = &PidsResources{Max: rest.Pids.Limit}
	}
	f.io(rest.BlockIO)
	for i, h := range rest.HugepageLimits {
		if _, twice := f.r.Hugetlb[h.Pagesize]; twice {
			f.errs.addf(specField("linux.resources.hugepageLimits", i, "pageSize"), "%q has a limit already", h.Pagesize)
		}
		set(&f.r.Hugetlb, h.Pagesize, HugetlbResources{Max: new(rateOf(h.Limit)), ReservedMax: new(rateOf(h.Limit))})
	}
	for device, in := range rest.Rdma {
		set(&f.r.RDMA, device, RDMAResources{HCAHandles: countOf(in.HcaHandles), HCAObjects: countOf(in.HcaObjects)})
	}
	for name, value := range rest.Unified {
		set(&f.r.Unified, name, value)
	}
	f.r.takeUnified()
	rules, errs := deviceRulesFromSpec(rest.Devices)
	f.r.Devices, f.errs = rules, append(f.errs, errs...)

	rest.Devices, rest.Pids, rest.HugepageLimits, rest.Rdma, rest.Unified = nil, nil, nil, nil, nil
	for _, field := range asked("linux.resources", rest) {
		f.errs.addf(field, "cgroup v2 has nothing like it; leave it out")
	}
}

// set sets an element of a map that may be nil.
func set[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[key] = value
}

// take returns what a field asks for and clears it; nil if it asks for nothing, as 0 does.
func take[T int64 | uint64 | uint16](field **T) *T {
	value := *field
	if *field = nil; value == nil || *value == 0 {
		return nil
	}
	return value
}

func (f *limitsFromSpec) memory(in *specs.LinuxMemory) {
	if in == nil {
		return
	}
	m := MemoryResources{Max: take(&in.Limit), Low: take(&in.Reservation)}
	const field = "linux.resources.memory.swap"
	switch swap := take(&in.Swap); {
	case swap == nil:
	case *swap == Unlimited:
		m.SwapMax = swap
	case m.Max == nil || *m.Max == Unlimited:
		f.errs.addf(field, "counts memory and swap together, which cgroup v2 can only do with a limit in linux.resources.memory.limit")
	case *swap < *m.Max:
		f.errs.addf(field, "%d is less than linux.resources.memory.limit, %d, which it includes", *swap, *m.Max)
	default:
		m.SwapMax = new(*swap - *m.Max)
	}
	if check := in.CheckBeforeUpdate; check != nil && *check {
		m.CheckUsage = m.Max != nil
	}
	in.CheckBeforeUpdate, in.UseHierarchy = nil, nil
	if m != (MemoryResources{}) {
		f.r.Memory = &m
	}
}

func (f *limitsFromSpec) cpu(in *specs.LinuxCPU) {
	if in == nil {
		return
	}
	c := CPUResources{Quota: take(&in.Quota), Burst: in.Burst, Cpus: in.Cpus, Mems: in.Mems}
	if period := take(&in.Period); period != nil {
		c.Period = *period
		if c.Quota == nil {
			c.Quota = new(Unlimited)
		}
	}
	if shares := take(&in.Shares); shares != nil {
		c.Weight = weightOfShares(*shares)
	}
	if in.Idle != nil {
		c.Idle = new(*in.Idle == 1)
		if *in.Idle != 0 && *in.Idle != 1 {
			f.errs.addf("linux.resources.cpu.idle", "%d is neither 0 nor 1", *in.Idle)
		}
	}
	in.Burst, in.Cpus, in.Mems, in.Idle = nil, "", "", nil
	if c != (CPUResources{}) {
		f.r.CPU = &c
	}
}

// weightOfShares makes cpu.weight of cpu.shares.
func weightOfShares(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	const error = 1e-9 // of the arithmetic: 1024 must not become 101
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34) - error))
}

func (f *limitsFromSpec) io(in *specs.LinuxBlockIO) {
	if in == nil {
		return
	}
	var r IOResources
	weight := func(field string, weight *uint16) uint64 {
		if weight != nil && (*weight < 10 || *weight > 1000) {
			f.errs.addf(field, "%d is not between 10 and 1000", *weight)
		}
		if weight == nil || *weight < 10 {
			return 0
		}
		return weightOfBlkio(*weight)
	}
	r.Weight = weight("linux.resources.blockIO.weight", take(&in.Weight))
	for i, d := range in.WeightDevice {
		if w := weight(specField("linux.resources.blockIO.weightDevice", i, "weight"), take(&d.Weight)); w != 0 {
			set(&r.DeviceWeight, deviceOf(d.LinuxBlockIODevice), w)
		}
		if take(&d.LeafWeight) != nil {
			f.errs.addf(specField("linux.resources.blockIO.weightDevice", i, "leafWeight"), "cgroup v2 has nothing like it; leave it out")
		}
	}
	for _, list := range throttleLists(in) {
		for _, d := range *list.devices {
			device := deviceOf(d.LinuxBlockIODevice)
			limits := r.Max[device]
			*list.limit(&limits) = new(rateOf(d.Rate))
			if d.Rate == 0 {
				*list.limit(&limits) = new(Unlimited)
			}
			set(&r.Max, device, limits)
		}
		*list.devices = nil
	}
	in.WeightDevice = nil
	if r.Weight != 0 || len(r.DeviceWeight)+len(r.Max) > 0 {
		f.r.IO = &r
	}
}

// throttleLists pairs the lists of the specification with the fields of an IOMax.
func throttleLists(in *specs.LinuxBlockIO) []throttleList {
	return []throttleList{
		{&in.ThrottleReadBpsDevice, func(m *IOMax) **int64 { return &m.ReadBytes }},
		{&in.ThrottleWriteBpsDevice, func(m *IOMax) **int64 { return &m.WriteBytes }},
		{&in.ThrottleReadIOPSDevice, func(m *IOMax) **int64 { return &m.ReadOps }},
		{&in.ThrottleWriteIOPSDevice, func(m *IOMax) **int64 { return &m.WriteOps }},
	}
}

type throttleList struct {
	devices *[]specs.LinuxThrottleDevice
	limit   func(*IOMax) **int64
}

func deviceOf(d specs.LinuxBlockIODevice) string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// weightOfBlkio makes io.weight of blkio.weight.
func weightOfBlkio(weight uint16) uint64 { return 1 + (uint64(weight)-10)*9999/990 }

// rateOf is a limit of 64 bits without a sign; half of them is more than there will ever be.
func rateOf(n uint64) int64 {
	if n > math.MaxInt64 {
		return Unlimited
	}
	return int64(n)
}

// countOf is a limit of rdma.max, where the kernel takes its greatest int for no limit.
func countOf(n *uint32) *int64 {
	switch {
	case n == nil:
		return nil
	case *n >= math.MaxInt32:
		return new(Unlimited)
	}
	return new(int64(*n))
}
