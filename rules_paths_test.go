package container

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// This file holds the rules about what others could lead elsewhere: paths, mounts, processes, sockets, and errors that do not say what
// went wrong. They are checked with those of rules_test.go.

// pathRules is the list of them.
var pathRules = []rule{
	{
		name:  "paths are the caller's, or the kernel's, or taken from a descriptor",
		check: rulePaths,
		allow: []allowance{
			{"internal/testenv/", "for tests"}, {"internal/leak/", "for tests"}, {"internal/guest/", "for tests"}, {"internal/bench/", "a program"}, {"examples/", "programs"},
			{"internal/seccomp/mktables/", "a program, for us"},
			{"internal/launch/", "the memfd, and in its place a file in a directory of the caller's"},
			{"cgroup_*.go", "the tree of cgroups, where the kernel has mounted it: from /proc/self/mountinfo"},
			{"check_*.go", "what the host can do: the kernel's files, the helpers of its own, and the directory of cgroups"},
			{"container.go", "the state directory, which checkStateDir has found to be the caller's"},
			{"state.go", "records: owner and mode are checked, and each file is opened without following links"},
			{"gate.go", "FIFOs of a record"},
			{"derive.go", "files of a record"},
			{"store*.go", "the store, whose directories are the caller's own; layers in it are reached by openRoot"},
			{"network_files.go", "the host's resolv.conf"},
			{"network_store*.go", "the directory of networks, which is the caller's own and nobody else's to write"},
			{"nat_ports.go", "the same"},
			{"nat_lock.go", "the same"},
			{"unpack_owner.go", "the store's directory of a layer, its top"},
			{"load.go", "an archive or a layout of the caller's; what is in a layout goes through os.Root, and blobs are verified"},
			{"publish_socket.go", "the directory of a published socket, which the caller names; what is in it is opened without following links"},
			{"net_sysctl.go", "the kernel's parameters, below /proc/sys/net, by names of devices"},
			{"network_connect.go", "the directory of networks, which openNetworkStore has found to be the caller's"},
			{"spec.go", "the bundle of the caller's"},
			{"start.go", "Root.Upper of the caller's; /proc"},
			{"rootfs.go", "the top of the root and of its layers, which are the caller's paths"},
			{"rootview.go", "the same, opened once; all below goes by openat2"},
			{"hostroot.go", "the host's own tree"},
			{"mount_plan.go", "the sources of binds, which are the caller's; namespaces to join"},
			{"namespace_plan.go", "namespaces to join, which the caller names"},
			{"plan_join.go", "the same, below /proc/PID, whose start time is compared afterwards"},
			{"nsenter.go", "programs of the host's PATH, and /proc"},
			{"dev.go", "devices of the host's, by the paths that the caller gives"},
			{"lsm_plan.go", "the caller's /proc, whose type is checked"},
			{"members.go", "/proc/PID, whose start time is compared afterwards"},
			{"userns.go", "/proc/PID, of a child that has not been waited for"},
			{"idmap_*.go", "the same, and the directories of PATH"},
			{"subid.go", "/etc/subuid and /etc/subgid of the host"},
			{"dns_upstream.go", "the host's own resolv.conf"},
			{"stats_container.go", "/proc/PID, whose start time is compared afterwards"},
		},
		faults: 17,
		bad: `import ("os"; "path/filepath"; "golang.org/x/sys/unix")
			func f(root, name string, fd int, how *unix.OpenHow) {
				os.Open(root); os.ReadFile(filepath.Join(root, "etc/passwd")); os.MkdirAll(root+"/proc", 0); os.Stat(name); os.OpenInRoot(root, name)
				unix.Lstat(root, nil); unix.Chmod(root, 0); filepath.EvalSymlinks(root); os.DirFS(root); os.RemoveAll(root); g := os.Lstat; _ = g
				unix.Openat(fd, name, unix.O_RDONLY, 0); unix.Openat(fd, "etc/passwd", 0, 0); unix.Openat2(fd, name, how); unix.Mkdirat(unix.AT_FDCWD, name, 0)
				unix.Fchmodat(fd, name, 0, 0); unix.Fchownat(fd, name, 0, 0, 0)
			}`,
		good: `import ("os"; "fmt"; "golang.org/x/sys/unix")
			func f(pid, name string, fd int) {
				os.Open("/proc/self/status"); os.ReadFile("/proc/" + pid + "/stat"); os.ReadFile(fmt.Sprintf("/proc/%d/stat", 1)); os.OpenFile(os.DevNull, 0, 0)
				unix.Chmod(fdPath(fd), 0); unix.Openat(fd, name, unix.O_NOFOLLOW, 0); unix.Openat(fd, ".", 0, 0)
				how := unix.OpenHow{Resolve: unix.RESOLVE_BENEATH}; unix.Openat2(fd, name, &how); unix.Linkat(unix.AT_FDCWD, fdPath(fd), fd, name, 0)
				dir := "/sys/kernel/" + name; os.Stat(dir); unix.Fchownat(fd, "", 0, 0, unix.AT_EMPTY_PATH); unix.Mkdirat(fd, name, 0)
			}`,
	},
	{
		name:  "mounts go from descriptor to descriptor",
		check: ruleMounts,
		allow: []allowance{
			{"overlay.go", "options longer than a page, for which fsconfig has no room before Linux 6.5; on a directory of ours"},
			{"hooks_plan.go", "the host's directory where hooks look for the root, before anybody else is in the namespace"},
		},
		faults: 6,
		bad: `import "golang.org/x/sys/unix"
			func f(e *emitter) { e.Call(unix.SYS_MOUNT); e.Call(unix.SYS_CHROOT); e.Call(unix.SYS_UMOUNT2, name)
				e.Call(unix.SYS_MOVE_MOUNT, mnt, e.Str("x"), at, e.Str(""), unix.MOVE_MOUNT_F_EMPTY_PATH)
				e.Call(unix.SYS_OPEN, e.Str(name)); e.Call(unix.SYS_OPENAT, dir, e.Str(name)) }`,
		good: `import "golang.org/x/sys/unix"
			func f(e *emitter) { e.Call(unix.SYS_MOVE_MOUNT, mnt, e.Str(""), at, e.Str(""), unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
				here := e.Str("."); e.Call(unix.SYS_UMOUNT2, here, 0); e.Call(unix.SYS_OPENAT2, dir, name, how) }`,
	},
	{
		name:  "processes are known by descriptor",
		check: rulePidfds,
		allow: []allowance{
			{"start.go", "its own child, or who has the launcher's socket says so, and what that has become is verified; it has not been waited for"},
			{"nsenter.go", "a child of its own that nobody else waits for"},
			{"hooks_run.go", "a child of its own; it is not collected"},
			{"hooks_plan.go", "in the launcher: a child of its own, and its group"},
			{"reaper.go", "in the launcher: process 1 knows its only child, and collects orphans"},
			{"supervisor.go", "in the launcher: it has one child"},
			{"members.go", "its start time is compared afterwards"},
			{"seccomp_call.go", "the kernel is asked afterwards whether the process still waits for its answer"},
			{"wait.go", "the same"},
			{"check_*.go", "asks whether the kernel has them, with its own number"},
			{"examples/", "programs"},
		},
		faults: 9,
		bad: `import ("os"; "golang.org/x/sys/unix")
			func f(e *emitter, pid int) { os.FindProcess(pid); unix.Wait4(pid, nil, 0, nil); unix.Waitid(unix.P_PID, pid, nil, 0, nil); unix.PidfdOpen(pid, 0)
				e.Call(unix.SYS_KILL, pid); e.Call(unix.SYS_TGKILL, pid); e.Call(unix.SYS_WAIT4, -1); e.Call(unix.SYS_WAITID, unix.P_ALL); unix.PtraceAttach(pid) }`,
		good: `import "golang.org/x/sys/unix"
			func f(fd int) { unix.Waitid(unix.P_PIDFD, fd, nil, 0, nil); unix.PidfdSendSignal(fd, 0, nil, 0) }`,
	},
	{
		name:  "errors say what was done",
		check: ruleErrors,
		allow: []allowance{
			{"internal/", "not the public package: the caller wraps them"}, {"examples/", "programs"},
		},
		faults: 5,
		bad: `import ("errors"; "fmt")
			func F() error { if x { return errors.New("bad") }; for { return fmt.Errorf("bad: %v", 1) } }
			func (T) M() (int, error) { return 0, errors.New("bad") }
			func (t) m() { panic("no") }
			var NotFound = errors.New("not found")`,
		good: `import ("errors"; "fmt")
			func F() error { g := func() error { return errors.New("inner") }; return fmt.Errorf("what: %w", g()) }
			func f() error { return errors.New("inner") }
			func (t) M() error { return errors.New("inner") }
			// ErrX is known.
			var ErrX = errors.New("x")
			var errY = errors.New("y")
			func (T) M() error { return &Error{Err: errors.New("why")} }`,
	},
	{
		name:  "no abstract sockets, no names that others can guess",
		check: ruleNames,
		allow: []allowance{
			{"internal/bench/", "a program"}, {"examples/", "programs"},
			{"port_probe.go", "a port is bound to see whether it can be had, and nobody can connect to it"},
			{"publish_way.go", "a socket of a container's gets its client's address there, and no port that could be connected to"},
			{"publish_socket.go", "the socket that the caller publishes, under a random name until it is recorded"},
			{"check_*.go", "gives the launcher a directory to fall back to, where the file is made without a name"},
		},
		faults: 12,
		bad: `import ("fmt"; "net"; "os"; "time"; "golang.org/x/sys/unix"; "math/rand"; "path/filepath")
			func f(r record, dir string) { net.Listen("unix", "@x"); net.Dial("unix", "\x00x"); unix.Bind(1, nil); net.ListenUnix("unix", nil)
				os.Create(fmt.Sprintf("%s/%d", dir, os.Getpid())); os.Mkdir(filepath.Join(dir, time.Now().String()), 0); os.OpenFile(dir+fmt.Sprint(rand.Int()), 0, 0)
				unix.Mkfifo(dir+fmt.Sprint(os.Getpid()), 0); os.Create("/tmp/x"); os.ReadFile("/var/tmp/x"); os.TempDir(); os.Open(r.path("state.json")) }`,
		good: `import ("os"; "golang.org/x/sys/unix")
			func f(r record, dir string) { os.MkdirTemp(dir, ""); os.CreateTemp(dir, ".tmp-*"); os.OpenFile(r.path("x"), unix.O_NOFOLLOW, 0); unix.Open(r.dir, unix.O_NOFOLLOW, 0); os.ReadFile("/proc/self/status") }`,
	},
}

// pathCalls are the functions that follow a path, which is the first argument. The second list are those of a directory's descriptor and a
// path below it that follow links in the last place: what they are told there must not be somebody else's.
var pathCalls = map[string][]string{
	"os": {"Open", "OpenFile", "Create", "Mkdir", "MkdirAll", "Remove", "RemoveAll", "Rename", "Symlink", "Link", "Readlink", "Chmod", "Chown", "Lchown", "Chtimes", "Stat", "Lstat",
		"ReadFile", "WriteFile", "ReadDir", "DirFS", "OpenRoot", "OpenInRoot", "Truncate", "CopyFS"},
	"path/filepath": {"EvalSymlinks", "Walk", "WalkDir", "Glob"},
	"syscall": {"Open", "Creat", "Stat", "Lstat", "Chmod", "Chown", "Lchown", "Mkdir", "Mknod", "Mkfifo", "Rename", "Link", "Symlink", "Unlink", "Rmdir", "Readlink", "Truncate", "Access", "Statfs",
		"Setxattr", "Getxattr", "Lsetxattr", "Lgetxattr", "Listxattr", "Llistxattr", "Removexattr", "Lremovexattr", "Utimes", "UtimesNano", "NameToHandleAt"},
}

var atCalls = []string{"Openat", "Openat2", "Mkdirat", "Mknodat", "Unlinkat", "Symlinkat", "Linkat", "Renameat", "Renameat2", "Readlinkat", "Fchmodat", "Fchownat", "Fstatat", "Statx", "Faccessat", "Faccessat2", "UtimesNanoAt"}

func rulePaths(s *source) {
	called := map[ast.Node]bool{}
	s.each(func(n ast.Node) {
		if call, ok := n.(*ast.CallExpr); ok {
			pkg, name := s.qualified(call.Fun)
			if isSyscall(pkg) {
				pkg = "syscall"
			}
			switch {
			case len(call.Args) == 0:
			case slices.Contains(pathCalls[pkg], name):
				called[call.Fun] = true
				if !s.trusted(call.Args[0], 8) {
					s.complain(n, "%s.%s follows a path that may be somebody else's; open it below a descriptor", path.Base(pkg), name)
				}
			case pkg == "syscall" && slices.Contains(atCalls, name) && len(call.Args) > 1:
				s.checkAt(call, name)
			}
			return
		}
		pkg, name := s.qualified(n)
		if isSyscall(pkg) {
			pkg = "syscall"
		}
		if slices.Contains(pathCalls[pkg], name) && !called[n] {
			s.complain(n, "%s.%s is handed on as a value, where its path cannot be seen", path.Base(pkg), name)
		}
	})
}

// checkAt looks at a call with the descriptor of a directory.
func (s *source) checkAt(call *ast.CallExpr, name string) {
	here := mentions(call.Args[0], func(name string) bool { return name == "AT_FDCWD" })
	follows := func(flag string) bool { return !mentions(call, func(name string) bool { return name == flag }) }
	text, literal := s.text(call.Args[1])
	switch {
	case here && !s.trusted(call.Args[1], 8):
		s.complain(call, "%s follows a path that may be somebody else's", name)
	case here, literal && (text == "" || text == "." || text == ".."):
	case name == "Openat" && follows("O_NOFOLLOW"):
		s.complain(call, "Openat without O_NOFOLLOW")
	case name == "Openat2" && !mentions(call, func(name string) bool { return strings.HasPrefix(name, "RESOLVE_") }):
		s.complain(call, "Openat2 without RESOLVE_")
	case (name == "Fchmodat" || name == "Fchownat" || name == "UtimesNanoAt") && follows("AT_SYMLINK_NOFOLLOW") && follows("AT_EMPTY_PATH"):
		s.complain(call, "%s follows a link", name)
	}
}

// text returns the value of a string literal.
func (s *source) text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// trusted tells whether a path is one of the kernel's or of the host's own: it begins with such a literal; or it names a descriptor.
func (s *source) trusted(e ast.Expr, depth int) bool {
	if depth == 0 {
		return false
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := s.text(e)
		return slices.ContainsFunc([]string{"/proc", "/sys", "/run/systemd", "/etc/sub", "/dev/null"}, func(p string) bool { return strings.HasPrefix(text, p) }) || text == "/"
	case *ast.BinaryExpr:
		return s.trusted(e.X, depth-1)
	case *ast.ParenExpr:
		return s.trusted(e.X, depth-1)
	case *ast.SelectorExpr:
		pkg, name := s.qualified(e)
		return pkg == "os" && name == "DevNull"
	case *ast.CallExpr:
		if id, ok := e.Fun.(*ast.Ident); ok && slices.Contains([]string{"fdPath", "namespacePath"}, id.Name) {
			return true
		}
		pkg, name := s.qualified(e.Fun)
		if pkg == "fmt" && name == "Sprintf" && len(e.Args) > 0 {
			return s.trusted(e.Args[0], depth-1)
		}
	case *ast.Ident:
		if e.Obj == nil {
			return false
		}
		switch d := e.Obj.Decl.(type) {
		case *ast.AssignStmt:
			return len(d.Lhs) == 1 && len(d.Rhs) == 1 && s.trusted(d.Rhs[0], depth-1)
		case *ast.ValueSpec:
			return len(d.Values) == 1 && s.trusted(d.Values[0], depth-1)
		}
	}
	return false
}

func ruleMounts(s *source) {
	s.each(func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok || !isMethod(s, call, "Call") || len(call.Args) == 0 {
			return
		}
		has := func(name string) bool { return mentions(call, func(n string) bool { return n == name }) }
		switch _, name := s.qualified(call.Args[0]); name {
		case "SYS_MOUNT", "SYS_CHROOT", "SYS_OPEN", "SYS_OPENAT", "SYS_CREAT":
			s.complain(n, "%s goes by path", name)
		case "SYS_UMOUNT2":
			if len(call.Args) < 2 || !holds(s, call.Args[1], ".") {
				s.complain(n, "SYS_UMOUNT2 of something else than the working directory")
			}
		case "SYS_MOVE_MOUNT":
			if !has("MOVE_MOUNT_F_EMPTY_PATH") || !has("MOVE_MOUNT_T_EMPTY_PATH") && !holds(s, call.Args[len(call.Args)-2], "/") {
				s.complain(n, "SYS_MOVE_MOUNT by path")
			}
		}
	})
}

// holds tells whether the string stands in an expression, or in what that got in this file.
func holds(s *source, e ast.Expr, want string) (found bool) {
	look := func(n ast.Node) bool {
		if x, ok := n.(ast.Expr); ok {
			if text, literal := s.text(x); literal && text == want {
				found = true
			}
		}
		return !found
	}
	ast.Inspect(e, look)
	if id, ok := e.(*ast.Ident); ok && id.Obj != nil {
		if d, ok := id.Obj.Decl.(*ast.AssignStmt); ok {
			ast.Inspect(d, look)
		}
	}
	return found
}

func rulePidfds(s *source) {
	s.each(func(n ast.Node) {
		pkg, name := s.qualified(n)
		switch {
		case pkg == "os" && name == "FindProcess", isSyscall(pkg) && (name == "Wait4" || name == "PidfdOpen" || strings.HasPrefix(name, "Ptrace")),
			isSyscall(pkg) && slices.Contains([]string{"SYS_KILL", "SYS_TKILL", "SYS_TGKILL", "SYS_WAIT4", "SYS_WAITID"}, name):
			s.complain(n, "uses %s.%s: a number may be another process by now", path.Base(pkg), name)
		}
		if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
			if pkg, name := s.qualified(call.Fun); isSyscall(pkg) && name == "Waitid" && !isText(call.Args[0], "P_PIDFD") {
				s.complain(n, "waits by number")
			}
		}
	})
}

func ruleErrors(s *source) {
	bare := func(e ast.Expr) bool {
		call, ok := e.(*ast.CallExpr)
		if !ok {
			return false
		}
		pkg, name := s.qualified(call.Fun)
		if pkg == "errors" && name == "New" {
			return true
		}
		if pkg != "fmt" || name != "Errorf" || len(call.Args) == 0 {
			return false
		}
		text, literal := s.text(call.Args[0])
		return literal && !strings.Contains(text, "%w")
	}
	for _, decl := range s.Decls {
		switch d := decl.(type) {
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && len(v.Values) == 1 && bare(v.Values[0]) && !strings.HasPrefix(strings.ToLower(v.Names[0].Name), "err") {
					s.complain(v, "%s is an error, and its name does not say so", v.Names[0].Name)
				}
			}
		case *ast.FuncDecl:
			// What reads a form of text is called by a decoder, which says where.
			exported := d.Name.IsExported() && !strings.HasPrefix(d.Name.Name, "Unmarshal") && (d.Recv == nil || exportedReceiver(d))
			ast.Inspect(d, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncLit:
					return false
				case *ast.ReturnStmt:
					if exported && slices.ContainsFunc(n.Results, bare) {
						s.complain(n, "%s returns an error without a type, or without what it comes from", d.Name.Name)
					}
				case *ast.CallExpr:
					if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "panic" {
						s.complain(n, "panics in the caller's process")
					}
				}
				return true
			})
		}
	}
}

func ruleNames(s *source) {
	guessable := func(n ast.Node) (found bool) {
		ast.Inspect(n, func(n ast.Node) bool {
			pkg, name := s.qualified(n)
			found = found || pkg == "os" && name == "Getpid" || pkg == "time" && name == "Now" || strings.HasPrefix(pkg, "math/rand")
			return !found
		})
		return found
	}
	record := func(e ast.Expr) bool { // r.dir, r.path(...)
		call, ok := e.(*ast.CallExpr)
		if ok {
			e = call.Fun
		}
		sel, isSel := e.(*ast.SelectorExpr)
		if !isSel || sel.Sel.Name != map[bool]string{true: "path", false: "dir"}[ok] {
			return false
		}
		id, isID := sel.X.(*ast.Ident)
		inner, isInner := sel.X.(*ast.SelectorExpr)
		return isID && id.Name == "r" || isInner && inner.Sel.Name == "record"
	}
	s.each(func(n ast.Node) {
		if e, ok := n.(ast.Expr); ok {
			if text, literal := s.text(e); literal && (strings.HasPrefix(text, "/tmp/") || strings.HasPrefix(text, "/var/tmp/")) {
				s.complain(n, "%q is everybody's", text)
			}
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		pkg, name := s.qualified(call.Fun)
		switch {
		case pkg == "net" && (strings.HasPrefix(name, "Listen") || strings.HasPrefix(name, "Dial")), isSyscall(pkg) && name == "Bind":
			s.complain(n, "a socket with a name, which others can take or connect to; pass descriptors")
		case pkg == "os" && name == "TempDir":
			s.complain(n, "a directory of everybody's")
		case len(call.Args) > 0 && (pkg == "os" || isSyscall(pkg)) && slices.Contains([]string{"Create", "Mkdir", "MkdirAll", "OpenFile", "WriteFile", "Mkfifo", "Mknod", "Open", "Symlink", "Rename"}, name) && guessable(call.Args[0]):
			s.complain(n, "a name that others can guess; use os.MkdirTemp")
		case len(call.Args) > 0 && (pkg == "os" && (name == "Open" || name == "ReadFile" || name == "OpenFile") || isSyscall(pkg) && name == "Open") && record(call.Args[0]) &&
			!mentions(call, func(name string) bool { return name == "O_NOFOLLOW" }):
			s.complain(n, "opens a record without O_NOFOLLOW")
		}
	})
}
