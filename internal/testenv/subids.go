//go:build linux

package testenv

import (
	"bufio"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// This file asks for subordinate ids.

// SubIDs is a range of subordinate ids for this user, and the programs that put them into the maps
// of a user namespace.
var SubIDs = Requirement{Name: "subids", Probe: sync.OnceValue(probeSubIDs)}

func probeSubIDs() error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	// A child that does nothing but wait for its standard input to end holds a user namespace.
	holder := exec.Command("cat")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	stdin, err := holder.StdinPipe()
	if err != nil {
		return err
	}
	if err := holder.Start(); err != nil {
		return missing("see the requirement userns", "no user namespace: %v", err)
	}
	defer holder.Wait()
	defer stdin.Close()

	pid := strconv.Itoa(holder.Process.Pid)
	for _, m := range []struct{ program, file, flag, own string }{
		{"newuidmap", "/etc/subuid", "--add-subuids", me.Uid},
		{"newgidmap", "/etc/subgid", "--add-subgids", me.Gid},
	} {
		program := LookPath(m.program)
		if program == "" {
			return missing(install("uidmap"), "there is no program %s", m.program)
		}
		first, count := subRange(m.file, me)
		if count == 0 {
			return missing("usermod "+m.flag+" 100000-165535 "+me.Username,
				"%s has no line for %s", m.file, me.Username)
		}
		out, err := exec.Command(program, pid, "0", m.own, "1", "1", first, strconv.Itoa(count)).CombinedOutput()
		if err != nil {
			return missing("see "+m.file, "%s: %s", m.program, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// subRange returns the first range of ids that a file like /etc/subuid gives to the user.
func subRange(file string, who *user.User) (first string, count int) {
	f, err := os.Open(file)
	if err != nil {
		return "", 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 3 || fields[0] != who.Username && fields[0] != who.Uid {
			continue
		}
		if n, err := strconv.Atoi(fields[2]); err == nil && n > 0 {
			return fields[1], n
		}
	}
	return "", 0
}
