//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"golang.org/x/sys/unix"
)

// Podman makes a container's network itself, and the runtime joins it: with each of its ways, and as with crun.
func TestPodmanNetwork(t *testing.T) {
	inOwnNetwork(t, func(t *testing.T) {
		backends := 0
		all := os.Getenv("CONTAINER_TEST_LONG") != ""
		testenv.Need(t, testenv.Program("iptables", "iptables")) // what both of podman's ways run
		for _, backend := range []struct{ name, program string }{{"cni", "/usr/lib/cni/bridge"}, {"netavark", "/usr/lib/podman/netavark"}} {
			if _, err := os.Stat(backend.program); err != nil {
				t.Logf("no %s: %v", backend.name, err)
				continue
			}
			if backends++; backends > 1 && !all {
				break
			}
			var theirs []string
			t.Run(backend.name+" crun", func(t *testing.T) {
				testenv.Need(t, testenv.Program("crun", "crun"))
				// It refuses a host with both versions of cgroups, so it sees one only.
				if err := unix.Mount("none", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH) })
				theirs = podmanNetwork(t, backend.name, testenv.LookPath("crun"))
			})
			t.Run(backend.name, func(t *testing.T) {
				ours := podmanNetwork(t, backend.name, "")
				if theirs != nil && !slices.Equal(ours, theirs) {
					t.Errorf("ocirun: %q\n  crun: %q", ours, theirs)
				}
			})
		}
		if backends == 0 {
			testenv.Need(t, testenv.Program("netavark", "netavark"))
		}
	})
}

// podmanNetwork connects containers in all ways, with a runtime that is not ours if it is named, and returns what it has seen.
func podmanNetwork(t *testing.T, backend, runtime string) (seen []string) {
	testenv.Need(t, testenv.Nft)
	p := newPodman(t)
	if err := appendFile(p.dir+"/containers.conf", fmt.Sprintf("[network]\nnetwork_backend = %q\n", backend)); err != nil {
		t.Fatal(err)
	}
	p.options = []string{"--network-config-dir", p.dir + "/networks"}
	if runtime != "" {
		p.options = append(p.options, "--runtime", runtime)
	}
	t.Cleanup(func() { // what podman leaves for the next container
		p.run("rm", "--force", "--time", "0", "--all")
		for _, link := range hostLinks(t) {
			if strings.Contains(link, "podman") {
				ip(t, "link del "+link)
			}
		}
		if out, err := exec.Command(testenv.LookPath("nft"), "flush", "ruleset").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		for unix.Unmount("/run/netns", unix.MNT_DETACH) == nil {
		}
	})
	addresses := make(map[string]string)
	note := func(what string) {
		what = regexp.MustCompile(`\b(net:)?\[\d+\]|[0-9a-f:]{17}|veth\w+`).ReplaceAllString(what, "*")
		for name, a := range addresses {
			what = strings.ReplaceAll(what, a, name)
		}
		seen = append(seen, strings.TrimSpace(what))
	}
	must := func(args ...string) string {
		t.Helper()
		out := p.must(args...)
		note(out)
		return strings.TrimSpace(out)
	}
	const server = `while :; do echo hello from $0 | busybox nc -l -p 80; done`
	get := func(address string) string {
		return fmt.Sprintf(`for i in $(busybox seq 300); do busybox nc -w 5 %s 80 </dev/null && exit; sleep 0.1; done; exit 1`, address)
	}
	p.must("run", "--detach", "--name", "a", "--network", "bridge", "--publish", "18080:80", testImage, "sh", "-c", server, "a")
	p.must("run", "--detach", "--name", "b", "--network", "bridge", "--publish", "127.0.0.1:18081:80", testImage, "sh", "-c", server, "b")
	for _, name := range []string{"a", "b"} {
		addresses[name] = strings.TrimSpace(p.must("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name))
	}
	if addresses["a"] == "" || addresses["a"] == addresses["b"] {
		t.Fatal(addresses)
	}
	for from, to := range map[string]string{"a": "b", "b": "a"} {
		p.want("hello from "+to, "exec", from, "sh", "-c", get(addresses[to]))
	}
	must("exec", "a", "busybox", "ip", "route")
	must("exec", "a", "sh", "-c", "cat /sys/class/net/*/operstate; ls /sys/class/net; cat /etc/resolv.conf")
	must("exec", "a", "grep", "-c", addresses["a"], "/etc/hosts")
	must("exec", "a", "cat", "/proc/sys/net/ipv4/ip_forward")

	gateway := addresses["a"][:strings.LastIndex(addresses["a"], ".")] + ".1"
	ports := func(want string) {
		t.Helper()
		for _, address := range []string{"127.0.0.1:18080", gateway + ":18080"} {
			if got := asked(address); got != strings.Replace(want, "*", "a", 1) {
				t.Errorf("%s answers %q, not %q", address, got, want)
			}
		}
		if got := asked("127.0.0.1:18081"); got != strings.Replace(want, "*", "b", 1) {
			t.Errorf("port of b answers %q, not %q", got, want)
		}
	}
	ports("hello from *\n")
	if _, errs, code := p.run("run", "--rm", "--network", "bridge", "--publish", "18080:80", testImage, "true"); code == 0 {
		t.Error("a port that is in use was published again")
	} else if !strings.Contains(errs, "in use") {
		t.Error(errs)
	}

	p.want("1", "run", "--rm", "--network", "none", testImage, "sh", "-c", "ls /sys/class/net | wc -l")
	if _, _, code := p.run("run", "--rm", "--network", "none", testImage, "busybox", "nc", "-w", "2", addresses["a"], "80"); code == 0 {
		t.Error("a container without a network has reached another")
	}
	p.want("hello from a", "run", "--rm", "--network", "container:a", testImage, "sh", "-c", get("127.0.0.1"))
	own := strings.TrimSpace(p.must("exec", "a", "readlink", "/proc/self/ns/net"))
	p.want(own, "run", "--rm", "--network", "container:a", testImage, "readlink", "/proc/self/ns/net")

	// The network is made anew for the next life.
	p.must("restart", "--time", "0", "a")
	addresses["a"] = strings.TrimSpace(p.must("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "a"))
	ports("hello from *\n")
	p.want("hello from a", "exec", "b", "sh", "-c", get(addresses["a"]))

	// A network of the user's own, and a container in two.
	must("network", "create", "--disable-dns", "--subnet", "10.77.0.0/24", "two")
	p.must("run", "--detach", "--name", "c", "--network", "podman,two", testImage, "sh", "-c", server, "c")
	must("exec", "c", "sh", "-c", "busybox ip route | grep -c '^10.77.0.0/24'; ls /sys/class/net")
	addresses["c"] = strings.TrimSpace(p.must("inspect", "--format", `{{(index .NetworkSettings.Networks "two").IPAddress}}`, "c"))
	p.want("hello from c", "run", "--rm", "--network", "two", testImage, "sh", "-c", get(addresses["c"]))

	p.must("rm", "--force", "--time", "0", "--all")
	must("network", "rm", "two")
	for _, port := range []string{"127.0.0.1:18080", "127.0.0.1:18081"} {
		if c, err := net.DialTimeout("tcp", port, 5*time.Second); err == nil {
			c.Close()
			t.Errorf("%s is still published", port)
		}
	}
	// The bridge of podman's is there for the next.
	for _, link := range hostLinks(t) {
		if link != "lo" && !strings.Contains(link, "podman0") {
			t.Errorf("device %s is left", link)
		}
	}
	if left, _ := filepath.Glob("/run/netns/*"); len(left) > 0 {
		t.Errorf("namespaces are left: %q", left)
	}
	if rules, _ := exec.Command(testenv.LookPath("nft"), "list", "ruleset").CombinedOutput(); strings.Contains(string(rules), "1808") {
		t.Errorf("rules are left: %s", rules)
	}
	return seen
}

// asked is what a server answers, which may not be there yet.
func asked(address string) (text string) {
	for deadline := time.Now().Add(time.Minute); text == "" && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.(*net.TCPConn).CloseWrite()
		all, _ := io.ReadAll(c)
		c.Close()
		text = string(all)
	}
	return text
}

// hostLinks are the names of the host's devices.
func hostLinks(t testing.TB) (names []string) {
	for line := range strings.Lines(ip(t, "-o link")) {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		names = append(names, strings.TrimSuffix(name, ":"))
	}
	return names
}

func appendFile(name, text string) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(old, text...), 0o644)
}
