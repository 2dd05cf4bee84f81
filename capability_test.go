package container

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCapabilityNumber(t *testing.T) {
	for _, tt := range []struct {
		name string
		want int
		ok   bool
	}{
		{"CAP_CHOWN", 0, true},
		{"chown", 0, true},
		{"Cap_Sys_Admin", 21, true},
		{"SYS_ADMIN", 21, true},
		{"CAP_CHECKPOINT_RESTORE", 40, true},
		{"", -1, false},
		{"CAP_", -1, false},
		{"ALL", -1, false},
		{"CAP_CAP_CHOWN", -1, false},
		{"21", -1, false},
	} {
		if got, ok := capabilityNumber(tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("capabilityNumber(%q) = %d, %v; want %d, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestCapabilitySets(t *testing.T) {
	const chown, kill, bind = 1 << 0, 1 << 5, 1 << 10
	for _, tt := range []struct {
		name   string
		caps   *Capabilities
		want   capSets
		fields []string
	}{
		{"nil is the default", nil, capSets{bounding: 0x800405fb, effective: 0x800405fb, permitted: 0x800405fb}, nil},
		{"default", DefaultCapabilitiesConfig(), capSets{bounding: 0x800405fb, effective: 0x800405fb, permitted: 0x800405fb}, nil},
		{"none", &Capabilities{}, capSets{}, nil},
		{"any spelling, twice", &Capabilities{Bounding: []string{"cap_kill", "KILL"}}, capSets{bounding: kill}, nil},
		{"ambient", &Capabilities{
			Permitted: []string{"chown", "net_bind_service"}, Inheritable: []string{"net_bind_service"}, Ambient: []string{"net_bind_service"},
		}, capSets{permitted: chown | bind, inheritable: bind, ambient: bind}, nil},
		{"unknown names, all of them", &Capabilities{Bounding: []string{"chown", "foo"}, Ambient: []string{"bar"}}, capSets{},
			[]string{"Capabilities.Bounding[1]", "Capabilities.Ambient[0]"}},
		{"effective not permitted", &Capabilities{Effective: []string{"kill"}}, capSets{}, []string{"Capabilities.Effective"}},
		{"ambient not inheritable", &Capabilities{Permitted: []string{"kill"}, Ambient: []string{"kill"}}, capSets{}, []string{"Capabilities.Ambient"}},
		{"ambient not permitted", &Capabilities{Inheritable: []string{"kill"}, Ambient: []string{"kill"}}, capSets{}, []string{"Capabilities.Ambient"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.caps.sets()
			if got != tt.want {
				t.Errorf("got %+x, want %+x", got, tt.want)
			}
			pureWantFields(t, err, tt.fields...)
		})
	}
}

func TestDefaultCapabilitiesAreFew(t *testing.T) {
	for _, name := range DefaultCapabilities() {
		if _, ok := capabilityNumber(name); !ok {
			t.Errorf("%s is unknown", name)
		}
	}
	for _, name := range []string{"CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"} {
		if slices.Contains(DefaultCapabilities(), name) {
			t.Errorf("%s must not be a default", name)
		}
	}
	all := &Capabilities{Bounding: AllCapabilities()}
	if s, err := all.sets(); err != nil || s.bounding != 1<<41-1 {
		t.Errorf("all capabilities: %x, %v", s.bounding, err)
	}
	AllCapabilities()[0] = "CAP_NONE"
	if AllCapabilities()[0] != "CAP_CHOWN" {
		t.Error("AllCapabilities returns the table itself")
	}
}

// pureWantFields asserts that err complains about exactly these fields, in this order, and that
// each complaint is an ErrInvalidConfig.
func pureWantFields(t *testing.T, err error, fields ...string) {
	t.Helper()
	var got []string
	var errs fieldErrors
	errs.add(err)
	for _, err := range errs {
		var f *FieldError
		if !errors.As(err, &f) {
			t.Errorf("not a FieldError: %v", err)
			continue
		}
		if !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("not an ErrInvalidConfig: %v", err)
		}
		got = append(got, f.Field)
	}
	if !slices.Equal(got, fields) {
		t.Errorf("complaints about [%s], want [%s]\n%v", strings.Join(got, " "), strings.Join(fields, " "), err)
	}
}
