package container

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// This file holds what a process may say about its scheduling, and its encodings for the kernel. It
// is data; the launcher's program makes the system calls.

// Scheduler holds the parameters of sched_setattr(2).
type Scheduler struct {
	// Policy is "other", "batch", "idle", "fifo", "rr" or "deadline". "SCHED_FIFO" is accepted too.
	Policy string
	// Nice is -20 to 19, for other and batch. Zero is the usual value.
	Nice int32
	// Priority is 1 to 99, for fifo and rr; zero for the others.
	Priority uint32
	// ResetOnFork: children start with policy other.
	ResetOnFork bool
	// Runtime, Deadline and Period are in nanoseconds, for deadline; zero for the others. The kernel
	// wants 1024 <= Runtime <= Deadline <= Period; a Period of zero means Deadline.
	Runtime, Deadline, Period uint64
}

// IOPriority holds the parameters of ioprio_set(2).
type IOPriority struct {
	// Class is "rt", "be" or "idle". "IOPRIO_CLASS_BE" is accepted too.
	Class string
	// Priority is 0, the highest, to 7. The class idle has only 0.
	Priority int
}

// Personality is an execution domain; see personality(2).
type Personality struct {
	// Domain is "LINUX", or "LINUX32" for a uname that tells of a 32-bit machine.
	Domain string
}

// schedPolicies is indexed by SCHED_*, linux/sched.h. There is no 4.
var schedPolicies = []string{"other", "fifo", "rr", "batch", "", "idle", "deadline"}

// schedAttrSize is the size of struct sched_attr since Linux 5.3; SCHED_FLAG_RESET_ON_FORK is its first flag.
const (
	schedAttrSize        = 56
	schedFlagResetOnFork = 1
)

// attr returns struct sched_attr of linux/sched/types.h. All architectures with a launcher are
// little-endian.
func (s *Scheduler) attr() ([]byte, error) {
	var errs fieldErrors
	name := strings.TrimPrefix(strings.ToLower(s.Policy), "sched_")
	policy := slices.Index(schedPolicies, name)
	if policy < 0 || name == "" {
		errs.addf("Scheduler.Policy", "unknown policy %q; one of other, batch, idle, fifo, rr, deadline", s.Policy)
		return nil, errs.join()
	}
	fair := name == "other" || name == "batch"
	realtime := name == "fifo" || name == "rr"

	if s.Nice != 0 && !fair {
		errs.addf("Scheduler.Nice", "policy %s has no nice value; leave it 0", name)
	} else if s.Nice < -20 || s.Nice > 19 {
		errs.addf("Scheduler.Nice", "%d is not between -20 and 19", s.Nice)
	}
	if s.Priority != 0 && !realtime {
		errs.addf("Scheduler.Priority", "policy %s has no priority; leave it 0", name)
	} else if realtime && (s.Priority < 1 || s.Priority > 99) {
		errs.addf("Scheduler.Priority", "%d is not between 1 and 99", s.Priority)
	}
	switch period := max(s.Period, s.Deadline); {
	case name != "deadline":
		if s.Runtime != 0 || s.Deadline != 0 || s.Period != 0 {
			errs.addf("Scheduler.Runtime", "only policy deadline has runtime, deadline and period; leave them 0")
		}
	case s.Runtime < 1024 || s.Runtime > s.Deadline || s.Period != 0 && s.Deadline > s.Period || period >= 1<<63:
		errs.addf("Scheduler.Runtime", "policy deadline needs 1024 <= Runtime <= Deadline <= Period")
	}
	if err := errs.join(); err != nil {
		return nil, err
	}

	var flags uint64
	if s.ResetOnFork {
		flags = schedFlagResetOnFork
	}
	le := binary.LittleEndian
	b := make([]byte, 0, schedAttrSize)
	b = le.AppendUint32(b, schedAttrSize)
	b = le.AppendUint32(b, uint32(policy))
	b = le.AppendUint64(b, flags)
	b = le.AppendUint32(b, uint32(s.Nice))
	b = le.AppendUint32(b, s.Priority)
	b = le.AppendUint64(b, s.Runtime)
	b = le.AppendUint64(b, s.Deadline)
	b = le.AppendUint64(b, s.Period)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0), nil // sched_util_min and sched_util_max
}

// ioClasses is indexed by IOPRIO_CLASS_*, linux/ioprio.h.
var ioClasses = []string{"", "rt", "be", "idle"}

// ioClassShift is IOPRIO_CLASS_SHIFT.
const ioClassShift = 13

// value returns the third argument of ioprio_set(2).
func (p *IOPriority) value() (int, error) {
	name := strings.TrimPrefix(strings.ToLower(p.Class), "ioprio_class_")
	class := slices.Index(ioClasses, name)
	switch {
	case class < 1:
		return 0, fieldErrorf("IOPriority.Class", "unknown class %q; one of rt, be, idle", p.Class)
	case p.Priority < 0 || p.Priority > 7:
		return 0, fieldErrorf("IOPriority.Priority", "%d is not between 0 and 7", p.Priority)
	case name == "idle" && p.Priority != 0:
		return 0, fieldErrorf("IOPriority.Priority", "class idle has no priorities; leave it 0")
	}
	return class<<ioClassShift | p.Priority, nil
}

// value returns the argument of personality(2).
func (p *Personality) value() (uint64, error) {
	switch p.Domain {
	case "LINUX":
		return 0, nil // PER_LINUX
	case "LINUX32":
		return 8, nil // PER_LINUX32
	}
	return 0, fieldErrorf("Personality.Domain", "unknown domain %q; LINUX or LINUX32", p.Domain)
}

// maxCPUs bounds the numbers in a list of CPUs: CONFIG_NR_CPUS is at most 8192.
const maxCPUs = 8192

// parseCPUList turns "0-3,7" into the mask of sched_setaffinity(2), in whole 64-bit words. The mask's
// byte order is little-endian, as that of all architectures with a launcher.
func parseCPUList(s string) (mask []byte, err error) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := parseDecimal(first, maxCPUs-1)
		to, err2 := parseDecimal(last, maxCPUs-1)
		if err1 != nil || err2 != nil || from > to {
			return nil, fieldErrorf("CPUAffinity", "%q is not a list of CPUs, such as \"0-3,7\", with numbers below %d", s, maxCPUs)
		}
		if size := int(to)/64*8 + 8; len(mask) < size {
			mask = append(mask, make([]byte, size-len(mask))...)
		}
		for cpu := from; cpu <= to; cpu++ {
			mask[cpu/8] |= 1 << (cpu % 8)
		}
	}
	return mask, nil
}

// parseDecimal parses a number that consists of digits only, up to limit: no sign, no space, no
// underscore, no other base.
func parseDecimal(s string, limit uint64) (uint64, error) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, strconv.ErrSyntax
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, err
	}
	if n > limit {
		return 0, strconv.ErrRange
	}
	return n, nil
}
