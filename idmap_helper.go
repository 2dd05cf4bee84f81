//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file writes id maps that an ordinary user may not write alone: with newuidmap(1) and
// newgidmap(1), setuid programs which check the ranges against /etc/subuid and /etc/subgid. It runs
// in the caller's process while the launcher waits in its new user namespace.

// writeWithHelpers writes the maps of a process that has a new user namespace and waits. The process
// must be the caller's own child, so that its pid cannot come to mean another one. What has been
// written is read back: a helper's exit status is not taken for the fact.
func writeWithHelpers(ctx context.Context, pid int, uid, gid []IDMap) error {
	// Both at once: each takes 3 ms, most of it to start.
	u, err := startMapHelper(ctx, "newuidmap", pid, uid)
	if err != nil {
		return err
	}
	g, err := startMapHelper(ctx, "newgidmap", pid, gid)
	if err != nil {
		u.cmd.Process.Kill()
		u.cmd.Wait()
		return err
	}
	if err := errors.Join(u.wait(), g.wait()); err != nil {
		return err
	}
	for _, m := range []struct {
		file string
		maps []IDMap
	}{{"uid_map", uid}, {"gid_map", gid}} {
		path := filepath.Join("/proc", strconv.Itoa(pid), m.file)
		text, err := os.ReadFile(path)
		if err != nil {
			return &Error{Op: "read id map", Path: path, Err: err}
		}
		if !sameIDMap(string(text), m.maps) {
			return &Error{Op: "read id map", Path: path, Err: fmt.Errorf("the helper wrote %q instead of %q", text, idMapText(m.maps))}
		}
	}
	return nil
}

// mapHelper is newuidmap or newgidmap at work.
type mapHelper struct {
	name   string
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

// findMapHelper returns the absolute path of a helper.
func findMapHelper(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil && !filepath.IsAbs(path) {
		err = exec.ErrDot
	}
	if err != nil {
		return "", &Error{
			Op:     "find " + name,
			Err:    fmt.Errorf("%w: a map of more than the caller's own id needs %s: %w", ErrUnsupported, name, err),
			Remedy: "install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora)",
		}
	}
	return path, nil
}

// startMapHelper starts a helper. Its arguments are numbers and nothing else.
func startMapHelper(ctx context.Context, name string, pid int, maps []IDMap) (*mapHelper, error) {
	path, err := findMapHelper(name)
	if err != nil {
		return nil, err
	}
	args := []string{strconv.Itoa(pid)}
	for _, m := range maps {
		args = append(args, strconv.Itoa(m.ContainerID), strconv.Itoa(m.HostID), strconv.Itoa(m.Size))
	}
	h := &mapHelper{name: name, cmd: exec.CommandContext(ctx, path, args...)}
	h.cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	h.cmd.Dir = "/"
	h.cmd.Stderr = &limitedBuffer{b: &h.stderr, left: 4096}
	h.cmd.WaitDelay = 5 * time.Second
	if err := h.cmd.Start(); err != nil {
		return nil, &Error{Op: "start " + name, Path: path, Err: err}
	}
	return h, nil
}

// wait waits for the helper. A complaint of its own becomes part of the error.
func (h *mapHelper) wait() error {
	err := h.cmd.Wait()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(h.stderr.String())
	if text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	e := &Error{Op: "write id map with " + h.name, Path: h.cmd.Path, Err: err}
	switch {
	case strings.Contains(text, "not allowed"):
		e.Remedy = "the ranges must be the user's own in /etc/subuid and /etc/subgid; see SubordinateIDs"
	case strings.Contains(text, "Operation not permitted"):
		e.Remedy = "as root: chmod u+s " + h.cmd.Path + ", and no mount option nosuid below it"
	}
	return e
}

// sameIDMap tells whether the text of /proc/PID/uid_map says the same as maps, in any order: the
// kernel sorts the lines of a long map.
func sameIDMap(text string, maps []IDMap) bool {
	var got, want []string
	for line := range strings.Lines(text) {
		got = append(got, strings.Join(strings.Fields(line), " ")+"\n")
	}
	for line := range strings.Lines(string(idMapText(maps))) {
		want = append(want, line)
	}
	slices.Sort(got)
	slices.Sort(want)
	return slices.Equal(got, want)
}

// limitedBuffer keeps the first bytes that are written to it and swallows the rest.
type limitedBuffer struct {
	b    *bytes.Buffer
	left int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.b.Write(p[:n])
	return len(p), nil
}
