//go:build linux

// Ocirun is an OCI runtime: a command line with the commands, flags, messages and exit codes of runc,
// over the package container.
//
//	go build ./examples/ocirun
//	podman --runtime "$PWD/ocirun" run --rm -it alpine
//
// Limits, statistics, events and pauses need a cgroup, which the container gets where there are any; podman's --cgroup-manager
// can be cgroupfs or systemd, also of an ordinary user. Where the controller of a limit is missing, the container is refused.
//
// An AppArmor profile or an SELinux label is applied, or refused where the kernel has no such module, but for "unconfined".
// Where linux.cgroupsPath has the form slice:prefix:name systemd makes the
// cgroup, with or without --systemd-cgroup.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func main() { os.Exit(run(os.Args[1:])) }

// An app is one call of the program: the global flags, and what they have been turned into.
type app struct {
	root          string
	log           string
	logFormat     string
	debug         bool
	systemdCgroup bool
	cgroupManager string
	logger        *slog.Logger
}

// A command is one of the program's commands.
type command struct {
	name  string
	args  string // for the usage line
	about string
	min   int // arguments
	max   int // -1: any number
	// setup defines the command's flags, and returns what to do once they are parsed.
	setup func(a *app, flags *flag.FlagSet) func(args []string) (code int, err error)
}

// commands are all commands, in the order of their names.
var commands = []command{
	{"checkpoint", "<container-id>", "checkpoint a running container", 0, -1, later("checkpoints")},
	{"create", "<container-id>", "create a container", 1, 1, createCommand},
	{"delete", "<container-id>", "delete any resources held by a container", 1, 1, deleteCommand},
	{"events", "<container-id>", "display container events such as OOM notifications and resource usage", 1, 1, eventsCommand},
	{"exec", "<container-id> <command> [args]...", "execute a new process inside the container", 1, -1, execCommand},
	{"features", "", "show the enabled features", 0, 0, featuresCommand},
	{"kill", "<container-id> [signal]", "send a signal (default: SIGTERM) to the container's init process", 1, 2, killCommand},
	{"list", "", "list the containers of the given root", 0, 0, listCommand},
	{"pause", "<container-id>", "suspend all processes inside the container", 1, 1, pauseCommand},
	{"ps", "<container-id> [ps options]", "display the processes inside a container", 1, -1, psCommand},
	{"restore", "<container-id>", "restore a container from a checkpoint", 0, -1, later("checkpoints")},
	{"resume", "<container-id>", "resume all processes that have been paused", 1, 1, resumeCommand},
	{"run", "<container-id>", "create and run a container", 1, 1, runCommand},
	{"spec", "", "create a new specification file", 0, 0, specCommand},
	{"start", "<container-id>", "execute the user defined process in a created container", 1, 1, startCommand},
	{"state", "<container-id>", "output the state of a container", 1, 1, stateCommand},
	{"update", "<container-id>", "update container resource constraints", 1, 1, updateCommand},
}

// later stands for a command that needs what this package cannot do yet.
func later(what string) func(*app, *flag.FlagSet) func([]string) (int, error) {
	return func(*app, *flag.FlagSet) func([]string) (int, error) {
		return func([]string) (int, error) { return 1, fmt.Errorf("not supported yet: it needs %s", what) }
	}
}

// run is the program: it returns the exit code.
func run(args []string) int {
	a := &app{}
	flags := newFlags("ocirun", usage)
	flags.StringVar(&a.root, "root", "", "root `directory` for storage of container state (default /run/ocirun, or $XDG_RUNTIME_DIR/ocirun)")
	flags.StringVar(&a.log, "log", "", "log `file` (default: standard error)")
	flags.StringVar(&a.logFormat, "log-format", "text", "`format` of the log: text or json")
	flags.BoolVar(&a.debug, "debug", false, "log more")
	flags.BoolVar(&a.systemdCgroup, "systemd-cgroup", false, "linux.cgroupsPath must be of the form slice:prefix:name")
	flags.StringVar(&a.cgroupManager, "cgroup-manager", "", "crun's word for the same: cgroupfs, systemd or disabled, which makes none")
	flags.String("rootless", "auto", "taken and ignored: it is found out")
	flags.String("criu", "", "taken and ignored: there are no checkpoints yet")
	version := flags.Bool("version", false, "print the version")
	flags.BoolVar(version, "v", false, "print the version")
	if code, done := parse(flags, args); done {
		return code
	}
	if *version {
		printVersion(os.Stdout)
		return 0
	}
	if flags.NArg() == 0 || flags.Arg(0) == "help" || flags.Arg(0) == "h" {
		flags.SetOutput(os.Stdout)
		usage(flags)
		return 0
	}
	closeLog, err := a.openLog()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer closeLog()
	if a.root, err = stateRoot(a.root); err != nil {
		return a.fail(1, err)
	}
	return a.command(flags.Arg(0), flags.Args()[1:])
}

// command runs one command.
func (a *app) command(name string, args []string) int {
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == name })
	if i < 0 {
		fmt.Fprintf(os.Stderr, "No help topic for '%s'\n", name)
		return 3
	}
	cmd := commands[i]
	flags := newFlags("ocirun "+name, func(f *flag.FlagSet) { commandUsage(f, cmd) })
	do := cmd.setup(a, flags)
	if cmd.max < 0 && cmd.min == 0 { // takes what it does not know, and says why it does nothing
		args = nil
	}
	if code, done := parse(flags, args); done {
		return code
	}
	if n := flags.NArg(); n < cmd.min || cmd.max >= 0 && n > cmd.max {
		fmt.Fprint(os.Stderr, "Incorrect Usage.\n\n")
		flags.Usage()
		return a.fail(1, fmt.Errorf("ocirun: %q requires %s", name, arguments(cmd)))
	}
	code, err := do(flags.Args())
	if err != nil {
		return a.fail(code, err)
	}
	return code
}

// arguments says how many arguments a command takes.
func arguments(cmd command) string {
	switch {
	case cmd.min == cmd.max:
		return fmt.Sprintf("exactly %d argument(s)", cmd.min)
	case cmd.max < 0:
		return fmt.Sprintf("a minimum of %d argument(s)", cmd.min)
	}
	return fmt.Sprintf("between %d and %d argument(s)", cmd.min, cmd.max)
}

func newFlags(name string, usage func(*flag.FlagSet)) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(os.Stderr)
	f.Usage = func() { usage(f) }
	return f
}

// parse parses flags; done tells that there is nothing more to do.
func parse(f *flag.FlagSet, args []string) (code int, done bool) {
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0, true
	case err != nil:
		return 1, true
	}
	return 0, false
}

func usage(f *flag.FlagSet) {
	out := f.Output()
	fmt.Fprint(out, "NAME:\n   ocirun - an OCI runtime over the package container\n\n"+
		"USAGE:\n   ocirun [global options] command [command options] [arguments...]\n\nCOMMANDS:\n")
	table := tabwriter.NewWriter(out, 0, 1, 2, ' ', 0)
	for _, c := range commands {
		fmt.Fprintf(table, "   %s\t%s\n", c.name, c.about)
	}
	table.Flush()
	fmt.Fprint(out, "\nGLOBAL OPTIONS:\n")
	f.PrintDefaults()
}

func commandUsage(f *flag.FlagSet, c command) {
	out := f.Output()
	fmt.Fprintf(out, "NAME:\n   ocirun %s - %s\n\nUSAGE:\n   ocirun %s [command options] %s\n\nOPTIONS:\n", c.name, c.about, c.name, c.args)
	f.PrintDefaults()
}

func printVersion(w io.Writer) {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = strings.Trim(info.Main.Version, "()")
	}
	fmt.Fprintf(w, "ocirun version %s\nspec: %s\n", version, specs.Version)
}

// stateRoot is where the containers are recorded. Root of a user namespace, as under rootless podman, is
// an ordinary user on the host.
func stateRoot(asked string) (string, error) {
	if asked != "" {
		return filepath.Abs(asked)
	}
	if os.Geteuid() == 0 && !inUserNamespace() {
		return "/run/ocirun", nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "ocirun"), nil
	}
	return "", errors.New("no place for the state of containers: set XDG_RUNTIME_DIR, or use --root")
}

func inUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(text))
	return err == nil && (len(fields) != 3 || fields[2] != "4294967295")
}

// stringList is a flag that can be given several times.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

// Set adds a value.
func (l *stringList) Set(value string) error {
	*l = append(*l, value)
	return nil
}
