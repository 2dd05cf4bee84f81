package container

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// This file is memory.stat: a few numbers that everybody knows as fields, and all of them by name.

// MemoryStat is memory.stat: what the memory is used for, in bytes, and counters. Which names there are depends on the
// kernel; [MemoryStat.Get] and [MemoryStat.All] have each.
type MemoryStat struct {
	Anon          uint64 // of processes, not of files
	File          uint64 // the page cache, with tmpfs and shared memory
	Kernel        uint64 // all of the kernel's; Linux 5.18
	KernelStack   uint64
	PageTables    uint64
	Sock          uint64 // buffers of the network
	Shmem         uint64 // the part of File that is swapped, not written back: tmpfs, shared memory
	FileMapped    uint64 // the part of File that is mapped by mmap(2)
	FileDirty     uint64 // the part of File that is to be written
	FileWriteback uint64 // the part of File that is being written
	Slab          uint64 // of the kernel's data structures
	// SlabReclaimable is the part of Slab that can be freed, such as dentries.
	SlabReclaimable uint64
	// InactiveFile is the part of File that is freed first: Current without it is often called the working set.
	InactiveFile, ActiveFile, InactiveAnon, ActiveAnon, Unevictable uint64
	// PageFaults counts all page faults, MajorFaults those that had to wait for a device.
	PageFaults, MajorFaults uint64

	text string // as the kernel has written it
}

// field returns the field for a name, if it has one.
func (s *MemoryStat) field(name []byte) *uint64 {
	switch string(name) {
	case "anon":
		return &s.Anon
	case "file":
		return &s.File
	case "kernel":
		return &s.Kernel
	case "kernel_stack":
		return &s.KernelStack
	case "pagetables":
		return &s.PageTables
	case "sock":
		return &s.Sock
	case "shmem":
		return &s.Shmem
	case "file_mapped":
		return &s.FileMapped
	case "file_dirty":
		return &s.FileDirty
	case "file_writeback":
		return &s.FileWriteback
	case "slab":
		return &s.Slab
	case "slab_reclaimable":
		return &s.SlabReclaimable
	case "inactive_file":
		return &s.InactiveFile
	case "active_file":
		return &s.ActiveFile
	case "inactive_anon":
		return &s.InactiveAnon
	case "active_anon":
		return &s.ActiveAnon
	case "unevictable":
		return &s.Unevictable
	case "pgfault":
		return &s.PageFaults
	case "pgmajfault":
		return &s.MajorFaults
	}
	return nil
}

// Get returns a number by its name in memory.stat: "workingset_refault_file".
func (s *MemoryStat) Get(name string) (value uint64, found bool) {
	for n, v := range s.All() {
		if n == name {
			return v, true
		}
	}
	return 0, false
}

// All are the names and numbers of memory.stat, in the kernel's order.
func (s *MemoryStat) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for line := range strings.Lines(s.text) {
			name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if value, err := strconv.ParseUint(number, 10, 64); err == nil && !yield(name, value) {
				return
			}
		}
	}
}

// MarshalJSON writes all numbers by their names in memory.stat.
func (s MemoryStat) MarshalJSON() ([]byte, error) {
	return json.Marshal(maps.Collect(s.All()))
}

// UnmarshalJSON reads what MarshalJSON has written; the order is that of the names.
func (s *MemoryStat) UnmarshalJSON(text []byte) error {
	var all map[string]uint64
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	*s = MemoryStat{}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if f := s.field([]byte(name)); f != nil {
			*f = all[name]
		}
		if !strings.ContainsAny(name, " \n") {
			b.WriteString(name + " " + strconv.FormatUint(all[name], 10) + "\n")
		}
	}
	s.text = b.String()
	return nil
}
