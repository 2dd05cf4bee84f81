package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// This file finds out what this host and this user can do, and says how to mend what they cannot.
// It runs in the caller's process. Features are found by using them: most of them in a child in
// new namespaces (check_probe.go), which end with it. Nothing stays behind, and nothing is changed.

// Check tells what this host and this user can do for containers, before anything is tried: one result a
// line, each with the remedy. It starts a few processes that live for some milliseconds.
// What containers of the caller will meet may still differ from it, where a container asks for less, or
// for more.
func Check() []CheckResult {
	h := newHost()
	var results []CheckResult
	for _, c := range hostChecks {
		r := c.check(h)
		r.Name = c.name
		results = append(results, r)
	}
	return results
}

// hostChecks are all checks, in the order in which one needs the other.
var hostChecks = []struct {
	name  string
	check func(*host) CheckResult
}{
	{"kernel", checkKernel},
	{"user namespaces", checkUserNamespaces},
	{"other namespaces", checkOtherNamespaces},
	{"subordinate ids", checkSubordinateIDs},
	{"newuidmap and newgidmap", checkMapHelpers},
	{"mounts", checkMountCalls},
	{"new /proc", checkProc},
	{"new /sys", checkSys},
	{"overlay", checkOverlay},
	{"changes kept in memory", checkTmpfsXattr},
	{"seccomp", checkSeccomp},
	{"executable memory", checkMemfd},
	{"cgroup v2", checkCgroup},
	{"systemd", checkSystemd},
	{"place of cgroups", checkCgroupPlace},
	{"birth in a cgroup", checkCgroupBirth},
	{"cgroup controllers", checkCgroupControllers},
}

// host is what the checks look at: the answers of the probe, and files of /proc and /etc.
type host struct {
	probe    probe // in new namespaces
	userErr  error // why there is no user namespace; the probe then is one of root without
	byCaller bool  // a user namespace works only if the caller's own program makes it, not the launcher
	cgroup   ownCgroup
	cgroups  cgroupHost
	euid     int
}

func newHost() *host {
	h := &host{euid: os.Geteuid(), cgroup: findOwnCgroup(), cgroups: findCgroupHost()}
	h.probe = runProbe(userByLauncher)
	if h.userErr = h.probe.userErr(); h.userErr == nil {
		return h
	}
	if p := runProbe(userByCaller); p.userErr() == nil {
		h.probe, h.userErr, h.byCaller = p, nil, true
		return h
	}
	if h.euid == 0 {
		h.probe = runProbe(noUser)
	}
	return h
}

func found(format string, args ...any) CheckResult {
	return CheckResult{OK: true, Detail: fmt.Sprintf(format, args...)}
}

func missing(remedy, format string, args ...any) CheckResult {
	return CheckResult{Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// The remedies that several checks share. A container in a container is at the mercy of the outer one.
const (
	remedyKernel = "boot a kernel of Linux 5.14 or newer"
	remedyOuter  = "if this is a container itself, start it with --privileged, or with --security-opt seccomp=unconfined " +
		"--security-opt apparmor=unconfined --security-opt systempaths=unconfined"
	remedyFirst = "see to the lines above first"
)

// checkKernel: the calls that everything stands on, and a launcher for the machine.
func checkKernel(h *host) CheckResult {
	var u unix.Utsname
	release := "unknown"
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	if errors.Is(h.probe.startErr, errors.ErrUnsupported) && runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return missing("use a machine with amd64 or arm64", "Linux %s on %s: there is no launcher for this architecture", release, runtime.GOARCH)
	}
	var lacks []string
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if fd, err := unix.Openat2(unix.AT_FDCWD, "/", &how); err == nil {
		unix.Close(fd)
	} else {
		lacks = append(lacks, fmt.Sprintf("openat2 (%v)", err))
	}
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err == nil {
		unix.Close(fd)
	} else {
		lacks = append(lacks, fmt.Sprintf("pidfd_open (%v)", err))
	}
	for _, c := range []struct {
		tag  uint32
		name string
	}{{tagFsopen, "fsopen"}, {tagMountSetattr, "mount_setattr"}, {tagCloseRange, "close_range"}} {
		if err := h.probe.err(c.tag); errors.Is(err, unix.ENOSYS) {
			lacks = append(lacks, c.name)
		}
	}
	if len(lacks) > 0 {
		return missing(remedyKernel+"; "+remedyOuter, "Linux %s lacks %s", release, strings.Join(lacks, ", "))
	}
	return found("Linux %s on %s", release, runtime.GOARCH)
}

// checkUserNamespaces: the user namespace itself, its maps, and capabilities in it that are worth something.
func checkUserNamespaces(h *host) CheckResult {
	switch {
	case h.userErr == nil && h.byCaller:
		return found("allowed to this program, not to the launcher: starts of a big program take longer")
	case h.userErr == nil:
		return found("allowed")
	}
	lost := ""
	if h.euid == 0 {
		lost = "; root can do without, by clearing Namespaces.NewUser"
	}
	var detail string
	switch {
	case errors.Is(h.userErr, unix.ENOSPC):
		return missing("as root: sysctl -w user.max_user_namespaces=15000",
			"the limit is reached: user.max_user_namespaces is %s%s", sysctlValue("user/max_user_namespaces"), lost)
	case errors.Is(h.userErr, unix.EUSERS):
		return missing("run this in fewer user namespaces", "there are 32 of them around each other already%s", lost)
	case errors.Is(h.userErr, unix.ENOSYS) || errors.Is(h.userErr, unix.EINVAL):
		return missing("boot a kernel with CONFIG_USER_NS=y", "the kernel has none: %v%s", h.userErr, lost)
	case sysctlValue("kernel/unprivileged_userns_clone") == "0":
		return missing("as root: sysctl -w kernel.unprivileged_userns_clone=1",
			"kernel.unprivileged_userns_clone is 0: %v%s", h.userErr, lost)
	case sysctlValue("kernel/apparmor_restrict_unprivileged_userns") == "1":
		exe, err := os.Executable()
		if err != nil {
			exe = "/path/of/the/program"
		}
		return missing("as root: "+appArmorProfile(exe)+"; or for all programs: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
			"AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1): %v%s", h.userErr, lost)
	default:
		detail = h.userErr.Error()
	}
	return missing(remedyOuter+"; in a chroot, leave it", "%s%s", detail, lost)
}

// appArmorProfile is the command that allows a program to make user namespaces.
func appArmorProfile(exe string) string {
	name := "userns" + strings.ReplaceAll(exe, "/", ".")
	return fmt.Sprintf(`printf 'abi <abi/4.0>,\nprofile "%s" "%s" flags=(unconfined) { userns, }\n' > '/etc/apparmor.d/%s' && apparmor_parser -r '/etc/apparmor.d/%s'`,
		name, exe, name, name)
}

func checkOtherNamespaces(h *host) CheckResult {
	if h.probe.err(tagNamespace) == errNotReached {
		return missing(remedyFirst, "not tried: %v", h.why())
	}
	for i, k := range probeKinds {
		err := h.probe.err(tagNamespace + uint32(i))
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOSPC):
			name := "max_" + string(k.kind) + "_namespaces"
			return missing(fmt.Sprintf("as root: sysctl -w user.%s=15000", name),
				"%s: the limit is reached: user.%s is %s", k.kind, name, sysctlValue("user/"+name))
		case errors.Is(err, unix.EINVAL):
			return missing("boot a kernel that has it (CONFIG_NAMESPACES and all below it)", "%s: the kernel has none", k.kind)
		default:
			return missing(remedyOuter, "%s: %v", k.kind, err)
		}
	}
	return found("mount, network, process, IPC, host name, cgroup and time")
}

// why is the reason that there are no answers of the probe.
func (h *host) why() error {
	if h.probe.startErr != nil {
		return h.probe.startErr
	}
	if h.userErr != nil {
		return fmt.Errorf("no user namespace: %w", h.userErr)
	}
	return errNotReached
}

// tried returns the answer to a question of the probe as a line of its own: nil if it was yes.
func (h *host) tried(tag uint32, remedy, lost string) *CheckResult {
	var r CheckResult
	switch err := h.probe.err(tag); err {
	case nil:
		return nil
	case errNotReached:
		r = missing(remedyFirst, "not tried: %v", h.why())
	default:
		r = missing(remedy, "%v: %s", err, lost)
	}
	return &r
}

func checkMountCalls(h *host) CheckResult {
	for _, tag := range []uint32{tagMountSetattr, tagFsopen, tagTmpfs} {
		if r := h.tried(tag, remedyOuter, "no file system can be mounted"); r != nil {
			return *r
		}
	}
	return found("by descriptor: fsopen, mount_setattr, move_mount")
}

// checkProc: the kernel gives a new /proc only to who sees all of an old one (mount_too_revealing).
func checkProc(h *host) CheckResult {
	if r := h.tried(tagProc, remedyOuter, "parts of the /proc here are hidden or read-only, so there is no new one"); r != nil {
		return *r
	}
	return found("allowed")
}

func checkSys(h *host) CheckResult {
	if r := h.tried(tagSysfs, remedyOuter, "parts of the /sys here are hidden or read-only, so there is no new one"); r != nil {
		return *r
	}
	return found("allowed")
}

func checkOverlay(h *host) CheckResult {
	if r := h.tried(tagOverlay, "as root: modprobe overlay; an ordinary user needs Linux 5.11",
		"no images, and no root that is copied on write"); r != nil {
		return *r
	}
	if h.probe.err(tagLowerPlus) != nil {
		return found("allowed; layers by one option string (before Linux 6.7)")
	}
	return found("allowed")
}

// checkTmpfsXattr: without extended attributes overlayfs cannot remember that a directory was replaced.
func checkTmpfsXattr(h *host) CheckResult {
	if r := h.tried(tagXattr, "set Root.Upper to a directory of ext4, xfs or btrfs; or boot Linux 6.6 or newer",
		"a tmpfs here has no extended attributes, so that directories of a copy-on-write root in memory cannot be replaced"); r != nil {
		return *r
	}
	return found("a tmpfs has extended attributes")
}

func checkSeccomp(h *host) CheckResult {
	if r := h.tried(tagSeccomp, "boot a kernel with CONFIG_SECCOMP_FILTER=y", "no filters of system calls"); r != nil {
		return *r
	}
	return found("filters of system calls")
}

// checkMemfd: the launcher is a file in memory, if the kernel executes such.
func checkMemfd(*host) CheckResult {
	fd, err := unix.MemfdCreate("container:check", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	switch err {
	case nil:
		unix.Close(fd)
		return found("allowed")
	case unix.EINVAL: // before Linux 6.3 all of them were executable
		return found("allowed")
	}
	return missing("as root: sysctl -w vm.memfd_noexec=1",
		"%v; vm.memfd_noexec is %s: each start writes a file to the state directory, which must not be mounted noexec",
		err, sysctlValue("vm/memfd_noexec"))
}

// sysctlValue returns a kernel parameter of the host, or "" if it has none.
func sysctlValue(path string) string {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
