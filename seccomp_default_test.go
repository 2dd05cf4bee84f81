package container

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.com/container/internal/seccomp"
)

// mobyProfile is Docker's default profile.
func mobyProfile(t testing.TB) *SeccompProfile {
	t.Helper()
	text, err := os.ReadFile("testdata/seccomp/moby.json")
	if err != nil {
		t.Fatal(err)
	}
	p := new(SeccompProfile)
	if err := json.Unmarshal(text, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// factsOf are those of a host with Linux 6.1 and a process.
func factsOf(native seccomp.ABI, caps ...string) *seccompFacts {
	facts := &seccompFacts{native: native, goarch: goArches[native], kernel: kernelVersion{6, 1}}
	for _, name := range caps {
		n, ok := capabilityNumber(name)
		if !ok {
			panic(name)
		}
		facts.caps |= 1 << n
	}
	return facts
}

func compileFilter(t testing.TB, p *SeccompProfile, facts *seccompFacts) []seccomp.Instruction {
	t.Helper()
	var errs fieldErrors
	if errs = checkSeccompProfile(&Config{Seccomp: p}); len(errs) > 0 {
		t.Fatal(errs.join())
	}
	insns, err := p.filter(facts).Compile()
	if err != nil {
		t.Fatal(err)
	}
	return insns
}

// argVectors are arguments at which the answers of default profiles differ.
func argVectors() (list [][6]uint64) {
	interesting := []uint64{0, 8, 0x20000, 0x20008, 0xffffffff, 37, 38, 39, 40, 41, 1 << 32, ^uint64(0), 0x10000000, 0x7e020000, 0x5412, 0x541c, 0x5401, 0x80}
	for _, high := range []uint64{0, 1 << 32, 1 << 63, 0xffffffff << 32} {
		for _, low := range interesting {
			v := low | high
			list = append(list, [6]uint64{v, 0}, [6]uint64{0, v}, [6]uint64{v, v, v, v, v, v})
		}
	}
	return list
}

func simulate(t testing.TB, insns []seccomp.Instruction, abi seccomp.ABI, nr uint32, args [6]uint64) seccomp.Action {
	t.Helper()
	if abi == seccomp.X32 {
		nr |= 1 << 30
	}
	a, err := seccomp.Simulate(insns, seccomp.Data{Nr: int32(nr), Arch: abi.Audit(), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What the default profile denies that Docker's allows. All calls, arguments that matter, all capabilities one by one.
var deniedInAddition = map[string]bool{
	"ioctl":           true, // TIOCSTI, TIOCLINUX
	"i386 socketcall": true, // its arguments are in memory
}

// The profile never allows what Docker's does not, and what it does not allow in addition is known.
func TestSeccompDefaultIsStricter(t *testing.T) {
	moby := mobyProfile(t)
	found := map[string]bool{}
	for _, native := range []seccomp.ABI{seccomp.X86_64, seccomp.AARCH64} {
		sets := [][]string{nil, DefaultCapabilities(), AllCapabilities()}
		for _, c := range capabilityCalls {
			sets = append(sets, []string{c.capability})
		}
		for i, caps := range sets {
			facts := factsOf(native, caps...)
			ours := DefaultSeccompProfile()
			ours.ArchMap = moby.ArchMap
			a, b := compileFilter(t, ours, facts), compileFilter(t, moby, facts)
			vectors := argVectors()
			for _, abi := range append([]seccomp.ABI{native}, seccomp.Compatible(native)...) {
				for nr := range uint32(600) {
					name, known := seccomp.Name(abi, nr)
					some := vectors
					if i > 2 || !slices.Contains([]string{"ioctl", "socket", "clone", "personality"}, name) {
						some = vectors[:1]
					}
					for _, args := range some {
						got, theirs := simulate(t, a, abi, nr, args), simulate(t, b, abi, nr, args)
						switch {
						case got == theirs:
						case got == seccomp.Allow || theirs != seccomp.Allow:
							t.Fatalf("%s %s %d(%#x) with %v: %v, Docker's %v", abi, name, nr, args, caps, got, theirs)
						case !known:
							t.Fatalf("%s %d(%#x): %v, Docker's allows it", abi, nr, args, got)
						default:
							if name == "socketcall" && abi == seccomp.X86 {
								name = "i386 " + name
							}
							found[name] = true
						}
					}
				}
			}
		}
	}
	if !reflect.DeepEqual(found, deniedInAddition) {
		t.Errorf("denied in addition: %v\nwant %v", found, deniedInAddition)
	}
}

// Its length is on the path of each call. The numbers are what it is for no, the default and all capabilities.
func TestSeccompDefaultLength(t *testing.T) {
	want := map[seccomp.ABI][3]int{seccomp.X86_64: {76, 75, 51}, seccomp.AARCH64: {80, 79, 42}}
	for native, lengths := range want {
		for i, caps := range [][]string{nil, DefaultCapabilities(), AllCapabilities()} {
			if n := len(compileFilter(t, DefaultSeccompProfile(), factsOf(native, caps...))); n != lengths[i] || n > 140 {
				t.Errorf("%s, %d capabilities: %d instructions, want %d", native, len(caps), n, lengths[i])
			}
		}
	}
}

// What nobody without privilege needs, and what other ABIs would lead around.
func TestSeccompDefaultDenies(t *testing.T) {
	insns := compileFilter(t, DefaultSeccompProfile(), factsOf(seccomp.X86_64, DefaultCapabilities()...))
	const denied, missing = 1, 38
	for _, c := range []struct {
		name string
		args [6]uint64
		want seccomp.Action
	}{
		{"ioctl", [6]uint64{0, tiocsti}, seccomp.Errno(denied)},
		{"ioctl", [6]uint64{0, 1<<32 | tiocsti}, seccomp.Errno(denied)},
		{"ioctl", [6]uint64{0, 0xdead<<48 | tioclinux}, seccomp.Errno(denied)},
		{"ioctl", [6]uint64{tiocsti, 0x5401}, seccomp.Allow},
		{"socket", [6]uint64{afALG}, seccomp.Errno(denied)},
		{"socket", [6]uint64{1<<32 | afVSOCK}, seccomp.Errno(denied)},
		{"socket", [6]uint64{1}, seccomp.Allow},
		{"clone", [6]uint64{0x11}, seccomp.Allow},
		{"clone", [6]uint64{0x10000011}, seccomp.Errno(denied)},
		{"clone", [6]uint64{1<<32 | 0x20000}, seccomp.Errno(denied)},
		{"clone3", [6]uint64{}, seccomp.Errno(missing)},
	} {
		nr, ok := seccomp.Number(seccomp.X86_64, c.name)
		if got := simulate(t, insns, seccomp.X86_64, nr, c.args); !ok || got != c.want {
			t.Errorf("%s(%#x): %v, want %v", c.name, c.args, got, c.want)
		}
	}
	for _, name := range strings.Fields(`io_uring_setup io_uring_enter io_uring_register userfaultfd keyctl add_key request_key bpf perf_event_open
		fsopen fsmount fsconfig move_mount open_tree mount mount_setattr umount2 pivot_root unshare setns kexec_load init_module quotactl open_by_handle_at
		swapon acct reboot nfsservctl iopl ioperm syslog mbind kcmp process_madvise pidfd_getfd vhangup settimeofday`) {
		nr, ok := seccomp.Number(seccomp.X86_64, name)
		if got := simulate(t, insns, seccomp.X86_64, nr, [6]uint64{}); !ok || got != seccomp.Errno(denied) {
			t.Errorf("%s: %v", name, got)
		}
		if got := simulate(t, insns, seccomp.X86, nr, [6]uint64{}); got != seccomp.KillProcess {
			t.Errorf("%s of i386: %v", name, got)
		}
		if got := simulate(t, insns, seccomp.X32, nr, [6]uint64{}); got != seccomp.Errno(missing) {
			t.Errorf("%s of x32: %v", name, got)
		}
	}
	if got := simulate(t, insns, seccomp.X86_64, 9999, [6]uint64{}); got != seccomp.Errno(missing) {
		t.Errorf("a call that does not exist: %v", got)
	}
}

// Names are spelled as some architecture does, stand once, and each profile is the caller's own.
func TestSeccompDefaultNames(t *testing.T) {
	p := DefaultSeccompProfile()
	if list := p.Unknown(); len(list) > 0 {
		t.Errorf("unknown: %v", list)
	}
	if list := mobyProfile(t).Unknown(); len(list) > 0 {
		t.Errorf("unknown in Docker's: %v", list)
	}
	var seen []string
	for _, c := range defaultCalls {
		names := strings.Fields(c.names)
		if !slices.IsSorted(names) {
			t.Errorf("%s: not sorted", c.about)
		}
		seen = append(seen, names...)
	}
	slices.Sort(seen)
	for i := range seen[1:] {
		if seen[i] == seen[i+1] {
			t.Errorf("%s is there twice", seen[i])
		}
	}
	p.Syscalls[3].Names[0], p.Syscalls[0].Args[0].Value = "changed", 1
	if reflect.DeepEqual(DefaultSeccompProfile(), p) {
		t.Error("the next profile is changed, too")
	}
	p.Syscalls = append(p.Syscalls, SeccompRule{Names: []string{"opeanat", "s390_guarded_storage"}, Action: SeccompAllow})
	if got := p.Unknown(); !slices.Equal(got, []string{"changed", "opeanat"}) {
		t.Errorf("unknown: %v", got)
	}
}

func TestSeccompAllowDeny(t *testing.T) {
	p := DefaultSeccompProfile()
	p.Deny("ptrace", "socket")
	p.Allow("io_uring_setup", "ioctl")
	insns := compileFilter(t, p, factsOf(seccomp.X86_64))
	for name, want := range map[string]seccomp.Action{"ptrace": seccomp.Errno(1), "socket": seccomp.Errno(1), "io_uring_setup": seccomp.Allow, "ioctl": seccomp.Allow} {
		nr, _ := seccomp.Number(seccomp.X86_64, name)
		if got := simulate(t, insns, seccomp.X86_64, nr, [6]uint64{0, tiocsti}); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func ExampleSeccompProfile_Deny() {
	p := DefaultSeccompProfile()
	p.Deny("ptrace", "process_vm_readv", "process_vm_writev") // no debuggers
	p.Allow("io_uring_setup", "io_uring_enter", "io_uring_register")
	fmt.Println(p.Syscalls[0].Names[0], p.Syscalls[1].Names[0])
	// Output: io_uring_setup ptrace
}
