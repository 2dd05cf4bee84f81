package container

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// The encodings agree with golang.org/x/sys, and the kernel takes them.
func TestSchedulerEncodings(t *testing.T) {
	if unix.SizeofSchedAttr != schedAttrSize {
		t.Errorf("struct sched_attr has %d bytes", unix.SizeofSchedAttr)
	}
	for i, want := range map[string]int{
		"cpu": unix.RLIMIT_CPU, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "memlock": unix.RLIMIT_MEMLOCK,
		"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "stack": unix.RLIMIT_STACK, "rttime": unix.RLIMIT_RTTIME,
		"fsize": unix.RLIMIT_FSIZE, "data": unix.RLIMIT_DATA, "rss": unix.RLIMIT_RSS, "locks": unix.RLIMIT_LOCKS,
		"sigpending": unix.RLIMIT_SIGPENDING, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "rtprio": unix.RLIMIT_RTPRIO,
	} {
		if got, err := (Rlimit{Type: i}).resource(); got != want || err != nil {
			t.Errorf("%s: got %d, %v; the header says %d", i, got, err, want)
		}
	}
	for policy, want := range map[string]uint32{
		"other": unix.SCHED_NORMAL, "fifo": unix.SCHED_FIFO, "rr": unix.SCHED_RR, "batch": unix.SCHED_BATCH,
		"idle": unix.SCHED_IDLE, "deadline": unix.SCHED_DEADLINE,
	} {
		s := Scheduler{Policy: policy, ResetOnFork: true}
		switch policy {
		case "fifo", "rr":
			s.Priority = 5
		case "deadline":
			s.Runtime, s.Deadline, s.Period = 1024, 2048, 4096
		}
		b, err := s.attr()
		if err != nil {
			t.Fatal(policy, err)
		}
		var got unix.SchedAttr
		if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, &got); err != nil {
			t.Fatal(policy, err)
		}
		want := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: want, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
			Priority: s.Priority, Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", policy, got, want)
		}
	}
}
