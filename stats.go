package container

import "time"

// This file holds what can be measured of a cgroup and of a container, as data. How it is read is in stats_read.go.

// Stats are the numbers of a container at one moment.
type Stats struct {
	CgroupStats

	// Interfaces are the network interfaces of the container's network namespace, in the kernel's order, the loopback interface
	// among them. Nil if the first process has ended, or shares the caller's network namespace.
	Interfaces []InterfaceStats
}

// CgroupStats are the numbers of a cgroup at one moment, those of the cgroups below it included. Counters start with the
// cgroup and never decrease. Sizes are in bytes. The files are those of the kernel's
// Documentation/admin-guide/cgroup-v2.rst.
//
// A part is nil if its controller is not enabled for the cgroup. Of a file that this kernel does not have, numbers are 0
// and limits [Unlimited]. Limits are the cgroup's own: one above it may be lower.
type CgroupStats struct {
	// Time is when the reading began.
	Time time.Time

	// CPU is never nil: the kernel counts time in each cgroup.
	CPU    *CPUStats
	Memory *MemoryStats
	Pids   *PidsStats
	IO     *IOStats

	// Pressure says how long processes had to wait (PSI). It needs no controller. Nil if the kernel does not measure it, for
	// instance because it was booted with psi=0, or not for this cgroup (cgroup.pressure).
	Pressure *PressureStats

	// Hugetlb maps a size of huge pages, "2MB" or "1GB", to its numbers. RDMA maps a device, "mlx5_0". Misc
	// maps a resource, such as "sev"; Linux 5.13. Nil also if there is no such size, device or resource.
	Hugetlb map[string]HugetlbStats
	RDMA    map[string]RDMAStats
	Misc    map[string]MiscStats

	// Populated tells whether there is a process in it, Frozen whether they are all stopped by Freeze or Pause
	// (cgroup.events).
	Populated, Frozen bool
	// Descendants is the number of cgroups below it, Dying of those that have been removed and still hold memory
	// (cgroup.stat).
	Descendants, Dying uint64
}

// CPUStats are from cpu.stat and the limits of the cpu controller. What counts limits is 0 without that controller.
type CPUStats struct {
	// Usage is the time on CPUs; User is that outside of the kernel, System that in it.
	Usage, User, System time.Duration
	// Nice is the part of User at a lower priority. Linux 6.11.
	Nice time.Duration

	// Periods is the number of periods in which the cgroup wanted to run while it had a quota, Throttled that of those in which
	// the quota did not suffice. ThrottledTime is how long its CPUs stood still, added up over CPUs.
	Periods, Throttled uint64
	ThrottledTime      time.Duration
	// Bursts is the number of periods in which saved quota was used, BurstTime how much of it. Linux 5.14.
	Bursts    uint64
	BurstTime time.Duration

	// Quota is in microseconds in each Period, which is in microseconds, too (cpu.max). Unlimited is no quota.
	Quota  int64
	Period uint64
	// Burst is the quota that may be saved up, in microseconds (cpu.max.burst). Linux 5.14.
	Burst uint64
	// Weight is from 1 to 10000 (cpu.weight). It is 0 where Idle is true (cpu.idle, Linux 5.15) or there is no cpu controller.
	Weight uint64
	Idle   bool
}

// MemoryStats are the numbers of the memory controller, in bytes.
type MemoryStats struct {
	// Current is the memory in use: of processes, of the page cache, of the kernel (memory.current). Peak is the
	// most that it has been (memory.peak, Linux 5.19).
	Current, Peak uint64
	// Swap is what is swapped out (memory.swap.current), SwapPeak the most that it has been (memory.swap.peak, Linux 6.5).
	Swap, SwapPeak uint64
	// Zswap is the memory that holds compressed pages (memory.zswap.current). Linux 5.19.
	Zswap uint64

	// The limits: see [MemoryResources]. For Low and Min 0 is no protection, and Unlimited protects everything.
	Max, High, Low, Min         int64
	SwapMax, SwapHigh, ZswapMax int64
	OOMGroup                    bool

	// Events are those of the cgroup and of those below it (memory.events), LocalEvents those of itself alone
	// (memory.events.local, Linux 5.2).
	Events, LocalEvents MemoryEvents

	// Stat is memory.stat.
	Stat MemoryStat
}

// MemoryEvents count what the limits have led to.
type MemoryEvents struct {
	Low  uint64 // memory was taken although there was less than Low in use
	High uint64 // processes were slowed down, as there was more than High in use
	Max  uint64 // there would have been more than Max in use
	OOM  uint64 // Max was reached, and nothing could be freed
	// OOMKill is the number of processes that the kernel has killed for want of memory, the host's or the cgroup's.
	OOMKill uint64
	// OOMGroupKill is how often all processes were killed at once (memory.oom.group). Linux 5.17.
	OOMGroupKill uint64
}

// PidsStats are the numbers of the pids controller: of processes and threads.
type PidsStats struct {
	// Current is how many there are (pids.current), Peak the most that there have been (pids.peak, Linux 6.1).
	Current, Peak uint64
	// Max is the limit (pids.max).
	Max int64
	// MaxEvents is how often the limit made a fork fail (pids.events): the cgroup's own limit, or with Linux 6.11 and later
	// that of one below it.
	MaxEvents uint64
}

// IOStats are the numbers of the io controller.
type IOStats struct {
	// Devices are those that have been used (io.stat), in the kernel's order.
	Devices []IODeviceStats
}

// IODeviceStats is what has been read from, written to and discarded on one device. Writes of the page cache count when they
// reach the device, and only where the file system says whose they are.
type IODeviceStats struct {
	Major, Minor                        uint32
	ReadBytes, WriteBytes, DiscardBytes uint64
	Reads, Writes, Discards             uint64
}

// PressureStats are the pressures of the resources.
type PressureStats struct {
	CPU, Memory, IO Pressure
	// IRQ has no Some: interrupts hold up everybody. Linux 6.1, and a kernel that is built for it.
	IRQ Pressure
}

// Pressure is how long processes have waited for a resource: see the kernel's Documentation/accounting/psi.rst.
type Pressure struct {
	// Some is about the time in which one process or more had to wait.
	Some PressureTime
	// Full is about the time in which nobody did anything but wait. For the CPU: Linux 5.13.
	Full PressureTime
}

// PressureTime is a part of the time.
type PressureTime struct {
	// Avg10, Avg60 and Avg300 are percent of the last 10, 60 and 300 seconds, with two digits after the point.
	Avg10, Avg60, Avg300 float64
	// Total is the sum since the cgroup was made.
	Total time.Duration
}

// HugetlbStats are the numbers of one size of huge pages, in bytes.
type HugetlbStats struct {
	// Current is in use, Max the limit (hugetlb.SIZE.current, hugetlb.SIZE.max).
	Current uint64
	Max     int64
	// Reserved is reserved by mmap(2), ReservedMax the limit of that (hugetlb.SIZE.rsvd.current and .max). Linux 5.7.
	Reserved    uint64
	ReservedMax int64
	// MaxEvents is how often a page could not be had because of Max (hugetlb.SIZE.events).
	MaxEvents uint64
}

// RDMAStats are the numbers of one device (rdma.current, rdma.max).
type RDMAStats struct {
	HCAHandles, HCAObjects       uint64
	HCAHandlesMax, HCAObjectsMax int64
}

// MiscStats are the numbers of one resource of the misc controller.
type MiscStats struct {
	// Current is in use (misc.current), Peak the most that has been (misc.peak, Linux 6.11).
	Current, Peak uint64
	// Max is the limit (misc.max), MaxEvents how often it has been reached (misc.events, Linux 5.16).
	Max       int64
	MaxEvents uint64
}

// InterfaceStats are the counters of one network interface, as who is in the container sees them: what the
// container receives is Rx, although for the host's end of a veth pair it is Tx.
type InterfaceStats struct {
	Name string

	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}
