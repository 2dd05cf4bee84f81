//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// recorded reads what the files of a cgroup held: sections that begin with "=== NAME".
func recorded(t testing.TB, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/cgroup/" + name)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for section := range strings.SplitSeq("\n"+string(text), "\n=== ") {
		name, content, _ := strings.Cut(section, "\n")
		if content != "" {
			content = strings.TrimSuffix(content, "\n") + "\n"
		}
		files[name] = content
	}
	delete(files, "")
	return files
}

// recordedCgroup makes a directory with these files, which for reading is as good as a cgroup.
func recordedCgroup(t testing.TB, files map[string]string) *Cgroup {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cgroup{dir: f, path: "/recorded"}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestStatsRecorded reads what a kernel has written for a cgroup with all controllers.
func TestStatsRecorded(t *testing.T) {
	files := recorded(t, "linux-6.12.txt")
	files["io.stat"] = "8:16 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n254:0 \n(unknown) rbytes=9\n"
	files["rdma.current"] = "mlx4_0 hca_handle=2 hca_object=2000\n"
	files["rdma.max"] = "mlx4_0 hca_handle=max hca_object=3000\n"
	files["misc.current"] = "sev 3\nsev_es 0\n"
	files["misc.peak"] = "sev 4\nsev_es 0\n"
	files["misc.max"] = "sev 5\nsev_es max\n"
	files["misc.events"] = "sev.max 6\nsev_es.max 0\n"
	files["memory.events"] = "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"
	s, err := recordedCgroup(t, files).Stats()
	if err != nil {
		t.Fatal(err)
	}
	us := func(n int) time.Duration { return time.Duration(n) * time.Microsecond }
	want := CgroupStats{
		Time: s.Time,
		CPU: &CPUStats{
			Usage: us(799927), User: us(357029), System: us(442897), Periods: 17, Throttled: 11, ThrottledTime: us(835000),
			Quota: 10000, Period: 100000, Weight: 100,
		},
		Memory: &MemoryStats{
			Current: 21450752, Peak: 21880832, Max: 64 << 20, High: Unlimited, SwapHigh: Unlimited, ZswapMax: Unlimited,
			Events: MemoryEvents{1, 2, 3, 4, 5, 6},
			Stat: MemoryStat{
				File: 21233664, Kernel: 65536, Shmem: 20971520, ActiveAnon: 20971520, InactiveFile: 65536, ActiveFile: 196608,
				Slab: 62352, SlabReclaimable: 58640, PageFaults: 738, MajorFaults: 4, text: files["memory.stat"],
			},
		},
		Pids: &PidsStats{Peak: 2, Max: Unlimited},
		IO: &IOStats{Devices: []IODeviceStats{
			{Major: 8, ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4, DiscardBytes: 5, Discards: 6},
		}},
		Pressure: &PressureStats{
			CPU: Pressure{PressureTime{3.26, 0.58, 0.12, us(522055)}, PressureTime{3.26, 0.58, 0.12, us(522055)}},
			IO:  Pressure{PressureTime{Total: us(186)}, PressureTime{Total: us(186)}},
		},
		Hugetlb:   s.Hugetlb, // depends on what sizes this host has
		RDMA:      map[string]RDMAStats{"mlx4_0": {2, 2000, Unlimited, 3000}},
		Misc:      map[string]MiscStats{"sev": {3, 4, 5, 6}, "sev_es": {Max: Unlimited}},
		Populated: true,
	}
	if !reflect.DeepEqual(*s, want) {
		t.Errorf("got  %s\nwant %s", asJSON(t, s), asJSON(t, want))
	}
	for size, h := range s.Hugetlb {
		if size != "2MB" || h != (HugetlbStats{Max: Unlimited, ReservedMax: Unlimited}) {
			t.Errorf("huge pages of %s: %+v", size, h)
		}
	}
	if n := time.Since(s.Time); n < 0 || n > time.Minute {
		t.Errorf("taken at %v", s.Time)
	}
}

func asJSON(t testing.TB, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestStatsMissing takes controllers, files and the cgroup away.
func TestStatsMissing(t *testing.T) {
	files := recorded(t, "linux-6.1.txt")
	files["cgroup.controllers"] = "pids\n"
	c := recordedCgroup(t, files)
	s, err := c.Stats()
	if err != nil || s.Memory != nil || s.IO != nil || s.Hugetlb != nil || s.Pids == nil || s.CPU == nil ||
		s.CPU.Usage == 0 || s.CPU.Quota != Unlimited || s.CPU.Weight != 0 {
		t.Errorf("without controllers: %v, %s", err, asJSON(t, s))
	}

	files = recorded(t, "linux-6.1.txt")
	for _, name := range []string{"cpu.pressure", "memory.peak", "memory.max", "pids.peak", "hugetlb.2MB.current", "cpu.idle"} {
		delete(files, name)
	}
	s, err = recordedCgroup(t, files).Stats()
	if err != nil || s.Pressure != nil || s.Memory.Peak != 0 || s.Memory.Max != Unlimited || s.Hugetlb != nil ||
		s.Memory.Current == 0 || s.CPU.Weight != 100 {
		t.Errorf("without files: %v, %s", err, asJSON(t, s))
	}

	delete(files, "cgroup.controllers")
	if _, err = recordedCgroup(t, files).Stats(); !errors.Is(err, ErrNotExist) {
		t.Errorf("without a cgroup: %v", err)
	}
}

// TestStatsMalformed: what no kernel writes is an error that names the file.
func TestStatsMalformed(t *testing.T) {
	for name, bad := range map[string]string{
		"cpu.stat": "usage_usec\n", "cpu.max": "10", "cpu.pressure": "all avg10=0.00\n", "memory.current": "-1\n",
		"memory.max": "maximum\n", "memory.stat": "anon 18446744073709551616\n", "memory.events": "oom_kill x\n",
		"pids.max": "", "io.stat": "rbytes=1 8:0\n", "rdma.max": "mlx4_0 hca_handle=many\n", "misc.current": "sev\n",
		"io.pressure": "some avg10=1.5 total=0\n",
	} {
		files := recorded(t, "linux-6.12.txt")
		files[name] = bad
		_, err := recordedCgroup(t, files).Stats()
		var e *Error
		if !errors.As(err, &e) || e.Path != "/recorded/"+name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStatsMemoryStat looks numbers up by name, and writes and reads them as JSON.
func TestStatsMemoryStat(t *testing.T) {
	text := recorded(t, "linux-6.12.txt")["memory.stat"]
	var s MemoryStat
	if !s.parse([]byte(text)) {
		t.Fatal("it does not parse")
	}
	if n, ok := s.Get("slab_unreclaimable"); n != 3712 || !ok {
		t.Errorf("slab_unreclaimable: %d, %v", n, ok)
	}
	if _, ok := s.Get("slab_"); ok {
		t.Error("a name that is not there is found")
	}
	if n := len(maps.Collect(s.All())); n != strings.Count(text, "\n") {
		t.Errorf("%d of %d numbers", n, strings.Count(text, "\n"))
	}
	for range s.All() {
		break
	}
	var again MemoryStat
	if err := json.Unmarshal([]byte(asJSON(t, s)), &again); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(maps.Collect(s.All()), maps.Collect(again.All())) {
		t.Errorf("JSON has changed it: %s", asJSON(t, again))
	}
	if s.text, again.text = "", ""; s != again {
		t.Errorf("%+v has become %+v", s, again)
	}
	if err := json.Unmarshal([]byte(`{"anon":"x"}`), &again); err == nil {
		t.Error("a number that is none")
	}
}

// TestStatsLongFile reads a file that is longer than the buffer, and one of one page.
func TestStatsLongFile(t *testing.T) {
	for _, lines := range []int{1024, 4095, 4096, 4097, 100_000} {
		files := map[string]string{"cgroup.controllers": "memory\n", "memory.stat": strings.Repeat("x 1\n", lines) + "anon 7\n"}
		s, err := recordedCgroup(t, files).Stats()
		if err != nil || s.Memory.Stat.Anon != 7 {
			t.Errorf("%d lines: %v", lines, err)
		}
	}
}

// TestStatsHugePageSizes checks the names that the kernel gives to sizes.
func TestStatsHugePageSizes(t *testing.T) {
	for kilobytes, want := range map[uint64]string{4: "4KB", 64: "64KB", 2048: "2MB", 32768: "32MB", 1 << 20: "1GB", 16 << 20: "16GB"} {
		if got := newHugePageSize(kilobytes); got.name != want || got.reservedMax != "hugetlb."+want+".rsvd.max" {
			t.Errorf("%d kB: %+v", kilobytes, got)
		}
	}
}

// TestStatsLive reads a cgroup of this host, with a process and without, frozen, and removed.
func TestStatsLive(t *testing.T) {
	c, dir := testCgroup(t)
	s, err := c.Stats()
	if err != nil || s.Populated || s.Frozen || s.CPU.Usage != 0 {
		t.Fatalf("%v, %s", err, asJSON(t, s))
	}
	p := startIn(t, dir, "while :; do :; done")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		before := s
		if s, err = c.Stats(); err != nil || !s.Populated || s.CPU.Usage < before.CPU.Usage {
			t.Fatalf("%v, %s", err, asJSON(t, s))
		}
		if s.CPU.Usage >= 50*time.Millisecond && s.CPU.User > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a busy process does not count: %s", asJSON(t, s.CPU))
		}
	}
	if err := os.Mkdir(dir+"/below", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.writeFile("cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	if err := c.await(t.Context(), "cgroup.events", hasLine("frozen 1")); err != nil {
		t.Fatal(err)
	}
	if s, err = c.Stats(); err != nil || !s.Frozen || s.Descendants != 1 {
		t.Fatalf("%v, %s", err, asJSON(t, s))
	}
	os.Remove(dir + "/below")
	p.Kill()
	p.Wait()
	if err := c.await(t.Context(), "cgroup.events", hasLine("populated 0")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if s, err = c.Stats(); !errors.Is(err, ErrNotExist) {
		t.Errorf("a cgroup that is gone: %v, %s", err, asJSON(t, s))
	}
	if len(c.files.open) != 0 {
		t.Errorf("files of a cgroup that is gone stay open: %d", len(c.files.open))
	}
}
