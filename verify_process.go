//go:build linux

package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/container/internal/launch"
	"golang.org/x/sys/unix"
)

// This file looks at a new process from outside, before anything of the container's runs in it, and again right after its
// execve: what the kernel shows must be what was asked for, whatever the launcher says that it has done. It runs in the caller's process.

// placeChecks look at where the process is, while the launcher sets up the rest.
var placeChecks = []func(*plan, *seenProcess) error{
	(*plan).checkSeenNamespaces,
	(*plan).checkSeenMaps,
	(*plan).checkSeenCgroup,
}

// finalChecks look at what it may do, when the launcher waits.
var finalChecks = []func(*plan, *seenProcess) error{
	(*plan).checkSeenPIDNamespace,
	(*plan).checkSeenRoot,
	(*plan).checkSeenUser,
	(*plan).checkSeenCapabilities,
	func(pl *plan, s *seenProcess) error { return s.checkNoNewPrivs(pl.noNewPrivileges()) },
}

// unlike is the error for what is not as it should be.
func unlike(what string, got, want any) error {
	return &Error{
		Op: "verify", Path: what,
		Err:    fmt.Errorf("%w: the kernel shows %v, and not %v", ErrVerify, got, want),
		Remedy: "the process has been killed; please report it, with the output of Explain",
	}
}

// verify looks at the launcher. The result is false if that has ended: it executes nothing any more, and why is its next message. So it is if
// nothing of it can be seen. What is not there is looked for again: a process that ends loses its namespaces a moment before it is seen to have ended, and
// of one that lives the kernel (6.18) says now and then, under load, that a link of /proc/PID/ns does not exist.
func (pl *plan) verify(pid int, checks []func(*plan, *seenProcess) error) (alive bool, err error) {
	for deadline := time.Now().Add(killPatience); ; time.Sleep(100 * time.Microsecond) {
		alive, err = pl.verifyOnce(pid, checks)
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) {
			return alive, err
		}
	}
}

func (pl *plan) verifyOnce(pid int, checks []func(*plan, *seenProcess) error) (alive bool, err error) {
	s, err := seeProcess(pid)
	if err != nil {
		return false, onlyScarce(err)
	}
	defer s.close()
	for _, check := range checks {
		if err := check(pl, s); err != nil {
			if s.ended() {
				return false, nil
			}
			return false, err
		}
	}
	return true, nil
}

// look answers the messages that ask for a look.
func (s *starting) look() error {
	tags := s.looking
	s.looking = nil
	for _, tag := range tags {
		checks := finalChecks
		if tag == tagPlaced {
			checks = placeChecks
		}
		alive, err := s.verify(s.firstPid(), checks)
		if err != nil {
			return err
		}
		if tag == tagVerify {
			at("launcher: verified")
			s.verified = alive || !s.firstEnded()
			if err := s.goOn(); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstEnded tells whether the first process has ended, which may be all that the caller can see of it: with the option hidepid of procfs an
// ordinary user sees nobody who is not dumpable.
func (s *starting) firstEnded() bool {
	if s.innerPid == 0 {
		return s.child.Ended()
	}
	return launch.Ended(s.innerFD)
}

// hidden tells that the caller may not look: an ordinary user sees neither namespaces nor the root of who is not dumpable.
func hidden(err error) bool { return errors.Is(err, fs.ErrPermission) }

// checkSeenNamespaces: what is to be new is not the caller's, what is joined is the one that was opened.
func (pl *plan) checkSeenNamespaces(s *seenProcess) error {
	own, err := unix.Open("/proc/thread-self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &Error{Op: "verify", Path: "/proc/thread-self/ns", Err: err}
	}
	defer unix.Close(own)
	its, err := unix.Openat(s.dir, "ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return waitedFor(&fs.PathError{Op: "open", Path: "/proc/PID/ns", Err: err})
	}
	defer unix.Close(its)
	for _, k := range namespaceKinds {
		if !pl.has(k.kind) {
			continue
		}
		there, err := namespaceAt(its, k.kind)
		if hidden(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if want, known := pl.joined[k.kind]; known {
			if there != want {
				return unlike("Namespaces.Join", k.kind, "the one to join")
			}
			continue
		}
		if here, err := namespaceAt(own, k.kind); err != nil {
			return err
		} else if there == here {
			return unlike(newFieldName(k.kind), "the caller's "+string(k.kind)+" namespace", "another")
		}
	}
	return nil
}

// checkSeenPIDNamespace: a process in a PID namespace further down has a number in each, which can be seen by everybody.
func (pl *plan) checkSeenPIDNamespace(s *seenProcess) error {
	if has := s.field("NSpid"); pl.has(PIDNamespace) && len(strings.Fields(has)) < 2 {
		return unlike(newFieldName(PIDNamespace), "process "+has, "a process of another PID namespace")
	}
	return nil
}

// has tells whether the process is in a namespace that is not the caller's.
func (pl *plan) has(kind NamespaceKind) bool {
	if pl.into != nil {
		for _, k := range namespaceKinds {
			if k.kind == kind {
				return pl.into.flags&k.flag != 0
			}
		}
	}
	_, joined := pl.joined[kind]
	return joined || pl.cfg.Namespaces.isNew(kind)
}

// checkSeenRoot: a directory is that directory, anything else is at least not the caller's root.
func (pl *plan) checkSeenRoot(s *seenProcess) error {
	if pl.into != nil || !pl.cfg.Namespaces.NewMnt {
		return nil // known by the mount namespace
	}
	its, err := s.id("root/")
	if hidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if pl.rootDir == (fileID{}) {
		if host, err := idAt(unix.AT_FDCWD, "/"); err != nil || host == its {
			return cmp.Or(err, unlike("Root", "the caller's root", "the container's"))
		}
		return nil
	}
	if its == pl.rootDir {
		return nil
	}
	if now, err := idAt(unix.AT_FDCWD, pl.cfg.Root.Dir); err == nil && now == its { // a link to it has been changed meanwhile
		return nil
	}
	return unlike("Root", "another directory", pl.cfg.Root.Dir)
}

func (pl *plan) checkSeenMaps(s *seenProcess) error {
	if pl.userns == usernsNone || pl.userns == usernsJoined {
		return nil
	}
	for _, m := range []struct {
		field, file string
		want        []IDMap
	}{{"UidMappings", "uid_map", pl.uidMaps}, {"GidMappings", "gid_map", pl.gidMaps}} {
		text, err := s.file(m.file)
		if err != nil {
			return err
		}
		has, err := parseIDMap(strings.NewReader(text))
		if err != nil {
			return err
		}
		if !slices.Equal(joinRanges(has), joinRanges(m.want)) {
			return unlike(m.field, has, m.want)
		}
	}
	return nil
}

func (pl *plan) checkSeenCgroup(s *seenProcess) error {
	if pl.cgroup == nil {
		return nil
	}
	text, err := s.file("cgroup")
	if err != nil {
		return err
	}
	if has, _ := parseOwnCgroup(strings.NewReader(text)); has != pl.cgroup.Name() {
		return unlike("Cgroup", has, pl.cgroup.Name())
	}
	return nil
}

// checkSeenUser looks at all four of each: real, effective, saved, file system.
func (pl *plan) checkSeenUser(s *seenProcess) error {
	if pl.userns == usernsJoined {
		return nil
	}
	for _, id := range []struct {
		field string
		find  func(uint32) (uint32, bool)
		id    uint32
	}{{"Uid", pl.hostUid, pl.user.uid}, {"Gid", pl.hostGid, pl.user.gid}} {
		host, _ := id.find(id.id)
		has, want := strings.Fields(s.field(id.field)), strconv.FormatUint(uint64(host), 10)
		if len(has) != 4 || slices.ContainsFunc(has, func(h string) bool { return h != want }) {
			return unlike("User", id.field+" "+strings.Join(has, " "), want)
		}
	}
	return nil
}

// checkSeenCapabilities: with a filter and without no_new_privs the launcher keeps CAP_SYS_ADMIN up to execve, which takes it.
func (pl *plan) checkSeenCapabilities(s *seenProcess) error {
	known := uint64(1)<<(lastCap()+1) - 1
	want, kept := pl.launcherCaps(), uint64(0)
	if pl.keepsAdmin() {
		kept = 1 << unix.CAP_SYS_ADMIN
	}
	for _, c := range []struct {
		name       string
		want, kept uint64
	}{
		{"CapBnd", want.bounding, 0}, {"CapInh", want.inheritable, 0}, {"CapAmb", want.ambient, 0},
		{"CapPrm", want.permitted, kept}, {"CapEff", want.effective, kept},
	} {
		if has := s.bits(c.name) &^ c.kept; has != c.want&known&^c.kept {
			return unlike("Capabilities", fmt.Sprintf("%s %#x", c.name, has), fmt.Sprintf("%#x", c.want&known))
		}
	}
	return nil
}

// checkNoNewPrivs: a caller that has it passes it on.
func (s *seenProcess) checkNoNewPrivs(want bool) error {
	if has := s.field("NoNewPrivs"); want && has != "1" {
		return unlike("NoNewPrivileges", has, 1)
	}
	return nil
}

// startVerified is start with a look at the process when it runs.
func (pl *plan) startVerified(ctx context.Context, tempDir string, fault *launch.Fault) (*started, error) {
	s, err := pl.start(ctx, tempDir, fault)
	if err != nil {
		return nil, err
	}
	if err := s.verifyRunning(pl); err != nil {
		s.discard()
		if errors.Is(err, launch.ErrDied) {
			err = diedError(s.liveProcess)
		}
		return nil, err
	}
	return s, nil
}

// verifyRunning looks at the process, which has executed the program.
func (s *started) verifyRunning(pl *plan) error {
	return pl.whenRunning().verify(s.pid, func() bool { return sendTo(s.pidfd, 0) == nil })
}

// A runningCheck is what must be seen of a process when it has executed its program: what exists from then on only, and cannot be
// taken back, but for a label that the policy lets the program change. All else it may have changed by the time that it is looked at.
type runningCheck struct {
	NoNewPrivileges bool `json:"noNewPrivileges,omitempty"`
	// Filters is how many seccomp filters there are at least; 0 if none was asked for.
	Filters int `json:"filters,omitempty"`
	// AppArmor is a label, of one profile or several that are stacked; Selinux a context. Empty if none was asked for.
	AppArmor string `json:"appArmor,omitempty"`
	Selinux  string `json:"selinux,omitempty"`
	// Init: the program's process is a child of this one.
	Init bool `json:"init,omitempty"`
}

// whenRunning is the check for the plan's process.
func (pl *plan) whenRunning() runningCheck {
	r := runningCheck{
		NoNewPrivileges: pl.noNewPrivileges(),
		Init:            pl.cfg.Init && pl.into == nil,
	}
	if pl.filter != nil {
		inherited, _ := ownFilters()
		r.Filters = inherited + 1
	}
	r.AppArmor, r.Selinux = pl.labels.appArmor, pl.labels.selinux
	if pl.labels.stack {
		if s, err := seeProcess(os.Getpid()); err == nil {
			own, _ := s.appArmor()
			s.close()
			r.AppArmor += stacked + own
		}
	}
	return r
}

// verify looks at a process that has executed its program. One that is gone, and waited for by its supervisor, does no harm any more; stillThere
// tells whether the number has been its own all the time. One that still bears the launcher's name is about to execute its program, or to end.
func (r runningCheck) verify(pid int, stillThere func() bool) error {
	for deadline := time.Now().Add(killPatience); ; time.Sleep(100 * time.Microsecond) {
		err := r.look(pid)
		if err != nil && !scarce(err) && !stillThere() {
			return nil
		}
		if !errors.Is(err, errStillLauncher) || time.Now().After(deadline) {
			return err
		}
	}
}

// errStillLauncher is seen of a process that has neither executed its program nor ended.
var errStillLauncher = fmt.Errorf("%w: it is in the launcher still", ErrVerify)

func (r runningCheck) look(pid int) error {
	s, err := seeProcess(pid)
	if err != nil {
		return onlyScarce(err) // it is gone, or hidden: see firstEnded
	}
	defer s.close()
	if !r.Init {
		return r.lookAtProgram(s)
	}
	if err := s.checkNoNewPrivs(r.NoNewPrivileges); err != nil {
		return err
	}
	// Whatever the reaper has for children is the program, or comes of it, or of another that was executed in the container.
	text, err := s.file("task/" + strconv.Itoa(pid) + "/children")
	if err != nil {
		return onlyScarce(err)
	}
	for child := range strings.FieldsSeq(text) {
		n, _ := strconv.Atoi(child)
		c, cerr := seeProcess(n)
		if cerr == nil {
			cerr = r.lookAtProgram(c)
			c.close()
		}
		if cerr == nil {
			return nil
		}
		if !errors.Is(cerr, fs.ErrNotExist) && !hidden(cerr) {
			err = cerr
		}
	}
	return err
}

// isLauncher tells whether the process bears the launcher's name, which execve takes from it.
func (s *seenProcess) isLauncher() bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(s.status, "Name:\t"), "\n")
	return name == launch.ProcessName
}

func (r runningCheck) lookAtProgram(s *seenProcess) error {
	const filters = "2"
	if s.isLauncher() {
		if s.ended() && s.isLauncher() {
			return &Error{Op: "start", Err: launch.ErrDied}
		}
		return &Error{Op: "verify", Err: errStillLauncher, Remedy: "the process has been killed; please report it"}
	}
	mode := s.field("Seccomp")
	if n, _ := strconv.Atoi(s.field("Seccomp_filters")); r.Filters > 0 && (mode != filters || n < r.Filters) {
		return unlike("Seccomp", fmt.Sprintf("mode %s, %d filters", mode, n), fmt.Sprintf("mode %s, %d filters", filters, r.Filters))
	}
	if err := r.lookAtLabels(s); err != nil {
		return err
	}
	return s.checkNoNewPrivs(r.NoNewPrivileges)
}

func (r runningCheck) lookAtLabels(s *seenProcess) error {
	if r.AppArmor != "" || r.Selinux != "" {
		s.awaitExec()
	}
	if r.AppArmor != "" {
		has, err := s.appArmor()
		if err != nil {
			return err
		}
		if !r.sameAppArmor(has) {
			return unlike("AppArmorProfile", has, r.AppArmor)
		}
	}
	if r.Selinux != "" {
		has, err := s.file("attr/current")
		if err != nil {
			return err
		}
		if has = strings.TrimRight(has, "\n\x00"); has != r.Selinux {
			return unlike("SelinuxLabel", has, r.Selinux)
		}
	}
	return nil
}

func (r runningCheck) sameAppArmor(label string) bool {
	return maps.Equal(profilesOf(label), profilesOf(r.AppArmor))
}
