//go:build linux

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/container/internal/leak"
)

// This file looks at the process of the caller before and after each call: a library must leave it as it is. What a start needs to
// change it changes in the launcher.

// callerVar makes the test binary a program that calls everything and looks at itself.
const callerVar = "CONTAINER_TEST_CALLER"

func init() {
	if dir := os.Getenv(callerVar); dir != "" {
		time.AfterFunc(2*time.Minute, func() { os.Exit(3) })
		if err := callAll(dir, os.Args[1]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("the same")
		os.Exit(0)
	}
}

// sameCaller calls f and compares the process before and after. A thread that is being made or ends looks different for a moment.
func sameCaller(what string, f func() error) error {
	before := leak.Caller()
	for same := 0; same < 3; time.Sleep(time.Millisecond) { // a thread that starts another has all signals blocked
		now := leak.Caller()
		if same++; !slices.Equal(now, before) {
			before, same = now, 0
		}
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		after := leak.Caller()
		if slices.Equal(before, after) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s has changed the caller:\nbefore %s\nafter  %s", what, strings.Join(before, "\n       "), strings.Join(after, "\n       "))
		}
	}
}

// callAll calls what is public, once. It has root, a directory of busybox, and dir for everything else.
func callAll(dir, root string) error {
	ctx := context.Background()
	cfg := DefaultConfig()
	cfg.Root = Root{Dir: root, Access: CopyOnWrite}
	cfg.Sysctl = map[string]string{"kernel.msgmax": "4321"}
	cfg.Umask, cfg.OomScoreAdj = ptr(uint32(0o77)), ptr(900)
	cfg.Rlimits = []Rlimit{{Type: "RLIMIT_CORE", Soft: 0, Hard: 0}}
	cfg.Scheduler, cfg.CPUAffinity = &Scheduler{Policy: "other", Nice: 19}, "0"
	cfg.StopTimeout = -1
	var c *Container
	var p *Process
	archive := func() *bytes.Reader { return bytes.NewReader(make([]byte, 1024)) }
	sleep := &Process{Args: []string{"sleep", "1000"}}
	expect := func(err, want error) error {
		if !errors.Is(err, want) {
			return fmt.Errorf("%v instead of %v", err, want)
		}
		return nil
	}
	for _, step := range []struct {
		name string
		f    func() error
	}{
		{"warm up", func() error { return nil }},
		{"New", func() (err error) { c, err = New(dir+"/state", "caller", cfg); return err }},
		{"Explain", func() error { _, err := Explain(cfg, sleep); return err }},
		{"Check", func() error { Check(); return nil }},
		{"Run that fails", func() error { return expect(c.Run(ctx, &Process{Args: []string{"/none"}}), ErrNotFound) }},
		{"Create", func() error { return c.Create(ctx, sleep) }},
		{"Start", func() error { return c.Start(ctx) }},
		{"Exec", func() error {
			p = &Process{Args: []string{"sleep", "1000"}, Stdin: strings.NewReader("x"), Stdout: io.Discard}
			return c.Exec(ctx, p)
		}},
		{"Exec that fails", func() error { return expect(c.Exec(ctx, &Process{Args: []string{"/none"}}), ErrNotFound) }},
		{"Signal and Wait", func() error { p.Signal(9); p.Wait(); return nil }},
		{"terminal", func() error {
			p = &Process{Args: []string{"true"}, Tty: true, Stdout: io.Discard}
			if err := c.Exec(ctx, p); err != nil {
				return err
			}
			p.Resize(ConsoleSize{Width: 10, Height: 10})
			return p.Wait()
		}},
		{"CopyTo", func() error { return c.CopyTo(ctx, "/tmp", archive()) }},
		{"CopyFrom", func() error { return c.CopyFrom(ctx, "/etc", io.Discard) }},
		{"Stats, Pause", func() error {
			_, err := c.Stats()
			return errors.Join(expect(err, ErrNoCgroup), expect(c.Pause(ctx), ErrNoCgroup))
		}},
		{"Processes, State, Load, List", func() error {
			_, err := c.Processes()
			_, serr := c.State()
			other, lerr := Load(dir+"/state", "caller")
			if lerr == nil {
				_, lerr = other.Status()
			}
			return errors.Join(err, serr, lerr)
		}},
		{"network namespace", func() error {
			if os.Geteuid() != 0 {
				return nil
			}
			return JoinNetworkNamespace(c.Pid(), func() error { return nil })
		}},
		{"Stop", func() error { return c.Stop(ctx) }},
		{"Destroy", func() error { return c.Destroy() }},
		{"detached", func() error {
			detached := cfg
			detached.Detached, detached.Init = true, true
			c, err := New(dir+"/state", "detached", detached)
			if err != nil {
				return err
			}
			return errors.Join(c.Run(ctx, &Process{Args: []string{"true"}}), c.Wait(), c.Destroy())
		}},
		{"ranges", func() (err error) {
			mapped := cfg
			if mapped.UidMappings, mapped.GidMappings, err = SubordinateIDs(); err != nil {
				return nil // there are none
			}
			mapped.Umask = nil
			c, err := New(dir+"/state", "ranges", mapped)
			if err != nil {
				return err
			}
			return errors.Join(c.Run(ctx, &Process{Args: []string{"true"}}), c.Wait(), c.Destroy())
		}},
		{"image", func() error {
			s, err := OpenStore(dir+"/store", nil)
			if err != nil {
				return err
			}
			defer s.Close()
			img, err := s.Load(ctx, "oci:"+dir+"/layout:v1", nil)
			if err != nil {
				return err
			}
			of := cfg
			of.Root = img.Root()
			c, err := New(dir+"/state", "image", of)
			if err != nil {
				return err
			}
			return errors.Join(c.Run(ctx, &Process{Args: []string{"/busybox", "true"}}), c.Wait(), c.Destroy())
		}},
	} {
		if err := sameCaller(step.name, step.f); err != nil {
			return err
		}
	}
	return nil
}

func TestCallerIsUnchanged(t *testing.T) {
	leak.Check(t)
	cfg := testConfig(t)
	dir := t.TempDir()
	busybox, err := os.ReadFile(filepath.Join(cfg.Root.Dir, "bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	program := imageFile("busybox", string(busybox))
	program.Mode = 0o755
	imageLayout(t, dir+"/layout", imageTar(t, program))
	cmd := exec.Command("/proc/self/exe", cfg.Root.Dir)
	cmd.Env = append(os.Environ(), callerVar+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "the same\n" {
		t.Errorf("%v: %s", err, out)
	}
}
