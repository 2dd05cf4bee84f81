//go:build linux

package container

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"example.com/container/internal/leak"
	"example.com/container/internal/seccomp"
	"golang.org/x/sys/unix"
)

// TestLandlockDetours reaches a TCP port by what Landlock does not see: protocols that speak TCP in the end, data that comes with the
// first packet, sockets that io_uring makes.
func TestLandlockDetours(t *testing.T) {
	needLandlock(t, 4)
	leak.Check(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go greet(l, "")
	restricted := landlockConfig(t, Landlock{RestrictTCP: true})
	restricted.Namespaces.NewNet = false
	attackerIn(t, restricted.Root.Dir)
	free := restricted
	free.Landlock = nil
	other := restricted // whose other rules are the user's
	other.Seccomp = DefaultSeccompProfile()
	kill := *other.Seccomp
	kill.DefaultAction = SeccompAllow
	kill.Syscalls = []SeccompRule{{Names: []string{"socket", "sendto"}, Action: SeccompAllow}, {Names: []string{"getppid"}, Action: SeccompErrno}}
	lax := restricted
	lax.Seccomp = &kill
	noPrivileges := restricted
	noPrivileges.NoNewPrivileges = false

	const denied = "connect permission denied\nmptcp4 protocol not supported\nmptcp6 protocol not supported\nsmc4 protocol not supported\nsmc address family not supported by protocol\n" +
		"sendto operation not supported\nsendto int operation not supported\nsendmsg operation not supported\nsendmmsg operation not supported\nio_uring function not implemented\n"
	attack := func() *Process {
		return &Process{Args: []string{"/attacker", fmt.Sprint(l.Addr().(*net.TCPAddr).Port)}, Env: []string{attackVar + "=landlock tcp"}}
	}
	for name, cfg := range map[string]Config{"alone": restricted, "beside the default profile": other, "before the user's rules": lax, "new privileges": noPrivileges} {
		t.Run(name, func(t *testing.T) {
			out, err := runIn(t, cfg, attack())
			if err != nil {
				t.Fatal(out, err)
			}
			wantText(t, out, denied)
		})
	}
	t.Run("Exec", func(t *testing.T) {
		c := execSleeper(t, restricted)
		var out bytes.Buffer
		p := attack()
		p.Stdout = &out
		if err := c.Exec(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		wantText(t, out.String(), denied)
	})
	out, err := runIn(t, free, attack())
	if err != nil {
		t.Fatal(out, err)
	}
	// The test shows something: without the rules these ways are open.
	for _, way := range []string{"connect <nil>", "mptcp4 <nil>", "sendto <nil>", "sendto int <nil>", "sendmsg <nil>", "sendmmsg <nil>"} {
		if !strings.Contains(out, way+"\n") {
			t.Errorf("%q is missing in %q", way, out)
		}
	}
}

// The same for all ABIs of a kernel; what is something else stays as it was.
func TestLandlockDetoursABI(t *testing.T) {
	const packet, inet, inet6 = unix.AF_PACKET, unix.AF_INET, unix.AF_INET6
	errno := func(e unix.Errno) seccomp.Action { return seccomp.Errno(uint16(e)) }
	for _, native := range []seccomp.ABI{seccomp.X86_64, seccomp.AARCH64} {
		p := &SeccompProfile{DefaultAction: SeccompAllow, Architectures: everyArchitecture, Syscalls: tcpDetours}
		insns := compileFilter(t, p, factsOf(native))
		for _, abi := range append([]seccomp.ABI{native}, seccomp.Compatible(native)...) {
			for _, row := range []struct {
				call string
				args [6]uint64
				want seccomp.Action
			}{
				{"socket", [6]uint64{inet, 1, 6}, seccomp.Allow},
				{"socket", [6]uint64{packet, 1, 262}, seccomp.Allow},
				{"socket", [6]uint64{inet, 1, 262}, errno(unix.EPROTONOSUPPORT)},
				{"socket", [6]uint64{inet6, 1, 256}, errno(unix.EPROTONOSUPPORT)},
				{"socket", [6]uint64{43, 1, 0}, errno(unix.EAFNOSUPPORT)},
				{"sendto", [6]uint64{3, 0, 0, unix.MSG_DONTWAIT}, seccomp.Allow},
				{"sendto", [6]uint64{3, 0, 0, unix.MSG_FASTOPEN | unix.MSG_DONTWAIT}, errno(unix.EOPNOTSUPP)},
				{"sendmsg", [6]uint64{3, 0, unix.MSG_FASTOPEN}, errno(unix.EOPNOTSUPP)},
				{"sendmmsg", [6]uint64{3, 0, 1, unix.MSG_FASTOPEN}, errno(unix.EOPNOTSUPP)},
				{"io_uring_setup", [6]uint64{}, errno(unix.ENOSYS)},
				{"socketcall", [6]uint64{1}, errno(unix.ENOSYS)},
				{"mount", [6]uint64{}, seccomp.Allow},
			} {
				nr, ok := seccomp.Number(abi, row.call)
				if !ok && (row.call != "socketcall" || abi == seccomp.X86) {
					t.Fatalf("%s has no %s", abi, row.call)
				}
				if got := simulate(t, insns, abi, nr, row.args); ok && got != row.want {
					t.Errorf("%s %s%v: %v, want %v", abi, row.call, row.args, got, row.want)
				}
			}
		}
	}
}

// landlockedTCP tries to reach a port.
func landlockedTCP(args []string) {
	var port int
	fmt.Sscan(args[0], &port)
	to := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	say := func(what string, err error) {
		var e syscall.Errno
		if errors.As(err, &e) {
			err = e
		}
		fmt.Println(what, err)
	}
	with := func(family, typ, protocol int, f func(fd int) error) error {
		fd, err := unix.Socket(family, typ, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return f(fd)
	}
	connect := func(fd int) error { return unix.Connect(fd, to) }
	say("connect", with(unix.AF_INET, unix.SOCK_STREAM, 0, connect))
	say("mptcp4", with(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, connect))
	say("mptcp6", with(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, func(int) error { return nil }))
	say("smc4", with(unix.AF_INET, unix.SOCK_STREAM, ipprotoSMC, connect))
	say("smc", with(unix.AF_SMC, unix.SOCK_STREAM, 0, connect))

	var raw unix.RawSockaddrInet4
	raw.Family, raw.Addr = unix.AF_INET, to.Addr
	raw.Port = uint16(port)<<8 | uint16(port)>>8
	hello := []byte("hello")
	send := func(flags uintptr) func(fd int) error {
		return func(fd int) error {
			_, _, e := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&hello[0])), uintptr(len(hello)), flags, uintptr(unsafe.Pointer(&raw)), unsafe.Sizeof(raw))
			return noErrno(e)
		}
	}
	say("sendto", with(unix.AF_INET, unix.SOCK_STREAM, 0, send(unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL)))
	say("sendto int", with(unix.AF_INET, unix.SOCK_STREAM, 0, send(unix.MSG_FASTOPEN|1<<40)))
	iov := unix.Iovec{Base: &hello[0]}
	iov.SetLen(len(hello))
	var msg struct {
		unix.Msghdr
		n uint32
		_ [4]byte
	}
	msg.Name, msg.Namelen = (*byte)(unsafe.Pointer(&raw)), uint32(unsafe.Sizeof(raw))
	msg.Iov = &iov
	msg.SetIovlen(1)
	say("sendmsg", with(unix.AF_INET, unix.SOCK_STREAM, 0, func(fd int) error {
		_, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_FASTOPEN)
		return noErrno(e)
	}))
	say("sendmmsg", with(unix.AF_INET, unix.SOCK_STREAM, 0, func(fd int) error {
		_, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 1, unix.MSG_FASTOPEN, 0, 0)
		return noErrno(e)
	}))
	var params [120]byte
	_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	say("io_uring", noErrno(e))
	os.Exit(0)
}

func noErrno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}
