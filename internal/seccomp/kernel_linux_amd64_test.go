package seccomp

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/container/internal/testenv"
)

// This file makes calls of X86 from a program of 64 bits, by int 0x80.

// x86Emulation requires a kernel that takes them. Another one ends the process for such a call.
var x86Emulation = testenv.Requirement{Name: "x86", Probe: func() error {
	line, err := os.ReadFile("/proc/cmdline")
	if err == nil && strings.Contains(string(line), "ia32_emulation=") {
		return unix.ENOSYS
	}
	_, err = os.Stat("/proc/sys/abi/vsyscall32") // comes with CONFIG_IA32_EMULATION
	return err
}}

// int80 is code that loads the number and six arguments from an array whose address is in rax, as Go passes it, and stores
// the result behind them.
var int80 = []byte{
	0x55,                   // push rbp
	0x50,                   // push rax
	0x48, 0x8b, 0x58, 0x08, // mov rbx, [rax+8]
	0x48, 0x8b, 0x48, 0x10, // mov rcx, [rax+16]
	0x48, 0x8b, 0x50, 0x18, // mov rdx, [rax+24]
	0x48, 0x8b, 0x70, 0x20, // mov rsi, [rax+32]
	0x48, 0x8b, 0x78, 0x28, // mov rdi, [rax+40]
	0x48, 0x8b, 0x68, 0x30, // mov rbp, [rax+48]
	0x48, 0x8b, 0x00, //       mov rax, [rax]
	0xcd, 0x80, //             int 0x80
	0x59,                   // pop rcx
	0x48, 0x89, 0x41, 0x38, // mov [rcx+56], rax
	0x5d, //                   pop rbp
	0xc3, //                   ret
}

// int80Caller makes that code callable.
func int80Caller(t *testing.T) func(registers *[8]uint64) {
	page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	copy(page, int80)
	if err := unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		t.Fatal(err)
	}
	entry := &struct{ code *byte }{&page[0]} // what a func value points to
	return *(*func(*[8]uint64))(unsafe.Pointer(&entry))
}

// TestKernelX86 makes calls of X86 with whole registers: they are filtered by what the call sees of them.
func TestKernelX86(t *testing.T) {
	testenv.Need(t, x86Emulation)
	if !inChild(t) {
		return
	}
	int80 := int80Caller(t)
	getppid, _ := Number(X86, "getppid")
	f := defaultFilter(X86_64, X86)
	f.Tables[1].Rules[getppid] = []Rule{
		{[]Cmp{whole(0, EQ, 0x5412)}, Errno(201)},
		{[]Cmp{whole(1, GT, 40)}, Errno(202)},
		{[]Cmp{whole(5, NE, 0)}, Errno(203)},
		{[]Cmp{whole(2, EQ, 1<<32)}, Errno(204)}, // never
		{nil, Errno(205)},
	}
	for _, test := range []struct {
		number uint64
		args   [6]uint64
		want   int32
	}{
		{uint64(getppid), [6]uint64{0x5412}, -201},
		{uint64(getppid), [6]uint64{0x5412 | 1<<32}, -201},
		{uint64(getppid), [6]uint64{0x5413, 41}, -202},
		{uint64(getppid), [6]uint64{0x5413, 1 << 32}, -205},
		{uint64(getppid), [6]uint64{0, 0, 0, 0, 0, 1}, -203},
		{uint64(getppid), [6]uint64{0, 0, 1 << 32, 0, 0, 1 << 32}, -205},
		{uint64(getppid) | 1<<32, [6]uint64{}, -205},
		{600, [6]uint64{}, -enosys},
		{x32Bit | 600, [6]uint64{}, -enosys},
		{39, [6]uint64{}, -14}, // mkdir: not getpid, as on X86_64; EFAULT
		{1<<32 - 1, [6]uint64{}, -enosys},
		{288, [6]uint64{}, -eperm}, // keyctl, which is another call on X86_64
	} {
		got := int32(0)
		err := onThread(compiled(t, f), func() {
			registers := &[8]uint64{test.number, test.args[0], test.args[1], test.args[2], test.args[3], test.args[4], test.args[5]}
			int80(registers)
			got = int32(registers[7])
		})
		if err != nil || got != test.want {
			t.Errorf("%d%#x: %v; gives %d, want %d", test.number, test.args, err, got, test.want)
		}
	}
}
