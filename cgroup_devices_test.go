//go:build linux

package container

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// deviceCgroup is the right to load programs for devices.
var deviceCgroup = testenv.Requirement{Name: "devicecgroup", Probe: CanLimitDevices}

// verify lets the kernel check a program, and returns how many instructions that took.
func verify(t testing.TB, rules []DeviceRule) (steps int) {
	t.Helper()
	program := compileDeviceRules(rules)
	var log []byte
	if len(program) > 1000 {
		log = make([]byte, 1<<16)
	}
	fd, err := bpfLoadDevices(deviceProgram, program, log)
	if err != nil {
		log = make([]byte, 1<<16)
		bpfLoadDevices(deviceProgram, program, log)
		text := unix.ByteSliceToString(log)
		t.Fatalf("%d rules %.2000s: %v\n%s", len(rules), showDeviceRules(rules), err, text[max(0, len(text)-2000):])
	}
	unix.Close(fd)
	_, count, _ := strings.Cut(unix.ByteSliceToString(log), "processed ")
	if _, err := fmt.Sscan(count, &steps); err != nil && log != nil {
		t.Errorf("the verifier says %q", unix.ByteSliceToString(log))
	}
	return steps
}

// The kernel's verifier takes every program that is not too long.
func TestDevicesVerified(t *testing.T) {
	testenv.Need(t, deviceCgroup)
	verify(t, nil)
	verify(t, DefaultDeviceRules())
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		verify(t, randomDeviceRules(random))
	}
	for _, shape := range []func(i int) DeviceRule{
		func(i int) DeviceRule { return manyDeviceRules(i + 1)[i] },
		func(i int) DeviceRule {
			return DeviceRule{Allow: true, Major: new(uint32(i)), Access: []string{"r", "w", "m"}[i%3]}
		},
		func(i int) DeviceRule {
			return DeviceRule{Allow: true, Minor: new(uint32(i)), Access: []string{"r", "w", "m"}[i%3]}
		},
		func(i int) DeviceRule {
			return DeviceRule{Allow: i%2 == 0, Major: new(uint32(i % 2)), Minor: new(uint32(i)), Access: []string{"r", "w", "m"}[i%3]}
		},
	} {
		var rules []DeviceRule
		for i := range maxDeviceProgram {
			rules = append(rules, shape(i))
		}
		rules = rules[:sort.Search(len(rules), func(n int) bool { return len(compileDeviceRules(rules[:n])) > maxDeviceProgram })-1]
		const most = 1_000_000
		if steps := verify(t, rules); steps > most/5 {
			t.Errorf("%d rules: the verifier takes %d steps of %d", len(rules), steps, most)
		}
	}
	_, err := bpfLoadDevices(deviceProgram, []bpfInsn{{code: bpfSet, imm: 2}, {code: bpfExit}}, nil)
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("a program that returns 2: %v", err)
	}
}

func BenchmarkDevicesLoad(b *testing.B) {
	testenv.Need(b, deviceCgroup)
	for b.Loop() {
		if err := CanLimitDevices(); err != nil {
			b.Fatal(err)
		}
	}
}
