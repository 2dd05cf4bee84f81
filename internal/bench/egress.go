//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"example.com/container"
	"example.com/container/internal/testenv"
)

// This file has the contenders that connect from inside a network namespace to a server elsewhere, and to a server in one from outside: our relay, and programs
// that are made for it. "The host" is a network namespace, and the server elsewhere is in another.

const (
	egressFlag = "-egress-only" // STATE ADDRESS
	portFlag   = "-port-only"   // STATE PORT
)

// The server elsewhere, and the host's own address.
const farServer, nearHost = "203.0.113.5:80", "198.51.100.1"

func prepareEgressConnect(dir string) (field, error) { return prepareEgress(dir, "connect") }
func prepareEgressStream(dir string) (field, error)  { return prepareEgress(dir, "stream") }
func preparePortConnect(dir string) (field, error)   { return preparePort(dir, "connect") }
func preparePortStream(dir string) (field, error)    { return preparePort(dir, "stream") }

// A traffic is what these contenders share.
type traffic struct {
	f     *field
	self  string
	state string
	near  []string // enters the host's namespaces
	order string
}

// newTraffic makes the host, and the server elsewhere.
func newTraffic(f *field, order string) (*traffic, error) {
	if os.Geteuid() != 0 {
		f.skipped = append(f.skipped, "all: this is not root")
		return nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp("/dev/shm", "bench")
	if err != nil {
		return nil, err
	}
	f.end = append(f.end, func() { os.RemoveAll(state) })
	near, err := otherHost(f)
	if err != nil {
		return nil, err
	}
	far, err := otherHost(f)
	if err != nil {
		return nil, err
	}
	for _, row := range []struct {
		enter []string
		args  string
	}{
		{near, "link add near type veth peer name far netns " + far[1]},
		{near, "addr add " + nearHost + "/24 dev near"}, {near, "link set near up"},
		{far, "addr add 198.51.100.2/24 dev far"}, {far, "link set far up"}, {far, "addr add 203.0.113.5/32 dev lo"},
		{near, "route add default via 198.51.100.2"},
	} {
		if out, err := exec.Command("nsenter", append(append(slices.Clip(row.enter), "ip"), strings.Fields(row.args)...)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %s: %w: %s", row.args, err, out)
		}
	}
	t := &traffic{f, self, state, near, order}
	_, err = t.talk(far, self, serverFlag, farServer)
	return t, err
}

// talk starts a program in namespaces.
func (t *traffic) talk(enter []string, args ...string) (*talker, error) {
	return talk(t.f, "nsenter", append(slices.Clip(enter), args...)...)
}

// client adds who starts a client.
func (t *traffic) client(name string, start func() (*talker, error)) {
	t.f.add(name, func() (contender, error) {
		client, err := start()
		if err != nil {
			return contender{}, err
		}
		return client.contender(t.order), nil
	})
}

func prepareEgress(_, order string) (f field, err error) {
	t, err := newTraffic(&f, order)
	if t == nil || err != nil {
		return f, err
	}
	t.client(oursName, func() (*talker, error) { return t.talk(t.near, t.self, egressFlag, t.state, farServer) })
	t.client("pasta", func() (*talker, error) {
		return t.pasta("--tcp-ports", "none", "--", t.self, clientFlag, farServer)
	})
	t.client("slirp4netns", t.slirp)
	t.client("no namespace", func() (*talker, error) { return t.talk(t.near, t.self, clientFlag, farServer) })
	return f, nil
}

// pasta forwards no port but those of args: on its own it would have all that somebody listens at, on either side.
func (t *traffic) pasta(args ...string) (*talker, error) {
	pasta := testenv.LookPath("pasta")
	if pasta == "" {
		return nil, errors.New("not installed")
	}
	return t.talk(t.near, append([]string{pasta, "--config-net", "--quiet", "--runas", "0", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"}, args...)...)
}

// slirp has slirp4netns serve the namespace of a client, with the size of packets that its manual recommends.
func (t *traffic) slirp() (*talker, error) {
	slirp := testenv.LookPath("slirp4netns")
	if slirp == "" {
		return nil, errors.New("not installed")
	}
	client, err := t.talk(t.near, "unshare", "--net", t.self, clientFlag, farServer)
	if err != nil {
		return nil, err
	}
	ready, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	cmd := exec.Command("nsenter", append(slices.Clip(t.near), slirp, "--configure", "--mtu=65520", "--ready-fd=3", strconv.Itoa(client.pid), "tap0")...)
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	t.f.end = append(t.f.end, func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	_, err = ready.Read(make([]byte, 1))
	return client, err
}

func preparePort(_, order string) (f field, err error) {
	t, err := newTraffic(&f, order)
	if t == nil || err != nil {
		return f, err
	}
	served := func(port string, start func() (*talker, error)) func() (*talker, error) {
		return func() (*talker, error) {
			if _, err := start(); err != nil {
				return nil, err
			}
			return t.talk(t.near, t.self, clientFlag, nearHost+":"+port)
		}
	}
	t.client(oursName, served("8080", func() (*talker, error) { return t.talk(t.near, t.self, portFlag, t.state, "8080") }))
	t.client("pasta", served("8081", func() (*talker, error) { // it maps no ids as root, so ports below 1024 are not the server's
		return t.pasta("--tcp-ports", "8081:8080", "--", t.self, serverFlag, ":8080")
	}))
	t.client("no namespace", served("8082", func() (*talker, error) { return t.talk(t.near, t.self, serverFlag, ":8082") }))
	f.skipped = append(f.skipped, "rootlessport: podman has it for ordinary users only")
	return f, nil
}

// egressOnly runs the client in a container whose way out is decided about.
func egressOnly(state, address string) error {
	host, _, _ := strings.Cut(address, ":")
	return trafficContainer(state, &container.NetworkConfig{Mode: container.NetworkModeEgress, EgressAllow: []string{host + "/32"}}, clientFlag, address)
}

// portOnly runs the server in a container with a port that is carried.
func portOnly(state, port string) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	return trafficContainer(state, &container.NetworkConfig{
		Mode: container.NetworkModeNone, PortMappings: []container.PortMapping{{HostPort: uint16(n), ContainerPort: 80}},
	}, serverFlag, ":80")
}

// trafficContainer runs this program in a container on the host's files.
func trafficContainer(state string, n *container.NetworkConfig, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := container.DefaultConfig()
	cfg.Root, cfg.DieWithParent, cfg.Network = container.HostRoot, true, n
	cfg.Mounts = append(cfg.Mounts, container.Mount{Type: "tmpfs", Target: "/tmp"}, container.Mount{Type: "bind", Source: self, Target: "/tmp/bench"})
	c, err := container.New(state, "bench", cfg)
	if err != nil {
		return err
	}
	err = c.Run(context.Background(), &container.Process{Args: append([]string{"/tmp/bench"}, args...), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if err == nil {
		err = c.Wait()
	}
	return errors.Join(err, c.Destroy())
}
