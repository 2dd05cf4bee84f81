//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestSubIDMap(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       []IDMap
	}{
		{"by name", "joe:100000:65536\n", []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 65536)}},
		{"by number", "1000:100000:65536", []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 65536)}},
		{"several", "ann:5:5\njoe:100000:10\n1000:200000:20\n", []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 10), pureMap(11, 200000, 20)}},
		{"the same range twice", "joe:100000:10\n1000:100000:10\n", []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 10)}},
		{"with the caller's own id", "joe:999:10\njoe:100000:10\n", []IDMap{pureMap(0, 1000, 1), pureMap(1, 100000, 10)}},
		{"somebody else's", "ann:100000:65536\njoey:1:1\n10000:1:1\n", []IDMap{pureMap(0, 1000, 1)}},
		{"nonsense", "\njoe\njoe:1\njoe:x:1\njoe:1:0\njoe:-1:5\njoe:1:-5\njoe: 1:5\njoe:1:1:1\njoe:4294967295:1\njoe:4294967290:6\n" +
			"# joe:1:1\njoe:0x10:5\njoe:7:4294967296\njoe:18446744073709551615:2\n:1:1\n", []IDMap{pureMap(0, 1000, 1)}},
		{"no end of line, empty lines", "\n\njoe:7:3", []IDMap{pureMap(0, 1000, 1), pureMap(1, 7, 3)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ranges, err := parseSubIDs(strings.NewReader(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if got := subIDMap(ranges, "joe", 1000, 1000); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	// A user without a name does not own the lines without one.
	if got := subIDMap([]subIDRange{{"", 5, 5}}, "", 1000, 1000); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	// No more lines than the kernel takes.
	var many []subIDRange
	for i := range uint32(1000) {
		many = append(many, subIDRange{"joe", 100000 + 2*i, 1})
	}
	if err := checkIDMaps("M", subIDMap(many, "joe", 1000, 1000)); err != nil {
		t.Error(err)
	}
}

func FuzzParseSubIDs(f *testing.F) {
	for _, s := range []string{"joe:100000:65536\n", "1000:1:4294967295", "joe:4294967294:1\njoe:0:1", ":::", "joe:5:5\njoe:5:5\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ranges, err := parseSubIDs(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, r := range ranges {
			if !strings.Contains(s, r.owner+":") || r.count == 0 || uint64(r.start)+uint64(r.count) > 1<<32-1 {
				t.Fatalf("%q gives %+v", s, r)
			}
		}
		maps := subIDMap(ranges, "joe", 1000, 1000)
		if err := checkIDMaps("M", maps); err != nil {
			t.Fatalf("%q gives %v: %v", s, maps, err)
		}
	})
}

func TestSubordinateIDsRemedy(t *testing.T) {
	path := t.TempDir() + "/subuid"
	if err := os.WriteFile(path, []byte("ann:100000:65536\nbob:165536:65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{path, "as root: usermod --add-subuids 231072-296607 joe"},
		{path + ".missing", "as root: usermod --add-subuids 100000-165535 joe"},
	} {
		_, err := subordinateMap(tt.path, "--add-subuids", "joe", 1000, 1000)
		var e *Error
		if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || e.Remedy != tt.want {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
	if maps, err := subordinateMap(path, "--add-subuids", "bob", 1001, 1001); err != nil || fmt.Sprint(maps) != "[{0 1001 1} {1 165536 65536}]" {
		t.Errorf("got %v, %v", maps, err)
	}
	// Whatever this machine has, the answer is maps or an error with a remedy.
	uid, gid, err := SubordinateIDs()
	if err == nil {
		err = errors.Join(checkIDMaps("uid", uid), checkIDMaps("gid", gid))
		if err != nil || len(uid) < 2 || len(gid) < 2 {
			t.Error(uid, gid, err)
		}
	} else if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "usermod --add-sub") {
		t.Error(err)
	}
}
