//go:build linux

package container

import (
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// This file ends a start that has failed. It runs in the caller's process.

// abort kills what there is and waits for it.
func (s *starting) abort() {
	s.network.stop()
	if s.supervised() {
		s.abortSupervised()
		return
	}
	if s.forks() && !s.waiting {
		// A failure of the child may be here before its number is.
		for s.innerPid == 0 {
			msg, err := s.child.Next()
			msg.File.Close() // also if it is nil
			if err == io.EOF || err == nil && msg.Tag == tagPid && s.setInner(int(msg.Value)) != nil {
				break
			}
			if err == nil && (msg.Tag == tagMaps || msg.Tag == tagAdopt) {
				break // it has not forked, and waits for what nobody will tell it
			}
		}
	}
	s.child.Process().Kill()
	s.child.Process().Wait()
	if s.innerPid != 0 {
		unix.PidfdSendSignal(s.innerFD, unix.SIGKILL, nil, 0)
		if live, err := newLiveProcess(s.innerPid, s.innerFD); err == nil {
			live.reap()
			live.pidfd.Close()
		}
	}
	s.child.Release()
}

// abortSupervised kills whatever children the supervisor has, until it has none and ends.
func (s *starting) abortSupervised() {
	ended := make(chan struct{})
	go func() {
		s.child.Process().Wait()
		close(ended)
	}()
	s.child.CloseSocket() // ends one that waits for us
	for {
		killChildren(s.child.Process().Pid)
		select {
		case <-ended:
			if s.innerPid != 0 {
				unix.Close(s.innerFD)
			}
			s.exit.Close()
			s.child.Release()
			return
		case <-time.After(time.Millisecond):
		}
	}
}
