//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/container/examples/internal/clitest"
	"example.com/container/internal/testenv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// transcript drives a runtime through a container's life and through errors, and notes each command with
// its exit code.
func transcript(r runtime, bundle, failing string) (lines []string) {
	step := func(args ...string) {
		out, code := r.run(args...)
		line := strings.Join(args, " ") + ": " + strconv.Itoa(code)
		for _, said := range []string{"does not exist", "is not stopped", "not running"} {
			if code != 0 && strings.Contains(out, said) {
				line += " " + said
			}
		}
		lines = append(lines, strings.ReplaceAll(strings.ReplaceAll(line, bundle, "B"), failing, "F"))
	}
	step("state", "c")
	step("kill", "c")
	step("delete", "c")
	step("delete", "--force", "c")
	step("start", "c")
	step("exec", "c", "true")
	step("create", "--bundle", "/nonexistent", "c")
	step("create", "--bundle", bundle, "../c")
	step("state")
	step("delete", "a", "b")
	step("kill", "--no-such-flag", "c")
	step("create", "--bundle", bundle, "c")
	step("create", "--bundle", bundle, "c")
	step("state", "c")
	step("kill", "c", "NOSUCHSIGNAL")
	step("start", "c")
	step("start", "c")
	step("exec", "c", "true")
	step("exec", "c", "sh", "-c", "exit 9")
	step("exec", "c", "sh", "-c", "kill -9 $$")
	step("exec", "c", "nosuch")
	step("exec", "c")
	step("delete", "c")
	step("kill", "c", "SIGUSR1")
	step("kill", "c", "15")
	r.await("c", "stopped")
	step("kill", "c", "TERM")
	step("kill", "--all", "c", "KILL")
	step("start", "c")
	step("exec", "c", "true")
	step("list")
	step("list", "--format", "json")
	step("list", "--format", "xml")
	step("delete", "c")
	step("delete", "c")
	step("run", "--bundle", failing, "d")
	step("state", "d")
	step("run", "--detach", "--bundle", bundle, "e")
	step("delete", "--force", "e")
	step("state", "e")
	step("features")
	step("spec", "--bundle", bundle) // which has one
	step("nosuchcommand")
	return lines
}

// Exit codes and what is said of errors are as those of runc.
func TestOcirunAsRunc(t *testing.T) {
	testenv.Need(t, testenv.Root)
	bundle := newBundle(t, `trap : USR1; trap "exit 7" TERM; while :; do sleep 0.05; done`, nil)
	failing := newBundle(t, "exit 5", nil)
	ours, theirs := transcript(ocirun(t), bundle, failing), transcript(peer(t, "runc"), bundle, failing)
	for i := range theirs {
		if ours[i] != theirs[i] {
			t.Errorf("ocirun: %s\n    runc:   %s", ours[i], theirs[i])
		}
	}
}

// The same bundle behaves the same.
func TestOcirunBundles(t *testing.T) {
	runtimes := []runtime{ocirun(t)}
	if os.Geteuid() == 0 {
		runtimes = append(runtimes, peer(t, "runc"), peer(t, "crun"))
	}
	for name, test := range map[string]struct {
		script string
		change func(*specs.Spec)
		out    string
		code   int
		root   bool // needs it, or more ids than one
	}{
		"exit code":   {"exit 3", nil, "", 3, false},
		"environment": {"env | grep ^A=", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=1") }, "A=1\n", 0, false},
		"directory":   {"pwd", func(s *specs.Spec) { s.Process.Cwd = "/etc" }, "/etc\n", 0, false},
		"hostname":    {"hostname", func(s *specs.Spec) { s.Hostname = "hello" }, "hello\n", 0, false},
		"read-only":   {"touch /x 2>/dev/null || echo no", nil, "no\n", 0, false},
		"read-write":  {"touch /x && echo yes", func(s *specs.Spec) { s.Root.Readonly = false }, "yes\n", 0, false},
		"limits": {"ulimit -n; ulimit -Hn", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 30}}
		}, "20\n30\n", 0, false},
		"umask":        {"umask", func(s *specs.Spec) { mask := uint32(0o27); s.Process.User.Umask = &mask }, "0027\n", 0, false},
		"caps":         {"grep -E 'Cap(Eff|Bnd)' /proc/self/status", func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}} }, "CapEff:\t0000000000000000\nCapBnd:\t0000000000000020\n", 0, false},
		"no caps":      {"grep CapBnd /proc/self/status", func(s *specs.Spec) { s.Process.Capabilities = nil }, "CapBnd:\t0000000000000000\n", 0, false},
		"no new privs": {"grep NoNewPrivs /proc/self/status", nil, "NoNewPrivs:\t1\n", 0, false},
		"oom score":    {"cat /proc/self/oom_score_adj", func(s *specs.Spec) { adj := 500; s.Process.OOMScoreAdj = &adj }, "500\n", 0, false},
		"user": {"id -u; id -g; id -G | grep -o 7", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{7}}
		}, "1000\n1000\n7\n", 0, true},
		"tmpfs": {"grep -c '^none /mnt tmpfs .*size=1024k' /proc/mounts", func(s *specs.Spec) {
			s.Root.Readonly = false
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "none", Options: []string{"size=1m"}})
		}, "1\n", 0, false},
		"bind": {"cat /tmp/passwd", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Source: "rootfs/etc", Options: []string{"bind", "ro"}})
		}, "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n", 0, false},
		"masked":  {"wc -c </proc/keys", nil, "0\n", 0, false},
		"sysctl":  {"cat /proc/sys/kernel/msgmax", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.msgmax": "4321"} }, "4321\n", 0, false},
		"devices": {"echo x >/dev/null; head -c 2 /dev/zero | wc -c; readlink /dev/fd; readlink /dev/stdin; ls /dev/full /dev/random /dev/urandom /dev/tty", nil, "2\n/proc/self/fd\n/proc/self/fd/0\n/dev/full\n/dev/random\n/dev/tty\n/dev/urandom\n", 0, false},
		"device": {"stat -c '%F %t,%T %a %u' /dev/own", func(s *specs.Spec) {
			mode, uid, n := os.FileMode(0o640), uint32(5), int64(1)
			minor := int64(5)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/own", Type: "c", Major: n, Minor: minor, FileMode: &mode, UID: &uid}}
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &n, Minor: &minor, Access: "rwm"})
		}, "character special file 1,5 640 5\n", 0, true},
		"other devices": {"mknod /tmp/z c 1 11 && (true >/tmp/z) 2>/dev/null || echo no", func(s *specs.Spec) {
			s.Root.Readonly = false
			for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Effective, &s.Process.Capabilities.Permitted} {
				*set = append(*set, "CAP_MKNOD")
			}
		}, "no\n", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			if test.root {
				testenv.Need(t, testenv.Root)
			}
			for _, r := range runtimes {
				r.t = t
				if name == "other devices" && r.name == "crun" {
					continue // it is run without cgroups
				}
				t.Run(r.name, func(t *testing.T) {
					r.t = t
					bundle := newBundle(t, test.script, test.change)
					if r.name == "crun" { // which cannot mount a cgroup file system here
						editSpec(t, bundle, func(s *specs.Spec) {
							s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
						})
					}
					if out, code := r.run("run", "--bundle", bundle, "test"); out != test.out || code != test.code {
						t.Errorf("code %d, output %q; want %d, %q", code, out, test.code, test.out)
					}
				})
			}
		})
	}
}

// State and list have runc's keys and columns.
func TestOcirunFormats(t *testing.T) {
	testenv.Need(t, testenv.Root)
	bundle := newBundle(t, "sleep 1000", func(s *specs.Spec) { s.Annotations = map[string]string{"k": "v"} })
	ours, theirs := ocirun(t), peer(t, "runc")
	want := map[string]string{}
	for _, r := range []runtime{theirs, ours} {
		r.must("create", "--bundle", bundle, "--pid-file", bundle+"/pid", "c")
		defer r.run("delete", "--force", "c")
		state := r.must("state", "c")
		pid, err := os.ReadFile(bundle + "/pid")
		if err != nil {
			t.Fatal(err)
		}
		var parsed struct {
			ID, Status, Bundle, Rootfs, Owner string
			Pid                               int
			Annotations                       map[string]string
		}
		if err := json.Unmarshal([]byte(state), &parsed); err != nil {
			t.Fatal(err)
		}
		if strconv.Itoa(parsed.Pid) != string(pid) || parsed.ID != "c" || parsed.Status != "created" || parsed.Bundle != bundle ||
			parsed.Rootfs != bundle+"/rootfs" || r.name == "ocirun" && parsed.Owner != "root" || fmt.Sprint(parsed.Annotations) != "map[k:v]" {
			t.Errorf("%s: %s", r.name, state)
		}
		r.must("start", "c")
		table := strings.Split(r.must("list"), "\n")
		title := strings.Fields(table[0])
		list := strings.Trim(strings.TrimSpace(r.must("list", "-f", "json")), "[]")
		ps := strings.Split(strings.TrimSpace(r.must("ps", "c")), "\n")
		for what, got := range map[string]string{
			"state":    fmt.Sprint(jsonKeys(t, state)),
			"list":     fmt.Sprint(title, len(strings.Fields(table[1]))),
			"json":     fmt.Sprint(jsonKeys(t, list)),
			"ids":      r.must("list", "--quiet"),
			"ps":       strings.Join(strings.Fields(ps[0]), " ") + fmt.Sprint(len(ps)),
			"features": fmt.Sprint(jsonKeys(t, r.must("features"))[:2]),
			"pids":     fmt.Sprint(r.must("ps", "--format", "json", "c") == "["+string(pid)+"]\n"),
		} {
			if r.name == "runc" {
				want[what] = got
			} else if want[what] != got {
				t.Errorf("%s: got %s, runc has %s", what, got, want[what])
			}
		}
	}
}

// What podman and other callers read of an error is in the log.
func TestOcirunLog(t *testing.T) {
	bundle := newBundle(t, "true", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} })
	r := ocirun(t)
	for _, format := range []string{"json", "text"} {
		log := filepath.Join(t.TempDir(), "log")
		out, code := r.run("--log", log, "--log-format", format, "--systemd-cgroup", "--cgroup-manager=disabled", "create", "-b", bundle, "c")
		text, err := os.ReadFile(log)
		if err != nil || code != 1 || !strings.Contains(out, "linux.intelRdt") || !strings.Contains(string(text), "linux.intelRdt") {
			t.Errorf("code %d, output %s, log %s, %v", code, out, text, err)
		}
		var entry struct{ Level, Msg, Time string }
		if err := json.Unmarshal(text, &entry); format == "json" && (err != nil || entry.Level != "error" || entry.Msg == "" || entry.Time == "") {
			t.Errorf("%v: %s", err, text)
		}
		if format == "text" && !strings.Contains(string(text), ` level=error msg="`) {
			t.Errorf("log %s", text)
		}
	}
	if _, code := r.run("--log-format", "xml", "list"); code != 1 {
		t.Errorf("code %d", code)
	}
}

// Commands and flags for what is not there say so.
func TestOcirunLater(t *testing.T) {
	bundle := newBundle(t, "true", nil)
	r := ocirun(t)
	for _, args := range [][]string{
		{"pause", "c"}, {"resume", "c"}, {"update", "--memory", "3", "c"}, {"events", "--stats", "c"}, {"checkpoint", "c"}, {"restore", "c"},
		{"create", "--no-pivot", "-b", bundle, "c"}, {"exec", "--apparmor", "x", "c", "true"}, {"exec", "--cgroup", "x", "c", "true"}, {"exec", "--process-label", "x", "c", "true"},
	} {
		out, code := r.run(args...)
		if code == 0 || !strings.Contains(out, "not supported yet") && !strings.Contains(out, "refused") && !strings.Contains(out, "does not exist") {
			t.Errorf("%v: code %d: %s", args, code, out)
		}
	}
}

// Descriptors of the caller reach the process where they were.
func TestOcirunPreserveFds(t *testing.T) {
	bundle := newBundle(t, `cat <&3; cat <&4; ls /proc/self/fd | wc -l; echo $LISTEN_FDS $LISTEN_PID`, nil)
	r := ocirun(t)
	cmd := clitest.Command(t, append(r.args[1:], "run", "-b", bundle, "--preserve-fds", "1", "c")...)
	for _, text := range []string{"activated", "preserved"} {
		rd, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		fmt.Fprintln(w, text)
		w.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, rd)
	}
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
	if out, errs, code := clitest.Output(t, cmd); out != "activated\npreserved\n6\n1 1\n" || code != 0 {
		t.Errorf("code %d, output %q, errors %s", code, out, errs)
	}
	if out, code := r.run("run", "-b", bundle, "--preserve-fds", "5", "c"); code != 1 || !strings.Contains(out, "preserved-fd") {
		t.Errorf("code %d, output %q", code, out)
	}
}

// A created container is an orphan, whose status its new parent gets, as that of exec is.
func TestOcirunOrphans(t *testing.T) {
	bundle := newBundle(t, `trap "exit 6" TERM; while :; do sleep 0.02; done`, nil)
	r := ocirun(t)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	wait := func(file string) int {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(string(text))
		if err != nil {
			t.Fatal(err)
		}
		var status unix.WaitStatus
		if got, err := unix.Wait4(pid, &status, 0, nil); got != pid || err != nil {
			t.Fatalf("wait4 %d: %d, %v", pid, got, err)
		}
		return status.ExitStatus()
	}
	file := filepath.Join(t.TempDir(), "pid")
	r.must("create", "-b", bundle, "--pid-file", file, "c")
	defer r.run("delete", "--force", "c")
	r.must("start", "c")
	for code := range 5 { // ends before or after the runtime does
		r.must("exec", "--detach", "--pid-file", file+"2", "c", "sh", "-c", fmt.Sprintf("exit %d", code))
		if got := wait(file + "2"); got != code {
			t.Errorf("exec: status %d, want %d", got, code)
		}
	}
	r.must("kill", "c", "TERM")
	if got := wait(file); got != 6 {
		t.Errorf("create: status %d", got)
	}
	r.await("c", "stopped")
}

// The flags of exec, and --process.
func TestOcirunExec(t *testing.T) {
	bundle := newBundle(t, "sleep 1000", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=1", "B=1") })
	r := ocirun(t)
	r.must("run", "--detach", "-b", bundle, "c")
	defer r.run("delete", "--force", "c")
	if got := r.must("exec", "-e", "B=2", "--env", "C=3", "--cwd", "/etc", "c", "sh", "-c", "echo $A$B$C; pwd; echo x --user"); got != "123\n/etc\nx --user\n" {
		t.Errorf("got %q", got)
	}
	if got := r.must("exec", "--no-new-privs", "--cap", "CAP_NET_RAW", "c", "sh", "-c", "grep -E 'NoNew|CapEff' /proc/self/status"); !strings.Contains(got, "NoNewPrivs:\t1") || !strings.Contains(got, "CapEff:\t00000000800425fb") {
		t.Errorf("got %q", got)
	}
	if os.Geteuid() == 0 {
		if got := r.must("exec", "--user", "1000:5", "-g", "7", "c", "id"); got != "uid=1000(app) gid=5 groups=5,7\n" {
			t.Errorf("got %q", got)
		}
	}
	process := specs.Process{Args: []string{"sh", "-c", "echo $X; pwd; exit 4"}, Env: []string{"X=y"}, Cwd: "/tmp"}
	text, err := json.Marshal(process)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "process.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := r.run("exec", "--process", file, "c"); out != "y\n/tmp\n" || code != 4 {
		t.Errorf("code %d, output %q", code, out)
	}
	for _, args := range [][]string{{"--user", "app", "c", "id"}, {"--process", "/nonexistent", "c"}, {"c"}, {"-g", "x", "c", "id"}} {
		if out, code := r.run(append([]string{"exec"}, args...)...); code != 255 || !strings.Contains(out, "exec failed") {
			t.Errorf("%v: code %d, output %q", args, code, out)
		}
	}
}

// A signal to run reaches the process.
func TestOcirunForwardsSignals(t *testing.T) {
	bundle := newBundle(t, `trap "echo got; exit 8" TERM; echo ready; while :; do sleep 0.05; done`, nil)
	r := ocirun(t)
	cmd := clitest.Command(t, append(r.args[1:], "run", "-b", bundle, "c")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	cmd.Process.Signal(unix.SIGTERM)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 8 {
		t.Errorf("code %d", code)
	}
}

// Hooks run at the moments at which runc runs them, with the same state.
func TestOcirunHooks(t *testing.T) {
	testenv.Need(t, testenv.Root)
	ours, theirs := ocirun(t), peer(t, "runc")
	want := ""
	for _, r := range []runtime{theirs, ours} {
		log := filepath.Join(t.TempDir(), "log")
		hook := func(kind string) []specs.Hook { // of the container's namespaces, too: the host's tree is there
			script := `echo ` + kind + ` $(sed 's/"pid":[0-9]*/"pid"/; s/"ociVersion":"[^"]*"/"ociVersion"/') >>` + log
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}}
		}
		bundle := newBundle(t, "sleep 1000", func(s *specs.Spec) {
			//lint:ignore SA1019 it is deprecated, and still to be run
			s.Hooks = &specs.Hooks{Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"), Poststart: hook("poststart"), Poststop: hook("poststop")}
		})
		r.must("create", "-b", bundle, "c")
		r.must("start", "c")
		r.must("delete", "--force", "c")
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for line := range strings.Lines(strings.ReplaceAll(string(text), bundle, "B")) {
			kind, state, _ := strings.Cut(strings.TrimSpace(line), " ")
			keys := jsonKeys(t, strings.NewReplacer(`"pid"`, `"pid":1`, `"ociVersion"`, `"ociVersion":1`).Replace(state))
			got += fmt.Sprint(kind, keys, strings.Contains(state, `"bundle":"B"`)) + "\n"
		}
		if r.name == "runc" {
			want = got
		} else if got != want {
			t.Errorf("got:\n%srunc:\n%s", got, want)
		}
	}
}

// A profile or a label that the kernel has no module for is an error; "unconfined" is what is the case then.
func TestOcirunLabels(t *testing.T) {
	r := ocirun(t)
	if _, err := os.Stat("/sys/module/apparmor"); err != nil {
		bundle := newBundle(t, "true", func(s *specs.Spec) { s.Process.ApparmorProfile = "some" })
		if out, code := r.run("run", "-b", bundle, "c"); code == 0 || !strings.Contains(out, "AppArmor") {
			t.Errorf("code %d: %s", code, out)
		}
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		bundle := newBundle(t, "true", func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c:s0" })
		if out, code := r.run("run", "-b", bundle, "c"); code == 0 || !strings.Contains(out, "SELinux") {
			t.Errorf("code %d: %s", code, out)
		}
	}
	bundle := newBundle(t, "true", func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" })
	if out, code := r.run("run", "-b", bundle, "c"); code != 0 {
		t.Errorf("code %d: %s", code, out)
	}
}
