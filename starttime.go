//go:build linux

package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file tells processes apart: a number alone means any process once it is used again; with the time that
// it was started at, and the boot that this counts from, it means one. It reads the caller's /proc.

// bootID names the current boot of the host; empty where the kernel does not tell.
var bootID = answered(func() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), onlyScarce(err)
})

// startTime is when a process was started, in clock ticks since boot; 0 if there is none or it is
// dead. It is field 22 of /proc/PID/stat, see proc(5). The error says that it cannot be known now.
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, onlyScarce(err)
	}
	return startTimeOf(string(text)), nil
}

// scarce tells whether an error says nothing about what was asked for, only that the caller has no more files or
// memory to ask with. A process that cannot be looked at for that reason is not a dead one.
func scarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// onlyScarce returns an error that is scarce. Any other means that there is no such thing.
func onlyScarce(err error) error {
	if scarce(err) {
		return err
	}
	return nil
}

// startTimeOf is the same for the text of such a file.
func startTimeOf(stat string) uint64 {
	_, start := parseStat(stat)
	return start
}

// parseStat reads the parent and the start time from /proc/PID/stat; start is 0 if the process is dead.
func parseStat(stat string) (parent int, start uint64) {
	// The second field, the name, may contain anything; what follows its last parenthesis does not.
	_, rest, ok := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "X" {
		return 0, 0
	}
	// A process whose first thread has ended looks like a dead one, but for the number of its threads.
	if threads := fields[17]; fields[0] == "Z" && (threads == "1" || threads == "0") {
		return 0, 0
	}
	parent, _ = strconv.Atoi(fields[1])
	start, _ = strconv.ParseUint(fields[19], 10, 64)
	return parent, start
}

// dies tells whether a process ends or has been sent SIGKILL; not whether it has ended.
func dies(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	return parseDying(string(text))
}

// parseDying is the same for the text of such a file.
func parseDying(stat string) bool {
	const exiting = 4 // PF_EXITING of include/linux/sched.h
	_, rest, _ := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if len(fields) < 29 {
		return false
	}
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	pending, _ := strconv.ParseUint(fields[28], 10, 64)
	return flags&exiting != 0 || pending&(1<<(unix.SIGKILL-1)) != 0
}

// ownStartTime is the start time of a process in the caller's time, of which the process itself has read
// seen: in a time namespace that is shifted by the difference of their clocks. See time_namespaces(7).
func ownStartTime(pid int, seen uint64) (uint64, error) {
	own, err := startTime(pid)
	if own == seen || own == 0 {
		return seen, err
	}
	its, err := bootOffset(strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	ours, err := bootOffset("self")
	if err != nil {
		return 0, err
	}
	const tick = 10_000_000 // ns; USER_HZ is 100 on every architecture with a launcher
	shift := (its - ours) / tick
	if diff := int64(own) + shift - int64(seen); -1 <= diff && diff <= 1 { // both are rounded
		return own, nil
	}
	return seen, nil
}

// bootOffset is the offset, in ns, of the boot clock of the time namespace that a process's children are in, which is
// its own once it has executed a program.
func bootOffset(process string) (int64, error) {
	text, err := os.ReadFile("/proc/" + process + "/timens_offsets")
	if err != nil {
		return 0, onlyScarce(err)
	}
	for line := range strings.Lines(string(text)) {
		var clock string
		var sec, nsec int64
		if n, _ := fmt.Sscan(line, &clock, &sec, &nsec); n == 3 && (clock == "boottime" || clock == "7") {
			return sec*1e9 + nsec, nil
		}
	}
	return 0, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
