package container

import (
	"reflect"
	"testing"
)

func TestParseMountOptions(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Mount
		out  string // canonical; empty means as in
	}{
		{"ro,nosuid,nodev,noexec", Mount{Flags: MountReadOnly | NoSuid | NoDev | NoExec}, ""},
		{"rw,suid,dev,exec", Mount{ClearFlags: MountReadOnly | NoSuid | NoDev | NoExec}, ""},
		{"nosuid,rbind,ro", Mount{Type: "bind", Flags: MountReadOnly | NoSuid | Recursive}, "rbind,ro,nosuid"},
		{"bind", Mount{Type: "bind"}, ""},
		{"bind,rro", Mount{Type: "bind", Flags: MountReadOnly | Recursive}, "rbind,ro"},
		{"rro,bind", Mount{Type: "bind", Flags: MountReadOnly | Recursive}, "rbind,ro"},
		{"rro,rnosuid,rdev", Mount{Flags: MountReadOnly | NoSuid | Recursive, ClearFlags: NoDev}, "rdev,rro,rnosuid"},
		{"rrw", Mount{ClearFlags: MountReadOnly, Flags: Recursive}, ""},
		{"ro,rw", Mount{ClearFlags: MountReadOnly}, "rw"},
		{"rw,ro", Mount{Flags: MountReadOnly}, "ro"},
		{"noatime,strictatime", Mount{Flags: StrictAtime}, "strictatime"},
		{"noatime,relatime,nodiratime", Mount{Flags: RelAtime | NoDirAtime}, "relatime,nodiratime"},
		{"relatime", Mount{Flags: RelAtime}, ""}, // not a recursive "elatime"
		{"rrelatime", Mount{Flags: RelAtime | Recursive}, ""},
		{"rnorelatime", Mount{ClearFlags: RelAtime, Flags: Recursive}, ""},
		{"noatime,atime", Mount{ClearFlags: NoAtime}, "atime"},
		{"atime,strictatime", Mount{ClearFlags: NoAtime, Flags: StrictAtime}, ""},
		{"diratime,symfollow", Mount{ClearFlags: NoDirAtime | NoSymFollow}, ""},
		{"nosymfollow", Mount{Flags: NoSymFollow}, ""},
		{"rslave", Mount{Propagation: RSlave}, ""},
		{"private,shared", Mount{Propagation: Shared}, "shared"},
		{"runbindable", Mount{Propagation: RUnbindable}, ""},
		{"tmpcopyup,nofail", Mount{CopyUp: true, Optional: true}, ""},
		{"ro,nosuid,rbind,size=64m,mode=1777,rslave", Mount{
			Type: "bind", Flags: MountReadOnly | NoSuid | Recursive, Propagation: RSlave, Data: "size=64m,mode=1777",
		}, "rbind,ro,nosuid,rslave,size=64m,mode=1777"},
		{"sync,lazytime,context=\"a,b\"", Mount{Data: "sync,lazytime,context=\"a,b\""}, ""},
		{"defaults", Mount{}, ""},
		{"", Mount{}, ""},
		{",,ro,,", Mount{Flags: MountReadOnly}, "ro"},
		{"RO", Mount{Data: "RO"}, ""}, // names are lower case; the file system will refuse it
		{"rrro", Mount{Data: "rrro"}, ""},
	} {
		got, err := ParseMountOptions(tt.in)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
		want := tt.out
		if want == "" && tt.in != "defaults" {
			want = tt.in
		}
		if got := got.Options(); got != want {
			t.Errorf("%q: printed as %q, want %q", tt.in, got, want)
		}
	}
	for _, in := range []string{"idmap", "ro,ridmap", "remount", "move", "size=\x00"} {
		m, err := ParseMountOptions(in)
		pureWantFields(t, err, "Options")
		if !reflect.DeepEqual(m, Mount{}) {
			t.Errorf("%q: an error, and %+v", in, m)
		}
	}
}

func FuzzParseMountOptions(f *testing.F) {
	for _, s := range []string{
		"", "ro,nosuid,nodev,noexec,size=64m,mode=1777", "rbind,rslave", "rw,rro,bind", "noatime,relatime,strictatime,atime",
		"tmpcopyup,nofail,idmap", "rnodiratime,symfollow", "rshared,x=\x00", "defaults,,,r,rr",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMountOptions(s)
		if err != nil {
			return
		}
		text := m.Options()
		again, err := ParseMountOptions(text)
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%q is %+v, printed as %q, which is %+v, %v", s, m, text, again, err)
		}
		if text2 := again.Options(); text2 != text {
			t.Fatalf("%q is printed as %q, then as %q", s, text, text2)
		}
		if m.Flags&m.ClearFlags != 0 {
			t.Fatalf("%q sets and clears %v", s, m.Flags&m.ClearFlags)
		}
	})
}

func TestMountAttrs(t *testing.T) {
	for _, tt := range []struct {
		m        Mount
		set, clr uint64
	}{
		{Mount{}, 0, 0},
		{Mount{Flags: MountReadOnly | NoSuid | NoDev | NoExec | Recursive}, 0xf, 0},
		{Mount{Flags: NoAtime | NoDirAtime | NoSymFollow}, 0x200090, 0x70},
		{Mount{Flags: RelAtime}, 0, 0x70},
		{Mount{Flags: StrictAtime, ClearFlags: NoAtime}, 0x20, 0x70},
		{Mount{ClearFlags: NoAtime}, 0, 0x70},
		{Mount{ClearFlags: MountReadOnly | NoDev}, 0, 5},
		{Mount{Flags: MountReadOnly, ClearFlags: MountReadOnly}, 1, 0},
	} {
		if set, clr := tt.m.attrs(); set != tt.set || clr != tt.clr {
			t.Errorf("%v clear %v: got %#x %#x, want %#x %#x", tt.m.Flags, tt.m.ClearFlags, set, clr, tt.set, tt.clr)
		}
	}
	if got, want := (MountReadOnly | NoSuid | Recursive | 1<<30).String(), "ro,nosuid,recursive,0x40000000"; got != want {
		t.Errorf("printed as %q, want %q", got, want)
	}
}

func TestPropagationFlags(t *testing.T) {
	for _, tt := range []struct {
		p             Propagation
		ms            uint64
		recursive, ok bool
	}{
		{"", 1 << 18, false, true},
		{Private, 1 << 18, false, true},
		{Slave, 1 << 19, false, true},
		{Shared, 1 << 20, false, true},
		{Unbindable, 1 << 17, false, true},
		{RPrivate, 1 << 18, true, true},
		{RSlave, 1 << 19, true, true},
		{RShared, 1 << 20, true, true},
		{RUnbindable, 1 << 17, true, true},
		{"r", 0, false, false},
		{"rrslave", 0, false, false},
		{"SLAVE", 0, false, false},
	} {
		if ms, recursive, ok := tt.p.flags(); ms != tt.ms || recursive != tt.recursive || ok != tt.ok {
			t.Errorf("%q: got %#x, %v, %v", tt.p, ms, recursive, ok)
		}
	}
}
