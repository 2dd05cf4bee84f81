package container

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The table agrees with golang.org/x/sys, on the architectures that have its numbering.
func TestSignalTable(t *testing.T) {
	for n, name := range signalNames {
		if n == 0 {
			continue
		}
		if got := unix.SignalNum("SIG" + name); int(got) != n {
			t.Errorf("SIG%s is %d in the table, %d in the header", name, n, got)
		}
	}
	for name, n := range signalAliases {
		if got := unix.SignalNum("SIG" + name); got != 0 && got != n {
			t.Errorf("SIG%s is %d in the table, %d in the header", name, n, got)
		}
	}
}
