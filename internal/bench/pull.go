//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"example.com/container/internal/testenv"
)

// This file has the contenders that pull an image and unpack it, into an empty store each time.

// A pull is what these contenders are to do.
type pull struct {
	dir string
	ref string // without a tag
}

// preparePull serves an image from a registry on this machine.
func preparePull(dir string) (f field, err error) {
	for _, need := range []testenv.Requirement{testenv.Registry, testenv.Program("skopeo", "skopeo")} {
		if err := need.Probe(); err != nil {
			return field{skipped: []string{"all: " + err.Error()}}, nil
		}
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return f, fmt.Errorf("go env GOROOT: %w", err)
	}
	// In memory: ext4 looks at every inode deleted in the last minutes when it makes a file, so that
	// each round on it would be slower than the one before, for all contenders.
	if dir, err = os.MkdirTemp("/dev/shm", "bench"); err != nil {
		return f, err
	}
	f.end = append(f.end, func() { os.RemoveAll(dir) })
	layout := filepath.Join(dir, "layout")
	if err := makeImage(layout, strings.TrimSpace(string(goroot))); err != nil {
		return f, err
	}
	address, err := serveRegistry(dir, &f)
	if err != nil {
		return f, err
	}
	p := pull{dir, address + "/bench/go"}
	_, err = timed(testenv.LookPath("skopeo"), "copy", "--insecure-policy", "--dest-tls-verify=false",
		"oci:"+layout+":latest", "docker://"+p.ref+":latest")
	if err != nil {
		return f, err
	}
	f.add(oursName, p.ours)
	f.add("skopeo+umoci", p.skopeoUmoci)
	f.add("podman", p.podman)
	return f, nil
}

// serveRegistry starts a registry on a free port of the loopback interface and returns its address.
func serveRegistry(dir string, f *field) (address string, err error) {
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address = probe.Addr().String()
	probe.Close()
	config := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n",
		filepath.Join(dir, "registry"), address)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", err
	}
	server := exec.Command(testenv.LookPath("docker-registry"), "serve", config)
	if err := server.Start(); err != nil {
		return "", err
	}
	f.end = append(f.end, func() {
		server.Process.Kill()
		server.Wait()
	})
	for range 500 {
		if c, err := net.Dial("tcp", address); err == nil {
			return address, c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "", errors.New("the registry does not answer")
}

// skopeoUmoci copies the image to a layout and unpacks that.
func (p pull) skopeoUmoci() (contender, error) {
	skopeo, umoci := testenv.LookPath("skopeo"), testenv.LookPath("umoci")
	if umoci == "" {
		return contender{}, errors.New("umoci is not installed")
	}
	return contender{once: func() (sample, error) {
		dir, err := os.MkdirTemp(p.dir, "umoci")
		if err != nil {
			return sample{}, err
		}
		defer os.RemoveAll(dir)
		copied, err := timed(skopeo, "copy", "--insecure-policy", "--src-tls-verify=false",
			"docker://"+p.ref+":latest", "oci:"+dir+"/layout:latest")
		if err != nil {
			return sample{}, err
		}
		args := []string{"unpack", "--image", dir + "/layout:latest", dir + "/bundle"}
		if os.Geteuid() != 0 {
			args = append(args, "--rootless")
		}
		unpacked, err := timed(umoci, args...)
		return sample{
			wall:   copied.wall + unpacked.wall,
			cpu:    copied.cpu + unpacked.cpu,
			memory: max(copied.memory, unpacked.memory),
		}, err
	}}, nil
}

func (p pull) podman() (contender, error) {
	podman := testenv.LookPath("podman")
	if podman == "" {
		return contender{}, errors.New("not installed")
	}
	policy := filepath.Join(p.dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644); err != nil {
		return contender{}, err
	}
	return contender{once: func() (sample, error) {
		store := filepath.Join(p.dir, "podman")
		defer removePodmanStore(store)
		return timed(podman, append(podmanStore(store), "pull", "--quiet", "--tls-verify=false",
			"--signature-policy", policy, p.ref+":latest")...)
	}}, nil
}
