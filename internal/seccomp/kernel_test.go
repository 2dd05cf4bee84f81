//go:build linux

package seccomp

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
)

// This file asks the kernel: programs are attached to threads of a process of its own, which end with their thread.

// childVar is set in that process, which is this test again.
const childVar = "CONTAINER_TEST_SECCOMP_CHILD"

// inChild runs a test in a process of its own, and returns true in that.
func inChild(t *testing.T) bool {
	t.Helper()
	testenv.Need(t, seccompFilters)
	if os.Getenv(childVar) != "" {
		return true
	}
	leak.Check(t)
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=2m", fmt.Sprintf("-seed=%d", *seed)}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	before := status(t)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), childVar+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "    ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if after := status(t); after != before {
		t.Errorf("this process has got a filter: %q before, %q after", before, after)
	}
	return false
}

// status returns what the kernel says about the filters of this process's first thread.
func status(t *testing.T) (lines string) {
	t.Helper()
	all, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if strings.HasPrefix(line, "Seccomp") {
			lines += line
		}
	}
	return lines
}

// seccompFilters requires a kernel that takes filters from this process.
var seccompFilters = testenv.Requirement{Name: "seccomp", Probe: func() error {
	action := uint32(KillProcess)
	const getActionAvailable = 2
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, getActionAvailable, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return errno
	}
	return nil
}}

// attach puts a program on this thread.
func attach(program []Instruction) error {
	prog := struct {
		count   uint16
		program *Instruction
	}{uint16(len(program)), unsafe.SliceData(program)}
	const setModeFilter = 1
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errno
	}
	return nil
}

// onThread calls f with a program on a thread, which ends then. It must not make calls that the program does not allow.
func onThread(program []Instruction, f func()) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = attach(program)
		}
		if err == nil && f != nil {
			f()
		}
		failed <- err
	}()
	return <-failed
}

// needed are the calls that the Go runtime makes on a thread, and does not live without.
var needed = strings.Fields(`
	read write close mmap mmap2 munmap mprotect madvise mincore futex futex_time64 rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack sched_yield
	sched_getaffinity clone clone3 exit exit_group nanosleep clock_nanosleep clock_gettime epoll_pwait epoll_wait epoll_ctl
	epoll_create1 eventfd2 pipe2 tgkill kill gettid getpid prctl seccomp set_robust_list rseq restart_syscall arch_prctl
	timer_create timer_settime timer_delete setitimer getrandom openat fcntl fcntl64 brk sigreturn clock_gettime64 membarrier prlimit64`)

// harmless are calls that need nothing and change nothing, whatever their arguments are.
var harmless = strings.Fields("getppid getuid geteuid getgid getegid sched_get_priority_max sched_get_priority_min")

// runnable makes a filter such that this process survives it, and sees what it does. The first table is that of the native ABI.
func (s source) runnable() *Filter {
	f, native := s.filter(), s.table(Native())
	for _, name := range harmless {
		if number, ok := Number(native.ABI, name); ok && s.IntN(4) > 0 {
			native.Rules[number] = s.rules()
		}
	}
	f.Tables = slices.DeleteFunc(f.Tables, func(t Table) bool { return t.ABI == native.ABI })
	f.Tables = slices.Insert(f.Tables, 0, native)
	for i := range f.Tables {
		t := &f.Tables[i]
		t.Default, t.Unknown = visible(t.Default), visible(t.Unknown)
		for _, rules := range t.Rules {
			for i := range rules {
				rules[i].Action = visible(rules[i].Action)
			}
		}
	}
	for _, name := range needed {
		if number, ok := Number(native.ABI, name); ok {
			native.Rules[number] = []Rule{{nil, Allow}}
		}
	}
	f.Foreign, f.NoX32 = visible(f.Foreign), visible(f.NoX32)
	return f
}

// visible turns actions into such that end nothing, most of them into error numbers that no call has.
func visible(a Action) Action {
	switch a {
	case Allow, Trace(7): // ENOSYS without a tracer
		return a
	case Log, Notify, Trap:
		return Allow
	}
	return Errno(200 + uint16(a>>16)%64 + uint16(a)%32)
}

// register is a value that an argument can have.
func (s source) register() uint64 { return uint64(uintptr(s.value())) }

// askable makes a call that does no harm if it is allowed.
func (s source) askable(f *Filter) Data {
	t := &f.Tables[0]
	d := Data{}
	for i := range d.Args {
		d.Args[i] = s.register()
	}
	number, _ := Number(t.ABI, pick(s, harmless))
	switch s.IntN(4) {
	case 0:
		number = pick(s, []uint32{500, 600, 1000, 1 << 20, x32Bit - 1, x32Bit, x32Bit + 500, 1<<31 - 1, 1 << 31, 1<<32 - 2})
	case 1, 2:
		for _, r := range t.Rules[number] {
			for _, c := range r.Cmps {
				d.Args[c.Arg] = c.Value + uint64(s.IntN(3)) - 1
				if s.IntN(3) == 0 {
					d.Args[c.Arg] ^= 1 << s.IntN(64)
				}
			}
		}
	}
	d.Nr, d.Arch = int32(number), t.ABI.Audit()
	return d
}

// maxErrno is the largest that the kernel returns.
const maxErrno = 4095

// ask makes a call, and returns its error number.
func ask(d Data) unix.Errno {
	r, _, errno := unix.RawSyscall6(uintptr(uint32(d.Nr)), uintptr(d.Args[0]), uintptr(d.Args[1]), uintptr(d.Args[2]),
		uintptr(d.Args[3]), uintptr(d.Args[4]), uintptr(d.Args[5]))
	if int(r) == -maxErrno {
		return maxErrno // which Go does not take for an error
	}
	return errno
}

// agrees tells whether a call went as the filter has it.
func agrees(want Action, unfiltered, got unix.Errno) bool {
	switch {
	case want == Allow:
		return got == unfiltered
	case want == Trace(7):
		return got == unix.ENOSYS
	}
	return want&^actionData == errno && got == unix.Errno(min(want&actionData, maxErrno))
}

// TestKernelFilters attaches random filters, and makes calls.
func TestKernelFilters(t *testing.T) {
	if !inChild(t) {
		return
	}
	const calls = 200
	filters, denied := 60, 0
	if testing.Short() {
		filters = 20
	}
	asked, unfiltered, got := make([]Data, calls), make([]unix.Errno, calls), make([]unix.Errno, calls)
	randomly(t, filters, func(t *testing.T, s source) {
		f := s.runnable()
		for i := range asked {
			asked[i] = s.askable(f)
			unfiltered[i] = ask(asked[i])
		}
		err := onThread(compiled(t, f), func() {
			for i, d := range asked {
				got[i] = ask(d)
			}
		})
		if err != nil {
			t.Errorf("%v\n%+v", err, f)
			return
		}
		for i, d := range asked {
			want := Evaluate(f, d)
			if !agrees(want, unfiltered[i], got[i]) {
				t.Errorf("%+v gives %d (%v), want %v; unfiltered %d", d, got[i], got[i], want, unfiltered[i])
			}
			if want != Allow {
				denied++
			}
		}
	})
	t.Logf("%d filters, %d calls, %d of them denied", filters, filters*calls, denied)
	if denied < filters*calls/10 || denied > filters*calls*9/10 {
		t.Error("these filters are not of many kinds")
	}
}

// TestKernelTakesAll attaches compiled filters. That is all that can be done with most of them: they kill.
func TestKernelTakesAll(t *testing.T) {
	if !inChild(t) {
		return
	}
	total := 0
	randomly(t, 200, func(t *testing.T, s source) {
		program := compiled(t, s.filter())
		total += len(program)
		if err := takes(program); err != nil {
			t.Errorf("%v\n%s", err, Disassemble(program))
		}
	})
	t.Logf("%d instructions on average", total/200)
	full := fullProgram(t, Native())
	if err := onThread(full, func() {
		if got := ask(call(Native(), 600, 3001)); got != 2 {
			t.Errorf("%v, want 2", got)
		}
	}); err != nil {
		t.Errorf("%d instructions: %v", len(full), err)
	}
	if err := onThread(append(full, full[len(full)-1]), nil); err != unix.EINVAL {
		t.Errorf("%d instructions: %v", len(full)+1, err)
	}
}

// takes asks the kernel whether it would take a program, with a thread that makes no call after that.
func takes(program []Instruction) error {
	// The other calls of the thread are let through: the kernel checks what is behind that all the same.
	through := []Instruction{{Code: loadWord, K: uint32(wordArch)}, {Code: jumpEqual, K: 0, Jt: 1}, {Code: returnValue, K: uint32(Allow)}}
	if len(program)+len(through) <= MaxInstructions {
		program = append(through, program...)
	}
	return onThread(program, nil)
}

// TestKernelTruncatesFamilies shows why Low is there: the kernel takes the lower half of socket's arguments.
func TestKernelTruncatesFamilies(t *testing.T) {
	family := uint64(1<<32 | unix.AF_UNIX)
	fd, _, errno := unix.Syscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer unix.Close(int(fd))
	if sa, err := unix.Getsockname(int(fd)); err != nil {
		t.Error(err)
	} else if _, ok := sa.(*unix.SockaddrUnix); !ok {
		t.Errorf("a socket of %T", sa)
	}
}

// TestKernelDefault attaches a filter of the usual kind to a thread that goes on working.
func TestKernelDefault(t *testing.T) {
	if !inChild(t) {
		return
	}
	program := compiled(t, defaultFilter(append([]ABI{Native()}, Compatible(Native())...)...))
	var worked time.Duration
	err := onThread(program, func() {
		for call, want := range map[uint32]unix.Errno{unix.SYS_GETPPID: 0, 600: enosys, unix.SYS_KEYCTL: eperm, unix.SYS_CLONE3: enosys} {
			if got := ask(Data{Nr: int32(call)}); got != want {
				t.Errorf("%d gives %v, want %v", call, got, want)
			}
		}
		for family, want := range map[uint64]unix.Errno{unix.AF_VSOCK: eperm, unix.AF_ALG: eperm, 1<<32 | unix.AF_VSOCK: eperm, 1 << 31: unix.EAFNOSUPPORT} {
			if got := ask(Data{Nr: unix.SYS_SOCKET, Args: [6]uint64{family}}); got != want {
				t.Errorf("socket(%#x) gives %v, want %v", family, got, want)
			}
		}
		start := time.Now()
		if _, err := os.ReadFile("/proc/self/status"); err != nil {
			t.Error(err)
		}
		worked = time.Since(start)
	})
	if err != nil || worked == 0 {
		t.Error(err)
	}
}
