//go:build linux

package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	purePasswd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
# a comment
joe:x:1000:1000:Joe,,,:/home/joe:/bin/sh
joe:x:0:0::/second:/bin/sh
7777:x:0:0::/smuggled:/bin/sh
nohome:x:1001:1001::home:/bin/sh
evilhome:x:1002:1002::/ho` + "\x01" + `me:/bin/sh
short:x:5
few:x:1003:1003
high:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
all:x:4294967295:0::/:/bin/sh
nogid:x:1004:
+nis:::
-1:x:0:0::/:/bin/sh
`
	pureGroup = `root:x:0:
daemon:x:1:joe
wheel:x:10:root,joe
joe:x:1000:
bad:x:-1:joe
high:x:99999999999:joe
7777:x:0:joe2
docker:x:999:root,joe,joe
`
)

func pureAccounts(passwd, group string) accounts {
	return accounts{func(path string) ([]byte, error) {
		switch path {
		case "/etc/passwd":
			return []byte(passwd), nil
		case "/etc/group":
			return []byte(group), nil
		}
		return nil, fs.ErrNotExist
	}}
}

func TestResolveUser(t *testing.T) {
	a := pureAccounts(purePasswd, pureGroup)
	for _, tt := range []struct {
		user       string
		additional []string
		want       string // "uid:gid [groups] home", or the field of the complaint
	}{
		{"", nil, "0:0 [0] /root"},
		{"0", nil, "0:0 [0] /root"},
		{"root", nil, "0:0 [0 10 999] /root"},
		{"1", nil, "1:1 [1] /usr/sbin"},
		{"joe", nil, "1000:1000 [1000 1 10 999] /home/joe"},
		{"1000", nil, "1000:1000 [1000] /home/joe"},
		{"joe:wheel", nil, "1000:10 [10] /home/joe"},
		{"joe:5", nil, "1000:5 [5] /home/joe"},
		{"1000:wheel", nil, "1000:10 [10] /home/joe"},
		{"1000:0", nil, "1000:0 [0] /home/joe"},
		{"4711", nil, "4711:0 [0] /"},
		{"4711:12", nil, "4711:12 [12] /"},
		{"7777", nil, "7777:0 [0] /"},                    // CVE-2016-3697: the uid is 7777, not that of a user with this name
		{"1000:7777", nil, "1000:7777 [7777] /home/joe"}, // nor for groups
		{"joe", []string{"20", "root", "20", "1000"}, "1000:1000 [1000 1 10 999 20 0] /home/joe"},
		{"nohome", nil, "1001:1001 [1001] /"},
		{"evilhome", nil, "1002:1002 [1002] /"},
		{"few", nil, "1003:1003 [1003] /"},
		{"2147483646:2147483646", nil, "2147483646:2147483646 [2147483646] /"},

		{"nobody", nil, "User"},
		{"joe:nogroup", nil, "User"},
		{"2147483647", nil, "User"}, // CVE-2024-40635
		{"4294967295", nil, "User"},
		{"4294967296", nil, "User"},
		{"4294968296:0", nil, "User"},
		{"18446744073709551616", nil, "User"},
		{"0:4294967296", nil, "User"},
		{":", nil, "User"}, // CVE-2026-30892
		{"1:", nil, "User"},
		{":1", nil, "User"},
		{"1:1:1", nil, "User"},
		{"joe:joe:joe", nil, "User"},
		{"-1", nil, "User"},
		{"+1", nil, "User"},
		{"+nis", nil, "User"},
		{" 1", nil, "User"},
		{"1 ", nil, "User"},
		{"0x10", nil, "User"},
		{"1_0", nil, "User"},
		{"1e3", nil, "User"},
		{"joe\n", nil, "User"},
		{"joe\x00", nil, "User"},
		{"# a comment", nil, "User"},
		{"short", nil, "User"},
		{"high", nil, "User"},
		{"minus", nil, "User"},
		{"all", nil, "User"},
		{"nogid", nil, "User"},
		{"joe:bad", nil, "User"},
		{"joe", []string{"1", "nogroup", "-1", ""}, "AdditionalGroups[1] AdditionalGroups[2] AdditionalGroups[3]"},
		{"joe", []string{"4294967296"}, "AdditionalGroups[0]"},
		{"joe", []string{"1:2"}, "AdditionalGroups[0]"},
	} {
		u, err := a.resolve(tt.user, tt.additional)
		if strings.HasPrefix(tt.want, "User") || strings.HasPrefix(tt.want, "Add") {
			t.Run(tt.user, func(t *testing.T) { pureWantFields(t, err, strings.Fields(tt.want)...) })
			if u.uid != 0 || u.groups != nil {
				t.Errorf("%q: an error, and %+v", tt.user, u)
			}
			continue
		}
		if got := fmt.Sprintf("%d:%d %v %s", u.uid, u.gid, u.groups, u.home); err != nil || got != tt.want {
			t.Errorf("%q: got %s, %v; want %s", tt.user, got, err, tt.want)
		}
	}
}

// Numbers need no files; names do.
func TestResolveUserWithoutFiles(t *testing.T) {
	v := pureView(t, Root{Dir: t.TempDir()})
	u, err := resolveUser(v, "1000:1000", []string{"5"})
	if err != nil || u.uid != 1000 || u.gid != 1000 || !slices.Equal(u.groups, []uint32{1000, 5}) || u.home != "/" {
		t.Errorf("got %+v, %v", u, err)
	}
	_, err = resolveUser(v, "root", nil)
	pureWantFields(t, err, "User")
	_, err = resolveUser(pureView(t, Root{Dir: pureTree(t, t.TempDir(), "etc = a file")}), "0", nil)
	if err != nil {
		t.Error(err)
	}
}

// Files that are hostile are an error at once, never a hang, and never id 0 by mistake.
func TestCVE_2026_47262(t *testing.T) {
	for _, passwd := range []string{
		"etc/passwd ! fifo", "etc/passwd ! sparse", "etc/passwd/", "etc/passwd -> passwd",
		"etc/passwd = joe:x:1:1:" + strings.Repeat("x", 70000) + ":/:",
		"etc/passwd = " + strings.Repeat("a:x:1:1::/:\n", 70000),
		"etc/passwd = " + strings.Repeat("\n", 1<<20+1),
	} {
		v := pureView(t, Root{Dir: pureTree(t, t.TempDir(), passwd)})
		for _, user := range []string{"", "1000", "joe"} {
			start := time.Now()
			u, err := resolveUser(v, user, nil)
			if err == nil {
				t.Errorf("%.40q: user %q is %+v", passwd, user, u)
			} else {
				pureWantFields(t, err, "User")
			}
			if d := time.Since(start); d > 30*time.Second { // it would hang, or read gigabytes
				t.Errorf("%.40q: took %v", passwd, d)
			}
		}
	}
	// A link out of the root leads to nothing.
	v := pureView(t, Root{Dir: pureTree(t, t.TempDir(), "etc/passwd -> /../../../../etc/passwd0", "etc/group -> /proc/1/root/etc/group")})
	if u, err := resolveUser(v, "1000", nil); err == nil && u.gid != 0 {
		t.Errorf("got %+v, %v", u, err)
	}
	// A group with a million members.
	v = pureView(t, Root{Dir: pureTree(t, t.TempDir(), "etc/passwd = joe:x:1:1::/:", "etc/group = g:x:2:"+strings.Repeat("joe,", 200000))})
	_, err := resolveUser(v, "joe", nil)
	pureWantFields(t, err, "User")
	if !errors.Is(err, errTooLarge) {
		t.Error(err)
	}
}

// The host's own files: the answers are those of os/user.
func TestResolveUserAgainstOSUser(t *testing.T) {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Skip("needs /etc/passwd:", err)
	}
	v := pureView(t, Root{Dir: "/"})
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, ":")
		want, err := user.Lookup(name)
		if err != nil {
			continue
		}
		got, err := resolveUser(v, name, nil)
		if err != nil || strconv.Itoa(int(got.uid)) != want.Uid || strconv.Itoa(int(got.gid)) != want.Gid || got.home != want.HomeDir {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
		var groups []string
		for _, g := range got.groups {
			groups = append(groups, strconv.Itoa(int(g)))
		}
		wantGroups, err := want.GroupIds()
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(groups)
		slices.Sort(wantGroups)
		if !slices.Equal(groups, slices.Compact(wantGroups)) {
			t.Errorf("%s: groups %v, want %v", name, groups, wantGroups)
		}
	}
}

func FuzzResolveUser(f *testing.F) {
	for _, s := range []string{"", "joe", "1000", "joe:wheel", "7777", "1:", "-1", "4294967296", "0:0", "1:1:1"} {
		f.Add(s, purePasswd, pureGroup, "docker")
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group, more string) {
		u, err := pureAccounts(passwd, group).resolve(spec, []string{more})
		if err != nil {
			if !errors.Is(err, ErrInvalidConfig) {
				t.Fatalf("%q: not a complaint about a field: %v", spec, err)
			}
			return
		}
		if u.uid > maxID || u.gid > maxID || u.groups[0] != u.gid || !strings.HasPrefix(u.home, "/") {
			t.Fatalf("%q: %+v", spec, u)
		}
		// A number is that number, whatever the files say.
		name, g, hasGroup := strings.Cut(spec, ":")
		if n, err := strconv.ParseUint(name, 10, 64); err == nil && uint64(u.uid) != n {
			t.Fatalf("%q: uid %d", spec, u.uid)
		}
		if n, err := strconv.ParseUint(g, 10, 64); hasGroup && err == nil && uint64(u.gid) != n {
			t.Fatalf("%q: gid %d", spec, u.gid)
		}
		// What is resolved can be said in numbers, and means the same.
		again, err := pureAccounts("", "").resolve(fmt.Sprintf("%d:%d", u.uid, u.gid), nil)
		if err != nil || again.uid != u.uid || again.gid != u.gid {
			t.Fatalf("%q is %+v, again it is %+v, %v", spec, u, again, err)
		}
	})
}
