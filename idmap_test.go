package container

import (
	"strings"
	"testing"
)

func pureMap(container, host, size int) IDMap {
	return IDMap{ContainerID: container, HostID: host, Size: size}
}

func TestCheckIDMaps(t *testing.T) {
	var many, long []IDMap
	for i := range 341 {
		many = append(many, pureMap(i, i, 1))
	}
	for i := range 200 {
		long = append(long, pureMap(1000000000+i*2, 1000000000+i*2, 1))
	}
	for _, tt := range []struct {
		name   string
		maps   []IDMap
		fields []string
	}{
		{"empty", nil, nil},
		{"self", []IDMap{pureMap(0, 1000, 1)}, nil},
		{"ranges", []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 65536)}, nil},
		{"in any order", []IDMap{pureMap(1, 100000, 65536), pureMap(0, 1000, 1)}, nil},
		{"340 lines", many[:340], nil},
		{"341 lines", many, []string{"M"}},
		{"text of more than a page", long, []string{"M"}},
		{"size 0", []IDMap{pureMap(0, 0, 1), pureMap(5, 5, 0)}, []string{"M[1]"}},
		{"size negative", []IDMap{pureMap(0, 0, -1)}, []string{"M[0]"}},
		{"negative ids", []IDMap{pureMap(-1, 0, 1), pureMap(0, -1, 1)}, []string{"M[0]", "M[1]"}},
		{"overlap inside", []IDMap{pureMap(0, 100, 10), pureMap(9, 200, 10)}, []string{"M[1]"}},
		{"overlap outside", []IDMap{pureMap(0, 100, 10), pureMap(20, 91, 10)}, []string{"M[1]"}},
		{"overlap on both sides", []IDMap{pureMap(0, 100, 10), pureMap(0, 100, 10)}, []string{"M[1]", "M[1]"}},
		{"contained", []IDMap{pureMap(0, 0, 100), pureMap(50, 1000, 1)}, []string{"M[1]"}},
		{"neighbours", []IDMap{pureMap(0, 100, 10), pureMap(10, 110, 10)}, nil},
		{"the last id", []IDMap{pureMap(1<<31-1, 1<<31-1, 1<<31-1), pureMap(1<<31-2, 0, 1)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) { pureWantFields(t, checkIDMaps("M", tt.maps), tt.fields...) })
	}
}

// Ids beyond an int of 32 bits, and the wrap at 2^32.
func TestCheckIDMapsWrap(t *testing.T) {
	if ^uint(0)>>32 == 0 {
		t.Skip("needs an int of 64 bits")
	}
	wide := int64(1)
	last := int(wide<<32 - 2)
	for _, tt := range []struct {
		m  IDMap
		ok bool
	}{
		{pureMap(last, last, 1), true},
		{pureMap(0, 0, last+1), true},
		{pureMap(0, 0, last+2), false},
		{pureMap(last+1, 0, 1), false},
		{pureMap(0, last+1, 1), false},
		{pureMap(last, 0, 2), false},
		{pureMap(0, last, 2), false},
		{pureMap(0, 0, int(^uint(0)>>1)), false},
		{pureMap(int(^uint(0)>>1), 0, 1), false},
		{pureMap(1, int(^uint(0)>>1), 1), false},
	} {
		if err := checkIDMaps("M", []IDMap{tt.m}); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.m, err)
		}
	}
}

func TestMapToHost(t *testing.T) {
	maps := []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 65536), pureMap(70000, 5, 1)}
	for id, want := range map[uint32]int64{0: 1000, 1: 100000, 65536: 165535, 65537: -1, 70000: 5, 70001: -1, ^uint32(0): -1} {
		got, ok := mapToHost(maps, id)
		if ok != (want >= 0) || ok && int64(got) != want {
			t.Errorf("%d: got %d, %v; want %d", id, got, ok, want)
		}
	}
	if got, want := string(idMapText(maps)), "0 1000 1\n1 100000 65536\n70000 5 1\n"; got != want {
		t.Errorf("text is %q, want %q", got, want)
	}
}

func TestNeedsHelper(t *testing.T) {
	for _, tt := range []struct {
		maps []IDMap
		want bool
	}{
		{[]IDMap{pureMap(0, 1000, 1)}, false},
		{[]IDMap{pureMap(1000, 1000, 1)}, false},
		{[]IDMap{pureMap(0, 1001, 1)}, true},
		{[]IDMap{pureMap(0, 1000, 2)}, true},
		{[]IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 1)}, true},
		{nil, true},
	} {
		if got := needsHelper(tt.maps, 1000); got != tt.want {
			t.Errorf("%v: got %v", tt.maps, got)
		}
	}
	uid, gid := selfMap()
	if len(uid) != 1 || uid[0].ContainerID != 0 || len(gid) != 1 || gid[0].ContainerID != 0 {
		t.Errorf("selfMap is %v, %v", uid, gid)
	}
	uid, gid = KeepID()
	if uid[0].ContainerID != uid[0].HostID || gid[0].ContainerID != gid[0].HostID || uid[0].Size != 1 || gid[0].Size != 1 {
		t.Errorf("KeepID is %v, %v", uid, gid)
	}
	if strings.Contains(string(idMapText(uid)), "-") {
		t.Skip("needs numeric ids")
	}
}
