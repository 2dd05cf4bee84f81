//go:build linux

package leak

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"example.com/container/internal/testenv"
)

// This file knows where the things of this machine are listed that a container may leave behind.
// What cannot be read is passed over: the same is missing before and after.

// kinds are the things a snapshot lists. The items of a kind must be the same text as long as it
// is the same thing.
var kinds = []struct {
	name  string
	items func(dirs []string) []string
}{
	{"nft table", nftTables}, // first: it starts a program
	{"descriptor", descriptors},
	{"mount", mounts},
	{"process", processes},
	{"cgroup", cgroups},
	{"interface", interfaces},
	{"network namespace", networkNamespaces},
	{"file", files},
	{"thread has", threadState},
	{"process has", processState},
	{"environment", func([]string) []string { return os.Environ() }},
	{"goroutine", goroutines},
}

// descriptors lists the open files of this process. A memfd, a namespace and a pidfd show as such.
func descriptors([]string) []string {
	entries, _ := os.ReadDir("/proc/self/fd")
	var items []string
	for _, e := range entries {
		// The descriptor that ReadDir used is closed by now and has no target.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			items = append(items, e.Name()+" -> "+target)
		}
	}
	return items
}

// mounts lists the mounts of this mount namespace; see proc_pid_mountinfo(5).
func mounts([]string) []string {
	var items []string
	for _, line := range lines("/proc/self/mountinfo") {
		about, kind, _ := strings.Cut(line, " - ")
		if f := strings.Fields(about); len(f) > 4 {
			items = append(items, f[4]+" (id "+f[0]+", of "+f[3]+" in "+kind+")")
		}
	}
	return items
}

// cgroups lists the cgroups below that of this process, but for the one that callers have made room in.
func cgroups([]string) []string {
	own, err := testenv.CgroupDir()
	if err != nil {
		return nil
	}
	var items []string
	filepath.WalkDir(own, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() != "container-callers" {
			items = append(items, path)
		}
		return nil
	})
	return items
}

// interfaces lists the network interfaces of this network namespace.
func interfaces([]string) []string {
	links, _ := net.Interfaces()
	var items []string
	for _, l := range links {
		items = append(items, l.Name)
	}
	return items
}

// networkNamespaces lists those that have a name, as ip-netns(8) gives it. Others are held by a
// process, a descriptor or a mount.
func networkNamespaces([]string) []string {
	entries, _ := os.ReadDir("/run/netns")
	var items []string
	for _, e := range entries {
		items = append(items, e.Name())
	}
	return items
}

// nftProgram is the path of nft, if this process may use it.
var nftProgram = sync.OnceValue(func() string {
	if os.Geteuid() != 0 {
		return ""
	}
	return testenv.LookPath("nft")
})

// nftTables lists the tables of nftables in this network namespace.
func nftTables([]string) []string {
	if nftProgram() == "" {
		return nil
	}
	out, err := exec.Command(nftProgram(), "list", "tables").Output()
	if err != nil {
		return nil
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// files lists all below the directories.
func files(dirs []string) []string {
	var items []string
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if d != nil && path != dir {
				items = append(items, path+" "+d.Type().String())
			}
			return nil
		})
	}
	return items
}

// lines returns the lines of a file.
func lines(path string) []string {
	content, _ := os.ReadFile(path)
	return strings.FieldsFunc(string(content), func(r rune) bool { return r == '\n' })
}
