package container

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// This file names signals. It is a pure function over a table, and compiles on every system.

// signalNames is indexed by the signal's number on all architectures that this package has a
// launcher for; see signal(7).
var signalNames = [...]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1",
	11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD", 18: "CONT", 19: "STOP", 20: "TSTP",
	21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH", 29: "IO", 30: "PWR",
	31: "SYS",
}

// signalAliases are the other names that are in use.
var signalAliases = map[string]syscall.Signal{"IOT": 6, "CLD": 17, "POLL": 29, "INFO": 30, "UNUSED": 31}

// The real-time signals as the C library counts them, and so the names in unit files and images: the
// kernel's first two, 32 and 33, are the threading library's own.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal turns a name or number into a signal of Linux: "SIGTERM", "term", "15", "RTMIN+3",
// "SIGRTMAX-1". The numbers are 1 to 64.
func ParseSignal(s string) (syscall.Signal, error) {
	fail := func() (syscall.Signal, error) {
		return 0, fieldErrorf("Signal", "unknown signal %q; use a name of signal(7), \"RTMIN+3\", or a number from 1 to %d", s, sigRTMax)
	}
	if isDigits(s) {
		n, err := parseDecimal(s, sigRTMax)
		if err != nil || n == 0 {
			return fail()
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig, ok := signalAliases[name]; ok {
		return sig, nil
	}
	for n, known := range signalNames {
		if name == known && known != "" {
			return syscall.Signal(n), nil
		}
	}
	for _, rt := range []struct {
		prefix, sign string
		from, step   int
	}{{"RTMIN", "+", sigRTMin, 1}, {"RTMAX", "-", sigRTMax, -1}} {
		rest, ok := strings.CutPrefix(name, rt.prefix)
		if !ok {
			continue
		}
		if rest == "" {
			return syscall.Signal(rt.from), nil
		}
		digits, ok := strings.CutPrefix(rest, rt.sign)
		n, err := parseDecimal(digits, sigRTMax-sigRTMin)
		if !ok || err != nil {
			return fail()
		}
		return syscall.Signal(rt.from + rt.step*int(n)), nil
	}
	return fail()
}

// signalName returns the name that ParseSignal takes: "SIGTERM", "SIGRTMIN+3", or a number.
func signalName(sig syscall.Signal) string {
	switch n := int(sig); {
	case n > 0 && n < len(signalNames):
		return "SIG" + signalNames[n]
	case n == sigRTMin:
		return "SIGRTMIN"
	case n > sigRTMin && n <= sigRTMax:
		return fmt.Sprintf("SIGRTMIN+%d", n-sigRTMin)
	default:
		return strconv.Itoa(n)
	}
}

// isDigits tells whether s consists of decimal digits.
func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
