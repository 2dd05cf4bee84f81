//go:build linux

package container

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// nsLink is the identity of a namespace of a process.
func nsLink(t testing.TB, pid string, kind NamespaceKind) string {
	t.Helper()
	link, err := os.Readlink("/proc/" + pid + "/ns/" + string(kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// allNamespaces prints the namespaces of the shell.
const allNamespaces = `for k in user cgroup ipc uts net pid time mnt; do readlink /proc/self/ns/$k; done`

// withoutOwnMounts takes from a configuration what needs a mount namespace.
func withoutOwnMounts(cfg *Config) {
	cfg.Namespaces.NewMnt = false
	cfg.Root, cfg.Mounts, cfg.MaskPaths, cfg.ReadonlyPaths = Root{}, nil, nil, nil
}

func TestNamespacesAreNewOrShared(t *testing.T) {
	modes := map[string]bool{"with a user namespace": true}
	if testenv.Root.Probe() == nil {
		modes["without"] = false
	}
	base := testConfig(t)
	for name, newUser := range modes {
		for _, shared := range namespaceKinds {
			if shared.kind == UserNamespace {
				continue // that is the mode
			}
			t.Run(name+", shared "+string(shared.kind), func(t *testing.T) {
				cfg := base
				cfg.Namespaces.NewUser, cfg.Namespaces.NewTime = newUser, true
				switch shared.kind {
				case MountNamespace:
					withoutOwnMounts(&cfg)
					// Without mounts of its own it sees the host's /proc, which knows no other PID namespace.
					cfg.Namespaces.NewPID = false
				case UTSNamespace:
					cfg.Hostname = ""
				}
				*shared.new(&cfg.Namespaces) = false
				for i, inside := range strings.Fields(sh(t, cfg, allNamespaces)) {
					k := namespaceKinds[i]
					isNew := *k.new(&cfg.Namespaces)
					if outside := nsLink(t, "self", k.kind); isNew == (inside == outside) {
						t.Errorf("%s: inside %s, outside %s, should be new: %v", k.kind, inside, outside, isNew)
					}
				}
			})
		}
	}
}

// Without root and without a user namespace there is one clear error.
func TestNamespacesNeedPrivilege(t *testing.T) {
	testenv.Need(t, testenv.User)
	cfg := testConfig(t)
	cfg.Namespaces.NewUser = false
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	if e := wantError(t, err, "start", unix.EPERM); !strings.Contains(e.Remedy, "NewUser") {
		t.Errorf("the remedy is %q", e.Remedy)
	}
}

// holdNamespaces starts a process in new namespaces of all kinds, which a container can join, and
// returns its process id.
func holdNamespaces(t *testing.T) (pid string) {
	t.Helper()
	testenv.Need(t, testenv.Program("unshare", "util-linux"), testenv.UserNS)
	args := []string{"-n", "-i", "-u", "-C", "-p", "-m", "-T", "--fork", "--kill-child", "--monotonic", "100000"}
	if os.Geteuid() != 0 {
		args = append([]string{"-U", "-r"}, args...)
	}
	// This /proc is still the host's, which says the number that others know.
	args = append(args, "sh", "-c", "hostname joined; readlink /proc/self; exec cat")
	cmd := exec.Command(testenv.LookPath("unshare"), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: 0}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close() // ends cat
		cmd.Wait()
	})
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	// readlink was a child of the shell, which is the child of unshare.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(children))
}

func TestNamespacesAreJoined(t *testing.T) {
	pid := holdNamespaces(t)
	base := testConfig(t)
	for _, joined := range namespaceKinds {
		if joined.kind == UserNamespace && os.Geteuid() == 0 {
			continue // it has none; see TestUserNamespaceIsJoined
		}
		t.Run(string(joined.kind), func(t *testing.T) {
			cfg := base
			cfg.Namespaces.NewUser = false
			cfg.Namespaces.Join = map[NamespaceKind]string{joined.kind: "/proc/" + pid + "/ns/" + string(joined.kind)}
			if os.Geteuid() != 0 { // the right to join the others comes with their owner
				cfg.Namespaces.Join[UserNamespace] = "/proc/" + pid + "/ns/user"
			}
			*joined.new(&cfg.Namespaces) = false
			switch joined.kind {
			case MountNamespace:
				withoutOwnMounts(&cfg)
				cfg.Namespaces.NewPID = false
			case UTSNamespace:
				cfg.Hostname = ""
			}
			out := strings.Fields(sh(t, cfg, allNamespaces+"; hostname"))
			for i, k := range namespaceKinds {
				inside := out[i]
				shared := k.kind == UserNamespace && os.Geteuid() == 0 // with the caller, by both
				if want := nsLink(t, pid, k.kind); (shared || cfg.Namespaces.Join[k.kind] != "") != (inside == want) {
					t.Errorf("%s: inside %s, of the other process %s", k.kind, inside, want)
				}
			}
			if joined.kind == UTSNamespace && out[8] != "joined" {
				t.Errorf("the host name is %q", out[8])
			}
		})
	}
}

func TestUserNamespaceIsJoined(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.Program("unshare", "util-linux"))
	cmd := exec.Command(testenv.LookPath("unshare"), "-U", "-r", "sh", "-c", "echo ready; exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	pid := strconv.Itoa(cmd.Process.Pid)
	wantText(t, readLine(t, stdout), "ready") // it is in its namespace, and that has its maps
	cfg := testConfig(t)
	cfg.Namespaces.NewUser = false
	cfg.Namespaces.Join = map[NamespaceKind]string{UserNamespace: "/proc/" + pid + "/ns/user"}
	got := sh(t, cfg, "readlink /proc/self/ns/user; id -u; cat /proc/self/setgroups; touch /x && stat -c %u /x")
	wantText(t, got, nsLink(t, pid, UserNamespace)+"\n0\ndeny\n0")
}

func TestJoinOfNothing(t *testing.T) {
	cfg := testConfig(t)
	cfg.Namespaces.NewNet = false
	missing := t.TempDir() + "/net"
	cfg.Namespaces.Join = map[NamespaceKind]string{NetworkNamespace: missing}
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	if e := wantError(t, err, "join namespace", unix.ENOENT); e.Path != missing {
		t.Errorf("names the path %q", e.Path)
	}
	// A file that is no namespace.
	if err := os.WriteFile(missing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = runIn(t, cfg, &Process{Args: []string{"true"}})
	wantError(t, err, "join namespace", unix.EINVAL)
	// A namespace of another kind.
	cfg.Namespaces.Join[NetworkNamespace] = "/proc/self/ns/uts"
	_, err = runIn(t, cfg, &Process{Args: []string{"true"}})
	wantError(t, err, "join namespace", unix.EINVAL)
}

func TestClocksAreShifted(t *testing.T) {
	cfg := testConfig(t)
	cfg.Namespaces.NewTime = true
	for _, offset := range []time.Duration{240 * time.Hour, 1500 * time.Millisecond, 0} {
		cfg.TimeOffsets = TimeOffsets{Monotonic: offset, Boottime: offset}
		outside := func() float64 {
			var ts unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
				t.Fatal(err)
			}
			return float64(ts.Nano()) / 1e9
		}
		before := outside()
		var uptime float64
		if _, err := fmt.Sscan(sh(t, cfg, "cat /proc/uptime"), &uptime); err != nil {
			t.Fatal(err)
		}
		// It has hundredths of a second.
		if got := uptime - offset.Seconds(); got < before-0.02 || got > outside()+0.02 {
			t.Errorf("the clock is shifted from one between %.2f and %.2f s to %.2f, want %v", before, outside(), uptime, offset)
		}
	}
	// The kernel refuses a clock before its zero.
	cfg.TimeOffsets = TimeOffsets{Boottime: -1 << 60}
	_, err := runIn(t, cfg, &Process{Args: []string{"true"}})
	wantError(t, err, "clocks", unix.ERANGE)
	// Negative and not a whole second.
	cfg.TimeOffsets = TimeOffsets{Monotonic: -1500 * time.Millisecond}
	wantText(t, sh(t, cfg, "tr -s ' ' </proc/self/timens_offsets"), "monotonic -2 500000000\nboottime 0 0")
}

func TestProcessNumberOne(t *testing.T) {
	cfg := testConfig(t)
	wantText(t, sh(t, cfg, "echo $$; echo /proc/[0-9]*; cut -d' ' -f4-7 /proc/1/stat"),
		"1\n/proc/1\n0 1 1 0") // the shell; a session of its own without a terminal
	cfg.Namespaces.NewPID = false
	if got := sh(t, cfg, "echo $$"); got == "1" {
		t.Error("number 1 without a PID namespace")
	}
}

// All processes of a PID namespace end with its first one.
func TestProcessesEndWithTheFirst(t *testing.T) {
	cfg := testConfig(t)
	begin := time.Now()
	sh(t, cfg, "sleep 1000 </dev/null >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & true")
	if d := time.Since(begin); d > time.Minute { // and not 1000 seconds
		t.Errorf("it took %v", d)
	}
}

func TestHostAndDomainName(t *testing.T) {
	cfg := testConfig(t)
	cfg.Hostname, cfg.Domainname = strings.Repeat("h", 64), "example.org"
	outside, _ := os.Hostname()
	wantText(t, sh(t, cfg, "hostname; cat /proc/sys/kernel/domainname"), cfg.Hostname+"\nexample.org")
	if now, _ := os.Hostname(); now != outside {
		t.Errorf("the host is called %q", now)
	}
	cfg.Hostname = ""
	wantText(t, sh(t, cfg, "hostname"), outside)
}

func TestLoopbackIsUp(t *testing.T) {
	cfg := testConfig(t)
	wantText(t, sh(t, cfg, "ls /sys/class/net; ip -o addr show lo | tr -s ' ' | cut -d' ' -f4; ip -o link show lo | grep -o '<.*>'"),
		"lo\n127.0.0.1/8\n::1/128\n<LOOPBACK,UP,LOWER_UP>")
}

// Maps of a joined user namespace are what it must have.
func TestJoinedMaps(t *testing.T) {
	cfg := testConfig(t)
	other := lifeStart(t, cfg, &Process{Args: []string{"sleep", "1000"}})
	has := cfg
	has.UidMappings, has.GidMappings = defaultMaps()
	wrong := has
	wrong.UidMappings = []IDMap{{ContainerID: 5, HostID: os.Geteuid(), Size: 1}}
	for _, c := range []*Config{&has, &wrong} {
		c.Namespaces.NewUser = false
		c.Namespaces.Join = map[NamespaceKind]string{UserNamespace: fmt.Sprintf("/proc/%d/ns/user", other.Pid())}
	}
	wantText(t, sh(t, has, "id -u"), "0")
	_, err := runIn(t, wrong, &Process{Args: []string{"true"}})
	var f *FieldError
	if !errors.As(err, &f) || f.Field != "UidMappings" {
		t.Errorf("other maps: %v", err)
	}
}

func TestJoinRanges(t *testing.T) {
	got := joinRanges([]IDMap{pureMap(5, 105, 5), pureMap(0, 100, 5), pureMap(10, 200, 1), pureMap(12, 202, 1)})
	if want := []IDMap{pureMap(0, 100, 10), pureMap(10, 200, 1), pureMap(12, 202, 1)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
