package container

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestRlimitResource(t *testing.T) {
	for name, want := range map[string]int{
		"RLIMIT_CPU": 0, "nofile": 7, "RLIMIT_NOFILE": 7, "rlimit_as": 9, "Rttime": 15, "RLIMIT_NPROC": 6,
	} {
		if got, err := (Rlimit{Type: name}).resource(); got != want || err != nil {
			t.Errorf("%s: got %d, %v; want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "RLIMIT_", "RLIMIT_FOO", "7", "rlimit_rlimit_as"} {
		_, err := Rlimit{Type: name}.resource()
		pureWantFields(t, err, "Type")
	}
}

func TestSchedulerAttr(t *testing.T) {
	for _, tt := range []struct {
		s      Scheduler
		want   string // hex, without the trailing zeros
		fields []string
	}{
		{Scheduler{Policy: "other"}, "38000000" + "00000000", nil},
		{Scheduler{Policy: "SCHED_OTHER", Nice: -20}, "38000000" + "00000000" + "0000000000000000" + "ecffffff", nil},
		{Scheduler{Policy: "batch", Nice: 19, ResetOnFork: true}, "38000000" + "03000000" + "0100000000000000" + "13", nil},
		{Scheduler{Policy: "idle"}, "38000000" + "05", nil},
		{Scheduler{Policy: "fifo", Priority: 1}, "38000000" + "01000000" + "0000000000000000" + "00000000" + "01", nil},
		{Scheduler{Policy: "rr", Priority: 99}, "38000000" + "02000000" + "0000000000000000" + "00000000" + "63", nil},
		{Scheduler{Policy: "deadline", Runtime: 1024, Deadline: 0x10000, Period: 0x1000000},
			"38000000" + "06000000" + "0000000000000000" + "00000000" + "00000000" + "0004000000000000" + "0000010000000000" + "00000001", nil},
		{Scheduler{Policy: "deadline", Runtime: 1024, Deadline: 1024}, "38000000" + "06000000" + "0000000000000000" +
			"00000000" + "00000000" + "0004000000000000" + "0004", nil},
		{Scheduler{}, "", []string{"Scheduler.Policy"}},
		{Scheduler{Policy: "sched_"}, "", []string{"Scheduler.Policy"}},
		{Scheduler{Policy: "iso"}, "", []string{"Scheduler.Policy"}},
		{Scheduler{Policy: "other", Nice: 20, Priority: 1, Period: 1}, "", []string{"Scheduler.Nice", "Scheduler.Priority", "Scheduler.Runtime"}},
		{Scheduler{Policy: "fifo"}, "", []string{"Scheduler.Priority"}},
		{Scheduler{Policy: "rr", Priority: 100, Nice: 1}, "", []string{"Scheduler.Nice", "Scheduler.Priority"}},
		{Scheduler{Policy: "deadline"}, "", []string{"Scheduler.Runtime"}},
		{Scheduler{Policy: "deadline", Runtime: 2000, Deadline: 1500}, "", []string{"Scheduler.Runtime"}},
		{Scheduler{Policy: "deadline", Runtime: 2000, Deadline: 3000, Period: 2500}, "", []string{"Scheduler.Runtime"}},
		{Scheduler{Policy: "deadline", Runtime: 2000, Deadline: 1 << 63}, "", []string{"Scheduler.Runtime"}},
	} {
		b, err := tt.s.attr()
		pureWantFields(t, err, tt.fields...)
		if err == nil && len(b) != 56 {
			t.Errorf("%+v: %d bytes", tt.s, len(b))
		}
		if got, want := strings.TrimRight(hex.EncodeToString(b), "0"), strings.TrimRight(tt.want, "0"); got != want {
			t.Errorf("%+v: got %s, want %s", tt.s, got, want)
		}
	}
}

func TestIOPriorityValue(t *testing.T) {
	for _, tt := range []struct {
		p     IOPriority
		want  int
		field string
	}{
		{IOPriority{"rt", 0}, 1 << 13, ""},
		{IOPriority{"IOPRIO_CLASS_BE", 7}, 2<<13 | 7, ""},
		{IOPriority{"idle", 0}, 3 << 13, ""},
		{IOPriority{"idle", 1}, 0, "IOPriority.Priority"},
		{IOPriority{"be", 8}, 0, "IOPriority.Priority"},
		{IOPriority{"be", -1}, 0, "IOPriority.Priority"},
		{IOPriority{"", 0}, 0, "IOPriority.Class"},
		{IOPriority{"none", 0}, 0, "IOPriority.Class"},
	} {
		got, err := tt.p.value()
		if got != tt.want || (err == nil) != (tt.field == "") {
			t.Errorf("%+v: got %d, %v; want %d", tt.p, got, err, tt.want)
		} else if err != nil {
			pureWantFields(t, err, tt.field)
		}
	}
}

func TestPersonalityValue(t *testing.T) {
	for domain, want := range map[string]uint64{"LINUX": 0, "LINUX32": 8} {
		if got, err := (&Personality{domain}).value(); got != want || err != nil {
			t.Errorf("%s: got %d, %v", domain, got, err)
		}
	}
	for _, domain := range []string{"", "linux", "LINUX64"} {
		_, err := (&Personality{domain}).value()
		pureWantFields(t, err, "Personality.Domain")
	}
}

func TestParseCPUList(t *testing.T) {
	for s, want := range map[string]string{
		"0":                 "0100000000000000",
		"0-3,7":             "8f00000000000000",
		"7,0-3,2":           "8f00000000000000",
		"63":                "0000000000000080",
		"64":                "00000000000000000100000000000000",
		"0-0":               "0100000000000000",
		"00,01":             "0300000000000000",
		"8191":              "1024 bytes",
		"":                  "error",
		"0-":                "error",
		"-1":                "error",
		"3-1":               "error",
		"0,":                "error",
		"+1":                "error",
		"1 ":                "error",
		"0x1":               "error",
		"1_0":               "error",
		"8192":              "error",
		"0-4294967296":      "error",
		"99999999999999999": "error",
		"0-3:2":             "error",
		"0,\x00":            "error",
	} {
		mask, err := parseCPUList(s)
		switch {
		case want == "error":
			pureWantFields(t, err, "CPUAffinity")
		case s == "8191":
			if len(mask) != 1024 || mask[1023] != 0x80 {
				t.Errorf("%s: %d bytes, %v", s, len(mask), err)
			}
		case hex.EncodeToString(mask) != want:
			t.Errorf("%s: got %x, %v; want %s", s, mask, err, want)
		}
	}
}
