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
// credentials, filters, working directory, umask. A library that moves the thread of its caller
// into another namespace and forgets it there adds an item.
func threadState([]string) []string {
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
			if key, _, _ := strings.Cut(line, ":"); slices.Contains(threadFields, key) {
				items = append(items, line)
			}
		}
	}
	return items
}

// threadFields are the fields of /proc/self/task/*/status that a library has no business to change.
var threadFields = []string{
	"Umask", "Uid", "Gid", "Groups", "SigIgn",
	"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
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
