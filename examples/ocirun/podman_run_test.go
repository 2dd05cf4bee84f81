//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
)

// Podman runs containers with our runtime.
func TestPodmanRun(t *testing.T) {
	p := newPodman(t)
	volume := p.dir + "/volume"
	if err := os.Mkdir(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(volume+"/file", []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(t.TempDir(), "profile.json")
	text := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}`
	if err := os.WriteFile(profile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		out  string // "*" for any
		code int
		errs string // is said among the errors
	}{
		"output":           {sh("echo out"), "out", 0, ""},
		"exit code":        {sh("exit 3"), "", 3, ""},
		"no program":       {once(testImage, "nosuch"), "", 127, "not found"},
		"no executable":    {once(testImage, "/etc"), "", 126, "denied"},
		"root":             {sh("id -u; id -g"), "0\n0", 0, ""},
		"user by name":     {sh("id -u; id -g", "--user", "app"), "1000\n1000", 0, ""},
		"user by number":   {sh("id -u; id -g; touch /x 2>&1 | grep -o denied", "--user", "1000:7"), "1000\n7\ndenied", 0, ""},
		"groups":           {sh("id -G | tr ' ' '\\n' | grep 7", "--user", "1000", "--group-add", "77"), "77", 0, ""},
		"environment":      {sh("echo $A$B", "-e", "A=1", "--env", "B=2"), "12", 0, ""},
		"directory":        {sh("pwd", "-w", "/etc"), "/etc", 0, ""},
		"read-only":        {sh("touch /x 2>/dev/null || echo no; touch /tmp/x && echo tmp", "--read-only"), "no\ntmp", 0, ""},
		"caps":             {sh("grep CapEff /proc/self/status"), "CapEff:\t00000000a80425fb", 0, ""},
		"added":            {sh("grep CapEff /proc/self/status", "--cap-add", "NET_ADMIN"), "CapEff:\t00000000a80435fb", 0, ""},
		"added for a user": {sh("grep -E 'Cap(Amb|Eff)' /proc/self/status", "--user", "1000", "--cap-add", "NET_ADMIN"), "CapEff:\t0000000000001000\nCapAmb:\t0000000000001000", 0, ""},
		"dropped":          {sh("grep -E 'Cap(Eff|Bnd)' /proc/self/status", "--cap-drop", "ALL"), "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000", 0, ""},
		"no new privs":     {sh("grep NoNewPrivs /proc/self/status", "--security-opt", "no-new-privileges"), "NoNewPrivs:\t1", 0, ""},
		"tmpfs":            {sh("touch /x/file && grep -c ' /x .*nosuid,nodev' /proc/mounts", "--tmpfs", "/x:size=1m"), "1", 0, ""},
		"volume":           {sh("cat /v/file; touch /v/x && echo written", "--volume", volume+":/v"), "textwritten", 0, ""},
		"volume, ro":       {sh("cat /v/file; touch /v/x 2>&1 | grep -o Read-only", "--volume", volume+":/v:ro"), "textRead-only", 0, ""},
		"named volume":     {sh("touch /v/x && ls /v", "--volume", "named:/v"), "x", 0, ""},
		"hostname":         {sh("hostname; cat /etc/hostname", "--hostname", "hello"), "hello\nhello", 0, ""},
		"init":             {sh("cat /proc/1/comm; echo $$", "--init"), "podman-init\n2", 0, ""},
		"no network":       {sh("grep -c : /proc/net/dev"), "1", 0, ""},
		"host's network":   {append([]string{"run", "--rm"}, with("host", testImage, "hostname")...), host, 0, ""},
		"host's names":     {append([]string{"run", "--rm"}, with("host", "--uts", "host", testImage, "hostname")...), host, 0, ""},
		"sysctl":           {sh("cat /proc/sys/net/ipv4/ip_forward", "--sysctl", "net.ipv4.ip_forward=1"), "1", 0, ""},
		"limit":            {sh("ulimit -n", "--ulimit", "nofile=100:100", "--ulimit", "nproc=1000:1000"), "100", 0, ""},
		"shm":              {sh("grep -c ' /dev/shm tmpfs .*size=2048k' /proc/mounts", "--shm-size", "2m"), "1", 0, ""},
		"masks":            {sh("cat /proc/keys /proc/timer_list | wc -c; (echo >/proc/sys/kernel/msgmax) 2>&1 | grep -o Read-only"), "0\nRead-only", 0, ""},
		"device":           {sh("head -c 3 /dev/own | wc -c", "--device", "/dev/zero:/dev/zero"), "*", 0, ""},
		"other devices":    {sh("mknod /dev/z c 1 11 2>/dev/null && (true >/dev/z) 2>/dev/null || echo no"), "no", 0, ""},
		"seccomp":          {sh("grep Seccomp: /proc/self/status; mkdir /x", "--security-opt", "seccomp="+profile), "Seccomp:\t2", 1, "Read-only file system"},
		"default seccomp":  {sh("grep Seccomp: /proc/self/status"), "Seccomp:\t2", 0, ""},
		"no seccomp":       {sh("grep Seccomp: /proc/self/status", "--security-opt", "seccomp=unconfined"), "Seccomp:\t0", 0, ""},
		// What cannot be done is refused, and nothing runs.
		"memory": {once("--memory", "64m", testImage, "echo", "ran"), "", 126, "linux.resources"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "memory" {
				testenv.Need(t, testenv.Root) // for an ordinary user podman itself leaves it out
			}
			p.t = t
			out, errs, code := p.run(test.args...)
			if got := strings.TrimSpace(out); got != test.out && test.out != "*" || code != test.code || !strings.Contains(errs, test.errs) {
				t.Errorf("code %d, output %q, errors %s\nwant %d, %q", code, out, errs, test.code, test.out)
			}
		})
	}
	p.t = t
}

// The life of a container that podman has started in the background.
func TestPodmanLife(t *testing.T) {
	p := newPodman(t)
	run := append([]string{"run", "--detach", "--name", "c"}, with("none", testImage, "sh", "-c",
		`echo out; echo err >&2; trap "exit 7" TERM; while :; do sleep 0.05; done`)...)
	p.must(run...)
	p.want("running", "inspect", "--format", "{{.State.Status}}", "c")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		out, errs, code := p.run("logs", "c")
		if out == "out\n" && errs == "err\n" && code == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("logs: code %d, %q, %q", code, out, errs)
		}
	}

	p.want("0", "exec", "c", "id", "-u")
	p.want("1000", "exec", "--user", "app", "c", "id", "-u")
	p.want("/etc\n2", "exec", "--workdir", "/etc", "--env", "A=2", "c", "sh", "-c", "pwd; echo $A")
	for _, code := range []int{0, 1, 9} {
		if _, errs, got := p.run("exec", "c", "sh", "-c", "exit "+string(rune('0'+code))); got != code {
			t.Errorf("exec: code %d, want %d: %s", got, code, errs)
		}
	}
	if _, errs, code := p.run("exec", "c", "nosuch"); code != 127 {
		t.Errorf("exec: code %d: %s", code, errs)
	}
	cmd := p.command("exec", "--interactive", "c", "cat")
	cmd.Stdin = strings.NewReader("through")
	if out, err := cmd.Output(); string(out) != "through" || err != nil {
		t.Errorf("exec -i: %q, %v", out, err)
	}
	p.must("exec", "--detach", "c", "sh", "-c", "echo made >/made")

	file := p.dir + "/copied"
	if err := os.WriteFile(file, []byte("copied in"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.must("cp", file, "c:/tmp/in")
	p.want("copied in", "exec", "c", "cat", "/tmp/in")
	p.must("cp", "c:/etc/passwd", file)
	if text, err := os.ReadFile(file); !strings.HasPrefix(string(text), "root:") || err != nil {
		t.Errorf("cp: %q, %v", text, err)
	}

	p.must("stop", "--time", "60", "c")
	p.want("7 exited", "inspect", "--format", "{{.State.ExitCode}} {{.State.Status}}", "c")
	if _, _, code := p.run("exec", "c", "true"); code == 0 {
		t.Error("exec in a stopped container")
	}
	p.must("start", "c")
	p.must("kill", "c")
	p.must("wait", "c")
	p.want("137 exited", "inspect", "--format", "{{.State.ExitCode}} {{.State.Status}}", "c")

	p.must("commit", "--quiet", "c", "localhost/committed")
	p.want("copied inmade", append([]string{"run", "--rm"}, with("none", "localhost/committed", "sh", "-c", "cat /tmp/in /made")...)...)
	p.must("rm", "c")
}

// The containers of a pod share what its first one holds.
func TestPodmanPod(t *testing.T) {
	p := newPodman(t)
	p.must("pod", "create", "--name", "pod", "--share-parent=false", "--network", "none", "--hostname", "together")
	in := func(args ...string) []string {
		return append([]string{"run", "--pod", "pod"}, args...)
	}
	p.must(in("--detach", "--name", "a", testImage, "sleep", "1000")...)
	p.want("together", in("--rm", testImage, "hostname")...)
	for _, kind := range []string{"net", "ipc", "uts"} {
		one := p.must("exec", "a", "readlink", "/proc/self/ns/"+kind)
		p.want(strings.TrimSpace(one), in("--rm", testImage, "readlink", "/proc/self/ns/"+kind)...)
	}
	if one, other := p.must("exec", "a", "readlink", "/proc/self/ns/pid"), p.must(in("--rm", testImage, "readlink", "/proc/self/ns/pid")...); one == other {
		t.Error("the PID namespace is shared, though not asked for")
	}
	p.must("pod", "stop", "--time", "0", "pod")
	p.must("pod", "rm", "pod")
}

// User namespaces of podman's making, below that of an ordinary user or of root.
func TestPodmanUserNamespaces(t *testing.T) {
	p := newPodman(t)
	p.want("0 10", sh(`while read a b c; do echo $a $c; done </proc/self/uid_map`, "--uidmap", "0:1:10", "--gidmap", "0:1:10")...)
	if os.Geteuid() != 0 {
		p.want("app", once("--userns", "keep-id", "--user", "app", testImage, "sh", "-c", "echo app")...)
		// The containers of a pod join the user namespace of its first one.
		p.must("pod", "create", "--name", "pod", "--share-parent=false", "--network", "none", "--userns", "auto")
		p.must("run", "--detach", "--pod", "pod", "--name", "in", testImage, "sleep", "1000")
		p.want("0", "exec", "in", "id", "-u")
		p.must("pod", "rm", "--force", "--time", "0", "pod")
		p.want("0", once("--userns", "host", testImage, "id", "-u")...)
	}
}
