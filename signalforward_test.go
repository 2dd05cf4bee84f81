//go:build linux

package container

import (
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"example.com/container/internal/leak"
	"golang.org/x/sys/unix"
)

// signalSink takes signals.
type signalSink chan syscall.Signal

func (s signalSink) Signal(sig syscall.Signal) error { s <- sig; return nil }

func (s signalSink) next(t testing.TB) syscall.Signal {
	t.Helper()
	select {
	case sig := <-s:
		return sig
	case <-time.After(30 * time.Second):
		t.Fatal("no signal")
		return 0
	}
}

func TestSignalForward(t *testing.T) {
	leak.Check(t)
	own := make(chan os.Signal, 8) // without a forwarder these would end the test
	signal.Notify(own, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(own)
	sink := make(signalSink, 8)
	f, err := NewSignalForwarder(sink, unix.SIGUSR1, unix.SIGHUP, 40)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		f.Start()
		f.Start()
		for _, sig := range []syscall.Signal{unix.SIGUSR1, 40, unix.SIGHUP} {
			unix.Kill(os.Getpid(), sig)
			if got := sink.next(t); got != sig {
				t.Errorf("%v instead of %v", got, sig)
			}
		}
		unix.Kill(os.Getpid(), unix.SIGUSR2) // not asked for
		f.Stop()
		f.Stop()
		unix.Kill(os.Getpid(), unix.SIGUSR1)
		for range 3 {
			<-own
		}
		select {
		case sig := <-sink:
			t.Errorf("%v is forwarded", sig)
		default:
		}
	}
}

func TestSignalForwardDefaults(t *testing.T) {
	list := ForwardedSignals()
	for _, sig := range []syscall.Signal{unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU, unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH, unix.SIGKILL, unix.SIGSTOP, unix.SIGSEGV, unix.SIGPROF, 32, 33} {
		if slices.Contains(list, sig) {
			t.Errorf("%v is forwarded", sig)
		}
	}
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGPWR, 34, 37, 64} {
		if !slices.Contains(list, sig) {
			t.Errorf("%v is not forwarded", sig)
		}
	}
	for _, sig := range []syscall.Signal{unix.SIGURG, unix.SIGCHLD, unix.SIGPIPE, unix.SIGTSTP, unix.SIGKILL, unix.SIGSEGV, 0, -1, 65} {
		_, err := NewSignalForwarder(make(signalSink), unix.SIGTERM, sig)
		if e, ok := errors.AsType[*FieldError](err); !ok || e.Field != "signals[1]" || !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("%v: %v", sig, err)
		}
	}
	if _, err := NewSignalForwarder(nil); err == nil {
		t.Error("to nobody")
	}
}

// A container's process gets it, and nobody when it has ended.
func TestSignalForwardToAContainer(t *testing.T) {
	leak.Check(t)
	r, w := pipe(t)
	p := lifeSh(`trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.01; done`)
	p.Stdout = w
	c := lifeStart(t, testConfig(t), p)
	w.Close()
	stop, err := ForwardSignals(c, unix.SIGUSR1)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	readLine(t, r)
	unix.Kill(os.Getpid(), unix.SIGUSR1)
	if exit, ok := errors.AsType[*ExitError](lifeWait(t, c.Wait)); !ok || exit.Code != 9 {
		t.Error(exit)
	}
	f, _ := NewSignalForwarder(p, unix.SIGUSR1)
	if err := f.ForwardSignal(unix.SIGUSR1); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	if err := f.ForwardSignal(unix.SIGWINCH); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
	if err := f.ForwardSignal(unix.SIGURG); err == nil || errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}
