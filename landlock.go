package container

import "strings"

// This file holds Landlock, the rights that a container gives up, as plain data, and its checks.

// Landlock is a sandbox in the sandbox: rights to files and networks that the container's processes give up
// for good, whatever their user and capabilities are; see landlock(7). It holds for the program, for those of Exec and for hooks of
// StartContainer, each by a sandbox of its own. It needs Linux 6.2 for files; what needs a newer one says so. What a process has open already it may use: its streams,
// its ExtraFiles, its working directory.
type Landlock struct {
	// ReadOnly, ReadWrite and Execute are files, or directories with all that is below, by their paths in the container, in which links are
	// followed: what may be read; what may be read, written, made, renamed and removed; and what may be read and executed. A path may be in several.
	// If all three are empty, rights to files are not restricted; else nothing else can be opened, made, removed or executed, not
	// even /dev/null. The program itself must be in Execute, and so must the loader that it names (/lib64/ld-linux-x86-64.so.2); its libraries
	// are read. Paths that do not exist are an error.
	//
	// What does not open a file is not restricted: stat(2), chdir(2), chmod(2), chown(2), connecting to a socket by its path. Since Linux
	// 6.10 ioctl(2) on a device needs ReadWrite, before that it needs none of these.
	ReadOnly  []string
	ReadWrite []string
	Execute   []string

	// RestrictTCP: only these ports can be bound and connected to, by TCP (Linux 6.7). Port 0 in BindTCP is any that
	// the kernel chooses. A socket that listens without having been bound gets such a port in any case.
	//
	// What becomes TCP and passes Landlock by is denied by rules in front of those of Config.Seccomp, or by a filter of their own if that
	// is nil: MPTCP (EPROTONOSUPPORT, upon which Go's net package takes TCP) and SMC, MSG_FASTOPEN (EOPNOTSUPP), and what no filter can
	// look into, io_uring and socketcall(2) of i386 (ENOSYS). No other protocol is restricted.
	RestrictTCP bool
	BindTCP     []uint16
	ConnectTCP  []uint16

	// NoAbstractSockets and NoSignals: no connections to abstract Unix sockets, and no signals, to processes
	// outside of the sandbox (Linux 6.12). Processes of Exec have another one than the container's first process.
	NoAbstractSockets bool
	NoSignals         bool

	// BestEffort: what the kernel does not know yet is left out. Without it that is an error.
	BestEffort bool
}

// files tells whether rights to files are restricted.
func (l *Landlock) files() bool { return len(l.ReadOnly)+len(l.ReadWrite)+len(l.Execute) > 0 }

func checkLandlock(c *Config) []error {
	l := c.Landlock
	if l == nil {
		return nil
	}
	var errs fieldErrors
	for _, list := range []struct {
		field string
		paths []string
	}{{"ReadOnly", l.ReadOnly}, {"ReadWrite", l.ReadWrite}, {"Execute", l.Execute}} {
		for i, path := range list.paths {
			if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) {
				errs.addf(index("Landlock."+list.field, i), "%q is not an absolute path", path)
			}
		}
	}
	if !l.RestrictTCP && len(l.BindTCP)+len(l.ConnectTCP) > 0 {
		errs.addf("Landlock.RestrictTCP", "must be set, else all ports can be used")
	}
	if !l.files() && !l.RestrictTCP && !l.NoAbstractSockets && !l.NoSignals {
		errs.addf("Landlock", "restricts nothing; leave it out")
	}
	return errs
}
