package container

import (
	"syscall"
	"testing"
)

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]syscall.Signal{
		"SIGTERM": 15, "term": 15, "Term": 15, "15": 15, "sigkill": 9, "HUP": 1, "1": 1, "64": 64, "015": 15,
		"SIGRTMIN": 34, "rtmin+3": 37, "RTMIN+0": 34, "SIGRTMIN+30": 64, "SIGRTMAX": 64, "RTMAX-1": 63, "RTMAX-30": 34,
		"SIGCLD": 17, "POLL": 29, "IOT": 6, "WINCH": 28,
		"": 0, "0": 0, "65": 0, "-1": 0, "+1": 0, "SIG": 0, "SIG15": 0, "SIGSIGTERM": 0, "FOO": 0, " TERM": 0, "TERM\n": 0,
		"RTMIN-1": 0, "RTMIN+31": 0, "RTMAX+1": 0, "RTMAX-31": 0, "RTMIN+": 0, "RTMIN+-1": 0, "RTMIN++1": 0, "RTMIN3": 0,
		"99999999999999999999": 0, "0x9": 0,
	} {
		got, err := ParseSignal(s)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v; want %d", s, got, err, want)
		}
		if err != nil {
			pureWantFields(t, err, "Signal")
		}
	}
	for n := syscall.Signal(1); n <= 64; n++ {
		if got, err := ParseSignal(signalName(n)); got != n || err != nil {
			t.Errorf("%d is %s, which is %d, %v", n, signalName(n), got, err)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	for _, s := range []string{"SIGTERM", "15", "RTMIN+3", "SIGRTMAX-1", "rtmin+99"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := ParseSignal(s)
		if err != nil {
			return
		}
		if again, err := ParseSignal(signalName(sig)); sig < 1 || sig > 64 || again != sig || err != nil {
			t.Fatalf("%q is %d, named %s, which is %d, %v", s, sig, signalName(sig), again, err)
		}
	})
}
