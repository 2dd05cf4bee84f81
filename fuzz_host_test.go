//go:build linux

package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file feeds the readers of what the kernel, the image and the caller write: files of /proc, passwd, environments,
// records. What is compared with is the writer, or a second reader.

// FuzzMountInfo: a target is read as what the kernel has escaped.
func FuzzMountInfo(f *testing.F) {
	f.Add("/a b\tc\nd\\e", "36 35 98:0 / /mnt rw - ext4 /dev/root rw\n")
	f.Add("/not a space\v\u00a0\r", "")
	f.Add("/\\040", " - \n - x\n1 2 3 4 5 -  - x")
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	f.Add("-", "")
	f.Fuzz(func(t *testing.T, target, text string) {
		target = "/" + target // as the kernel writes it: a dash alone would be the separator
		list := parseMountInfo(text)
		if len(list) > strings.Count(text, "\n")+1 {
			t.Fatalf("%q: %d mounts", text, len(list))
		}
		for _, m := range list {
			if m.fsType == "" || strings.ContainsAny(m.fsType, " \n") {
				t.Fatalf("%q: %+v", text, m)
			}
		}
		line := "36 35 98:0 / " + escape.Replace(target) + " rw,noatime shared:1 - ext4 /dev/root rw\n"
		got := parseMountInfo(line + line)
		if want := (mountInfo{target, "ext4"}); len(got) != 2 || got[0] != want || got[1] != want {
			t.Fatalf("%q: %+v", target, got)
		}
		if strings.ContainsRune(target, 0) {
			return
		}
		if root, mount := findCgroup2(strings.NewReader(strings.ReplaceAll(line, "- ext4", "- cgroup2"))); len(line) < 1<<19 && (root != "/" || mount != target) {
			t.Fatalf("%q: %q, %q", target, root, mount)
		}
	})
}

// FuzzIDMapFile: a map is read as the kernel writes it.
func FuzzIDMapFile(f *testing.F) {
	f.Add("         0       1000          1\n         1     100000      65536\n", uint32(0), uint32(0), uint32(4294967295))
	f.Add("x\n1 2\n-1 0x10 3\n", uint32(1), uint32(2), uint32(3))
	f.Fuzz(func(t *testing.T, text string, inside, outside, size uint32) {
		if maps, err := parseIDMap(strings.NewReader(text)); err == nil && len(maps) > strings.Count(text, "\n")+1 {
			t.Fatalf("%q: %d lines", text, len(maps))
		}
		line := fmt.Sprintf("%10d %10d %10d\n", inside, outside, size)
		got, err := parseIDMap(strings.NewReader(line + line))
		want := IDMap{ContainerID: int(inside), HostID: int(outside), Size: int(size)}
		if err != nil || len(got) != 2 || got[0] != want || got[1] != want {
			t.Fatalf("%q: %+v, %v", line, got, err)
		}
		// What the kernel takes for a map passes, and maps what is in it.
		if errs := checkIDMaps("M", got[:1]); errs == nil {
			for _, id := range []uint32{inside, inside + size - 1, inside + size, inside - 1} {
				host, ok := mapToHost(got[:1], id)
				if within := uint64(id) >= uint64(inside) && uint64(id) < uint64(inside)+uint64(size); ok != within || ok && host-outside != id-inside {
					t.Fatalf("%+v: %d is %d, %v", want, id, host, ok)
				}
			}
		} else if size > 0 && uint64(inside)+uint64(size) < 1<<32 && uint64(outside)+uint64(size) < 1<<32 {
			t.Fatalf("%+v: %v", want, errs)
		}
	})
}

// FuzzEnv compares the environment with a map.
func FuzzEnv(f *testing.F) {
	f.Add("A=1\nB=2\nA=3\nPATH=/x\nHOME=\n", "/home")
	f.Add("A\n=x\nA==\nB", "")
	f.Fuzz(func(t *testing.T, text, home string) {
		p := &Process{Args: []string{"x"}, Env: strings.Split(text, "\n")}
		bad := false
		want := map[string]string{}
		for _, e := range p.Env {
			i := strings.IndexByte(e, '=')
			if bad = bad || i <= 0 || strings.Contains(e, "\x00"); i > 0 {
				want[e[:i]] = e[i+1:]
			}
		}
		if errs := checkEnv(p); (len(errs) > 0) != bad {
			t.Fatalf("%q: %v", p.Env, errs)
		} else if bad {
			for _, err := range errs {
				var field *FieldError
				if !errors.As(err, &field) || !strings.HasPrefix(field.Field, "Env[") || strings.ContainsRune(err.Error(), 0) {
					t.Fatalf("%q: %v", p.Env, err)
				}
			}
			return
		}
		if _, ok := want["PATH"]; !ok {
			want["PATH"] = defaultPath
		}
		if _, ok := want["HOME"]; !ok {
			if want["HOME"] = home; home == "" {
				want["HOME"] = "/"
			}
		}
		pl := &plan{proc: p, user: execUser{home: home}}
		env := pl.environment()
		got := map[string]string{}
		for _, e := range env {
			k, v, _ := strings.Cut(e, "=")
			got[k] = v
		}
		if len(got) != len(env) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %q, want %q", p.Env, env, want)
		}
		pl.env = env
		for _, c := range pl.candidates() {
			if !strings.HasPrefix(c, "/") || !strings.HasSuffix(c, "/x") {
				t.Fatalf("%q: candidate %q", env, c)
			}
		}
	})
}

// FuzzState: a record that is read, written and read is the same, and what cannot be one is an error.
func FuzzState(f *testing.F) {
	for _, s := range []*stored{
		{}, {ContainerState: ContainerState{Version: stateVersion, ID: "x", Status: StatusRunning, Pid: 5, StartTime: 7, BootID: "b"}, Supervisor: processID{3, 4}, MountNamespaceID: 9, Cgroup: &cgroupRecord{}},
	} {
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"pid":-1,"pid":1e3,"version":2,"cgroup":null,"status":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again stored
		if json.Unmarshal(b, &s) != nil {
			return
		}
		text, err := json.Marshal(&s)
		if err != nil {
			t.Fatalf("%s\n%v", b, err)
		}
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatalf("%s\nis written as %s: %v", b, text, err)
		}
		text2, err := json.Marshal(&again)
		if err != nil || !bytes.Equal(text, text2) {
			t.Fatalf("%s\nis written as\n%s and then as\n%s, %v", b, text, text2, err)
		}
	})
}

// FuzzCapabilities: names are sets of bits, and bits are names.
func FuzzCapabilities(f *testing.F) {
	f.Add("CAP_CHOWN,cap_kill,sys_admin,CAP_CAP_CHOWN,", uint64(1))
	f.Add("", ^uint64(0))
	f.Fuzz(func(t *testing.T, text string, set uint64) {
		names := strings.Split(text, ",")
		s, err := (&Capabilities{Bounding: names}).sets()
		var want uint64
		bad := false
		for _, n := range names {
			i := slices.IndexFunc(capabilityNames[:], func(known string) bool {
				return strings.ToUpper(n) == known || "CAP_"+strings.ToUpper(n) == known
			})
			if bad = bad || i < 0; i >= 0 {
				want |= 1 << i
			}
		}
		if (err != nil) != bad || err == nil && s.bounding != want || err != nil && !errors.Is(err, ErrInvalidConfig) {
			t.Fatalf("%q: %x, %v; want %x", names, s.bounding, err, want)
		}
		set &= 1<<len(capabilityNames) - 1
		list := capabilityList(set)
		var all []string
		if list != "" {
			all = strings.Split(list, ", ")
		}
		s, err = (&Capabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all, Ambient: all}).sets()
		if err != nil || s != (capSets{set, set, set, set, set}) || len(all) != bits.OnesCount64(set) {
			t.Fatalf("%x is %q, which is %+v, %v", set, list, s, err)
		}
		// The ambient set needs both others, the effective one the permitted.
		if _, err := (&Capabilities{Ambient: all, Permitted: all}).sets(); (err == nil) != (set == 0) {
			t.Fatalf("ambient %q: %v", list, err)
		}
	})
}

// FuzzDetachKeys: keys are read as they are printed, and found where they are typed, however they are cut to pieces.
func FuzzDetachKeys(f *testing.F) {
	f.Add("ctrl-p,ctrl-q", []byte("ab\x10c\x10\x10\x11rest"), uint8(1))
	f.Add("a,a,b", []byte("aaab"), uint8(2))
	f.Add("ctrl-@,ctrl-\\,,", []byte{0, 0x1c}, uint8(3))
	f.Fuzz(func(t *testing.T, text string, typed []byte, piece uint8) {
		keys, err := parseDetachKeys(text)
		if err != nil {
			if keys != nil || !errors.Is(err, ErrInvalidConfig) {
				t.Fatal(err)
			}
			return
		}
		var names []string
		for _, k := range keys {
			switch {
			case k > ' ':
				names = append(names, string(rune(k)))
			case k >= 1 && k <= 26:
				names = append(names, "ctrl-"+string(rune(k+'a'-1)))
			default:
				names = append(names, "ctrl-"+string(rune(k+'@')))
			}
		}
		if printed := strings.Join(names, ","); printed != text {
			t.Fatalf("%q is %q, printed as %q", text, keys, printed)
		}
		want, found := typed, false
		if i := bytes.Index(typed, keys); len(keys) > 0 && i >= 0 {
			want, found = typed[:i], true
		}
		w := keyWatch{keys: keys}
		var got []byte
		var gotFound bool
		for rest := typed; len(rest) > 0 && !gotFound; {
			n := min(int(piece%7)+1, len(rest))
			var out []byte
			out, gotFound = w.pass(rest[:n])
			got, rest = append(got, out...), rest[n:]
		}
		if !gotFound {
			got = append(got, w.held...)
		}
		if gotFound != found || !bytes.Equal(got, want) {
			t.Fatalf("%q in %q: %q, %v; want %q, %v", keys, typed, got, gotFound, want, found)
		}
	})
}

// FuzzProcStat: the name of a process, which it chooses itself, does not change who its parent is.
func FuzzProcStat(f *testing.F) {
	f.Add("1 (x) S 2 3", "a) S 1 1 (b", 5, uint64(7))
	f.Add("", ") ", -1, ^uint64(0))
	f.Fuzz(func(t *testing.T, text, name string, parent int, start uint64) {
		if _, s := parseStat(text); s != 0 && !strings.Contains(text, ") ") {
			t.Fatalf("%q: %d", text, s)
		}
		line := fmt.Sprintf("77 (%s) S %d 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 %d 1000 2 18446744073709551615\n", name, parent, start)
		if p, s := parseStat(line); p != parent || s != start {
			t.Fatalf("%q: %d, %d", line, p, s)
		}
		parseDying(text)
		if parseDying(line) {
			t.Fatalf("%q dies", line)
		}
	})
}

// FuzzOwnCgroup: the path of a cgroup is all that stands behind the second colon.
func FuzzOwnCgroup(f *testing.F) {
	f.Add("/user.slice/a:b", "12:cpu,cpuacct:/x\n1:name=systemd:/y\n0::/z\n")
	f.Add("/ \r", "0::\n0::")
	f.Fuzz(func(t *testing.T, cgroup, text string) {
		path, _ := parseOwnCgroup(strings.NewReader(text))
		if path != "" && !strings.Contains(text, "0::"+path) {
			t.Fatalf("%q: %q", text, path)
		}
		if strings.Contains(cgroup, "\n") {
			return
		}
		for _, v1 := range []string{"", "4:memory:/other\n", "1:name=systemd:" + cgroup + "\n"} {
			path, hybrid := parseOwnCgroup(strings.NewReader(v1 + "0::" + cgroup + "\n"))
			if path != cgroup || hybrid != strings.HasPrefix(v1, "4") {
				t.Fatalf("%q behind %q: %q, %v", cgroup, v1, path, hybrid)
			}
		}
	})
}

// FuzzAccounts compares the lookups in passwd and group with the plainest ones.
func FuzzAccounts(f *testing.F) {
	f.Add("joe", purePasswd, pureGroup)
	f.Add("1000", "1000:x:0:0::/:/bin/sh\njoe:x:1000:5\n", "1000:x:7:\nwheel:x:8:1000,joe\n")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		if checkAccount(name) != nil || strings.Count(passwd+group, "\n") > 1000 {
			return
		}
		number, isNumber := uint64(0), isDigits(name)
		if isNumber {
			number, _ = strconv.ParseUint(name, 10, 32)
		}
		id := func(s string) (uint64, bool) {
			n, err := strconv.ParseUint(s, 10, 64)
			return n, err == nil && n <= maxID
		}
		var uid, gid uint64
		found, broken := false, false
		for _, line := range strings.Split(passwd, "\n") {
			fields := strings.Split(line, ":")
			if found || broken || len(fields) < 4 {
				continue
			}
			u, okU := id(fields[2])
			g, okG := id(fields[3])
			if isNumber && (!okU || u != number) || !isNumber && fields[0] != name {
				continue
			}
			uid, gid, found, broken = u, g, okU && okG, !okU || !okG
		}
		got, ok, err := pureAccounts(passwd, group).user(name)
		if (err != nil) != broken || ok != found || found && (uint64(got.uid) != uid || uint64(got.gid) != gid) {
			t.Fatalf("%q in %q: %+v, %v, %v; want %d:%d, %v", name, passwd, got, ok, err, uid, gid, found)
		}
		if isNumber {
			return
		}
		var want []uint32
		for _, line := range strings.Split(group, "\n") {
			fields := strings.Split(line, ":")
			if len(fields) < 4 {
				continue
			}
			if g, ok := id(fields[2]); ok && slices.Contains(strings.Split(fields[3], ","), name) {
				want = append(want, uint32(g))
			}
		}
		if got, err := pureAccounts(passwd, group).memberships(name); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q in %q: %v, %v; want %v", name, group, got, err, want)
		}
	})
}
