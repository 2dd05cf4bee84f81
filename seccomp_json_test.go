package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"example.com/container/internal/seccomp"
)

// sameJSON tells whether two texts say the same, where null, [] and {} say nothing.
func sameJSON(t testing.TB, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(withoutEmpty(x), withoutEmpty(y))
}

func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			if e = withoutEmpty(e); e == nil || e == "" || e == 0.0 && key == "valueTwo" {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

const ociProfileText = `{"defaultAction":"SCMP_ACT_NOTIFY","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
	"flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/run/x","listenerMetadata":"m",
	"syscalls":[{"names":["a","b"],"action":"SCMP_ACT_TRACE","errnoRet":0,"args":[{"index":0,"value":18446744073709551615,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}`

// What is read is written again: Docker's profile with its conditions and comments, and all fields of the specification.
func TestSeccompJSONRoundTrip(t *testing.T) {
	docker, err := os.ReadFile("testdata/seccomp/moby.json")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := json.Marshal(DefaultSeccompProfile())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"Docker's": docker, "OCI": []byte(ociProfileText), "ours": ours} {
		p := new(SeccompProfile)
		if err := json.Unmarshal(text, p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := json.Marshal(p)
		if err != nil || !sameJSON(t, text, again) {
			t.Errorf("%s: %v\n%s", name, err, again)
		}
	}
	p := new(SeccompProfile)
	if err := json.Unmarshal([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","args":null}]}`), p); err != nil || len(p.Syscalls) != 1 || p.Syscalls[0].Names[0] != "read" {
		t.Errorf("an old profile: %v, %+v", err, p)
	}
}

// A field that is nobody's would be a rule that does nothing.
func TestSeccompJSONRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"defaultAction":"a","syscall":[]}`:                                `unknown field "syscall"`,
		`{"defaultAction":"a","syscalls":[{"names":["a"],"errno":1}]}`:      `unknown field "errno"`,
		`{"syscalls":[{"args":[{"index":0,"valuetwo":1,"mask":1}]}]}`:       `unknown field "mask"`,
		`{"syscalls":[{"includes":{"minkernel":"4.8","capabilities":[]}}]}`: `unknown field "capabilities"`,
		`{"syscalls":[{"name":"a","names":["b"]}]}`:                         `both "name" and "names"`,
		`{"syscalls":[{"errnoRet":-1}]}`:                                    "errnoRet",
		`{"syscalls":[{"args":[{"index":0,"value":1e30}]}]}`:                "value",
		`{"archMap":[{"architecture":"a","sub":[]}]}`:                       `unknown field "sub"`,
		`[]`: "array",
	} {
		err := json.Unmarshal([]byte(text), new(SeccompProfile))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// A copy is equal, and shares nothing that can be changed.
func TestSeccompClone(t *testing.T) {
	p := new(SeccompProfile)
	fillValue(reflect.ValueOf(p).Elem())
	got := deepCopy(p)
	if !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, want %+v", got, p)
	}
	if path := sharedValue(reflect.ValueOf(p), reflect.ValueOf(got)); path != "" {
		t.Errorf("%s is shared", path)
	}
	if deepCopy((*SeccompProfile)(nil)) != nil {
		t.Error("a copy of nothing")
	}
}

// fillValue gives each field a value.
func fillValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fillValue(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fillValue(v.Index(0))
		fillValue(v.Index(1))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem())
	case reflect.String:
		v.SetString("x")
	case reflect.Uint, reflect.Uint64:
		v.SetUint(7)
	default:
		panic(v.Kind())
	}
}

// sharedValue names what two values have in common.
func sharedValue(a, b reflect.Value) string {
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			if path := sharedValue(a.Field(i), b.Field(i)); path != "" {
				return a.Type().Field(i).Name + "." + path
			}
		}
	case reflect.Slice:
		if a.Pointer() == b.Pointer() {
			return "[]"
		}
		for i := range a.Len() {
			if path := sharedValue(a.Index(i), b.Index(i)); path != "" {
				return path
			}
		}
	case reflect.Pointer:
		if a.Pointer() == b.Pointer() {
			return "*"
		}
		return sharedValue(a.Elem(), b.Elem())
	}
	return ""
}

// FuzzSeccompJSON: what is read is written so that it is read as the same; what passes the checks is a filter that can be compiled, and
// means the same then.
func FuzzSeccompJSON(f *testing.F) {
	docker, err := os.ReadFile("testdata/seccomp/moby.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(docker)
	f.Add([]byte(ociProfileText))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":5,"op":"SCMP_CMP_GT"},{"index":0,"value":3,"op":"SCMP_CMP_NE"}]}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X32"]}],"syscalls":[{"name":"clone","action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":255,"valueTwo":17,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"],"minKernel":"9.9"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := new(SeccompProfile)
		if json.Unmarshal(text, p) != nil {
			return
		}
		written, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again := new(SeccompProfile)
		if err := json.Unmarshal(written, again); err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, written)
		}
		if twice, _ := json.Marshal(again); !bytes.Equal(written, twice) {
			t.Fatalf("%s\nbecomes %s", written, twice)
		}
		if len(checkSeccompProfile(&Config{Seccomp: p})) > 0 {
			return
		}
		filter := p.filter(factsOf(seccomp.X86_64, DefaultCapabilities()...))
		insns, err := filter.Compile()
		if tooLong := (*seccomp.LengthError)(nil); errors.As(err, &tooLong) {
			return
		}
		if err != nil {
			t.Fatalf("passes the checks and cannot be compiled: %v", err)
		}
		for _, nr := range []int32{0, 1, 41, 56, 135, 500, 1 << 30} {
			for _, args := range argVectors()[:12] {
				d := seccomp.Data{Nr: nr, Arch: seccomp.X86_64.Audit(), Args: args}
				got, err := seccomp.Simulate(insns, d)
				if want := seccomp.Evaluate(filter, d); err != nil || got != want {
					t.Fatalf("%+v: %v, %v, want %v", d, got, err, want)
				}
			}
		}
	})
}
