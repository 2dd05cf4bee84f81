//go:build linux

package container

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// This file checks what an ordinary user needs for more than one id in a container.

// checkSubordinateIDs: a range of ids for the caller, in both files.
func checkSubordinateIDs(h *host) CheckResult {
	if h.euid == 0 {
		return found("root can map any ids")
	}
	uid, gid, err := SubordinateIDs()
	if err != nil {
		var e *Error
		remedy := ""
		if errors.As(err, &e) {
			remedy = e.Remedy
		}
		return missing(remedy, "%s: only containers with a single id, and images with a single owner", problem(err))
	}
	return found("%d user ids and %d group ids besides the own ones", mappedIDs(uid[1:]), mappedIDs(gid[1:]))
}

// problem is an error's text without the remedy, which has a line of its own.
func problem(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

func mappedIDs(maps []IDMap) int {
	n := 0
	for _, m := range maps {
		n += m.Size
	}
	return n
}

// checkMapHelpers: the programs that write such maps, with the rights to do so.
func checkMapHelpers(h *host) CheckResult {
	const lost = "only containers with a single id"
	if h.euid == 0 {
		return found("not needed by root")
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil && bytes.Contains(status, []byte("\nNoNewPrivs:\t1\n")) {
		return missing("start this program without no_new_privs (for a systemd unit: NoNewPrivileges=no)",
			"this process has no_new_privs, so that setuid programs have no effect: %s", lost)
	}
	for _, name := range []string{"newuidmap", "newgidmap"} {
		path, err := findMapHelper(name)
		if err != nil {
			var e *Error
			errors.As(err, &e)
			return missing(e.Remedy, "%s is not there: %s", name, lost)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err == nil && fs.Flags&unix.ST_NOSUID != 0 {
			return missing("as root: mount -o remount,suid the file system of "+path,
				"%s is on a file system that is mounted nosuid: %s", path, lost)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return missing("look at "+path, "%s: %v", path, err)
		}
		_, capErr := unix.Getxattr(path, "security.capability", nil)
		if (st.Mode&unix.S_ISUID == 0 || st.Uid != 0) && capErr != nil {
			return missing("as root: chown root "+path+" && chmod u+s "+path,
				"%s is neither setuid root nor has it file capabilities: %s", path, lost)
		}
	}
	return found("with the rights they need")
}
