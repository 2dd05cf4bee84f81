package container

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// This file compares what the kernel shows with what was written. The kernel writes back a normal form: sizes rounded
// down to pages, "max" for what is beyond counting, lists of CPUs with ranges.

// pageSize is that of the machine, in bytes.
func pageSize() int64 { return int64(os.Getpagesize()) }

// unlimitedPages is where the kernel stops counting pages: at LONG_MAX bytes on machines of 64 bits, on those of 32 bits at
// LONG_MAX pages.
func unlimitedPages() int64 {
	if strconv.IntSize == 32 {
		return 1<<31 - 1
	}
	return (1<<63 - 1) / pageSize()
}

// parseLimit parses a number as the kernel shows it, or "max".
func parseLimit(text string) (n int64, ok bool) {
	text = strings.TrimSpace(text)
	if text == "max" {
		return Unlimited, true
	}
	u, err := parseDecimal(text, 1<<63-1)
	return int64(u), err == nil && text != ""
}

// sameNumber is for files with one number that the kernel keeps as it is.
func sameNumber(want int64) func(string) bool {
	return func(got string) bool {
		n, ok := parseLimit(got)
		return ok && n == want
	}
}

// sameSize is for sizes in bytes that the kernel rounds down to a multiple of unit: of a page, or of a huge page.
func sameSize(want, unit int64) func(string) bool {
	if want == Unlimited {
		return sameNumber(want)
	}
	want -= want % unit
	beyond := unlimitedPages() / (unit / pageSize()) // in units
	return func(got string) bool {
		n, ok := parseLimit(got)
		return ok && (n == want || n == Unlimited && want/unit >= beyond)
	}
}

// sameCPUMax is for cpu.max, "150000 100000". A period of 0 has not been written.
func sameCPUMax(quota int64, period uint64) func(string) bool {
	return func(got string) bool {
		first, second, ok := strings.Cut(strings.TrimSpace(got), " ")
		return ok && sameNumber(quota)(first) && (period == 0 || sameNumber(int64(period))(second))
	}
}

// sameList is for lists of CPUs and memory nodes: "0,1" is "0-1".
func sameList(want string) func(string) bool {
	return func(got string) bool {
		a, errA := parseCPUList(want)
		b, errB := parseCPUList(strings.TrimSpace(got))
		return errA == nil && errB == nil && slices.Equal(a, b)
	}
}

// withinList tells whether the kernel gives some of what was asked for, and nothing else.
func withinList(want string) func(string) bool {
	return func(got string) bool {
		a, errA := parseCPUList(want)
		b, errB := parseCPUList(strings.TrimSpace(got))
		if errA != nil || errB != nil || len(b) > len(a) {
			return false
		}
		for i := range b {
			if b[i]&^a[i] != 0 {
				return false
			}
		}
		return true
	}
}

// atMost tells whether a usage is below a limit.
func atMost(limit int64) func(string) bool {
	return func(got string) bool {
		n, ok := parseLimit(got)
		return ok && n != Unlimited && n <= limit
	}
}

// sameKeyed is for the rest of a line, "rbps=1048576 wbps=max riops=max wiops=max". The kernel shows those of io.max that are
// no limits only beside one that is, and takes operations in a second from 4294967295 on, and of rdma.max
// counts from 2147483647 on, for no limit. An io.latency of 0 is not shown.
func sameKeyed(limits []keyedLimit) func(string) bool {
	return func(got string) bool {
		shown := make(map[string]string)
		for word := range strings.FieldsSeq(got) {
			key, value, _ := strings.Cut(word, "=")
			shown[key] = value
		}
		for _, k := range limits {
			if k.limit == nil {
				continue
			}
			want := *k.limit
			none := "max"
			switch {
			case k.key == "target":
				none = "0"
			case strings.HasSuffix(k.key, "iops") && want >= 1<<32-1, strings.HasPrefix(k.key, "hca_") && want >= 1<<31-1:
				want = Unlimited
			}
			value, ok := shown[k.key]
			if !ok {
				value = none
			}
			if !sameNumber(want)(value) {
				return false
			}
		}
		return true
	}
}

// hugetlbUnit is the size in bytes of a huge page from its name, "2MB", as the kernel writes it.
func hugetlbUnit(size string) (bytes int64, ok bool) {
	for i, unit := range []string{"KB", "MB", "GB"} {
		number, found := strings.CutSuffix(size, unit)
		if !found {
			continue
		}
		n, err := parseDecimal(number, 1023)
		bytes = int64(n) << (10 * (i + 1))
		return bytes, err == nil && n > 0 && number[0] != '0' && n&(n-1) == 0 && bytes > pageSize()
	}
	return 0, false
}

// sameUnified compares those files whose normal form is known from the fields; of others nothing can be said.
func sameUnified(name, text string) func(string) bool {
	n, isLimit := parseLimit(text)
	switch {
	case strings.HasPrefix(name, "cpuset.") && (strings.HasSuffix(name, ".cpus") || strings.HasSuffix(name, ".mems")):
		if _, err := parseCPUList(text); err == nil {
			return sameList(text)
		}
	case name == "cpuset.cpus.partition": // "root invalid (reason)" if it cannot be
		return func(got string) bool { return strings.TrimSpace(got) == text }
	case !isLimit:
	case name == "pids.max" || name == "cpu.weight" || name == "cpu.idle" || name == "cpu.max.burst" || name == "memory.oom.group":
		return sameNumber(n)
	case name == "cpu.max":
		return sameCPUMax(n, 0)
	case slices.Contains([]string{"memory.max", "memory.high", "memory.low", "memory.min", "memory.swap.max", "memory.swap.high", "memory.zswap.max"}, name):
		return sameSize(n, pageSize())
	}
	return nil
}
