//go:build linux

package container

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// TestSeccompAudit records what a script needs beyond a profile, and runs it with the profile that comes of that.
func TestSeccompAudit(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	profile := askAbout()
	profile.Syscalls = []SeccompRule{
		{Names: []string{"sethostname"}, Action: SeccompErrno},
		{Names: []string{"umask"}, Action: SeccompErrno, Args: []SeccompArg{{Index: 0, Value: 0o27, Op: SeccompEqual}}},
		{Names: []string{"symlink", "symlinkat"}, Action: SeccompErrno, Errno: new(uint(unix.ENOSYS))},
	}
	const script = `hostname n 2>/dev/null; hostname n 2>/dev/null # no capability, so it fails in any case
		 umask 27; umask; umask 22; umask; ln -s a /tmp/l 2>/dev/null || echo no link; hostname`
	cfg.Seccomp = profile
	denied := sh(t, cfg, script)
	var recorder *SeccompRecorder
	cfg.Seccomp, recorder = profile.Audit()
	cfg.SeccompNotify = recorder.Handle
	audited := sh(t, cfg, script)
	if want := "0027\n0022\nno link\ncontainer"; audited != want || denied == want {
		t.Errorf("audited %q, denied %q", audited, denied)
	}
	var list []string
	for _, c := range recorder.Calls() {
		list = append(list, fmt.Sprint(c, " ", c.Programs, " ", c.Count > 0))
	}
	if !slices.Contains(list, "sethostname() [hostname] true") || !slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, "umask(arg0=0x17) [sh]") }) || len(list) != 2 {
		t.Errorf("recorded %q", list)
	}
	cfg.Seccomp, cfg.SeccompNotify = recorder.Profile(), nil
	if got := sh(t, cfg, script); got != audited {
		t.Errorf("with the recorded profile %q", got)
	}
	cfg.Seccomp, recorder = DefaultSeccompProfile().Audit()
	cfg.SeccompNotify = recorder.Handle
	sh(t, cfg, "unshare -U true; cat /proc/self/status")
	if calls := recorder.Calls(); len(calls) != 1 || calls[0].Name != "unshare" {
		t.Errorf("recorded %+v", calls)
	}
}

func ExampleSeccompHandler() {
	cfg := DefaultConfig()
	cfg.Seccomp = DefaultSeccompProfile()
	// Programs may think that they have made device nodes, as package managers do.
	cfg.Seccomp.Syscalls = append([]SeccompRule{{Names: []string{"mknod", "mknodat"}, Action: SeccompNotify}}, cfg.Seccomp.Syscalls...)
	cfg.SeccompNotify = func(ctx context.Context, call *SeccompCall) SeccompAnswer {
		mode := call.Args[1]
		if call.Name == "mknodat" {
			mode = call.Args[2]
		}
		switch mode & unix.S_IFMT {
		case unix.S_IFCHR, unix.S_IFBLK:
			return SeccompAnswer{} // success, and nothing has happened
		}
		return SeccompAnswer{Continue: true} // a FIFO; the number is in a register, which nobody can change meanwhile
	}
	_ = cfg
}
