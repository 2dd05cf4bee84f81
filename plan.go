//go:build linux

package container

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"

	"example.com/container/internal/launch"
)

// This file holds the order in which a container is made: one table, the reason beside each row.
// It runs in the caller's process. A row turns its part of the configuration into system calls,
// which the launcher then makes in the new process; the rows are in the files of their nouns.

// A step is a row of the order. It adds nothing where the configuration asks for nothing.
type step struct {
	name string
	emit func(*plan) error
	why  string
}

// startSteps is the start of a container.
var startSteps = slices.Concat([]step{
	{"supervisor", (*plan).stepSupervisor, "the parent of all that follows, in none of its namespaces"},
	{"cgroup", (*plan).stepAdopt, "who is not born in the container's cgroup does nothing outside of it"},
	{"oom score", (*plan).stepOOMScore, "before /proc/self belongs to root, which it does when we are not dumpable, and with the caller's rights"},
	{"join namespaces", (*plan).stepJoin, "with the caller's rights, by descriptors opened before; a user namespace first, for the right to the rest"},
	{"user namespace", (*plan).stepUserNamespace, "it gives the right to all that follows; its maps are written while we are dumpable"},
	{"not dumpable", (*plan).stepNotDumpable, "from here on no process of the container may look into this one (CVE-2016-9962)"},
	{"clocks", (*plan).stepClocks, "offsets can be set while nobody is in the time namespace"},
	{"namespaces", (*plan).stepNamespaces, "the new ones, owned by the user namespace"},
	{"process 1", (*plan).stepFork, "only a child is in a new PID or time namespace"},
	{"record", (*plan).stepRecord, "as soon as it is the process that stays: from here on a caller who dies leaves its number"},
	{"parent death", (*plan).stepParentDeath, "the signal is lost in fork, so after it"},
	{"session", (*plan).stepSession, "a new session has no controlling terminal to push input into (CVE-2017-5226)"},
	{"signals", (*plan).stepSignals, "those which the caller ignores are no business of the program's; in a session of its own it gets none of the caller's terminal"},
	{"label of keys", (*plan).stepKeyLabel, "so that the keyring which comes next has it"},
	{"keyring", (*plan).stepKeyring, "the caller's session keyring must not be searchable from inside"},
	{"own label of keys", (*plan).stepOwnKeyLabel, "for nothing but that keyring"},
	{"placed", (*plan).stepPlaced, "where the process is it stays; the caller looks while we go on"},
	{"loopback", (*plan).stepLoopback, "a network namespace starts with lo down"},
	{"network", (*plan).stepNetwork, "the caller connects the namespace while we go on with the mounts; sockets of its relay are made with our rights"},
	{"sources", (*plan).stepSources, "what comes from the host is copied while its paths mean what the caller meant"},
	{"private", (*plan).stepPrivate, "no mount that follows may travel to the host"},
	{"scratch", (*plan).stepScratch, "before the root: what lies on top of that would be what \"..\" leads to in it"},
	{"root", (*plan).stepRoot, "attached before the mounts: Linux before 6.15 mounts nothing on a detached tree"},
	{"mounts", (*plan).stepMounts, "in the configuration's order, each on a descriptor of its target"},
	{"dev", (*plan).stepDev, "always our own tmpfs, filled through its descriptor"},
	{"hosts and names", (*plan).stepNetworkFiles, "files of our own over those of the root, which are looked up in it (CVE-2015-3629) and never written"},
	{"console", (*plan).stepConsole, "a terminal of the container's own devpts, while /dev is in our hands only (CVE-2025-52565)"},
	{"host name", (*plan).stepHostname, "after the namespaces, any time before the capabilities go"},
	{"connected", (*plan).stepConnected, "parameters and hooks may be about the devices"},
	{"sysctls", (*plan).stepSysctls, "through a procfs that is attached nowhere, so that no mount can redirect them (CVE-2025-52881)"},
	{"masks", (*plan).stepMasks, "after the mounts they lie on; what masks is a file system of our own (CVE-2025-31133)"},
	{"read-only paths", (*plan).stepReadonlyPaths, "one copy, made read-only before it is attached"},
	{"working directory", (*plan).stepWorkdir, "made if missing, so before the root is read-only; kept as a descriptor (CVE-2024-21626)"},
	{"read-only root", (*plan).stepReadonlyRoot, "when nothing needs to be made in it any more"},
	{"hooks before the pivot", (*plan).stepCreateHooks, "all is set up, and the host's tree is still there for them"},
	{"pivot", (*plan).stepPivot, "the host's tree is gone from here on; never chroot, which can be left"},
}, processSteps, []step{
	{"verified", (*plan).stepVerified, "the caller has seen from outside that it is all as asked for, before anything of the container's runs"},
	{"seccomp agent", (*plan).stepAgent, "what it is told has the process's number, which the caller knows, who may be gone after the gate"},
	{"gate", (*plan).stepGate, "all is set up: whoever starts the container lets it go on"},
	{"hooks of the start", (*plan).stepStartHooks, "as the program that comes next, before anything of it"},
	{"close", (*plan).stepClose, "all but the streams, the extra files and the socket, which goes with execve"},
	{"init", (*plan).stepInit, "process 1 stays behind, with no more rights than the program and before its filter"},
	{"terminal", (*plan).takeTerminal, "by the process that executes the program, which gets its signals"},
	{"last word", (*plan).stepLastWord, "to a caller who will not see how a detached process ends; the filter may not let us speak"},
	{"seccomp", (*plan).stepSeccomp, "last, so that the filter need not allow any of the above; without no_new_privs with CAP_SYS_ADMIN, which execve takes away"},
	{"execute", (*plan).stepExecute, "the socket closes: the parent knows that it worked"},
})

// processSteps are what a start and a join have in common: who the process is and what it may do, in the
// container that is around it by then.
var processSteps = []step{
	{"streams", (*plan).stepStreams, "so that the user can open /dev/stdout again"},
	{"limits", (*plan).stepLimits, "rlimits, umask, scheduler, personality: while we still may raise them"},
	{"security label", (*plan).stepLabel, "of the program, while our own label still lets us ask for it"},
	{"no new privileges", (*plan).stepNoNewPrivileges, "before seccomp: an unprivileged filter needs it"},
	{"landlock", (*plan).stepLandlock, "it needs no_new_privs or a capability that goes next, and paths of the container's"},
	{"bounding set", (*plan).stepBounding, "dropping needs CAP_SETPCAP, so before the user is changed"},
	{"enter directory", (*plan).stepEnterWorkdir, "as root, who may enter what the user may not, such as /root"},
	{"user", (*plan).stepUser, "groups, then group, then user: the other way round is not allowed any more"},
	{"capabilities", (*plan).stepCapabilities, "changing the user has cleared the effective set; the rest goes here"},
	{"enter directory as user", (*plan).stepReenterWorkdir, "who may enter what root may not, on a network file system"},
	{"to be verified", (*plan).stepVerify, "who the process is and what it may do is as it stays; the caller looks while we go on"},
	{"executable", (*plan).stepLookup, "looked up in the container, as the user, before the filter that might forbid it"},
}

// A plan is a start being compiled.
type plan struct {
	emitter
	cfg  *Config
	proc *Process
	log  *slog.Logger

	// Decided before the first step.
	userns     usernsMode
	uidMaps    []IDMap // of the new user namespace
	gidMaps    []IDMap
	keptUserns *os.File
	staged     bool // the launcher makes the namespaces, not os/exec
	user       execUser
	env        []string
	caps       capSets
	labels     labels
	stdio      stdioFiles
	into       *target // the container to join; nil for one to be started
	files      closers // opened for the launcher; ours to close after the start
	launchFiles

	// Descriptors in the launcher, set by one step for a later one.
	clocks   launch.Arg    // the file of the time namespace's offsets
	root     launch.Arg    // the container's root
	sources  []mountSource // of cfg.Mounts
	dev      launch.Arg    // the container's /dev
	terminal launch.Arg    // the process's
	trees    []kernelTree  // what is on /proc and /sys
	mask     launch.Arg    // a file system with an empty file and an empty directory
	netFiles launch.Arg    // a file system with hosts and the like, see network_files.go
	nodes    launch.Arg    // a file system that holds the device nodes, with DevicesOnly
	cwd      launch.Arg
	entered  launch.Arg // whether root could enter it
	path     launch.Arg // the executable's path, found by the lookup

	procFS launch.Arg // the caller's /proc

	behindGate int // the first call after it

	profile *SeccompProfile // with the rules that Landlock needs; nil for none
	filter  *seccompFilter  // of the program, made from it; nil for none
	walls   []wall

	listener *listenerLink        // of a filter that asks; else nil
	describe func(pid int) []byte // the state of the container, for an agent
	// What the process is compared with, from outside.
	joined  map[NamespaceKind]uint64 // the numbers of the namespaces of others
	rootDir fileID                   // the root, if it is a directory as it is

	hooks   hookFiles
	onHooks func(ctx context.Context, tag uint32, h *hookFiles, pid int) error // called when the launcher waits for hooks
}

// closers are files to be closed together.
type closers []*os.File

func (c closers) close() {
	for _, f := range c {
		f.Close()
	}
}

// newPlan resolves what the steps need and compiles them. It takes ownership of the launcher's files but for
// the lock; a plan that is not started has none.
func newPlan(cfg *Config, proc *Process, stdio stdioFiles, files *launchFiles) (*plan, error) {
	pl := &plan{cfg: cfg, proc: proc, log: cfg.logger(), stdio: stdio}
	if files != nil {
		pl.launchFiles = *files
	} else {
		pl.network = explainedNetwork(cfg)
	}
	err := pl.resolve()
	if err == nil {
		err = pl.compile(startSteps)
	}
	if err != nil {
		pl.closeAll()
		return nil, err
	}
	return pl, nil
}

// supervised tells whether the process gets a parent that stays: the first process of a detached container.
func (pl *plan) supervised() bool { return pl.cfg.Detached && pl.into == nil }

// closeAll closes all that is open for the launcher.
func (pl *plan) closeAll() {
	pl.files.close()
	pl.closeFiles()
	pl.listener.close()
	pl.hooks.close()
}

// compile lets each step add its calls.
func (pl *plan) compile(steps []step) error {
	pl.emitter = emitter{launch.New(len(pl.proc.ExtraFiles)), make(map[[4]launch.Arg]launch.Arg, 32)}
	for _, s := range steps {
		pl.Step(s.name, "")
		if err := s.emit(pl); err != nil {
			return err
		}
	}
	return pl.fillWalls()
}

// Explain returns the list of system calls that starting p in a container with this configuration
// would make, one a line, much as strace(1) prints them, grouped by step. Nothing is started
// and nothing changed. The listing is for people; its form may change.
func Explain(cfg Config, p *Process) (string, error) {
	if err := cfg.validate(); err != nil {
		return "", err
	}
	if err := p.validateFor(&cfg, true); err != nil {
		return "", err
	}
	pl, err := newPlan(&cfg, p, stdioFiles{}, nil)
	if err != nil {
		return "", err
	}
	defer pl.closeAll()
	return pl.String(), nil
}

// ExplainOrder returns the steps of a start in their order, each with the reason why it stands
// where it stands.
func ExplainOrder() string {
	var b strings.Builder
	for _, s := range startSteps {
		b.WriteString(s.name + ": " + s.why + "\n")
	}
	return b.String()
}

func (c *Config) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}
