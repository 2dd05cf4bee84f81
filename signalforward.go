package container

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// This file passes signals of the caller's on to a process. It runs in the caller's process, and in
// it only between Start and Stop: signal.Notify changes what a signal does to the whole program.

// Signaler is what signals are forwarded to: a Container, a Process.
type Signaler interface {
	Signal(syscall.Signal) error
}

// SignalForwarder forwards the signals that this program gets. As long as it is started they do
// nothing else to the program but what others ask for by signal.Notify. It is safe for concurrent use.
//
// A process that is number 1 of its PID namespace gets only the signals that it handles; see
// pid_namespaces(7).
type SignalForwarder struct {
	to      Signaler
	signals []os.Signal

	mu   sync.Mutex
	got  chan os.Signal // nil while it is stopped
	done chan struct{}
}

// ownSignals are never forwarded, each for a reason.
var ownSignals = map[syscall.Signal]string{
	4: fault, 5: fault, 6: fault, 7: fault, 8: fault, 11: fault, 16: fault, 31: fault,
	9: cannotBeCaught, 19: cannotBeCaught,
	13: "tells that a pipe of this program has no reader",
	17: "tells of a child of this program",
	18: jobControl, 20: jobControl, 21: jobControl, 22: jobControl,
	23: "is how the Go runtime preempts goroutines",
	26: timer, 27: timer,
	32: "belongs to the threads of the C library", 33: "belongs to the threads of the C library",
}

const (
	fault          = "tells of a fault in this program"
	cannotBeCaught = "cannot be caught"
	jobControl     = "is the shell's, which stops and continues this program"
	timer          = "is a timer of this program, such as that of its profiler"
)

// sigWinch is SIGWINCH: the size of the caller's terminal has changed.
const sigWinch = syscall.Signal(28)

// ForwardedSignals returns what NewSignalForwarder takes if it is given no signals: all of signal(7) but
// those that are this program's own, such as SIGCHLD, SIGPIPE, SIGURG and SIGTSTP, and SIGWINCH, which
// an attached terminal sees to by itself.
func ForwardedSignals() []syscall.Signal {
	var list []syscall.Signal
	for sig := syscall.Signal(1); sig <= sigRTMax; sig++ {
		if ownSignals[sig] == "" && sig != sigWinch {
			list = append(list, sig)
		}
	}
	return list
}

// NewSignalForwarder returns a forwarder of these signals; of none, those of ForwardedSignals. It
// returns a FieldError for a signal that must not be forwarded, such as SIGCHLD.
func NewSignalForwarder(to Signaler, signals ...syscall.Signal) (*SignalForwarder, error) {
	var errs fieldErrors
	if to == nil {
		errs.addf("to", "is nil; give a Container or a Process")
	}
	if len(signals) == 0 {
		signals = ForwardedSignals()
	}
	f := &SignalForwarder{to: to}
	for i, sig := range signals {
		switch reason := ownSignals[sig]; {
		case sig < 1 || sig > sigRTMax:
			errs.addf(index("signals", i), "%d is no signal; the numbers are 1 to %d", int(sig), sigRTMax)
		case reason != "":
			errs.addf(index("signals", i), "%s cannot be forwarded: it %s", signalName(sig), reason)
		}
		f.signals = append(f.signals, sig)
	}
	if err := errs.join(); err != nil {
		return nil, err
	}
	return f, nil
}

// ForwardSignals forwards signals to a process until stop is called. It is NewSignalForwarder and Start.
// Call it when the process has been started: before that it gets none.
func ForwardSignals(to Signaler, signals ...syscall.Signal) (stop func(), err error) {
	f, err := NewSignalForwarder(to, signals...)
	if err != nil {
		return nil, err
	}
	f.Start()
	return f.Stop, nil
}

// Start begins to forward. It does nothing if that has begun.
func (f *SignalForwarder) Start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.got != nil {
		return
	}
	got, done := make(chan os.Signal, 64), make(chan struct{})
	f.got, f.done = got, done
	signal.Notify(got, f.signals...)
	go func() {
		defer close(done)
		for sig := range got {
			f.ForwardSignal(sig.(syscall.Signal)) // to nobody, if the process has ended
		}
	}()
}

// Stop ends forwarding: the signals mean to the program what they meant before. When it returns, nothing
// more is sent. It may be called again, and Start after it.
func (f *SignalForwarder) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.got == nil {
		return
	}
	signal.Stop(f.got)
	close(f.got)
	<-f.done
	f.got = nil
}

// ForwardSignal sends a signal as if this program had got it. SIGWINCH is not sent to a process with a
// terminal that the caller is attached to; its terminal is given the size of the caller's, and then the
// kernel sends it. It returns ErrNotRunning if there is no process.
func (f *SignalForwarder) ForwardSignal(sig syscall.Signal) error {
	if reason := ownSignals[sig]; reason != "" {
		return &Error{Op: "forward", Path: signalName(sig), Err: errors.New("it " + reason)}
	}
	if sig == sigWinch {
		if to, ok := f.to.(interface{ followSize() bool }); ok && to.followSize() {
			return nil
		}
	}
	return f.to.Signal(sig)
}
