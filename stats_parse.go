//go:build linux

package container

import (
	"bytes"
	"math"
	"math/bits"
	"time"
)

// This file reads the texts of a cgroup's files. Nothing is split into strings: a snapshot reads dozens of them. Each function returns
// false for a text that no kernel writes; keys and fields that a newer kernel has added are passed over.

// parseUint reads a decimal number and nothing else.
func parseUint(text []byte) (n uint64, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		high, low := bits.Mul64(n, 10)
		sum, carry := bits.Add64(low, uint64(c-'0'), 0)
		if high != 0 || carry != 0 {
			return 0, false
		}
		n = sum
	}
	return n, len(text) > 0
}

// limitOf reads a number or "max". A limit that is more than there can be of anything is none.
func limitOf(text []byte) (limit int64, ok bool) {
	if string(text) == "max" {
		return Unlimited, true
	}
	n, ok := parseUint(text)
	if n > math.MaxInt64 {
		return Unlimited, ok
	}
	return int64(n), ok
}

// parseMicroseconds reads a duration.
func parseMicroseconds(text []byte) (d time.Duration, ok bool) {
	n, ok := parseUint(text)
	return saturate(n), ok
}

// trimLine takes the newline from the text of a file with one line.
func trimLine(text []byte) []byte { return bytes.TrimSuffix(text, []byte("\n")) }

// cutLine returns the first line and the rest.
func cutLine(text []byte) (line, rest []byte) {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, nil
}

// cutSpace returns the text before the first space and that after it.
func cutSpace(text []byte) (word, rest []byte) {
	if i := bytes.IndexByte(text, ' '); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, nil
}

// cutPair splits "key=value".
func cutPair(word []byte) (key, value []byte, ok bool) { return bytes.Cut(word, []byte("=")) }

// parseFlat reads lines of a name and a number.
func parseFlat(text []byte, each func(name []byte, n uint64)) bool {
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		name, number := cutSpace(line)
		n, ok := parseUint(number)
		if !ok || len(name) == 0 {
			return false
		}
		each(name, n)
	}
	return true
}

// saturate makes a duration of a number of microseconds, the longest one if it is longer.
func saturate(microseconds uint64) time.Duration {
	return time.Duration(min(microseconds, math.MaxInt64/1000)) * time.Microsecond
}

func (s *CPUStats) parseStat(text []byte) bool {
	return parseFlat(text, func(name []byte, n uint64) {
		switch string(name) {
		case "usage_usec":
			s.Usage = saturate(n)
		case "user_usec":
			s.User = saturate(n)
		case "system_usec":
			s.System = saturate(n)
		case "nice_usec":
			s.Nice = saturate(n)
		case "nr_periods":
			s.Periods = n
		case "nr_throttled":
			s.Throttled = n
		case "throttled_usec":
			s.ThrottledTime = saturate(n)
		case "nr_bursts":
			s.Bursts = n
		case "burst_usec":
			s.BurstTime = saturate(n)
		}
	})
}

// parseMax reads cpu.max: "max 100000".
func (s *CPUStats) parseMax(text []byte) (ok bool) {
	quota, period := cutSpace(trimLine(text))
	if s.Quota, ok = limitOf(quota); !ok {
		return false
	}
	s.Period, ok = parseUint(period)
	return ok
}

func (s *MemoryEvents) parse(text []byte) bool {
	return parseFlat(text, func(name []byte, n uint64) {
		switch string(name) {
		case "low":
			s.Low = n
		case "high":
			s.High = n
		case "max":
			s.Max = n
		case "oom":
			s.OOM = n
		case "oom_kill":
			s.OOMKill = n
		case "oom_group_kill":
			s.OOMGroupKill = n
		}
	})
}

func (s *MemoryStat) parse(text []byte) bool {
	s.text = string(text)
	return parseFlat(text, func(name []byte, n uint64) {
		if f := s.field(name); f != nil {
			*f = n
		}
	})
}

// parse reads io.stat: "8:0 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0". Some kernels write the number of a device without
// numbers for it, with no newline before the next one: "8:16 8:0 rbytes=0".
func (s *IOStats) parse(text []byte) bool {
	if len(text) > 0 {
		s.Devices = make([]IODeviceStats, 0, bytes.Count(text, []byte("\n"))+1)
	}
	for len(text) > 0 {
		var line, word []byte
		line, text = cutLine(text)
		var d IODeviceStats
		device, known, numbers := false, false, false
		for len(line) > 0 {
			word, line = cutSpace(line)
			key, value, pair := cutPair(word)
			if !pair {
				d = IODeviceStats{}
				d.Major, d.Minor, known = parseDevice(word)
				device = true
				continue
			}
			if !device {
				return false
			}
			f := d.field(key)
			if f == nil {
				continue // of io.cost or io.latency, for the debugging of the kernel
			}
			numbers = known
			var ok bool
			if *f, ok = parseUint(value); !ok {
				return false
			}
		}
		if numbers {
			s.Devices = append(s.Devices, d)
		}
	}
	return true
}

func (d *IODeviceStats) field(key []byte) *uint64 {
	switch string(key) {
	case "rbytes":
		return &d.ReadBytes
	case "wbytes":
		return &d.WriteBytes
	case "dbytes":
		return &d.DiscardBytes
	case "rios":
		return &d.Reads
	case "wios":
		return &d.Writes
	case "dios":
		return &d.Discards
	}
	return nil
}

// parseDevice reads "8:16".
func parseDevice(word []byte) (major, minor uint32, ok bool) {
	a, b, _ := bytes.Cut(word, []byte(":"))
	x, okX := parseUint(a)
	y, okY := parseUint(b)
	return uint32(x), uint32(y), okX && okY && x <= math.MaxUint32 && y <= math.MaxUint32
}

// parse reads a file of PSI: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and the same for "full".
func (p *Pressure) parse(text []byte) bool {
	for len(text) > 0 {
		var line, word []byte
		line, text = cutLine(text)
		word, line = cutSpace(line)
		var t *PressureTime
		switch string(word) {
		case "some":
			t = &p.Some
		case "full":
			t = &p.Full
		default:
			return false
		}
		for len(line) > 0 {
			word, line = cutSpace(line)
			key, value, ok := cutPair(word)
			switch string(key) {
			case "avg10":
				t.Avg10, ok = parsePercent(value)
			case "avg60":
				t.Avg60, ok = parsePercent(value)
			case "avg300":
				t.Avg300, ok = parsePercent(value)
			case "total":
				t.Total, ok = parseMicroseconds(value)
			}
			if !ok {
				return false
			}
		}
	}
	return true
}

// parsePercent reads "12.34".
func parsePercent(text []byte) (percent float64, ok bool) {
	whole, part, _ := bytes.Cut(text, []byte("."))
	w, okW := parseUint(whole)
	p, okP := parseUint(part)
	return (float64(w)*100 + float64(p)) / 100, okW && okP && len(part) == 2
}
