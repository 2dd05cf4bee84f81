//go:build linux

package launch

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Each call is there once, with what is known of it, and so are those of a report.
func TestPatterns(t *testing.T) {
	p := New(0)
	p.Call(unix.SYS_GETPID)
	from := p.Len()
	pid := p.Call(unix.SYS_GETPPID).Result()
	p.Sub(pid, 1)
	p.Call(unix.SYS_KILL, pid, 9)
	p.Call(unix.SYS_KILL, pid, 9)
	p.Call(unix.SYS_KILL, pid, 0)
	to := p.Len()
	p.Call(unix.SYS_SETSID)
	want := []CallPattern{
		{Nr: unix.SYS_GETPPID, Known: 0x3f},
		{Nr: unix.SYS_KILL, Known: 0x3e, Args: [6]int64{1: 9}},
		{Nr: unix.SYS_KILL, Known: 0x3e},
		{Nr: unix.SYS_WRITE, Known: 0x3f, Args: [6]int64{int64(p.SocketFD()), failAddr, messageSize}},
		{Nr: unix.SYS_EXIT_GROUP, Known: 0x3f, Args: [6]int64{ExitFailed}},
	}
	if got := p.Patterns(from, to); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := p.Patterns(to, p.Len()); len(got) != 3 || got[0].Nr != unix.SYS_SETSID {
		t.Errorf("got %+v", got)
	}
}

// A buffer is filled when what goes in is known, and the listing tells the length of a filter.
func TestFill(t *testing.T) {
	p := New(0)
	prog := p.Zero(16)
	p.Call(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, prog)
	p.Fill(prog, 7, p.Bytes(make([]byte, 56)))
	if s := p.String(); !strings.Contains(s, ") of 7 instructions\n") {
		t.Error(s)
	}
}
