package container

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// resourcesFull sets every field.
func resourcesFull() *Resources {
	return &Resources{
		Memory: &MemoryResources{Max: new(int64(64 << 20)), High: new(int64(60 << 20)), Low: new(int64(8 << 20)), Min: new(int64(4 << 20)),
			SwapMax: new(int64(0)), SwapHigh: new(Unlimited), ZswapMax: new(int64(1 << 20)), OOMGroup: new(true), CheckUsage: true},
		CPU:  &CPUResources{Quota: new(int64(150000)), Period: 200000, Burst: new(uint64(50000)), Weight: 300, Idle: new(false), Cpus: "0,1", Mems: "0"},
		Pids: &PidsResources{Max: new(int64(100))},
		IO: &IOResources{Weight: 1090, DeviceWeight: map[string]uint64{"8:0": 50}, Latency: map[string]uint64{"8:0": 75000},
			Max: map[string]IOMax{"8:16": {ReadBytes: new(int64(1 << 20)), WriteOps: new(int64(120))}, "8:0": {WriteBytes: new(Unlimited)}}},
		Hugetlb: map[string]HugetlbResources{"2MB": {Max: new(int64(4 << 20)), ReservedMax: new(Unlimited)}},
		RDMA:    map[string]RDMAResources{"mlx5_0": {HCAHandles: new(int64(2)), HCAObjects: new(Unlimited)}},
		Misc:    map[string]int64{"sev": 3},
		Devices: []DeviceRule{{Allow: true}},
		Unified: map[string]string{"cpu.uclamp.max": "50.00", "hugetlb.1GB.max": "max"},
	}
}

// The texts of all fields, in their order.
func TestResourcesFiles(t *testing.T) {
	want := `
cpu      cpu.max.burst           "0"
cpu      cpu.max                 "150000 200000"
cpu      cpu.max.burst           "50000"
cpu      cpu.idle                "0"
cpu      cpu.weight              "300"
cpuset   cpuset.mems             "0"
cpuset   cpuset.mems.effective   ""
cpuset   cpuset.cpus             "0,1"
cpuset   cpuset.cpus.effective   ""
pids     pids.max                "100"
io       io.weight               "default 1090"
io       io.bfq.weight           "default 190"
io       io.weight               "8:0 50"
io       io.bfq.weight           "8:0 50"
io       io.max                  "8:0 wbps=max"
io       io.max                  "8:16 rbps=1048576 wiops=120"
io       io.latency              "8:0 target=75000"
hugetlb  hugetlb.2MB.rsvd.max    "max"
hugetlb  hugetlb.2MB.max         "4194304"
rdma     rdma.max                "mlx5_0 hca_handle=2 hca_object=max"
misc     misc.max                "sev 3"
cpu      cpu.uclamp.max          "50.00"
hugetlb  hugetlb.1GB.max         "max"
memory   memory.oom.group        "1"
memory   memory.zswap.max        "1048576"
memory   memory.swap.max         "0"
memory   memory.swap.high        "max"
memory   memory.min              "4194304"
memory   memory.low              "8388608"
memory   memory.high             "62914560"
memory   memory.current          ""
memory   memory.max              "67108864"
`
	r := resourcesFull()
	if got := resourcesText(r); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("got\n%s", got)
	}
	if got, want := r.controllers(), strings.Fields("cpu cpuset hugetlb io memory misc pids rdma"); !slices.Equal(got, want) {
		t.Errorf("controllers %q, want %q", got, want)
	}
	if (*Resources)(nil).files() != nil || (&Resources{}).files() != nil || len((&Resources{}).controllers()) > 0 {
		t.Error("nothing is not nothing")
	}
	for _, f := range r.files() {
		if !strings.HasPrefix(f.field, "Resources.") || f.name == "" {
			t.Errorf("%+v", f)
		}
	}
}

// Each field of Resources reaches a file.
func TestResourcesEveryField(t *testing.T) {
	var walk func(name string, v reflect.Value)
	r := resourcesFull()
	before := resourcesText(r)
	walk = func(name string, v reflect.Value) {
		if name == ".Devices" {
			return // a program of its own, see cgroup_devices.go
		}
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(name+"."+v.Type().Field(i).Name, v.Field(i))
			}
			return
		case reflect.Pointer:
			if v.Elem().Kind() == reflect.Struct {
				walk(name, v.Elem())
				return
			}
		}
		if v.IsZero() {
			t.Errorf("resourcesFull does not set %s", name)
			return
		}
		old := reflect.ValueOf(v.Interface())
		v.SetZero()
		if name != ".CPU.Idle" && resourcesText(r) == before { // CPU.Idle false is seen in TestResourcesFiles
			t.Errorf("%s reaches no file", name)
		}
		v.Set(old)
	}
	walk("", reflect.ValueOf(r).Elem())
}

func resourcesText(r *Resources) string {
	var b strings.Builder
	for _, f := range r.files() {
		b.WriteString(strings.TrimRight(padded(f.controller, 9)+padded(f.name, 24)+`"`+f.text+`"`, " ") + "\n")
	}
	return b.String()
}

func padded(s string, n int) string { return s + strings.Repeat(" ", max(0, n-len(s))) }

func TestResourcesIdle(t *testing.T) {
	got := resourcesText(&Resources{CPU: &CPUResources{Idle: new(true), Weight: 5}})
	if want := "cpu      cpu.weight              \"\"\ncpu      cpu.idle                \"1\"\n"; got != want {
		t.Errorf("got %s", got)
	}
}

// What the kernel shows after a write, and what it shows when somebody else has written.
func TestResourcesSame(t *testing.T) {
	for _, test := range []struct {
		r        *Resources
		file     string
		yes, not []string
	}{
		{&Resources{Memory: &MemoryResources{Max: new(int64(1<<20 + 5))}}, "memory.max", []string{"1048576\n"}, []string{"1048581\n", "max\n", "", "1044480\n"}},
		{&Resources{Memory: &MemoryResources{Max: new(Unlimited)}}, "memory.max", []string{"max\n"}, []string{"1048581\n", "-1\n", ""}},
		{&Resources{Memory: &MemoryResources{High: new(int64(1<<63 - 1))}}, "memory.high", []string{"max\n"}, []string{"0\n", "9223372036854775807"}},
		{&Resources{Memory: &MemoryResources{Max: new(int64(1 << 20)), CheckUsage: true}}, "memory.current", []string{"0\n", "1048576\n"}, []string{"1048577\n", "", "max"}},
		{&Resources{CPU: &CPUResources{Quota: new(Unlimited)}}, "cpu.max", []string{"max 100000\n", "max 5000\n"}, []string{"100000 100000\n", "max", ""}},
		{&Resources{CPU: &CPUResources{Quota: new(int64(5000)), Period: 10000}}, "cpu.max", []string{"5000 10000\n"}, []string{"5000 100000\n", "max 10000\n"}},
		{&Resources{CPU: &CPUResources{Weight: 7}}, "cpu.weight", []string{"7\n"}, []string{"8\n", "0\n"}},
		{&Resources{CPU: &CPUResources{Cpus: "1,0,2"}}, "cpuset.cpus", []string{"0-2\n", "0-1,2"}, []string{"0-1\n", "", "0-3"}},
		{&Resources{CPU: &CPUResources{Cpus: "1-3"}}, "cpuset.cpus.effective", []string{"1-3\n", "2\n"}, []string{"0-3\n", "0\n", "\n", "64\n", "1,64\n"}},
		{&Resources{Pids: &PidsResources{Max: new(int64(0))}}, "pids.max", []string{"0\n"}, []string{"max\n", "1\n", ""}},
		{&Resources{IO: &IOResources{Weight: 200}}, "io.weight", []string{"default 200\n", "default 200\n8:0 5\n"}, []string{"default 100\n", "8:0 200\n", "200\n"}},
		{&Resources{IO: &IOResources{DeviceWeight: map[string]uint64{"8:0": 5}}}, "io.weight", []string{"default 100\n8:0 5\n"}, []string{"default 5\n", "8:00 5\n", "18:0 5\n"}},
		{&Resources{IO: &IOResources{Max: map[string]IOMax{"8:0": {ReadBytes: new(int64(5)), WriteOps: new(Unlimited)}}}}, "io.max",
			[]string{"8:16 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=5 wbps=7 riops=max wiops=max\n"}, []string{"", "8:0 rbps=max wbps=5 riops=max wiops=max\n", "8:0 rbps=5 wbps=5 riops=max wiops=3\n"}},
		{&Resources{IO: &IOResources{Max: map[string]IOMax{"8:0": {ReadBytes: new(Unlimited)}}}}, "io.max", []string{"", "8:0 rbps=max wbps=5 riops=max wiops=max\n"}, []string{"8:0 rbps=5 wbps=max riops=max wiops=max\n"}},
		{&Resources{IO: &IOResources{Max: map[string]IOMax{"8:0": {ReadOps: new(int64(1 << 40))}}}}, "io.max", []string{""}, []string{"8:0 rbps=max wbps=max riops=5 wiops=max\n"}},
		{&Resources{IO: &IOResources{Latency: map[string]uint64{"8:0": 75}}}, "io.latency", []string{"8:0 target=75\n"}, []string{"", "8:0 target=750\n"}},
		{&Resources{IO: &IOResources{Latency: map[string]uint64{"8:0": 0}}}, "io.latency", []string{""}, []string{"8:0 target=750\n"}},
		{&Resources{Hugetlb: map[string]HugetlbResources{"2MB": {Max: new(int64(5 << 20))}}}, "hugetlb.2MB.max", []string{"4194304\n"}, []string{"5242880\n", "max\n"}},
		{&Resources{Hugetlb: map[string]HugetlbResources{"1GB": {Max: new(int64(1<<63 - 1))}}}, "hugetlb.1GB.max", []string{"max\n"}, []string{"0\n"}},
		{&Resources{RDMA: map[string]RDMAResources{"a": {HCAHandles: new(int64(2))}}}, "rdma.max", []string{"a hca_handle=2 hca_object=max\n"}, []string{"", "ab hca_handle=2\n", "a hca_handle=max hca_object=2\n"}},
		{&Resources{RDMA: map[string]RDMAResources{"a": {HCAObjects: new(int64(1<<31 - 1))}}}, "rdma.max", []string{"a hca_handle=2 hca_object=max\n"}, []string{"a hca_handle=max hca_object=2\n"}},
		{&Resources{Misc: map[string]int64{"sev": 3}}, "misc.max", []string{"sev_es max\nsev 3\n"}, []string{"sev max\n", "sev_es 3\n", ""}},
		{&Resources{Unified: map[string]string{"memory.high": "4097"}}, "memory.high", []string{"4096\n"}, []string{"4097\n", "max\n"}},
		{&Resources{Unified: map[string]string{"cpuset.cpus": "1,0"}}, "cpuset.cpus", []string{"0-1\n"}, []string{"0\n"}},
	} {
		found := false
		for _, f := range test.r.files() {
			if f.name != test.file {
				continue
			}
			found = true
			for _, text := range test.yes {
				if !f.same(text) {
					t.Errorf("%s %q: %q is not taken for the same", f.name, f.text, text)
				}
			}
			for _, text := range test.not {
				if f.same(text) {
					t.Errorf("%s %q: %q is taken for the same", f.name, f.text, text)
				}
			}
		}
		if !found {
			t.Errorf("no write to %s", test.file)
		}
	}
	for _, unified := range []string{"64M", "1 2"} { // normal forms that are not known here
		if f := (&Resources{Unified: map[string]string{"memory.high": unified}}).files()[0]; f.same != nil {
			t.Errorf("%q is compared", unified)
		}
	}
}

// An undo writes what the kernel has shown, line by line where it takes lines.
func TestResourcesUndo(t *testing.T) {
	for _, test := range []struct {
		file         cgroupFile
		before, want string
	}{
		{cgroupFile{name: "memory.max", text: "5"}, "max\n", "max"},
		{cgroupFile{name: "cpu.max", text: "5"}, "5000 100000\n", "5000 100000"},
		{cgroupFile{name: "cpuset.cpus", text: "1"}, "\n", "\n"},
		{cgroupFile{name: "cpuset.cpus.effective"}, "0-1\n", ""},
		{cgroupFile{name: "cpu.weight", lost: true}, "500\n", "500"},
		{cgroupFile{name: "cpu.weight", lost: true}, "0\n", ""},
		{cgroupFile{name: "io.weight", text: "x", key: "default"}, "default 70\n8:0 5\n", "default 70"},
		{cgroupFile{name: "io.weight", text: "x", key: "8:0"}, "default 70\n8:0 5\n", "8:0 5"},
		{cgroupFile{name: "io.weight", text: "x", key: "8:1"}, "default 70\n8:16 5\n", "8:1 default"},
		{cgroupFile{name: "io.max", text: "x", key: "8:0"}, "8:0 rbps=1 wbps=max riops=max wiops=2\n", "8:0 rbps=1 wbps=max riops=max wiops=2"},
		{cgroupFile{name: "io.max", text: "x", key: "8:0"}, "", "8:0 rbps=max wbps=max riops=max wiops=max"},
		{cgroupFile{name: "io.latency", text: "x", key: "8:0"}, "8:16 target=5\n", "8:0 target=0"},
		{cgroupFile{name: "rdma.max", text: "x", key: "a"}, "", "a hca_handle=max hca_object=max"},
		{cgroupFile{name: "misc.max", text: "x", key: "sev"}, "sev 3\n", "sev 3"},
		{cgroupFile{name: "misc.max", text: "x", key: "sev"}, "", "sev max"},
	} {
		if got := test.file.undo(test.before); got != test.want {
			t.Errorf("%+v before %q: %q, want %q", test.file, test.before, got, test.want)
		}
	}
	for text, key := range map[string]string{"200": "default", "8:0 5": "8:0"} {
		if f := (&Resources{Unified: map[string]string{"io.weight": text}}).files()[0]; f.key != key {
			t.Errorf("%q is about %q", text, f.key)
		}
	}
}
