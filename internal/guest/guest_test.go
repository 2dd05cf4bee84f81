//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/guest"
	"example.com/container/internal/testenv"
)

// What goes in is there, and what comes out is what the command did.
func TestGuest(t *testing.T) {
	testenv.Need(t, testenv.Guest)
	in, out := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(in, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "dir/script"), []byte("#!/bin/sh\necho script $CONTAINER_WORD $(id -un) >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	g := guest.Guest{
		Kernel: "6.12", Memory: 1024, Append: "word.of=mine", Files: in, Out: out, Output: &output,
		Command: `dir/script; CONTAINER_WORD="a b" as tester dir/script
			uname -r | cut -d. -f1-2; grep -o word.of=mine /proc/cmdline; [ -t 1 ] && echo terminal
			grep MemTotal /proc/meminfo; cat /sys/fs/cgroup/cgroup.controllers
			mkdir out/sub; echo text >out/sub/file; ln -s /etc out/link; echo evil >out/link/../x; exit 7`,
	}
	status, err := g.Run(t.Context())
	if status != 7 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	for _, want := range []string{
		"script root\n", "script a b tester\n", "6.12\n", "word.of=mine\n", "cpuset cpu io memory hugetlb pids rdma misc\n",
	} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("no %q in:\n%s", want, output.String())
		}
	}
	if strings.Contains(output.String(), "terminal") {
		t.Error("the output is a terminal")
	}
	if text, err := os.ReadFile(filepath.Join(out, "sub/file")); string(text) != "text\n" {
		t.Errorf("came out: %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(out, "link")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link came out: %v", err)
	}
}

// A guest whose kernel panics is an error that shows why.
func TestGuestPanic(t *testing.T) {
	testenv.Need(t, testenv.Guest)
	status, err := guest.Guest{Command: "echo c >/proc/sysrq-trigger"}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Kernel panic - not syncing") {
		t.Errorf("status %d, %v", status, err)
	}
}

// The context ends a guest at any time.
func TestGuestContext(t *testing.T) {
	testenv.Need(t, testenv.Guest)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	status, err := guest.Guest{Command: "sleep 1000"}.Run(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Minute {
		t.Errorf("status %d, %v after %v", status, err, time.Since(start))
	}
}

func TestGuestUnknownKernel(t *testing.T) {
	if _, err := (guest.Guest{Kernel: "2.4"}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), `"2.4"`) {
		t.Error(err)
	}
}
