//go:build linux

package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// arrives receives from a channel of notifications: whether there was a value, or the channel has been closed.
func arrives(t *testing.T, d time.Duration, from <-chan struct{}) (value bool) {
	t.Helper()
	select {
	case _, value = <-from:
		return value
	case <-time.After(d):
		t.Fatalf("nothing has come within %v", d)
		return false
	}
}

// TestEventsFollow follows a file of a cgroup: as it is, what changes, the removal, the end of the context.
func TestEventsFollow(t *testing.T) {
	c, dir := testCgroup(t)
	f, err := c.follow(t.Context(), "cgroup.events", "cgroup.events")
	if err != nil {
		t.Fatal(err)
	}
	defer f.stop()
	for range 2 {
		if first := <-f.changes; first.err != nil || string(first.text) != "populated 0\nfrozen 0\n" {
			t.Errorf("%q, %v", first.text, first.err)
		}
	}
	if err := c.writeFile("cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if change := <-f.changes; change.err != nil || string(change.text) != "populated 0\nfrozen 1\n" {
			t.Errorf("%q, %v", change.text, change.err)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if change := <-f.changes; !errors.Is(change.err, ErrNotExist) {
		t.Errorf("a cgroup that is gone: %q, %v", change.text, change.err)
	}
	if d := time.Since(start); d > 20*time.Second { // a second, and what a busy machine adds
		t.Errorf("the removal was noticed after %v", d)
	}

	if _, err := c.follow(t.Context(), "cgroup.events", "no.such.file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestEventsFollowStop ends a context while nobody listens and something has changed.
func TestEventsFollowStop(t *testing.T) {
	c, _ := testCgroup(t)
	ctx, cancel := context.WithCancel(t.Context())
	f, err := c.follow(ctx, "cgroup.events")
	if err != nil {
		t.Fatal(err)
	}
	for _, freeze := range []string{"1", "0", "1"} {
		if err := c.writeFile("cgroup.freeze", freeze); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	f.stop()
}

// TestEventsPressureTrigger reads the text of triggers, and the complaints about bad ones.
func TestEventsPressureTrigger(t *testing.T) {
	for _, test := range []struct {
		trigger PressureTrigger
		text    string
		field   string
	}{
		{PressureTrigger{}, "some 200000 2000000", ""},
		{PressureTrigger{Full: true, Stall: 150 * time.Millisecond, Window: time.Second}, "full 150000 1000000", ""},
		{PressureTrigger{Stall: 10 * time.Second, Window: 10 * time.Second}, "some 10000000 10000000", ""},
		{PressureTrigger{Window: 11 * time.Second}, "", "PressureTrigger.Window"},
		{PressureTrigger{Window: -1}, "", "PressureTrigger.Window"},
		{PressureTrigger{Stall: 3 * time.Second}, "", "PressureTrigger.Stall"},
		{PressureTrigger{Stall: 1}, "", "PressureTrigger.Stall"},
	} {
		text, err := test.trigger.text()
		var field *FieldError
		switch {
		case test.field == "" && (err != nil || text != test.text):
			t.Errorf("%+v: %q, %v", test.trigger, text, err)
		case test.field != "" && (!errors.As(err, &field) || field.Field != test.field):
			t.Errorf("%+v: %v", test.trigger, err)
		}
	}
}

// TestEventsPressure asks for notifications of pressure on the CPU, and makes it.
func TestEventsPressure(t *testing.T) {
	c, dir := testCgroup(t)
	if _, err := c.readFile("cpu.pressure"); err != nil {
		_, err := c.NotifyPressure(t.Context(), PressureCPU, PressureTrigger{})
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "psi=1") {
			t.Errorf("a kernel without PSI: %v", err)
		}
		t.Skip("the kernel does not measure pressure")
	}
	if _, err := c.NotifyPressure(t.Context(), "disk", PressureTrigger{}); !errors.Is(err, ErrInvalidConfig) {
		t.Errorf("an unknown resource: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	trigger := PressureTrigger{Stall: 10 * time.Millisecond}
	mine, err := c.NotifyPressure(ctx, PressureCPU, trigger)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.NotifyPressure(t.Context(), PressureCPU, PressureTrigger{Stall: 9900 * time.Millisecond, Window: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	gone, err := c.NotifyMemoryPressure(t.Context(), trigger)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-mine:
		t.Error("pressure where nobody is")
	case <-time.After(300 * time.Millisecond):
	}

	// More that want to run than there are CPUs.
	began := time.Now()
	var busy []*os.Process
	for range 6 {
		p := startIn(t, dir, "while :; do :; done")
		busy = append(busy, p)
	}
	arrives(t, time.Minute, mine)
	arrives(t, time.Minute, mine)
	select {
	case <-other:
		if d := time.Since(began); d < 9900*time.Millisecond { // afterwards it may be its own
			t.Errorf("a notification for another's trigger after %v", d)
		}
	default:
	}
	for _, p := range busy {
		p.Kill()
		p.Wait()
	}
	cancel()
	for range mine {
	}

	if err := c.await(t.Context(), "cgroup.events", hasLine("populated 0")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for range gone { // closed
	}
	for range other {
	}
	if _, err := c.NotifyMemoryPressure(t.Context(), trigger); !errors.Is(err, ErrNotExist) || errors.Is(err, ErrUnsupported) {
		t.Errorf("a cgroup that is gone: %v", err)
	}
	if _, err := c.NotifyOOM(t.Context()); !errors.Is(err, ErrNotExist) || errors.Is(err, ErrUnsupported) {
		t.Errorf("a cgroup that is gone: %v", err)
	}
}

// startIn starts a shell in a cgroup.
func startIn(t testing.TB, dir, script string) *os.Process {
	t.Helper()
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", script}, &os.ProcAttr{Files: []*os.File{nil, nil, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		p.Wait()
	})
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(p.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestEventsPressureOff turns the measuring off for one cgroup, which takes the files away as psi=0 does, and on again.
func TestEventsPressureOff(t *testing.T) {
	c, _ := testCgroup(t)
	if err := c.writeFile("cgroup.pressure", "0"); err != nil {
		t.Skip(err) // before Linux 6.1
	}
	s, err := c.Stats()
	if err != nil || s.Pressure != nil {
		t.Errorf("%v, %s", err, asJSON(t, s))
	}
	_, err = c.NotifyMemoryPressure(t.Context(), PressureTrigger{})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "psi=1") || !strings.Contains(err.Error(), "memory.pressure") {
		t.Errorf("%v", err)
	}
	for _, on := range []string{"1", "0", "1"} {
		if err := c.writeFile("cgroup.pressure", on); err != nil {
			t.Fatal(err)
		}
		if s, err := c.Stats(); err != nil || (s.Pressure != nil) != (on == "1") {
			t.Errorf("with cgroup.pressure %s: %v, %s", on, err, asJSON(t, s))
		}
	}
}
