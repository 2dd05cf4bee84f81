//go:build linux

package main

import (
	"os"
	"strings"
	"testing"

	"example.com/container/internal/leak"
	"example.com/container/internal/testenv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Devices of the host's that linux.netDevices names are in the container, and back when it is gone.
func TestNetDevices(t *testing.T) {
	inOwnNetwork(t, func(t *testing.T) {
		leak.Check(t)
		ip(t, "link add dev7 type veth peer name dev8")
		t.Cleanup(func() {
			if !t.Failed() {
				ip(t, "link del dev8")
			}
		})
		ip(t, "addr add 10.7.0.1/24 dev dev7")
		ip(t, "addr add fd00:7::1/64 dev dev7 nodad")
		ip(t, "link set dev7 up")
		ip(t, "addr add 10.7.0.2/24 dev dev8")
		ip(t, "link set dev8 up")
		back := func(when string) {
			t.Helper()
			all := ip(t, "addr show")
			_, own, found := strings.Cut(all, " dev7@")
			for _, want := range []string{",UP", "10.7.0.1/24", "fd00:7::1/64"} {
				if !found || !strings.Contains(own, want) {
					t.Errorf("after %s: no %s: %s", when, want, all)
				}
			}
			if strings.Contains(all, "in7") {
				t.Errorf("after %s: %s", when, all)
			}
		}
		back("the beginning")
		r := ocirun(t)
		devices := func(script, name string) string {
			return newBundle(t, script, func(s *specs.Spec) {
				s.Version = "1.3.0"
				s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"dev7": {Name: name}}
			})
		}
		const show = "busybox ip addr show "
		for host, inside := range map[string]string{"": "dev7", "in7": "in7"} {
			out, code := r.run("run", "--bundle", devices(show+inside, host), "c")
			for _, want := range []string{",UP", "10.7.0.1/24", "fd00:7::1/64"} {
				if code != 0 || !strings.Contains(out, want) {
					t.Errorf("run: no %s: code %d, %s", want, code, out)
				}
			}
			back("run")
		}

		// The peer on the host is reached, by who is started and by what is executed.
		bundle := devices("while :; do echo hello | busybox nc -l -p 80; done", "in7")
		r.must("create", "--bundle", bundle, "c")
		if links := strings.Join(hostLinks(t), " "); strings.Contains(links, "dev7") {
			t.Errorf("after create: %s", links)
		}
		r.must("start", "c")
		if got := asked("10.7.0.1:80"); got != "hello\n" {
			t.Errorf("the container says %q", got)
		}
		if out, code := r.run("exec", "c", "sh", "-c", show+"in7"); code != 0 || !strings.Contains(out, "10.7.0.1/24") {
			t.Errorf("exec: code %d, %s", code, out)
		}
		r.must("delete", "--force", "c")
		back("delete")

		r.must("create", "--bundle", bundle, "c")
		r.must("delete", "--force", "c")
		back("create and delete")
		for name, change := range map[string]func(*specs.Spec){
			"no program": func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} },
			"no device":  func(s *specs.Spec) { s.Linux.NetDevices["dev9"] = specs.LinuxNetDevice{} },
			"host's network": func(s *specs.Spec) {
				for i, n := range s.Linux.Namespaces {
					if n.Type == specs.NetworkNamespace {
						s.Linux.Namespaces = append(s.Linux.Namespaces[:i], s.Linux.Namespaces[i+1:]...)
						break
					}
				}
			},
		} {
			editSpec(t, bundle, change)
			if out, code := r.run("run", "--bundle", bundle, "c"); code == 0 {
				t.Errorf("%s: %s", name, out)
			}
			back(name)
			bundle = devices("true", "in7")
		}
	})
}

// A network namespace that somebody else has made is joined, and stays.
func TestNetworkPath(t *testing.T) {
	inOwnNetwork(t, func(t *testing.T) {
		leak.Check(t)
		ip(t, "netns add own7")
		t.Cleanup(func() {
			ip(t, "netns del own7")
			for unix.Unmount("/run/netns", unix.MNT_DETACH) == nil {
			}
		})
		ip(t, "-n own7 link set lo up")
		ip(t, "-n own7 addr add 10.9.9.9/32 dev lo")
		bundle := newBundle(t, "busybox ip addr show lo; exec sleep $0", func(s *specs.Spec) {
			s.Process.Args = append(s.Process.Args, "0")
			for i, n := range s.Linux.Namespaces {
				if n.Type == specs.NetworkNamespace {
					s.Linux.Namespaces[i].Path = "/run/netns/own7"
				}
			}
		})
		runtimes := []runtime{ocirun(t)}
		for _, name := range []string{"runc", "crun"} {
			if testenv.LookPath(name) != "" {
				runtimes = append(runtimes, peer(t, name))
			}
		}
		for _, r := range runtimes {
			if out, code := r.run("run", "--bundle", bundle, "c"); code != 0 || !strings.Contains(out, "10.9.9.9/32") {
				t.Errorf("%s: code %d, %s", r.name, code, out)
			}
		}
		r := runtimes[0]
		editSpec(t, bundle, func(s *specs.Spec) { s.Process.Args[len(s.Process.Args)-1] = "1000" })
		r.must("create", "--bundle", bundle, "c")
		r.must("start", "c")
		if out, code := r.run("exec", "c", "busybox", "ip", "addr", "show", "lo"); code != 0 || !strings.Contains(out, "10.9.9.9/32") {
			t.Errorf("exec: code %d, %s", code, out)
		}
		r.must("delete", "--force", "c")
		if got := ip(t, "-n own7 addr show lo"); !strings.Contains(got, "10.9.9.9/32") {
			t.Errorf("the namespace after its container: %s", got)
		}
		editSpec(t, bundle, func(s *specs.Spec) {
			for i, n := range s.Linux.Namespaces {
				if n.Type == specs.NetworkNamespace {
					s.Linux.Namespaces[i].Path = "/run/netns/nosuch"
				}
			}
		})
		if out, code := r.run("run", "--bundle", bundle, "c"); code == 0 || !strings.Contains(out, "nosuch") {
			t.Errorf("a path that is not there: code %d, %s", code, out)
		}
		if _, err := os.Stat("/run/netns/own7"); err != nil {
			t.Error(err)
		}
	})
}
