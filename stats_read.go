//go:build linux

package container

import (
	"errors"
	"io/fs"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file reads the numbers of a cgroup, into one buffer. It runs in the caller's process. How the files are opened is in
// stats_files.go.

// Stats returns the numbers of the cgroup at this moment; see [CgroupStats] for what it has where a controller or a file is
// missing. It returns ErrNotExist if the cgroup has been removed.
//
// To open a file takes the kernel several times as long as to read it. So the files, up to about fifty, stay open until Close.
func (c *Cgroup) Stats() (*CgroupStats, error) {
	r := statReaders.Get().(*statReader)
	defer statReaders.Put(r)
	c.files.mu.Lock()
	defer c.files.mu.Unlock()
	r.cgroup, r.missing, r.err = c, false, nil
	s := r.snapshot()
	err := r.err
	if err == nil && r.missing {
		err = c.exists() // what was missing may have been removed meanwhile
	}
	r.cgroup, r.err = nil, nil
	if err != nil {
		return nil, err
	}
	return s, nil
}

// exists returns ErrNotExist if the cgroup has been removed.
func (c *Cgroup) exists() error {
	err := unix.Faccessat(int(c.dir.Fd()), "cgroup.controllers", unix.F_OK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		err = ErrNotExist
	}
	if err != nil {
		return &Error{Op: "cgroup", Path: c.path, Err: err}
	}
	return nil
}

// A statReader reads the files of one snapshot. Its buffer is used again.
type statReader struct {
	cgroup  *Cgroup
	buf     []byte
	missing bool  // a file was not there
	err     error // the first one
}

var statReaders = sync.Pool{New: func() any { return &statReader{buf: make([]byte, 16<<10)} }}

// snapshotParts are the parts of a snapshot, allocated at once.
type snapshotParts struct {
	CgroupStats
	cpu      CPUStats
	memory   MemoryStats
	pids     PidsStats
	io       IOStats
	pressure PressureStats
}

func (r *statReader) snapshot() *CgroupStats {
	s := &snapshotParts{CgroupStats: CgroupStats{Time: time.Now()}}
	controllers, ok := r.file("cgroup.controllers")
	if !ok {
		if r.err == nil {
			r.err = &Error{Op: "cgroup", Path: r.cgroup.path, Err: ErrNotExist}
		}
		return nil
	}
	enabled := string(controllers)
	has := func(controller string) bool { return hasWord(enabled, controller) }

	s.CPU = &s.cpu
	r.cpu(s.CPU, has("cpu"))
	if has("memory") {
		s.Memory = &s.memory
		r.memory(s.Memory)
	}
	if has("pids") {
		s.Pids = &s.pids
		r.pids(s.Pids)
	}
	if has("io") {
		s.IO = &s.io
		r.parse("io.stat", s.IO.parse)
	}
	if r.pressure("cpu.pressure", &s.pressure.CPU) {
		s.Pressure = &s.pressure
		r.pressure("memory.pressure", &s.pressure.Memory)
		r.pressure("io.pressure", &s.pressure.IO)
		r.pressure("irq.pressure", &s.pressure.IRQ)
	}
	if has("hugetlb") {
		r.hugetlb(&s.CgroupStats)
	}
	if has("rdma") {
		r.parse("rdma.current", func(text []byte) bool { return parseRDMA(&s.RDMA, text, false) })
		r.parse("rdma.max", func(text []byte) bool { return parseRDMA(&s.RDMA, text, true) })
	}
	if has("misc") {
		r.misc(&s.CgroupStats)
	}
	r.flat("cgroup.events", func(name []byte, n uint64) {
		switch string(name) {
		case "populated":
			s.Populated = n != 0
		case "frozen":
			s.Frozen = n != 0
		}
	})
	r.flat("cgroup.stat", func(name []byte, n uint64) {
		switch string(name) {
		case "nr_descendants":
			s.Descendants = n
		case "nr_dying_descendants":
			s.Dying = n
		}
	})
	return &s.CgroupStats
}

// hasWord tells whether a word is in a text of words.
func hasWord(text, word string) bool {
	for w := range strings.FieldsSeq(text) {
		if w == word {
			return true
		}
	}
	return false
}

func (r *statReader) cpu(s *CPUStats, controller bool) {
	r.parse("cpu.stat", s.parseStat)
	if s.Quota = Unlimited; controller {
		r.parse("cpu.max", s.parseMax)
		r.number("cpu.max.burst", &s.Burst)
		var idle uint64
		r.number("cpu.idle", &idle)
		if s.Idle = idle != 0; !s.Idle {
			r.number("cpu.weight", &s.Weight)
		}
	}
}

func (r *statReader) memory(s *MemoryStats) {
	r.number("memory.current", &s.Current)
	r.number("memory.peak", &s.Peak)
	r.number("memory.swap.current", &s.Swap)
	r.number("memory.swap.peak", &s.SwapPeak)
	r.number("memory.zswap.current", &s.Zswap)
	r.limit("memory.max", &s.Max)
	r.limit("memory.high", &s.High)
	r.limit("memory.low", &s.Low)
	r.limit("memory.min", &s.Min)
	r.limit("memory.swap.max", &s.SwapMax)
	r.limit("memory.swap.high", &s.SwapHigh)
	r.limit("memory.zswap.max", &s.ZswapMax)
	var group uint64
	r.number("memory.oom.group", &group)
	s.OOMGroup = group != 0
	r.parse("memory.events", s.Events.parse)
	r.parse("memory.events.local", s.LocalEvents.parse)
	r.parse("memory.stat", s.Stat.parse)
}

func (r *statReader) pids(s *PidsStats) {
	r.number("pids.current", &s.Current)
	r.number("pids.peak", &s.Peak)
	r.limit("pids.max", &s.Max)
	r.max("pids.events", &s.MaxEvents)
}

// pressure tells whether there is such a file. Of a kernel with psi=0, or before Linux 6.1 with a file that cannot be read, there
// is none.
func (r *statReader) pressure(name string, p *Pressure) (found bool) {
	text, found := r.file(name)
	if found && !p.parse(text) {
		r.malformed(name)
	}
	return found
}

func (r *statReader) hugetlb(s *CgroupStats) {
	sizes, err := hugePageSizes()
	if err != nil && r.err == nil {
		r.err = &Error{Op: "cgroup", Path: r.cgroup.path, Err: err}
	}
	for _, size := range sizes {
		var h HugetlbStats
		if !r.number(size.current, &h.Current) {
			continue
		}
		r.limit(size.max, &h.Max)
		r.number(size.reserved, &h.Reserved)
		r.limit(size.reservedMax, &h.ReservedMax)
		r.max(size.events, &h.MaxEvents)
		put(&s.Hugetlb, size.name, h)
	}
}

func (r *statReader) misc(s *CgroupStats) {
	each := func(name string, set func(*MiscStats, []byte) bool) {
		r.parse(name, func(text []byte) bool { return parseMisc(&s.Misc, text, set) })
	}
	each("misc.current", (*MiscStats).parseCurrent)
	each("misc.peak", (*MiscStats).parsePeak)
	each("misc.max", (*MiscStats).parseMax)
	r.parse("misc.events", func(text []byte) bool { return parseMiscEvents(s.Misc, text) })
}

// parse reads a file, and leaves what it is for as it is if there is no such file.
func (r *statReader) parse(name string, parse func(text []byte) bool) {
	if text, ok := r.file(name); ok && !parse(text) {
		r.malformed(name)
	}
}

func (r *statReader) malformed(name string) {
	if r.err == nil {
		r.err = &Error{Op: "cgroup", Path: r.cgroup.path + "/" + name, Err: errMalformed}
	}
}

var errMalformed = errors.New("this is not what a kernel writes")

// number reads a file with one number, and tells whether there is one.
func (r *statReader) number(name string, n *uint64) (found bool) {
	text, found := r.file(name)
	if found {
		var ok bool
		if *n, ok = parseUint(trimLine(text)); !ok {
			r.malformed(name)
		}
	}
	return found
}

// limit reads a file with a limit. A kernel without the file has no such limit.
func (r *statReader) limit(name string, limit *int64) {
	*limit = Unlimited
	if text, ok := r.file(name); ok {
		if *limit, ok = limitOf(trimLine(text)); !ok {
			r.malformed(name)
		}
	}
}

// flat reads a file with lines of a name and a number.
func (r *statReader) flat(name string, each func(name []byte, n uint64)) {
	r.parse(name, func(text []byte) bool { return parseFlat(text, each) })
}

// max reads how often a limit has been reached: "max 3".
func (r *statReader) max(name string, n *uint64) {
	r.flat(name, func(key []byte, value uint64) {
		if string(key) == "max" {
			*n = value
		}
	})
}

// file reads a file into the buffer. It returns false if there is none, or after an error.
func (r *statReader) file(name string) (text []byte, ok bool) {
	if r.err != nil {
		return nil, false
	}
	n, err := r.cgroup.files.read(r.cgroup.dir, name, &r.buf)
	switch err {
	case nil:
		return r.buf[:n], true
	case unix.ENOENT, unix.EOPNOTSUPP: // EOPNOTSUPP: psi=0, before Linux 6.1
		r.missing = true
	default:
		r.err = r.cgroup.fileError(name, err)
	}
	return nil, false
}

// A hugePageSize is one size of huge pages, and the names of its files.
type hugePageSize struct {
	name, current, max, reserved, reservedMax, events string
}

// hugePageSizes lists those of this host. They are fixed at boot.
var hugePageSizes = answered(func() ([]hugePageSize, error) {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var sizes []hugePageSize
	for _, e := range entries {
		number, _ := strings.CutPrefix(e.Name(), "hugepages-")
		number, ok := strings.CutSuffix(number, "kB")
		if kilobytes, err := strconv.ParseUint(number, 10, 54); ok && err == nil && kilobytes != 0 {
			sizes = append(sizes, newHugePageSize(kilobytes))
		}
	}
	return sizes, nil
})

func newHugePageSize(kilobytes uint64) hugePageSize {
	unit := min(2, max(0, bits.Len64(kilobytes)-1)/10)
	name := strconv.FormatUint(kilobytes>>(10*unit), 10) + [...]string{"KB", "MB", "GB"}[unit]
	file := "hugetlb." + name
	return hugePageSize{name, file + ".current", file + ".max", file + ".rsvd.current", file + ".rsvd.max", file + ".events"}
}
