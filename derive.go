//go:build linux

package container

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file asks the kernel what has become of the process that a record speaks of. It runs in the caller's process.

// created is when the container was made; zero if the record cannot be read. It returns ErrNotExist if there is
// no container.
func (r record) created() (time.Time, error) {
	var s stored
	err := r.read("state.json", &s)
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(r.path("state.json")); lerr != nil {
			return time.Time{}, ErrNotExist
		}
	}
	if err != nil {
		return time.Time{}, onlyScarce(err)
	}
	return s.Created, nil
}

// launched reads what the launcher has written about itself, once it has.
func (r record) launched(s *stored) (bool, error) {
	text, err := r.text(startFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	boot, rest, _ := strings.Cut(string(text), "\n")
	stat, mount, ok := strings.Cut(rest, "\n") // the name in it is the launcher's, which has no line end
	number, _, _ := strings.Cut(stat, " ")
	pid, err := strconv.Atoi(number)
	if err != nil || !ok {
		return false, nil
	}
	if s.StartTime, err = ownStartTime(pid, startTimeOf(stat)); err != nil {
		return false, err
	}
	s.Pid, s.BootID = pid, boot
	if len(mount) == 8 {
		s.MountNamespaceID = binary.NativeEndian.Uint64([]byte(mount))
	}
	return true, nil
}

// interrupted looks for a start that nobody has recorded the success of, and turns s into what would
// have been recorded. What waits at the gate, or is on its way there, is left of a Create; it can be
// destroyed or created again.
func (r record) interrupted(s *stored) error {
	launched, err := r.launched(s)
	if err != nil || !launched {
		return onlyScarce(err) // it did not come that far, so nothing of the user's has run
	}
	if _, err := os.Lstat(r.path(goFile)); err == nil {
		return nil
	}
	s.Status = StatusRunning
	if info, err := os.Stat(r.path(startFile)); err == nil {
		s.Started = info.ModTime()
	}
	return nil
}

// derive asks the kernel about the process.
func (r record) derive(s *stored) error {
	alive, err := s.alive()
	if err != nil {
		return err
	}
	held := false
	if s.Status == StatusCreated && alive {
		if held, err = r.held(); err != nil {
			return err
		}
	}
	switch {
	case s.Status == StatusStopped:
	case s.Status == StatusCreating && alive, held:
		return nil
	case s.Status == StatusCreating:
	case alive:
		s.Status = StatusRunning
		return nil
	default:
		s.Status, s.ExitCode = StatusStopped, unknownExit
		if err := r.readExit(s); err != nil {
			return err
		}
		s.OOMKilled = s.ExitSignal == unix.SIGKILL && s.countsOOM()
	}
	s.Pid = 0
	return nil
}

// alive tells whether the first process is alive.
func (s *stored) alive() (bool, error) {
	if s.Pid <= 0 || s.StartTime == 0 {
		return false, nil
	}
	boot, err := bootID()
	if err != nil || boot != s.BootID {
		return false, err
	}
	start, err := startTime(s.Pid)
	return start == s.StartTime, err
}

// launcher is what the launcher has written about itself, whatever state.json says.
func (r record) launcher() (*stored, error) {
	s := &stored{ContainerState: ContainerState{Status: StatusCreating}}
	if _, err := r.launched(s); scarce(err) {
		return nil, err
	}
	return s, r.derive(s)
}
