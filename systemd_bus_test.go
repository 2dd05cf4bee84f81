//go:build linux

package container

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/container/internal/testenv"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// A fakeSystemd is on a bus of its own and answers as it is told: a true one does not fail on demand.
type fakeSystemd struct {
	conn *dbus.Conn
	how  string

	mu      sync.Mutex
	stopped []string
}

func (f *fakeSystemd) Subscribe() *dbus.Error { return nil }

func (f *fakeSystemd) StartTransientUnit(name, mode string, properties []unitProperty, aux []auxiliaryUnit) (dbus.ObjectPath, *dbus.Error) {
	fail := func(kind string) (dbus.ObjectPath, *dbus.Error) {
		return "", dbus.NewError(kind, []any{"as the test has it"})
	}
	switch f.how {
	case "exists":
		return fail(systemdName + ".UnitExists")
	case "refused":
		return fail("org.freedesktop.DBus.Error.AccessDenied")
	case "hangup":
		f.conn.Close()
		return "/", nil
	case "silent":
		return "/job/1", nil
	}
	f.removed("/job/0", "other.scope", "failed") // another's
	f.removed("/job/1", name, f.how)
	return "/job/1", nil
}

func (f *fakeSystemd) KillUnit(name, whom string, signal int32) *dbus.Error { return nil }

func (f *fakeSystemd) StopUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	f.stopped = append(f.stopped, name)
	f.mu.Unlock()
	if f.how == "stop fails" {
		f.removed("/job/2", name, "timeout")
	} else {
		f.removed("/job/2", name, "done")
	}
	return "/job/2", nil
}

func (f *fakeSystemd) GetUnit(name string) (dbus.ObjectPath, *dbus.Error) {
	return "", dbus.NewError(systemdName+".NoSuchUnit", nil)
}

func (f *fakeSystemd) removed(job dbus.ObjectPath, unit, result string) {
	f.conn.Emit(systemdPath, systemdManager+".JobRemoved", uint32(1), job, unit, result)
}

// ownBus starts a bus of the test's own, which is the session bus for it.
func ownBus(t *testing.T) (address string, stop func()) {
	t.Helper()
	testenv.Need(t, testenv.Program("dbus-daemon", "dbus-daemon"))
	dir := t.TempDir()
	address = "unix:path=" + filepath.Join(dir, "bus")
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(`<busconfig><type>session</type><listen>`+address+`</listen><auth>EXTERNAL</auth>
		<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--config-file="+config)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", filepath.Join(dir, "bus"))
		if err == nil {
			c.Close()
			return address, stop
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func startFakeSystemd(t *testing.T, how string) *fakeSystemd {
	t.Helper()
	address, _ := ownBus(t)
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f := &fakeSystemd{conn: conn, how: how}
	if err := conn.Export(f, systemdPath, systemdManager); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName(systemdName, 0); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return f
}

// Whatever systemd answers, the error tells it, and neither a keeper nor a unit stays.
func TestCgroupPlaceScopeFails(t *testing.T) {
	for _, tt := range []struct {
		how, want string
		is        error
		started   bool
	}{
		{"exists", "stop demo.scope", fs.ErrExist, false},
		{"refused", "as the test has it", nil, false},
		{"failed", `"failed"`, nil, true},
		{"timeout", `"timeout"`, nil, true},
		{"done", "systemd has put the process into", nil, true}, // but it is where it was
		{"silent", "does not answer", context.DeadlineExceeded, true},
		{"hangup", "", nil, false},
	} {
		t.Run(tt.how, func(t *testing.T) {
			f := startFakeSystemd(t, tt.how)
			before := keepers(t)
			patience := time.Minute
			if tt.is == context.DeadlineExceeded {
				patience = 5 * time.Second // enough to come so far that it is asked
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			p := cgroupPlace{Manager: CgroupSystemd, Name: scopeChild, Unit: "demo.scope", Slice: "user.slice", User: true}
			err := p.prepare(ctx, t.TempDir(), time.Second)
			var e *Error
			if err == nil || !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v", err)
			}
			t.Log(err)
			if p.Parent != "" || p.Keeper.Pid != 0 {
				t.Errorf("%+v", p)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if tt.started && !slices.Equal(f.stopped, []string{"demo.scope"}) || tt.how == "exists" && f.stopped != nil {
				t.Errorf("stopped: %q", f.stopped)
			}
			for deadline := time.Now().Add(time.Minute); !slices.Equal(keepers(t), before); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("keepers: %v, before %v", keepers(t), before)
				}
			}
		})
	}
}

// Without a manager there is no scope; with a bus that it is not on, neither. Release knows that nothing is left then.
func TestCgroupPlaceNoManager(t *testing.T) {
	if systemdRuns() {
		t.Skip("systemd runs here, and its own socket would be found after those of the test")
	}
	p := cgroupPlace{Manager: CgroupSystemd, Name: scopeChild, Unit: "demo.scope", Slice: "user.slice", User: true}
	ctx := context.Background()
	_, stop := ownBus(t)
	var e *Error
	if err := p.prepare(ctx, t.TempDir(), 0); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "not on this bus") || !errors.As(err, &e) || !strings.Contains(e.Remedy, "enable-linger") {
		t.Errorf("%v", err)
	}
	if err := p.release(ctx); err == nil { // there is a bus: who knows
		t.Error("released without systemd")
	}
	stop()
	err := p.prepare(ctx, t.TempDir(), 0)
	if !errors.Is(err, ErrUnsupported) || !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
	t.Log(err)
	if err := p.release(ctx); err != nil {
		t.Errorf("release: %v", err)
	}
	// One that listens and says nothing.
	dir := t.TempDir()
	l, err := net.Listen("unix", dir+"/bus")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+dir+"/bus")
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := p.prepare(short, t.TempDir(), 0); err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// The bus of another PID namespace would have systemd move another process.
func TestCgroupPlaceOtherPids(t *testing.T) {
	if address := os.Getenv(placeStage); address != "" {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
		if _, err := dialSystemd(context.Background(), true); !errors.Is(err, errOtherPids) {
			t.Errorf("%v", err)
		}
		return
	}
	testenv.Need(t, testenv.Root)
	startFakeSystemd(t, "done")
	runStage(t, os.Getenv("DBUS_SESSION_BUS_ADDRESS"), nil, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	})
}
