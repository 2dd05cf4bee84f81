package container

// This file holds Resources, the limits of a cgroup, as plain data. How they become texts for the kernel's files
// is in resources_files.go.

// Unlimited, as a limit, takes the limit away: the kernel's "max".
const Unlimited int64 = -1

// Resources are limits of a cgroup, of version 2; see the kernel's Documentation/admin-guide/cgroup-v2.rst. What is
// nil, empty or, where 0 is no value, zero is left as it is: in a new cgroup that is the kernel's default,
// no limit. So zero Resources limit nothing. A limit that cannot be set is an error, which names the controller
// and the file.
//
// Sizes are in bytes. Limits are pointers, since 0 is a limit: new(int64(64<<20)).
type Resources struct {
	// Memory, CPU, Pids and IO are the limits of the controllers of these names. Nil: none.
	Memory *MemoryResources `json:",omitempty"`
	CPU    *CPUResources    `json:",omitempty"`
	Pids   *PidsResources   `json:",omitempty"`
	IO     *IOResources     `json:",omitempty"`

	// Hugetlb maps a size of huge pages as the kernel writes it, "2MB" or "1GB", to its limits.
	Hugetlb map[string]HugetlbResources `json:",omitempty"`

	// RDMA maps a device, "mlx5_0", to its limits.
	RDMA map[string]RDMAResources `json:",omitempty"`

	// Misc maps a resource of misc.capacity, such as "sev", to how much of it may be used (misc.max). Linux 5.13.
	Misc map[string]int64 `json:",omitempty"`

	// Devices says which devices may be opened and made. Nil: as it is, at first all of them. With rules, or
	// an empty list, everything is denied that no rule allows; see [DefaultDeviceRules]. What a cgroup above denies
	// stays denied. An eBPF program does it, which only root of the host may load: see [CanLimitDevices].
	Devices []DeviceRule `json:",omitzero"`

	// Unified maps names of files in the cgroup, "memory.high", to what is written to them, in the order of the names and
	// line by line. It is for what has no field here; a file that a field has set is refused. The files of the
	// core, which begin with "cgroup.", are not limits and are refused.
	Unified map[string]string `json:",omitempty"`
}

// MemoryResources are limits of the memory controller, in bytes. The kernel rounds down to pages.
type MemoryResources struct {
	// Max is the hard limit (memory.max): what cannot be freed below it is killed, also when Set lowers it; see CheckUsage.
	Max *int64 `json:",omitempty"`
	// High is where the kernel begins to slow the processes down and to take memory back (memory.high).
	High *int64 `json:",omitempty"`
	// Low is memory that is taken only if nothing else is left (memory.low), Min is never taken (memory.min).
	Low *int64 `json:",omitempty"`
	Min *int64 `json:",omitempty"`
	// SwapMax limits swap alone, not memory and swap together (memory.swap.max). 0: no swap.
	SwapMax *int64 `json:",omitempty"`
	// SwapHigh is where swapping slows the processes down (memory.swap.high).
	SwapHigh *int64 `json:",omitempty"`
	// ZswapMax limits what is kept compressed in memory (memory.zswap.max). Linux 5.19.
	ZswapMax *int64 `json:",omitempty"`
	// OOMGroup kills all processes of the cgroup where it would kill one (memory.oom.group).
	OOMGroup *bool `json:",omitempty"`
	// CheckUsage refuses a Max that is less than what is in use, of a cgroup that has processes. The kernel knows no such
	// check: what is used a moment later may be more.
	CheckUsage bool `json:",omitempty"`
}

// CPUResources are limits of the controllers cpu and cpuset.
type CPUResources struct {
	// Quota is the time on CPUs, in microseconds, that the cgroup may use in each Period (cpu.max):
	// 150000 in 100000 is one CPU and a half. Unlimited takes it away.
	Quota *int64 `json:",omitempty"`
	// Period is in microseconds, from 1000 to 1000000, and needs a Quota, since the kernel sets both at once. Zero: as it is, at first 100000.
	Period uint64 `json:",omitempty"`
	// Burst is unused quota that may be saved up, in microseconds, at most Quota (cpu.max.burst). Linux 5.14.
	Burst *uint64 `json:",omitempty"`
	// Weight is the share among siblings where CPUs are scarce (cpu.weight), 1 to 10000. Zero: as it is, at first 100.
	Weight uint64 `json:",omitempty"`
	// Idle lets the processes run only where nobody else wants to (cpu.idle); Weight then does not count. Linux 5.15.
	Idle *bool `json:",omitempty"`
	// Cpus are the CPUs, "0-3,7" (cpuset.cpus). Empty: as it is, at first those of the parent.
	Cpus string `json:",omitempty"`
	// Mems are the memory nodes (cpuset.mems), written like Cpus.
	Mems string `json:",omitempty"`
}

// PidsResources are limits of the pids controller.
type PidsResources struct {
	// Max is the number of processes and threads (pids.max). 0 is a limit: no fork succeeds any more.
	Max *int64 `json:",omitempty"`
}

// IOResources are limits of the io controller. Devices are written "MAJOR:MINOR", and are whole disks: a
// partition is refused by the kernel.
type IOResources struct {
	// Weight is the share among siblings where a device is busy, 1 to 10000. Zero: as it is, at first 100. It is written to io.weight, which
	// needs a cost model of the device (io.cost.qos), and to io.bfq.weight, for devices with that scheduler,
	// whose weights end at 1000: what is above 100 is scaled. One of these files must be there.
	Weight uint64 `json:",omitempty"`
	// DeviceWeight is the weight for single devices.
	DeviceWeight map[string]uint64 `json:",omitempty"`
	// Max limits single devices (io.max).
	Max map[string]IOMax `json:",omitempty"`
	// Latency is the target for single devices, in microseconds (io.latency). 0 takes it away.
	Latency map[string]uint64 `json:",omitempty"`
}

// IOMax limits the use of one device. Nil: as it is, at first no limit.
type IOMax struct {
	ReadBytes  *int64 `json:",omitempty"` // in a second (rbps)
	WriteBytes *int64 `json:",omitempty"` // in a second (wbps)
	ReadOps    *int64 `json:",omitempty"` // in a second (riops)
	WriteOps   *int64 `json:",omitempty"` // in a second (wiops)
}

// HugetlbResources are limits for one size of huge pages, in bytes.
type HugetlbResources struct {
	// Max limits the pages in use (hugetlb.SIZE.max).
	Max *int64 `json:",omitempty"`
	// ReservedMax limits those reserved by mmap(2), which fails then; Max would let the access fail, with SIGBUS (hugetlb.SIZE.rsvd.max).
	ReservedMax *int64 `json:",omitempty"`
}

// RDMAResources are limits for one device (rdma.max).
type RDMAResources struct {
	HCAHandles *int64 `json:",omitempty"`
	HCAObjects *int64 `json:",omitempty"`
}

// DeviceRule allows or denies the use of devices. Of the rules that are about a device the last one decides, for
// each kind of access by itself.
type DeviceRule struct {
	// Allow: the access is allowed; else it is denied.
	Allow bool
	// Type is 'c' for character devices, 'b' for block devices, 'a' or zero for both.
	Type rune
	// Major and Minor are the device's numbers. Nil: any.
	Major *uint32 `json:",omitempty"`
	Minor *uint32 `json:",omitempty"`
	// Access is made of 'r' (open for reading), 'w' (for writing) and 'm' (mknod). Empty: all three.
	Access string
}
