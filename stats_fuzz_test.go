//go:build linux

package container

import (
	"math"
	"strings"
	"testing"
)

// fuzzRecorded seeds a target with what kernels have written to files with such names, and with what is nearly that.
func fuzzRecorded(f *testing.F, also []string, match func(name string) bool) {
	for _, kernel := range []string{"linux-6.1.txt", "linux-6.12.txt"} {
		for name, text := range recorded(f, kernel) {
			if match(name) {
				f.Add([]byte(text))
			}
		}
	}
	for _, text := range append(also, "", "\n", " ", "max\n", "x 18446744073709551616\n") {
		f.Add([]byte(text))
	}
}

func FuzzStatsFlat(f *testing.F) {
	fuzzRecorded(f, []string{"sev.max 6\n", "low 0\n\n", "a b 1\n"}, func(name string) bool {
		return strings.HasSuffix(name, ".stat") || strings.HasSuffix(name, ".events")
	})
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := 0
		ok := parseFlat(text, func(name []byte, n uint64) {
			lines++
			if len(name) == 0 || strings.ContainsAny(string(name), " \n") {
				t.Errorf("a name %q", name)
			}
		})
		if want := strings.Count(strings.TrimSuffix(string(text), "\n"), "\n") + 1; ok && len(text) > 0 && lines != want {
			t.Errorf("%d numbers in %d lines", lines, want)
		}
		var cpu CPUStats
		if cpu.parseStat(text) != ok || cpu.Usage < 0 || cpu.ThrottledTime < 0 {
			t.Errorf("%+v", cpu)
		}
		var events MemoryEvents
		events.parse(text)
		var s MemoryStat
		if s.parse(text) != ok {
			t.Error("memory.stat is a file like any other")
		}
		n := 0
		for name, v := range s.All() {
			got, found := s.Get(name)
			if n++; !found || n == 1 && got != v {
				t.Errorf("%q is %d, found as %d, %v", name, v, got, found)
			}
		}
		if ok && n != lines {
			t.Errorf("%d numbers of %d", n, lines)
		}
		if v, found := s.Get("anon"); ok && found && strings.Count(string(text), "anon ") == 1 && s.Anon != v {
			t.Errorf("anon: %d, %d", s.Anon, v)
		}
	})
}

func FuzzStatsPressure(f *testing.F) {
	fuzzRecorded(f, []string{"full avg10=100.00 avg60=99.99 avg300=0.01 total=18446744073709551615\n", "some\n", "some avg10=.00\n"},
		func(name string) bool { return strings.HasSuffix(name, ".pressure") })
	f.Fuzz(func(t *testing.T, text []byte) {
		var p Pressure
		if p.parse(text); p.Some.Total < 0 || p.Full.Total < 0 || p.Some.Avg10 < 0 || math.IsNaN(p.Full.Avg300) {
			t.Errorf("%+v", p)
		}
	})
}

func FuzzStatsIO(f *testing.F) {
	fuzzRecorded(f, []string{
		"8:16 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n", "254:0 \n", "(unknown) rbytes=1\n",
		"8:0 rbytes=1 cost.vrate=100.00 use_delay=0\n", "4294967296:0 rbytes=1\n", "8:0  rbytes=1 \n",
	}, func(name string) bool { return name == "io.stat" })
	f.Fuzz(func(t *testing.T, text []byte) {
		var s IOStats
		s.parse(text)
		if len(s.Devices) > strings.Count(string(text), "\n")+1 {
			t.Errorf("%d devices", len(s.Devices))
		}
	})
}

func FuzzStatsRDMA(f *testing.F) {
	fuzzRecorded(f, []string{"mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n", "mlx4_0 \n"},
		func(name string) bool { return strings.HasPrefix(name, "rdma.") })
	f.Fuzz(func(t *testing.T, text []byte) {
		var devices map[string]RDMAStats
		parseRDMA(&devices, text, false)
		parseRDMA(&devices, text, true)
		for name, s := range devices {
			if name == "" || s.HCAHandlesMax < Unlimited || s.HCAObjectsMax < Unlimited {
				t.Errorf("%q: %+v", name, s)
			}
		}
	})
}

func FuzzStatsMisc(f *testing.F) {
	fuzzRecorded(f, []string{"sev 3\nsev_es max\n", "sev.max 6\n"}, func(name string) bool { return strings.HasPrefix(name, "misc.") })
	f.Fuzz(func(t *testing.T, text []byte) {
		var resources map[string]MiscStats
		parseMisc(&resources, text, (*MiscStats).parseCurrent)
		parseMisc(&resources, text, (*MiscStats).parsePeak)
		parseMisc(&resources, text, (*MiscStats).parseMax)
		n := len(resources)
		parseMiscEvents(resources, text)
		if _, ok := resources[""]; ok || len(resources) != n {
			t.Errorf("%v", resources)
		}
	})
}

func FuzzStatsSingle(f *testing.F) {
	fuzzRecorded(f, []string{"max 100000\n", "10000 100000\n", "9223372036854775808", "00", "+1", "1\n\n"}, func(name string) bool {
		return strings.HasSuffix(name, ".max") || strings.HasSuffix(name, ".current") || strings.HasSuffix(name, ".peak")
	})
	f.Fuzz(func(t *testing.T, text []byte) {
		line := trimLine(text)
		n, ok := parseUint(line)
		limit, okLimit := limitOf(line)
		switch {
		case string(line) == "max":
			if ok || !okLimit || limit != Unlimited {
				t.Errorf("%q: %d, %d", text, n, limit)
			}
		case ok != okLimit || ok && n <= math.MaxInt64 && uint64(limit) != n || limit < Unlimited:
			t.Errorf("%q: %d, %v and %d, %v", text, n, ok, limit, okLimit)
		}
		var s CPUStats
		if s.parseMax(text); s.Quota < Unlimited {
			t.Errorf("%q: %+v", text, s)
		}
	})
}

func FuzzStatsInterfaces(f *testing.F) {
	const head = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n"
	fuzzRecorded(f, []string{
		head + "    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n" +
			"eth0:123456789012 7 1 2 0 0 0 3 99 8 4 5 0 0 0 0\n",
		head + "a:b: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", head + "eth0: 1\n", head,
	}, func(name string) bool { return name == "net.dev" })
	f.Fuzz(func(t *testing.T, text []byte) {
		list, _ := parseInterfaces(text)
		for _, i := range list {
			if i.Name == "" || strings.ContainsAny(i.Name, ":\n") {
				t.Errorf("%q", i.Name)
			}
		}
	})
}
