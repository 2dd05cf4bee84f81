//go:build linux

package container

import (
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"
)

// placeWorld is a tree for placeFacts: the levels by their paths.
type placeWorld map[string]cgroupLevel

func (w placeWorld) facts(own string) *placeFacts {
	return &placeFacts{own: own, chain: func(p string) (levels []cgroupLevel) {
		for ; ; p = path.Dir(p) {
			if l, ok := w[p]; ok {
				l.path, l.last = p, p == "/"
				levels = append(levels, l)
			}
			if p == "/" {
				return levels
			}
		}
	}}
}

// desktop is what an ordinary user finds under systemd 252.
var desktop = placeWorld{
	"/":                                     {managed: true, treeRoot: true},
	"/user.slice":                           {},
	"/user.slice/u.slice":                   {},
	"/user.slice/u.slice/session.scope":     {},
	"/user.slice/u.slice/user@1000.service": {mine: true, delegated: true, managed: true},
	"/user.slice/u.slice/user@1000.service/app.slice":                            {mine: true},
	"/user.slice/u.slice/user@1000.service/app.slice/term.scope":                 {mine: true},
	"/user.slice/u.slice/user@1000.service/app.slice/term.scope/sub":             {mine: true},
	"/user.slice/u.slice/user@1000.service/app.slice/given.scope":                {mine: true},
	"/user.slice/u.slice/user@1000.service/app.slice/given.scope/sub":            {mine: true},
	"/user.slice/u.slice/user@1000.service/app.slice/given.scope/" + callersLeaf: {mine: true},
	"/system.slice":                      {},
	"/system.slice/plain.service":        {},
	"/system.slice/given.service":        {mine: true, delegated: true},
	"/system.slice/given.service/a":      {mine: true},
	"/system.slice/given.service/a/b":    {mine: true},
	"/system.slice/others.service":       {delegated: true},
	"/system.slice/group.service":        {mine: true},
	"/machines":                          {mine: true},
	"/system.slice/nspawn.service":       {mine: true, delegated: true, managed: true},
	"/system.slice/nspawn.service/x":     {mine: true},
	"/system.slice/given.service/marked": {mine: true, delegated: true},
}

// rootOf is the same tree for root, which may write everywhere but where it has been given to a user.
func rootOf(w placeWorld) placeWorld {
	all := placeWorld{}
	for p, l := range w {
		l.mine = !strings.HasPrefix(p, "/user.slice/u.slice/user@") && !strings.Contains(p, "others")
		all[p] = l
	}
	return all
}

func TestCgroupPlaceDecision(t *testing.T) {
	user := "/user.slice/u.slice/user@1000.service/app.slice/"
	type want struct {
		parent, top, slice string
		shared, user, none bool
	}
	scope := want{slice: "user.slice", user: true}
	for _, tt := range []struct {
		name          string
		world         placeWorld
		own           string
		root, systemd bool
		gives         bool // given.scope
		cfg           CgroupConfig
		want          want
	}{
		{"a login session", desktop, "/user.slice/u.slice/session.scope", false, true, true, CgroupConfig{}, scope},
		{"a terminal of the desktop", desktop, user + "term.scope", false, true, true, CgroupConfig{}, scope},
		{"what a terminal has made", desktop, user + "term.scope/sub", false, true, true, CgroupConfig{}, scope},
		{"a delegated scope", desktop, user + "given.scope", false, true, true, CgroupConfig{}, want{parent: user + "given.scope", top: user + "given.scope", shared: true}},
		{"its second container", desktop, user + "given.scope/" + callersLeaf, false, true, true, CgroupConfig{}, want{parent: user + "given.scope", top: user + "given.scope", shared: true}},
		{"below it", desktop, user + "given.scope/sub", false, true, true, CgroupConfig{}, want{parent: user + "given.scope/sub", top: user + "given.scope", shared: true}},
		{"systemd says no", desktop, user + "given.scope", false, true, false, CgroupConfig{}, scope},
		{"systemd asked for", desktop, user + "given.scope", false, true, true, CgroupConfig{Manager: CgroupSystemd}, scope},
		{"in the user's manager's own", desktop, "/user.slice/u.slice/user@1000.service", false, true, true, CgroupConfig{}, scope},
		{"a marked service", desktop, "/system.slice/given.service/a/b", false, true, false, CgroupConfig{}, want{parent: "/system.slice/given.service/a/b", top: "/system.slice/given.service", shared: true}},
		{"the nearest mark", desktop, "/system.slice/given.service/marked", false, true, false, CgroupConfig{}, want{parent: "/system.slice/given.service/marked", top: "/system.slice/given.service/marked", shared: true}},
		{"a mark for somebody else", desktop, "/system.slice/others.service", false, true, false, CgroupConfig{}, scope},
		{"only writable", desktop, "/system.slice/group.service", false, true, false, CgroupConfig{}, scope},
		{"under another systemd", desktop, "/system.slice/nspawn.service/x", false, true, false, CgroupConfig{}, scope},
		{"a plain service, cgroupfs asked for", desktop, "/system.slice/plain.service", false, true, false, CgroupConfig{Manager: CgroupFS}, want{none: true}},
		{"a slice by name", desktop, "/system.slice/given.service", false, true, false, CgroupConfig{Parent: "x.slice"}, want{slice: "x.slice", user: true}},

		{"root in a plain service", rootOf(desktop), "/system.slice/plain.service", true, true, false, CgroupConfig{}, want{parent: "/container", top: "/"}},
		{"root in a delegated service", rootOf(desktop), "/system.slice/given.service", true, true, false, CgroupConfig{}, want{parent: "/system.slice/given.service", top: "/system.slice/given.service", shared: true}},
		{"root in a user's scope", rootOf(desktop), user + "given.scope", true, true, true, CgroupConfig{}, want{parent: "/container", top: "/"}},
		{"root, systemd asked for", rootOf(desktop), "/system.slice/plain.service", true, true, false, CgroupConfig{Manager: CgroupSystemd}, want{slice: "system.slice"}},
		{"root, a path", rootOf(desktop), "/system.slice/plain.service", true, true, false, CgroupConfig{Path: "/machines/new/demo"}, want{parent: "/machines/new", top: "/"}},
		{"root, own cgroup by name", rootOf(desktop), "/system.slice/plain.service", true, true, false, CgroupConfig{Parent: "/system.slice/plain.service"}, want{parent: "/system.slice/plain.service", top: "/", shared: true}},
		{"a name below the own cgroup", desktop, "/system.slice/given.service", false, true, false, CgroupConfig{Name: "x/demo-"}, want{parent: "/system.slice/given.service/x", top: "/system.slice/given.service", shared: true}},
		{"root, a name", rootOf(desktop), "/system.slice/plain.service", true, true, false, CgroupConfig{Name: "jobs/demo-"}, want{parent: "/container/jobs", top: "/"}},
		{"root, parent and name", rootOf(desktop), "/system.slice/plain.service", true, true, false, CgroupConfig{Parent: "/machines", Name: "jobs/demo-"}, want{parent: "/machines/jobs", top: "/"}},
		{"root, a place below the own", rootOf(desktop), "/system.slice/plain.service", true, true, false, CgroupConfig{Path: "/system.slice/plain.service/a/b"}, want{parent: "/system.slice/plain.service/a", top: "/", shared: true}},
		{"a name of a scope", desktop, "/user.slice/u.slice/session.scope", false, true, false, CgroupConfig{Parent: "a.slice", Name: "demo-.scope"}, want{slice: "a.slice", user: true}},
		{"root at the root", rootOf(desktop), "/", true, true, false, CgroupConfig{Parent: "/"}, want{parent: "/", top: "/"}},

		{"no systemd: given by chown", placeWorld{"/": {treeRoot: true}, "/c": {mine: true}, "/c/d": {mine: true}}, "/c/d", false, false, false, CgroupConfig{}, want{parent: "/c/d", top: "/c", shared: true}},
		{"no systemd: not given", placeWorld{"/": {treeRoot: true}, "/c": {}}, "/c", false, false, false, CgroupConfig{}, want{none: true}},
		{"no systemd: root", placeWorld{"/": {treeRoot: true, mine: true}, "/c": {mine: true}}, "/c", true, false, false, CgroupConfig{}, want{parent: "/container", top: "/"}},
		{"no systemd, but asked for", placeWorld{"/": {treeRoot: true, mine: true}}, "/", true, false, false, CgroupConfig{Manager: CgroupSystemd}, want{none: true}},
		{"the root of a namespace", placeWorld{"/": {mine: true}}, "/", true, false, false, CgroupConfig{}, want{parent: "/", top: "/", shared: true}},
		{"below it", placeWorld{"/": {mine: true}, "/c": {mine: true}}, "/c", true, false, false, CgroupConfig{}, want{parent: "/c", top: "/", shared: true}},
		{"the root of a namespace, read-only", placeWorld{"/": {}}, "/", false, false, false, CgroupConfig{}, want{none: true}},
		{"systemd in a container", placeWorld{"/": {mine: true, managed: true}, "/system.slice": {mine: true}, "/system.slice/x.service": {mine: true}}, "/system.slice/x.service", true, true, false, CgroupConfig{}, want{parent: "/container", top: "/"}},
		{"the own cgroup is not seen", placeWorld{"/": {mine: true}}, "", false, false, false, CgroupConfig{}, want{none: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.world.facts(tt.own)
			f.root, f.systemd = tt.root, tt.systemd
			if tt.systemd && !tt.root {
				f.gives = func(unit string) bool { return tt.gives && unit == "given.scope" }
			}
			p, err := tt.cfg.decide(f, "demo", "/state/demo")
			var e *Error
			if tt.want.none {
				if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || e.Remedy == "" {
					t.Fatalf("%+v, %v; want ErrUnsupported with a remedy", p, err)
				}
				return
			}
			got := want{parent: p.Parent, top: p.Top, slice: p.Slice, shared: p.Shared, user: p.User}
			if err != nil || got != tt.want {
				t.Fatalf("%+v, %v; want %+v", got, err, tt.want)
			}
			if p.Kept {
				t.Error("a cgroup that is not there is kept")
			}
			if name := map[bool]string{true: p.Unit, false: p.Name}[p.Slice != ""]; tt.cfg.Path == "" && !strings.Contains(name, "demo-") {
				t.Errorf("it is called %q", name)
			}
		})
	}
}

func TestCgroupPlaceKept(t *testing.T) {
	f := rootOf(desktop).facts("/")
	f.root = true
	for name, unit := range map[string]string{"x.scope": "x.scope", "jobs/de mo": `jobs-de\x20mo.scope`} {
		f.systemd = true
		if place, err := (&CgroupConfig{Manager: CgroupSystemd, Name: name}).decide(f, "demo", ""); err != nil || place.Unit != unit {
			t.Errorf("%s: %+v, %v", name, place, err)
		}
	}
	if place, err := (&CgroupConfig{Parent: "/", Name: "machines"}).decide(f, "demo", ""); err != nil || !place.Kept || place.path() != "/machines" {
		t.Errorf("%+v, %v", place, err)
	}
	for p, kept := range map[string]bool{"/machines": true, "/machines/x": false} {
		if place, err := (&CgroupConfig{Path: p}).decide(f, "demo", ""); err != nil || place.Kept != kept || place.path() != p {
			t.Errorf("%s: %+v, %v", p, place, err)
		}
	}
}

// Names are legal, and differ for two records with the same id.
func TestCgroupPlaceNames(t *testing.T) {
	f := desktop.facts("/machines")
	for _, id := range []string{"demo", "memory.max", "cgroup.procs", "..x", "-", "a+b", strings.Repeat("x", 1024), strings.Repeat("+", 1024)} {
		seen := map[string]bool{}
		for _, record := range []string{"/a/" + id, "/b/" + id} {
			f.systemd = false
			p, err := (&CgroupConfig{Parent: "/machines"}).decide(f, id, record)
			f.systemd = true
			s, serr := (&CgroupConfig{Manager: CgroupSystemd}).decide(f, id, record)
			if err := errors.Join(err, serr); err != nil {
				t.Fatal(err)
			}
			if len(p.Name) > 255 || strings.ContainsAny(p.Name, "/\n") || !strings.Contains(p.Name, "-") {
				t.Errorf("%.30s: the name %q", id, p.Name)
			}
			if len(s.Unit) > 255 || strings.Trim(s.Unit, `abcdefghijklmnopqrstuvwxyz0123456789:-_.\`) != "" || !strings.HasPrefix(s.Unit, "container-") || !strings.HasSuffix(s.Unit, ".scope") {
				t.Errorf("%.30s: the unit %q", id, s.Unit)
			}
			if seen[p.Name] || seen[s.Unit] {
				t.Errorf("%.30s: both records have %q", id, p.Name)
			}
			seen[p.Name], seen[s.Unit] = true, true
		}
	}
}

// A place goes through the record.
func TestCgroupPlaceRecord(t *testing.T) {
	for _, p := range []cgroupPlace{
		{Manager: CgroupFS, Parent: "/a", Name: "b-1", Top: "/", Shared: true, Kept: true},
		{Manager: CgroupSystemd, Parent: "/s/x.scope", Name: "container", Top: "/s/x.scope", Unit: "x.scope", Slice: "s.slice", User: true, Keeper: processID{1, 2}},
	} {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back cgroupPlace
		if err := json.Unmarshal(text, &back); err != nil || back != p {
			t.Errorf("%s: %+v, %v", text, back, err)
		}
	}
}

func TestCgroupPlaceCommon(t *testing.T) {
	for _, tt := range [][3]string{
		{"/a/b", "/a/c", "/a"}, {"/a", "/a/c", "/a"}, {"/a/c", "/a", "/a"}, {"/ab", "/a", "/"}, {"/a", "/ab", "/"}, {"/", "/a", "/"}, {"/a", "/a", "/a"},
	} {
		if got := commonCgroup(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%s and %s: %s, want %s", tt[0], tt[1], got, tt[2])
		}
	}
}

func TestSystemdAddresses(t *testing.T) {
	none := []string{"/run/user/7/bus", "/run/user/7/systemd/private direct"}
	for _, tt := range []struct {
		bus, dir string
		want     []string
	}{
		{"", "", none},
		{"", "/run/user/7", none},
		{"unix:path=/run/user/7/bus", "/run/user/7", none},
		{"unix:path=/x%20y,guid=12;tcp:host=h,port=1", "", append([]string{"/x y"}, none...)},
		{"unix:guid=1,abstract=/tmp/dbus-1", "/r", []string{"@/tmp/dbus-1", "/r/bus", "/run/user/7/bus", "/r/systemd/private direct", "/run/user/7/systemd/private direct"}},
		{"unixexec:path=/bin/sh", "", none},
		{"autolaunch:", "", none},
		{"unix:path=%zz", "", none},
	} {
		env := map[string]string{"DBUS_SESSION_BUS_ADDRESS": tt.bus, "XDG_RUNTIME_DIR": tt.dir}
		var got []string
		for _, a := range busAddresses(true, func(name string) string { return env[name] }, 7) {
			got = append(got, strings.TrimSuffix(a.path+map[bool]string{true: " direct"}[a.direct], " "))
		}
		if strings.Join(got, "|") != strings.Join(tt.want, "|") {
			t.Errorf("%q, %q: %q, want %q", tt.bus, tt.dir, got, tt.want)
		}
	}
	for _, a := range busAddresses(false, func(string) string { return "unix:path=/evil" }, 0) {
		if a.path == "/evil" {
			t.Error("root speaks with what the environment names")
		}
	}
}
