//go:build linux

package leak

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file looks at processes: the children of this one, and its own threads and goroutines.

// processes lists the children of this process, zombies included, and the orphans in its process
// group: grandchildren whose parent is gone.
func processes([]string) []string {
	self, group := strconv.Itoa(os.Getpid()), strconv.Itoa(syscall.Getpgrp())
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var items []string
	for _, path := range stats {
		// "pid (name) state parent group ...", and the name may hold anything.
		content, _ := os.ReadFile(path)
		end := strings.LastIndexByte(string(content), ')')
		if end < 0 {
			continue // it has ended
		}
		f := strings.Fields(string(content[end+1:]))
		state, parent := f[0], f[1]
		// A dead orphan is for the system's init to reap, which may be slow.
		if parent == self || parent == "1" && f[2] == group && state != "Z" {
			items = append(items, string(content[:end+1]))
		}
	}
	return items
}

// threadState lists what differs between threads, or is shared by them and stays: namespaces,
// credentials, filters, signals, working directory, umask, where they may run. A library that moves the thread of its caller
// into another namespace and forgets it there adds an item.
func threadState([]string) []string { return threads(threadFields) }

func threads(fields []string) []string {
	var items []string
	tasks, _ := filepath.Glob("/proc/self/task/[0-9]*")
	for _, task := range tasks {
		links, _ := filepath.Glob(task + "/ns/*")
		for _, link := range append(links, task+"/cwd", task+"/root") {
			if target, err := os.Readlink(link); err == nil {
				items = append(items, filepath.Base(link)+" "+target)
			}
		}
		for _, line := range lines(task + "/status") {
			if key, _, _ := strings.Cut(line, ":"); slices.Contains(fields, key) {
				items = append(items, line)
			}
		}
		for _, name := range []string{"personality", "attr/current", "attr/exec"} {
			if text, err := os.ReadFile(task + "/" + name); err == nil {
				items = append(items, name+" "+strings.Trim(string(text), "\n\x00"))
			}
		}
	}
	return items
}

// threadFields are the fields of /proc/self/task/*/status that a library has no business to change.
var threadFields = []string{
	"Umask", "Uid", "Gid", "Groups", "SigIgn",
	"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
	"Cpus_allowed_list", "Mems_allowed_list",
}

// processState lists what all threads share: limits, the badness for the killer, the session's keyring, who is asked for
// orphans and may look in.
func processState([]string) []string {
	items := lines("/proc/self/limits")
	for _, name := range []string{"oom_score_adj", "coredump_filter", "setgroups", "uid_map", "gid_map", "sessionid", "loginuid"} {
		for _, line := range lines("/proc/self/" + name) {
			items = append(items, name+" "+line)
		}
	}
	if f := statFields("/proc/self/stat"); len(f) > 16 {
		items = append(items, "group and session "+f[2]+" "+f[3]+", terminal "+f[4]+", priority "+f[15]+", nice "+f[16])
	}
	if id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); err == nil {
		items = append(items, "session keyring "+strconv.Itoa(id))
	}
	return items
}

// options lists the attributes of prctl(2) that are all threads'. Not for Check: a child of os/exec with another user's Credential
// has the parent's memory until execve, and its change of user makes both not dumpable, as the kernel sees it.
func options() []string {
	var items []string
	for _, option := range []struct {
		name   string
		number int
	}{{"dumpable", unix.PR_GET_DUMPABLE}, {"keepcaps", unix.PR_GET_KEEPCAPS}, {"securebits", unix.PR_GET_SECUREBITS}} {
		if v, err := unix.PrctlRetInt(option.number, 0, 0, 0, 0); err == nil {
			items = append(items, option.name+" "+strconv.Itoa(v))
		}
	}
	return items
}

// statFields are those of /proc/PID/stat after the name.
func statFields(path string) []string {
	content, _ := os.ReadFile(path)
	return strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
}

// Caller lists what belongs to the caller of a library, and the library must leave as it is, for all that it opens and starts: the
// environment, what all threads share, and what each of them has. Signals are not for Check: Go's runtime blocks them in a thread that
// it is about to end.
func Caller() []string {
	items := slices.Concat(threads(append([]string{"SigBlk"}, threadFields...)), processState(nil), options(), os.Environ())
	slices.Sort(items)
	return slices.Compact(items)
}

var goroutineTrace = regexp.MustCompile(`(?s)^goroutine (\d+) .*\ncreated by (\S+).*\n\t(\S+)`)

// goroutines lists them by their number and the place that started them, leaving out those that
// the standard library starts once and keeps.
func goroutines([]string) []string {
	buf := make([]byte, 1<<16)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	var items []string
	for trace := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		m := goroutineTrace.FindStringSubmatch(trace)
		if m == nil || strings.HasPrefix(m[2], "testing.") || strings.HasPrefix(m[2], "os/signal.") ||
			strings.HasPrefix(m[2], "runtime.") {
			continue
		}
		items = append(items, m[1]+", started by "+m[2]+" at "+m[3])
	}
	return items
}
