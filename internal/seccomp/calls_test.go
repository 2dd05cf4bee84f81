package seccomp

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"

	"example.com/container/internal/testenv"
)

// This file compares the tables with those of others.

func TestNumbers(t *testing.T) {
	for _, abi := range allABIs {
		c, last := abi.calls(), int64(-1)
		for i, number := range c.numbers {
			name, ok := Name(abi, number|abi.bit())
			if back, known := Number(abi, name); !ok || !known || back != number || name != c.names[i] {
				t.Errorf("%s: %d is %q, which is %d", abi, number, name, back)
			}
			if int64(number) <= last || number >= x32Bit {
				t.Errorf("%s: %d after %d", abi, number, last)
			}
			last = int64(number)
		}
		if len(c.numbers) < 300 {
			t.Errorf("%s has %d calls", abi, len(c.numbers))
		}
	}
	for _, known := range []struct {
		abi    ABI
		name   string
		number uint32
	}{
		{X86_64, "read", 0}, {X86_64, "socket", 41}, {X86_64, "sendfile", 40}, {X86_64, "clone3", 435}, {X86_64, "listns", 470},
		{X86, "socketcall", 102}, {X86, "execve", 11}, {X86, "clock_gettime64", 403},
		{X32, "execve", 520}, {X32, "ioctl", 514}, {X32, "read", 0}, {X32, "clone3", 435}, {X32, "rseq_slice_yield", 471},
		{AARCH64, "newfstatat", 79}, {AARCH64, "execve", 221}, {AARCH64, "rseq_slice_yield", 471},
		{ARM, "set_tls", 0xf0005}, {ARM, "cacheflush", 0xf0002}, {ARM, "sync_file_range2", 341}, {ARM, "arm_sync_file_range", 341},
	} {
		if number, ok := Number(known.abi, known.name); !ok || number != known.number {
			t.Errorf("%s: %s is %d, %t", known.abi, known.name, number, ok)
		}
	}
}

func TestUnknownCalls(t *testing.T) {
	for abi, names := range map[ABI][]string{
		X86_64: {"", "socketcall", "clock_gettime64", "READ", "0", "read "}, X32: {"uselib", "_sysctl"},
		AARCH64: {"open", "clock_gettime64", "arch_specific_syscall"}, ARM: {"syscall_mask"}, "": {"read"}, "S390X": {"read"},
	} {
		for _, name := range names {
			if number, ok := Number(abi, name); ok {
				t.Errorf("%s: %q is %d", abi, name, number)
			}
		}
	}
	for abi, numbers := range map[ABI][]uint32{
		X86_64: {340, 512, 547, x32Bit, 1<<32 - 1}, X32: {13, 16, 59}, AARCH64: {244, 403}, ARM: {7, 0xf0000}, "": {0}, "S390X": {0},
	} {
		for _, number := range numbers {
			if name, ok := Name(abi, number); ok {
				t.Errorf("%s: %d is %s", abi, number, name)
			}
		}
	}
}

// TestNumbersOfSeccompBPF compares the tables with those of go-seccomp-bpf, but for what is wrong there.
func TestNumbersOfSeccompBPF(t *testing.T) {
	for abi, info := range map[ABI]*arch.Info{X86_64: arch.X86_64, X86: arch.I386, X32: arch.X32, AARCH64: arch.AARCH64, ARM: arch.ARM} {
		if uint32(info.ID) != abi.Audit() {
			t.Errorf("%s: AUDIT_ARCH is %#x, there %#x", abi, abi.Audit(), uint32(info.ID))
		}
		for number, theirs := range info.SyscallNumbers {
			ours, ok := Name(abi, uint32(number))
			switch {
			case ours == theirs:
			case abi == AARCH64 && number == 79 && ours == "newfstatat":
			case abi == AARCH64 && (number >= 403 && number < 424 || number == 244) && !ok: // of 32-bit ABIs, and no call
			case abi == X32 && number < 512 && !ok && !sameOnX32(theirs):
			default:
				t.Errorf("%s: %d is %q, there %q", abi, number, ours, theirs)
			}
		}
	}
}

// sameOnX32 tells whether X32 has a call by the number of X86_64.
func sameOnX32(name string) bool {
	number, ok := Number(X32, name)
	return ok && number < 512
}

// TestNumbersOfSys compares the tables with the constants of golang.org/x/sys.
func TestNumbersOfSys(t *testing.T) {
	for abi, goarch := range map[ABI]string{X86_64: "amd64", X86: "386", AARCH64: "arm64", ARM: "arm"} {
		code, err := os.ReadFile(filepath.Join(sysDirectory(t), "zsysnum_linux_"+goarch+".go"))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, m := range regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*= (\d+)$`).FindAllStringSubmatch(string(code), -1) {
			name, theirs := strings.ToLower(m[1]), m[2]
			if name == "syscall_mask" || name == "arch_specific_syscall" {
				continue // no calls
			}
			found++
			if number, ok := Number(abi, name); !ok || strconv.Itoa(int(number)) != theirs {
				t.Errorf("%s: %s is %d, there %s", abi, name, number, theirs)
			}
		}
		if found < 300 {
			t.Errorf("%s: only %d found there", abi, found)
		}
	}
}

// TestNumbersOfHeaders compares the tables with the kernel's headers on this machine, which may be older.
func TestNumbersOfHeaders(t *testing.T) {
	found := 0
	for abi, name := range map[ABI]string{X86_64: "unistd_64.h", X86: "unistd_32.h", X32: "unistd_x32.h"} {
		header, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/" + name)
		if err != nil {
			continue
		}
		found++
		newest, theirs := uint64(0), map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^#define __NR_(\w+) \(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?$`).FindAllStringSubmatch(string(header), -1) {
			number, _ := strconv.ParseUint(m[2], 10, 32)
			newest, theirs[m[1]] = max(newest, number), true
			if ours, ok := Number(abi, m[1]); !ok || uint64(ours) != number {
				t.Errorf("%s: %s is %d, there %d", abi, m[1], ours, number)
			}
		}
		if abi == X32 {
			newest = 0 // the numbers of its own are the highest
		}
		for i, number := range abi.calls().numbers {
			if name := abi.calls().names[i]; uint64(number) <= newest && !theirs[name] && name != "uretprobe" && name != "uprobe" {
				t.Errorf("%s: %s is not there", abi, name)
			}
		}
	}
	if found == 0 {
		t.Skip("needs the kernel's headers for x86")
	}
}

// TestGenerated sees that the tables are what the generator makes.
func TestGenerated(t *testing.T) {
	cmd := exec.Command("go", "run", "mktables/main.go", sysDirectory(t))
	cmd.Stderr = os.Stderr
	made, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if there, err := os.ReadFile("zcalls.go"); err != nil || !bytes.Equal(made, there) {
		t.Errorf("%v; zcalls.go is out of date: go generate ./internal/seccomp", err)
	}
}

// sysDirectory returns where the sources of golang.org/x/sys/unix are.
func sysDirectory(t *testing.T) string {
	t.Helper()
	testenv.Need(t, testenv.Program("go", "golang"))
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "unix")
}
