//go:build linux

// Package guest runs a command on a stock kernel of Debian, in an emulated machine: for tests that
// need another kernel than the host's, all controllers of cgroup v2, systemd, or AppArmor.
//
//	g := guest.Guest{Kernel: "6.1", Files: dir, Command: "./x.test -test.v", Output: os.Stdout}
//	status, err := g.Run(ctx)
//
// The guest's disk is made once, of Debian's packages, and kept in a cache directory; see Build.
// What a guest writes to it goes with the guest. The guest has no network device.
//
// Where KVM works it is used. Otherwise qemu emulates the processor, and a program that does
// little but system calls takes some 5 times as long as on the host, one that starts others 20 to
// 50 times.
package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Guest says what runs in which guest. The zero value boots Linux 6.1, runs nothing and succeeds.
type Guest struct {
	// Kernel is the series of the kernel, one of Kernels. If empty, it is the first of them.
	Kernel string

	// Systemd makes systemd process 1, with a user manager for the user tester. If false, a small
	// script is process 1; such a guest boots in a third of the time.
	Systemd bool

	// SELinux makes SELinux enforce Debian's policy, with files/container.cil, in place of AppArmor. All runs as kernel_t,
	// and no file has a label. Not with Systemd.
	SELinux bool

	// Memory is the size of the guest's memory in MiB. If 0, it is 2048.
	Memory int

	// Append is added to the kernel's command line.
	Append string

	// Files is a directory that is copied to /vm, where the command runs. If empty, /vm has nothing
	// but the programs of this package.
	Files string

	// Command is a line for bash, run by root. "as tester COMMAND" in it runs a command as the
	// ordinary user tester with subordinate ids, in a cgroup that is delegated to it; "as session
	// COMMAND" runs it in a plain session of that user, which only a guest with Systemd has. Both
	// keep the variables of the environment whose names start with CONTAINER_.
	Command string

	// Output gets what the command writes to its standard output and error, as it writes it. If
	// nil, it is discarded.
	Output io.Writer

	// Out is an existing directory for what the command has left in /vm/out. If empty, that is
	// discarded. Only directories and regular files come back, 1 GiB at most.
	Out string
}

// Kernels lists the series of kernels that there are guests for.
func Kernels() []string {
	var series []string
	for _, k := range kernels {
		series = append(series, k.series)
	}
	return series
}

// The kernels, and the package of Debian that depends on the newest one of the series.
var kernels = []struct{ series, pkg string }{
	{"6.1", "linux-image-cloud-amd64"},
	{"6.12", "linux-image-6.12-cloud-amd64"},
}

// Needed are the programs that this package uses, and the packages of Debian that have them.
var needed = []struct{ program, pkg string }{
	{"qemu-system-x86_64", "qemu-system-x86"},
	{"mmdebstrap", "mmdebstrap"},
	{"mkfs.ext4", "e2fsprogs"},
	{"unshare", "util-linux"},
	{"tar", "tar"},
}

// Missing returns an error that says what this machine lacks for a guest, and how to get it.
func Missing() error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("guests are amd64, this is %s", runtime.GOARCH)
	}
	var programs, packages []string
	for _, n := range needed {
		if lookPath(n.program) == "" {
			programs, packages = append(programs, n.program), append(packages, n.pkg)
		}
	}
	if len(programs) > 0 {
		return fmt.Errorf("there is no program %s (apt-get install %s)",
			strings.Join(programs, ", "), strings.Join(packages, " "))
	}
	return nil
}

// searchPath is PATH and the directories for administrators, which an ordinary user's often lacks.
func searchPath() string { return os.Getenv("PATH") + ":/usr/sbin:/sbin" }

func lookPath(program string) string {
	for _, dir := range filepath.SplitList(searchPath()) {
		path := filepath.Join(dir, program)
		if fi, err := os.Stat(path); err == nil && filepath.IsAbs(dir) && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// complete returns the guest with the defaults in place of what is zero.
func (g Guest) complete() (Guest, error) {
	if g.Kernel == "" {
		g.Kernel = kernels[0].series
	}
	if !slices.Contains(Kernels(), g.Kernel) {
		return g, fmt.Errorf("guest: no kernel %q; there are %q", g.Kernel, Kernels())
	}
	if g.SELinux && g.Systemd {
		return g, errors.New("guest: SELinux is without Systemd only")
	}
	if g.Memory == 0 {
		g.Memory = 2048
	}
	if g.Output == nil {
		g.Output = io.Discard
	}
	return g, nil
}

// command makes a command that finds its programs in searchPath.
func command(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "PATH="+searchPath())
	if path := lookPath(cmd.Args[0]); path != "" {
		cmd.Path, cmd.Err = path, nil
	}
	return cmd
}
