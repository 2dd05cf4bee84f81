//go:build linux

package container

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/container/internal/seccomp"
	"example.com/container/internal/testenv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// This file compares filters with those of libseccomp, through runc, errno for errno.

// seccompProbeVar is attackVar for the probe, which makes all calls and prints their errors.
const seccompProbeVar = "CONTAINER_TEST_SECCOMP_PROBE"

func init() {
	if os.Getenv(seccompProbeVar) != "" {
		seccompProbe()
		os.Exit(0)
	}
}

// probeSkips are calls that end, stop or confuse the one who makes them, whatever the arguments.
var probeSkips = []uint64{
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_PAUSE, unix.SYS_RT_SIGRETURN, unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_RT_SIGSUSPEND,
	unix.SYS_UMASK, unix.SYS_BRK, unix.SYS_SET_TID_ADDRESS, unix.SYS_VHANGUP, unix.SYS_SYNC, 335, 336, // uretprobe, uprobe
}

// seccompProbe makes each call with arguments that are no good, so that nothing comes of it: where the filter lets it through, the error is the
// kernel's. Some are made with arguments that rules are about, too.
func seccompProbe() {
	runtime.LockOSThread()
	const none = ^uintptr(0)
	var out bytes.Buffer
	try := func(nr uint64, args ...uintptr) {
		a := [6]uintptr{none, none, none, none, none, none}
		copy(a[:], args)
		_, _, err := syscall.RawSyscall6(uintptr(nr), a[0], a[1], a[2], a[3], a[4], a[5])
		fmt.Fprintf(&out, "%d %x %d\n", nr, args, int(err))
	}
	for nr := uint64(0); nr < 600; nr++ {
		if !slices.Contains(probeSkips, nr) {
			try(nr)
		}
	}
	for _, value := range []uintptr{0, 5, 8, 16, 17, 37, 38, 39, 40, 41, 0x1f, 0x20000, 0x20008, 0xffffffff, 0x7e020000} {
		for _, nr := range []uint64{unix.SYS_SOCKET, unix.SYS_PERSONALITY, unix.SYS_DUP2, unix.SYS_LSEEK, unix.SYS_FCHMOD} {
			try(nr, value)
			try(nr, none, value)
			try(nr, none, none, value)
			try(nr, value, value, value)
		}
	}
	os.Stdout.Write(out.Bytes())
}

// oracleProfiles are what is compared. Numbers of errors that the kernel has not tell which rule it was.
func oracleProfiles(t *testing.T) map[string]*SeccompProfile {
	arg := func(index uint, op SeccompOp, value, two uint64) SeccompArg { return SeccompArg{index, value, two, op} }
	rule := func(errno uint, args []SeccompArg, names ...string) SeccompRule {
		return SeccompRule{Names: names, Action: SeccompErrno, Errno: new(errno), Args: args}
	}
	allow := func(args []SeccompArg, names ...string) SeccompRule {
		return SeccompRule{Names: names, Action: SeccompAllow, Args: args}
	}
	all := []SeccompArg(nil)
	return map[string]*SeccompProfile{
		"Docker's": mobyProfile(t),
		"errors by argument": {DefaultAction: SeccompAllow, Syscalls: []SeccompRule{
			rule(501, []SeccompArg{arg(0, SeccompEqual, 5, 0)}, "dup2"),
			rule(502, []SeccompArg{arg(1, SeccompMaskedEqual, 0x1f, 0x10)}, "fchmod"),
			rule(503, []SeccompArg{arg(0, SeccompGreater, 0x20000, 0), arg(2, SeccompLessOrEqual, 40, 0)}, "lseek"),
			rule(504, all, "getpid", "mkdir", "personality"),
		}},
		"either of two": {DefaultAction: SeccompAllow, Syscalls: []SeccompRule{
			rule(505, []SeccompArg{arg(0, SeccompEqual, 5, 0), arg(0, SeccompEqual, 8, 0), arg(1, SeccompEqual, 16, 0)}, "dup2"),
			rule(506, []SeccompArg{arg(2, SeccompLess, 38, 0)}, "lseek"),
			rule(507, []SeccompArg{arg(2, SeccompGreaterOrEqual, 41, 0), arg(0, SeccompNotEqual, 0, 0)}, "fchmod"),
		}},
		"allowed by argument": {DefaultAction: SeccompErrno, DefaultErrno: new(uint(508)), Syscalls: append(slices.DeleteFunc(mobyProfile(t).Syscalls, func(r SeccompRule) bool {
			return len(r.Args) > 0 || r.Includes != nil || r.Excludes != nil
		}), allow([]SeccompArg{arg(0, SeccompMaskedEqual, 0x20, 0x20)}, "personality"), allow([]SeccompArg{arg(0, SeccompLess, 17, 0)}, "socket"),
			allow(nil, "clone", "clone3", "arch_prctl", "process_vm_readv"))},
	}
}

// oracleDiffers are calls that others answer in another way, and why.
func oracleDiffers(nr uint64, line string) bool {
	_, known := seccomp.Name(seccomp.X86_64, uint32(nr))
	// Numbers that are nobody's: for runc only those after the last of the profile are unknown, for crun none.
	// Numbers from 449 on: libseccomp 2.5.4 does not know the names, and passes the rules over.
	// The personality is an int, of which libseccomp compares an upper half that the kernel does not look at.
	return !known || nr > 448 || strings.HasPrefix(line, "135 [ffffffffffffffff") || strings.HasPrefix(line, "135 []")
}

func TestSeccompOracle(t *testing.T) {
	testenv.Need(t, testenv.Root)
	if seccomp.Native() != seccomp.X86_64 {
		t.Skip("makes calls of amd64")
	}
	root := busyboxRoot(t)
	attackerIn(t, root)
	for name, profile := range oracleProfiles(t) {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Root, cfg.Namespaces.NewUser, cfg.Seccomp, cfg.Mounts = Directory(root), false, profile, DefaultMounts()[:1]
			cfg.Namespaces.NewCgroup = false
			p := &Process{Args: []string{"/attacker"}, Env: []string{seccompProbeVar + "=1"}}
			spec, err := ToSpec(cfg, p)
			if err != nil {
				t.Fatal(err)
			}
			spec.Version = "1.0.2" // of these programs
			ours := oracleOurs(t, spec)
			for _, program := range []string{"runc"} {
				testenv.Need(t, testenv.Program(program, program))
				theirs := oracleTheirs(t, program, spec)
				if len(ours) != len(theirs) || len(ours) < 500 {
					t.Fatalf("%s: %d calls, ours %d", program, len(theirs), len(ours))
				}
				passed, compared := 0, 0
				for i := range ours {
					var nr uint64
					fmt.Sscan(ours[i], &nr)
					if oracleDiffers(nr, ours[i]) {
						passed++
						continue
					}
					compared++
					if ours[i] != theirs[i] {
						call, _ := seccomp.Name(seccomp.X86_64, uint32(nr))
						t.Errorf("%s: %s, %s: %s", call, ours[i], program, theirs[i])
					}
				}
				t.Logf("%s: %d calls are alike, %d are not compared", program, compared, passed)
			}
		})
	}
}

func oracleOurs(t *testing.T, spec *specs.Spec) []string {
	t.Helper()
	cfg, p, err := FromSpec(spec, "/")
	if err != nil {
		t.Fatal(err)
	}
	p.Stdin = oracleInput(t)
	out, err := runIn(t, cfg, p)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(out), "\n")
}

// oracleInput is the standard input, of which the calls may change what they like: the same with all runtimes, and nobody's.
func oracleInput(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}

func oracleTheirs(t *testing.T, program string, spec *specs.Spec) []string {
	t.Helper()
	bundle := t.TempDir()
	text, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--root", t.TempDir()}
	if program == "crun" {
		args = append(args, "--cgroup-manager=disabled") // which it cannot do on a hybrid host
	}
	args = append(args, "run", "-b", bundle, fmt.Sprintf("oracle-%d", os.Getpid()))
	cmd := exec.Command(testenv.LookPath(program), args...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = oracleInput(t), &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, &errs)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}
