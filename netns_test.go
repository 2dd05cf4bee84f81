//go:build linux

package container

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

func TestExecNamespacePaths(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	cfg.StopTimeout = -1
	c := execSleeper(t, cfg)
	paths, err := c.NamespacePaths()
	if err != nil || len(paths) != len(namespaceKinds) {
		t.Fatalf("%v, %v", paths, err)
	}
	for kind, path := range GetNamespacePaths(c.Pid()) {
		if link, err := os.Readlink(path); paths[kind] != path || err != nil || link != nsLink(t, fmt.Sprint(c.Pid()), kind) {
			t.Errorf("%s: %s, %v", kind, link, err)
		}
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.NamespacePaths(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stopped: %v", err)
	}
}

// The function runs in the container's network; no thread of the caller's is there afterwards.
func TestExecJoinNetworkNamespace(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	c := execSleeper(t, cfg)
	want := nsLink(t, fmt.Sprint(c.Pid()), NetworkNamespace)
	own := nsLink(t, "self", NetworkNamespace)
	failure := errors.New("failure")
	for range 20 {
		err := JoinNetworkNamespace(c.Pid(), func() error {
			if link, err := os.Readlink("/proc/thread-self/ns/net"); link != want {
				t.Errorf("in %s, %v", link, err)
			}
			if l, err := net.Listen("tcp", "127.0.0.1:80"); err != nil {
				t.Error(err)
			} else {
				l.Close()
			}
			return failure
		})
		if os.Geteuid() != 0 {
			wantError(t, err, "join namespace", unix.EPERM)
			return
		}
		if err != failure {
			t.Fatal(err)
		}
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range threads {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // it may be ending
			link, err := os.Readlink(path)
			if err != nil || link == own {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s is %s, of the container %s", path, link, want)
				break
			}
		}
	}
	if err := JoinNetworkNamespace(1<<30, func() error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}
