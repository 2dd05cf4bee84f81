package container

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file holds the rules that all code of this module but its tests keeps, and checks them on
// the syntax tree. Each rule comes with code that breaks it, which shows that the rule bites.

// rules is the list of them.
var rules = []rule{
	{
		name:  "unsafe only in files that say so",
		check: checkUnsafe,
		allow: []allowance{
			{"internal/launch/", "hands addresses of its program to the kernel"},
			{"*_unsafe.go", "the name says it"},
		},
		faults: 1,
		bad:    `import "unsafe"; var _ unsafe.Pointer`,
		good:   `import "safe"; var _ safe.Pointer`,
	},
	{
		name:   "no cgo, no linkname, no log",
		check:  checkImports,
		faults: 4,
		bad:    "import \"log\"; import \"C\"\n//go:linkname a b\nfunc a()\n//go:cgo_import_dynamic x",
		good:   `import "log/slog"; var _ = slog.Default`,
	},
	{
		name:  "no other programs",
		check: checkPrograms,
		allow: []allowance{
			{"internal/launch/", "starts the launcher"},
			{"idmap_*.go", "newuidmap and newgidmap, which are setuid"},
			{"nsenter.go", "prlimit, setpriv and nsenter of the host, in place of the launcher"},
			{"hooks_run.go", "hooks, which are programs of the caller's"},
			{"internal/testenv/", "for tests: probes what the host can do"},
			{"internal/leak/", "for tests: asks nft for its tables"},
			{"examples/internal/clitest/", "for tests: runs the examples"},
			{"examples/ocirun/", "a program: ps(1) prints the table that its command ps is to print"},
			{"internal/bench/", "a program: times the programs of others"},
			{"internal/guest/", "for tests: qemu, and what makes its disk"},
		},
		faults: 4,
		bad: `import ("os"; "os/exec"; "syscall"; "golang.org/x/sys/unix")
			func f() { exec.Command("ls"); os.StartProcess("ls", nil, nil); unix.Exec("", nil, nil); syscall.ForkExec("", nil, nil) }`,
		good: `import ("os/exec"; e "example.com/exec"); var _, _ = exec.ErrWaitDelay, e.Command`,
	},
	{
		name:  "no change of the process",
		check: checkProcessState,
		allow: []allowance{
			{"internal/leak/", "for TestMain: a TMPDIR of the tests' own, no garbage collection"},
			{"examples/internal/clitest/", "for TestMain: ends the test or the program"},
			{"netns.go", "a thread of its own, which ends with it"},
			{"hooks_run.go", "kills the process group of a child that has not been waited for"},
			{"bpf_unsafe.go", "loads programs and attaches them to cgroups, changes nothing of the process"},
			{"landlock_plan.go", "asks the kernel for its version of Landlock, changes nothing"},
			{"ioctl_unsafe.go", "asks the kernel about a descriptor, changes nothing"},
			{"seccomp_notify_unsafe.go", "asks a descriptor and answers it, changes nothing of the process"},
			{"internal/bench/", "a program: a thread of its own that sees cgroup v2 only"},
		},
		faults: 23,
		bad: `import ("os"; "os/signal"; "syscall"; u "golang.org/x/sys/unix"; "log/slog")
			func f(d *os.File) {
				os.Chdir("/"); d.Chdir(); os.Setenv("", ""); os.Unsetenv(""); os.Clearenv()
				u.Umask(0); u.Setns(1, 0); u.Unshare(0); u.Chroot(""); u.Mount("", "", "", 0, ""); u.Unmount("", 0)
				u.PivotRoot("", ""); syscall.Setuid(0); syscall.AllThreadsSyscall(0, 0, 0, 0)
				u.Wait4(-1, nil, 0, nil); u.Waitid(u.P_ALL, 0, nil, 0, nil); signal.Ignore(); u.Prctl(u.PR_SET_DUMPABLE, 0, 0, 0, 0)
				u.RawSyscall(u.SYS_UNSHARE, 0, 0, 0); u.Kill(1, 9); slog.SetDefault(nil); os.Exit(1)
				g := os.Chdir; _ = g
			}`,
		good: `import ("os"; "golang.org/x/sys/unix")
			func f(pid int) { os.Getwd(); unix.Wait4(pid, nil, 0, nil); unix.Waitid(unix.P_PIDFD, 1, nil, 0, nil)
				unix.Prctl(unix.PR_CAPBSET_READ, 1, 0, 0, 0); _ = unix.SYS_UNSHARE; var os struct{ Chdir int }; _ = os.Chdir }`,
	},
	{
		name:  "signals are taken where the caller asks for it",
		check: checkNotify,
		allow: []allowance{
			{"signalforward.go", "the caller has started a forwarder"},
			{"console_attach.go", "the caller has attached a terminal; SIGWINCH and SIGCONT, which end no program"},
			{"examples/", "programs"},
			{"internal/guest/boot/", "a program"},
		},
		faults: 2,
		bad:    `import "os/signal"; func f(c chan os.Signal) { signal.Notify(c); signal.NotifyContext(nil) }`,
		good:   `import "os/signal"; func f(c chan os.Signal) { signal.Stop(c) }`,
	},
	{
		name:   "descriptors are close-on-exec",
		check:  checkCloseOnExec,
		faults: 13,
		bad: `import ("syscall"; "golang.org/x/sys/unix")
			func f(how *unix.OpenHow) {
				unix.Open("", unix.O_PATH, 0); syscall.Openat(1, "", unix.O_RDONLY, 0); unix.Openat2(1, "", how)
				some := unix.O_PATH; some = some|some; unix.Open("", some, 0)
				unix.MemfdCreate("", 0); unix.Dup3(1, 2, 0); unix.Dup(1); unix.Pipe2(nil, 0); unix.Pipe(nil)
				unix.Socket(1, 2, 0); unix.FcntlInt(1, unix.F_DUPFD, 0); unix.OpenTree(1, "", unix.OPEN_TREE_CLONE)
				unix.Recvmsg(1, nil, nil, 0)
			}`,
		good: `import "golang.org/x/sys/unix"
			func f(flags int) {
				unix.Open("", flags|unix.O_CLOEXEC, 0)
				how := unix.OpenHow{Flags: unix.O_CLOEXEC}; unix.Openat2(1, "", &how)
				unix.MemfdCreate("", unix.MFD_CLOEXEC); unix.Pipe2(nil, unix.O_CLOEXEC)
				unix.Recvmsg(1, nil, nil, unix.MSG_CMSG_CLOEXEC)
				const all = unix.O_PATH|unix.O_CLOEXEC; unix.Open("", all|unix.O_DIRECTORY, 0)
				unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 0); unix.FcntlInt(1, unix.F_GETFL, 0)
			}`,
	},
	{
		name:   "exported names are documented",
		check:  checkDocs,
		faults: 5,
		bad: `type T struct{}
			func F() {}
			func (T) M() {}
			const C = 1
			var V int`,
		good: `// T is documented, and Error is known from elsewhere.
			type T struct{}
			func (T) Error() string { return "" }
			func (t) M() {}
			type t struct{}
			// The numbers.
			const (
				C = 1
				D = 2 // D comes after C
			)
			func main() {}`,
	},
	{
		name:   "a file has a screenful of screens",
		check:  checkLength,
		faults: 1,
		bad:    strings.Repeat("\n", maxLines),
		good:   strings.Repeat("\n", maxLines/2),
	},
}

// maxLines is the length of the longest file; most have a third of it.
const maxLines = 450

// A rule finds what is wrong in a file, unless an allowance covers the file.
type rule struct {
	name      string
	check     func(*source)
	allow     []allowance
	bad, good string // code after a package clause
	faults    int    // in bad
}

// An allowance exempts files from a rule: those below a directory that ends in "/", or those
// whose base name matches a pattern.
type allowance struct{ files, reason string }

func (a allowance) covers(file string) bool {
	if strings.HasSuffix(a.files, "/") {
		return strings.HasPrefix(file, a.files)
	}
	matched, _ := path.Match(a.files, path.Base(file))
	return matched
}

// source is a parsed file together with what a rule has found in it.
type source struct {
	*ast.File
	path     string // relative to the module, with slashes
	lines    int
	fset     *token.FileSet
	imports  map[string]string // name in this file -> import path
	findings []string
}

func parseSource(file string, code []byte) (*source, error) {
	s := &source{path: file, fset: token.NewFileSet(), imports: map[string]string{}}
	tree, err := parser.ParseFile(s.fset, file, code, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	s.File, s.lines = tree, bytes.Count(code, []byte("\n"))
	for _, spec := range tree.Imports {
		importPath, _ := strconv.Unquote(spec.Path.Value)
		name := path.Base(importPath)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		s.imports[name] = importPath
	}
	return s, nil
}

func (s *source) complain(at ast.Node, format string, args ...any) {
	line := s.fset.Position(at.Pos()).Line
	s.findings = append(s.findings, fmt.Sprintf("%s:%d: %s", s.path, line, fmt.Sprintf(format, args...)))
}

// qualified returns the import path and the name, if the expression is a name of another package.
func (s *source) qualified(e ast.Node) (pkg, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	// The parser resolves the names of this file; those of packages stay unresolved.
	if x, ok := sel.X.(*ast.Ident); ok && x.Obj == nil {
		return s.imports[x.Name], sel.Sel.Name
	}
	return "", ""
}

// each calls f for each node of the file.
func (s *source) each(f func(ast.Node)) {
	ast.Inspect(s.File, func(n ast.Node) bool {
		if n != nil {
			f(n)
		}
		return true
	})
}

func isSyscall(pkg string) bool { return pkg == "syscall" || pkg == "golang.org/x/sys/unix" }

func checkUnsafe(s *source) {
	for _, spec := range s.Imports {
		if spec.Path.Value == `"unsafe"` {
			s.complain(spec, "imports unsafe")
		}
	}
}

func checkImports(s *source) {
	for _, spec := range s.Imports {
		if p := spec.Path.Value; p == `"C"` || p == `"log"` || p == `"plugin"` {
			s.complain(spec, "imports %s", p)
		}
	}
	for _, group := range s.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//go:linkname") || strings.HasPrefix(c.Text, "//go:cgo_") {
				s.complain(c, "%s", c.Text)
			}
		}
	}
}

func checkPrograms(s *source) {
	s.each(func(n ast.Node) {
		pkg, name := s.qualified(n)
		if pkg == "os/exec" && slices.Contains([]string{"Command", "CommandContext", "Cmd", "LookPath"}, name) {
			s.complain(n, "uses exec.%s", name)
		}
		if (pkg == "os" || isSyscall(pkg)) && slices.Contains([]string{"StartProcess", "ForkExec", "Exec"}, name) {
			s.complain(n, "uses %s.%s", path.Base(pkg), name)
		}
	})
}

// processState lists what changes the process of the caller, or a thread that others will use.
var processState = map[string][]string{
	"os":            {"Chdir", "Setenv", "Unsetenv", "Clearenv"},
	"os/signal":     {"Ignore", "Reset"},
	"log/slog":      {"SetDefault", "SetLogLoggerLevel"},
	"runtime":       {"GOMAXPROCS"},
	"runtime/debug": {"SetGCPercent", "SetMaxStack", "SetMaxThreads", "SetMemoryLimit", "SetPanicOnFault", "SetTraceback"},
	// Both syscall and unix.
	"syscall": {
		"Chdir", "Fchdir", "Chroot", "PivotRoot", "Umask", "Setns", "Unshare", "Mount", "Unmount",
		"Setuid", "Setgid", "Seteuid", "Setegid", "Setreuid", "Setregid", "Setresuid", "Setresgid",
		"Setfsuid", "Setfsgid", "Setgroups", "Setsid", "Setpgid", "Setrlimit", "Setpriority",
		"Setenv", "Unsetenv", "Clearenv", "Sethostname", "Setdomainname",
		"Capset", "KeyctlJoinSessionKeyring", "KeyctlSetReqKeyKeyring",
		"SchedSetaffinity", "SchedSetAttr", "IoprioSet", "Reboot",
		"AllThreadsSyscall", "AllThreadsSyscall6", "Syscall", "Syscall6", "RawSyscall", "RawSyscall6",
		"Kill", "Tgkill", // by number: it may be another process by now
	},
}

func checkProcessState(s *source) {
	s.each(func(n ast.Node) {
		pkg, name := s.qualified(n)
		key := pkg
		if isSyscall(pkg) {
			key = "syscall"
		}
		if slices.Contains(processState[key], name) {
			s.complain(n, "uses %s.%s", path.Base(pkg), name)
		}
		if pkg == "os" && name == "Exit" && s.Name.Name != "main" {
			s.complain(n, "ends the process")
		}
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 && !isMethod(s, call, "Chdir") {
			return
		}
		pkg, name = s.qualified(call.Fun)
		switch {
		case isMethod(s, call, "Chdir"):
			s.complain(n, "changes the working directory")
		case isSyscall(pkg) && name == "Wait4" && isText(call.Args[0], "-1"),
			isSyscall(pkg) && name == "Waitid" && isText(call.Args[0], "P_ALL"):
			s.complain(n, "waits for children of others")
		case isSyscall(pkg) && strings.HasPrefix(name, "Prctl") && !mentions(call.Args[0], readingPrctl):
			s.complain(n, "sets an attribute of the process or of a thread")
		}
	})
}

func checkNotify(s *source) {
	s.each(func(n ast.Node) {
		if pkg, name := s.qualified(n); pkg == "os/signal" && strings.HasPrefix(name, "Notify") {
			s.complain(n, "uses signal.%s", name)
		}
	})
}

// readingPrctl tells whether an operation of prctl only asks.
func readingPrctl(name string) bool {
	return strings.HasPrefix(name, "PR_GET_") || name == "PR_CAPBSET_READ" || name == "PR_CAP_AMBIENT_IS_SET"
}

// isMethod tells whether this is the call of a method with that name, and not of a package's function.
func isMethod(s *source, call *ast.CallExpr, name string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	pkg, _ := s.qualified(sel)
	return pkg == ""
}

// isText tells whether an expression reads like that: "-1", or a name with or without its package.
func isText(e ast.Expr, text string) bool {
	switch e := e.(type) {
	case *ast.UnaryExpr:
		return strings.HasPrefix(text, e.Op.String()) && isText(e.X, text[1:])
	case *ast.BasicLit:
		return e.Value == text
	case *ast.SelectorExpr:
		return e.Sel.Name == text
	case *ast.Ident:
		return e.Name == text
	}
	return false
}

// closeOnExec lists the calls that make descriptors and take a flag, and those that cannot.
var closeOnExec, neverCloseOnExec = []string{
	"Open", "Openat", "Openat2", "MemfdCreate", "Dup3", "Pipe2", "Socket", "Socketpair", "Accept4",
	"EpollCreate1", "Eventfd", "InotifyInit1", "FanotifyInit", "TimerfdCreate", "Signalfd",
	"Fsopen", "Fsmount", "Recvmsg", "Fspick", "OpenTree",
}, []string{"Dup", "Dup2", "Pipe", "Accept", "EpollCreate", "InotifyInit", "Creat"}

func checkCloseOnExec(s *source) {
	s.each(func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		pkg, name := s.qualified(call.Fun)
		if !isSyscall(pkg) {
			return
		}
		switch {
		case slices.Contains(neverCloseOnExec, name):
			s.complain(n, "%s makes a descriptor that is inherited", name)
		case slices.Contains(closeOnExec, name) && !mentions(call, closeFlag):
			s.complain(n, "%s without CLOEXEC", name)
		case name == "FcntlInt" && !mentions(call, closeFlag) &&
			mentions(call, func(name string) bool { return name == "F_DUPFD" }):
			s.complain(n, "F_DUPFD makes a descriptor that is inherited")
		}
	})
}

// closeFlag tells whether a name is that of a flag for close-on-exec.
func closeFlag(name string) bool { return strings.HasSuffix(name, "CLOEXEC") }

// mentions tells whether a name for which f is true stands in the tree, or where a variable or
// constant that stands there got its value in this file.
func mentions(tree ast.Node, f func(name string) bool) bool {
	seen, found := map[ast.Node]bool{}, false
	var look func(ast.Node) bool
	look = func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok {
			return !found
		}
		found = found || f(id.Name)
		if id.Obj == nil {
			return false
		}
		switch value := id.Obj.Decl.(type) {
		case *ast.ValueSpec, *ast.AssignStmt:
			if origin := value.(ast.Node); !seen[origin] {
				seen[origin] = true
				ast.Inspect(origin, look)
			}
		}
		return false
	}
	ast.Inspect(tree, look)
	return found
}

// wellKnown are methods of interfaces that everybody knows; a comment would only repeat the name.
var wellKnown = []string{
	"Error", "Unwrap", "Is", "As", "String", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON",
}

func checkDocs(s *source) {
	if s.Name.Name == "main" {
		return
	}
	for _, decl := range s.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			exempt := d.Recv != nil && (slices.Contains(wellKnown, d.Name.Name) || !exportedReceiver(d))
			if d.Name.IsExported() && d.Doc == nil && !exempt {
				s.complain(d, "%s has no comment", d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
						s.complain(spec, "%s has no comment", spec.Name.Name)
					}
				case *ast.ValueSpec:
					if spec.Names[0].IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
						s.complain(spec, "%s has no comment", spec.Names[0].Name)
					}
				}
			}
		}
	}
}

// exportedReceiver tells whether a method belongs to an exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	exported := false
	ast.Inspect(d.Recv.List[0].Type, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		exported = exported || ok && id.IsExported()
		return true
	})
	return exported
}

func checkLength(s *source) {
	if s.lines > maxLines {
		s.complain(s.File, "%d lines; more than %d are hard to find one's way in", s.lines, maxLines)
	}
}

// apply returns what a rule finds wrong in a file.
func (r rule) apply(file string, code []byte) ([]string, error) {
	for _, a := range r.allow {
		if a.covers(file) {
			return nil, nil
		}
	}
	s, err := parseSource(file, code)
	if err != nil {
		return nil, err
	}
	r.check(s)
	return s.findings, nil
}

// TestRules checks all files of the module.
func TestRules(t *testing.T) {
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		code, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, r := range slices.Concat(rules, pathRules) {
			findings, err := r.apply(filepath.ToSlash(file), code)
			if err != nil {
				return err
			}
			for _, f := range findings {
				t.Errorf("%s (%s)", f, r.name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRulesNeedTheirExceptions checks that there is something in the files that a rule leaves out: what is there for nothing would let
// pass what comes later.
func TestRulesNeedTheirExceptions(t *testing.T) {
	needed := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		code, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, r := range slices.Concat(rules, pathRules) {
			for _, a := range r.allow {
				if !a.covers(filepath.ToSlash(file)) || needed[r.name+a.files] {
					continue
				}
				without := r
				without.allow = nil
				found, err := without.apply(filepath.ToSlash(file), code)
				if err != nil {
					return err
				}
				needed[r.name+a.files] = len(found) > 0
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range slices.Concat(rules, pathRules) {
		for _, a := range r.allow {
			if !needed[r.name+a.files] {
				t.Errorf("%s: %s needs no exception", r.name, a.files)
			}
		}
	}
}

// TestRulesBite checks that each rule finds each fault of its bad example, none in the good one,
// and that an allowance works.
func TestRulesBite(t *testing.T) {
	for _, r := range slices.Concat(rules, pathRules) {
		t.Run(r.name, func(t *testing.T) {
			bad, err := r.apply("bad.go", []byte("package p\n"+r.bad))
			if err != nil || len(bad) != r.faults {
				t.Errorf("%v; of %d faults it finds %d:\n%s", err, r.faults, len(bad), strings.Join(bad, "\n"))
			}
			good, err := r.apply("good.go", []byte("package p\n"+r.good))
			if err != nil || len(good) != 0 {
				t.Errorf("%v; it complains about good code: %q", err, good)
			}
			for _, a := range r.allow {
				file := strings.ReplaceAll(a.files, "*", "x")
				if strings.HasSuffix(file, "/") {
					file += "x.go"
				}
				if found, _ := r.apply(file, []byte("package p\n"+r.bad)); len(found) != 0 {
					t.Errorf("%s is not exempt: %q", file, found)
				}
				if a.reason == "" {
					t.Errorf("%s is exempt for no reason", a.files)
				}
			}
		})
	}
}
