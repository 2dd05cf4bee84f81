//go:build linux

package container

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// This file makes a scope of systemd's for a container:
//
//	<slice>/container-ID-xxxxxxxx.scope    systemd's, delegated to the caller
//	    keeper                             the process that the scope was made for
//	    container                          the container's cgroup
//
// What is below the scope systemd leaves alone, also when it reloads its configuration, and what an ordinary user has made there is
// that user's, with all files. The other half of the conversation is in systemd_bus.go.

// A unitProperty is "(sv)" of D-Bus.
type unitProperty struct {
	Name  string
	Value dbus.Variant
}

// auxiliaryUnit is "(sa(sv))": a unit to be made with another. There are none.
type auxiliaryUnit struct {
	Name       string
	Properties []unitProperty
}

// properties are those of the scope.
//
// Unlike others we leave DefaultDependencies on: where there is no daemon, nobody but systemd ends the containers when the host is shut
// down, and it should do so when it ends the services, not last of all. Limits are not systemd's business, but for the one that it sets unasked.
func (p *cgroupPlace) properties(pid int, grace time.Duration) []unitProperty {
	property := func(name string, value any) unitProperty { return unitProperty{name, dbus.MakeVariant(value)} }
	return []unitProperty{
		property("Description", "container "+strings.TrimSuffix(strings.TrimPrefix(p.Unit, "container-"), ".scope")),
		property("Slice", p.Slice),
		property("PIDs", []uint32{uint32(pid)}),
		property("Delegate", true),
		property("TasksMax", uint64(math.MaxUint64)),                // else DefaultTasksMax holds
		property("CollectMode", "inactive-or-failed"),               // no unit stays when it is over, however it ended
		property("TimeoutStopUSec", uint64(grace/time.Microsecond)), // between SIGTERM and SIGKILL
	}
}

// makeScope is prepare.
func (p *cgroupPlace) makeScope(ctx context.Context, recordDir string, grace time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	s, err := dialSystemd(ctx, p.User)
	if err != nil {
		return err
	}
	defer s.close()
	k, err := startKeeper(recordDir)
	if err != nil {
		return err
	}
	defer k.release()
	at("scope: keeper")
	err = s.job(ctx, "StartTransientUnit", p.Unit, "fail", p.properties(k.id.Pid, grace), []auxiliaryUnit{})
	if isBusError(err, "UnitExists") {
		return p.scopeError(err) // not ours
	}
	defer func() {
		if err != nil {
			k.release()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), systemdPatience)
			defer cancel()
			err = errors.Join(err, p.removeScope(ctx))
		}
	}()
	if err != nil {
		return p.scopeError(err)
	}
	at("scope: made")
	scope := cgroupOf(k.id.Pid)
	if path.Base(scope) != p.Unit {
		return p.scopeError(fmt.Errorf("systemd has put the process into %q", scope))
	}
	tree, err := findCgroupTree()
	if err != nil {
		return err
	}
	if err := tree.moveBelow(scope, scopeKeeper, k.id.Pid); err != nil {
		return err
	}
	at("scope: keeper moved")
	if err := k.stay(); err != nil {
		return p.scopeError(err)
	}
	at("scope: keeper stays")
	p.Parent, p.Top, p.Keeper = scope, scope, k.id
	return nil
}

// moveBelow makes a child of a cgroup and moves a process there.
func (t cgroupTree) moveBelow(cgroup, name string, pid int) error {
	dir, err := t.open(cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	child := path.Join(cgroup, name)
	if err := unix.Mkdirat(int(dir.Fd()), name, 0o755); err != nil && err != unix.EEXIST {
		return mkdirError(child, err)
	}
	return (&Cgroup{dir: dir, path: cgroup}).writeFile(name+"/cgroup.procs", strconv.Itoa(pid))
}

// scopeError completes an error of systemd's.
func (p *cgroupPlace) scopeError(err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: "systemd scope", Path: p.Unit, Err: err}
	switch ctl := p.systemctl(); {
	case isBusError(err, "UnitExists"):
		e.Err, e.Remedy = fmt.Errorf("%w: %w", os.ErrExist, err), ctl+" stop "+p.Unit
	case errors.Is(err, context.DeadlineExceeded):
		e.Remedy = "systemd does not answer, or is busy: " + ctl + " list-jobs"
	case strings.Contains(err.Error(), "ended with"):
		e.Remedy = ctl + " status " + p.Unit
	}
	return e
}

func (p *cgroupPlace) systemctl() string {
	if p.User {
		return "systemctl --user"
	}
	return "systemctl"
}

// removeScope is release. It works without systemd, too: that may have ended with the user's last session, and its scopes with it.
func (p *cgroupPlace) removeScope(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	// A reader of the record may be another than who made it, and meanwhile the number another's.
	if err := killKeeper(p.Keeper); err != nil {
		return p.scopeError(err)
	}
	s, dialErr := dialSystemd(ctx, p.User)
	if dialErr == nil {
		defer s.close()
		if err := s.stop(ctx, p.Unit); err != nil {
			return p.scopeError(err)
		}
	}
	if p.Parent == "" { // a keeper that was not told to stay has ended, and the scope with it
		if errors.Is(dialErr, errNoManager) {
			return nil
		}
		return dialErr
	}
	tree, err := findCgroupTree()
	if err != nil {
		return err
	}
	for {
		dir, err := tree.open(p.Parent)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		dir.Close()
		select {
		case <-ctx.Done():
			return errors.Join(p.scopeError(fmt.Errorf("its cgroup %s is still there: %w", p.Parent, ctx.Err())), dialErr)
		case <-time.After(time.Millisecond):
		}
	}
}

// stop ends a unit with all its processes, if it is there.
func (s *systemdConn) stop(ctx context.Context, unit string) error {
	err := s.call(ctx, "KillUnit", unit, "all", int32(unix.SIGKILL)).Err
	if err == nil || !isBusError(err, "NoSuchUnit") {
		err = s.job(ctx, "StopUnit", unit, "replace")
	}
	if isBusError(err, "NoSuchUnit") {
		return nil
	}
	return err
}

// attach moves a process into the cgroup, or one below it, where the caller itself may not; see canBear. The cgroup is there.
func (p *cgroupPlace) attach(ctx context.Context, pid int, below string) error {
	if p.Manager != CgroupSystemd {
		return &Error{Op: "cgroup", Path: path.Join(p.path(), below), Err: unix.EACCES, Remedy: "the caller may not move processes in the cgroup that is above its own and this one; " +
			"start it in a cgroup that has been delegated together with this one, or set Cgroup.Manager to CgroupSystemd"}
	}
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	s, err := dialSystemd(ctx, p.User)
	if err != nil {
		return err
	}
	defer s.close()
	to := path.Join("/", p.Name, below)
	if err := s.call(ctx, "AttachProcessesToUnit", p.Unit, to, []uint32{uint32(pid)}).Err; err != nil {
		return p.scopeError(fmt.Errorf("move process %d to %s: %w", pid, to, err))
	}
	if got := cgroupOf(pid); got != path.Join(p.Parent, to) {
		return p.scopeError(fmt.Errorf("systemd has put process %d into %q", pid, got))
	}
	return nil
}

// userUnitDelegates asks the user's systemd whether it has given a unit its cgroup. A systemd that does not answer has not.
func userUnitDelegates(unit string) bool {
	kind := "Service"
	if strings.HasSuffix(unit, ".scope") {
		kind = "Scope"
	}
	ctx, cancel := context.WithTimeout(context.Background(), systemdPatience)
	defer cancel()
	s, err := dialSystemd(ctx, true)
	if err != nil {
		return false
	}
	defer s.close()
	var object dbus.ObjectPath
	if s.call(ctx, "GetUnit", unit).Store(&object) != nil {
		return false
	}
	delegates, err := s.conn.Object(systemdName, object).GetProperty(systemdName + "." + kind + ".Delegate")
	given, _ := delegates.Value().(bool)
	return err == nil && given
}
